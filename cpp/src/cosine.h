// The cosine cost -f·g / (|f| |g|), 0 if either is 0, of vectors of any finite length.
//
// Where squares would leave the range of their type, vectors are scaled first, by powers of two: that changes no digit, so the
// cost is what it would be if exponents had no bounds.
#pragma once

#include <cstdint>
#include <type_traits>

#include "formula.h"
#include "half.h"

namespace treescan {

template <class T>
struct Floating;
template <>
struct Floating<float> {
  using Bits = int32_t;  // of a width that vectors are made of
  static constexpr int digits = 23, bias = 127;
  static constexpr Bits infinity = 0x7f800000, all_but_sign = 0x7fffffff;
  // Between these a norm has lost nothing that counts, and products of two such vectors fit.
  static constexpr float least_norm = 0x1p-40f, largest_norm = 0x1p62f;
};
template <>
struct Floating<double> {
  using Bits = int64_t;
  static constexpr int digits = 52, bias = 1023;
  static constexpr Bits infinity = 0x7ff0000000000000, all_but_sign = 0x7fffffffffffffff;
  static constexpr double least_norm = 0x1p-400, largest_norm = 0x1p510;
};

// Whether the vector of this norm may have lost digits of its squares, or its norm itself; of NaN, yes. Asked of the bits, which
// compilers can ask of many at a time.
template <class T>
TREESCAN_FORMULA bool leaves_range(T norm) {
  using Unsigned = std::make_unsigned_t<typename Floating<T>::Bits>;
  constexpr T least = Floating<T>::least_norm, largest = Floating<T>::largest_norm;
  return cast_bits<Unsigned>(norm) - cast_bits<Unsigned>(least) > cast_bits<Unsigned>(largest) - cast_bits<Unsigned>(least);
}

// A number's bits without the sign, in the order of absolute values.
template <class T>
TREESCAN_FORMULA typename Floating<T>::Bits magnitude(T value) {
  using F = Floating<T>;
  return cast_bits<typename F::Bits>(value) & F::all_but_sign;
}

// Whether a vector with this largest magnitude is neither of zeros nor with an infinity or a NaN.
template <class T>
TREESCAN_FORMULA bool can_scale(typename Floating<T>::Bits largest) {
  return largest > 0 && largest < Floating<T>::infinity;
}

// The power of two that brings such a vector to a length of 1 or so, for any other 1.
template <class T>
TREESCAN_FORMULA T scale_for(typename Floating<T>::Bits largest) {
  using F = Floating<T>;
  if (!can_scale<T>(largest)) return 1;
  const int field = static_cast<int>(largest >> F::digits);
  const int exponent = field < 1 ? 1 : field > 2 * F::bias - 1 ? 2 * F::bias - 1 : field;  // the scale is a normal number
  return cast_bits<T>(typename F::Bits{2 * F::bias - exponent} << F::digits);
}

// From sums over both, scaled or not.
template <class T>
TREESCAN_FORMULA T cosine_cost(T product, T norm_a, T norm_b) {
  return -(product / ((norm_a == 0 ? 1 : norm_a) * (norm_b == 0 ? 1 : norm_b)));
}

}  // namespace treescan
