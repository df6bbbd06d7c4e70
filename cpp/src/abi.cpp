// The C calls: each checks its arguments, then hands them to the backend, all inside one guard.
#include <algorithm>
#include <cstdio>

#include "backend.h"
#include "cpu/instruction_set.h"
#include "graph.h"
#include "parallel.h"
#include "validate.h"
#include "wide_costs.h"
#include "workspace.h"

namespace treescan {
namespace {

constexpr int64_t any = -1;

template <class T>
void require(const T *pointer, const char *name) {
  if (!pointer) fail(TREESCAN_INVALID_ARGUMENT, name, ": expected a pointer, got NULL");
}

void check_choice(int32_t value, const char *name, int32_t last) {
  if (value < 1 || value > last)
    fail(TREESCAN_INVALID_ARGUMENT, name, ": expected a number from 1 to ", last, " (see treescan.h), got ", value);
}

// A batch of one tensor serves every item of another.
void check_batch(int64_t size, int64_t batch, const char *name) {
  if (size != batch && size != 1)
    fail(TREESCAN_INVALID_ARGUMENT, name, ": expected a batch of ", batch, " or 1, got ", size);
}

void check_graph_batch(const Graph &graph, int64_t batch) {
  if (graph.batch >= 0 && graph.batch != batch)
    fail(TREESCAN_INVALID_ARGUMENT, "graph: its edge_index or context_length is for a batch of ", graph.batch, ", got ",
         batch, " items");
}

void check_root(const treescan_tensor *root, int64_t batch) {
  check_tensor(root, "root", {TREESCAN_INT32}, {any});
  check_batch(root->sizes[0], batch, "root");
}

void check_tree_output(const treescan_tree_output *tree, int64_t batch, int64_t vertices) {
  require(tree, "tree");
  if (vertices > INT32_MAX)
    fail(TREESCAN_TOO_LARGE, "tree: expected at most ", INT32_MAX, " vertices, got ", vertices);
  const struct {
    const treescan_tensor *tensor;
    const char *name;
  } outputs[] = {
      {tree->parent, "tree->parent"}, {tree->order, "tree->order"}, {tree->depth, "tree->depth"}, {tree->edge, "tree->edge"}};
  require(tree->parent, "tree->parent");
  for (const auto &output : outputs) {
    if (!output.tensor) continue;
    check_tensor(output.tensor, output.name, {TREESCAN_INT32}, {batch, vertices});
    check_writable(output.tensor, output.name);
  }
}

// x and everything of its shape, and the tree under it.
void check_scan(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                const treescan_tensor *x, std::initializer_list<NamedTensor> alike) {
  check_choice(direction, "direction", TREESCAN_BOTH);
  check_tensor(x, "x");
  if (x->ndim != 3 && x->ndim != 4)
    fail(TREESCAN_INVALID_ARGUMENT, "x: expected 3 dimensions (B, C, V) or 4 (B, C, H, W), got ", x->ndim);
  if (std::find(floating_dtypes.begin(), floating_dtypes.end(), x->dtype) == floating_dtypes.end())
    fail(TREESCAN_UNSUPPORTED_DTYPE, "x: expected float32, float64, float16 or bfloat16, got ", dtype_name(x->dtype));
  const int64_t *const s = x->sizes;
  if (x->ndim == 4 && s[3] > 0 && s[2] > INT64_MAX / s[3])
    fail(TREESCAN_TOO_LARGE, "x: ", s[2], " x ", s[3], " vertices overflow");
  const int64_t vertices = x->ndim == 4 ? s[2] * s[3] : s[2];
  if (vertices > INT32_MAX) fail(TREESCAN_TOO_LARGE, "x: expected at most ", INT32_MAX, " vertices, got ", vertices);
  if (vertices == 0) fail(TREESCAN_INVALID_ARGUMENT, "x: expected at least one vertex, got none");
  for (const auto &[tensor, name] : alike) {
    if (x->ndim == 4) {
      check_tensor(tensor, name, {x->dtype}, {s[0], s[1], s[2], s[3]});
    } else {
      check_tensor(tensor, name, {x->dtype}, {s[0], s[1], s[2]});
    }
  }
  check_tensor(parent, "parent", {TREESCAN_INT32}, {any, vertices});
  check_batch(parent->sizes[0], s[0], "parent");
  check_tensor(order, "order", {TREESCAN_INT32}, {parent->sizes[0], vertices});
}

// All arguments of a selective scan but its outputs.
void check_selective_scan(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                          const treescan_selective_inputs *inputs) {
  require(inputs, "inputs");
  const treescan_tensor *const u = inputs->u;
  check_tensor(u, "inputs->u", floating_dtypes, {any, any, any});
  check_scan(direction, parent, order, u, {{inputs->delta, "inputs->delta"}});
  if (inputs->z) check_tensor(inputs->z, "inputs->z", {u->dtype}, {u->sizes[0], u->sizes[1], u->sizes[2]});
  const int32_t computed = u->dtype == TREESCAN_FLOAT64 ? TREESCAN_FLOAT64 : TREESCAN_FLOAT32;
  check_tensor(inputs->A, "inputs->A", {computed}, {u->sizes[1], any});
  const int64_t states = inputs->A->sizes[1];
  if (states < 1 || states > INT32_MAX)
    fail(TREESCAN_INVALID_ARGUMENT, "inputs->A: expected 1 to ", INT32_MAX, " states, got ", states);
  int64_t groups = -1;
  const NamedTensor factors[] = {{inputs->B, "inputs->B"}, {inputs->C, "inputs->C"}};
  for (const auto &[factor, name] : factors) {
    check_tensor(factor, name);
    if (factor->ndim == 2) {
      check_tensor(factor, name, {computed}, {u->sizes[1], states});
      continue;
    }
    check_tensor(factor, name, {u->dtype}, {u->sizes[0], groups, states, u->sizes[2]});
    groups = factor->sizes[1];
    if (groups < 1 || u->sizes[1] % groups != 0)
      fail(TREESCAN_INVALID_ARGUMENT, name, ": expected groups that divide ", u->sizes[1], " channels, got ", groups);
  }
  if (inputs->D) check_tensor(inputs->D, "inputs->D", {computed}, {u->sizes[1]});
  if (inputs->delta_bias) check_tensor(inputs->delta_bias, "inputs->delta_bias", {computed}, {u->sizes[1]});
}

// The list of edges of a graph that has one.
const treescan_tensor *edge_list(const treescan_graph *graph) {
  return graph->kind == TREESCAN_EDGES ? graph->edge_index : nullptr;
}

// The state or its gradient.
void check_last_state(const treescan_selective_inputs &inputs, const treescan_tensor *state, const char *name) {
  check_tensor(state, name, {inputs.A->dtype}, {inputs.u->sizes[0], inputs.u->sizes[1], inputs.A->sizes[1]});
}

// A gradient, or any output that is like an input.
void check_gradient(const treescan_tensor *input, const treescan_tensor *grad, const char *name) {
  if (!input) {
    if (grad) fail(TREESCAN_INVALID_ARGUMENT, name, ": expected NULL as the input is, got a tensor");
    return;
  }
  const int64_t *const s = input->sizes;
  switch (input->ndim) {
    case 1: check_tensor(grad, name, {input->dtype}, {s[0]}); break;
    case 2: check_tensor(grad, name, {input->dtype}, {s[0], s[1]}); break;
    case 3: check_tensor(grad, name, {input->dtype}, {s[0], s[1], s[2]}); break;
    default: check_tensor(grad, name, {input->dtype}, {s[0], s[1], s[2], s[3]});
  }
  check_writable(grad, name);
}

std::string dotted(int32_t version) {
  std::ostringstream text;
  text << version / 10000 << "." << version / 100 % 100 << "." << version % 100;
  return text.str();
}

// The part of a version within which nothing is taken away: the major one, until 1.0 the minor one.
int32_t series(int32_t version) { return version < 10000 ? version / 100 - 100 : version / 10000; }

}  // namespace
}  // namespace treescan

