// Wide costs as floats that kernels for trees read: see wide_costs.h.
#pragma once

#include "device.h"
#include "edge_order.h"
#include "treescan/treescan.h"
#include "workspace.h"

namespace treescan::cuda {

// The ranking of a batch's costs: which threads work on it, and with how much memory. Takes none where costs are float32.
class CostRanking {
 public:
  explicit CostRanking(const treescan_tensor &cost);

  void carve(Carver &carver);

  // Returns the ranks, a row of all edges for each item.
  const float *run(const treescan_tensor &cost, EdgeOrder order, cudaStream_t stream) const;

 private:
  int64_t batch_, edges_, part_bytes_ = 0;
  bool by_grid_ = false;
  unsigned blocks_ = 0;
  char *parts_ = nullptr;
  char *grid_ = nullptr;
  float *ranks_ = nullptr;
};

}  // namespace treescan::cuda
