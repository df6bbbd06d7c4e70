// A block of threads takes a tile of one item's channels at a time, the tiles of selective_tiling.h. It copies what the
// caller gave into rows of its own, one for each vertex, and works there: each thread walks along whole paths of one
// channel, with a block of states in registers. What waits between the way up and the way down, and what children on
// other paths need, lies in rows for each place and state.
//
// No result depends on the number of blocks or on how trees are cut into paths, and all are the CPU's to the bit. Sums
// over vertices are made in the order of places, which is the canonical one if the given order is, and then over items
// by ascending index; sums over channels fold each tile by halves, and take tiles and strands as selective_tiling.h
// says.
#include "selective_scan.h"

#include <type_traits>

#include "activations.h"
#include "call.h"
#include "plan.h"
#include "recurrence.h"
#include "selective_tiling.h"
#include "validate.h"

namespace treescan::cuda {

namespace {

enum Direction { up_ = TREESCAN_UP, down_ = TREESCAN_DOWN, both_ = TREESCAN_BOTH };

constexpr int threads = 256;

// As many states may be in registers, and as many bytes of a block's memory are theirs unless one state takes more.
template <class T>
constexpr int most_states = static_cast<int>(32 / sizeof(T));
constexpr int64_t most_state_bytes = int64_t{2} << 20;

template <class T>
constexpr int lanes = static_cast<int>(selective_row_bytes / sizeof(T));

template <class T>
using Formulas = Activations<T, T, std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>>;

template <class T>
TREESCAN_FORMULA T not_a_number() {
  return cast_bits<float>(0x7fc00000u);
}

// The caller's tensor, of any dtype and strides. No data stands for none.
struct View {
  void *data = nullptr;
  int32_t dtype = 0;
  int64_t strides[TREESCAN_MAX_DIMS] = {};

  View() = default;
  explicit View(const treescan_tensor *tensor) {
    if (!tensor) return;
    data = tensor->data;
    dtype = tensor->dtype;
    for (int i = 0; i < tensor->ndim; ++i) strides[i] = tensor->strides[i];
  }

  template <class T>
  __device__ __forceinline__ T load(int64_t i, int64_t j = 0, int64_t k = 0, int64_t l = 0) const {
    const int64_t at = offset(i, j, k, l);
    if constexpr (std::is_same_v<T, double>) {
      return static_cast<const double *>(data)[at];
    } else {
      if (dtype == TREESCAN_FLOAT32) return static_cast<const float *>(data)[at];
      const uint16_t bits = static_cast<const uint16_t *>(data)[at];
      return dtype == TREESCAN_FLOAT16 ? half_bits_to_float(bits) : bfloat16_bits_to_float(bits);
    }
  }

  template <class T>
  __device__ __forceinline__ void store(T value, int64_t i, int64_t j = 0, int64_t k = 0, int64_t l = 0) const {
    const int64_t at = offset(i, j, k, l);
    if constexpr (std::is_same_v<T, double>) {
      static_cast<double *>(data)[at] = value;
    } else {
      if (dtype == TREESCAN_FLOAT32) {
        static_cast<float *>(data)[at] = value;
      } else {
        static_cast<uint16_t *>(data)[at] =
            dtype == TREESCAN_FLOAT16 ? float_to_half_bits(value) : float_to_bfloat16_bits(value);
      }
    }
  }

 private:
  __device__ __forceinline__ int64_t offset(int64_t i, int64_t j, int64_t k, int64_t l) const {
    return i * strides[0] + j * strides[1] + k * strides[2] + l * strides[3];
  }
};

// The rows of a tile in a block's memory, one for each vertex. With the last block of states results take the place of
// what they are made of: y that of u; on the way back the gradients of u and delta those of u and of the step, and y
// that of its gradient. Before, sums that go on with the next block have rows of their own, behind these; then come the
// states, rows for each place.
enum Row { u_, step_, grad_y_ };
constexpr int forward_rows = 2, forward_sums = 1, backward_rows = 3, backward_sums = 3;

// What both ways are given.
template <class T>
struct Inputs {
  SelectiveTiling tiling;
  PlanViews plans;
  View u, delta, A, B, C, D, z, delta_bias;
  View grad_last_state;  // on the way back
  bool delta_softplus;
  const int32_t *parent;
  int64_t parent_item, parent_vertex;  // strides
  const T *B_by_vertex, *C_by_vertex;  // (B, G, V, N), or NULL if B or C is the same for all vertices
  T *memory;
  int64_t memory_of_block;  // elements
  int block;                // states swept along the tree at a time
  int rows, vertex_rows;    // for each vertex, without sums and with them

