#include "cpu/edge_sort.h"

#include <algorithm>

namespace treescan {

namespace {

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

Keyed *radix_sort(Keyed *from, Keyed *to, int64_t count) {
  constexpr int64_t few = 4096;  // so few that going through the long histograms would cost more than a fourth pass
  return count < few ? radix_sort_by<8, 4>(from, to, count) : radix_sort_by<11, 3>(from, to, count);
}

}  // namespace treescan
