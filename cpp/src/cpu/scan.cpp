#include "cpu/scan.h"

#include <algorithm>

#include "cpu/copy_kernels.h"
#include "cpu/dispatch.h"
#include "cpu/scan_kernels.h"
#include "parallel.h"
#include "validate.h"
#include "workspace.h"

namespace treescan {

TREESCAN_KERNEL_FUNCTION(const ScanKernels &scan_kernels(int32_t dtype))

const ScanKernels &scan_kernels(int32_t dtype) { return TREESCAN_KERNEL(scan_kernels)(dtype); }

namespace {

// Half types are computed in float.
int32_t computed_dtype(int32_t dtype) { return dtype == TREESCAN_FLOAT64 ? TREESCAN_FLOAT64 : TREESCAN_FLOAT32; }

// One tensor of a scan: its memory, and whether a tile can be a window on it or has to be a copy.
struct Operand {
  const treescan_tensor *tensor;
  Layout layout;

  explicit Operand(const treescan_tensor &view) : tensor(&view), layout(layout_of(view)) {}

  bool has_rows() const { return layout.channel_stride == 1 && layout.row_stride == 0; }

  void *at(int64_t item, int64_t channel) const {
    return static_cast<char *>(tensor->data) +
           (item * tensor->strides[0] + channel * tensor->strides[1]) * dtype_size(tensor->dtype);
  }

  Tile window(int64_t item, int64_t channel) const {
    return {static_cast<char *>(at(item, channel)), layout.column_stride * dtype_size(tensor->dtype)};
  }
};

int64_t power_of_two_from(int64_t count) {
  int64_t power = 1;
  while (power < count) power *= 2;
  return power;
}

// How a call cuts its channels into tiles, decided from shapes alone since the workspace has to be measured first.
struct Tiling {
  int64_t vertices, element;
  bool in_place;  // tiles that use all their lanes are read and written where the caller has them
  int64_t rings, copies, rests;  // how many each worker needs
  int width;                     // index into width_bytes, the widest that may be used
  int64_t ring_bytes;            // of one ring

  // Of one worker's scratch memory, for each vertex and in all: as much as 24 channels take, whatever the image's size.
  static constexpr int64_t most_per_vertex = 96, most_bytes = int64_t{24} << 20;
  static constexpr int64_t second_cache = 512 * 1024;

  // `operands` share x's shape; of the buffers that their copies need, `copy_count` are left after sharing.
  Tiling(const treescan_tensor &x, std::initializer_list<const Operand *> operands, int64_t ring_count, int64_t copy_count)
      : vertices(x.ndim == 4 ? x.sizes[2] * x.sizes[3] : x.sizes[2]), element(dtype_size(computed_dtype(x.dtype))),
        rings(ring_count), width(num_widths - 1) {
    const int64_t channel_bytes = x.sizes[1] * element;
    // No wider than the channels, and wider than a cache line only with all lanes in use.
    while (width > 0 && (width_bytes[width] / 2 >= channel_bytes ||
                         (width_bytes[width] > 64 && channel_bytes % width_bytes[width] != 0)))
      --width;
    // Every thread should have a tile.
    while (width_bytes[width] > 64 && x.sizes[0] * (channel_bytes / width_bytes[width]) < num_threads()) --width;
    const bool all_rows = std::all_of(operands.begin(), operands.end(), [](const Operand *o) { return o->has_rows(); });
    const bool half = dtype_size(x.dtype) == 2;
    in_place = all_rows || !half;  // half types are read in place only if all are
    copies = all_rows && channel_bytes % width_bytes[width] == 0 ? 0 : copy_count;
    rests = half && in_place ? ring_count : 0;
    const int64_t most_rows = power_of_two_from(vertices);
    ring_bytes = std::max(most_rows * width_bytes[0], std::min(most_rows * width_bytes[width], second_cache));
    const int64_t most = std::max(most_bytes, vertices * most_per_vertex);
    while (width > 0 && rings * ring_bytes + buffer_bytes() > most) --width;
  }

