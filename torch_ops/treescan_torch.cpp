// libtreescan_torch: the C interface as operations of torch, treescan::scan and so on, for Python, C++ programs and exported
// programs alike.
//
// It sees torch through its stable ABI only (torch/csrc/stable, torch/headeronly), so that one build loads into torch 2.10 and
// every later one. What torch's tensors share with views is checked by the library; here only what a view can't express is: a
// dtype or a device that it has no code for, a name that stands for no option.
//
// On a CUDA device a call runs on torch's current stream there, in scratch memory of torch's allocator.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "treescan/treescan.h"

#if defined(_WIN32)
#define TREESCAN_TORCH_API __declspec(dllexport)
#else
#define TREESCAN_TORCH_API __attribute__((visibility("default")))
#endif

namespace {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// A string argument. (torch's own conversion to std::string leaks one at each call, up to 2.14.)
class Word {
 public:
  explicit Word(StringHandle handle) {
    size_t length = 0;
    const char *text = nullptr;
    const bool read =
        torch_string_length(handle, &length) == TORCH_SUCCESS && torch_string_c_str(handle, &text) == TORCH_SUCCESS;
    if (read) text_.assign(text, length);
    torch_delete_string(handle);
    if (!read) throw std::runtime_error("torch could not read a string argument");
  }
  const std::string &text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

template <>
struct torch::stable::detail::ToImpl<Word> {
  static Word call(StableIValue value, uint64_t, bool) { return Word(torch::stable::detail::to<StringHandle>(value)); }
};

namespace {

// ---- Threads ----

thread_local bool torch_failed = false;

struct Job {
  void (*body)(void *task, int64_t i);
  void *task;
};

void run_on_torch(void *, int64_t count, void (*body)(void *, int64_t), void *task) {
  Job job{body, task};
  const auto range = [](int64_t begin, int64_t end, void *context) {
    const Job &part = *static_cast<const Job *>(context);
    for (int64_t i = begin; i < end; ++i) part.body(part.task, i);
  };
  if (torch_parallel_for(0, count, 1, range, &job) != TORCH_SUCCESS) torch_failed = true;
}

void follow_torch() {
  torch_failed = false;
  uint32_t count = 1;
  if (torch_get_num_threads(&count) != TORCH_SUCCESS) return;
  const int32_t wanted = static_cast<int32_t>(std::clamp<uint32_t>(count, 1, 1024));
  if (treescan_get_num_threads() != wanted) treescan_set_num_threads(wanted);
}

int32_t has_torch_failed() { return torch_failed; }

// What is done before a call of the library and after it, whose result says whether the thread pool failed. Where the Python
// package is loaded, it decides on threads, and these are its own.
void (*begin_call)() = follow_torch;
int32_t (*end_call)() = has_torch_failed;

// ---- Calls ----

void throw_on(treescan_status status) {
  if (status == TREESCAN_OK) return;
  if (status == TREESCAN_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status == TREESCAN_INTERNAL) throw std::runtime_error(treescan_last_error());
  throw std::invalid_argument(treescan_last_error());
}

template <class Function>
void call(Function &&function) {
  begin_call();
  const treescan_status status = function();
  if (end_call() != 0) throw std::runtime_error("torch's thread pool failed to run a task");
  throw_on(status);
}

template <class T>
T checked(AOTITorchError error, T value, const char *what) {
  if (error != TORCH_SUCCESS) throw std::runtime_error(std::string("torch could not give ") + what);
  return value;
}

// ---- Tensors ----

int32_t dtype_of(const Tensor &tensor) {
  int32_t dtype = 0;
  const AOTITorchError error = aoti_torch_get_dtype(tensor.get(), &dtype);
  return checked(error, dtype, "a tensor's dtype");
}

int32_t device_type_of(const Tensor &tensor) {
  int32_t device = 0;
  const AOTITorchError error = aoti_torch_get_device_type(tensor.get(), &device);
  return checked(error, device, "a tensor's device");
}

int32_t dtype_code(int32_t dtype) {
  static const int32_t float32 = aoti_torch_dtype_float32(), float64 = aoti_torch_dtype_float64(),
                       float16 = aoti_torch_dtype_float16(), bfloat16 = aoti_torch_dtype_bfloat16(),
                       int32 = aoti_torch_dtype_int32(), int64 = aoti_torch_dtype_int64();
  if (dtype == float32) return TREESCAN_FLOAT32;
  if (dtype == float64) return TREESCAN_FLOAT64;
  if (dtype == float16) return TREESCAN_FLOAT16;
  if (dtype == bfloat16) return TREESCAN_BFLOAT16;
  if (dtype == int32) return TREESCAN_INT32;
  if (dtype == int64) return TREESCAN_INT64;
  return 0;
}

std::string dtype_name(int32_t dtype) {
  const std::pair<int32_t, const char *> names[] = {
      {aoti_torch_dtype_uint8(), "uint8"},         {aoti_torch_dtype_int8(), "int8"},
      {aoti_torch_dtype_int16(), "int16"},         {aoti_torch_dtype_bool(), "bool"},
      {aoti_torch_dtype_complex64(), "complex64"}, {aoti_torch_dtype_complex128(), "complex128"}};
  for (const auto &[code, name] : names) {
    if (code == dtype) return std::string("torch.") + name;
  }
  return "torch's number " + std::to_string(dtype);
}

// The view of a tensor, or of none.
class View {
 public:
  View() = default;
  View(const char *name, const Tensor &tensor) : present_(true) {
    static const int32_t cpu = aoti_torch_device_type_cpu(), cuda = aoti_torch_device_type_cuda();
    const int32_t device = device_type_of(tensor);
    if (device != cpu && device != cuda) {
      throw std::invalid_argument(std::string(name) + " must be on the CPU or a CUDA device");
    }
    view_.device = device == cpu ? TREESCAN_CPU : TREESCAN_CUDA;
    if (device == cuda) view_.device_index = tensor.get_device_index();
    const int32_t dtype = dtype_of(tensor);
    view_.dtype = dtype_code(dtype);
    if (view_.dtype == 0) throw std::invalid_argument(std::string(name) + " has an unsupported dtype: " + dtype_name(dtype));
    const auto sizes = tensor.sizes(), strides = tensor.strides();
    if (sizes.size() > TREESCAN_MAX_DIMS) {
      std::string shape;
      for (const int64_t size : sizes) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
      throw std::invalid_argument(std::string(name) + " must have at most " + std::to_string(TREESCAN_MAX_DIMS) +
                                  " dimensions, got shape (" + shape + ")");
    }
    view_.ndim = static_cast<int32_t>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), view_.sizes);
    std::copy(strides.begin(), strides.end(), view_.strides);
    view_.data = tensor.data_ptr();
  }
  View(const char *name, const MaybeTensor &tensor) {
    if (tensor) *this = View(name, *tensor);
  }

