// The costs of a graph's edges, from features, on a CUDA device.
#pragma once

#include "graph.h"

namespace treescan::cuda {

void edge_weights(const Graph &graph, const treescan_tensor &features, int32_t metric, bool exponential,
                  const treescan_tensor &cost, treescan_workspace *workspace, void *stream);

}  // namespace treescan::cuda