  __device__ __forceinline__ bool planned(int64_t item) const { return plans.of(item).summary->valid != 0; }
  __device__ __forceinline__ bool planted(int64_t item, int64_t v) const {
    return parent[item * parent_item + v * parent_vertex] >= 0;
  }
  __device__ __forceinline__ int64_t tasks() const { return tiling.batch * tiling.all_tiles(); }
};

// The gradients' way, besides: what waits until all tiles are done.
template <class T>
struct Sums {
  T *B, *C;       // (B, tiles, V, N) by vertex: each tile's channels added up
  T *parameters;  // (B, tiles, 3 N + 2, lanes): A, B, C, D and delta_bias, each vertex added up
  int64_t rows;   // 3 N + 2

  __device__ __forceinline__ T *parameter(int64_t task, int64_t row) const {
    return parameters + (task * rows + row) * lanes<T>;
  }
};

// What a thread knows of its block's tile. S states at most are in registers.
template <class T, int S>
struct Tile {
  using F = Formulas<T>;
  static constexpr int walkers = threads / lanes<T>;  // paths walked along at a time

  const Inputs<T> &in;
  Plan plan;
  int64_t task, item, number, group, first_channel, channels;  // the tile's number among all of an item
  int64_t vertices;
  int lane, walker;
  T *memory;          // the block's
  T *A, *B, *C;       // of the states in turn, in shared memory: a row for each
  T D;                // of the lane
  int64_t first = 0;  // the states in turn
  int states = 0;

  __device__ __forceinline__ Tile(const Inputs<T> &inputs, int64_t index, T *shared)
      : in(inputs),
        plan(inputs.plans.of(index / inputs.tiling.all_tiles())),
        task(index),
        item(index / inputs.tiling.all_tiles()),
        number(index % inputs.tiling.all_tiles()),
        group(number / inputs.tiling.tiles),
        first_channel(inputs.tiling.first_channel(number)),
        channels(inputs.tiling.channels_of(number)),
        vertices(inputs.tiling.vertices),
        lane(static_cast<int>(threadIdx.x % lanes<T>)),
        walker(static_cast<int>(threadIdx.x / lanes<T>)),
        memory(inputs.memory + blockIdx.x * inputs.memory_of_block),
        A(shared),
        B(shared + S * lanes<T>),
        C(shared + 2 * S * lanes<T>),
        D(inputs.D.data ? parameter(inputs.D, lane) : T(0)) {}

  __device__ __forceinline__ T &row(int which, int64_t v, int64_t l) const {
    return memory[(which * vertices + v) * lanes<T> + l];
  }
  // A sum over states that the blocks before this one began.
  __device__ __forceinline__ T begun(int which, int64_t v) const {
    return first == 0 ? T(0) : row(in.rows + which, v, lane);
  }
  __device__ __forceinline__ bool in_last_block() const { return first + states == in.tiling.states; }
  __device__ __forceinline__ T &state(int which, int64_t place, int j) const {
    return memory[(in.vertex_rows * vertices + (which * vertices + place) * in.block + j) * lanes<T> + lane];
  }

  // body(v, lane) for all of a tile, so that neighbouring threads meet neighbours in the caller's memory: channels, or
  // eight vertices of each channel.
  template <class Body>
  __device__ __forceinline__ void for_each_cell(const View &view, Body body) const {
    const int64_t by_channel = view.strides[1] < 0 ? -view.strides[1] : view.strides[1];
    const int64_t by_vertex = view.strides[2] < 0 ? -view.strides[2] : view.strides[2];
    if (by_channel <= by_vertex) {
      for (int64_t i = threadIdx.x; i < vertices * lanes<T>; i += threads) body(i / lanes<T>, i % lanes<T>);
      return;
    }
    for (int64_t i = threadIdx.x; i < (vertices + 7) / 8 * 8 * lanes<T>; i += threads) {
      const int64_t v = i / (8 * lanes<T>) * 8 + i % 8;
      if (v < vertices) body(v, i / 8 % lanes<T>);
    }
  }

  // Channels beyond the last are computed with zeros.
  __device__ __forceinline__ T signal(const View &view, int64_t v, int64_t l) const {
    return l < channels ? view.load<T>(item, first_channel + l, v) : T(0);
  }
  __device__ __forceinline__ void store_signal(const View &view, int64_t v, int64_t l, T value) const {
    if (l < channels) view.store<T>(value, item, first_channel + l, v);
  }
  __device__ __forceinline__ T parameter(const View &view, int64_t l, int64_t n = 0) const {
    return l < channels ? view.load<T>(first_channel + l, n) : T(0);
  }

  // The step before softplus, if there is one.
  __device__ __forceinline__ T raw_step(int64_t v, int64_t l) const {
    const T delta = signal(in.delta, v, l);
    return in.delta_bias.data ? delta + parameter(in.delta_bias, l) : delta;
  }

  __device__ __forceinline__ void load_steps() const {
    for_each_cell(in.u, [&](int64_t v, int64_t l) {
      const T raw = raw_step(v, l);
      row(u_, v, l) = signal(in.u, v, l);
      row(step_, v, l) = in.delta_softplus ? F::softplus(raw) : raw;
    });
  }