  // The width for trees that need rings of so many rows.
  int width_for(int64_t ring) const {
    int fitting = width;
    while (fitting > 0 && ring * width_bytes[fitting] > ring_bytes) --fitting;
    return fitting;
  }

  // Of the copies or, as the case may be, the rests of half types.
  int64_t buffer_bytes() const { return vertices * std::max(copies * width_bytes[width], rests * width_bytes[width] / 2); }
};

// The tile that a worker is at, and its memory.
struct Task {
  const Tiling &tiling;
  Plan plan;
  int width;
  int64_t item, channel, channels;
  char *rings, *buffers;

  int64_t lanes() const { return width_bytes[width] / tiling.element; }
  bool in_place() const { return tiling.in_place && channels == lanes(); }
  char *ring(int64_t i) const { return rings + i * tiling.ring_bytes; }
  Tile window(const Operand &operand) const { return operand.window(item, channel); }
  // Where copy i goes, and what of half types doesn't fit in their own place.
  Tile copy(int64_t i) const { return {buffers + i * tiling.vertices * width_bytes[width], width_bytes[width]}; }
  Tile rest(int64_t i) const {
    const int64_t row_bytes = width_bytes[width] / 2;
    return {buffers + i * tiling.vertices * row_bytes, row_bytes};
  }