  const treescan_tensor *get() const { return present_ ? &view_ : nullptr; }
  bool on_cuda() const { return view_.device == TREESCAN_CUDA; }
  operator const treescan_tensor *() const { return get(); }

 private:
  treescan_tensor view_{};
  bool present_ = false;
};

// New memory of these sizes, in the order of the dimensions, on the device of `like`.
Tensor new_tensor(const Tensor &like, const std::vector<int64_t> &sizes, int32_t dtype) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  AtenTensorHandle handle = nullptr;
  const AOTITorchError error =
      aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), dtype, device_type_of(like),
                               like.get_device_index(), &handle);
  return Tensor(checked(error, handle, "memory"));
}

// As torch.empty_like: its strides are what the fake kernels promise.
Tensor new_like(const Tensor &tensor) {
  if (!tensor.is_contiguous()) return torch::stable::empty_like(tensor);
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  AtenTensorHandle handle = nullptr;
  const AOTITorchError error =
      aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), dtype_of(tensor),
                               device_type_of(tensor), tensor.get_device_index(), &handle);
  return Tensor(checked(error, handle, "memory"));
}

// ---- Options ----

struct Choice {
  const char *name;
  int32_t code;
};

template <size_t Count>
int32_t chosen(const char *argument, const Word &word, const Choice (&choices)[Count]) {
  std::string listed;
  for (const Choice &choice : choices) {
    if (word.text() == choice.name) return choice.code;
    listed += (listed.empty() ? "'" : ", '") + std::string(choice.name) + "'";
  }
  throw std::invalid_argument(std::string(argument) + " must be one of " + listed + ", got '" + word.text() + "'");
}

int32_t direction_of(const Word &word) {
  static const Choice directions[] = {{"up", TREESCAN_UP}, {"down", TREESCAN_DOWN}, {"both", TREESCAN_BOTH}};
  return chosen("direction", word, directions);
}

int32_t metric_of(const Word &word) {
  static const Choice metrics[] = {{"cosine", TREESCAN_COSINE}, {"l2", TREESCAN_L2}, {"l1", TREESCAN_L1}};
  return chosen("metric", word, metrics);
}

