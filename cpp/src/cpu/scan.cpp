#include "cpu/scan.h"

#include <algorithm>

#include "cpu/instruction_set.h"
#include "cpu/scan_kernels.h"
#include "cpu/tree_order.h"
#include "parallel.h"
#include "validate.h"

namespace treescan {

namespace baseline {
const KernelTable &table();
}
#if defined(TREESCAN_X86_KERNELS)
namespace avx2 {
const KernelTable &table();
}
namespace avx512 {
const KernelTable &table();
}
#endif

const KernelTable &kernel_table() {
  switch (instruction_set()) {
#if defined(TREESCAN_X86_KERNELS)
    case InstructionSet::avx512: return avx512::table();
    case InstructionSet::avx2: return avx2::table();
#endif
    default: return baseline::table();
  }
}

namespace {

// Sorts out a tree whose given order isn't the canonical one, so that the result depends on `parent` alone. It needs
// memory of its own, which it gets from the system: no workspace is sized for it.
void plan_from_parents(const int32_t *parent, int64_t stride, int64_t item, int32_t *position, Plan &plan,
                       int32_t *plan_order, int32_t *plan_parent) {
  RootedTree tree;
  Carver measure;
  tree.carve(measure, plan.num_vertices);
  const Block block = allocate(measure.used());
  Carver carver(block.get());
  tree.carve(carver, plan.num_vertices);
  root_tree(tree, edges_from_parents(parent, stride, item, tree), TREESCAN_BY_VERTEX);
  for (int64_t i = 0; i < plan.num_vertices; ++i) {
    plan_order[i] = tree.order[i];
    position[tree.order[i]] = static_cast<int32_t>(i);
  }
  for (int64_t i = 0; i < plan.num_vertices; ++i) plan_parent[i] = position[tree.parent[plan_order[i]]];
}

// Checks one item's tree and writes it by positions. `position` is scratch for V numbers.
Plan make_plan(const treescan_tensor &parent_view, const treescan_tensor &order_view, int64_t item, int32_t *position,
               int32_t *plan_order, int32_t *plan_parent) {
  const int64_t vertices = parent_view.sizes[1];
  const int32_t *const parent = static_cast<const int32_t *>(parent_view.data) + item * parent_view.strides[0];
  const int32_t *const order = static_cast<const int32_t *>(order_view.data) + item * order_view.strides[0];
  const int64_t parent_stride = parent_view.strides[1], order_stride = order_view.strides[1];
  Plan plan{vertices, plan_order, plan_parent};
  std::fill(position, position + vertices, -1);
  bool canonical = true;
  int32_t last = -1, last_parent = -1;
  for (int64_t i = 0; i < vertices; ++i) {
    const int32_t v = order[i * order_stride];
    if (v < 0 || v >= vertices)
      fail(TREESCAN_INVALID_ARGUMENT, "order: expected vertices in [0, ", vertices, "), got ", v, " at position ", i,
           " of item ", item);
    if (position[v] >= 0)
      fail(TREESCAN_NOT_A_TREE, "order: expected every vertex once, got ", v, " at positions ", position[v], " and ", i,
           " of item ", item);
    const int32_t p = parent[v * parent_stride];
    if (p < 0 || p >= vertices)
      fail(TREESCAN_INVALID_ARGUMENT, "parent: expected vertices in [0, ", vertices, "), got ", p, " at vertex ", v,
           " of item ", item);
    if (i == 0 && p != v)
      fail(TREESCAN_NOT_A_TREE, "order: expected the root, its own parent, first, got vertex ", v, " with parent ", p,
           " in item ", item);
    if (i > 0 && position[p] < 0)
      fail(TREESCAN_NOT_A_TREE, "order: expected parents before their children, got vertex ", v, " at position ", i,
           " before its parent ", p, " in item ", item);
    position[v] = static_cast<int32_t>(i);
    const int32_t p_position = position[p];
    plan_order[i] = v;
    plan_parent[i] = p_position;
    if (i > 1) canonical = canonical && (p_position > last_parent || (p_position == last_parent && v > last));
    last = v;
    last_parent = p_position;
  }
  if (!canonical) plan_from_parents(parent, parent_stride, item, position, plan, plan_order, plan_parent);
  return plan;
}

// One tensor of a scan: its memory, and whether a tile can be a window on it or has to be a copy.
struct Operand {
  const treescan_tensor *tensor;
  Layout layout;
  bool copied;

  Operand(const treescan_tensor &view, int64_t lanes) : tensor(&view), layout(layout_of(view)) {
    const bool whole_tiles = view.sizes[1] % lanes == 0;
    const bool own_type = view.dtype == TREESCAN_FLOAT32 || view.dtype == TREESCAN_FLOAT64;
    copied = !(own_type && layout.channel_stride == 1 && layout.row_stride == 0 && whole_tiles);
  }

