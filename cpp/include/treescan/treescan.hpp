// The C++17 face of treescan.h: the same calls on views with deduced types, owning results, and exceptions for errors.
//
//   const std::vector<float> image = ...;                                   // channels x height x width
//   const treescan::graph grid = treescan::grid(height, width);
//   const treescan::tensor_view x(image.data(), {1, channels, height, width});
//   const std::vector<float> cost = treescan::edge_weights(grid, x, treescan::metric::cosine);
//   const treescan::tree tree = treescan::minimum_spanning_tree(grid, {cost.data(), {1, grid.num_edges()}});
//   treescan::scan(treescan::direction::both, tree, x, weights, y);
//
// Everything here is inline and keeps nothing: what a call means, costs and refuses stands in treescan.h. Functions
// that return what they make work in CPU memory. Each has another form that writes to memory of yours, on any device,
// and may be given scratch memory and a stream.
#ifndef TREESCAN_TREESCAN_HPP
#define TREESCAN_TREESCAN_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "treescan/treescan.h"

namespace treescan {

// What every function below throws when its call fails; what() is the library's message.
class error : public std::runtime_error {
 public:
  error(treescan_status status, const std::string &message) : std::runtime_error(message), status_(status) {}
  treescan_status status() const noexcept { return status_; }

 private:
  treescan_status status_;
};

// Throws unless a call of treescan.h succeeded.
inline void check(treescan_status status) {
  if (status != TREESCAN_OK) throw error(status, treescan_last_error());
}

// Throws if the library that runs is older than this header, or too new for it. Every function below that can throw
// asks this first; it is found out once.
inline void check_version() {
  static const bool fits = (check(treescan_check_version(TREESCAN_VERSION)), true);
  static_cast<void>(fits);
}

namespace detail {

template <class Function, class... Arguments>
void call(Function *function, Arguments... arguments) {
  check_version();
  check(function(arguments...));
}

}  // namespace detail

// The library that runs: TREESCAN_VERSION, and a line on what it was built with.
inline int32_t version() noexcept { return treescan_version(); }
inline std::string build_info() { return treescan_build_info(); }

inline std::string status_name(treescan_status status) { return treescan_status_name(status); }

inline void set_num_threads(int32_t num_threads) { detail::call(treescan_set_num_threads, num_threads); }
inline int32_t get_num_threads() noexcept { return treescan_get_num_threads(); }

// Lends the library a thread pool; nullptr gives it back its own.
inline void set_parallel_for(treescan_parallel_for parallel_for, void *context = nullptr) {
  detail::call(treescan_set_parallel_for, parallel_for, context);
}

inline void set_instruction_set(const std::string &name) { detail::call(treescan_set_instruction_set, name.c_str()); }
inline std::string get_instruction_set() { return treescan_get_instruction_set(); }

// Waits for the work of a CUDA stream and throws what it found wrong with values.
inline void synchronize(treescan_device device, int32_t device_index = 0, void *stream = nullptr) {
  detail::call(treescan_synchronize, device, device_index, stream);
}

inline void set_cuda_trees(const std::string &team) { detail::call(treescan_set_cuda_trees, team.c_str()); }
inline void set_cuda_scans(const std::string &strategy) { detail::call(treescan_set_cuda_scans, strategy.c_str()); }

// The half types, as their bits. Any 16-bit type of your own can be viewed as one of them by a cast of its pointer.
struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

namespace detail {

template <class T>
constexpr treescan_dtype dtype_of() {
  if constexpr (std::is_same_v<T, float>) {
    return TREESCAN_FLOAT32;
  } else if constexpr (std::is_same_v<T, double>) {
    return TREESCAN_FLOAT64;
  } else if constexpr (std::is_same_v<T, float16>) {
    return TREESCAN_FLOAT16;
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return TREESCAN_BFLOAT16;
  } else {
    static_assert(std::is_integral_v<T> && std::is_signed_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                  "treescan has float, double, float16, bfloat16 and signed integers of 32 and 64 bits");
    return sizeof(T) == 4 ? TREESCAN_INT32 : TREESCAN_INT64;
  }
}

}  // namespace detail

// A strided view of memory that somebody else owns. Without strides the elements lie densely, the last index fastest.
// A view of const memory is for inputs only: the C interface has one type for both.
struct tensor_view : treescan_tensor {
  template <class T>
  tensor_view(T *memory, const std::vector<int64_t> &shape, const std::vector<int64_t> &steps = {},
              treescan_device where = TREESCAN_CPU, int32_t where_index = 0)
      : treescan_tensor{} {
    if (shape.size() > TREESCAN_MAX_DIMS)
      throw error(TREESCAN_INVALID_ARGUMENT, "sizes: expected at most " + std::to_string(TREESCAN_MAX_DIMS) +
                                                 " dimensions, got " + std::to_string(shape.size()));
    if (!steps.empty() && steps.size() != shape.size())
      throw error(TREESCAN_INVALID_ARGUMENT, "strides: expected one for each of " + std::to_string(shape.size()) +
                                                 " dimensions, got " + std::to_string(steps.size()));
    data = const_cast<std::remove_const_t<T> *>(memory);
    dtype = detail::dtype_of<std::remove_const_t<T>>();
    device = where;
    device_index = where_index;
    ndim = static_cast<int32_t>(shape.size());
    uint64_t dense = 1;  // unsigned, for sizes that are too large wrap here and are refused by the call
    for (size_t i = shape.size(); i-- > 0;) {
      sizes[i] = shape[i];
      strides[i] = steps.empty() ? static_cast<int64_t>(dense) : steps[i];
      dense *= static_cast<uint64_t>(shape[i]);
    }
  }