  // visit() for each block of states, with their parameters at hand.
  template <class Visit>
  __device__ __forceinline__ void for_each_block(Visit visit) {
    for (first = 0; first < in.tiling.states; first += in.block) {
      states = static_cast<int>(min(static_cast<int64_t>(in.block), in.tiling.states - first));
      for (int j = walker; j < states; j += walkers) {
        A[j * lanes<T> + lane] = parameter(in.A, lane, first + j);
        if (!in.B_by_vertex) B[j * lanes<T> + lane] = parameter(in.B, lane, first + j);
        if (!in.C_by_vertex) C[j * lanes<T> + lane] = parameter(in.C, lane, first + j);
      }
      __syncthreads();
      visit();
    }
  }

  // body(j) for each state of the block.
  template <class Body>
  __device__ __forceinline__ void for_each_state(Body body) const {
#pragma unroll
    for (int j = 0; j < S; ++j)
      if (j < states) body(j);
  }

  __device__ __forceinline__ int64_t by_vertex(int64_t v, int j) const {
    return ((item * in.tiling.groups + group) * vertices + v) * in.tiling.states + first + j;
  }
  __device__ __forceinline__ T B_of(int64_t v, int j) const {
    return in.B_by_vertex ? in.B_by_vertex[by_vertex(v, j)] : B[j * lanes<T> + lane];
  }
  __device__ __forceinline__ T C_of(int64_t v, int j) const {
    return in.C_by_vertex ? in.C_by_vertex[by_vertex(v, j)] : C[j * lanes<T> + lane];
  }

  // What a vertex's states share.
  struct Cell {
    int64_t v;
    T step, x;   // the step, and step * u
    T gradient;  // of y, on the way back
  };
  template <bool backward>
  __device__ __forceinline__ Cell cell(int64_t place) const {
    const int64_t v = plan.vertex[place];
    const T step = row(step_, v, lane);
    return {v, step, step * row(u_, v, lane), backward ? row(grad_y_, v, lane) : T(0)};
  }
  __device__ __forceinline__ T decay(T step, int j) const { return F::exp(step * A[j * lanes<T> + lane]); }
  // What a state adds of its own, to the scan and to the scan of the gradient.
  __device__ __forceinline__ T drive(const Cell &c, int j) const { return c.x * B_of(c.v, j); }
  __device__ __forceinline__ T gradient(const Cell &c, int j) const {
    T g = c.gradient * C_of(c.v, j);
    if (c.v == vertices - 1 && in.grad_last_state.data)
      g = g + (lane < channels ? in.grad_last_state.template load<T>(item, first_channel + lane, first + j) : T(0));
    return g;
  }

  // Walks up all paths, layers from the last to the first. Each of the `Passes` sums is own(pass, cell, j) plus what
  // the children sent; visit(cell, sums) gets them. They lie in the rows of states afterwards, those of the paths' tops
  // at least.
  template <int Passes, bool backward, class Own, class Visit>
  __device__ __forceinline__ void sweep_up(bool keep_all, Own own, Visit visit) const {
    for (int32_t layer = plan.summary->num_layers - 1; layer >= 0; --layer) {
      for (int32_t path = plan.layer_start[layer] + walker; path < plan.layer_start[layer + 1]; path += walkers) {
        const int32_t top = plan.path_start[path];
        int32_t below = -1;  // the place below, and what it sends
        T sent[Passes][S] = {};
        for (int32_t i = plan.path_start[path + 1] - 1; i >= top; --i) {
          const int32_t place = plan.sequence[i];
          const Cell c = cell<backward>(place);
          T sums[Passes][S] = {};
          const int32_t first_child = plan.first_child[place];
          for (int32_t child = first_child + plan.num_children[place] - 1; child >= first_child; --child) {
            if (child == below) {
              for_each_state([&](int j) {
                for (int s = 0; s < Passes; ++s) sums[s][j] = sums[s][j] + sent[s][j];
              });
            } else {
              const T step = row(step_, plan.vertex[child], lane);
              for_each_state([&](int j) {
                const T a = decay(step, j);
                for (int s = 0; s < Passes; ++s) sums[s][j] = sums[s][j] + to_parent(a, state(s, child, j));
              });
            }
          }
          for_each_state([&](int j) {
            for (int s = 0; s < Passes; ++s) {
              sums[s][j] = up(own(s, c, j), sums[s][j]);
              if (keep_all || i == top) state(s, place, j) = sums[s][j];
            }
            if (i == top) return;
            const T a = decay(c.step, j);
            for (int s = 0; s < Passes; ++s) sent[s][j] = to_parent(a, sums[s][j]);
          });
          below = place;
          visit(c, sums);
        }
      }
      __syncthreads();
    }
  }

