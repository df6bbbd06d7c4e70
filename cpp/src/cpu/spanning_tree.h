// Minimum, maximum and random spanning trees of any graph.
#pragma once

#include "graph.h"

namespace treescan {

// The order in which edges are offered to the tree.
struct EdgeOrder {
  enum Kind { ascending, descending, random } kind;
  uint64_t seed;
};

void spanning_tree(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                   const treescan_tree_output &output, treescan_workspace *workspace);

}  // namespace treescan
