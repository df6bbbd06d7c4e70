// Minimum spanning forests by Boruvka's algorithm, and the adjacency of what it finds.
//
// Vertices fall into components, each a star: all its vertices point to one of them, its centre. In a round every edge
// between two components offers itself to both; each component keeps the first in the order, and joins the one beyond.
// Chains of joined components become stars again by pointer jumping, so a round takes barriers as the logarithm of the
// longest chain, and rounds are at most the logarithm of the vertices.
#pragma once

#include "edge_order.h"
#include "graph.h"
#include "rooting.h"
#include "team.h"

namespace treescan::cuda {

// An edge's place in the order: the key of its cost, and below that its index.
using Key = unsigned long long;  // of CUDA's atomics' types
constexpr Key no_edge = ~Key{0};

// Cuts memory into pieces: a block's own, as long as there is enough of it, then the workspace. Over no memory it only
// measures.
struct Pieces {
  char *own;
  int64_t own_bytes;
  char *memory;
  int64_t own_used = 0, used = 0;

  template <class T>
  TREESCAN_MEMBER T *take(int64_t count) {
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    const bool fits = bytes <= own_bytes - own_used;
    char *const base = fits ? own : memory;
    int64_t &at = fits ? own_used : used;
    char *const piece = base ? base + at : nullptr;
    at += bytes;
    return reinterpret_cast<T *>(piece);
  }
};

// What the algorithm works on, and leaves behind.
struct Forest {
  Key *best;        // by centre: the first edge that was offered
  int32_t *centre;  // by vertex: of its component
  int32_t *edge;    // the edges found, each at the vertex that was the centre of what it joined to another; else -1

  TREESCAN_MEMBER void carve(Pieces &pieces, int64_t vertices) {
    best = pieces.take<Key>(vertices);
    centre = pieces.take<int32_t>(vertices);
    edge = pieces.take<int32_t>(vertices);
  }
};

// Lets every vertex point to the end of the chain that it points along, in place: whatever another thread has moved
// already only brings it there sooner. A vertex on a cycle ends on the cycle.
template <class Team>
__device__ __forceinline__ void jump_to_ends(Team &team, int32_t *above, int64_t vertices) {
  bool moves = true;
  for (int64_t reached = 1; moves && reached < vertices; reached *= 2) {
    bool moved = false;
    for_each(team, vertices, [&](int64_t v) {
      const int32_t up = above[v];  // which nobody else writes
      const int32_t beyond = atomic_load(above + up);
      if (beyond == up) return;
      atomic_store(above + v, beyond);
      moved = true;
    });
    moves = team.any(moved);
  }
}

__device__ __forceinline__ void offer(Key *best, Key key) {
  if (key < atomic_load(best)) atomicMin(best, key);
}

// Returns the number of components that are left where no edge joins two. `edges` has
//   for_each(team, body)  calls body(edge, ends) for every edge that takes part
//   key(edge, ends)       its key, or no_edge if it doesn't take part after all
//   ends(edge)
template <class Team, class Edges>
__device__ __forceinline__ int64_t grow_forest(Team &team, const Edges &edges, int64_t vertices, const Forest &forest) {
  Key *const best = forest.best;
  int32_t *const centre = forest.centre, *const edge_of = forest.edge;
  for_each(team, vertices, [&](int64_t v) {
    best[v] = no_edge;
    centre[v] = static_cast<int32_t>(v);
    edge_of[v] = -1;
  });
  team.sync();
  int64_t joined = 0;
  while (true) {
    edges.for_each(team, [&](int64_t edge, Ends ends) {
      const int32_t a = centre[ends.lower], b = centre[ends.upper];
      if (a == b) return;
      const Key key = edges.key(edge, ends);
      offer(best + a, key);
      offer(best + b, key);
    });
    team.sync();
    // Two components may have chosen the same edge: the one with the lower centre stays. Where a centre goes is kept in
    // edge_of until all have read where the others were.
    bool joins = false;
    for_each(team, vertices, [&](int64_t c) {
      const Key key = best[c];
      if (key == no_edge) return;
      const Ends ends = edges.ends(static_cast<int64_t>(key & 0xffffffffu));
      const int32_t a = centre[ends.lower], other = a == c ? centre[ends.upper] : a;
      if (c < other && best[other] == key) return;
      edge_of[c] = other;
      joins = true;
      ++joined;
    });
    if (!team.any(joins)) break;
    for_each(team, vertices, [&](int64_t c) {
      const Key key = best[c];
      if (key == no_edge) return;
      if (edge_of[c] >= 0) {
        centre[c] = edge_of[c];
        edge_of[c] = static_cast<int32_t>(key & 0xffffffffu);
      }
      best[c] = no_edge;
    });
    team.sync();
    jump_to_ends(team, centre, vertices);
  }
  int64_t all;
  team.sum_before(joined, &all);
  return vertices - all;
}

// Memory for the adjacency of a forest.
struct AdjacencyArrays {
  uint32_t *offsets;
  int32_t *neighbour, *edge;

