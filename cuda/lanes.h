// What a thread of a scan loads, computes with and stores in one piece: some channels of a vertex, one to a lane.
#pragma once

#include <type_traits>

#include "device.h"
#include "formula.h"
#include "half.h"

namespace treescan::cuda {

// The half types, as they are stored. They are computed in float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class S>
using Computed = std::conditional_t<sizeof(S) == 2, float, S>;

// From the stored type to the computed one, back, or to the same.
template <class To, class From>
__device__ __forceinline__ To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<From, Float16>) {
    return half_bits_to_float(value.bits);
  } else if constexpr (std::is_same_v<From, BFloat16>) {
    return bfloat16_bits_to_float(value.bits);
  } else if constexpr (std::is_same_v<To, Float16>) {
    return {float_to_half_bits(value)};
  } else {
    return {float_to_bfloat16_bits(value)};
  }
}

template <class T, int N>
struct alignas(N * sizeof(T)) Lanes {
  T lane[N];

  TREESCAN_MEMBER static Lanes all(T value) {
    Lanes result;
    for (int l = 0; l < N; ++l) result.lane[l] = value;
    return result;
  }

#define TREESCAN_OPERATOR(op)                                                \
  friend TREESCAN_MEMBER Lanes operator op(const Lanes &a, const Lanes &b) { \
    Lanes result;                                                            \
    for (int l = 0; l < N; ++l) result.lane[l] = a.lane[l] op b.lane[l];     \
    return result;                                                           \
  }
  TREESCAN_OPERATOR(+)
  TREESCAN_OPERATOR(-)
  TREESCAN_OPERATOR(*)
#undef TREESCAN_OPERATOR
};

template <class To, class From, int N>
__device__ __forceinline__ Lanes<To, N> convert(const Lanes<From, N> &lanes) {
  if constexpr (std::is_same_v<To, From>) {
    return lanes;
  } else {
    Lanes<To, N> converted;
    for (int l = 0; l < N; ++l) converted.lane[l] = convert<To>(lanes.lane[l]);
    return converted;
  }
}

// As computed with, a vector is 16 bytes; those of half types are 8 bytes in memory.
template <class S>
constexpr int vector_lanes = static_cast<int>(16 / sizeof(Computed<S>));

// What is loaded and stored by one instruction.
template <size_t Bytes>
using Piece = std::conditional_t<
    Bytes == 16, uint4,
    std::conditional_t<Bytes == 8, uint2, std::conditional_t<Bytes == 4, unsigned, unsigned short>>>;

// One thread's lanes of the rows of all vertices.
template <class S, int N>
struct Rows {
  using Stored = Lanes<S, N>;
  using Vector = Lanes<Computed<S>, N>;
  char *data;      // the thread's first lane in the row of vertex 0
  int64_t stride;  // from a row to the next, in bytes

  __device__ __forceinline__ Stored get(int64_t v) const { return cast_bits<Stored>(*piece(v)); }
  __device__ __forceinline__ void put(int64_t v, const Stored &lanes) const {
    *piece(v) = cast_bits<Piece<sizeof(Stored)>>(lanes);
  }

  // As computed with.
  __device__ __forceinline__ Vector load(int64_t v) const { return convert<Computed<S>>(get(v)); }
  __device__ __forceinline__ void store(int64_t v, const Vector &value) const { put(v, convert<S>(value)); }

 private:
  __device__ __forceinline__ Piece<sizeof(Stored)> *piece(int64_t v) const {
    return reinterpret_cast<Piece<sizeof(Stored)> *>(data + v * stride);
  }
};

}  // namespace treescan::cuda
