// A graph after validation: sizes, and where its edges are.
#pragma once

#include <cstdint>

#include "formula.h"
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
  TREESCAN_MEMBER int64_t at(int64_t i, int64_t j, int64_t k) const {
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

  TREESCAN_MEMBER int64_t context(int64_t item) const {
    return context_lengths ? context_lengths[item * context_stride] : longest_context;
  }
  // Do all items have the same list of edges?
  bool same_edges() const { return !own_lists; }
  // Whether an item of a token graph has this edge of the common list.
  TREESCAN_MEMBER bool has(int64_t item, Ends e) const {
    return kind != TREESCAN_TOKENS || e.upper - e.lower == 1 || e.lower >= num_vertices - context(item);
  }
};

// Edges of a token graph that start before vertex i, where vertices from `open` on link to `window` vertices ahead and
// those before to one; the last vertices have fewer ahead of them.
TREESCAN_FORMULA int64_t token_edges_before(int64_t i, int64_t length, int64_t window, int64_t open) {
  if (i <= open) return i;
  const int64_t full_until = length - window > open ? length - window : open;  // vertices before have the whole window
  if (i <= full_until) return open + (i - open) * window;
  const int64_t first = length - full_until, last = length - i + 1;  // edges of full_until ... of i-1: length-1-v each
  const int64_t count = i - full_until;
  return open + (full_until - open) * window + (first - 1 + last - 1) * count / 2;
}

// The edges of all kinds but lists go from a vertex to a few at fixed distances ahead. For every such distance:
// does vertex v have that edge, and which index does it have?
struct Stencil {
  TREESCAN_MEMBER explicit Stencil(const Graph &graph)
      : count(graph.kind == TREESCAN_GRID ? graph.connectivity / 2 : graph.kind == TREESCAN_TOKENS ? graph.window : 1),
        reach(graph.kind != TREESCAN_GRID ? count : graph.connectivity == 8 ? graph.width + 1 : graph.width),
        graph_(graph) {}

  int64_t count;  // distances
  int64_t reach;  // the largest distance

  TREESCAN_MEMBER int64_t distance(int64_t k) const {
    if (graph_.kind != TREESCAN_GRID) return k + 1;
    const int64_t w = graph_.width;
    return k == 0 ? w : k == 1 ? 1 : k == 2 ? w + 1 : w - 1;
  }

  // The index of the edge v - v+distance(k), or -1 if there is none in the common list.
  TREESCAN_MEMBER int64_t edge(int64_t v, int64_t k) const {
    const int64_t vertices = graph_.num_vertices;
    if (graph_.kind == TREESCAN_GRID) {
      const int64_t h = graph_.height, w = graph_.width;
      const int64_t r = v / w, c = v % w;
      const bool below = r + 1 < h;
      const int64_t vertical = (h - 1) * w, horizontal = h * (w - 1), diagonal = (h - 1) * (w - 1);
      switch (k) {
        case 0: return below ? v : -1;
        case 1: return c + 1 < w ? vertical + r * (w - 1) + c : -1;
        case 2: return below && c + 1 < w ? vertical + horizontal + r * (w - 1) + c : -1;
        default: return below && c > 0 ? vertical + horizontal + diagonal + r * (w - 1) + c - 1 : -1;
      }
    }
    if (v + k + 1 >= vertices) return -1;
    if (graph_.kind == TREESCAN_CHAIN) return v;
    const int64_t open = vertices - graph_.longest_context;
    if (k > 0 && v < open) return -1;
    return token_edges_before(v, vertices, graph_.window, open) + k;
  }

 private:
  Graph graph_;
};

// Checks a graph's description and resolves it.
Graph resolve_graph(const treescan_graph *graph);

// One edge of an edge list; fails if it names a vertex that isn't there.
Ends list_edge(const Graph &graph, int64_t item, int64_t edge);

// Writes the ends of all edges of an item's common list.
void list_edges(const Graph &graph, int64_t item, Ends *ends);

}  // namespace treescan
