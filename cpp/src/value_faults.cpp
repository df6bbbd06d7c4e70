#include "value_faults.h"

#include "half.h"
#include "status.h"

namespace treescan {

void fail(ValueFault fault, int64_t a, int64_t b, int64_t c, int64_t d) {
  constexpr treescan_status invalid = TREESCAN_INVALID_ARGUMENT, no_tree = TREESCAN_NOT_A_TREE;
  switch (fault) {
    case ValueFault::edge_index_out_of_range:
      fail(invalid, "graph->edge_index: expected vertices in [0, ", a, "), got ", b, " at edge ", c, " of item ", d);
    case ValueFault::tree_edge_out_of_range:
      fail(invalid, "edges: expected vertices in [0, ", a, "), got ", b, " at edge ", c, " of item ", d);
    case ValueFault::tree_edges_hold_cycle:
      fail(no_tree, "edges: expected a tree, but item ", a, "'s edges hold a cycle: ", b, " of ", c,
           " vertices are connected to the root");
    case ValueFault::disconnected:
      fail(TREESCAN_DISCONNECTED, "graph: expected a connected graph, but item ", a, " falls into ", b, " parts");
    case ValueFault::root_out_of_range:
      fail(invalid, "root: expected a vertex in [0, ", a, "), got ", b, " for item ", c);
    case ValueFault::parent_out_of_range:
      fail(invalid, "parent: expected vertices in [0, ", a, ") or -1, got ", b, " at vertex ", c, " of item ", d);
    case ValueFault::no_root:
      fail(no_tree, "parent: expected one root (a vertex that is its own parent), got none in item ", a);
    case ValueFault::two_roots:
      fail(no_tree, "parent: expected one root (a vertex that is its own parent), got ", a, " and ", b, " in item ", c);
    case ValueFault::parents_missing:
      fail(no_tree, "parent: expected a parent for every vertex, got -1 for ", a, " of ", b, " in item ", c);
    case ValueFault::parents_hold_cycle:
      fail(no_tree, "parent: expected no cycle, but item ", a, " has one: ", b, " of ", c,
           " vertices are connected to a root");
    case ValueFault::order_out_of_range:
      fail(invalid, "order: expected vertices in [0, ", a, "), got ", b, " at position ", c, " of item ", d);
    case ValueFault::order_repeats:
      fail(no_tree, "order: expected every vertex once, got ", a, " at positions ", c, " and ", b, " of item ", d);
    case ValueFault::order_lacks_parents_last:
      fail(no_tree, "order: expected the vertices without a parent last, got vertex ", a, " with parent ", b,
           " at position ", c, " of item ", d, " behind one without");
    case ValueFault::order_lacks_roots_first:
      fail(no_tree, "order: expected roots first, got vertex ", a, ", its own parent, at position ", b, " of item ", c);
    case ValueFault::order_child_before_parent:
      fail(no_tree, "order: expected parents before their children, got vertex ", a, " at position ", b,
           " before its parent ", c, " in item ", d);
    case ValueFault::exponential_overflows:
      fail(TREESCAN_OUT_OF_RANGE, "exponential: exp(", cast_bits<double>(a), "), edge ", b, " of item ", c, ", is more than float",
           d, " can hold, and edges that overflow would tie; build the tree from the plain costs, "
           "whose order is the same");
    case ValueFault::none: break;
  }
  fail(TREESCAN_INTERNAL, "value fault ", static_cast<int32_t>(fault), " has no words");
}

}  // namespace treescan
