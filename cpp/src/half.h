// float16 and bfloat16 as bits, to and from float: exact one way, rounded to nearest even the other.
// Internal linkage: kernels built for several instruction sets must not share this code.
#pragma once

#include <cstdint>

namespace treescan {

static inline uint32_t bits_of(float value) {
  union {
    float number;
    uint32_t bits;
  } both = {value};
  return both.bits;
}

static inline float float_of(uint32_t bits) {
  union {
    uint32_t bits;
    float number;
  } both = {bits};
  return both.number;
}

static inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  // The exponent's bias differs by 112: a multiplication by 2^112 mends it, for subnormal numbers too.
  const float finite = float_of(magnitude << 13) * 0x1p112f;
  const uint32_t special = 0x7f800000u | magnitude << 13;
  return float_of(sign | (magnitude >= 0x7c00u ? special : bits_of(finite)));
}

static inline uint16_t float_to_half(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal results: move the exponent's bias and round the 13 lower bits to nearest even. A carry into the exponent is
  // right, and what lies past the largest half becomes infinity.
  const uint32_t normal = (magnitude - (112u << 23) + 0x0fffu + (magnitude >> 13 & 1u)) >> 13;
  // Subnormal results: adding 0.5 puts the last kept bit where the hardware rounds.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  uint32_t half = magnitude < (113u << 23) ? subnormal : normal;
  half = magnitude >= 0x47800000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return static_cast<uint16_t>(sign | half);
}

static inline float bfloat16_to_float(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }

static inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>(nan ? (bits >> 16 | 0x40u) : rounded);
}

}  // namespace treescan
