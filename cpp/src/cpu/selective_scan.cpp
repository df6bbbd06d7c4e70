#include "cpu/selective_scan.h"

#include <algorithm>
#include <cstring>

#include "cpu/copy_kernels.h"
#include "cpu/dispatch.h"
#include "cpu/selective_kernels.h"
#include "parallel.h"
#include "validate.h"
#include "workspace.h"

namespace treescan {

TREESCAN_KERNEL_FUNCTION(const SelectiveKernels &selective_kernels(int32_t computed_dtype))

const SelectiveKernels &selective_kernels(int32_t computed_dtype) {
  return TREESCAN_KERNEL(selective_kernels)(computed_dtype);
}

namespace {

constexpr int64_t row_bytes = selective_row_bytes;

int64_t power_of_two_from(int64_t count) {
  int64_t power = 1;
  while (power < count) power *= 2;
  return power;
}

char *element(const treescan_tensor &tensor, int64_t i, int64_t j) {
  return static_cast<char *>(tensor.data) + (i * tensor.strides[0] + j * tensor.strides[1]) * dtype_size(tensor.dtype);
}

// Everything that follows from shapes alone, and so doesn't depend on threads: sums over tiles keep their order. A strand's
// tiles are worked on one after the other, by one worker.
struct Shape : SelectiveTiling {
  bool backward;
  int32_t computed;  // dtype
  int64_t size;
  bool B_by_vertex, C_by_vertex;
  int64_t passes;      // sums that wait for the way down
  int64_t block;       // states swept at a time, at most
  int64_t ring_bytes;  // of one ring

  // Of one worker's memory for sums and for a ring, unless one state alone takes more.
  static constexpr int64_t most_sums = int64_t{2} << 20, most_ring = int64_t{256} << 10;

  Shape(int32_t direction, const treescan_selective_inputs &inputs, bool on_the_way_back)
      : SelectiveTiling(inputs), backward(on_the_way_back), computed(inputs.A->dtype), size(dtype_size(computed)),
        B_by_vertex(inputs.B->ndim == 4), C_by_vertex(inputs.C->ndim == 4),
        passes(direction == TREESCAN_BOTH ? (backward ? 2 : 1) : backward),
        block(std::min(states, selective_most_block)) {
    while (block > 1 && passes * block * vertices * row_bytes > most_sums) block = (block + 1) / 2;
    const int64_t most_rows = power_of_two_from(vertices / 2 + 1) * row_bytes;
    ring_bytes = std::max(most_rows, std::min(most_rows * block, most_ring));
  }

  int64_t rings() const { return std::max<int64_t>(1, passes); }
  int64_t vertex_bytes() const { return vertices * row_bytes; }
  int64_t state_bytes() const { return times(states, row_bytes); }
  int64_t factor_bytes(bool by_vertex) const { return by_vertex ? times(vertices, states * size) : state_bytes(); }
  int64_t tasks() const { return times(times(batch, groups), strands); }
};

// A worker's memory.
struct Scratch {
  char *A, *D, *delta_bias, *last_state, *B, *C;
  char *u, *delta, *y, *z, *slope, *grad_y, *grad_u, *grad_delta;
  char *rings[2], *sums[2];
  char *grad_last_state;

  Scratch(Carver &carver, const Shape &shape) {
    const auto rows = [&](int64_t bytes) { return carver.take<char>(bytes); };
    A = rows(shape.state_bytes());
    last_state = rows(shape.state_bytes());
    D = rows(row_bytes);
    delta_bias = rows(row_bytes);
    B = rows(shape.factor_bytes(shape.B_by_vertex));
    C = rows(shape.factor_bytes(shape.C_by_vertex));
    for (char **const tile : {&u, &delta, &y, &z}) *tile = rows(shape.vertex_bytes());
    for (char **const tile : {&slope, &grad_y, &grad_u, &grad_delta}) *tile = rows(shape.backward ? shape.vertex_bytes() : 0);
    grad_last_state = rows(shape.backward ? shape.state_bytes() : 0);
    for (int64_t s = 0; s < 2; ++s) {
      rings[s] = rows(s < shape.rings() ? shape.ring_bytes : 0);
      sums[s] = rows(s < shape.passes ? shape.block * shape.vertex_bytes() : 0);
    }
  }
};

// Sums of gradients that wait until all tiles are done. For every strand those of B and C by vertex, for every tile of
// every item the rows of the parameters.
struct Partials {
  int64_t B_bytes, C_bytes, tile_bytes;
  char *B, *C, *rows;

