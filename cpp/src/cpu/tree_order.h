// Rooting a tree: parents, canonical breadth-first order and depth from a list of edges or a parent array.
#pragma once

#include <cstdint>

#include "graph.h"
#include "workspace.h"

namespace treescan {

struct TreeEdge {
  int32_t a, b;
  int32_t edge;  // index in the graph's list
};

// What rooting works on and leaves behind, for one item of V vertices: a tree, or a forest with a root for each tree.
struct RootedTree {
  int64_t num_vertices, num_edges, num_roots;
  TreeEdge *edges;                         // room for V, the input
  int32_t *parent, *order, *depth, *edge;  // V each, the result; the input stands first in `order`: the roots
  uint32_t *offsets;                    // V+1; unsigned, for it counts each edge twice
  struct Neighbour {
    int32_t vertex, edge;
  } *neighbours;  // 2 (V-1)

  void carve(Carver &carver, int64_t vertices);
};

// Returns the number of vertices reached from the roots: V, unless the edges leave some out. The parent, the depth and the
// edge of those are -1.
int64_t root_tree(RootedTree &tree, int32_t sibling_order);

// The same for the one root of what should be a tree, with V-1 edges.
int64_t root_tree_at(RootedTree &tree, int32_t root, int32_t sibling_order);

// The same for a forest: vertices out of reach are in no tree, and come last in `order`. Returns the number reached.
int64_t root_forest(RootedTree &tree);

// Copies the result to an item of the caller's arrays.
void write_tree(const RootedTree &tree, int64_t item, const treescan_tree_output &output);

// Checks an item's roots, (B|1,) int32, and reads one.
int32_t read_root(const treescan_tensor &root, int64_t item, int64_t num_vertices);

void tree_from_edges(const treescan_tensor &edges, const treescan_tensor &root, int32_t sibling_order,
                     const treescan_tree_output &output, treescan_workspace *workspace, void *stream);

void tree_from_parents(const treescan_tensor &parent, const treescan_tensor *root, const treescan_tree_output &output,
                       treescan_workspace *workspace, void *stream);

void forest_from_parents(const treescan_tensor &parent, const treescan_tree_output &output,
                         treescan_workspace *workspace, void *stream);

// Fills `edges` and the roots from one item of a parent array, in which a root is its own parent and a vertex outside all
// trees has -1. Fails on an index out of range.
void forest_from_parents(const int32_t *parent, int64_t stride, int64_t item, RootedTree &tree);

}  // namespace treescan