  explicit tensor_view(const treescan_tensor &view) : treescan_tensor(view) {}
};

// Scratch memory for calls that must not allocate: room for the one that `ask` makes, and for any that needs no more.
//
//   const auto call = [&](treescan_workspace *w) { treescan::scan(direction, parent, order, x, weights, y, w); };
//   treescan::workspace scratch(call);
//   call(&scratch);
class workspace : public treescan_workspace {
 public:
  template <class Ask>
  explicit workspace(Ask &&ask) : treescan_workspace{} {
    ask(static_cast<treescan_workspace *>(this));
    memory_.reset(static_cast<unsigned char *>(::operator new(static_cast<size_t>(size), alignment)));
    data = memory_.get();
  }
  workspace(const workspace &) = delete;
  workspace &operator=(const workspace &) = delete;

 private:
  static constexpr std::align_val_t alignment{64};
  struct deleter {
    void operator()(unsigned char *memory) const { ::operator delete(memory, alignment); }
  };
  std::unique_ptr<unsigned char, deleter> memory_;
};

enum class metric : int32_t { cosine = TREESCAN_COSINE, l2 = TREESCAN_L2, l1 = TREESCAN_L1 };
enum class direction : int32_t { up = TREESCAN_UP, down = TREESCAN_DOWN, both = TREESCAN_BOTH };
enum class sibling_order : int32_t { by_vertex = TREESCAN_BY_VERTEX, by_edge = TREESCAN_BY_EDGE };

// A graph. It views the caller's edge list or context lengths, which have to outlive it.
class graph {
 public:
  // With `lists` the tensor that a kind of graph refers to.
  explicit graph(const treescan_graph &description, std::optional<tensor_view> lists = {})
      : description_(description), lists_(std::move(lists)) {}

  // For a call of treescan.h: points into this object.
  treescan_graph c() const {
    treescan_graph result = description_;
    const treescan_tensor *const lists = lists_ ? &*lists_ : nullptr;
    (result.kind == TREESCAN_EDGES ? result.edge_index : result.context_length) = lists;
    return result;
  }

  int64_t num_vertices() const {
    const treescan_graph description = c();
    int64_t count = 0;
    detail::call(treescan_graph_num_vertices, &description, &count);
    return count;
  }

  int64_t num_edges() const {
    const treescan_graph description = c();
    int64_t count = 0;
    detail::call(treescan_graph_num_edges, &description, &count);
    return count;
  }

