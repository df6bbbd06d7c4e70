// Minimum, maximum and random spanning trees of any graph, and forests of one that is cut into segments.
#pragma once

#include "edge_order.h"
#include "graph.h"

namespace treescan {

// `segments` is NULL for a tree.
void spanning_tree(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                   const treescan_tensor *segments, const treescan_tree_output &output, treescan_workspace *workspace, void *stream);

}  // namespace treescan