using Numbers = std::vector<int64_t>;

// A graph from the arguments that every op on graphs has, and the memory that its description refers to.
class GraphView {
 public:
  GraphView(const Word &kind, const Numbers &sizes, const std::optional<Numbers> &context_length, const MaybeTensor &edges)
      : contexts_(context_length.value_or(Numbers())), edges_("edge_index", edges) {
    if (sizes.size() != 6) {
      throw std::invalid_argument("sizes must hold height, width, connectivity, length, window and num_vertices, got " +
                                  std::to_string(sizes.size()) + " numbers");
    }
    static const Choice kinds[] = {
        {"grid", TREESCAN_GRID}, {"tokens", TREESCAN_TOKENS}, {"chain", TREESCAN_CHAIN}, {"edges", TREESCAN_EDGES}};
    graph_.kind = chosen("kind", kind, kinds);
    graph_.height = sizes[0];
    graph_.width = sizes[1];
    graph_.connectivity = static_cast<int32_t>(std::clamp<int64_t>(sizes[2], INT32_MIN, INT32_MAX));
    graph_.length = sizes[3];
    graph_.window = sizes[4];
    graph_.num_vertices = sizes[5];
    graph_.edge_index = edges_;
    if (!contexts_.empty()) {
      context_view_.data = contexts_.data();
      context_view_.dtype = TREESCAN_INT64;
      context_view_.device = TREESCAN_CPU;
      context_view_.ndim = 1;
      context_view_.sizes[0] = static_cast<int64_t>(contexts_.size());
      context_view_.strides[0] = 1;
      graph_.context_length = &context_view_;
    }
  }
  GraphView(const GraphView &) = delete;
  GraphView &operator=(const GraphView &) = delete;

  int64_t num_vertices() const {
    int64_t count = 0;
    throw_on(treescan_graph_num_vertices(&graph_, &count));
    return count;
  }
  int64_t num_edges() const {
    int64_t count = 0;
    throw_on(treescan_graph_num_edges(&graph_, &count));
    return count;
  }
  operator const treescan_graph *() const { return &graph_; }

 private:
  Numbers contexts_;
  treescan_tensor context_view_{};
  View edges_;
  treescan_graph graph_{};
};

int64_t batch_of(const char *name, const Tensor &tensor) {
  if (tensor.dim() == 0) throw std::invalid_argument(std::string(name) + " must have a batch dimension, got a number");
  return tensor.size(0);
}

// ---- CUDA ----

// Found in torch's library for CUDA, which a torch without CUDA doesn't have. (What is in the library for all builds, a stream
// for any device, gives no pointer before 2.13.)
void *current_stream(int32_t device_index) {
#if defined(_WIN32)
  throw std::runtime_error("treescan's operations don't run on CUDA devices on Windows");
#else
  using CurrentStream = AOTITorchError (*)(int32_t, void **);
  static const auto function = [] {
    const char *const name = "aoti_torch_get_current_cuda_stream";
    void *found = dlsym(RTLD_DEFAULT, name);  // where a program is linked with it; Python keeps its libraries apart
    if (!found) {
      void *const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
      if (library) found = dlsym(library, name);
    }
    return reinterpret_cast<CurrentStream>(found);
  }();
  void *stream = nullptr;
  if (!function) throw std::runtime_error("this torch has no CUDA streams");
  const AOTITorchError error = function(device_index, &stream);
  return checked(error, stream, "the current CUDA stream");
#endif
}

// function(workspace, stream) on the device of `tensor`. The scratch memory may go when the call returns: torch gives it to
// nobody but later work of the same stream.
template <class Function>
void call_on_device_of(const Tensor &like, const View &tensor, Function &&function) {
  if (!tensor.on_cuda()) return call([&] { return function(nullptr, nullptr); });
  treescan_workspace workspace{};
  call([&] { return function(&workspace, nullptr); });
  const int64_t size = std::max<int64_t>(static_cast<int64_t>(workspace.size), 64);
  const Tensor memory = new_tensor(like, {size}, aoti_torch_dtype_uint8());
  workspace.data = memory.data_ptr();
  void *const stream = current_stream(tensor.get()->device_index);
  call([&] { return function(&workspace, stream); });
}

// ---- The operations ----

void scan_into(const Tensor &x, const Tensor &weights, const Tensor &parent, const Tensor &order, const Word &direction,
               const Tensor &out) {
  const View parents("parent", parent), orders("order", order), inputs("x", x), factors("weights", weights),
      outputs("y", out);
  const int32_t along = direction_of(direction);
  call_on_device_of(x, inputs, [&](auto... where) {
    return treescan_scan(along, parents, orders, inputs, factors, outputs, where...);
  });
}