  void *at(int64_t item, int64_t channel) const {
    return static_cast<char *>(tensor->data) +
           (item * tensor->strides[0] + channel * tensor->strides[1]) * dtype_size(tensor->dtype);
  }

  // The tile of some channels: a window on the caller's memory or a place for a copy.
  template <class T>
  Tile<T> tile(T *place, int64_t item, int64_t channel, int64_t lanes) const {
    if (copied) return {place, lanes};
    return {static_cast<T *>(at(item, channel)), layout.column_stride};
  }
};

int64_t num_vertices(const treescan_tensor &parent) { return parent.sizes[1]; }

// How many bytes of channels a tile is wide. Wide tiles share the cost of walking the tree among more channels; but what
// a pass works on should stay in the second-level cache, and every thread should have a tile.
int choose_width(const treescan_tensor &x, int64_t vertices, int64_t element, bool channels_together) {
  const int64_t channel_bytes = x.sizes[1] * element;
  if (channel_bytes <= width_bytes[0]) return 0;
  constexpr int64_t cache = 512 * 1024;
  const int64_t tiles = x.sizes[0] * (channel_bytes / width_bytes[2]);
  if (channel_bytes % width_bytes[2] == 0 && vertices * width_bytes[2] * 2 <= cache && tiles >= num_threads()) return 2;
  // Channels that lie apart are copied anyway, so narrow tiles cost no extra traffic.
  if (!channels_together && vertices * width_bytes[1] * 3 > 16 * cache) return 0;
  return 1;
}

// The frame that forward and backward share: plans for all trees, then every tile of every item on some worker with
// `buffers` pieces of V rows each as scratch.
template <class T, class Body>
void for_each_tile(const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x, int64_t lanes,
                   int buffers, treescan_workspace *workspace, Body &&body) {
  const int64_t vertices = num_vertices(parent);
  const int64_t batch = x.sizes[0], channels = x.sizes[1];
  const int64_t trees = std::max(parent.sizes[0], order.sizes[0]);
  const int64_t tiles = (channels + lanes - 1) / lanes;
  const int64_t plan_workers = num_workers(trees), workers = num_workers(batch * tiles);
  struct Pieces {
    int32_t *order, *parent, *position;
    T *rows;
  };
  const auto layout = [&](Carver &carver) {
    Pieces pieces;
    pieces.order = carver.take<int32_t>(trees * vertices);
    pieces.parent = carver.take<int32_t>(trees * vertices);
    pieces.position = carver.take<int32_t>(plan_workers * vertices);
    pieces.rows = carver.take<T>(workers * buffers * vertices * lanes);
    return pieces;
  };
  with_scratch(workspace, layout, [&](Carver &carver) {
    const Pieces pieces = layout(carver);
    for_each_task(plan_workers, trees, [&](int64_t worker, int64_t tree) {
      make_plan(parent, order, tree, pieces.position + worker * vertices, pieces.order + tree * vertices,
                pieces.parent + tree * vertices);
    });
    for_each_task(workers, batch * tiles, [&](int64_t worker, int64_t task) {
      const int64_t item = task / tiles, channel = task % tiles * lanes;
      const int64_t tree = trees == 1 ? 0 : item;
      const Plan plan{vertices, pieces.order + tree * vertices, pieces.parent + tree * vertices};
      T *const rows = pieces.rows + worker * buffers * vertices * lanes;
      body(plan, item, channel, std::min(lanes, channels - channel), [&](int i) { return rows + i * vertices * lanes; });
    });
  });
}

// Whether there is nothing to scan. Sizes beside the one that is 0 may be anything, so nobody computes with them.
bool is_empty(const treescan_tensor &x) { return x.sizes[0] == 0 || x.sizes[1] == 0; }

void do_nothing(treescan_workspace *workspace) {
  with_scratch(workspace, [](Carver &) {}, [](Carver &) {});
}

bool channels_together(std::initializer_list<const treescan_tensor *> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const treescan_tensor *t) { return t->strides[1] == 1; });
}

template <class T>
void scan_as(const ScanKernels<T> &kernels, const CopyKernels &copy, int32_t direction, const treescan_tensor &parent,
             const treescan_tensor &order, const treescan_tensor &x, const treescan_tensor &weights,
             const treescan_tensor &y, treescan_workspace *workspace) {
  const int64_t vertices = num_vertices(parent);
  const int width = choose_width(x, vertices, sizeof(T), channels_together({&x, &weights, &y}));
  const int64_t lanes = width_bytes[width] / static_cast<int64_t>(sizeof(T));
  const Operand from(x, lanes), by(weights, lanes), to(y, lanes);
  const auto kernel = kernels.forward[direction - 1][width];
  // Buffers: the accumulator, then one for each copy. Where both x and y are copies they share one.
  const int buffers = 1 + by.copied + (from.copied || to.copied);
  for_each_tile<T>(parent, order, x, lanes, buffers, workspace,
                   [&](const Plan &plan, int64_t item, int64_t channel, int64_t count, auto buffer) {
                     T *const values = buffer(1);
                     T *const factors = buffer(1 + (from.copied || to.copied));
                     const auto source = from.tile(values, item, channel, lanes);
                     const auto factor = by.tile(factors, item, channel, lanes);
                     const auto target = to.tile(values, item, channel, lanes);
                     const int64_t n = plan.num_vertices;
                     if (from.copied)
                       copy.load(x.dtype, from.at(item, channel), from.layout, n, count, lanes, values);
                     if (by.copied)
                       copy.load(weights.dtype, by.at(item, channel), by.layout, n, count, lanes, factors);
                     kernel(plan, {{source.data, source.stride}, {factor.data, factor.stride}, target, buffer(0)});
                     if (to.copied) copy.store(y.dtype, values, lanes, n, count, to.layout, to.at(item, channel));
                   });
}

