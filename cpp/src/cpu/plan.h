// Forests by positions, as scans walk along them.
#pragma once

#include <cstdint>

#include "treescan/treescan.h"
#include "workspace.h"

namespace treescan {

// One position of a forest's canonical order: roots first, parents before their children, siblings side by side, and last
// the vertices that are in no tree.
struct Step {
  int32_t vertex;  // its complement if no sibling follows
  int32_t parent;  // its position, a root's its own; the complement of that if the vertex has no children
};

// One forest, most often a single tree, by positions, and the rows of numbers that go along with them.
struct Plan {
  const Step *steps;
  int64_t num_roots;
  int64_t num_planted;   // vertices in trees
  int64_t num_vertices;  // all of them
  int64_t ring;          // rows of the ring: more than any vertex lies behind its parent
  int64_t row_bytes;     // of a row, in the type that is computed in
  bool far;              // whether rows are so many that they have to be fetched ahead
};

// The vertex of a step. (These have internal linkage, for kernels that are built for several instruction sets.)
static inline int64_t vertex_of(const Step &step) { return step.vertex ^ (step.vertex >> 31); }

// The position of a step's parent.
static inline int64_t parent_of(const Step &step) { return step.parent ^ (step.parent >> 31); }

// What a plan is made of.
struct PlannedForest {
  Step *steps;
  int64_t num_roots, num_planted, ring;
};

// The plans of a call: one for each item, or one for all.
class Plans {
 public:
  Plans(Carver &carver, const treescan_tensor &parent, const treescan_tensor &order);

  // Checks the forests and writes them by positions. Returns the longest ring.
  int64_t make(const treescan_tensor &parent, const treescan_tensor &order);

  Plan plan(int64_t item, int64_t ring, int64_t row_bytes, bool far) const;

 private:
  int64_t trees_, vertices_, workers_;
  PlannedForest *forests_;
  Step *steps_;
  int32_t *positions_;  // scratch, V numbers for each worker
};

}  // namespace treescan
