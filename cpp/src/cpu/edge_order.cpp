#include "cpu/edge_order.h"

#include <algorithm>

#include "elementary.h"

namespace treescan {

namespace {

// A uniform number in (0, 1) for an edge of an item: a counter run through splitmix64, so any thread or device can
// draw it without the ones before.
double uniform(uint64_t seed, int64_t item, int64_t edge) {
  const auto mix = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  constexpr uint64_t step = 0x9e3779b97f4a7c15u;
  const uint64_t stream = mix(seed + step * (static_cast<uint64_t>(item) + 1));
  const uint64_t bits = mix(stream + step * (static_cast<uint64_t>(edge) + 1));
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

// From the lowest digit up, leaving out digits that are all equal.
template <int bits, int passes>
Keyed *radix_sort_by(Keyed *from, Keyed *to, int64_t count) {
  constexpr uint32_t buckets = 1u << bits;
  int32_t histogram[passes][buckets] = {};
  for (int64_t i = 0; i < count; ++i) {
    const auto key = static_cast<uint32_t>(from[i] >> 32);
    for (int pass = 0; pass < passes; ++pass) ++histogram[pass][(key >> (bits * pass)) & (buckets - 1)];
  }
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = 32 + bits * pass;
    int32_t *const start = histogram[pass];
    if (count > 0 && start[(from[0] >> shift) & (buckets - 1)] == count) continue;
    int32_t sum = 0;
    for (uint32_t bucket = 0; bucket < buckets; ++bucket) {
      const int32_t size = start[bucket];
      start[bucket] = sum;
      sum += size;
    }
    for (int64_t i = 0; i < count; ++i) to[start[(from[i] >> shift) & (buckets - 1)]++] = from[i];
    std::swap(from, to);
  }
  return from;
}

}  // namespace

// Drawing edges one by one, each with probability in proportion to exp(-cost), is the same as sorting them by
// log(E) + cost with E = -log(U) drawn from the exponential distribution.
float random_cost(float cost, uint64_t seed, int64_t item, int64_t edge) {
  return static_cast<float>(elementary_log(-elementary_log(uniform(seed, item, edge))) + static_cast<double>(cost));
}

Keyed *radix_sort(Keyed *from, Keyed *to, int64_t count) {
  constexpr int64_t few = 4096;  // so few that going through the long histograms would cost more than a fourth pass
  return count < few ? radix_sort_by<8, 4>(from, to, count) : radix_sort_by<11, 3>(from, to, count);
}

}  // namespace treescan