  // Walks down all paths, layers from the first to the last. visit(cell, place, is_root, handed) turns what the parent
  // handed down into what the place hands to its children, which goes to the rows of states for those on other paths.
  template <int Passes, bool backward, class Visit>
  __device__ __forceinline__ void sweep_down(Visit visit) const {
    for (int32_t layer = 0; layer < plan.summary->num_layers; ++layer) {
      for (int32_t path = plan.layer_start[layer] + walker; path < plan.layer_start[layer + 1]; path += walkers) {
        const int32_t begin = plan.path_start[path], end = plan.path_start[path + 1];
        const int32_t top = plan.sequence[begin], above = plan.parent[top];
        T handed[Passes][S] = {};
        if (above != top)
          for_each_state([&](int j) {
            for (int s = 0; s < Passes; ++s) handed[s][j] = state(s, above, j);
          });
        for (int32_t i = begin; i < end; ++i) {
          const int32_t place = plan.sequence[i];
          visit(cell<backward>(place), place, place == top && above == top, handed);
          if (plan.num_children[place] > (i + 1 < end))
            for_each_state([&](int j) {
              for (int s = 0; s < Passes; ++s) state(s, place, j) = handed[s][j];
            });
        }
      }
      __syncthreads();
    }
  }

  // The sum over a tile's channels, folded by halves; every lane gets it.
  __device__ __forceinline__ T fold(T value) const {
    const unsigned mask = ((1u << lanes<T>) - 1) << (threadIdx.x % 32 / lanes<T> * lanes<T>);
    for (int half = lanes<T> / 2; half > 0; half /= 2) value += __shfl_xor_sync(mask, value, half);
    return value;
  }
};

template <class T, int S, int direction>
__global__ void __launch_bounds__(threads, 2) scan_tiles(const Inputs<T> in, const View y, const View last_state) {
  SHARED(T, shared, 3 * S * lanes<T>);
  for (int64_t task = blockIdx.x; task < in.tasks(); task += gridDim.x) {
    Tile<T, S> t(in, task, shared);
    const bool planned = in.planned(t.item);
    const bool last_planted = planned && in.planted(t.item, t.vertices - 1);
    if (last_state.data && !last_planted && t.lane < t.channels)
      for (int64_t n = t.walker; n < in.tiling.states; n += t.walkers)
        last_state.store<T>(planned ? T(0) : not_a_number<T>(), t.item, t.first_channel + t.lane, n);
    if (!planned) {
      t.for_each_cell(y, [&](int64_t v, int64_t l) { t.store_signal(y, v, l, not_a_number<T>()); });
      continue;
    }
    t.load_steps();
    using Cell = typename Tile<T, S>::Cell;
    const auto read_out = [&](const Cell &c, int j, T h, T &sum) {
      if (c.v == t.vertices - 1 && last_state.data && t.lane < t.channels)
        last_state.store<T>(h, t.item, t.first_channel + t.lane, t.first + j);
      sum = sum + t.C_of(c.v, j) * h;
    };
    const auto keep = [&](const Cell &c, T sum) {
      if (!t.in_last_block()) {
        t.row(forward_rows, c.v, t.lane) = sum;
      } else {
        T &u = t.row(u_, c.v, t.lane);
        u = in.D.data ? sum + t.D * u : sum;
      }
    };
    t.for_each_block([&] {
      if constexpr (direction != down_)
        t.template sweep_up<1, false>(
            direction == both_, [&](int, const Cell &c, int j) { return t.drive(c, j); },
            [&](const Cell &c, T(&u)[1][S]) {
              if (direction != up_) return;
              T sum = t.begun(0, c.v);
              t.for_each_state([&](int j) { read_out(c, j, u[0][j], sum); });
              keep(c, sum);
            });
      if constexpr (direction != up_)
        t.template sweep_down<1, false>([&](const Cell &c, int64_t place, bool is_root, T(&handed)[1][S]) {
          T sum = t.begun(0, c.v);
          t.for_each_state([&](int j) {
            T h = direction == both_ ? t.state(0, place, j) : t.drive(c, j);
            if (!is_root) {
              const T a = t.decay(c.step, j), above = handed[0][j];
              h = direction == both_ ? both(h, a, beyond(a, h, above)) : down(h, a, above);
            }
            handed[0][j] = h;
            read_out(c, j, h, sum);
          });
          keep(c, sum);
        });
    });
    t.for_each_cell(y, [&](int64_t v, int64_t l) {
      T value = T(0);
      if (in.planted(t.item, v)) {
        value = t.row(u_, v, l);
        if (in.z.data) value = value * Formulas<T>::silu(t.signal(in.z, v, l));
      }
      t.store_signal(y, v, l, value);
    });
    __syncthreads();  // the next tile overwrites the rows
  }
}

// Rows of states on the way back: sums that wait for the way down, one pass or two, and what a vertex adds to the
// gradients of A and, where they are the same for all vertices, of B and C.
template <int direction>
constexpr int passes_back = direction == both_ ? 2 : 1;

template <class T, int S, int direction>
__global__ void __launch_bounds__(threads, sizeof(T) == 8 || (S > 1 && direction == up_) ? 1 : 2)
    scan_tiles_back(const Inputs<T> in, const View grad_y, const View grad_u, const View grad_delta, const View grad_z,
                    const Sums<T> sums_of) {
  constexpr int passes = passes_back<direction>, A_terms = passes, B_terms = passes + 1;
  const int C_terms = B_terms + !in.B_by_vertex, all_terms = C_terms + !in.C_by_vertex - A_terms;
  SHARED(T, shared, 3 * S * lanes<T>);
  for (int64_t task = blockIdx.x; task < in.tasks(); task += gridDim.x) {
    Tile<T, S> t(in, task, shared);
    const int64_t states = in.tiling.states;
    if (!in.planned(t.item)) {
      const T nan = not_a_number<T>();
      t.for_each_cell(grad_u, [&](int64_t v, int64_t l) {
        t.store_signal(grad_u, v, l, nan);
        t.store_signal(grad_delta, v, l, nan);
        if (grad_z.data) t.store_signal(grad_z, v, l, nan);
      });
      for (int64_t k = t.walker; k < sums_of.rows; k += t.walkers) sums_of.parameter(task, k)[t.lane] = nan;
      continue;
    }
    t.load_steps();
    t.for_each_cell(grad_y, [&](int64_t v, int64_t l) {
      const T gradient = t.signal(grad_y, v, l);
      t.row(grad_y_, v, l) = in.z.data ? gradient * Formulas<T>::silu(t.signal(in.z, v, l)) : gradient;
    });
    using Cell = typename Tile<T, S>::Cell;
    const int32_t num_roots = t.plan.summary->num_roots, num_planted = t.plan.summary->num_planted;
    // The parameters' gradients add up the vertices in the order of places, whatever the paths.
    const auto sum_places = [&](int64_t parameter, int32_t first_place, auto term) {
      T sum = T(0);
#pragma unroll 16
      for (int32_t place = first_place; place < num_planted; ++place) sum += term(place);
      sums_of.parameter(task, parameter)[t.lane] = sum;
    };
    __syncthreads();
    if (in.D.data && t.walker == 0)
      sum_places(3 * states, 0, [&](int32_t place) {
        const int64_t v = t.plan.vertex[place];
        return t.row(grad_y_, v, t.lane) * t.row(u_, v, t.lane);
      });
    t.for_each_block([&] {
      //            sums      handed down
      //   up       u         the gradient
      //   down     gradient  h
      //   both     both      both
      t.template sweep_up<passes, true>(
          true,
          [&](int s, const Cell &c, int j) {
            return direction == up_ || (direction == both_ && s == 0) ? t.drive(c, j) : t.gradient(c, j);
          },
          [](const Cell &, T(&)[passes][S]) {});
      t.template sweep_down<passes, true>([&](const Cell &c, int64_t place, bool is_root, T(&handed)[passes][S]) {
        T y = t.begun(0, c.v), grad_x = t.begun(1, c.v), grad_step = t.begun(2, c.v);
        T of_B = T(0), of_C = T(0);  // lane j has state j's
        t.for_each_state([&](int j) {
          T sums[passes], above[passes];
          for (int s = 0; s < passes; ++s) {
            sums[s] = t.state(s, place, j);
            above[s] = handed[s][j];
            handed[s][j] = sums[s];
          }
          if constexpr (direction == up_) handed[0][j] = t.gradient(c, j);
          if constexpr (direction == down_) handed[0][j] = t.drive(c, j);
          if (!is_root) {
            const T A = t.A[j * lanes<T> + t.lane], a = Formulas<T>::exp(c.step * A);
            T grad_a;
            if constexpr (direction == both_) {
              for (int s = 0; s < passes; ++s) {
                above[s] = beyond(a, sums[s], above[s]);
                handed[s][j] = both(sums[s], a, above[s]);
              }
              grad_a = weight_gradient_both(sums[0], above[0], sums[1], above[1]);
            } else {
              handed[0][j] = down(handed[0][j], a, above[0]);
              grad_a = weight_gradient(sums[0], above[0]);
            }
            const T grad_exponent = grad_a * a;
            grad_step = grad_step + grad_exponent * A;
            t.state(A_terms, place, j) = grad_exponent * c.step;
          }
          const T h = direction == up_ ? sums[0] : handed[0][j];
          const T grad_h = direction == down_ ? sums[0] : handed[passes - 1][j];
          y = y + t.C_of(c.v, j) * h;
          grad_x = grad_x + t.B_of(c.v, j) * grad_h;
          const T grad_B = grad_h * c.x, grad_C = c.gradient * h;
          if (in.B_by_vertex) {
            const T sum = t.fold(grad_B);
            of_B = j == t.lane ? sum : of_B;
          } else {
            t.state(B_terms, place, j) = grad_B;
          }
          if (in.C_by_vertex) {
            const T sum = t.fold(grad_C);
            of_C = j == t.lane ? sum : of_C;
          } else {
            t.state(C_terms, place, j) = grad_C;
          }
        });
        if (!t.in_last_block()) {
          t.row(backward_rows, c.v, t.lane) = y;
          t.row(backward_rows + 1, c.v, t.lane) = grad_x;
          t.row(backward_rows + 2, c.v, t.lane) = grad_step;
        } else {
          T &u = t.row(u_, c.v, t.lane), of_u = grad_x * c.step;
          t.row(step_, c.v, t.lane) = grad_step + grad_x * u;
          if (in.z.data) t.row(grad_y_, c.v, t.lane) = in.D.data ? y + t.D * u : y;
          u = in.D.data ? of_u + t.D * c.gradient : of_u;
        }
        if (t.lane < t.states) {
          const int64_t at = (task * t.vertices + c.v) * states + t.first + t.lane;
          if (in.B_by_vertex) sums_of.B[at] = of_B;
          if (in.C_by_vertex) sums_of.C[at] = of_C;
        }
      });
      for (int k = t.walker; k < all_terms * t.states; k += t.walkers) {
        const int terms = A_terms + k / t.states, j = k % t.states;
        const int parameter = terms == A_terms ? 0 : terms == C_terms ? 2 : 1;
        sum_places(parameter * states + t.first + j, terms == A_terms ? num_roots : 0,
                   [&](int32_t place) { return t.state(terms, place, j); });
      }
    });
    t.for_each_cell(grad_u, [&](int64_t v, int64_t l) {
      T of_u = T(0), of_delta = T(0), of_z = T(0);
      if (in.planted(t.item, v)) {
        of_u = t.row(u_, v, l);
        of_delta = t.row(step_, v, l);
        if (in.delta_softplus) of_delta = of_delta * Formulas<T>::sigmoid(t.raw_step(v, l));
        if (in.z.data)
          of_z = t.signal(grad_y, v, l) * Formulas<T>::silu_derivative(t.signal(in.z, v, l)) * t.row(grad_y_, v, l);
        t.row(step_, v, l) = of_delta;
      }
      t.store_signal(grad_u, v, l, of_u);
      t.store_signal(grad_delta, v, l, of_delta);
      if (grad_z.data) t.store_signal(grad_z, v, l, of_z);
    });
    __syncthreads();
    if (in.delta_bias.data && t.walker == 0)
      sum_places(3 * states + 1, 0, [&](int32_t place) { return t.row(step_, t.plan.vertex[place], t.lane); });
    __syncthreads();  // the next tile overwrites the rows
  }
}

// B and C as they are computed with, the states of a vertex side by side.
template <class T>
__global__ void __launch_bounds__(threads) load_factors(const View B, const View C, T *B_by_vertex, T *C_by_vertex,
                                                        int64_t count, int64_t groups, int64_t states,
                                                        int64_t vertices) {
  for (int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += int64_t{gridDim.x} * threads) {
    const int64_t v = i % vertices, n = i / vertices % states, of = i / vertices / states;
    const int64_t to = (of * vertices + v) * states + n;
    if (B_by_vertex) B_by_vertex[to] = B.load<T>(of / groups, of % groups, n, v);
    if (C_by_vertex) C_by_vertex[to] = C.load<T>(of / groups, of % groups, n, v);
  }
}

// Adds up what the tiles have left: gradients that channels share, and then those that vertices share.
template <class T>
__global__ void __launch_bounds__(threads) add_tiles(const Inputs<T> in, const Sums<T> sums_of, const View grad_A,
                                                     const View grad_B, const View grad_C, const View grad_D,
                                                     const View grad_bias) {
  const SelectiveTiling &tiling = in.tiling;
  const int64_t states = tiling.states, vertices = tiling.vertices, groups = tiling.groups;
  const int64_t begin = int64_t{blockIdx.x} * threads + threadIdx.x, all = int64_t{gridDim.x} * threads;
  for (int64_t i = begin; i < tiling.batch * groups * vertices * states; i += all) {
    const int64_t n = i % states, v = i / states % vertices, group = i / states / vertices % groups;
    const int64_t item = i / states / vertices / groups;
    const auto add_up = [&](const T *sums) {
      if (!in.planned(item)) return not_a_number<T>();
      if (!in.planted(item, v)) return T(0);
      T sum = T(0);
      for (int64_t strand = 0; strand < tiling.strands; ++strand) {
        T of_strand = T(0);
        for (int64_t tile = tiling.first_tile(strand); tile < tiling.first_tile(strand + 1); ++tile)
          of_strand += sums[((item * tiling.all_tiles() + group * tiling.tiles + tile) * vertices + v) * states + n];
        sum = strand == 0 ? of_strand : sum + of_strand;
      }
      return sum;
    };
    if (in.B_by_vertex) grad_B.store<T>(add_up(sums_of.B), item, group, n, v);
    if (in.C_by_vertex) grad_C.store<T>(add_up(sums_of.C), item, group, n, v);
  }
  for (int64_t i = begin; i < tiling.all_tiles() * sums_of.rows * lanes<T>; i += all) {
    const int64_t lane = i % lanes<T>, row = i / lanes<T> % sums_of.rows, tile = i / lanes<T> / sums_of.rows;
    const int64_t channel = tiling.first_channel(tile) + lane;
    if (lane >= tiling.channels_of(tile)) continue;
    const auto add_items = [&](const View &grad, int64_t n) {
      T sum = T(0);
      for (int64_t item = 0; item < tiling.batch; ++item) {
        const T of_item = sums_of.parameter(item * tiling.all_tiles() + tile, row)[lane];
        sum = item == 0 ? of_item : sum + of_item;
      }
      grad.store<T>(sum, channel, n);
    };
    if (row < states) {
      add_items(grad_A, row);
    } else if (row < 2 * states) {
      if (!in.B_by_vertex) add_items(grad_B, row - states);
    } else if (row < 3 * states) {
      if (!in.C_by_vertex) add_items(grad_C, row - 2 * states);
    } else if (row == 3 * states) {
      if (grad_D.data) add_items(grad_D, 0);
    } else if (grad_bias.data) {
      add_items(grad_bias, 0);
    }
  }
}

// Calls body with the direction as a constant.
template <class Body>
void with_direction(int32_t direction, Body body) {
  switch (direction) {
    case up_: return body(std::integral_constant<int, up_>());
    case down_: return body(std::integral_constant<int, down_>());
    default: return body(std::integral_constant<int, both_>());
  }
}
// Calls body with the number of states that are to be in registers.
template <class T, class Body>
void with_states(int64_t block, Body body) {
  if (block == 1) return body(std::integral_constant<int, 1>());
  body(std::integral_constant<int, most_states<T>>());
}

// What the host knows of a call. Besides B and C by vertex, and for gradients one such array for each tile, a block
// that is resident takes 64 V bytes for each row: forward 3 rows with one state, backward 5 or 6.
template <class T>
class Call {
 public:
  int64_t block;  // states swept at a time