  Partials(Carver &carver, const Shape &shape) {
    B_bytes = shape.backward && shape.B_by_vertex ? shape.factor_bytes(true) : 0;
    C_bytes = shape.backward && shape.C_by_vertex ? shape.factor_bytes(true) : 0;
    tile_bytes = shape.backward ? 3 * shape.state_bytes() + 2 * row_bytes : 0;
    B = carver.take<char>(times(shape.tasks(), B_bytes));
    C = carver.take<char>(times(shape.tasks(), C_bytes));
    rows = carver.take<char>(times(times(shape.batch, shape.all_tiles()), tile_bytes));
  }

  // Of one tile of one item, in this order: A, B, C, D, delta_bias.
  char *tile(const Shape &shape, int64_t item, int64_t tile) const { return rows + (item * shape.all_tiles() + tile) * tile_bytes; }
};

// Element (channel, n) of a tensor (D, N), or channel of one of (D,), to and from row n.
template <class T>
void copy_rows(const treescan_tensor &tensor, int64_t channel, int64_t count, char *rows, bool to_rows) {
  const int64_t lanes = row_bytes / static_cast<int64_t>(sizeof(T)), states = tensor.ndim == 2 ? tensor.sizes[1] : 1;
  for (int64_t n = 0; n < states; ++n) {
    T *const row = reinterpret_cast<T *>(rows + n * row_bytes);
    T *const first = static_cast<T *>(tensor.data) + channel * tensor.strides[0] + (tensor.ndim == 2 ? n * tensor.strides[1] : 0);
    for (int64_t l = 0; l < count; ++l) {
      T &element = first[l * tensor.strides[0]];
      if (to_rows) {
        row[l] = element;
      } else {
        element = row[l];
      }
    }
    if (to_rows) std::fill(row + count, row + lanes, T(0));
  }
}

void copy_rows(const treescan_tensor &tensor, int64_t channel, int64_t count, char *rows, bool to_rows) {
  (tensor.dtype == TREESCAN_FLOAT64 ? copy_rows<double> : copy_rows<float>)(tensor, channel, count, rows, to_rows);
}

// The last state of an item, (B, D, N), as a tensor (D, N).
treescan_tensor of_item(const treescan_tensor &tensor, int64_t item) {
  treescan_tensor view = tensor;
  view.data = static_cast<char *>(tensor.data) + item * tensor.strides[0] * dtype_size(tensor.dtype);
  view.ndim = 2;
  for (int i = 0; i < 2; ++i) {
    view.sizes[i] = tensor.sizes[i + 1];
    view.strides[i] = tensor.strides[i + 1];
  }
  return view;
}

template <class T>
void add_numbers(const char *from, int64_t bytes, char *to) {
  const T *const source = reinterpret_cast<const T *>(from);
  T *const target = reinterpret_cast<T *>(to);
  for (int64_t i = 0; i < bytes / static_cast<int64_t>(sizeof(T)); ++i) target[i] += source[i];
}

void add_all(int32_t dtype, const char *from, int64_t bytes, char *to) {
  (dtype == TREESCAN_FLOAT64 ? add_numbers<double> : add_numbers<float>)(from, bytes, to);
}

// B or C, (B, G, N, V), of one group of one item.
Layout factor_layout(const treescan_tensor &factor) { return {factor.strides[2], 0, factor.strides[3], factor.sizes[3], true}; }

void load_factor(const treescan_tensor &factor, int64_t item, int64_t group, char *tile) {
  copy_kernels().load(factor.dtype, element(factor, item, group), factor_layout(factor), factor.sizes[3], factor.sizes[2],
                      factor.sizes[2], factor.sizes[2], tile);
}

// The tile of a strand that a worker is at.
struct Task {
  const Shape &shape;
  const Plan &plan;
  int64_t item, group, strand;
  int64_t tile, channel, channels;  // of all tiles and channels
  SelectiveTile rows;

