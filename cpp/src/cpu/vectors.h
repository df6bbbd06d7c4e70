// Vectors of numbers with one lane per channel, for the files that are compiled once for each instruction set. All of it
// has internal linkage: the linker would be free to keep one copy for the whole library, the one built for an
// instruction set that the machine may not have.
#pragma once

#include <cstdint>

#include "half.h"
#include "recurrence.h"

namespace treescan {
namespace {

#if defined(__GNUC__)
template <class T, int Bytes>
struct VectorOf;
#define TREESCAN_VECTOR(type, bytes)                       \
  template <>                                              \
  struct VectorOf<type, bytes> {                           \
    typedef type Type __attribute__((vector_size(bytes))); \
  };
TREESCAN_VECTOR(float, 16)
TREESCAN_VECTOR(float, 32)
TREESCAN_VECTOR(float, 64)
TREESCAN_VECTOR(double, 16)
TREESCAN_VECTOR(double, 32)
TREESCAN_VECTOR(double, 64)
TREESCAN_VECTOR(int64_t, 16)
TREESCAN_VECTOR(int64_t, 32)
TREESCAN_VECTOR(int64_t, 64)
TREESCAN_VECTOR(uint32_t, 16)
TREESCAN_VECTOR(uint32_t, 32)
TREESCAN_VECTOR(uint32_t, 64)
TREESCAN_VECTOR(uint16_t, 8)
TREESCAN_VECTOR(uint16_t, 16)
TREESCAN_VECTOR(uint16_t, 32)
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

// The vector, or zeros of either sign's absence: `keep` is all ones or all zeros.
template <class T, int Bytes>
TREESCAN_FORMULA typename VectorOf<T, Bytes>::Type keep_if(int64_t keep, typename VectorOf<T, Bytes>::Type value) {
#if defined(__GNUC__)
  using Bits = typename VectorOf<int64_t, Bytes>::Type;
  return (typename VectorOf<T, Bytes>::Type)((Bits)value & (Bits{} + keep));
#else
  for (T &lane : value.lane) lane = keep ? lane : T(0);
  return value;
#endif
}

TREESCAN_FORMULA void prefetch(const void *address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 2);
#else
  (void)address;
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

// A vector that has Bytes bytes in the type that is computed in.
template <class Type, int Bytes>
TREESCAN_FORMULA typename VectorOf<typename Type::Computed, Bytes>::Type load_vector(const char *address) {
  using Vector = typename VectorOf<typename Type::Computed, Bytes>::Type;
  if constexpr (!is_half<Type>) {
    return read_bytes<Vector>(address);
  } else {
#if defined(__GNUC__)
    using Bits = typename VectorOf<uint32_t, Bytes>::Type;
    const auto halves = read_bytes<typename VectorOf<uint16_t, Bytes / 2>::Type>(address);
    return Type::template widen<Vector>(__builtin_convertvector(halves, Bits));
#else
    Vector value;
    for (int l = 0; l < Bytes / 4; ++l) value.lane[l] = load_one<Type>(reinterpret_cast<const uint16_t *>(address)[l]);
    return value;
#endif
  }
}
template <class Type, int Bytes>
TREESCAN_FORMULA void store_vector(char *address, typename VectorOf<typename Type::Computed, Bytes>::Type value) {
  if constexpr (!is_half<Type>) {
    write_bytes(address, value);
  } else {
#if defined(__GNUC__)
    using Bits = typename VectorOf<uint32_t, Bytes>::Type;
    using Halves = typename VectorOf<uint16_t, Bytes / 2>::Type;
    write_bytes(address, __builtin_convertvector(Type::template narrow<Bits>(value), Halves));
#else
    for (int l = 0; l < Bytes / 4; ++l) reinterpret_cast<uint16_t *>(address)[l] = store_one<Type>(value.lane[l]);
#endif
  }
}

// A vector that waits in a place of the stored type and, for half types, in a second one for the lower bits.
template <class Type, int Bytes>
TREESCAN_FORMULA typename VectorOf<typename Type::Computed, Bytes>::Type read_split(const char *place, const char *rest) {
  using Vector = typename VectorOf<typename Type::Computed, Bytes>::Type;
  if constexpr (!is_half<Type>) {
    return read_bytes<Vector>(place);
  } else {
#if defined(__GNUC__)
    using Bits = typename VectorOf<uint32_t, Bytes>::Type;
    using Halves = typename VectorOf<uint16_t, Bytes / 2>::Type;
    return cast_bits<Vector>(__builtin_convertvector(read_bytes<Halves>(place), Bits) << 16 |
                             __builtin_convertvector(read_bytes<Halves>(rest), Bits));
#else
    Vector value;
    for (int l = 0; l < Bytes / 4; ++l)
      value.lane[l] = cast_bits<float>(static_cast<uint32_t>(reinterpret_cast<const uint16_t *>(place)[l]) << 16 |
                                       reinterpret_cast<const uint16_t *>(rest)[l]);
    return value;
#endif
  }
}
template <class Type, int Bytes>
TREESCAN_FORMULA void write_split(char *place, char *rest, typename VectorOf<typename Type::Computed, Bytes>::Type value) {
  if constexpr (!is_half<Type>) {
    write_bytes(place, value);
  } else {
#if defined(__GNUC__)
    using Bits = typename VectorOf<uint32_t, Bytes>::Type;
    using Halves = typename VectorOf<uint16_t, Bytes / 2>::Type;
    const Bits bits = cast_bits<Bits>(value);
    write_bytes(place, __builtin_convertvector(bits >> 16, Halves));
    write_bytes(rest, __builtin_convertvector(bits, Halves));
#else
    for (int l = 0; l < Bytes / 4; ++l) {
      const uint32_t bits = cast_bits<uint32_t>(value.lane[l]);
      reinterpret_cast<uint16_t *>(place)[l] = static_cast<uint16_t>(bits >> 16);
      reinterpret_cast<uint16_t *>(rest)[l] = static_cast<uint16_t>(bits);
    }
#endif
  }
}

}  // namespace
}  // namespace treescan
