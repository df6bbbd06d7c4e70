#include "plan.h"

#include "call.h"
#include "team.h"

namespace treescan::cuda {

namespace {

// One tree's rows of a parent array and of an order.
struct Rows {
  const int32_t *parents, *orders;
  int64_t parent_batch_stride, parent_stride, order_batch_stride, order_stride;

  __device__ int32_t parent(int64_t tree, int64_t v) const {
    return parents[tree * parent_batch_stride + v * parent_stride];
  }
  __device__ int32_t order(int64_t tree, int64_t i) const {
    return orders[tree * order_batch_stride + i * order_stride];
  }
};

constexpr int64_t scratch_per_vertex = 6;

// The first version: one thread plans a tree, step by step.
__device__ bool is_forest(const Rows &rows, int64_t tree, int64_t vertices, int32_t *position, bool *canonical, Plan plan,
                      Failure *failure) {
  for (int64_t v = 0; v < vertices; ++v) position[v] = -1;
  int32_t planted = 0, roots = 0, last = -1, last_key = -1;
  *canonical = true;
  for (int64_t i = 0; i < vertices; ++i) {
    const int32_t v = rows.order(tree, i);
    if (v < 0 || v >= vertices) return report(failure, ValueFault::order_out_of_range, vertices, v, i, tree), false;
    if (position[v] >= 0) return report(failure, ValueFault::order_repeats, v, i, position[v], tree), false;
    const int32_t p = rows.parent(tree, v);
    if (p < -1 || p >= vertices) return report(failure, ValueFault::parent_out_of_range, vertices, p, v, tree), false;
    if (p >= 0) {
      if (planted < i) return report(failure, ValueFault::order_lacks_parents_last, v, p, i, tree), false;
      if (p == v && roots < i) return report(failure, ValueFault::order_lacks_roots_first, v, i, tree), false;
      if (p != v && position[p] < 0)
        return report(failure, ValueFault::order_child_before_parent, v, i, p, tree), false;
      ++planted;
      roots += p == v;
      const int32_t key = p == v ? -1 : position[p];
      if (key < last_key || (key == last_key && v <= last)) *canonical = false;
      last = v;
      last_key = key;
    }
    position[v] = static_cast<int32_t>(i);
  }
  plan.summary->num_planted = planted;
  plan.summary->num_roots = roots;
  return true;
}

__device__ void make_plan(const Rows &rows, int64_t tree, int64_t vertices, bool by_levels, bool by_paths,
                          int32_t *scratch, Plan plan, Failure *failure) {
  int32_t *const place = scratch, *const depth = scratch + vertices, *const size = scratch + 2 * vertices,
                 *const heavy = scratch + 3 * vertices, *const head = scratch + 4 * vertices,
                 *const walk = scratch + 5 * vertices;
  bool canonical = false;
  PlanSummary &summary = *plan.summary;
  summary = {};
  if (!is_forest(rows, tree, vertices, place, &canonical, plan, failure)) return;
  const int32_t planted = summary.num_planted;
  // Places.
  if (canonical) {
    for (int64_t i = 0; i < vertices; ++i) plan.vertex[i] = rows.order(tree, i);
  } else {
    int64_t end = 0;
    for (int64_t p = -1; p <= vertices; ++p)
      for (int64_t v = 0; v < vertices; ++v) {
        const int32_t of = rows.parent(tree, v);
        if ((of < 0 ? vertices : of == v ? -1 : of) == p) plan.vertex[end++] = static_cast<int32_t>(v);
      }
  }
  // Walk in the given order, in which parents come before their children.
  for (int64_t i = 0; i < vertices; ++i) place[plan.vertex[i]] = static_cast<int32_t>(i);
  for (int64_t i = 0; i < vertices; ++i) {
    const int32_t of = rows.parent(tree, plan.vertex[i]);
    plan.parent[i] = of < 0 ? static_cast<int32_t>(i) : place[of];
    plan.first_child[i] = plan.num_children[i] = 0;
    size[i] = 1;
    heavy[i] = -1;
    walk[i] = place[rows.order(tree, i)];
  }
  for (int64_t i = summary.num_roots; i < planted; ++i)
    if (plan.num_children[plan.parent[i]]++ == 0) plan.first_child[plan.parent[i]] = static_cast<int32_t>(i);
  for (int64_t k = 0; k < planted; ++k) {
    const int32_t i = walk[k], p = plan.parent[i];
    depth[i] = p == i ? 0 : depth[p] + 1;
    summary.depth = max(summary.depth, depth[i]);
  }
  summary.valid = 1;
  if (by_levels || (!by_paths && summary.depth < 8 * bits_for(vertices))) {
    int32_t end = 0;
    summary.num_paths = planted;
    summary.num_layers = planted > 0 ? summary.depth + 1 : 0;
    for (int32_t d = 0; d < summary.num_layers; ++d) {
      plan.layer_start[d] = end;
      for (int32_t i = 0; i < planted; ++i)
        if (depth[i] == d) plan.sequence[end++] = i;
    }
    for (int32_t i = 0; i <= planted; ++i) plan.path_start[i] = i;
    plan.layer_start[summary.num_layers] = planted;
    return;
  }
  for (int64_t k = planted; k-- > 0;) {
    const int32_t i = walk[k], p = plan.parent[i];
    if (p != i) size[p] += size[i];
  }
  for (int32_t i = planted; i-- > summary.num_roots;) {
    const int32_t p = plan.parent[i];
    if (heavy[p] < 0 || size[i] >= size[heavy[p]]) heavy[p] = i;
  }
  // Heads of paths, by layers; `depth` becomes the layer.
  for (int64_t k = 0; k < planted; ++k) {
    const int32_t i = walk[k], p = plan.parent[i];
    head[i] = p == i || heavy[p] != i;
    depth[i] = p == i ? 0 : depth[p] + head[i];
    summary.num_layers = max(summary.num_layers, depth[i] + 1);
  }
  int32_t end = 0;
  for (int32_t layer = 0; layer < summary.num_layers; ++layer) {
    plan.layer_start[layer] = summary.num_paths;
    for (int32_t i = 0; i < planted; ++i) {
      if (!head[i] || depth[i] != layer) continue;
      plan.path_start[summary.num_paths++] = end;
      for (int32_t at = i; at >= 0; at = heavy[at]) plan.sequence[end++] = at;
    }
  }
  plan.path_start[summary.num_paths] = end;
  plan.layer_start[summary.num_layers] = summary.num_paths;
}

__global__ void __launch_bounds__(32) plan_trees(PlanViews views, Rows rows, bool by_levels, bool by_paths,
                                                 int32_t *scratch, Failure *failure) {
  for (int64_t tree = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; tree < views.trees;
       tree += int64_t{gridDim.x} * blockDim.x)
    make_plan(rows, tree, views.vertices, by_levels, by_paths, scratch + tree * scratch_per_vertex * views.vertices,
              views.of(tree), failure);
}

// How far the items of a batch lie from each other; one serves all.
int64_t batch_stride(const treescan_tensor &tensor) { return tensor.sizes[0] == 1 ? 0 : tensor.strides[0]; }

}  // namespace

Plans::Plans(Carver &carver, const treescan_tensor &parent, const treescan_tensor &order) {
  const int64_t trees = std::max(parent.sizes[0], order.sizes[0]), vertices = parent.sizes[1];
  views_.trees = trees;
  views_.vertices = vertices;
  views_.summaries = carver.take<PlanSummary>(trees);
  views_.arrays = carver.take<int32_t>(times(trees, PlanViews::array_elements(vertices)));
  scratch_ = carver.take<int32_t>(times(trees, scratch_per_vertex * vertices));
}

void Plans::make(const treescan_tensor &parent, const treescan_tensor &order, Failure *failure, cudaStream_t stream) {
  if (views_.trees == 0 || views_.vertices == 0) return;
  const Rows rows = {static_cast<const int32_t *>(parent.data), static_cast<const int32_t *>(order.data),
                     batch_stride(parent), parent.strides[1], batch_stride(order), order.strides[1]};
  const ScanStrategy strategy = scan_strategy();
  check(LAUNCH((plan_trees), grid_size((views_.trees + 31) / 32), 32, 0, stream, views_, rows,
               strategy == ScanStrategy::levels, strategy == ScanStrategy::paths, scratch_, failure),
        "plan");
}

}  // namespace treescan::cuda
