#include "backend.h"

#include "cpu/edge_weights.h"
#include "cpu/scan.h"
#include "cpu/selective_scan.h"
#include "cpu/spanning_tree.h"
#include "cpu/tree_order.h"
#include "status.h"

namespace treescan {

const Backend cpu_backend = {
    [](const treescan_tensor &, const char *) {}, [](int32_t, void *) {}, edge_weights,
    spanning_tree, tree_from_edges, tree_from_parents, forest_from_parents, scan, scan_backward, selective_scan,
    selective_scan_backward};

const Backend &backend_of(int32_t device, const char *name) {
  if (device == TREESCAN_CPU) return cpu_backend;
  if (device != TREESCAN_CUDA)
    fail(TREESCAN_UNSUPPORTED_DEVICE, name, ": expected device TREESCAN_CPU (1) or TREESCAN_CUDA (2), got ", device);
#if defined(TREESCAN_WITH_CUDA)
  return cuda_backend;
#else
  fail(TREESCAN_UNSUPPORTED_DEVICE, name,
       ": CUDA is asked for, but this build has no CUDA backend; the CMake option TREESCAN_CUDA=ON builds one");
#endif
}

const Backend &select_backend(std::initializer_list<NamedTensor> tensors, const void *stream) {
  const NamedTensor *first = nullptr;
  for (const NamedTensor &named : tensors) {
    if (!named.first) continue;
    if (!first) first = &named;
    const treescan_tensor &one = *first->first, &other = *named.first;
    if (one.device != other.device)
      fail(TREESCAN_UNSUPPORTED_DEVICE, named.second, ": expected ", one.device == TREESCAN_CPU ? "CPU" : "CUDA",
           " memory as ", first->second, " has, got ", other.device == TREESCAN_CPU ? "CPU" : "CUDA", " memory");
    if (one.device != TREESCAN_CPU && one.device_index != other.device_index)
      fail(TREESCAN_UNSUPPORTED_DEVICE, named.second, ": expected device ", one.device_index, " as ", first->second,
           " has, got device ", other.device_index);
    backend_of(other.device, named.second).check_memory(other, named.second);
  }
  const int32_t device = first->first->device;
  if (stream && device == TREESCAN_CPU)
    fail(TREESCAN_INVALID_ARGUMENT, "stream: expected NULL for tensors in CPU memory, got ", stream);
  return backend_of(device, first->second);
}

}  // namespace treescan