  Call(const treescan_tensor &parent, const treescan_tensor &order, const treescan_selective_inputs &inputs,
       const treescan_tensor *grad_last_state, int rows, int sums, int state_rows, bool backward)
      : block(std::min<int64_t>(inputs.A->sizes[1], most_states<T>)),
        parent_(parent),
        order_(order),
        inputs_(inputs),
        grad_last_state_(grad_last_state),
        tiling_(inputs),
        backward_(backward),
        rows_(rows) {
    const int64_t row_bytes = times(tiling_.vertices, selective_row_bytes);
    while (block > 1 && times(state_rows * block, row_bytes) > most_state_bytes) block = (block + 1) / 2;
    vertex_rows_ = rows + (block < tiling_.states ? sums : 0);
    memory_of_block_ = times(vertex_rows_ + state_rows * block, tiling_.vertices * lanes<T>);
  }

  // Makes plans, loads B and C, calls scan(in, sums, blocks), and for gradients add(in, sums, blocks) in the end.
  template <class Scan, class Add>
  void run(unsigned resident, treescan_workspace *workspace, cudaStream_t stream, Scan scan, Add add) const {
    const SelectiveTiling &tiling = tiling_;
    const bool B_by_vertex = inputs_.B->ndim == 4, C_by_vertex = inputs_.C->ndim == 4;
    const int64_t tasks = times(tiling.batch, tiling.all_tiles()), blocks = std::min<int64_t>(resident, tasks);
    const int64_t by_vertex = times(tiling.vertices, tiling.states);
    const int64_t factors = times(times(tiling.batch, tiling.groups), by_vertex), rows = 3 * tiling.states + 2;
    struct Pieces {
      Plans plans;
      T *B, *C, *memory;
      Sums<T> sums;
    };
    const auto layout = [&](Carver &carver) {
      const auto take = [&](int64_t count, int64_t each) { return carver.take<T>(times(count, each)); };
      Pieces pieces{Plans(carver, parent_, order_), nullptr, nullptr, nullptr, {nullptr, nullptr, nullptr, rows}};
      if (B_by_vertex) pieces.B = take(factors, 1);
      if (C_by_vertex) pieces.C = take(factors, 1);
      pieces.memory = take(blocks, memory_of_block_);
      if (backward_) {
        if (B_by_vertex) pieces.sums.B = take(tasks, by_vertex);
        if (C_by_vertex) pieces.sums.C = take(tasks, by_vertex);
        pieces.sums.parameters = take(tasks, rows * lanes<T>);
      }
      return pieces;
    };
    with_device_scratch(workspace, stream, layout, [&](Carver &carver) {
      Pieces pieces = layout(carver);
      pieces.plans.make(parent_, order_, failure_of_current_device(), stream);
      if (factors > 0 && (B_by_vertex || C_by_vertex))
        check(LAUNCH((load_factors<T>), blocks_for(factors), threads, 0, stream, View(inputs_.B), View(inputs_.C),
                     pieces.B, pieces.C, factors, tiling.groups, tiling.states, tiling.vertices),
              "load_factors");
      const Inputs<T> in = {tiling,
                            pieces.plans.views(),
                            View(inputs_.u),
                            View(inputs_.delta),
                            View(inputs_.A),
                            View(inputs_.B),
                            View(inputs_.C),
                            View(inputs_.D),
                            View(inputs_.z),
                            View(inputs_.delta_bias),
                            View(grad_last_state_),
                            inputs_.delta_softplus != 0,
                            static_cast<const int32_t *>(parent_.data),
                            parent_.sizes[0] == 1 ? 0 : parent_.strides[0],
                            parent_.strides[1],
                            pieces.B,
                            pieces.C,
                            pieces.memory,
                            memory_of_block_,
                            static_cast<int>(block),
                            rows_,
                            vertex_rows_};
      if (tasks > 0) check(scan(in, pieces.sums, grid_size(blocks)), "scan_tiles");
      if (!backward_) return;
      const int64_t sums = std::max(factors, times(tiling.all_tiles(), rows * lanes<T>));
      if (sums > 0) check(add(in, pieces.sums, blocks_for(sums)), "add_tiles");
    });
  }