Tensor scan(const Tensor &x, const Tensor &weights, const Tensor &parent, const Tensor &order, const Word &direction) {
  Tensor y = new_like(x);
  scan_into(x, weights, parent, order, direction, y);
  return y;
}

std::tuple<Tensor, Tensor> scan_backward(const Tensor &grad, const Tensor &x, const Tensor &weights, const Tensor &parent,
                                         const Tensor &order, const Word &direction) {
  Tensor grad_x = new_like(x), grad_weights = new_like(weights);
  const View parents("parent", parent), orders("order", order), inputs("x", x), factors("weights", weights),
      grads("grad", grad), input_grads("grad_x", grad_x), factor_grads("grad_weights", grad_weights);
  const int32_t along = direction_of(direction);
  call_on_device_of(x, inputs, [&](auto... where) {
    return treescan_scan_backward(along, parents, orders, inputs, factors, grads, input_grads, factor_grads, where...);
  });
  return {grad_x, grad_weights};
}

// The tensors of a selective scan in the order of the interface's structures.
struct SelectiveViews {
  SelectiveViews(const Tensor &u, const Tensor &delta, const Tensor &A, const Tensor &B, const Tensor &C, const MaybeTensor &D,
                 const MaybeTensor &z, const MaybeTensor &delta_bias)
      : u("u", u), delta("delta", delta), A("A", A), B("B", B), C("C", C), D("D", D), z("z", z),
        delta_bias("delta_bias", delta_bias) {}
  View u, delta, A, B, C, D, z, delta_bias;
};

std::tuple<Tensor, Tensor> selective_scan(const Tensor &u, const Tensor &delta, const Tensor &A, const Tensor &B,
                                          const Tensor &C, const MaybeTensor &D, const MaybeTensor &z,
                                          const MaybeTensor &delta_bias, const Tensor &parent, const Tensor &order,
                                          bool delta_softplus, const Word &direction) {
  const SelectiveViews in(u, delta, A, B, C, D, z, delta_bias);
  Numbers state_sizes{batch_of("u", u)};
  state_sizes.insert(state_sizes.end(), A.sizes().begin(), A.sizes().end());
  if (state_sizes.size() > TREESCAN_MAX_DIMS) throw std::invalid_argument("A must have 2 dimensions");
  Tensor y = new_like(u), last_state = new_tensor(A, state_sizes, dtype_of(A));
  const View parents("parent", parent), orders("order", order), outputs("y", y), states("last_state", last_state);
  const treescan_selective_inputs inputs{in.u, in.delta, in.A, in.B, in.C, in.D, in.z, in.delta_bias, delta_softplus};
  const int32_t along = direction_of(direction);
  call_on_device_of(u, outputs, [&](auto... where) {
    return treescan_selective_scan(along, parents, orders, &inputs, outputs, states, where...);
  });
  return {y, last_state};
}

using SelectiveGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

SelectiveGradients selective_scan_backward(const Tensor &grad_y, const MaybeTensor &grad_last_state, const Tensor &u,
                                           const Tensor &delta, const Tensor &A, const Tensor &B, const Tensor &C,
                                           const MaybeTensor &D, const MaybeTensor &z, const MaybeTensor &delta_bias,
                                           const Tensor &parent, const Tensor &order, bool delta_softplus,
                                           const Word &direction) {
  const SelectiveViews in(u, delta, A, B, C, D, z, delta_bias);
  const auto wanted = [](const MaybeTensor &tensor) { return tensor ? MaybeTensor(new_like(*tensor)) : std::nullopt; };
  const Tensor grad_u = new_like(u), grad_delta = new_like(delta), grad_A = new_like(A), grad_B = new_like(B),
               grad_C = new_like(C);
  const MaybeTensor grad_D = wanted(D), grad_z = wanted(z), grad_delta_bias = wanted(delta_bias);
  const SelectiveViews out(grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_delta_bias);
  const View parents("parent", parent), orders("order", order), grads("grad_y", grad_y),
      state_grads("grad_last_state", grad_last_state);
  const treescan_selective_inputs inputs{in.u, in.delta, in.A, in.B, in.C, in.D, in.z, in.delta_bias, delta_softplus};
  const treescan_selective_gradients gradients{out.u, out.delta, out.A, out.B, out.C, out.D, out.z, out.delta_bias};
  const int32_t along = direction_of(direction);
  call_on_device_of(grad_y, grads, [&](auto... where) {
    return treescan_selective_scan_backward(along, parents, orders, &inputs, grads, state_grads, &gradients, where...);
  });
  // An op can't return None; an input that isn't there has an empty gradient.
  const auto given = [&](const MaybeTensor &tensor) { return tensor ? *tensor : new_tensor(grad_y, {0}, dtype_of(grad_y)); };
  return {grad_u, grad_delta, grad_A, grad_B, grad_C, given(grad_D), given(grad_z), given(grad_delta_bias)};
}

