#include "scan.h"

#include <algorithm>
#include <initializer_list>

#include "call.h"
#include "plan.h"
#include "recurrence.h"
#include "sweep.h"
#include "tile.h"
#include "validate.h"

namespace treescan::cuda {

namespace {

// Threads of a block, and blocks that a multiprocessor should hold at once.
constexpr int most_threads = 256, least_blocks = 2;

// A pass takes tiles of its inputs to tiles of its outputs. What vertices send to their parents and pass on to their
// children waits in rows of the type that is computed in. Tiles of outputs are such rows, unless they are a half
// type's in memory; for those there are `states`, rows that the block has to itself.
template <class Tile, class State>
constexpr bool holds_states = std::is_same_v<Tile, State>;

template <class Tile, class State>
__device__ __forceinline__ State states_in(const Tile &tile, const State &otherwise) {
  if constexpr (holds_states<Tile, State>) {
    return tile;
  } else {
    return otherwise;
  }
}

template <int Direction>
struct Forward {
  static constexpr int inputs = 2, outputs = 1;
  template <bool TilesHoldStates>
  static constexpr int num_states = TilesHoldStates ? 0 : 1;

  template <class Tile, class State>
  __device__ __forceinline__ static void run(const Plan &plan, Turns turns, const Tile *in, const Tile *out,
                                             const State *states) {
    using Vector = typename State::Vector;
    constexpr bool in_y = holds_states<Tile, State>, is_both = Direction == TREESCAN_BOTH;
    const Tile x = in[0], weights = in[1], y = out[0];
    const State state = states_in(y, states[0]);
    if constexpr (Direction != TREESCAN_DOWN)
      sweep_up<1>(
          plan, turns, weights, {state}, [&](int, int32_t v) { return x.load(v); },
          [&](int32_t v, bool is_top, const Vector *u) {
            if (in_y || is_both || is_top) state.store(v, *u);
            if (!in_y && !is_both) y.store(v, *u);
          });
    if constexpr (Direction != TREESCAN_UP)
      sweep_down<1, 1>(
          plan, turns, weights, {state}, [&](int, int32_t v) { return is_both ? state.load(v) : x.load(v); },
          [&](int32_t root, const Vector *value, Vector *passed) {
            *passed = *value;
            y.store(root, *passed);
          },
          [&](int32_t v, const Vector &w, const Vector *value, Vector *passed) {
            *passed = is_both ? both(*value, w, beyond(w, *value, *passed)) : down(*value, w, *passed);
            y.store(v, *passed);
          },
          [&](int32_t v, const Vector *passed) {
            if (!in_y) state.store(v, *passed);
          });
  }
};

// The sums of x wait for the way down in the rows of grad_weights, those of grad_y in the rows of grad_x. What is
// passed down of x has no place in an output: it takes a row of states, which with half types the sums have left by
// then.
template <int Direction>
struct Backward {
  static constexpr int inputs = 3, outputs = 2;
  template <bool TilesHoldStates>
  static constexpr int num_states = !TilesHoldStates ? 2 : Direction == TREESCAN_UP ? 0 : 1;

