// Forests by positions, as scans walk along them.
#pragma once

#include <cstdint>

#include "treescan/treescan.h"
#include "workspace.h"

namespace treescan {

// One position of a forest's canonical order: roots first, parents before their children, siblings side by side, and last
// the vertices that are in no tree.
struct Step {
  uint32_t vertex;  // and whether a sibling follows, as the highest bit
  uint32_t parent;  // the vertex, a root's its own, and whether the vertex of this step has children
};

// One forest, most often a single tree, by positions, and the rows of numbers that go along with them.
struct Plan {
  const Step *steps;
  int64_t num_roots;
  int64_t num_planted;   // vertices in trees
  int64_t num_vertices;  // all of them
  int64_t ring;          // rows of a ring with one for each vertex of which some children have had their turn and some not
  int64_t row_bytes;     // of a row, in the type that is computed in
  bool far;              // whether rows are so many that they have to be fetched ahead
};

// (These have internal linkage, for kernels that are built for several instruction sets.)
constexpr uint32_t step_mark = uint32_t{1} << 31;
static inline int64_t vertex_of(const Step &step) { return step.vertex & ~step_mark; }
static inline int64_t parent_of(const Step &step) { return step.parent & ~step_mark; }
static inline bool has_next_sibling(const Step &step) { return step.vertex >= step_mark; }
static inline bool has_children(const Step &step) { return step.parent >= step_mark; }

// What a plan is made of.
struct PlannedForest {
  Step *steps;
  int64_t num_roots, num_planted;
};

// The plans of a call: one for each item, or one for all.
class Plans {
 public:
  Plans(Carver &carver, const treescan_tensor &parent, const treescan_tensor &order);

  // Checks the forests and writes them by positions.
  void make(const treescan_tensor &parent, const treescan_tensor &order);

  // The longest ring that a forest needs, once they are made.
  int64_t ring() const;

  Plan plan(int64_t item, int64_t ring, int64_t row_bytes, bool far) const;

 private:
  int64_t trees_, vertices_, workers_;
  PlannedForest *forests_;
  Step *steps_;
  int32_t *positions_;  // scratch, V numbers for each worker
};

}  // namespace treescan