Tensor edge_weights(const Tensor &features, const Word &kind, const Numbers &sizes,
                    const std::optional<Numbers> &context_length, const MaybeTensor &edge_index, const Word &metric,
                    bool exponential, const std::optional<torch::headeronly::ScalarType> &dtype) {
  const GraphView graph(kind, sizes, context_length, edge_index);
  using torch::stable::detail::from, torch::stable::detail::to;
  const int32_t wanted = dtype ? to<int32_t>(from(*dtype)) : aoti_torch_dtype_float32();
  Tensor cost = new_tensor(features, {batch_of("features", features), graph.num_edges()}, wanted);
  const View inputs("features", features), outputs("cost", cost);
  const int32_t code = metric_of(metric);
  call_on_device_of(features, inputs, [&](auto... where) {
    return treescan_edge_weights(graph, inputs, code, exponential, outputs, where...);
  });
  return cost;
}

// Memory for a tree, and its views.
struct Tree {
  Tree(const Tensor &like, int64_t batch, int64_t vertices)
      : parent(new_tensor(like, {batch, vertices}, aoti_torch_dtype_int32())), order(new_like(parent)),
        depth(new_like(parent)), parents("parent", parent), orders("order", order), depths("depth", depth),
        output{parents, orders, depths, nullptr} {}
  Tree(const Tree &) = delete;
  Tree &operator=(const Tree &) = delete;

  std::tuple<Tensor, Tensor, Tensor> result() const { return {parent, order, depth}; }

  Tensor parent, order, depth;
  View parents, orders, depths;
  treescan_tree_output output;
};