  // Both ends of every edge: E x 2, or B x E x 2 where the graph's own list has that rank.
  std::vector<int32_t> edges() const {
    const treescan_graph description = c();
    std::vector<int64_t> shape{num_edges(), 2};
    if (description.kind == TREESCAN_EDGES && lists_->ndim == 3) shape.insert(shape.begin(), lists_->sizes[0]);
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    std::vector<int32_t> result(count);
    const tensor_view view(result.data(), shape);
    detail::call(treescan_graph_edges, &description, &view);
    return result;
  }

 private:
  treescan_graph description_;
  std::optional<tensor_view> lists_;
};

inline graph grid(int64_t height, int64_t width, int32_t connectivity = 4) {
  treescan_graph description{};
  description.kind = TREESCAN_GRID;
  description.connectivity = connectivity;
  description.height = height;
  description.width = width;
  return graph(description);
}

// context_length: (B|1,) int64; without it the context is the whole sequence.
inline graph tokens(int64_t length, int64_t window = 3, std::optional<tensor_view> context_length = {}) {
  treescan_graph description{};
  description.kind = TREESCAN_TOKENS;
  description.length = length;
  description.window = window;
  return graph(description, std::move(context_length));
}

inline graph chain(int64_t length) {
  treescan_graph description{};
  description.kind = TREESCAN_CHAIN;
  description.length = length;
  return graph(description);
}

inline graph edge_list(const tensor_view &edge_index, int64_t num_vertices) {
  treescan_graph description{};
  description.kind = TREESCAN_EDGES;
  description.num_vertices = num_vertices;
  return graph(description, edge_index);
}

// Edge weights into memory of yours.
inline void edge_weights(const graph &graph, const tensor_view &features, metric metric, bool exponential,
                         const tensor_view &cost, treescan_workspace *workspace = nullptr, void *stream = nullptr) {
  const treescan_graph description = graph.c();
  detail::call(treescan_edge_weights, &description, &features, static_cast<int32_t>(metric), exponential, &cost,
               workspace, stream);
}

// Edge weights as B x E numbers.
inline std::vector<float> edge_weights(const graph &graph, const tensor_view &features, metric metric = metric::cosine,
                                       bool exponential = false) {
  const int64_t batch = features.ndim > 0 && features.sizes[0] > 0 ? features.sizes[0] : 0, edges = graph.num_edges();
  std::vector<float> cost(static_cast<size_t>(batch * edges));
  edge_weights(graph, features, metric, exponential, {cost.data(), {batch, edges}});
  return cost;
}

// A rooted spanning tree for every item of a batch, in memory of its own: B x V numbers each.
struct tree {
  int64_t batch_size = 0, num_vertices = 0;
  std::vector<int32_t> parent, order, depth;
  std::vector<int32_t> edge;  // empty for a tree that came from a parent array

  tree() = default;
  tree(int64_t batch, int64_t vertices, bool with_edges)
      : batch_size(batch), num_vertices(vertices), parent(static_cast<size_t>(batch * vertices)), order(parent.size()),
        depth(parent.size()), edge(with_edges ? parent.size() : 0) {}

  tensor_view parent_view() const { return view(parent); }
  tensor_view order_view() const { return view(order); }
  tensor_view depth_view() const { return view(depth); }
  tensor_view edge_view() const { return view(edge); }