 private:
  static unsigned blocks_for(int64_t elements) { return grid_size((elements + threads - 1) / threads); }

  const treescan_tensor &parent_, &order_;
  const treescan_selective_inputs &inputs_;
  const treescan_tensor *grad_last_state_;
  SelectiveTiling tiling_;
  bool backward_;
  int rows_, vertex_rows_;
  int64_t memory_of_block_;
};

template <class T>
void scan_in(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
             const treescan_selective_inputs &inputs, const treescan_tensor &y, const treescan_tensor *last_state,
             treescan_workspace *workspace, cudaStream_t stream) {
  const Call<T> call(parent, order, inputs, nullptr, forward_rows, forward_sums, 1, false);
  with_direction(direction, [&](auto constant_direction) {
    with_states<T>(call.block, [&](auto constant_states) {
      constexpr int way = decltype(constant_direction)::value, states = decltype(constant_states)::value;
      call.run(
          resident_blocks(scan_tiles<T, states, way>, threads, 0), workspace, stream,
          [&](const Inputs<T> &in, const Sums<T> &, unsigned blocks) {
            return LAUNCH((scan_tiles<T, states, way>), blocks, threads, 0, stream, in, View(&y), View(last_state));
          },
          [](const Inputs<T> &, const Sums<T> &, unsigned) { return cudaSuccess; });
    });
  });
}

template <class T>
void scan_back_in(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                  const treescan_selective_inputs &inputs, const treescan_tensor &grad_y,
                  const treescan_tensor *grad_last_state, const treescan_selective_gradients &gradients,
                  treescan_workspace *workspace, cudaStream_t stream) {
  with_direction(direction, [&](auto constant_direction) {
    constexpr int way = decltype(constant_direction)::value;
    const int terms = 1 + (inputs.B->ndim == 2) + (inputs.C->ndim == 2);
    const Call<T> call(parent, order, inputs, grad_last_state, backward_rows, backward_sums,
                       passes_back<way> + terms, true);
    with_states<T>(call.block, [&](auto constant_states) {
      constexpr int states = decltype(constant_states)::value;
      call.run(
          resident_blocks(scan_tiles_back<T, states, way>, threads, 0), workspace, stream,
          [&](const Inputs<T> &in, const Sums<T> &sums, unsigned blocks) {
            return LAUNCH((scan_tiles_back<T, states, way>), blocks, threads, 0, stream, in, View(&grad_y),
                          View(gradients.u), View(gradients.delta), View(gradients.z), sums);
          },
          [&](const Inputs<T> &in, const Sums<T> &sums, unsigned blocks) {
            return LAUNCH((add_tiles<T>), blocks, threads, 0, stream, in, sums, View(gradients.A), View(gradients.B),
                          View(gradients.C), View(gradients.D), View(gradients.delta_bias));
          });
    });
  });
}

}  // namespace

void selective_scan(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                    const treescan_selective_inputs &inputs, const treescan_tensor &y,
                    const treescan_tensor *last_state, treescan_workspace *workspace, void *stream) {
  (inputs.u->dtype == TREESCAN_FLOAT64 ? scan_in<double> : scan_in<float>)(
      direction, parent, order, inputs, y, last_state, workspace, as_stream(stream));
}

void selective_scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                             const treescan_selective_inputs &inputs, const treescan_tensor &grad_y,
                             const treescan_tensor *grad_last_state, const treescan_selective_gradients &gradients,
                             treescan_workspace *workspace, void *stream) {
  (inputs.u->dtype == TREESCAN_FLOAT64 ? scan_back_in<double> : scan_back_in<float>)(
      direction, parent, order, inputs, grad_y, grad_last_state, gradients, workspace, as_stream(stream));
}

}  // namespace treescan::cuda
