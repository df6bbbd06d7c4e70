// The cosine cost, -f·g / (max(|f|, 1e-8) max(|g|, 1e-8)), of vectors of any finite length.
//
// Where squares would leave the range of their type, vectors are scaled first, by powers of two: that changes no digit, so the
// cost is what it would be if exponents had no bounds.
#pragma once

#include <cstdint>

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
  static constexpr float largest_norm = 0x1p62f;  // products of two such vectors fit
};
template <>
struct Floating<double> {
  using Bits = int64_t;
  static constexpr int digits = 52, bias = 1023;
  static constexpr Bits infinity = 0x7ff0000000000000, all_but_sign = 0x7fffffffffffffff;
  static constexpr double largest_norm = 0x1p510;
};

constexpr double norm_floor = 1e-8;

template <class T>
TREESCAN_FORMULA T at_least_floor(T norm) {
  return norm < static_cast<T>(norm_floor) ? static_cast<T>(norm_floor) : norm;
}

// Whether the vector of this norm, which is at least the floor, may have lost digits of its squares, or its norm itself. Asked of
// the bits, which compilers can ask of many at a time.
template <class T>
TREESCAN_FORMULA bool leaves_range(T norm) {
  using Bits = typename Floating<T>::Bits;
  constexpr T floor = static_cast<T>(norm_floor), largest = Floating<T>::largest_norm;
  const auto bits = cast_bits<Bits>(norm);
  return (bits <= cast_bits<Bits>(floor)) | (bits > cast_bits<Bits>(largest));
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
  return (largest > 0) & (largest < Floating<T>::infinity);
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

// From sums over vectors that were multiplied by their scales.
template <class T>
TREESCAN_FORMULA T scaled_cosine(T product, T norm_a, T norm_b, T scale_a, T scale_b) {
  const T floor = static_cast<T>(norm_floor);
  // Whether a vector is shorter than the floor: its scale, a power of two, is then large and divides exactly.
  const bool short_a = norm_a / scale_a < floor, short_b = norm_b / scale_b < floor;
  const T quotient = -(product / ((short_a ? floor : norm_a) * (short_b ? floor : norm_b)));
  return quotient / (short_a ? scale_a : 1) / (short_b ? scale_b : 1);
}

}  // namespace treescan
