// Roots a forest and brings its vertices into the canonical order, in barriers as many as the logarithm of its vertices.
#pragma once

#include "formula.h"
#include "team.h"
#include "treescan/treescan.h"
#include "workspace.h"

namespace treescan::cuda {

// By vertex, the neighbours in the forest, both ways round for each edge. Those of v lie at [offsets[v], offsets[v+1]),
// sorted by their label: the neighbour's number, or the edge's if by_edge.
struct Adjacency {
  const int32_t *offsets;    // V+1
  const int32_t *neighbour;  // two for each edge
  const int32_t *edge;       // index in the graph's list, or whatever the output shall hold
  bool by_edge;
};

// An output row of the item, which may not be wanted.
struct TreeRow {
  int32_t *data;
  int64_t item_stride, stride;

  explicit TreeRow(const treescan_tensor *output)
      : data(output ? static_cast<int32_t *>(output->data) : nullptr),
        item_stride(output ? output->strides[0] : 0),
        stride(output ? output->strides[1] : 0) {}

  __device__ __forceinline__ void set(int64_t item, int64_t i, int32_t value) const {
    if (data) data[item * item_stride + i * stride] = value;
  }
};

// Where a tree goes, as kernels get it. In `order` the index is the position, otherwise the vertex.
struct TreeRows {
  TreeRow parent, order, depth, edge;

  explicit TreeRows(const treescan_tree_output &output)
      : parent(output.parent), order(output.order), depth(output.depth), edge(output.edge) {}
};

// 32 bytes a vertex. One piece of memory, so that a kernel can give each of its blocks a part: RootingScratch{part}.
struct RootingScratch {
  char *memory;  // aligned to 8 bytes

  TREESCAN_MEMBER static constexpr int64_t bytes(int64_t vertices) { return 32 * vertices + 64; }
  void carve(Carver &carver, int64_t vertices) { memory = carver.take<char>(bytes(vertices)); }
};

// Writes an item's forest. root_of[v] is the root of v's tree, or -1 if v is in none, and then has no neighbours. The
// adjacency must hold a forest: whoever calls this has made sure of it.
template <class Team>
__device__ void root_forest(Team &team, int64_t vertices, const Adjacency &adjacency, const int32_t *root_of,
                            const RootingScratch &scratch, int64_t item, const TreeRows &output);

}  // namespace treescan::cuda
