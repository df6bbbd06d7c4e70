// A library with the C interface of treescan, whose calls in CPU memory run on the emulated device instead: it moves the
// arrays there, makes the call, waits, and moves what has changed back. So every test of the C interface, and every test
// of the Python package, is a test of the CUDA backend too, as it stands.
//
// The library with the backend lies beside this one, in the folder `device`.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "emulation.h"
#include "emulator.h"
#include "treescan/treescan.h"

namespace {

// ---- The library with the backend ----

void *open_library() {
  Dl_info here;
  dladdr(reinterpret_cast<void *>(&open_library), &here);
  const std::string path = here.dli_fname;
  const std::string beside = path.substr(0, path.rfind('/') + 1) + "device/libtreescan.so";
  void *const library = dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library) return library;
  std::fprintf(stderr, "%s\n", dlerror());
  std::abort();
}

void *symbol(const char *name) {
  static void *const library = open_library();
  void *const found = dlsym(library, name);
  if (found) return found;
  std::fprintf(stderr, "%s\n", dlerror());
  std::abort();
}

#define LIBRARY(function) (reinterpret_cast<decltype(&::function)>(symbol(#function)))

// ---- Moving arrays ----

int64_t element_size(int32_t dtype) {
  switch (dtype) {
    case TREESCAN_FLOAT64:
    case TREESCAN_INT64: return 8;
    case TREESCAN_FLOAT32:
    case TREESCAN_INT32: return 4;
    case TREESCAN_FLOAT16:
    case TREESCAN_BFLOAT16: return 2;
    default: return 0;
  }
}

// The memory of one call on the device.
class Moved {
 public:
  // A stream is none of CPU memory's: such a call isn't moved, and the library says what it does on the CPU.
  explicit Moved(const void *stream) : stays_(stream != nullptr) {}
  ~Moved() {
    for (const auto &array : arrays_) cudaFree(array->device);
    cudaFree(workspace_memory_);
  }

  // The view of a tensor's copy. What isn't a tensor in CPU memory is left to the library's checks.
  const treescan_tensor *operator()(const treescan_tensor *tensor) {
    if (stays_ || !tensor || tensor->device != TREESCAN_CPU) return tensor;
    auto array = std::make_unique<Array>();
    array->view = *tensor;
    array->view.device = TREESCAN_CUDA;
    array->view.device_index = 0;
    int64_t first = 0, last = 0;
    if (tensor->data && extent(*tensor, first, last)) {
      const int64_t size = element_size(tensor->dtype);
      array->host = static_cast<char *>(tensor->data) + first * size;
      array->before.assign(array->host, array->host + (last - first + 1) * size);
      cudaMalloc(&array->device, array->before.size());
      cudaMemcpy(array->device, array->before.data(), array->before.size(), cudaMemcpyHostToDevice);
      array->view.data = static_cast<char *>(array->device) - first * size;
    }
    arrays_.push_back(std::move(array));
    return &arrays_.back()->view;
  }

  const treescan_graph *operator()(const treescan_graph *graph) {
    if (!graph || graph->kind != TREESCAN_EDGES) return graph;
    graph_ = *graph;
    graph_.edge_index = (*this)(graph->edge_index);
    return &graph_;
  }

  const treescan_tree_output *operator()(const treescan_tree_output *tree) {
    if (!tree) return tree;
    tree_ = {(*this)(tree->parent), (*this)(tree->order), (*this)(tree->depth), (*this)(tree->edge)};
    return &tree_;
  }

  const treescan_selective_inputs *operator()(const treescan_selective_inputs *in) {
    if (!in) return in;
    inputs_ = {(*this)(in->u), (*this)(in->delta), (*this)(in->A),          (*this)(in->B),     (*this)(in->C),
               (*this)(in->D), (*this)(in->z),     (*this)(in->delta_bias), in->delta_softplus};
    return &inputs_;
  }

  const treescan_selective_gradients *operator()(const treescan_selective_gradients *out) {
    if (!out) return out;
    gradients_ = {(*this)(out->u), (*this)(out->delta), (*this)(out->A), (*this)(out->B),
                  (*this)(out->C), (*this)(out->D),     (*this)(out->z), (*this)(out->delta_bias)};
    return &gradients_;
  }

  treescan_workspace *operator()(treescan_workspace *workspace) {
    if (stays_ || !workspace || !workspace->data || workspace->size < 0) return workspace;
    workspace_ = *workspace;
    const auto unaligned = reinterpret_cast<uintptr_t>(workspace->data) % 64;
    cudaMalloc(&workspace_memory_, static_cast<size_t>(workspace->size) + 64);
    workspace_.data = static_cast<char *>(workspace_memory_) + unaligned;
    return &workspace_;
  }