template <class T>
void scan_backward_as(const ScanKernels<T> &kernels, const CopyKernels &copy, int32_t direction,
                      const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
                      const treescan_tensor &weights, const treescan_tensor &grad_y, const treescan_tensor &grad_x,
                      const treescan_tensor &grad_weights, treescan_workspace *workspace) {
  const int64_t vertices = num_vertices(parent);
  const int width =
      choose_width(x, vertices, sizeof(T), channels_together({&x, &weights, &grad_y, &grad_x, &grad_weights}));
  const int64_t lanes = width_bytes[width] / static_cast<int64_t>(sizeof(T));
  const Operand from(x, lanes), by(weights, lanes), gradient(grad_y, lanes), to_x(grad_x, lanes),
      to_weights(grad_weights, lanes);
  const auto kernel = kernels.backward[direction - 1][width];
  // Buffers: two accumulators, then the copies. The gradient of x takes the place of that of y, the one of the weights
  // the place of x.
  const bool gradient_buffer = gradient.copied || to_x.copied, x_buffer = from.copied || to_weights.copied;
  const int buffers = 2 + gradient_buffer + x_buffer + by.copied;
  for_each_tile<T>(parent, order, x, lanes, buffers, workspace,
                   [&](const Plan &plan, int64_t item, int64_t channel, int64_t count, auto buffer) {
                     T *const gradients = buffer(2);
                     T *const values = buffer(2 + gradient_buffer);
                     T *const factors = buffer(2 + gradient_buffer + x_buffer);
                     const auto source = from.tile(values, item, channel, lanes);
                     const auto factor = by.tile(factors, item, channel, lanes);
                     const auto incoming = gradient.tile(gradients, item, channel, lanes);
                     const int64_t n = plan.num_vertices;
                     if (from.copied)
                       copy.load(x.dtype, from.at(item, channel), from.layout, n, count, lanes, values);
                     if (by.copied)
                       copy.load(weights.dtype, by.at(item, channel), by.layout, n, count, lanes, factors);
                     if (gradient.copied)
                       copy.load(grad_y.dtype, gradient.at(item, channel), gradient.layout, n, count, lanes, gradients);
                     kernel(plan, {{source.data, source.stride},
                                   {factor.data, factor.stride},
                                   {incoming.data, incoming.stride},
                                   to_x.tile(gradients, item, channel, lanes),
                                   to_weights.tile(values, item, channel, lanes),
                                   buffer(0),
                                   buffer(1)});
                     if (to_x.copied)
                       copy.store(grad_x.dtype, gradients, lanes, n, count, to_x.layout, to_x.at(item, channel));
                     if (to_weights.copied)
                       copy.store(grad_weights.dtype, values, lanes, n, count, to_weights.layout,
                                  to_weights.at(item, channel));
                   });
}

}  // namespace

void scan(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
          const treescan_tensor &weights, const treescan_tensor &y, treescan_workspace *workspace) {
  if (is_empty(x)) return do_nothing(workspace);
  const KernelTable &table = kernel_table();
  if (x.dtype == TREESCAN_FLOAT64) {
    scan_as(table.twice, table.copy, direction, parent, order, x, weights, y, workspace);
  } else {
    scan_as(table.single, table.copy, direction, parent, order, x, weights, y, workspace);
  }
}

void scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                   const treescan_tensor &x, const treescan_tensor &weights, const treescan_tensor &grad_y,
                   const treescan_tensor &grad_x, const treescan_tensor &grad_weights, treescan_workspace *workspace) {
  if (is_empty(x)) return do_nothing(workspace);
  const KernelTable &table = kernel_table();
  if (x.dtype == TREESCAN_FLOAT64) {
    scan_backward_as(table.twice, table.copy, direction, parent, order, x, weights, grad_y, grad_x, grad_weights,
                     workspace);
  } else {
    scan_backward_as(table.single, table.copy, direction, parent, order, x, weights, grad_y, grad_x, grad_weights,
                     workspace);
  }
}

}  // namespace treescan