  template <class Tile, class State>
  __device__ __forceinline__ static void run(const Plan &plan, Turns turns, const Tile *in, const Tile *out,
                                             const State *states) {
    using Vector = typename State::Vector;
    constexpr bool in_outputs = holds_states<Tile, State>;
    const Tile x = in[0], weights = in[1], grad_y = in[2], grad_x = out[0], grad_weights = out[1];
    const State of_x = states_in(grad_weights, states[0]), of_grad = states_in(grad_x, states[1]), passed_x = states[0];
    const Vector zeros = {};

    if constexpr (Direction == TREESCAN_UP) {
      sweep_up<1>(
          plan, turns, weights, {of_x}, [&](int, int32_t v) { return x.load(v); },
          [&](int32_t v, bool, const Vector *u) { of_x.store(v, *u); });
      sweep_down<1, 2>(
          plan, turns, weights, {of_grad}, [&](int i, int32_t v) { return i == 0 ? grad_y.load(v) : of_x.load(v); },
          [&](int32_t root, const Vector *values, Vector *d) {
            *d = values[0];
            grad_x.store(root, *d);
            grad_weights.store(root, zeros);
          },
          [&](int32_t v, const Vector &w, const Vector *values, Vector *d) {
            const Vector parent_d = *d;
            *d = down(values[0], w, parent_d);
            grad_x.store(v, *d);
            grad_weights.store(v, weight_gradient(values[1], parent_d));
          },
          [&](int32_t v, const Vector *d) {
            if (!in_outputs) of_grad.store(v, *d);
          });
    } else if constexpr (Direction == TREESCAN_DOWN) {
      sweep_up<1>(
          plan, turns, weights, {of_grad}, [&](int, int32_t v) { return grad_y.load(v); },
          [&](int32_t v, bool, const Vector *u) { of_grad.store(v, *u); });
      sweep_down<1, 2>(
          plan, turns, weights, {passed_x}, [&](int i, int32_t v) { return i == 0 ? x.load(v) : of_grad.load(v); },
          [&](int32_t root, const Vector *values, Vector *d) {
            *d = values[0];
            if (!in_outputs) grad_x.store(root, values[1]);
            grad_weights.store(root, zeros);
          },
          [&](int32_t v, const Vector &w, const Vector *values, Vector *d) {
            if (!in_outputs) grad_x.store(v, values[1]);
            grad_weights.store(v, weight_gradient(*d, values[1]));
            *d = down(values[0], w, *d);
          },
          [&](int32_t v, const Vector *d) { passed_x.store(v, *d); });
    } else {
      sweep_up<2>(
          plan, turns, weights, {of_x, of_grad},
          [&](int i, int32_t v) { return i == 0 ? x.load(v) : grad_y.load(v); },
          [&](int32_t v, bool, const Vector *sums) {
            of_x.store(v, sums[0]);
            of_grad.store(v, sums[1]);
          });
      sweep_down<2, 2>(
          plan, turns, weights, {passed_x, of_grad},
          [&](int i, int32_t v) { return i == 0 ? of_x.load(v) : of_grad.load(v); },
          [&](int32_t root, const Vector *sums, Vector *passed) {
            for (int i = 0; i < 2; ++i) passed[i] = sums[i];
            if (!in_outputs) grad_x.store(root, passed[1]);
            grad_weights.store(root, zeros);
          },
          [&](int32_t v, const Vector &w, const Vector *sums, Vector *passed) {
            const Vector beyond_y = beyond(w, sums[0], passed[0]), grad_beyond = beyond(w, sums[1], passed[1]);
            passed[0] = both(sums[0], w, beyond_y);
            passed[1] = both(sums[1], w, grad_beyond);
            grad_x.store(v, passed[1]);
            grad_weights.store(v, weight_gradient_both(sums[0], beyond_y, sums[1], grad_beyond));
          },
          [&](int32_t v, const Vector *passed) {
            passed_x.store(v, passed[0]);
            if (!in_outputs) of_grad.store(v, passed[1]);
          });
    }
  }
};

// Copies of tiles are numbered as the inputs are. Outputs take the place of inputs whose values are used up by then: y
// and grad_weights that of x, grad_x that of grad_y.
constexpr int copy_of_x = 0, copy_of_weights = 1, copy_of_grad_y = 2;

template <int Inputs, int Outputs>
struct Operands {
  Operand in[Inputs], out[Outputs];
};

// Blocks take tasks in turns. Copies of tiles lie in shared memory, all of them and in the type that is computed in;
// or, like states, in the block's part of `memory`, those that are needed and in the type that is stored.
template <class Pass, class S, int N, bool InShared>
__global__ void __launch_bounds__(most_threads, sizeof(S) == 8 ? 1 : least_blocks)  // doubles take twice the registers
    scan_tiles(PlanViews plans, Tiling tiling, Operands<Pass::inputs, Pass::outputs> operands, char *memory,
               int64_t block_bytes) {
  using T = Computed<S>;
  using Stored = std::conditional_t<InShared, T, S>;
  using Tile = Rows<Stored, N>;
  using State = Rows<T, N>;
  constexpr int inputs = Pass::inputs, outputs = Pass::outputs;
  constexpr int num_states = Pass::template num_states<holds_states<Tile, State>>;
  constexpr int64_t state_bytes = InShared ? 0 : num_states * static_cast<int64_t>(sizeof(Lanes<T, N>));
  SHARED_DYNAMIC(char, shared);
  char *const own_states = InShared ? shared : in_global_memory(memory + blockIdx.x * block_bytes);
  char *const own_copies = own_states + state_bytes * tiling.vertices * tiling.vectors;

  for (int64_t task = blockIdx.x; task < tiling.tasks; task += gridDim.x) {
    const Seat seat(tiling, task, N);
    const Plan plan = plans.of(seat.item);
    const auto is_copied = [](const Operand &operand) { return InShared || !operand.has_vectors; };
    const auto tile_of = [&](const Operand &operand, int copy) -> Tile {
      Tile tile = seat.own<Stored, N>(own_copies, copy);
      if constexpr (!InShared) {
        if (!is_copied(operand)) tile = seat.in_place<S, N>(operand);
        tile.data = in_global_memory(tile.data);
      }
      return tile;
    };
    Tile in[inputs], out[outputs];
    State states[num_states + 1] = {};
    for (int i = 0; i < inputs; ++i) {
      in[i] = tile_of(operands.in[i], i);
      if (is_copied(operands.in[i])) copy_in<S>(seat, operands.in[i], in[i]);
    }
    for (int i = 0; i < outputs; ++i) out[i] = tile_of(operands.out[i], i + 1 < outputs ? copy_of_grad_y : copy_of_x);
    // Shared memory holds the copies alone: what is passed down takes the place of the weight, which is used by then.
    for (int i = 0; i < num_states; ++i) states[i] = seat.own<T, N>(own_states, InShared ? copy_of_weights : i);
    __syncthreads();

    // Vertices in no tree get zeros. If the trees can't be followed, everything is NaN.
    const bool valid = plan.summary->valid != 0;
    const auto filling = State::Vector::all(valid ? T(0) : T(__uint_as_float(0x7fc00000u)));
    for (int64_t place = (valid ? plan.summary->num_planted : 0) + int64_t{seat.turns.first}; place < tiling.vertices;
         place += seat.turns.step)
      for (int i = 0; i < outputs; ++i) out[i].store(valid ? plan.vertex[place] : place, filling);
    if (valid) Pass::run(plan, seat.turns, in, out, states);
    __syncthreads();
    // No barrier after this: a thread's rows are its own again in the next task's copies.
    for (int i = 0; i < outputs; ++i)
      if (is_copied(operands.out[i])) copy_out<S>(seat, out[i], operands.out[i]);
  }
}

struct Cut {
  int lanes;
  bool in_shared;
  Tiling tiling;
  int threads;
};

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t vector_bytes = 16, sector_bytes = 32, line_bytes = 128;

// Tiles go to shared memory if they fit: every value is then moved once, and no step waits for memory. Rows in memory
// are read by sectors, so tiles are at least as wide as one; wider ones are for calls that have enough of them.
Cut cut_of(std::initializer_list<const treescan_tensor *> tensors, int copies) {
  const treescan_tensor &x = **tensors.begin();
  const int64_t batch = x.sizes[0], channels = x.sizes[1], vertices = x.sizes[2] * (x.ndim == 4 ? x.sizes[3] : 1);
  const int64_t element = dtype_size(x.dtype);
  const auto has_vectors = [&](int64_t lanes) {
    return [=](const treescan_tensor *tensor) { return operand_of(*tensor, element, lanes).has_vectors; };
  };
  int64_t lanes = vector_bytes / std::max<int64_t>(element, sizeof(float));
  const bool all_vectors = std::all_of(tensors.begin(), tensors.end(), has_vectors(lanes)),
             any_vectors = std::any_of(tensors.begin(), tensors.end(), has_vectors(lanes));

  const int64_t shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int64_t column_bytes = copies * vertices * vector_bytes;  // a tile's for each of its vectors
  int64_t total = ceil_divide(channels, lanes);
  int64_t least = std::min(total, any_vectors ? sector_bytes / (lanes * element) : 1), most;
  const bool in_shared = least * column_bytes <= shared_bytes;
  if (in_shared) {
    most = std::min(shared_bytes / least_blocks / column_bytes, line_bytes / vector_bytes);
  } else {
    if (!all_vectors && std::all_of(tensors.begin(), tensors.end(), has_vectors(1))) lanes = 1;
    total = ceil_divide(channels, lanes);
    least = std::min(total, sector_bytes / (lanes * element));
    // A warp that copies a wider tile wouldn't read whole sectors of each channel.
    most = all_vectors || lanes == 1 ? line_bytes / (lanes * element) : least;
  }
  int64_t vectors = std::max(least, std::min(most, total));
  const int64_t enough = 2 * attribute(cudaDevAttrMultiProcessorCount);
  while (vectors > least && batch * ceil_divide(total, vectors) < enough) vectors = std::max(least, vectors / 2);
  // Tiles of about equal width.
  vectors = std::min(total, ceil_divide(ceil_divide(total, ceil_divide(total, vectors)), least) * least);
  const int64_t tiles = ceil_divide(total, vectors);
  return {static_cast<int>(lanes), in_shared, {vertices, channels, vectors, tiles, batch * tiles},
          static_cast<int>(std::min<int64_t>(most_threads, ceil_divide(vertices * vectors, 32) * 32))};
}

template <class Pass>
using Kernel = void (*)(PlanViews, Tiling, Operands<Pass::inputs, Pass::outputs>, char *, int64_t);

template <class Pass, class S>
Kernel<Pass> kernel_for(const Cut &cut) {
  constexpr int lanes = vector_lanes<S>;
  if (cut.in_shared) return scan_tiles<Pass, S, lanes, true>;
  return cut.lanes == 1 ? scan_tiles<Pass, S, 1, false> : scan_tiles<Pass, S, lanes, false>;
}

template <class Pass>
Kernel<Pass> kernel_for(int32_t dtype, const Cut &cut) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return kernel_for<Pass, float>(cut);
    case TREESCAN_FLOAT64: return kernel_for<Pass, double>(cut);
    case TREESCAN_FLOAT16: return kernel_for<Pass, Float16>(cut);
    default: return kernel_for<Pass, BFloat16>(cut);
  }
}

