// float16 and bfloat16 as bits, to and from float: exact one way, rounded to nearest even the other.
#pragma once

#include <cstdint>

#include "formula.h"

namespace treescan {

template <class To, class From>
TREESCAN_FORMULA To cast_bits(From value) {
  union {
    From from;
    To to;
  } both = {value};
  return both.to;
}

// Float and Bits are float and uint32_t or vectors of them; a half's bits are the lower 16 of Bits.

template <class Float, class Bits>
TREESCAN_FORMULA Float half_to_float(Bits half) {
  const Bits sign = (half & 0x8000u) << 16;
  const Bits magnitude = half & 0x7fffu;
  // The exponent's bias differs by 112: a multiplication by 2^112 mends it, for subnormal numbers too.
  const Bits finite = cast_bits<Bits>(cast_bits<Float>(magnitude << 13) * 0x1p112f);
  const Bits special = 0x7f800000u | magnitude << 13;
  return cast_bits<Float>(sign | (magnitude >= 0x7c00u ? special : finite));
}

template <class Bits, class Float>
TREESCAN_FORMULA Bits float_to_half(Float value) {
  const Bits bits = cast_bits<Bits>(value);
  const Bits sign = bits >> 16 & 0x8000u;
  const Bits magnitude = bits & 0x7fffffffu;
  // Normal results: move the exponent's bias and round the 13 lower bits to nearest even. A carry into the exponent is
  // right, and what lies past the largest half becomes infinity.
  const Bits normal = (magnitude - (112u << 23) + 0x0fffu + (magnitude >> 13 & 1u)) >> 13;
  // Subnormal results: adding 0.5 puts the last kept bit where the hardware rounds.
  const Bits subnormal = cast_bits<Bits>(cast_bits<Float>(magnitude) + 0.5f) - 0x3f000000u;
  const Bits infinite = Bits{} + 0x7c00u, nan = Bits{} + 0x7e00u;
  Bits half = magnitude < (113u << 23) ? subnormal : normal;
  half = magnitude >= 0x47800000u ? infinite : half;
  half = magnitude > 0x7f800000u ? nan : half;
  return sign | half;
}

template <class Float, class Bits>
TREESCAN_FORMULA Float bfloat16_to_float(Bits value) {
  return cast_bits<Float>(value << 16);
}

// For results of arithmetic on bfloat16 values: where such a number is NaN its lower bits are 0, so rounding keeps it NaN.
template <class Bits, class Float>
TREESCAN_FORMULA Bits float_to_bfloat16(Float value) {
  const Bits bits = cast_bits<Bits>(value);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

}  // namespace treescan
