// exp and what is made of it, out of operations that round alike everywhere: a library's own would differ by a bit from
// one instruction set or device to another.
#pragma once

#include "formula.h"
#include "half.h"

namespace treescan {
namespace {

// exp r = 1 + r + r^2 p(r) for |r| <= log(2)/2, and log1p t = 2 artanh s = 2 s (1 + s^2 q(s^2)) with
// s = t/(2+t) <= 1/3. The coefficients of p: for float the least squares fit, for double the series.
template <class T>
struct ActivationConstants;
template <>
struct ActivationConstants<float> {
  static constexpr int mantissa_bits = 23;
  // Added to small whole numbers, they show them as bits.
  static constexpr float magic = 0x1.8p23f, magic_one = 0x1.8p23f + 127;
  static constexpr float lowest = -104, highest = 89;                // beyond them lie 0 and infinity
  static constexpr float log2_high = 0x1.62e4p-1f, log2_low = 0x1.7f7d1cp-20f;
  static constexpr int exp_terms = 5, log_terms = 8;
  TREESCAN_FORMULA constexpr float exp_term(int i) {
    constexpr float terms[exp_terms] = {0x1p-1f, 0x1.5554dcp-3f, 0x1.5554eap-5f, 0x1.120b74p-7f, 0x1.6d4328p-10f};
    return terms[i];
  }
};
template <>
struct ActivationConstants<double> {
  static constexpr int mantissa_bits = 52;
  static constexpr double magic = 0x1.8p52, magic_one = 0x1.8p52 + 1023;
  static constexpr double lowest = -746, highest = 710;
  static constexpr double log2_high = 0x1.62e42fee00000p-1, log2_low = 0x1.a39ef35793c76p-33;
  static constexpr int exp_terms = 12, log_terms = 18;
  TREESCAN_FORMULA constexpr double exp_term(int i) {
    constexpr double terms[exp_terms] = {1 / 2.0,       1 / 6.0,        1 / 24.0,        1 / 120.0,
                                         1 / 720.0,     1 / 5040.0,     1 / 40320.0,     1 / 362880.0,
                                         1 / 3628800.0, 1 / 39916800.0, 1 / 479001600.0, 1 / 6227020800.0};
    return terms[i];
  }
};

// Vector is T or a vector of them, Bits whole numbers of the same size.
template <class T, class Vector, class Bits>
struct Activations {
  using K = ActivationConstants<T>;

  TREESCAN_FORMULA Vector all(T value) { return value - Vector{}; }

  // 2^k for a whole number k.
  TREESCAN_FORMULA Vector power_of_two(Vector k) {
    return cast_bits<Vector>(cast_bits<Bits>(k + K::magic_one) << K::mantissa_bits);
  }

  // To about one unit in the last place; 0 and infinity where it is too small or too large, NaN for NaN.
  TREESCAN_FORMULA Vector exp(Vector x) {
    x = x < K::lowest ? all(K::lowest) : x;
    x = x > K::highest ? all(K::highest) : x;
    const Vector k = (x * static_cast<T>(1.4426950408889634) + K::magic) - K::magic;
    const Vector r = (x - k * K::log2_high) - k * K::log2_low;
    Vector p = all(K::exp_term(K::exp_terms - 1));
    TREESCAN_UNROLL
    for (int i = K::exp_terms - 2; i >= 0; --i) p = p * r + K::exp_term(i);
    const Vector e = (r + r * r * p) + T(1);
    // In two steps, for 2^k alone may be too small or too large.
    const Vector half = (k * T(0.5) + K::magic) - K::magic;
    return e * power_of_two(half) * power_of_two(k - half);
  }

  // log(1 + exp x)
  TREESCAN_FORMULA Vector softplus(Vector x) {
    const Vector t = exp(x > T(0) ? -x : x);
    const Vector s = t / (t + T(2)), square = s * s;
    Vector q = all(T(1) / (2 * K::log_terms + 1));
    TREESCAN_UNROLL
    for (int i = K::log_terms - 1; i >= 1; --i) q = q * square + T(1) / static_cast<T>(2 * i + 1);
    const Vector log1p = T(2) * s + T(2) * s * (square * q);
    return (x > T(0) ? x : Vector{}) + log1p + (x != x ? x : Vector{});
  }

  // 1 / (1 + exp -x)
  TREESCAN_FORMULA Vector sigmoid(Vector x) {
    const Vector t = exp(x > T(0) ? -x : x);
    return (x > T(0) ? all(T(1)) : t) / (t + T(1));
  }

  TREESCAN_FORMULA Vector silu(Vector x) { return x * sigmoid(x); }

  TREESCAN_FORMULA Vector silu_derivative(Vector x) {
    const Vector s = sigmoid(x);
    return s * (x * (T(1) - s) + T(1));
  }
};

}  // namespace
}  // namespace treescan