  void load(const treescan_tensor &tensor, char *to) const {
    copy_kernels().load(tensor.dtype, element(tensor, item, channel), layout_of(tensor), shape.vertices, channels, shape.lanes,
                        shape.lanes, to);
  }
  void store(const treescan_tensor &tensor, const char *from) const {
    copy_kernels().store(tensor.dtype, from, shape.lanes, shape.vertices, channels, layout_of(tensor), element(tensor, item, channel));
  }
};

// The frame that forward and backward share: plans for all trees, then `start(task, partials)` for every strand and
// `body(task, scratch, partials)` for every tile, then `finish(partials)`.
template <class Start, class Body, class Finish>
void for_each_tile(const treescan_tensor &parent, const treescan_tensor &order, const treescan_selective_inputs &inputs,
                   const Shape &shape, treescan_workspace *workspace, Start &&start, Body &&body, Finish &&finish) {
  const int64_t vertices = shape.vertices, tasks = shape.tasks(), workers = num_workers(tasks);
  struct Pieces {
    Plans plans;
    int64_t scratch_bytes;
    char *scratches;
    Partials partials;
  };
  const auto layout = [&](Carver &carver) {
    const Plans plans(carver, parent, order);
    Carver measure;
    Scratch(measure, shape);
    char *const scratches = carver.take<char>(times(workers, measure.used()));
    return Pieces{plans, measure.used(), scratches, Partials(carver, shape)};
  };
  with_scratch(workspace, layout, [&](Carver &carver) {
    Pieces pieces = layout(carver);
    pieces.plans.make(parent, order);
    const int64_t ring = power_of_two_from(pieces.plans.ring());
    for_each_task(workers, tasks, [&](int64_t worker, int64_t number) {
      Carver own(pieces.scratches + worker * pieces.scratch_bytes);
      const Scratch scratch(own, shape);
      const int64_t strand = number % shape.strands, group = number / shape.strands % shape.groups;
      const int64_t item = number / shape.strands / shape.groups;
      const Plan plan = pieces.plans.plan(item, ring, row_bytes, false);
      if (shape.B_by_vertex) load_factor(*inputs.B, item, group, scratch.B);
      if (shape.C_by_vertex) load_factor(*inputs.C, item, group, scratch.C);
      Task task{shape, plan, item, group, strand, 0, 0, 0, {}};
      SelectiveTile &rows = task.rows;
      rows.num_states = shape.states;
      rows.block = std::min(shape.block, shape.ring_bytes / (ring * row_bytes));
      rows.delta_softplus = inputs.delta_softplus != 0;
      rows.last_vertex = vertices - 1;
      rows.B = {shape.B_by_vertex, scratch.B, nullptr};
      rows.C = {shape.C_by_vertex, scratch.C, nullptr};
      rows.A = scratch.A;
      rows.D = inputs.D ? scratch.D : nullptr;
      rows.delta_bias = inputs.delta_bias ? scratch.delta_bias : nullptr;
      rows.u = scratch.u;
      rows.delta = scratch.delta;
      rows.y = scratch.y;
      rows.z = inputs.z ? scratch.z : nullptr;
      rows.last_state = scratch.last_state;
      for (int s = 0; s < 2; ++s) {
        rows.rings[s] = scratch.rings[s];
        rows.sums[s] = scratch.sums[s];
      }
      start(task, pieces.partials);
      for (int64_t tile = shape.first_tile(strand); tile < shape.first_tile(strand + 1); ++tile) {
        task.tile = group * shape.tiles + tile;
        task.channel = shape.first_channel(task.tile);
        task.channels = shape.channels_of(task.tile);
        copy_rows(*inputs.A, task.channel, task.channels, scratch.A, true);
        if (!shape.B_by_vertex) copy_rows(*inputs.B, task.channel, task.channels, scratch.B, true);
        if (!shape.C_by_vertex) copy_rows(*inputs.C, task.channel, task.channels, scratch.C, true);
        if (inputs.D) copy_rows(*inputs.D, task.channel, task.channels, scratch.D, true);
        if (inputs.delta_bias) copy_rows(*inputs.delta_bias, task.channel, task.channels, scratch.delta_bias, true);
        task.load(*inputs.u, scratch.u);
        task.load(*inputs.delta, scratch.delta);
        if (inputs.z) task.load(*inputs.z, scratch.z);
        std::memset(scratch.last_state, 0, static_cast<size_t>(shape.state_bytes()));  // the last vertex may be in no tree
        body(task, scratch, pieces.partials);
      }
    });
    finish(pieces.partials);
  });
}

// Adds up the strands' gradients of B or C and hands them to the caller.
void store_factor(const Shape &shape, char *sums, int64_t bytes, const treescan_tensor &grad, int64_t index) {
  char *const sum = sums + index * shape.strands * bytes;
  for (int64_t strand = 1; strand < shape.strands; ++strand) add_all(shape.computed, sum + strand * bytes, bytes, sum);
  copy_kernels().store(grad.dtype, sum, shape.states, shape.vertices, shape.states, factor_layout(grad),
                       element(grad, index / shape.groups, index % shape.groups));
}

// Without channels there is nothing to write, unless gradients of B and C by vertex: however large the batch is, which no
// memory stands for then, nobody walks through it.
void do_nothing(treescan_workspace *workspace) {
  with_scratch(workspace, [](Carver &) {}, [](Carver &) {});
}

}  // namespace

void selective_scan(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                    const treescan_selective_inputs &inputs, const treescan_tensor &y, const treescan_tensor *last_state,
                    treescan_workspace *workspace, void *) {
  if (inputs.u->sizes[1] == 0) return do_nothing(workspace);
  const Shape shape(direction, inputs, false);
  const SelectiveKernel kernel = selective_kernels(shape.computed).forward[direction - 1];
  for_each_tile(
      parent, order, inputs, shape, workspace, [](Task &, const Partials &) {},
      [&](Task &task, const Scratch &scratch, const Partials &) {
        kernel(task.plan, task.rows);
        task.store(y, scratch.y);
        if (last_state) copy_rows(of_item(*last_state, task.item), task.channel, task.channels, scratch.last_state, false);
      },
      [](const Partials &) {});
}

void selective_scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                             const treescan_selective_inputs &inputs, const treescan_tensor &grad_y,
                             const treescan_tensor *grad_last_state, const treescan_selective_gradients &gradients,
                             treescan_workspace *workspace, void *) {
  if (inputs.u->sizes[1] == 0 && inputs.B->ndim == 2 && inputs.C->ndim == 2) return do_nothing(workspace);
  const Shape shape(direction, inputs, true);
  const SelectiveKernel kernel = selective_kernels(shape.computed).backward[direction - 1];
  const int64_t state_bytes = shape.state_bytes();
  for_each_tile(
      parent, order, inputs, shape, workspace,
      [&](Task &task, const Partials &partials) {
        const int64_t number = (task.item * shape.groups + task.group) * shape.strands + task.strand;
        task.rows.B.grad = partials.B + number * partials.B_bytes;
        task.rows.C.grad = partials.C + number * partials.C_bytes;
        std::memset(task.rows.B.grad, 0, static_cast<size_t>(partials.B_bytes));
        std::memset(task.rows.C.grad, 0, static_cast<size_t>(partials.C_bytes));
      },
      [&](Task &task, const Scratch &scratch, const Partials &partials) {
        SelectiveTile &rows = task.rows;
        char *const sums = partials.tile(shape, task.item, task.tile);
        std::memset(sums, 0, static_cast<size_t>(partials.tile_bytes));
        rows.grad_A = sums;
        if (!shape.B_by_vertex) rows.B.grad = sums + state_bytes;
        if (!shape.C_by_vertex) rows.C.grad = sums + 2 * state_bytes;
        rows.grad_D = sums + 3 * state_bytes;
        rows.grad_delta_bias = rows.grad_D + row_bytes;
        rows.slope = scratch.slope;
        rows.grad_y = scratch.grad_y;
        rows.grad_u = scratch.grad_u;
        rows.grad_delta = scratch.grad_delta;
        rows.grad_last_state = grad_last_state ? scratch.grad_last_state : nullptr;
        if (grad_last_state)
          copy_rows(of_item(*grad_last_state, task.item), task.channel, task.channels, scratch.grad_last_state, true);
        task.load(grad_y, scratch.grad_y);
        kernel(task.plan, rows);
        task.store(*gradients.u, scratch.grad_u);
        task.store(*gradients.delta, scratch.grad_delta);
        if (inputs.z) task.store(*gradients.z, scratch.z);
      },
      [&](const Partials &partials) {
        const int64_t groups = shape.batch * shape.groups;
        for_each_task(num_workers(2 * groups), 2 * groups, [&](int64_t, int64_t i) {
          if (i < groups && shape.B_by_vertex) store_factor(shape, partials.B, partials.B_bytes, *gradients.B, i);
          if (i >= groups && shape.C_by_vertex) store_factor(shape, partials.C, partials.C_bytes, *gradients.C, i - groups);
        });
        const Block zeros = allocate(partials.tile_bytes);
        for (int64_t tile = 0; tile < shape.all_tiles(); ++tile) {
          char *const sum = shape.batch > 0 ? partials.tile(shape, 0, tile) : static_cast<char *>(zeros.get());
          if (shape.batch == 0) std::memset(sum, 0, static_cast<size_t>(partials.tile_bytes));
          for (int64_t item = 1; item < shape.batch; ++item)
            add_all(shape.computed, partials.tile(shape, item, tile), partials.tile_bytes, sum);
          const int64_t channel = shape.first_channel(tile), channels = shape.channels_of(tile);
          copy_rows(*gradients.A, channel, channels, sum, false);
          if (!shape.B_by_vertex) copy_rows(*gradients.B, channel, channels, sum + state_bytes, false);
          if (!shape.C_by_vertex) copy_rows(*gradients.C, channel, channels, sum + 2 * state_bytes, false);
          if (inputs.D) copy_rows(*gradients.D, channel, channels, sum + 3 * state_bytes, false);
          if (inputs.delta_bias) copy_rows(*gradients.delta_bias, channel, channels, sum + 3 * state_bytes + row_bytes, false);
        }
      });
}

}  // namespace treescan