  // What has changed, whether it belongs to the tensor or lies between its elements.
  void bring_back() {
    for (const auto &array : arrays_) {
      std::vector<char> after(array->before.size());
      if (after.empty()) continue;
      cudaMemcpy(after.data(), array->device, after.size(), cudaMemcpyDeviceToHost);
      for (size_t i = 0; i < after.size(); ++i)
        if (after[i] != array->before[i]) array->host[i] = after[i];
    }
  }

 private:
  struct Array {
    treescan_tensor view;
    char *host = nullptr;
    std::vector<char> before;
    void *device = nullptr;
  };

  // The offsets of the first and the last element in memory; false if there are none, or no sane ones.
  static bool extent(const treescan_tensor &tensor, int64_t &first, int64_t &last) {
    constexpr int64_t sane = int64_t{1} << 30;
    if (tensor.ndim < 0 || tensor.ndim > TREESCAN_MAX_DIMS || !element_size(tensor.dtype)) return false;
    for (int32_t i = 0; i < tensor.ndim; ++i) {
      if (tensor.sizes[i] <= 0) return false;
      const __int128 reach = static_cast<__int128>(tensor.sizes[i] - 1) * tensor.strides[i];
      if (reach > sane || reach < -sane) return false;
      (reach < 0 ? first : last) += static_cast<int64_t>(reach);
    }
    return true;
  }

  const bool stays_;
  std::vector<std::unique_ptr<Array>> arrays_;
  treescan_graph graph_{};
  treescan_tree_output tree_{};
  treescan_selective_inputs inputs_{};
  treescan_selective_gradients gradients_{};
  treescan_workspace workspace_{};
  void *workspace_memory_ = nullptr;
};

thread_local std::string finding;  // of this thread's last call; empty if there was none

// Runs call(moved) on a fresh device and waits for it.
template <class Call>
treescan_status on_device(void *stream, Call call) {
  static std::mutex mutex;  // there is one emulator
  const std::lock_guard<std::mutex> lock(mutex);
  treescan::emulation::Options options;
  if (const char *const schedule = std::getenv("TREESCAN_EMULATION_SCHEDULE"))
    options.schedule = static_cast<treescan::emulation::Schedule>(std::atoi(schedule));
  treescan_status status = TREESCAN_OK;
  const auto report = treescan::emulation::run(options, [&] {
    Moved moved(stream);
    status = call(moved);
    const treescan_status later = LIBRARY(treescan_synchronize)(TREESCAN_CUDA, 0, nullptr);
    if (status == TREESCAN_OK) status = later;
    moved.bring_back();
  });
  finding = report.text();
  if (finding.empty() && report.live_allocations > 0) finding = "memory of the device is left behind";
  if (finding.empty()) return status;
  std::fprintf(stderr, "%s\n", finding.c_str());
  return TREESCAN_INTERNAL;
}

}  // namespace

extern "C" {

// ---- Calls without tensors go through ----

int32_t treescan_version(void) { return LIBRARY(treescan_version)(); }
treescan_status treescan_check_version(int32_t version) { return LIBRARY(treescan_check_version)(version); }
const char *treescan_build_info(void) { return LIBRARY(treescan_build_info)(); }
const char *treescan_last_error(void) {
  return finding.empty() ? LIBRARY(treescan_last_error)() : finding.c_str();
}
const char *treescan_status_name(int32_t status) { return LIBRARY(treescan_status_name)(status); }
treescan_status treescan_set_num_threads(int32_t count) { return LIBRARY(treescan_set_num_threads)(count); }
int32_t treescan_get_num_threads(void) { return LIBRARY(treescan_get_num_threads)(); }
treescan_status treescan_set_parallel_for(treescan_parallel_for parallel_for, void *context) {
  return LIBRARY(treescan_set_parallel_for)(parallel_for, context);
}
treescan_status treescan_set_instruction_set(const char *name) { return LIBRARY(treescan_set_instruction_set)(name); }
const char *treescan_get_instruction_set(void) { return LIBRARY(treescan_get_instruction_set)(); }
treescan_status treescan_synchronize(int32_t device, int32_t index, void *stream) {
  return LIBRARY(treescan_synchronize)(device, index, stream);
}
treescan_status treescan_set_cuda_trees(const char *team) { return LIBRARY(treescan_set_cuda_trees)(team); }
treescan_status treescan_set_cuda_scans(const char *strategy) { return LIBRARY(treescan_set_cuda_scans)(strategy); }
treescan_status treescan_graph_num_vertices(const treescan_graph *graph, int64_t *count) {
  return LIBRARY(treescan_graph_num_vertices)(graph, count);
}
treescan_status treescan_graph_num_edges(const treescan_graph *graph, int64_t *count) {
  return LIBRARY(treescan_graph_num_edges)(graph, count);
}
treescan_status treescan_graph_edges(const treescan_graph *graph, const treescan_tensor *edges) {
  return LIBRARY(treescan_graph_edges)(graph, edges);
}

// ---- Calls that run on the device ----

treescan_status treescan_edge_weights(const treescan_graph *graph, const treescan_tensor *features, int32_t metric,
                                      int32_t exponential, const treescan_tensor *cost, treescan_workspace *workspace,
                                      void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_edge_weights)(moved(graph), moved(features), metric, exponential, moved(cost),
                                          moved(workspace), stream);
  });
}