using namespace treescan;

extern "C" {

int32_t treescan_version(void) { return TREESCAN_VERSION; }

treescan_status treescan_check_version(int32_t header_version) {
  return guard([&] {
    const int32_t header = series(header_version), own = series(TREESCAN_VERSION);
    if (header_version > TREESCAN_VERSION)
      fail(TREESCAN_INCOMPATIBLE,
           "treescan's library is older than the header that the program was compiled with: library ",
           dotted(TREESCAN_VERSION), ", header ", dotted(header_version));
    if (header != own)
      fail(TREESCAN_INCOMPATIBLE,
           "treescan's library is too new for the header that the program was compiled with: library ",
           dotted(TREESCAN_VERSION), ", header ", dotted(header_version));
  });
}

#if !defined(TREESCAN_WITH_CUDA)
static constexpr char cuda_architectures[] = "";
#else
static constexpr char cuda_architectures[] = ", cuda (" TREESCAN_WITH_CUDA ")";
#endif

const char *treescan_build_info(void) {
  static const struct Text {
    char text[160];
    Text() {
      std::snprintf(text, sizeof text, "treescan %d.%d.%d; backends: cpu%s; instruction sets:%s%s%s", TREESCAN_VERSION_MAJOR,
                    TREESCAN_VERSION_MINOR, TREESCAN_VERSION_PATCH, cuda_architectures, " baseline",
                    has_instruction_set(InstructionSet::avx2) ? " avx2" : "",
                    has_instruction_set(InstructionSet::avx512) ? " avx512" : "");
    }
  } info;
  return info.text;
}

treescan_status treescan_set_num_threads(int32_t num_threads) {
  return guard([&] {
    if (num_threads < 1 || num_threads > 1024)
      fail(TREESCAN_INVALID_ARGUMENT, "num_threads: expected 1 to 1024, got ", num_threads);
    set_num_threads(num_threads);
  });
}

int32_t treescan_get_num_threads(void) { return num_threads(); }

treescan_status treescan_set_parallel_for(treescan_parallel_for parallel_for, void *context) {
  return guard([&] { set_parallel_for(parallel_for, context); });
}

treescan_status treescan_set_instruction_set(const char *name) {
  return guard([&] { set_instruction_set(name); });
}

const char *treescan_get_instruction_set(void) { return instruction_set_name(instruction_set()); }

treescan_status treescan_synchronize(int32_t device, int32_t device_index, void *stream) {
  return guard([&] { backend_of(device, "device").synchronize(device_index, stream); });
}

treescan_status treescan_set_cuda_trees(const char *team) {
  return guard([&] {
    require(team, "team");
    backend_of(TREESCAN_CUDA, "treescan_set_cuda_trees");
#if defined(TREESCAN_WITH_CUDA)
    cuda::set_tree_team(team);
#endif
  });
}

treescan_status treescan_set_cuda_scans(const char *strategy) {
  return guard([&] {
    require(strategy, "strategy");
    backend_of(TREESCAN_CUDA, "treescan_set_cuda_scans");
#if defined(TREESCAN_WITH_CUDA)
    cuda::set_scan_strategy(strategy);
#endif
  });
}

treescan_status treescan_graph_num_vertices(const treescan_graph *graph, int64_t *num_vertices) {
  return guard([&] {
    require(num_vertices, "num_vertices");
    *num_vertices = resolve_graph(graph).num_vertices;
  });
}

treescan_status treescan_graph_num_edges(const treescan_graph *graph, int64_t *num_edges) {
  return guard([&] {
    require(num_edges, "num_edges");
    *num_edges = resolve_graph(graph).num_edges;
  });
}

treescan_status treescan_graph_edges(const treescan_graph *graph, const treescan_tensor *edges) {
  return guard([&] {
    const Graph resolved = resolve_graph(graph);
    const int64_t count = resolved.num_edges;
    const bool per_item = resolved.kind == TREESCAN_EDGES && graph->edge_index->ndim == 3;
    if (per_item) {
      check_tensor(edges, "edges", {TREESCAN_INT32}, {resolved.batch, count, 2});
    } else {
      check_tensor(edges, "edges", {TREESCAN_INT32}, {count, 2});
    }
    check_writable(edges, "edges");
    check_in_cpu_memory(edges, "edges");
    if (const treescan_tensor *const list = edge_list(graph)) check_in_cpu_memory(list, "graph->edge_index");
    const Block block = allocate(count * static_cast<int64_t>(sizeof(Ends)));
    Ends *const ends = static_cast<Ends *>(block.get());
    const int64_t *const strides = edges->strides + (per_item ? 1 : 0);
    const int64_t lists = count == 0 ? 0 : per_item ? resolved.batch : 1;  // empty lists may be any number
    for (int64_t item = 0; item < lists; ++item) {
      list_edges(resolved, item, ends);
      int32_t *const target = static_cast<int32_t *>(edges->data) + (per_item ? item * edges->strides[0] : 0);
      for (int64_t e = 0; e < count; ++e) {
        target[e * strides[0]] = ends[e].lower;
        target[e * strides[0] + strides[1]] = ends[e].upper;
      }
    }
  });
}

// The same view. Without elements, all its items begin where it points to: there needn't be memory anywhere else.
static treescan_tensor within_memory(treescan_tensor view) {
  if (std::any_of(view.sizes, view.sizes + view.ndim, [](int64_t size) { return size == 0; }))
    std::fill(view.strides, view.strides + view.ndim, 0);
  return view;
}

treescan_status treescan_edge_weights(const treescan_graph *graph, const treescan_tensor *features, int32_t metric,
                                      int32_t exponential, const treescan_tensor *cost, treescan_workspace *workspace,
                                      void *stream) {
  return guard([&] {
    const Graph resolved = resolve_graph(graph);
    check_choice(metric, "metric", TREESCAN_L1);
    check_tensor(features, "features");
    if (features->ndim == 4) {
      if (resolved.kind != TREESCAN_GRID)
        fail(TREESCAN_INVALID_ARGUMENT, "features: expected 3 dimensions (B, C, V) for a graph that is no grid, got 4");
      check_tensor(features, "features", floating_dtypes, {any, any, resolved.height, resolved.width});
    } else {
      check_tensor(features, "features", floating_dtypes, {any, any, resolved.num_vertices});
    }
    if (features->sizes[1] > INT32_MAX)
      fail(TREESCAN_TOO_LARGE, "features: expected at most ", INT32_MAX, " channels, got ", features->sizes[1]);
    check_graph_batch(resolved, features->sizes[0]);
    check_tensor(cost, "cost", {TREESCAN_FLOAT32, TREESCAN_FLOAT64}, {features->sizes[0], resolved.num_edges});
    if (cost->dtype == TREESCAN_FLOAT64 && features->dtype != TREESCAN_FLOAT64)
      fail(TREESCAN_UNSUPPORTED_DTYPE, "cost: expected float32 for features of ", dtype_name(features->dtype), ", got float64");
    check_writable(cost, "cost");
    const PinnedThreads threads;
    const Backend &backend = select_backend(
        {{features, "features"}, {cost, "cost"}, {edge_list(graph), "graph->edge_index"}}, stream);
    backend.edge_weights(resolved, *features, metric, exponential != 0, within_memory(*cost), workspace, stream);
  });
}

static void build_spanning_tree(const treescan_graph *graph, const treescan_tensor *cost, EdgeOrder order,
                                const treescan_tensor *root, const treescan_tensor *segments,
                                const treescan_tree_output *tree, treescan_workspace *workspace, void *stream) {
  const Graph resolved = resolve_graph(graph);
  check_tensor(cost, "cost", {TREESCAN_FLOAT32, TREESCAN_FLOAT64, TREESCAN_INT32, TREESCAN_INT64}, {any, resolved.num_edges});
  if (is_wide(*cost) && resolved.num_edges > most_ranks)
    fail(TREESCAN_TOO_LARGE, "cost: expected at most ", most_ranks, " edges for any type but float32, got ", resolved.num_edges);
  const int64_t batch = cost->sizes[0];
  check_graph_batch(resolved, batch);
  check_root(root, batch);
  if (segments) {
    check_tensor(segments, "segments", {TREESCAN_INT32}, {any, resolved.num_vertices});
    check_batch(segments->sizes[0], batch, "segments");
  }
  check_tree_output(tree, batch, resolved.num_vertices);
  const PinnedThreads threads;
  const Backend &backend = select_backend({{cost, "cost"},
                                           {edge_list(graph), "graph->edge_index"},
                                           {root, "root"},
                                           {segments, "segments"},
                                           {tree->parent, "tree->parent"},
                                           {tree->order, "tree->order"},
                                           {tree->depth, "tree->depth"},
                                           {tree->edge, "tree->edge"}},
                                          stream);
  backend.spanning_tree(resolved, within_memory(*cost), order, *root, segments, *tree, workspace, stream);
}

treescan_status treescan_minimum_spanning_tree(const treescan_graph *graph, const treescan_tensor *cost,
                                               int32_t maximum, const treescan_tensor *root,
                                               const treescan_tensor *segments, const treescan_tree_output *tree,
                                               treescan_workspace *workspace, void *stream) {
  return guard([&] {
    const EdgeOrder order{maximum ? EdgeOrder::descending : EdgeOrder::ascending, 0};
    build_spanning_tree(graph, cost, order, root, segments, tree, workspace, stream);
  });
}

treescan_status treescan_random_spanning_tree(const treescan_graph *graph, const treescan_tensor *cost, uint64_t seed,
                                              const treescan_tensor *root, const treescan_tree_output *tree,
                                              treescan_workspace *workspace, void *stream) {
  return guard([&] {
    build_spanning_tree(graph, cost, EdgeOrder{EdgeOrder::random, seed}, root, nullptr, tree, workspace, stream);
  });
}

treescan_status treescan_tree_from_edges(const treescan_tensor *edges, const treescan_tensor *root,
                                         int32_t sibling_order, const treescan_tree_output *tree,
                                         treescan_workspace *workspace, void *stream) {
  return guard([&] {
    check_choice(sibling_order, "sibling_order", TREESCAN_BY_EDGE);
    check_tensor(edges, "edges", {TREESCAN_INT32, TREESCAN_INT64}, {any, any, 2});
    if (edges->sizes[1] >= INT32_MAX)
      fail(TREESCAN_TOO_LARGE, "edges: expected fewer than ", INT32_MAX, " edges, got ", edges->sizes[1]);
    check_root(root, edges->sizes[0]);
    check_tree_output(tree, edges->sizes[0], edges->sizes[1] + 1);
    const PinnedThreads threads;
    const Backend &backend = select_backend({{edges, "edges"},
                                             {root, "root"},
                                             {tree->parent, "tree->parent"},
                                             {tree->order, "tree->order"},
                                             {tree->depth, "tree->depth"},
                                             {tree->edge, "tree->edge"}},
                                            stream);
    backend.tree_from_edges(*edges, *root, sibling_order, *tree, workspace, stream);
  });
}

static void check_parents(const treescan_tensor *parent, const treescan_tree_output *tree) {
  check_tensor(parent, "parent", {TREESCAN_INT32}, {any, any});
  if (parent->sizes[1] == 0) fail(TREESCAN_INVALID_ARGUMENT, "parent: expected at least one vertex, got none");
  check_tree_output(tree, parent->sizes[0], parent->sizes[1]);
  if (tree->edge) fail(TREESCAN_INVALID_ARGUMENT, "tree->edge: expected NULL, a parent array has no graph edges");
}

treescan_status treescan_tree_from_parents(const treescan_tensor *parent, const treescan_tensor *root,
                                           const treescan_tree_output *tree, treescan_workspace *workspace,
                                           void *stream) {
  return guard([&] {
    check_parents(parent, tree);
    if (root) check_root(root, parent->sizes[0]);
    const PinnedThreads threads;
    const Backend &backend = select_backend({{parent, "parent"},
                                             {root, "root"},
                                             {tree->parent, "tree->parent"},
                                             {tree->order, "tree->order"},
                                             {tree->depth, "tree->depth"}},
                                            stream);
    backend.tree_from_parents(*parent, root, *tree, workspace, stream);
  });
}

treescan_status treescan_forest_from_parents(const treescan_tensor *parent, const treescan_tree_output *tree,
                                             treescan_workspace *workspace, void *stream) {
  return guard([&] {
    check_parents(parent, tree);
    const PinnedThreads threads;
    const Backend &backend = select_backend({{parent, "parent"},
                                             {tree->parent, "tree->parent"},
                                             {tree->order, "tree->order"},
                                             {tree->depth, "tree->depth"}},
                                            stream);
    backend.forest_from_parents(*parent, *tree, workspace, stream);
  });
}

treescan_status treescan_scan(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                              const treescan_tensor *x, const treescan_tensor *weights, const treescan_tensor *y,
                              treescan_workspace *workspace, void *stream) {
  return guard([&] {
    check_scan(direction, parent, order, x, {{weights, "weights"}, {y, "y"}});
    check_writable(y, "y");
    const PinnedThreads threads;
    const Backend &backend = select_backend(
        {{x, "x"}, {weights, "weights"}, {y, "y"}, {parent, "parent"}, {order, "order"}}, stream);
    backend.scan(direction, *parent, *order, *x, *weights, *y, workspace, stream);
  });
}

treescan_status treescan_scan_backward(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                                       const treescan_tensor *x, const treescan_tensor *weights,
                                       const treescan_tensor *grad_y, const treescan_tensor *grad_x,
                                       const treescan_tensor *grad_weights, treescan_workspace *workspace,
                                       void *stream) {
  return guard([&] {
    check_scan(direction, parent, order, x,
               {{weights, "weights"}, {grad_y, "grad_y"}, {grad_x, "grad_x"}, {grad_weights, "grad_weights"}});
    check_writable(grad_x, "grad_x");
    check_writable(grad_weights, "grad_weights");
    const PinnedThreads threads;
    const Backend &backend = select_backend({{x, "x"},
                                             {weights, "weights"},
                                             {grad_y, "grad_y"},
                                             {grad_x, "grad_x"},
                                             {grad_weights, "grad_weights"},
                                             {parent, "parent"},
                                             {order, "order"}},
                                            stream);
    backend.scan_backward(direction, *parent, *order, *x, *weights, *grad_y, *grad_x, *grad_weights, workspace, stream);
  });
}

treescan_status treescan_selective_scan(int32_t direction, const treescan_tensor *parent, const treescan_tensor *order,
                                        const treescan_selective_inputs *inputs, const treescan_tensor *y,
                                        const treescan_tensor *last_state, treescan_workspace *workspace, void *stream) {
  return guard([&] {
    check_selective_scan(direction, parent, order, inputs);
    check_gradient(inputs->u, y, "y");
    if (last_state) {
      check_last_state(*inputs, last_state, "last_state");
      check_writable(last_state, "last_state");
    }
    const PinnedThreads threads;
    const Backend &backend = select_backend({{inputs->u, "inputs->u"},
                                             {inputs->delta, "inputs->delta"},
                                             {inputs->A, "inputs->A"},
                                             {inputs->B, "inputs->B"},
                                             {inputs->C, "inputs->C"},
                                             {inputs->D, "inputs->D"},
                                             {inputs->z, "inputs->z"},
                                             {inputs->delta_bias, "inputs->delta_bias"},
                                             {parent, "parent"},
                                             {order, "order"},
                                             {y, "y"},
                                             {last_state, "last_state"}},
                                            stream);
    backend.selective_scan(direction, *parent, *order, *inputs, *y, last_state, workspace, stream);
  });
}

treescan_status treescan_selective_scan_backward(int32_t direction, const treescan_tensor *parent,
                                                 const treescan_tensor *order, const treescan_selective_inputs *inputs,
                                                 const treescan_tensor *grad_y, const treescan_tensor *grad_last_state,
                                                 const treescan_selective_gradients *gradients,
                                                 treescan_workspace *workspace, void *stream) {
  return guard([&] {
    check_selective_scan(direction, parent, order, inputs);
    check_tensor(grad_y, "grad_y", {inputs->u->dtype}, {inputs->u->sizes[0], inputs->u->sizes[1], inputs->u->sizes[2]});
    if (grad_last_state) check_last_state(*inputs, grad_last_state, "grad_last_state");
    require(gradients, "gradients");
    check_gradient(inputs->u, gradients->u, "gradients->u");
    check_gradient(inputs->delta, gradients->delta, "gradients->delta");
    check_gradient(inputs->A, gradients->A, "gradients->A");
    check_gradient(inputs->B, gradients->B, "gradients->B");
    check_gradient(inputs->C, gradients->C, "gradients->C");
    check_gradient(inputs->D, gradients->D, "gradients->D");
    check_gradient(inputs->z, gradients->z, "gradients->z");
    check_gradient(inputs->delta_bias, gradients->delta_bias, "gradients->delta_bias");
    const PinnedThreads threads;
    const Backend &backend = select_backend({{inputs->u, "inputs->u"},
                                             {inputs->delta, "inputs->delta"},
                                             {inputs->A, "inputs->A"},
                                             {inputs->B, "inputs->B"},
                                             {inputs->C, "inputs->C"},
                                             {inputs->D, "inputs->D"},
                                             {inputs->z, "inputs->z"},
                                             {inputs->delta_bias, "inputs->delta_bias"},
                                             {parent, "parent"},
                                             {order, "order"},
                                             {grad_y, "grad_y"},
                                             {grad_last_state, "grad_last_state"},
                                             {gradients->u, "gradients->u"},
                                             {gradients->delta, "gradients->delta"},
                                             {gradients->A, "gradients->A"},
                                             {gradients->B, "gradients->B"},
                                             {gradients->C, "gradients->C"},
                                             {gradients->D, "gradients->D"},
                                             {gradients->z, "gradients->z"},
                                             {gradients->delta_bias, "gradients->delta_bias"}},
                                            stream);
    backend.selective_scan_backward(direction, *parent, *order, *inputs, *grad_y, grad_last_state, *gradients, workspace,
                                    stream);
  });
}

}  // extern "C"