struct TreeOfEdges : Tree {
  TreeOfEdges(const Tensor &like, int64_t batch, int64_t vertices)
      : Tree(like, batch, vertices), edge(new_like(parent)), edges("edge", edge) {
    output.edge = edges;
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor> result() const { return {parent, order, depth, edge}; }

  Tensor edge;
  View edges;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> minimum_spanning_tree(const Tensor &cost, const Word &kind, const Numbers &sizes,
                                                                 const std::optional<Numbers> &context_length,
                                                                 const MaybeTensor &edge_index, bool maximum,
                                                                 const Tensor &root, const MaybeTensor &segments) {
  const GraphView graph(kind, sizes, context_length, edge_index);
  const TreeOfEdges tree(cost, batch_of("cost", cost), graph.num_vertices());
  const View costs("cost", cost), roots("root", root), labels("segments", segments);
  call_on_device_of(cost, costs, [&](auto... where) {
    return treescan_minimum_spanning_tree(graph, costs, maximum, roots, labels, &tree.output, where...);
  });
  return tree.result();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> random_spanning_tree(const Tensor &cost, const Word &kind, const Numbers &sizes,
                                                                const std::optional<Numbers> &context_length,
                                                                const MaybeTensor &edge_index, int64_t seed,
                                                                const Tensor &root) {
  const GraphView graph(kind, sizes, context_length, edge_index);
  const TreeOfEdges tree(cost, batch_of("cost", cost), graph.num_vertices());
  const View costs("cost", cost), roots("root", root);
  call_on_device_of(cost, costs, [&](auto... where) {
    return treescan_random_spanning_tree(graph, costs, static_cast<uint64_t>(seed), roots, &tree.output, where...);
  });
  return tree.result();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> tree_from_edges(const Tensor &edges, const Tensor &root, bool by_edge) {
  const View pairs("edges", edges), roots("root", root);
  if (edges.dim() < 2) throw std::invalid_argument("edges must have shape (B, V-1, 2)");
  const TreeOfEdges tree(edges, edges.size(0), edges.size(1) + 1);
  const int32_t sibling_order = by_edge ? TREESCAN_BY_EDGE : TREESCAN_BY_VERTEX;
  call_on_device_of(edges, pairs, [&](auto... where) {
    return treescan_tree_from_edges(pairs, roots, sibling_order, &tree.output, where...);
  });
  return tree.result();
}

std::tuple<Tensor, Tensor, Tensor> tree_from_parents(const Tensor &parent, const MaybeTensor &root) {
  const View parents("parent", parent), roots("root", root);
  if (parent.dim() != 2) throw std::invalid_argument("parent must have shape (B, V)");
  const Tree tree(parent, parent.size(0), parent.size(1));
  call_on_device_of(parent, parents, [&](auto... where) {
    return treescan_tree_from_parents(parents, roots, &tree.output, where...);
  });
  return tree.result();
}

std::tuple<Tensor, Tensor, Tensor> forest_from_parents(const Tensor &parent) {
  const View parents("parent", parent);
  if (parent.dim() != 2) throw std::invalid_argument("parent must have shape (B, V)");
  const Tree tree(parent, parent.size(0), parent.size(1));
  call_on_device_of(parent, parents, [&](auto... where) {
    return treescan_forest_from_parents(parents, &tree.output, where...);
  });
  return tree.result();
}

void implement(torch::stable::detail::StableLibrary &library) {
  library.impl("scan", TORCH_BOX(&scan));
  library.impl("scan_out", TORCH_BOX(&scan_into));
  library.impl("scan_backward", TORCH_BOX(&scan_backward));
  library.impl("selective_scan", TORCH_BOX(&selective_scan));
  library.impl("selective_scan_backward", TORCH_BOX(&selective_scan_backward));
  library.impl("edge_weights", TORCH_BOX(&edge_weights));
  library.impl("minimum_spanning_tree", TORCH_BOX(&minimum_spanning_tree));
  library.impl("random_spanning_tree", TORCH_BOX(&random_spanning_tree));
  library.impl("tree_from_edges", TORCH_BOX(&tree_from_edges));
  library.impl("tree_from_parents", TORCH_BOX(&tree_from_parents));
  library.impl("forest_from_parents", TORCH_BOX(&forest_from_parents));
}

}  // namespace

#define GRAPH "str kind, SymInt[] sizes, SymInt[]? context_length, Tensor? edge_index"
#define SELECTIVE                                                                                    \
  "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, " \
  "Tensor parent, Tensor order, bool delta_softplus, str direction"
#define FOUR " -> (Tensor, Tensor, Tensor, Tensor)"

STABLE_TORCH_LIBRARY(treescan, library) {
  library.def("scan(Tensor x, Tensor weights, Tensor parent, Tensor order, str direction) -> Tensor");
  // For callers that have memory for the result. It can't be differentiated.
  library.def("scan_out(Tensor x, Tensor weights, Tensor parent, Tensor order, str direction, *, Tensor(a!) out) -> ()");
  library.def(
      "scan_backward(Tensor grad, Tensor x, Tensor weights, Tensor parent, Tensor order, str direction) -> (Tensor, Tensor)");
  library.def("selective_scan(" SELECTIVE ") -> (Tensor, Tensor)");
  library.def("selective_scan_backward(Tensor grad_y, Tensor? grad_last_state, " SELECTIVE
              ") -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("edge_weights(Tensor features, " GRAPH ", str metric, bool exp, ScalarType? dtype=None) -> Tensor");
  library.def("minimum_spanning_tree(Tensor cost, " GRAPH ", bool maximum, Tensor root, Tensor? segments=None)" FOUR);
  library.def("random_spanning_tree(Tensor cost, " GRAPH ", int seed, Tensor root)" FOUR);
  library.def("tree_from_edges(Tensor edges, Tensor root, bool by_edge)" FOUR);
  library.def("tree_from_parents(Tensor parent, Tensor? root) -> (Tensor, Tensor, Tensor)");
  library.def("forest_from_parents(Tensor parent) -> (Tensor, Tensor, Tensor)");
  // A program without the Python package has torch's threads from the start.
  treescan_set_parallel_for(run_on_torch, nullptr);
}

STABLE_TORCH_LIBRARY_IMPL(treescan, CPU, library) { implement(library); }
STABLE_TORCH_LIBRARY_IMPL(treescan, CUDA, library) { implement(library); }

// For the Python package: TREESCAN_VERSION at compile time, and who decides on threads.
extern "C" TREESCAN_TORCH_API int32_t treescan_torch_version() { return TREESCAN_VERSION; }
extern "C" TREESCAN_TORCH_API void treescan_torch_guard_calls(void (*begin)(), int32_t (*end)()) {
  begin_call = begin;
  end_call = end;
}