// Of one direction. The first of the tensors is x; outputs follow inputs.
template <class Pass>
void run(const treescan_tensor &parent, const treescan_tensor &order,
         std::initializer_list<const treescan_tensor *> tensors, treescan_workspace *workspace, cudaStream_t stream) {
  constexpr int copies = Pass::inputs;
  const treescan_tensor &x = **tensors.begin();
  const int64_t element = dtype_size(x.dtype), computed = std::max<int64_t>(element, sizeof(float));
  const Cut cut = cut_of(tensors, copies);
  Operands<Pass::inputs, Pass::outputs> operands;
  bool has_copies = false;
  for (int i = 0; i < Pass::inputs + Pass::outputs; ++i) {
    const Operand operand = operand_of(*tensors.begin()[i], element, cut.lanes);
    (i < Pass::inputs ? operands.in[i] : operands.out[i - Pass::inputs]) = operand;
    has_copies = has_copies || !operand.has_vectors;
  }
  const Tiling &tiling = cut.tiling;
  const int64_t rows = tiling.vertices * tiling.vectors * cut.lanes;
  const size_t shared_bytes = cut.in_shared ? static_cast<size_t>(copies * rows * computed) : 0;
  const int64_t states = element == computed ? Pass::template num_states<true> : Pass::template num_states<false>;
  const int64_t bytes = rows * (states * computed + (has_copies ? copies * element : 0));
  const int64_t block_bytes = cut.in_shared ? 0 : ceil_divide(bytes, 64) * 64;

  const Kernel<Pass> scan_tiles_kernel = kernel_for<Pass>(x.dtype, cut);
  const unsigned blocks = grid_size(std::min<int64_t>(
      tiling.tasks, resident_blocks(scan_tiles_kernel, cut.threads, shared_bytes)));
  struct Pieces {
    Plans plans;
    char *memory;
  };
  const auto layout = [&](Carver &carver) {
    const Plans plans(carver, parent, order);
    return Pieces{plans, carver.take<char>(times(blocks, block_bytes))};
  };
  with_device_scratch(workspace, stream, layout, [&](Carver &carver) {
    Pieces pieces = layout(carver);
    pieces.plans.make(parent, order, failure_of_current_device(), stream);
    check(LAUNCH(scan_tiles_kernel, blocks, static_cast<unsigned>(cut.threads), shared_bytes, stream,
                 pieces.plans.views(), tiling, operands, pieces.memory, block_bytes),
          "scan");
  });
}

