// The inner loops of spanning trees on grids. grid_kernels.cpp is compiled once for each instruction set.
#pragma once

#include <cstdint>

namespace treescan {

// The key of an edge that isn't there: more than that of any edge.
constexpr int32_t no_edge = INT32_MAX;

// The edges of a grid with 4 neighbours, each at its upper or left vertex. These arrays, and others by vertex, can be read
// from width + 1 places before the first vertex to as many behind the last.
struct GridEdges {
  const int32_t *down, *right;  // keys
  int64_t width;
};

// The neighbours of a vertex, in the order of the edges' indices.
enum Neighbour : uint8_t { above, below, before, behind };

// What `judge` finds out about a vertex.
struct Verdicts {
  uint8_t *links;  // the neighbours that the tree surely links it to: bits in the order of vertices, above to below
  uint8_t *open;   // its edges that are left to be decided: bit 0 the one down, bit 1 the one to the right
  uint8_t *start;  // its nearest neighbour, plus `is_first` if the two are each other's nearest and this is the first
};
constexpr uint8_t is_first = 4;

struct GridKernels {
  // Keys that sort as the costs do, or their negatives: -0 equals 0, and NaN comes after everything.
  void (*sort_keys)(const float *cost, int64_t count, bool descending, int32_t *keys);
  // For v in [first, last): the Neighbour at the end of the smallest edge at v. That edge is in the tree.
  void (*find_nearest)(const GridEdges &, int64_t first, int64_t last, uint8_t *nearest);
  // For v in [first, last), the verdicts. The smallest edge at a vertex is in the tree, the largest of four around a
  // square is not; both rules leave about a quarter of all edges to be sorted.
  void (*judge)(const GridEdges &, const uint8_t *nearest, int64_t first, int64_t last, const Verdicts &);
};

// The build for the instruction set in use.
const GridKernels &grid_kernels();

}  // namespace treescan
