#include "spanning_tree.h"

#include "call.h"

namespace treescan::cuda {

void spanning_tree(const Graph &, const treescan_tensor &, EdgeOrder, const treescan_tensor &, const treescan_tensor *, const treescan_tree_output &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

void tree_from_edges(const treescan_tensor &, const treescan_tensor &, int32_t, const treescan_tree_output &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

void tree_from_parents(const treescan_tensor &, const treescan_tensor *, const treescan_tree_output &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

void forest_from_parents(const treescan_tensor &, const treescan_tree_output &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

}  // namespace treescan::cuda