template <template <int> class Pass>
void run(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
         std::initializer_list<const treescan_tensor *> tensors, treescan_workspace *workspace, void *stream) {
  const treescan_tensor &x = **tensors.begin();
  if (x.sizes[0] == 0 || x.sizes[1] == 0) {  // nothing to scan, and sizes beside the one that is 0 may be anything
    if (workspace) with_scratch(workspace, [](Carver &) {}, [](Carver &) {});
    return;
  }
  switch (direction) {
    case TREESCAN_UP: return run<Pass<TREESCAN_UP>>(parent, order, tensors, workspace, as_stream(stream));
    case TREESCAN_DOWN: return run<Pass<TREESCAN_DOWN>>(parent, order, tensors, workspace, as_stream(stream));
    default: return run<Pass<TREESCAN_BOTH>>(parent, order, tensors, workspace, as_stream(stream));
  }
}

}  // namespace

void scan(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
          const treescan_tensor &weights, const treescan_tensor &y, treescan_workspace *workspace, void *stream) {
  run<Forward>(direction, parent, order, {&x, &weights, &y}, workspace, stream);
}

void scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                   const treescan_tensor &x, const treescan_tensor &weights, const treescan_tensor &grad_y,
                   const treescan_tensor &grad_x, const treescan_tensor &grad_weights, treescan_workspace *workspace,
                   void *stream) {
  run<Backward>(direction, parent, order, {&x, &weights, &grad_y, &grad_x, &grad_weights}, workspace, stream);
}

}  // namespace treescan::cuda
