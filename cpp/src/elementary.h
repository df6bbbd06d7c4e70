// exp and log in double precision out of additions, multiplications and divisions alone. A library's own would differ
// by a bit from machine to machine, and trees with it.
#pragma once

#include <cstdint>

#include "formula.h"
#include "half.h"

namespace treescan {

TREESCAN_FORMULA double power_of_two(int exponent) {  // exponent in [-1022, 1023]
  return cast_bits<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

// log x = k log 2 + log m with m in [sqrt(1/2), sqrt(2)), and log m = 2 artanh(s), s = (m-1)/(m+1), by its series.
TREESCAN_FORMULA double elementary_log(double x) {
  const double infinity = cast_bits<double>(uint64_t{0x7ff0000000000000u});
  if (x != x || x < 0) return cast_bits<double>(uint64_t{0x7ff8000000000000u});
  if (x == 0) return -infinity;
  if (x == infinity) return x;
  int exponent = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    exponent = -54;
  }
  uint64_t bits = cast_bits<uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
  double m = cast_bits<double>(bits);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1);
  const double square = s * s;
  double series = 0;
  for (int n = 21; n >= 3; n -= 2) series = (series + 1.0 / n) * square;
  // log 2 in two parts, the first short enough that its product with the exponent is exact.
  constexpr double log2_high = 0x1.62e42fee00000p-1, log2_low = 0x1.a39ef35793c76p-33;
  return exponent * log2_high + (2 * s + (2 * s * series + exponent * log2_low));
}

// exp x = 2^k exp r with |r| <= log(2)/2, and exp r by its series.
TREESCAN_FORMULA double elementary_exp(double x) {
  if (x != x) return x;
  if (x > 709.782712893384) return cast_bits<double>(uint64_t{0x7ff0000000000000u});
  if (x < -745.2) return 0;
  constexpr double log2_high = 0x1.62e42fee00000p-1, log2_low = 0x1.a39ef35793c76p-33;
  const double scaled = x * 1.4426950408889634;
  const int k = static_cast<int>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  const double r = (x - k * log2_high) - k * log2_low;
  double series = 1;
  for (int n = 14; n >= 1; --n) series = 1 + series * r / n;
  // In two steps, for 2^k alone may be too small or too large.
  return series * power_of_two(k / 2) * power_of_two(k - k / 2);
}

}  // namespace treescan
