// Forests on the device, as scans walk along them: cut into paths, and the paths into layers.
//
// Vertices are renamed to places: roots come first, siblings stand side by side by ascending vertex, and vertices in no
// tree come last. A child's place may come before its parent's. A path leads from a place to one of its children, and
// on; it is walked by one thread for each channel. All that hangs from a path's places, and isn't on it, lies on paths of
// later layers, so the way up takes the layers from the last to the first and the way down from the first to the last,
// with a barrier between two.
//
// Level by level, every place is a path of its own and its layer is its depth. With heavy paths, a path goes on to the
// child with the most descendants, and layers are as many as the logarithm of the vertices, on a chain one. Either way
// each vertex adds up the same numbers in the same order.
#pragma once

#include "device.h"
#include "failure.h"
#include "strategy.h"
#include "team.h"
#include "workspace.h"

namespace treescan::cuda {

struct PlanSummary {
  int32_t valid;        // 0 if the arrays are no forest; nothing else holds then
  int32_t num_roots;
  int32_t num_planted;  // places in trees
  int32_t num_paths, num_layers;
  int32_t depth;        // of the deepest vertex
};

// One forest. Arrays by place unless said otherwise.
struct Plan {
  PlanSummary *summary;
  int32_t *vertex;                     // V
  int32_t *parent;                     // the parent's place; a root's own, and that of a vertex in no tree
  int32_t *first_child, *num_children; // places; 0 and 0 where there are none
  int32_t *sequence;                   // places, path by path, each from its top on; num_planted of them
  int32_t *path_start;                 // by path, and one past the last: where it begins in `sequence`
  int32_t *layer_start;                // by layer, and one past the last: its first path
};

// The plans of a call, as kernels get them: one for each item, or one for all.
struct PlanViews {
  PlanSummary *summaries;
  int32_t *arrays;
  int64_t vertices, trees;

  __host__ __device__ static constexpr int64_t array_elements(int64_t vertices) { return 7 * vertices + 2; }

  __host__ __device__ Plan of(int64_t item) const {
    const int64_t tree = trees == 1 ? 0 : item;
    int32_t *const at = arrays + tree * array_elements(vertices);
    return {summaries + tree,  at,
            at + vertices,     at + 2 * vertices,
            at + 3 * vertices, at + 4 * vertices,
            at + 5 * vertices, at + 6 * vertices + 1};
  }
};

// Host code. Measures or takes the memory for the plans of a call and for making them.
class Plans {
 public:
  Plans(Carver &carver, const treescan_tensor &parent, const treescan_tensor &order);

  // Launches what checks the forests and plans them. Faults are reported to `failure`.
  void make(const treescan_tensor &parent, const treescan_tensor &order, Failure *failure, cudaStream_t stream);

  const PlanViews &views() const { return views_; }

 private:
  PlanViews views_;
  unsigned blocks_ = 0;
  int threads_ = 0;
  size_t shared_bytes_ = 0;
  GridMemory *grid_memory_ = nullptr;  // null for a block for each tree
  char *scratch_ = nullptr;            // null for shared memory
};

}  // namespace treescan::cuda
