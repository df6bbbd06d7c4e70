// Where calls go after their arguments have been checked: a table of functions for each kind of device.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <utility>

#include "edge_order.h"
#include "graph.h"
#include "treescan/treescan.h"

namespace treescan {

// Optional arguments are pointers. CPU functions get a stream that is NULL.
struct Backend {
  // Fails unless this is the tensor's memory: on the device that it names.
  void (*check_memory)(const treescan_tensor &tensor, const char *name);

  // Waits for the stream and fails with what went wrong on the device until then.
  void (*synchronize)(int32_t device_index, void *stream);

  void (*edge_weights)(const Graph &graph, const treescan_tensor &features, int32_t metric, bool exponential,
                       const treescan_tensor &cost, treescan_workspace *workspace, void *stream);

  void (*spanning_tree)(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                        const treescan_tensor *segments, const treescan_tree_output &output,
                        treescan_workspace *workspace, void *stream);

  void (*tree_from_edges)(const treescan_tensor &edges, const treescan_tensor &root, int32_t sibling_order,
                          const treescan_tree_output &output, treescan_workspace *workspace, void *stream);

  void (*tree_from_parents)(const treescan_tensor &parent, const treescan_tensor *root,
                            const treescan_tree_output &output, treescan_workspace *workspace, void *stream);

  void (*forest_from_parents)(const treescan_tensor &parent, const treescan_tree_output &output,
                              treescan_workspace *workspace, void *stream);

  void (*scan)(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
               const treescan_tensor &weights, const treescan_tensor &y, treescan_workspace *workspace, void *stream);

  void (*scan_backward)(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                        const treescan_tensor &x, const treescan_tensor &weights, const treescan_tensor &grad_y,
                        const treescan_tensor &grad_x, const treescan_tensor &grad_weights,
                        treescan_workspace *workspace, void *stream);

  void (*selective_scan)(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                         const treescan_selective_inputs &inputs, const treescan_tensor &y,
                         const treescan_tensor *last_state, treescan_workspace *workspace, void *stream);

  void (*selective_scan_backward)(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                                  const treescan_selective_inputs &inputs, const treescan_tensor &grad_y,
                                  const treescan_tensor *grad_last_state, const treescan_selective_gradients &gradients,
                                  treescan_workspace *workspace, void *stream);
};

extern const Backend cpu_backend;
#if defined(TREESCAN_WITH_CUDA)
extern const Backend cuda_backend;

// Ways of working that give the same results: by a name, "auto" for the one that fits.
namespace cuda {
void set_tree_team(const char *name);
void set_scan_strategy(const char *name);
}  // namespace cuda
#endif

// The backend of a treescan_device; fails if this build has none.
const Backend &backend_of(int32_t device, const char *name);

using NamedTensor = std::pair<const treescan_tensor *, const char *>;

// The backend for tensors that have each been checked; some may be NULL. All must lie on one device, and the stream must
// be one of that device.
const Backend &select_backend(std::initializer_list<NamedTensor> tensors, const void *stream);

}  // namespace treescan
