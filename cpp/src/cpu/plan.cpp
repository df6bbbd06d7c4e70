#include "cpu/plan.h"

#include <algorithm>

#include "cpu/prefetch.h"
#include "cpu/tree_order.h"
#include "parallel.h"
#include "value_faults.h"

namespace treescan {

namespace {

// Appends a vertex, with its parent and the parent's position; a root's are its own.
void append(PlannedForest &plan, int64_t i, int32_t vertex, int32_t parent, int64_t parent_position) {
  Step *const steps = plan.steps;
  steps[i] = {static_cast<uint32_t>(vertex), static_cast<uint32_t>(parent)};
  if (parent == vertex) return;
  steps[parent_position].parent |= step_mark;
  if (i > plan.num_roots && parent_of(steps[i - 1]) == parent) steps[i - 1].vertex |= step_mark;
}

// Its rows are taken by vertices with children, one after the other, until the last child has had its turn, and the next
// vertex may write to the one behind them.
int64_t ring_of(const PlannedForest &plan) {
  int64_t waiting = 0, most = 0;
  for (int64_t i = 0; i < plan.num_planted; ++i) {
    most = std::max(most, waiting);
    waiting += has_children(plan.steps[i]) - (i >= plan.num_roots && !has_next_sibling(plan.steps[i]));
  }
  return most + 1;
}

// Sorts out a forest whose given order isn't the canonical one, so that the result depends on `parent` alone. It needs
// memory of its own, which it gets from the system: no workspace is sized for it.
void order_canonically(const int32_t *parent, int64_t stride, int64_t item, int64_t vertices, int32_t *position,
                       PlannedForest &plan) {
  RootedTree forest;
  Carver measure;
  forest.carve(measure, vertices);
  const Block block = allocate(measure.used());
  Carver carver(block.get());
  forest.carve(carver, vertices);
  forest_from_parents(parent, stride, item, forest);
  root_tree(forest, TREESCAN_BY_VERTEX);
  for (int64_t i = 0; i < plan.num_planted; ++i) {
    const int32_t v = forest.order[i];
    position[v] = static_cast<int32_t>(i);
    append(plan, i, v, forest.parent[v], position[forest.parent[v]]);
  }
}

// One item's rows of a parent array and of an order.
struct Item {
  const int32_t *parent, *order;
  int64_t parent_stride, order_stride;
  int64_t vertices;
};

// Plans a canonical order in which every vertex is in a tree, as nearly all are: parents come in the order of their
// children. Returns whether it was one: if not, the plan is void, and somebody has to look more closely.
bool plan_quickly(const Item &item, PlannedForest &plan) {
  const int64_t vertices = item.vertices;
  Step *const steps = plan.steps;
  constexpr int64_t ahead = 32;
  int64_t num_roots = 0, parent_position = -1, last_parent = INT64_MIN;  // which no parent is
  int32_t last = -1;
  for (int64_t i = 0; i < vertices; ++i) {
    const int32_t v = item.order[i * item.order_stride];
    const int32_t later = item.order[std::min(i + ahead, vertices - 1) * item.order_stride];
    if (v < 0 || v >= vertices || later < 0 || later >= vertices) return false;
    prefetch(item.parent + later * item.parent_stride);
    const int32_t p = item.parent[v * item.parent_stride];
    steps[i] = {static_cast<uint32_t>(v), static_cast<uint32_t>(p)};
    if (p == v) {
      if (i > num_roots++ || v <= last) return false;
    } else if (p == last_parent) {
      if (v <= last) return false;
      steps[i - 1].vertex |= step_mark;
    } else {
      do {
        if (++parent_position >= i) return false;
      } while (vertex_of(steps[parent_position]) != p);
      steps[parent_position].parent |= step_mark;
      last_parent = p;
    }
    last = v;
  }
  plan.num_roots = num_roots;
  plan.num_planted = vertices;
  return true;
}

// Checks one item's forest and writes it by positions. `position` is scratch for V numbers.
void make_plan(const treescan_tensor &parent_view, const treescan_tensor &order_view, int64_t item, int32_t *position,
               PlannedForest &plan) {
  const int64_t vertices = parent_view.sizes[1];
  const int32_t *const parent = static_cast<const int32_t *>(parent_view.data) + item * parent_view.strides[0];
  const int32_t *const order = static_cast<const int32_t *>(order_view.data) + item * order_view.strides[0];
  const int64_t parent_stride = parent_view.strides[1], order_stride = order_view.strides[1];
  if (plan_quickly({parent, order, parent_stride, order_stride, vertices}, plan)) return;
  std::fill(position, position + vertices, -1);
  bool canonical = true;
  int32_t last = -1, last_key = -1;
  plan.num_roots = plan.num_planted = 0;
  for (int64_t i = 0; i < vertices; ++i) {
    const int32_t v = order[i * order_stride];
    if (v < 0 || v >= vertices)
      fail(ValueFault::order_out_of_range, vertices, v, i, item);
    if (position[v] >= 0)
      fail(ValueFault::order_repeats, v, i, position[v], item);
    const int32_t p = parent[v * parent_stride];
    if (p < -1 || p >= vertices)
      fail(ValueFault::parent_out_of_range, vertices, p, v, item);
    const bool is_root = p == v;
    if (p < 0) {
      plan.steps[i] = {static_cast<uint32_t>(v), static_cast<uint32_t>(v)};
    } else if (plan.num_planted < i) {
      fail(ValueFault::order_lacks_parents_last, v, p, i, item);
    } else if (is_root && plan.num_roots < i) {
      fail(ValueFault::order_lacks_roots_first, v, i, item);
    } else if (!is_root && position[p] < 0) {
      fail(ValueFault::order_child_before_parent, v, i, p, item);
    } else {
      append(plan, i, v, p, position[p]);
      ++plan.num_planted;
      plan.num_roots += is_root;
      const int32_t key = is_root ? -1 : position[p];
      canonical = canonical && (key > last_key || (key == last_key && v > last));
      last = v;
      last_key = key;
    }
    position[v] = static_cast<int32_t>(i);
  }
  if (!canonical) order_canonically(parent, parent_stride, item, vertices, position, plan);
}

}  // namespace

Plans::Plans(Carver &carver, const treescan_tensor &parent, const treescan_tensor &order)
    : trees_(std::max(parent.sizes[0], order.sizes[0])),
      vertices_(parent.sizes[1]),
      workers_(num_workers(trees_)),
      forests_(carver.take<PlannedForest>(trees_)),
      steps_(carver.take<Step>(times(trees_, vertices_))),
      positions_(carver.take<int32_t>(times(workers_, vertices_))) {}

void Plans::make(const treescan_tensor &parent, const treescan_tensor &order) {
  for_each_task(workers_, trees_, [&](int64_t worker, int64_t tree) {
    forests_[tree].steps = steps_ + tree * vertices_;
    make_plan(parent, order, tree, positions_ + worker * vertices_, forests_[tree]);
  });
}

int64_t Plans::ring() const {
  int64_t ring = 1;
  for (int64_t tree = 0; tree < trees_; ++tree) ring = std::max(ring, ring_of(forests_[tree]));
  return ring;
}

Plan Plans::plan(int64_t item, int64_t ring, int64_t row_bytes, bool far) const {
  const PlannedForest &forest = forests_[trees_ == 1 ? 0 : item];
  return {forest.steps, forest.num_roots, forest.num_planted, vertices_, ring, row_bytes, far};
}

}  // namespace treescan
