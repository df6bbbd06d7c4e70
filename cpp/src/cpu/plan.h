// Forests by positions, as scans walk along them.
#pragma once

#include <cstdint>

#include "treescan/treescan.h"

namespace treescan {

// One position of a forest's canonical order: roots first, parents before their children, siblings side by side, and last
// the vertices that are in no tree.
struct Step {
  int32_t vertex;
  int32_t parent;  // its position, a root's its own; the complement of that if the vertex has no children
};

// One forest, most often a single tree, by positions.
struct Plan {
  int64_t num_roots;
  int64_t num_planted;   // vertices in trees
  int64_t num_vertices;  // all of them
  const Step *steps;
  int64_t ring;  // a power of two, more than any vertex lies behind its parent
  bool far;      // whether rows are so many that they have to be fetched ahead
};

// What a plan is made of: its steps, and how many positions at most a vertex lies behind its parent.
struct PlannedForest {
  Step *steps;
  int64_t num_roots, num_planted, distance;
};

// Checks one item's forest and writes it by positions. `position` is scratch for V numbers.
void make_plan(const treescan_tensor &parent, const treescan_tensor &order, int64_t item, int32_t *position,
               PlannedForest &plan);

}  // namespace treescan