treescan_status treescan_minimum_spanning_tree(const treescan_graph *graph, const treescan_tensor *cost,
                                               int32_t maximum, const treescan_tensor *root,
                                               const treescan_tensor *segments, const treescan_tree_output *tree,
                                               treescan_workspace *workspace, void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_minimum_spanning_tree)(moved(graph), moved(cost), maximum, moved(root), moved(segments),
                                                   moved(tree), moved(workspace), stream);
  });
}

treescan_status treescan_random_spanning_tree(const treescan_graph *graph, const treescan_tensor *cost, uint64_t seed,
                                              const treescan_tensor *root, const treescan_tree_output *tree,
                                              treescan_workspace *workspace, void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_random_spanning_tree)(moved(graph), moved(cost), seed, moved(root), moved(tree),
                                                  moved(workspace), stream);
  });
}

treescan_status treescan_tree_from_edges(const treescan_tensor *edges, const treescan_tensor *root,
                                         int32_t sibling_order, const treescan_tree_output *tree,
                                         treescan_workspace *workspace, void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_tree_from_edges)(moved(edges), moved(root), sibling_order, moved(tree), moved(workspace),
                                             stream);
  });
}

treescan_status treescan_tree_from_parents(const treescan_tensor *parent, const treescan_tensor *root,
                                           const treescan_tree_output *tree, treescan_workspace *workspace,
                                           void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_tree_from_parents)(moved(parent), moved(root), moved(tree), moved(workspace), stream);
  });
}

treescan_status treescan_forest_from_parents(const treescan_tensor *parent, const treescan_tree_output *tree,
                                             treescan_workspace *workspace, void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_forest_from_parents)(moved(parent), moved(tree), moved(workspace), stream);
  });
}

treescan_status treescan_scan(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                              const treescan_tensor *x, const treescan_tensor *weights, const treescan_tensor *y,
                              treescan_workspace *workspace, void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_scan)(direction, moved(parent), moved(order), moved(x), moved(weights), moved(y),
                                  moved(workspace), stream);
  });
}

treescan_status treescan_scan_backward(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                                       const treescan_tensor *x, const treescan_tensor *weights,
                                       const treescan_tensor *grad_y, const treescan_tensor *grad_x,
                                       const treescan_tensor *grad_weights, treescan_workspace *workspace,
                                       void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_scan_backward)(direction, moved(parent), moved(order), moved(x), moved(weights),
                                           moved(grad_y), moved(grad_x), moved(grad_weights), moved(workspace), stream);
  });
}

treescan_status treescan_selective_scan(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                                        const treescan_selective_inputs *inputs, const treescan_tensor *y,
                                        const treescan_tensor *last_state, treescan_workspace *workspace,
                                        void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_selective_scan)(direction, moved(parent), moved(order), moved(inputs), moved(y),
                                            moved(last_state), moved(workspace), stream);
  });
}

treescan_status treescan_selective_scan_backward(int32_t direction, const treescan_tensor *parent,
                                                 const treescan_tensor *order, const treescan_selective_inputs *inputs,
                                                 const treescan_tensor *grad_y, const treescan_tensor *grad_last_state,
                                                 const treescan_selective_gradients *gradients,
                                                 treescan_workspace *workspace, void *stream) {
  return on_device(stream, [&](Moved &moved) {
    return LIBRARY(treescan_selective_scan_backward)(direction, moved(parent), moved(order), moved(inputs),
                                                     moved(grad_y), moved(grad_last_state), moved(gradients),
                                                     moved(workspace), stream);
  });
}

}  // extern "C"