  __device__ __forceinline__ Adjacency view(bool by_edge) const { return {offsets, neighbour, edge, by_edge}; }

  TREESCAN_MEMBER void carve(Pieces &pieces, int64_t vertices) {
    offsets = pieces.take<uint32_t>(vertices + 1);
    neighbour = pieces.take<int32_t>(2 * vertices);
    edge = pieces.take<int32_t>(2 * vertices);
  }
};

// Memory for sorting the edges of a forest by their ends.
struct HalfEdges {
  int32_t *entries, *spare, *counts;

  TREESCAN_MEMBER static constexpr int64_t bytes(int64_t vertices) {
    return (4 * vertices + sort_counts(2 * vertices)) * static_cast<int64_t>(sizeof(int32_t));
  }
  TREESCAN_MEMBER HalfEdges(char *memory, int64_t vertices)
      : entries(reinterpret_cast<int32_t *>(memory)), spare(entries + 2 * vertices), counts(spare + 2 * vertices) {}
};

// Half-edges are numbered by twice the place of their edge in `edge_of`, plus one for the way back. At most 2^31.
constexpr int64_t most_vertices = int64_t{1} << 30;

// The adjacency of the edges in `edge_of`, -1 for none, with ends(edge): sorted by neighbour, or as they lie there. Looks at
// them only behind its first barrier.
template <class Team, class EndsOf>
__device__ __forceinline__ void sort_adjacency(Team &team, int64_t vertices, const int32_t *edge_of, bool by_neighbour,
                                               EndsOf ends, const HalfEdges &halves, const AdjacencyArrays &adjacency) {
  const auto edge = [=](int32_t half) { return edge_of[static_cast<uint32_t>(half) / 2]; };
  const auto end = [=](int32_t half, int side) -> int32_t {
    const int32_t e = edge(half);
    if (e < 0) return static_cast<int32_t>(vertices);  // behind all others
    const Ends both = ends(e);
    return (half & 1) == side ? both.lower : both.upper;
  };
  for_each(team, vertices + 1, [&](int64_t v) { adjacency.offsets[v] = 0; });
  for_each(team, 2 * vertices, [&](int64_t i) { halves.entries[i] = static_cast<int32_t>(i); });
  team.sync();
  for_each(team, 2 * vertices, [&](int64_t i) {
    const int32_t v = end(static_cast<int32_t>(i), 0);
    if (v < vertices) atomicAdd(adjacency.offsets + v, 1u);
  });
  team.sync();
  exclusive_sums(team, vertices + 1, [&](int64_t v) { return adjacency.offsets[v]; },
                 [&](int64_t v, int64_t sum) { adjacency.offsets[v] = static_cast<uint32_t>(sum); });
  int32_t *entries = halves.entries, *spare = halves.spare;
  const int bits = bits_for(vertices + 1);
  for (int side = by_neighbour ? 1 : 0; side >= 0; --side) {
    int32_t *const sorted = stable_sort(team, entries, spare, 2 * vertices, bits, halves.counts,
                                        [&](int32_t half) { return static_cast<uint32_t>(end(half, side)); });
    if (sorted == spare) spare = entries;
    entries = sorted;
  }
  for_each(team, adjacency.offsets[vertices], [&](int64_t i) {
    adjacency.neighbour[i] = end(entries[i], 1);
    adjacency.edge[i] = edge(entries[i]);
  });
  team.sync();
}

}  // namespace treescan::cuda
