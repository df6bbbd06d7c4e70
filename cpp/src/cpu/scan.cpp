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

  bool has_rows() const { return layout.channel_stride == 1 && layout.one_row; }

  void *at(int64_t item, int64_t channel) const {
    return static_cast<char *>(tensor->data) +
           (item * tensor->strides[0] + channel * tensor->strides[1]) * dtype_size(tensor->dtype);
  }

  Tile window(int64_t item, int64_t channel) const {
    return {static_cast<char *>(at(item, channel)), layout.column_stride * dtype_size(tensor->dtype)};
  }
};

int64_t power_of_two_from(int64_t count, int64_t least) {
  int64_t power = least;
  while (power < count) power *= 2;
  return power;
}

// Of tiles of so many bytes the caches hold what comes next anyway.
constexpr int64_t near_bytes = int64_t{2} << 20;

// How a call cuts its channels into tiles: most are of equal width, what doesn't fill a unit is one of its own. Decided from
// shapes alone, since the workspace has to be measured first; a tree that needs a long ring narrows the tiles later.
class Tiling {
 public:
  static constexpr int64_t narrowest = 16;
  const int64_t vertices, element;

  // `operands` share x's shape; of the buffers that their copies need, `copies` are left after sharing. `sums` wait for the
  // way down, and then `rings` are needed: those of the kernels for x's type.
  Tiling(const treescan_tensor &x, std::initializer_list<const Operand *> operands, int64_t sums, int64_t rings, int64_t copies)
      : vertices(x.ndim == 4 ? x.sizes[2] * x.sizes[3] : x.sizes[2]), element(dtype_size(computed_dtype(x.dtype))),
        all_rows_(std::all_of(operands.begin(), operands.end(), [](const Operand *o) { return o->has_rows(); })),
        is_half_(dtype_size(x.dtype) == 2), channel_bytes_(x.sizes[1] * element), sums_(sums), rings_(rings), copies_(copies) {
    const int64_t least = std::min(widest_unit, power_of_two_from(channel_bytes_, narrowest));
    widest_ = std::max(least, std::min(most_width(), channel_bytes_ / widest_unit * widest_unit));
    // Every thread should have a tile.
    while (widest_ > widest_unit && x.sizes[0] * num_tiles(widest_) < num_threads()) narrow(widest_);
    const int64_t most = std::max(most_bytes, vertices * most_per_vertex);
    while (widest_ > narrowest && rings_ * ring_bytes() + buffer_bytes() > most) narrow(widest_);
  }

  // The widest tiles for trees that need rings of so many rows.
  int64_t width_for(int64_t ring) const {
    int64_t width = widest_;
    while (rings_ > 0 && width > narrowest && ring * width > ring_bytes()) narrow(width);
    return width;
  }

  int64_t num_tiles(int64_t width) const {
    return (whole_bytes(width) + width - 1) / width + (whole_bytes(width) < channel_bytes_);
  }

  // The first byte of a tile in the type that is computed in, and its width.
  struct Cut {
    int64_t first, width;
  };
  Cut cut(int64_t width, int64_t tile) const {
    const int64_t whole = whole_bytes(width), unit = std::min(width, widest_unit), tiles = (whole + width - 1) / width;
    if (tile == tiles) return {whole, power_of_two_from(channel_bytes_ - whole, narrowest)};
    const int64_t first = whole / unit * tile / tiles * unit, end = whole / unit * (tile + 1) / tiles * unit;
    return {first, end - first};
  }

  int64_t channels(const Cut &cut) const { return std::min(cut.width, channel_bytes_ - cut.first) / element; }

  // Whether tiles that use all their lanes are read and written where the caller has them: half types only if all are.
  bool in_place() const { return all_rows_ || !is_half_; }
  // Whether the sums of tiles in place need a tile of their own.
  bool has_sums() const { return all_rows_ && is_half_; }

