// The costs of a graph's edges, from features.
#pragma once

#include "graph.h"

namespace treescan {

void edge_weights(const Graph &graph, const treescan_tensor &features, int32_t metric, bool exponential,
                  const treescan_tensor &cost, treescan_workspace *workspace, void *stream);

}  // namespace treescan
