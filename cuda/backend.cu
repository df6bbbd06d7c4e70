// The CUDA backend's table: every function on the device of its tensors, after what went wrong there before was reported.
#include "backend.h"

#include <atomic>
#include <cstring>

#include "call.h"
#include "edge_weights.h"
#include "failure.h"
#include "scan.h"
#include "selective_scan.h"
#include "spanning_tree.h"
#include "strategy.h"

namespace treescan {
namespace cuda {
namespace {

// Makes a device the current one for as long as it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = device != before_;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard &) = delete;
  DeviceGuard &operator=(const DeviceGuard &) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

void check_device(int32_t index, const char *name) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    fail(TREESCAN_UNSUPPORTED_DEVICE, name, ": expected a CUDA device, but CUDA finds none: ", cudaGetErrorString(error));
  }
  if (index < 0 || index >= count)
    fail(TREESCAN_UNSUPPORTED_DEVICE, name, ": expected a device from 0 to ", count - 1, ", got ", index);
}

void check_memory(const treescan_tensor &tensor, const char *name) {
  check_device(tensor.device_index, name);
  for (int32_t i = 0; i < tensor.ndim; ++i)
    if (tensor.sizes[i] == 0) return;
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, tensor.data), name);
  if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged)
    fail(TREESCAN_UNSUPPORTED_DEVICE, name, ": expected memory of CUDA device ", tensor.device_index,
         ", got a pointer into the host's");
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != tensor.device_index)
    fail(TREESCAN_UNSUPPORTED_DEVICE, name, ": expected memory of CUDA device ", tensor.device_index,
         ", got a pointer into that of device ", attributes.device);
}

void synchronize(int32_t device_index, void *stream) {
  check_device(device_index, "device_index");
  const DeviceGuard guard(device_index);
  check(cudaStreamSynchronize(as_stream(stream)), "cudaStreamSynchronize");
  fail_if_reported();
}

// operation(arguments...) on the device of `tensor`.
template <class Operation, class... Arguments>
void on_device_of(const treescan_tensor &tensor, Operation operation, const Arguments &...arguments) {
  const DeviceGuard guard(tensor.device_index);
  fail_if_reported();
  operation(arguments...);
}

std::atomic<TreeTeam> chosen_team{TreeTeam::automatic};
std::atomic<ScanStrategy> chosen_strategy{ScanStrategy::automatic};

// The number of a name among three.
int choose(const char *name, const char *argument, const char *const (&names)[3]) {
  for (int i = 0; i < 3; ++i)
    if (std::strcmp(name, names[i]) == 0) return i;
  fail(TREESCAN_INVALID_ARGUMENT, argument, ": expected \"", names[0], "\", \"", names[1], "\" or \"", names[2],
       "\", got \"", name, "\"");
}

}  // namespace

TreeTeam tree_team() { return chosen_team.load(std::memory_order_relaxed); }
ScanStrategy scan_strategy() { return chosen_strategy.load(std::memory_order_relaxed); }

void set_tree_team(const char *name) {
  chosen_team = static_cast<TreeTeam>(choose(name, "team", {"auto", "block", "grid"}));
}

void set_scan_strategy(const char *name) {
  chosen_strategy = static_cast<ScanStrategy>(choose(name, "strategy", {"auto", "levels", "paths"}));
}

}  // namespace cuda

const Backend cuda_backend = {
    cuda::check_memory,
    cuda::synchronize,
    [](const Graph &graph, const treescan_tensor &features, int32_t metric, bool exponential,
       const treescan_tensor &cost, treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(cost, cuda::edge_weights, graph, features, metric, exponential, cost, workspace, stream);
    },
    [](const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
       const treescan_tensor *segments, const treescan_tree_output &output, treescan_workspace *workspace,
       void *stream) {
      cuda::on_device_of(cost, cuda::spanning_tree, graph, cost, order, root, segments, output, workspace, stream);
    },
    [](const treescan_tensor &edges, const treescan_tensor &root, int32_t sibling_order,
       const treescan_tree_output &output, treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(edges, cuda::tree_from_edges, edges, root, sibling_order, output, workspace, stream);
    },
    [](const treescan_tensor &parent, const treescan_tensor *root, const treescan_tree_output &output,
       treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(parent, cuda::tree_from_parents, parent, root, output, workspace, stream);
    },
    [](const treescan_tensor &parent, const treescan_tree_output &output, treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(parent, cuda::forest_from_parents, parent, output, workspace, stream);
    },
    [](int32_t direction, const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
       const treescan_tensor &weights, const treescan_tensor &y, treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(x, cuda::scan, direction, parent, order, x, weights, y, workspace, stream);
    },
    [](int32_t direction, const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
       const treescan_tensor &weights, const treescan_tensor &grad_y, const treescan_tensor &grad_x,
       const treescan_tensor &grad_weights, treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(x, cuda::scan_backward, direction, parent, order, x, weights, grad_y, grad_x, grad_weights,
                         workspace, stream);
    },
    [](int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
       const treescan_selective_inputs &inputs, const treescan_tensor &y, const treescan_tensor *last_state,
       treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(y, cuda::selective_scan, direction, parent, order, inputs, y, last_state, workspace, stream);
    },
    [](int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
       const treescan_selective_inputs &inputs, const treescan_tensor &grad_y, const treescan_tensor *grad_last_state,
       const treescan_selective_gradients &gradients, treescan_workspace *workspace, void *stream) {
      cuda::on_device_of(grad_y, cuda::selective_scan_backward, direction, parent, order, inputs, grad_y,
                         grad_last_state, gradients, workspace, stream);
    },
};

}  // namespace treescan