  // Of what one worker needs.
  int64_t ring_bytes() const {
    const int64_t most_rows = vertices / 2 + 1;  // all but one are of vertices that wait for children of their own
    return std::max(most_rows * narrowest, std::min(most_rows * widest_, most_ring));
  }
  int64_t num_rings() const { return rings_; }
  int64_t num_copies() const { return copies_; }
  // For copies or the sums of half types.
  int64_t buffer_bytes() const {
    const int64_t copied = !all_rows_ ? widest_ : whole_bytes(widest_) < channel_bytes_ ? std::min(widest_, widest_unit) : 0;
    return vertices * std::max(copies_ * copied, has_sums() ? sums_ * widest_ : 0);
  }

 private:
  // The caller's rows are best read as a whole. Copies are read again and again, so they stay in a second cache, if that is
  // to be had with rows that fill a line.
  int64_t most_width() const {
    if (all_rows_) return widest_row;
    constexpr int64_t second_cache = 192 * 1024, widest_copied = 512;
    return std::clamp(second_cache / (copies_ * vertices) / widest_unit * widest_unit, widest_unit, widest_copied);
  }
  static constexpr int64_t most_ring = 256 * 1024;  // half of a small second cache
  // Of one worker's scratch memory, for each vertex and in all: as much as 24 channels take, whatever the image's size.
  static constexpr int64_t most_per_vertex = 96, most_bytes = int64_t{24} << 20;

  static void narrow(int64_t &width) {
    width = width <= widest_unit ? width / 2 : std::max(widest_unit, width / 2 / widest_unit * widest_unit);
  }

  // The channels that fill units.
  int64_t whole_bytes(int64_t width) const {
    const int64_t unit = std::min(width, widest_unit);
    return channel_bytes_ / unit * unit;
  }

  bool all_rows_, is_half_;
  int64_t channel_bytes_, sums_, rings_, copies_, widest_;
};

// The tile that a worker is at, and its memory.
struct Task {
  const Tiling &tiling;
  Plan plan;
  int64_t item, channel, channels;
  char *rings, *buffers;

  int64_t lanes() const { return plan.row_bytes / tiling.element; }
  int width() const { return width_index(plan.row_bytes); }
  bool in_place() const { return tiling.in_place() && channels == lanes(); }
  char *ring(int64_t i) const { return rings + i * tiling.ring_bytes(); }
  Tile window(const Operand &operand) const { return operand.window(item, channel); }
  // Narrow rows of a vertex lie side by side, so that they share a line.
  bool are_narrow() const { return plan.row_bytes < widest_unit; }
  Tile copy(int64_t i) const {
    return {buffers + i * plan.row_bytes * (are_narrow() ? 1 : tiling.vertices), pitch() * tiling.element};
  }
  int64_t pitch() const { return lanes() * (are_narrow() ? tiling.num_copies() : 1); }
  Tile sums(int64_t i) const { return {buffers + i * tiling.vertices * plan.row_bytes, plan.row_bytes}; }

  bool is_copied(const Operand &operand) const { return !in_place() || !operand.has_rows(); }
  // An operand's window or the place of its copy.
  Tile tile(const Operand &operand, int64_t i) const { return is_copied(operand) ? copy(i) : window(operand); }
  // The same, with the operand's values in it.
  Tile load(const Operand &operand, int64_t i) const {
    if (is_copied(operand))
      copy_kernels().load(operand.tensor->dtype, operand.at(item, channel), operand.layout, tiling.vertices, channels,
                          lanes(), pitch(), copy(i).data);
    return tile(operand, i);
  }
  void store(const Operand &operand, int64_t i) const {
    if (is_copied(operand))
      copy_kernels().store(operand.tensor->dtype, copy(i).data, pitch(), tiling.vertices, channels, operand.layout,
                           operand.at(item, channel));
  }
};

