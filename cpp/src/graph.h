// A graph after validation: sizes, and where its edges are.
#pragma once

#include <cstdint>

#include "treescan/treescan.h"

namespace treescan {

struct Ends {
  int32_t lower, upper;  // as listed: only an edge list may have them the other way round
};

// Reads int32 or int64 indices at any strides.
struct IndexView {
  const void *data = nullptr;
  bool wide = false;
  int64_t strides[3] = {0, 0, 0};
  int64_t at(int64_t i, int64_t j, int64_t k) const {
    const int64_t offset = i * strides[0] + j * strides[1] + k * strides[2];
    return wide ? static_cast<const int64_t *>(data)[offset] : static_cast<const int32_t *>(data)[offset];
  }
};

struct Graph {
  int32_t kind = 0;
  int32_t connectivity = 4;
  int64_t height = 0, width = 0;  // grid
  int64_t window = 1;             // tokens, chain
  int64_t num_vertices = 0, num_edges = 0;
  int64_t batch = -1;  // batch size that the graph itself fixes, -1 if it fits any
  int64_t longest_context = 0;
  const int64_t *context_lengths = nullptr;  // NULL: longest_context for every item
  int64_t context_stride = 0;
  IndexView edges;  // edge list: (B or 1, E, 2)
  bool own_lists = false;  // edge list: each item has its own

  int64_t context(int64_t item) const {
    return context_lengths ? context_lengths[item * context_stride] : longest_context;
  }
  // Do all items have the same list of edges?
  bool same_edges() const { return !own_lists; }
  // Whether an item of a token graph has this edge of the common list.
  bool has(int64_t item, Ends e) const {
    return kind != TREESCAN_TOKENS || e.upper - e.lower == 1 || e.lower >= num_vertices - context(item);
  }
};

// The edges of all kinds but lists go from a vertex to a few at fixed distances ahead. For every such distance:
// does vertex v have that edge, and which index does it have?
struct Stencil {
  static constexpr int64_t max_grid_offsets = 4;
  explicit Stencil(const Graph &graph);
  int64_t count;              // distances
  int64_t reach;              // the largest distance
  int64_t distance(int64_t k) const;
  // The index of the edge v - v+distance(k), or -1 if there is none in the common list.
  int64_t edge(int64_t v, int64_t k) const;

 private:
  const Graph &graph_;
};

// Checks a graph's description and resolves it.
Graph resolve_graph(const treescan_graph *graph);

// One edge of an edge list; fails if it names a vertex that isn't there.
Ends list_edge(const Graph &graph, int64_t item, int64_t edge);

// Writes the ends of all edges of an item's common list.
void list_edges(const Graph &graph, int64_t item, Ends *ends);

}  // namespace treescan
