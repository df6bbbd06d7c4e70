// What can be wrong with the values that a call is given: indices, trees, graphs. The CPU finds out on the way and fails
// at once; a device writes the fault and its numbers down, and whoever waits for the device fails with the same words.
#pragma once

#include <cstdint>

namespace treescan {

enum class ValueFault : int32_t {
  none,
  edge_index_out_of_range,   // vertices, end, edge, item
  tree_edge_out_of_range,    // vertices, end, edge, item
  tree_edges_hold_cycle,     // item, reached, vertices
  disconnected,              // item, parts
  root_out_of_range,         // vertices, root, item
  parent_out_of_range,       // vertices, parent, vertex, item
  no_root,                   // item
  two_roots,                 // first, second, item
  parents_missing,           // how many, vertices, item
  parents_hold_cycle,        // item, reached, vertices that have a parent
  order_out_of_range,        // vertices, vertex, position, item
  order_repeats,             // vertex, position, earlier position, item
  order_lacks_parents_last,  // vertex, parent, position, item
  order_lacks_roots_first,   // vertex, position, item
  order_child_before_parent, // vertex, position, parent, item
  exponential_overflows,     // bits of the double, edge, item, bits of a cost
};

constexpr int value_fault_numbers = 4;

[[noreturn]] void fail(ValueFault fault, int64_t a, int64_t b = 0, int64_t c = 0, int64_t d = 0);

}  // namespace treescan