 private:
  tensor_view view(const std::vector<int32_t> &values) const { return {values.data(), {batch_size, num_vertices}}; }
};

namespace detail {

inline int64_t size_or_zero(const tensor_view &view, int32_t dimension) {
  return view.ndim > dimension && view.sizes[dimension] > 0 ? view.sizes[dimension] : 0;
}

// Has `call(root, outputs)` write a new tree.
template <class Call>
tree make_tree(int64_t batch, int64_t vertices, bool with_edges, const std::vector<int32_t> &root, Call &&call) {
  tree result(batch, vertices, with_edges);
  const tensor_view roots(root.data(), {static_cast<int64_t>(root.size())});
  const tensor_view parent = result.parent_view(), order = result.order_view(), depth = result.depth_view(),
                    edge = result.edge_view();
  call(roots, treescan_tree_output{&parent, &order, &depth, with_edges ? &edge : nullptr});
  return result;
}

inline const treescan_tensor *pointer(const std::optional<tensor_view> &view) { return view ? &*view : nullptr; }

}  // namespace detail

// In all of these, root has one vertex for all items or one for each. With segments, (B|1, V) int32, a forest.
inline void minimum_spanning_tree(const graph &graph, const tensor_view &cost, const tensor_view &root, bool maximum,
                                  const std::optional<tensor_view> &segments, const treescan_tree_output &tree,
                                  treescan_workspace *workspace = nullptr, void *stream = nullptr) {
  const treescan_graph description = graph.c();
  detail::call(treescan_minimum_spanning_tree, &description, &cost, maximum, &root, detail::pointer(segments), &tree,
               workspace, stream);
}

inline tree minimum_spanning_tree(const graph &graph, const tensor_view &cost, const std::vector<int32_t> &root = {0},
                                  bool maximum = false, const std::optional<tensor_view> &segments = {}) {
  return detail::make_tree(detail::size_or_zero(cost, 0), graph.num_vertices(), true, root,
                           [&](const tensor_view &roots, const treescan_tree_output &tree) {
                             minimum_spanning_tree(graph, cost, roots, maximum, segments, tree);
                           });
}

inline void random_spanning_tree(const graph &graph, const tensor_view &cost, uint64_t seed, const tensor_view &root,
                                 const treescan_tree_output &tree, treescan_workspace *workspace = nullptr,
                                 void *stream = nullptr) {
  const treescan_graph description = graph.c();
  detail::call(treescan_random_spanning_tree, &description, &cost, seed, &root, &tree, workspace, stream);
}

inline tree random_spanning_tree(const graph &graph, const tensor_view &cost, uint64_t seed,
                                 const std::vector<int32_t> &root = {0}) {
  return detail::make_tree(detail::size_or_zero(cost, 0), graph.num_vertices(), true, root,
                           [&](const tensor_view &roots, const treescan_tree_output &tree) {
                             random_spanning_tree(graph, cost, seed, roots, tree);
                           });
}

inline void tree_from_edges(const tensor_view &edges, const tensor_view &root, sibling_order siblings,
                            const treescan_tree_output &tree, treescan_workspace *workspace = nullptr,
                            void *stream = nullptr) {
  detail::call(treescan_tree_from_edges, &edges, &root, static_cast<int32_t>(siblings), &tree, workspace, stream);
}

inline tree tree_from_edges(const tensor_view &edges, const std::vector<int32_t> &root = {0},
                            sibling_order siblings = sibling_order::by_vertex) {
  return detail::make_tree(detail::size_or_zero(edges, 0), detail::size_or_zero(edges, 1) + 1, true, root,
                           [&](const tensor_view &roots, const treescan_tree_output &tree) {
                             tree_from_edges(edges, roots, siblings, tree);
                           });
}

// Without a root, here or below, it stays where it is.
inline void tree_from_parents(const tensor_view &parent, const std::optional<tensor_view> &root,
                              const treescan_tree_output &tree, treescan_workspace *workspace = nullptr,
                              void *stream = nullptr) {
  detail::call(treescan_tree_from_parents, &parent, detail::pointer(root), &tree, workspace, stream);
}

inline tree tree_from_parents(const tensor_view &parent, const std::vector<int32_t> &root = {}) {
  return detail::make_tree(detail::size_or_zero(parent, 0), detail::size_or_zero(parent, 1), false, root,
                           [&](const tensor_view &roots, const treescan_tree_output &tree) {
                             tree_from_parents(parent, root.empty() ? std::nullopt : std::optional(roots), tree);
                           });
}

inline void forest_from_parents(const tensor_view &parent, const treescan_tree_output &tree,
                                treescan_workspace *workspace = nullptr, void *stream = nullptr) {
  detail::call(treescan_forest_from_parents, &parent, &tree, workspace, stream);
}

inline tree forest_from_parents(const tensor_view &parent) {
  return detail::make_tree(
      detail::size_or_zero(parent, 0), detail::size_or_zero(parent, 1), false, {},
      [&](const tensor_view &, const treescan_tree_output &tree) { forest_from_parents(parent, tree); });
}

inline void scan(direction direction, const tensor_view &parent, const tensor_view &order, const tensor_view &x,
                 const tensor_view &weights, const tensor_view &y, treescan_workspace *workspace = nullptr,
                 void *stream = nullptr) {
  detail::call(treescan_scan, static_cast<int32_t>(direction), &parent, &order, &x, &weights, &y, workspace, stream);
}

inline void scan(direction direction, const tree &tree, const tensor_view &x, const tensor_view &weights,
                 const tensor_view &y) {
  scan(direction, tree.parent_view(), tree.order_view(), x, weights, y);
}

inline void scan_backward(direction direction, const tensor_view &parent, const tensor_view &order,
                          const tensor_view &x, const tensor_view &weights, const tensor_view &grad_y,
                          const tensor_view &grad_x, const tensor_view &grad_weights,
                          treescan_workspace *workspace = nullptr, void *stream = nullptr) {
  detail::call(treescan_scan_backward, static_cast<int32_t>(direction), &parent, &order, &x, &weights, &grad_y, &grad_x,
               &grad_weights, workspace, stream);
}

inline void scan_backward(direction direction, const tree &tree, const tensor_view &x, const tensor_view &weights,
                          const tensor_view &grad_y, const tensor_view &grad_x, const tensor_view &grad_weights) {
  scan_backward(direction, tree.parent_view(), tree.order_view(), x, weights, grad_y, grad_x, grad_weights);
}

// The tensors of a selective scan, or their gradients; shapes and dtypes stand at treescan_selective_inputs.
struct selective_tensors {
  tensor_view u, delta, A, B, C;
  std::optional<tensor_view> D = {}, z = {}, delta_bias = {};
};

namespace detail {

inline treescan_selective_inputs pointers(const selective_tensors &inputs, bool delta_softplus) {
  return {&inputs.u,     &inputs.delta,     &inputs.A,         &inputs.B,
          &inputs.C,     pointer(inputs.D), pointer(inputs.z), pointer(inputs.delta_bias),
          delta_softplus};
}

}  // namespace detail

inline void selective_scan(direction direction, const tensor_view &parent, const tensor_view &order,
                           const selective_tensors &inputs, bool delta_softplus, const tensor_view &y,
                           const std::optional<tensor_view> &last_state = {}, treescan_workspace *workspace = nullptr,
                           void *stream = nullptr) {
  const treescan_selective_inputs pointers = detail::pointers(inputs, delta_softplus);
  detail::call(treescan_selective_scan, static_cast<int32_t>(direction), &parent, &order, &pointers, &y,
               detail::pointer(last_state), workspace, stream);
}

inline void selective_scan(direction direction, const tree &tree, const selective_tensors &inputs, bool delta_softplus,
                           const tensor_view &y, const std::optional<tensor_view> &last_state = {}) {
  selective_scan(direction, tree.parent_view(), tree.order_view(), inputs, delta_softplus, y, last_state);
}

inline void selective_scan_backward(direction direction, const tensor_view &parent, const tensor_view &order,
                                    const selective_tensors &inputs, bool delta_softplus, const tensor_view &grad_y,
                                    const std::optional<tensor_view> &grad_last_state,
                                    const selective_tensors &gradients, treescan_workspace *workspace = nullptr,
                                    void *stream = nullptr) {
  const treescan_selective_inputs pointers = detail::pointers(inputs, delta_softplus);
  const treescan_selective_gradients targets{&gradients.u,
                                             &gradients.delta,
                                             &gradients.A,
                                             &gradients.B,
                                             &gradients.C,
                                             detail::pointer(gradients.D),
                                             detail::pointer(gradients.z),
                                             detail::pointer(gradients.delta_bias)};
  detail::call(treescan_selective_scan_backward, static_cast<int32_t>(direction), &parent, &order, &pointers, &grad_y,
               detail::pointer(grad_last_state), &targets, workspace, stream);
}

inline void selective_scan_backward(direction direction, const tree &tree, const selective_tensors &inputs,
                                    bool delta_softplus, const tensor_view &grad_y,
                                    const std::optional<tensor_view> &grad_last_state,
                                    const selective_tensors &gradients) {
  selective_scan_backward(direction, tree.parent_view(), tree.order_view(), inputs, delta_softplus, grad_y,
                          grad_last_state, gradients);
}

}  // namespace treescan

#endif