// The frame that forward and backward share: plans for all trees, then body(task) for every tile of every item.
template <class Body>
void for_each_tile(const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
                   const Tiling &tiling, treescan_workspace *workspace, Body &&body) {
  const int64_t batch = x.sizes[0];
  const int64_t most_workers = num_workers(batch * tiling.num_tiles(tiling.narrowest));
  struct Pieces {
    Plans plans;
    char *rings, *buffers;
  };
  const auto layout = [&](Carver &carver) {
    const Plans plans(carver, parent, order);
    char *const rings = carver.take<char>(times(times(most_workers, tiling.num_rings()), tiling.ring_bytes()));
    return Pieces{plans, rings, carver.take<char>(times(most_workers, tiling.buffer_bytes()))};
  };
  with_scratch(workspace, layout, [&](Carver &carver) {
    Pieces pieces = layout(carver);
    pieces.plans.make(parent, order);
    const int64_t ring = tiling.num_rings() > 0 ? pieces.plans.ring() : 1;
    const int64_t width = tiling.width_for(ring), tiles = tiling.num_tiles(width);
    for_each_task(num_workers(batch * tiles), batch * tiles, [&](int64_t worker, int64_t task) {
      const int64_t item = task / tiles;
      const Tiling::Cut cut = tiling.cut(width, task % tiles);
      const Plan plan = pieces.plans.plan(item, ring, cut.width, tiling.vertices * cut.width > near_bytes);
      body(Task{tiling, plan, item, cut.first / tiling.element, tiling.channels(cut),
                pieces.rings + worker * tiling.num_rings() * tiling.ring_bytes(),
                pieces.buffers + worker * tiling.buffer_bytes()});
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
          const treescan_tensor &weights, const treescan_tensor &y, treescan_workspace *workspace, void *) {
  if (is_empty(x)) return do_nothing(workspace);
  const Operand from(x), by(weights), to(y);
  const int64_t rings = direction != TREESCAN_UP && dtype_size(x.dtype) == 2;
  const Tiling tiling(x, {&from, &by, &to}, 1, rings, 2);
  for_each_tile(parent, order, x, tiling, workspace, [&](const Task &task) {
    if (tiling.has_sums() && task.in_place()) {
      scan_kernels(x.dtype).forward[direction - 1][task.width()](
          task.plan, {task.window(from), task.window(by), task.window(to), task.sums(0), task.ring(0)});
      return;
    }
    // y's copy takes the place of x's.
    const Tile source = task.load(from, 0), factor = task.load(by, 1);
    scan_kernels(computed_dtype(x.dtype))
        .forward[direction - 1][task.width()](task.plan, {source, factor, task.tile(to, 0), no_tile, task.ring(0)});
    task.store(to, 0);
  });
}

void scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                   const treescan_tensor &x, const treescan_tensor &weights, const treescan_tensor &grad_y,
                   const treescan_tensor &grad_x, const treescan_tensor &grad_weights, treescan_workspace *workspace, void *) {
  if (is_empty(x)) return do_nothing(workspace);
  const Operand from(x), by(weights), gradient(grad_y), to_x(grad_x), to_weights(grad_weights);
  const int64_t rings = (direction != TREESCAN_UP) + (direction != TREESCAN_DOWN && dtype_size(x.dtype) == 2);
  const Tiling tiling(x, {&from, &by, &gradient, &to_x, &to_weights}, 2, rings, 3);
  for_each_tile(parent, order, x, tiling, workspace, [&](const Task &task) {
    if (tiling.has_sums() && task.in_place()) {
      scan_kernels(x.dtype).backward[direction - 1][task.width()](
          task.plan, {task.window(from), task.window(by), task.window(gradient), task.window(to_x),
                      task.window(to_weights), task.sums(0), task.sums(1), task.ring(0), task.ring(1)});
      return;
    }
    // The gradient of x takes the place of that of y, the one of the weights the place of x.
    const Tile source = task.load(from, 0), incoming = task.load(gradient, 1), factor = task.load(by, 2);
    scan_kernels(computed_dtype(x.dtype))
        .backward[direction - 1][task.width()](
            task.plan, {source, factor, incoming, task.tile(to_x, 1), task.tile(to_weights, 0), no_tile, no_tile,
                        task.ring(0), task.ring(1)});
    task.store(to_x, 1);
    task.store(to_weights, 0);
  });
}

}  // namespace treescan
