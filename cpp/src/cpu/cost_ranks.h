// The ranks of wide costs, and what tree building reads in place of costs.
#pragma once

#include "cpu/edge_sort.h"
#include "edge_order.h"
#include "treescan/treescan.h"
#include "workspace.h"

namespace treescan {

// The costs of an item's edges as floats, and the order that they stand for.
struct CostRow {
  const float *data;
  int64_t stride;
  EdgeOrder order;
};

class CostRanks {
 public:
  // Takes the memory for one item: none where costs are float32.
  CostRanks(Carver &carver, const treescan_tensor &cost);

  // An item's own costs, or their ranks.
  CostRow row(const treescan_tensor &cost, EdgeOrder order, int64_t item) const;

 private:
  uint64_t *keys_;
  Keyed *entries_, *spare_;
  float *ranks_;
};

}  // namespace treescan
