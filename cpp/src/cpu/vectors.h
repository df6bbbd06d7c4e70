// Vectors of numbers with one lane per channel, for the files that are compiled once for each instruction set. All of it
// has internal linkage: the linker would be free to keep one copy for the whole library, the one built for an
// instruction set that the machine may not have.
#pragma once

#include <cstdint>

#include "cpu/prefetch.h"
#include "half.h"
#include "recurrence.h"

namespace treescan {
namespace {

// The most bytes that one register holds. Compilers take longer vectors to pieces badly.
#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

#if defined(__GNUC__)
template <class T, int Bytes>
struct VectorOf;
#define TREESCAN_VECTOR(type, bytes)                       \
  template <>                                              \
  struct VectorOf<type, bytes> {                           \
    typedef type Type __attribute__((vector_size(bytes))); \
  };
TREESCAN_VECTOR(float, 8)
TREESCAN_VECTOR(float, 16)
TREESCAN_VECTOR(float, 32)
TREESCAN_VECTOR(float, 64)
TREESCAN_VECTOR(double, 16)
TREESCAN_VECTOR(double, 32)
TREESCAN_VECTOR(double, 64)
TREESCAN_VECTOR(int64_t, 8)
TREESCAN_VECTOR(int64_t, 16)
TREESCAN_VECTOR(int64_t, 32)
TREESCAN_VECTOR(int64_t, 64)
TREESCAN_VECTOR(int32_t, 8)
TREESCAN_VECTOR(int32_t, 16)
TREESCAN_VECTOR(int32_t, 32)
TREESCAN_VECTOR(int32_t, 64)
TREESCAN_VECTOR(uint32_t, 8)
TREESCAN_VECTOR(uint32_t, 16)
TREESCAN_VECTOR(uint32_t, 32)
TREESCAN_VECTOR(uint32_t, 64)
#undef TREESCAN_VECTOR
#else
template <class T, int Bytes>
struct VectorOf {
  struct Type {
    T lane[Bytes / sizeof(T)];
#define TREESCAN_OPERATOR(op)                                                                     \
  friend Type operator op(const Type &a, const Type &b) {                                         \
    Type result;                                                                                  \
    for (int i = 0; i < static_cast<int>(Bytes / sizeof(T)); ++i) result.lane[i] = a.lane[i] op b.lane[i]; \
    return result;                                                                                \
  }
    TREESCAN_OPERATOR(+)
    TREESCAN_OPERATOR(-)
    TREESCAN_OPERATOR(*)
#undef TREESCAN_OPERATOR
  };
};
#endif

// Copies of a size known when compiling.
template <class To>
TREESCAN_FORMULA To read_bytes(const void *address) {
  To value;
#if defined(__GNUC__)
  __builtin_memcpy(&value, address, sizeof value);
#else
  for (unsigned i = 0; i < sizeof value; ++i) reinterpret_cast<char *>(&value)[i] = static_cast<const char *>(address)[i];
#endif
  return value;
}

template <class From>
TREESCAN_FORMULA void write_bytes(void *address, const From &value) {
#if defined(__GNUC__)
  __builtin_memcpy(address, &value, sizeof value);
#else
  for (unsigned i = 0; i < sizeof value; ++i) static_cast<char *>(address)[i] = reinterpret_cast<const char *>(&value)[i];
#endif
}

// How each dtype is stored and what it is computed in.
struct Float32 {
  using Stored = float;
  using Computed = float;
};
struct Float64 {
  using Stored = double;
  using Computed = double;
};
// The half types: Bits and Float as in half.h.
struct Float16 {
  using Stored = uint16_t;
  using Computed = float;
  template <class Float, class Bits>
  TREESCAN_FORMULA Float widen(Bits bits) { return half_to_float<Float>(bits); }
  template <class Bits, class Float>
  TREESCAN_FORMULA Bits narrow(Float value) { return float_to_half<Bits>(value); }
};
struct BFloat16 {
  using Stored = uint16_t;
  using Computed = float;
  template <class Float, class Bits>
  TREESCAN_FORMULA Float widen(Bits bits) { return bfloat16_to_float<Float>(bits); }
  template <class Bits, class Float>
  TREESCAN_FORMULA Bits narrow(Float value) { return float_to_bfloat16<Bits>(value); }
};

template <class Type>
constexpr bool is_half = sizeof(typename Type::Stored) == 2;

// One number.
template <class Type>
TREESCAN_FORMULA typename Type::Computed load_one(typename Type::Stored stored) {
  if constexpr (is_half<Type>) {
    return Type::template widen<float>(static_cast<uint32_t>(stored));
  } else {
    return stored;
  }
}
template <class Type>
TREESCAN_FORMULA typename Type::Stored store_one(typename Type::Computed value) {
  if constexpr (is_half<Type>) {
    return static_cast<uint16_t>(Type::template narrow<uint32_t>(value));
  } else {
    return value;
  }
}

#if defined(__GNUC__)
// Half types come two to a 32-bit word: the channels at the words' lower ends and those at the upper ones are a vector
// each, so that no lane ever moves.
template <int Bytes>
struct Pair {
  using Vector = typename VectorOf<float, Bytes / 2>::Type;
  using Words = typename VectorOf<uint32_t, Bytes / 2>::Type;
  Vector lower, upper;
#define TREESCAN_OPERATOR(op)                                                                        \
  friend __attribute__((always_inline)) inline Pair operator op(const Pair &a, const Pair &b) {      \
    return {a.lower op b.lower, a.upper op b.upper};                                                 \
  }
  TREESCAN_OPERATOR(+)
  TREESCAN_OPERATOR(-)
  TREESCAN_OPERATOR(*)
#undef TREESCAN_OPERATOR
};
template <class T, int Bytes, bool Half>
struct VectorFor : VectorOf<T, Bytes> {};
template <class T, int Bytes>
struct VectorFor<T, Bytes, true> {
  using Type = Pair<Bytes>;
};
#else
template <class T, int Bytes, bool Half>
struct VectorFor : VectorOf<T, Bytes> {};
#endif

// What a kernel computes with: Bytes bytes of channels.
template <class Type, int Bytes>
struct Lanes {
  using T = typename Type::Computed;
  using Vector = typename VectorFor<T, Bytes, is_half<Type>>::Type;
  static constexpr int stored_bytes = Bytes / static_cast<int>(sizeof(T)) * static_cast<int>(sizeof(typename Type::Stored));

