// Forests on the device, as scans walk along them: cut into paths, and the paths into layers.
//
// Vertices are renamed to places: roots come first, siblings stand side by side by ascending vertex, and vertices in no
// tree come last. A path leads from a place to one of its children, and on; it is walked by one thread for each channel.
// All that hangs from a path's places, and isn't on it, lies on paths of later layers, so the way up takes the layers from
// the last to the first and the way down from the first to the last, with a barrier between two.
//
// Level by level, every place is a path of its own and its layer is its depth. With heavy paths, a path goes on to the child
// with the most descendants, and layers are as many as the logarithm of the vertices, on a chain one. Either way each
// vertex adds up the same numbers in the same order.
#pragma once

#include "device.h"
#include "failure.h"
#include "strategy.h"
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
  const PlanSummary *summary;
  const int32_t *vertex;                     // V
  const int32_t *parent;                     // the parent's place; a root's own
  const int32_t *first_child, *num_children; // places
  const int32_t *sequence;                   // places, path by path, each from its top on; num_planted of them
  const int32_t *path_start;                 // by path, and one past the last: where it begins in `sequence`
  const int32_t *layer_start;                // by layer, and one past the last: its first path
};

// The plans of a call, as kernels get them: one for each item, or one for all.
struct PlanViews {
  Plan first;
  int64_t vertices, trees;

  __device__ __forceinline__ Plan of(int64_t item) const {
    const int64_t tree = trees == 1 ? 0 : item, at = tree * vertices, with_end = tree * (vertices + 1);
    return {first.summary + tree,     first.vertex + at,   first.parent + at,         first.first_child + at,
            first.num_children + at,  first.sequence + at, first.path_start + with_end, first.layer_start + with_end};
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
  char *scratch_;
  int64_t scratch_bytes_;
};

}  // namespace treescan::cuda