  bool is_copied(const Operand &operand) const { return !in_place() || !operand.has_rows(); }
  // An operand's window or the place of its copy.
  Tile tile(const Operand &operand, int64_t i) const { return is_copied(operand) ? copy(i) : window(operand); }
  // The same, with the operand's values in it.
  Tile load(const Operand &operand, int64_t i) const {
    if (is_copied(operand))
      copy_kernels().load(operand.tensor->dtype, operand.at(item, channel), operand.layout, tiling.vertices, channels,
                          lanes(), copy(i).data);
    return tile(operand, i);
  }
  void store(const Operand &operand, int64_t i) const {
    if (is_copied(operand))
      copy_kernels().store(operand.tensor->dtype, copy(i).data, lanes(), tiling.vertices, channels, operand.layout,
                           operand.at(item, channel));
  }
};

// Of an image with so few vertices the caches hold what comes next anyway.
constexpr int64_t few_vertices = 512;

// The frame that forward and backward share: plans for all trees, then body(task) for every tile of every item.
template <class Body>
void for_each_tile(const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
                   const Tiling &tiling, treescan_workspace *workspace, Body &&body) {
  const int64_t vertices = tiling.vertices;
  const int64_t batch = x.sizes[0], channels = x.sizes[1];
  const int64_t trees = std::max(parent.sizes[0], order.sizes[0]);
  const auto tiles_of = [&](int width) {
    return (channels * tiling.element + width_bytes[width] - 1) / width_bytes[width];
  };
  const int64_t plan_workers = num_workers(trees), most_workers = num_workers(batch * tiles_of(0));
  struct Pieces {
    PlannedForest *plans;
    Step *steps;
    int32_t *position;
    char *rings, *buffers;
  };
  const auto layout = [&](Carver &carver) {
    Pieces pieces;
    pieces.plans = carver.take<PlannedForest>(trees);
    pieces.steps = carver.take<Step>(trees * vertices);
    pieces.position = carver.take<int32_t>(plan_workers * vertices);
    pieces.rings = carver.take<char>(most_workers * tiling.rings * tiling.ring_bytes);
    pieces.buffers = carver.take<char>(most_workers * tiling.buffer_bytes());
    return pieces;
  };
  with_scratch(workspace, layout, [&](Carver &carver) {
    const Pieces pieces = layout(carver);
    for_each_task(plan_workers, trees, [&](int64_t worker, int64_t tree) {
      pieces.plans[tree].steps = pieces.steps + tree * vertices;
      make_plan(parent, order, tree, pieces.position + worker * vertices, pieces.plans[tree]);
    });
    int64_t distance = 0;
    for (int64_t tree = 0; tree < trees; ++tree) distance = std::max(distance, pieces.plans[tree].distance);
    const int64_t ring = power_of_two_from(distance + 1);
    const int width = tiling.width_for(ring);
    const int64_t lanes = width_bytes[width] / tiling.element, tiles = tiles_of(width);
    for_each_task(num_workers(batch * tiles), batch * tiles, [&](int64_t worker, int64_t task) {
      const int64_t item = task / tiles, channel = task % tiles * lanes;
      const PlannedForest &forest = pieces.plans[trees == 1 ? 0 : item];
      const Plan plan{forest.num_roots, forest.num_planted, vertices, forest.steps, ring, vertices > few_vertices};
      body(Task{tiling, plan, width, item, channel, std::min(lanes, channels - channel),
                pieces.rings + worker * tiling.rings * tiling.ring_bytes, pieces.buffers + worker * tiling.buffer_bytes()});
    });
  });
}

// Whether there is nothing to scan. Sizes beside the one that is 0 may be anything, so nobody computes with them.
bool is_empty(const treescan_tensor &x) { return x.sizes[0] == 0 || x.sizes[1] == 0; }

void do_nothing(treescan_workspace *workspace) {
  with_scratch(workspace, [](Carver &) {}, [](Carver &) {});
}

constexpr Tile no_tile{nullptr, 0};

}  // namespace

void scan(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
          const treescan_tensor &weights, const treescan_tensor &y, treescan_workspace *workspace) {
  if (is_empty(x)) return do_nothing(workspace);
  const Operand from(x), by(weights), to(y);
  const Tiling tiling(x, {&from, &by, &to}, 1, 2);
  for_each_tile(parent, order, x, tiling, workspace, [&](const Task &task) {
    if (tiling.rests > 0 && task.in_place()) {
      scan_kernels(x.dtype).forward[direction - 1][task.width](
          task.plan, {task.window(from), task.window(by), task.window(to), task.rest(0), task.ring(0)});
      return;
    }
    // y's copy takes the place of x's.
    const Tile source = task.load(from, 0), factor = task.load(by, 1);
    scan_kernels(computed_dtype(x.dtype))
        .forward[direction - 1][task.width](task.plan, {source, factor, task.tile(to, 0), no_tile, task.ring(0)});
    task.store(to, 0);
  });
}

void scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                   const treescan_tensor &x, const treescan_tensor &weights, const treescan_tensor &grad_y,
                   const treescan_tensor &grad_x, const treescan_tensor &grad_weights, treescan_workspace *workspace) {
  if (is_empty(x)) return do_nothing(workspace);
  const Operand from(x), by(weights), gradient(grad_y), to_x(grad_x), to_weights(grad_weights);
  const Tiling tiling(x, {&from, &by, &gradient, &to_x, &to_weights}, 2, 3);
  for_each_tile(parent, order, x, tiling, workspace, [&](const Task &task) {
    if (tiling.rests > 0 && task.in_place()) {
      scan_kernels(x.dtype).backward[direction - 1][task.width](
          task.plan, {task.window(from), task.window(by), task.window(gradient), task.window(to_x),
                      task.window(to_weights), task.rest(0), task.rest(1), task.ring(0), task.ring(1)});
      return;
    }
    // The gradient of x takes the place of that of y, the one of the weights the place of x.
    const Tile source = task.load(from, 0), incoming = task.load(gradient, 1), factor = task.load(by, 2);
    scan_kernels(computed_dtype(x.dtype))
        .backward[direction - 1][task.width](
            task.plan, {source, factor, incoming, task.tile(to_x, 1), task.tile(to_weights, 0), no_tile, no_tile,
                        task.ring(0), task.ring(1)});
    task.store(to_x, 1);
    task.store(to_weights, 0);
  });
}

}  // namespace treescan
