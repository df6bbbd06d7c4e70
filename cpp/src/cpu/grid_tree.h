// Spanning trees of grids, rooted and ordered: the trees that the general way finds as well, several times faster.
//
//   1. Keys that sort as the costs do. With 4 neighbours, the nearest neighbour of each vertex and the largest edge of
//      each square decide three quarters of all edges where they stand (Boruvka's first round, and its dual).
//   2. Boruvka's algorithm on what is left inside each tile of the grid, small enough for the second cache. The nearest edge
//      of a part of the tree that doesn't touch the tile's border is surely in the tree. Of those between parts that do, only
//      the ones in the tree of the tile alone have to wait: few.
//   3. Kruskal's algorithm on what waits and on the edges between tiles.
//   4. A search from the root, breadth first, over a byte per vertex that says which neighbours it is linked to. Threads share
//      it where it is wide: what is below a piece of a level comes, level by level, before what is below the next piece.
#pragma once

#include <cstdint>

#include "cpu/cost_ranks.h"
#include "cpu/edge_sort.h"
#include "cpu/grid_kernels.h"
#include "graph.h"
#include "workspace.h"

namespace treescan {

class GridTree {
 public:
  static constexpr int64_t large = 1 << 16;  // vertices that are worth a second thread

  // Vertices are numbered together with a direction, in 32 bits.
  static bool fits(const Graph &graph) {
    return graph.kind == TREESCAN_GRID && graph.num_vertices > 1 && graph.num_vertices < (int64_t{1} << 29);
  }

  // Takes the memory for one item, which so many threads will work on: one unless it is large.
  GridTree(Carver &carver, const Graph &graph, int64_t workers);

  void build(const CostRow &costs, int64_t item, int32_t root, const treescan_tree_output &output);

 private:
  static constexpr int max_kinds = 4, max_directions = 2 * max_kinds;
  static constexpr int tile_bits = 16;  // the logarithm of the most vertices in a tile
  static constexpr int kind_bits = 2;   // an open edge is its first vertex and its kind, in one number

  static constexpr int64_t wide = 64;  // vertices in a level that are worth a second thread
  static constexpr int64_t pieces = 16;  // that such a level is cut into, with room for so many levels below each:
  static constexpr int64_t most_levels = 1000;
  static_assert(2 * pieces * (most_levels + 1) <= large, "where they end and go is kept in the memory of the sets");

  struct Tile;
  struct Row;
  // An edge inside a tile. Its code is its kind and then its first vertex, counted in the tile; its ends are parts.
  struct OpenEdge {
    uint32_t key, code;
    uint16_t a, b;
  };
  // What the work on a tile needs: the parts of the tree there, numbered.
  struct Parts {
    OpenEdge *edges;
    Keyed *nearest;     // of each part, the least key of its edges and where that stands in `edges`
    int32_t *into;      // the part that it becomes part of
    int32_t *root;      // of its set
    uint16_t *number;   // by root
    uint8_t *touching;  // whether it touches the tile's border
  };
  // Vertices that are as far from the root as each other, and the bits of their ways to their parents.
  struct Level {
    int32_t *order;
    uint8_t *back;
  };
  // A vertex's links as a table gives them to the search: the neighbours, and how each sees the way back.
  struct Links {
    int32_t offset[max_directions];
    uint8_t back[max_directions];
    int32_t count;
  };

  Parts carve_parts(Carver &carver) const;
  Parts parts_of(int64_t worker) const;
  int64_t set_of(int64_t r, int64_t c) const;
  Tile tile(int64_t index) const;
  template <class Body>
  void for_each_band(Body &&body) const;

  void set_keys(const CostRow &costs, int64_t item);
  void judge();
  void link(int64_t v, int kind, unsigned joins);
  void join_inside(const Tile &tile, const Parts &parts);
  int32_t join_parts(const Tile &tile, const Parts &parts, int32_t count, bool certain);
  void join_tiles();
  void search(int32_t root, const Row &depth);
  int64_t visit(const Level &from, int64_t count, int32_t level, const Row &depth, const Level &to) const;
  void search_in_pieces(int64_t &first, int64_t &reached, int32_t &level, const Row &depth);
  void write(int64_t item, int32_t root, const treescan_tree_output &output) const;

  const Graph &graph_;
  int64_t workers_, height_, width_;
  int kinds_;                          // of edges, by direction: as in Stencil
  int64_t row_step_[max_kinds], column_step_[max_kinds];
  int forward_[max_kinds];             // the bit of `links_` for a kind's edges at their first vertex
  int64_t offset_[max_directions];     // the neighbour that a bit stands for, ascending
  int rows_log_, columns_log_;         // of tiles
  int64_t tiles_across_, tiles_;

  int32_t *keys_[max_kinds];           // by first vertex
  uint8_t *links_, *open_, *start_, *nearest_;  // by vertex: see Verdicts
  int32_t *sets_;                      // disjoint sets, tile by tile: the way to a root, which points to itself
  char *parts_;                        // by worker
  Keyed *waiting_;                     // and as much again to sort them
  int32_t *order_;
  uint8_t *back_, *to_parent_;         // by position and by vertex: the bit of the way to the parent
  Links *table_;
};

}  // namespace treescan
