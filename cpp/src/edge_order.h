// The order in which edges are offered to a tree: by a cost's key, then by index.
#pragma once

#include <cstdint>

#include "elementary.h"
#include "formula.h"
#include "half.h"

namespace treescan {

struct EdgeOrder {
  enum Kind { ascending, descending, random } kind;
  uint64_t seed;
};

// The order of floats as integers: -0 equals +0, and NaN comes after every number. INT32_MAX is left for edges that aren't there.
// Made of the bits, for comparisons and sums of floats take the smallest numbers for 0 where the processor is told to.
TREESCAN_FORMULA int32_t sort_key(float cost) {
  const auto bits = cast_bits<int32_t>(cost);
  const int32_t magnitude = bits & INT32_MAX, key = bits < 0 ? -magnitude : magnitude;
  return magnitude > 0x7f800000 ? INT32_MAX - 1 : key;
}

// The mixing step of splitmix64.
TREESCAN_FORMULA uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// A uniform number in (0, 1) for an edge of an item: a counter run through splitmix64, so any thread or device can
// draw it without the ones before.
TREESCAN_FORMULA double uniform(uint64_t seed, int64_t item, int64_t edge) {
  constexpr uint64_t step = 0x9e3779b97f4a7c15u;
  const uint64_t stream = mix(seed + step * (static_cast<uint64_t>(item) + 1));
  const uint64_t bits = mix(stream + step * (static_cast<uint64_t>(edge) + 1));
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

// Drawing edges one by one, each with probability in proportion to exp(-cost), is the same as sorting them by
// log(E) + cost with E = -log(U) drawn from the exponential distribution.
TREESCAN_FORMULA double random_cost(double cost, uint64_t seed, int64_t item, int64_t edge) {
  return elementary_log(-elementary_log(uniform(seed, item, edge))) + cost;
}
TREESCAN_FORMULA float random_cost(float cost, uint64_t seed, int64_t item, int64_t edge) {
  return static_cast<float>(random_cost(static_cast<double>(cost), seed, item, edge));
}

}  // namespace treescan