  // To and from the type that is computed in. (Member by member: compilers copy whole structures through the stack.)
  TREESCAN_FORMULA Vector read(const char *address) {
#if defined(__GNUC__)
    if constexpr (is_half<Type>) {
      using Half = typename Vector::Vector;
      return {read_bytes<Half>(address), read_bytes<Half>(address + Bytes / 2)};
    }
#endif
    return read_bytes<Vector>(address);
  }
  TREESCAN_FORMULA void write(char *address, const Vector &value) {
#if defined(__GNUC__)
    if constexpr (is_half<Type>) {
      write_bytes(address, value.lower);
      write_bytes(address + Bytes / 2, value.upper);
      return;
    }
#endif
    write_bytes(address, value);
  }

  // To and from the stored type.
  TREESCAN_FORMULA Vector load(const char *address) {
    if constexpr (!is_half<Type>) {
      return read_bytes<Vector>(address);
    } else {
#if defined(__GNUC__)
      using Half = typename Vector::Vector;
      const auto words = read_bytes<typename Vector::Words>(address);
      return {Type::template widen<Half>(words & 0xffffu), Type::template widen<Half>(words >> 16)};
#else
      Vector value;
      for (int l = 0; l < stored_bytes / 2; ++l) value.lane[l] = load_one<Type>(reinterpret_cast<const uint16_t *>(address)[l]);
      return value;
#endif
    }
  }
  TREESCAN_FORMULA void store(char *address, const Vector &value) {
    if constexpr (!is_half<Type>) {
      write_bytes(address, value);
    } else {
#if defined(__GNUC__)
      using Words = typename Vector::Words;
      write_bytes(address, Type::template narrow<Words>(value.lower) | Type::template narrow<Words>(value.upper) << 16);
#else
      for (int l = 0; l < stored_bytes / 2; ++l) reinterpret_cast<uint16_t *>(address)[l] = store_one<Type>(value.lane[l]);
#endif
    }
  }
};

}  // namespace
}  // namespace treescan
