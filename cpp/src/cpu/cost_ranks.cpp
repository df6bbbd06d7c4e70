#include "cpu/cost_ranks.h"

#include "wide_costs.h"

namespace treescan {

CostRanks::CostRanks(Carver &carver, const treescan_tensor &cost) {
  const int64_t edges = is_wide(cost) ? cost.sizes[1] : 0;
  keys_ = carver.take<uint64_t>(edges);
  entries_ = carver.take<Keyed>(edges);
  spare_ = carver.take<Keyed>(edges);
  ranks_ = carver.take<float>(edges);
}

CostRow CostRanks::row(const treescan_tensor &cost, EdgeOrder order, int64_t item) const {
  if (!is_wide(cost))
    return {static_cast<const float *>(cost.data) + item * cost.strides[0], cost.strides[1], order};
  const WideCosts costs(cost, order);
  const int64_t edges = cost.sizes[1];
  // Sorted by the lower half of each key, then by the upper one.
  for (int64_t e = 0; e < edges; ++e) {
    keys_[e] = costs.key(item, e);
    entries_[e] = keys_[e] << 32 | static_cast<uint64_t>(e);
  }
  Keyed *const by_lower = radix_sort(entries_, spare_, edges);
  for (int64_t i = 0; i < edges; ++i) {
    const Keyed edge = by_lower[i] & 0xffffffffu;
    by_lower[i] = (keys_[edge] >> 32) << 32 | edge;
  }
  const Keyed *const sorted = radix_sort(by_lower, by_lower == entries_ ? spare_ : entries_, edges);
  int64_t rank = 0;
  for (int64_t i = 0; i < edges; ++i) {
    const uint64_t edge = sorted[i] & 0xffffffffu;
    if (i > 0 && keys_[edge] != keys_[sorted[i - 1] & 0xffffffffu]) ++rank;
    ranks_[edge] = rank_as_float(rank);
  }
  return {ranks_, 1, {EdgeOrder::ascending, 0}};
}

}  // namespace treescan
