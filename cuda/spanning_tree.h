// Spanning trees and forests on a CUDA device, from costs, from lists of edges and from parents.
#pragma once

#include "edge_order.h"
#include "graph.h"

namespace treescan::cuda {

// `segments` is NULL for a tree.
void spanning_tree(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                   const treescan_tensor *segments, const treescan_tree_output &output, treescan_workspace *workspace,
                   void *stream);

void tree_from_edges(const treescan_tensor &edges, const treescan_tensor &root, int32_t sibling_order,
                     const treescan_tree_output &output, treescan_workspace *workspace, void *stream);

// `root` is NULL to keep the root.
void tree_from_parents(const treescan_tensor &parent, const treescan_tensor *root, const treescan_tree_output &output,
                       treescan_workspace *workspace, void *stream);

void forest_from_parents(const treescan_tensor &parent, const treescan_tree_output &output,
                         treescan_workspace *workspace, void *stream);

}  // namespace treescan::cuda
