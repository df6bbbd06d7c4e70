#include "cpu/scan_kernels.h"

#include "half.h"
#include "recurrence.h"
#include "treescan/treescan.h"

// Everything here has internal linkage and no inline code of the standard library is used: the linker would be free to
// keep one copy of it for the whole library, the one built for an instruction set that the machine may not have.

namespace treescan {
namespace TREESCAN_KERNELS {
const KernelTable &table();

namespace {

#if defined(__GNUC__)
template <class T, int Bytes>
struct VectorOf;
#define TREESCAN_VECTOR(type, bytes)                       \
  template <>                                              \
  struct VectorOf<type, bytes> {                           \
    typedef type Type __attribute__((vector_size(bytes))); \
  };
TREESCAN_VECTOR(float, 16)
TREESCAN_VECTOR(float, 64)
TREESCAN_VECTOR(double, 16)
TREESCAN_VECTOR(double, 64)
#undef TREESCAN_VECTOR
#else
template <class T, int Bytes>
struct VectorOf {
  struct Type {
    T lane[Bytes / sizeof(T)];
#define TREESCAN_OPERATOR(op)                                                                     \
  friend Type operator op(const Type &a, const Type &b) {                                         \
    Type result;                                                                                  \
    for (int i = 0; i < static_cast<int>(Bytes / sizeof(T)); ++i) result.lane[i] = a.lane[i] op b.lane[i]; \
    return result;                                                                                \
  }
    TREESCAN_OPERATOR(+)
    TREESCAN_OPERATOR(-)
    TREESCAN_OPERATOR(*)
#undef TREESCAN_OPERATOR
  };
};
#endif

TREESCAN_FORMULA void prefetch(const void *address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  (void)address;
#endif
}

// A row of Count vectors of Bytes bytes each.
template <class T, int Bytes, int Count>
struct Kernels {
  using Vector = typename VectorOf<T, Bytes>::Type;
  static constexpr int per_vector = Bytes / static_cast<int>(sizeof(T));
  static constexpr int lanes = per_vector * Count;
  // How many vertices ahead rows are fetched: about the latency of a cache miss.
  static constexpr int64_t ahead = 12;

  TREESCAN_FORMULA Vector read(const T *address) {
    Vector value;
    __builtin_memcpy(&value, address, sizeof value);
    return value;
  }
  TREESCAN_FORMULA void write(T *address, Vector value) { __builtin_memcpy(address, &value, sizeof value); }

  template <class U>
  TREESCAN_FORMULA U *row(const Tile<U> &tile, int64_t v) {
    return tile.data + v * tile.stride;
  }

  static void clear(T *rows, int64_t count) {
    const Vector zero = {};
    for (int64_t i = 0; i < count * Count; ++i) write(rows + i * per_vector, zero);
  }

  // Sums each vertex's children into its accumulator row, from the last position to the first; `visit(v, a, l, u)` is
  // told the state at lane l of vertex v, whose accumulator row is a.
  template <class Visit>
  TREESCAN_FORMULA void sweep_up(const Plan &plan, const Tile<const T> &x, const Tile<const T> &weights, T *accumulator,
                       Visit visit) {
    clear(accumulator, plan.num_vertices);
    for (int64_t i = plan.num_vertices - 1; i > 0; --i) {
      const int64_t v = plan.order[i];
      const int64_t later = plan.order[i > ahead ? i - ahead : 0];
      prefetch(row(x, later));
      prefetch(row(weights, later));
      const T *const x_row = row(x, v);
      const T *const w_row = row(weights, v);
      T *const own = accumulator + i * lanes;
      T *const above = accumulator + plan.parent[i] * static_cast<int64_t>(lanes);
      for (int k = 0; k < Count; ++k) {
        const int l = k * per_vector;
        const Vector u = up(read(x_row + l), read(own + l));
        write(above + l, read(above + l) + to_parent(read(w_row + l), u));
        visit(v, own, l, u);
      }
    }
    const int64_t root = plan.order[0];
    for (int l = 0; l < lanes; l += per_vector)
      visit(root, accumulator, l, up(read(row(x, root) + l), read(accumulator + l)));
  }

  static void forward_up(const Plan &plan, const ForwardTiles<T> &t) {
    sweep_up(plan, t.x, t.weights, t.accumulator,
             [&](int64_t v, T *, int l, Vector u) { write(row(t.y, v) + l, u); });
  }

  static void forward_down(const Plan &plan, const ForwardTiles<T> &t) {
    const int64_t root = plan.order[0];
    for (int l = 0; l < lanes; l += per_vector) {
      const Vector d = read(row(t.x, root) + l);
      write(t.accumulator + l, d);
      write(row(t.y, root) + l, d);
    }
    for (int64_t i = 1; i < plan.num_vertices; ++i) {
      const int64_t v = plan.order[i];
      const int64_t later = plan.order[i + ahead < plan.num_vertices ? i + ahead : 0];
      prefetch(row(t.x, later));
      prefetch(row(t.weights, later));
      const T *const x_row = row(t.x, v);
      const T *const w_row = row(t.weights, v);
      const T *const above = t.accumulator + plan.parent[i] * static_cast<int64_t>(lanes);
      T *const own = t.accumulator + i * lanes;
      T *const y_row = row(t.y, v);
      for (int l = 0; l < lanes; l += per_vector) {
        const Vector d = down(read(x_row + l), read(w_row + l), read(above + l));
        write(own + l, d);
        write(y_row + l, d);
      }
    }
  }

  static void forward_both(const Plan &plan, const ForwardTiles<T> &t) {
    sweep_up(plan, t.x, t.weights, t.accumulator, [](int64_t, T *own, int l, Vector u) { write(own + l, u); });
    const int64_t root = plan.order[0];
    for (int l = 0; l < lanes; l += per_vector) write(row(t.y, root) + l, read(t.accumulator + l));
    for (int64_t i = 1; i < plan.num_vertices; ++i) {
      const int64_t v = plan.order[i];
      const int64_t later = plan.order[i + ahead < plan.num_vertices ? i + ahead : 0];
      prefetch(row(t.weights, later));
      prefetch(row(t.y, later));
      const T *const w_row = row(t.weights, v);
      const T *const above = t.accumulator + plan.parent[i] * static_cast<int64_t>(lanes);
      T *const own = t.accumulator + i * lanes;
      T *const y_row = row(t.y, v);
      for (int l = 0; l < lanes; l += per_vector) {
        const Vector w = read(w_row + l);
        const Vector u = read(own + l);
        const Vector y = both(u, w, beyond(w, u, read(above + l)));
        write(own + l, y);
        write(y_row + l, y);
      }
    }
  }

  static void zero_root_gradient(const Plan &plan, const Tile<T> &grad_weights) {
    const Vector zero = {};
    for (int l = 0; l < lanes; l += per_vector) write(row(grad_weights, plan.order[0]) + l, zero);
  }

  static void keep(int64_t, T *own, int l, Vector value) { write(own + l, value); }

  static void backward_up(const Plan &plan, const BackwardTiles<T> &t) {
    sweep_up(plan, t.x, t.weights, t.accumulator, keep);
    const int64_t root = plan.order[0];
    for (int l = 0; l < lanes; l += per_vector) {
      const Vector d = read(row(t.grad_y, root) + l);
      write(t.grad_accumulator + l, d);
      write(row(t.grad_x, root) + l, d);
    }
    zero_root_gradient(plan, t.grad_weights);
    for (int64_t i = 1; i < plan.num_vertices; ++i) {
      const int64_t v = plan.order[i];
      const int64_t later = plan.order[i + ahead < plan.num_vertices ? i + ahead : 0];
      prefetch(row(t.grad_y, later));
      prefetch(row(t.weights, later));
      const int64_t above = plan.parent[i] * static_cast<int64_t>(lanes);
      for (int l = 0; l < lanes; l += per_vector) {
        const Vector parent_d = read(t.grad_accumulator + above + l);
        const Vector d = down(read(row(t.grad_y, v) + l), read(row(t.weights, v) + l), parent_d);
        write(t.grad_accumulator + i * lanes + l, d);
        write(row(t.grad_x, v) + l, d);
        write(row(t.grad_weights, v) + l, weight_gradient(read(t.accumulator + i * lanes + l), parent_d));
      }
    }
  }

  static void backward_down(const Plan &plan, const BackwardTiles<T> &t) {
    sweep_up(plan, t.grad_y, t.weights, t.grad_accumulator, keep);
    const int64_t root = plan.order[0];
    for (int l = 0; l < lanes; l += per_vector) {
      write(t.accumulator + l, read(row(t.x, root) + l));
      write(row(t.grad_x, root) + l, read(t.grad_accumulator + l));
    }
    zero_root_gradient(plan, t.grad_weights);
    for (int64_t i = 1; i < plan.num_vertices; ++i) {
      const int64_t v = plan.order[i];
      const int64_t later = plan.order[i + ahead < plan.num_vertices ? i + ahead : 0];
      prefetch(row(t.x, later));
      prefetch(row(t.weights, later));
      const int64_t above = plan.parent[i] * static_cast<int64_t>(lanes);
      for (int l = 0; l < lanes; l += per_vector) {
        const Vector parent_d = read(t.accumulator + above + l);
        const Vector u = read(t.grad_accumulator + i * lanes + l);
        write(t.accumulator + i * lanes + l, down(read(row(t.x, v) + l), read(row(t.weights, v) + l), parent_d));
        write(row(t.grad_x, v) + l, u);
        write(row(t.grad_weights, v) + l, weight_gradient(parent_d, u));
      }
    }
  }

  // u and U are swept up side by side; on the way down y, which the weight's gradient needs, is computed anew in u's
  // place instead of being kept from the forward pass: it costs no memory traffic.
  static void backward_both(const Plan &plan, const BackwardTiles<T> &t) {
    clear(t.accumulator, plan.num_vertices);
    clear(t.grad_accumulator, plan.num_vertices);
    for (int64_t i = plan.num_vertices - 1; i >= 0; --i) {
      const int64_t v = plan.order[i];
      const int64_t later = plan.order[i > ahead ? i - ahead : 0];
      prefetch(row(t.x, later));
      prefetch(row(t.grad_y, later));
      prefetch(row(t.weights, later));
      T *const own = t.accumulator + i * lanes;
      T *const grad_own = t.grad_accumulator + i * lanes;
      const int64_t above = plan.parent[i] * static_cast<int64_t>(lanes);
      for (int l = 0; l < lanes; l += per_vector) {
        const Vector u = up(read(row(t.x, v) + l), read(own + l));
        const Vector grad_u = up(read(row(t.grad_y, v) + l), read(grad_own + l));
        if (i > 0) {
          const Vector w = read(row(t.weights, v) + l);
          T *const above_u = t.accumulator + above + l;
          T *const above_grad = t.grad_accumulator + above + l;
          write(above_u, read(above_u) + to_parent(w, u));
          write(above_grad, read(above_grad) + to_parent(w, grad_u));
        }
        write(own + l, u);
        write(grad_own + l, grad_u);
      }
    }
    for (int l = 0; l < lanes; l += per_vector)
      write(row(t.grad_x, plan.order[0]) + l, read(t.grad_accumulator + l));
    zero_root_gradient(plan, t.grad_weights);
    for (int64_t i = 1; i < plan.num_vertices; ++i) {
      const int64_t v = plan.order[i];
      const int64_t later = plan.order[i + ahead < plan.num_vertices ? i + ahead : 0];
      prefetch(row(t.weights, later));
      prefetch(row(t.grad_x, later));
      prefetch(row(t.grad_weights, later));
      T *const own = t.accumulator + i * lanes;
      T *const grad_own = t.grad_accumulator + i * lanes;
      const int64_t above = plan.parent[i] * static_cast<int64_t>(lanes);
      for (int l = 0; l < lanes; l += per_vector) {
        const Vector w = read(row(t.weights, v) + l);
        const Vector u = read(own + l);
        const Vector grad_u = read(grad_own + l);
        const Vector beyond_y = beyond(w, u, read(t.accumulator + above + l));
        const Vector grad_beyond = beyond(w, grad_u, read(t.grad_accumulator + above + l));
        const Vector grad = both(grad_u, w, grad_beyond);
        write(own + l, both(u, w, beyond_y));
        write(grad_own + l, grad);
        write(row(t.grad_x, v) + l, grad);
        write(row(t.grad_weights, v) + l, weight_gradient_both(u, beyond_y, grad_u, grad_beyond));
      }
    }
  }
};

template <class T>
constexpr ScanKernels<T> scan_kernels() {
  using Narrow = Kernels<T, 16, 1>;
  using Line = Kernels<T, 64, 1>;
  using Wide = Kernels<T, 64, 2>;
  return {{{Narrow::forward_up, Line::forward_up, Wide::forward_up},
           {Narrow::forward_down, Line::forward_down, Wide::forward_down},
           {Narrow::forward_both, Line::forward_both, Wide::forward_both}},
          {{Narrow::backward_up, Line::backward_up, Wide::backward_up},
           {Narrow::backward_down, Line::backward_down, Wide::backward_down},
           {Narrow::backward_both, Line::backward_both, Wide::backward_both}}};
}

// How each dtype is read into a tile and written from it.
struct Float32 {
  using Stored = float;
  using Computed = float;
  static float load(float value) { return value; }
  static float store(float value) { return value; }
};
struct Float64 {
  using Stored = double;
  using Computed = double;
  static double load(double value) { return value; }
  static double store(double value) { return value; }
};
struct Float16 {
  using Stored = uint16_t;
  using Computed = float;
  static float load(uint16_t value) { return half_to_float(value); }
  static uint16_t store(float value) { return float_to_half(value); }
};
struct BFloat16 {
  using Stored = uint16_t;
  using Computed = float;
  static float load(uint16_t value) { return bfloat16_to_float(value); }
  static uint16_t store(float value) { return float_to_bfloat16(value); }
};

// Visits the caller's memory so that it is read along its fastest dimension: whole rows of channels where those lie
// together, else blocks of vertices small enough for the tile's side to stay in the first cache.
template <class Copy>
void for_each_block(const Layout &layout, int64_t num_vertices, Copy copy) {
  constexpr int64_t block = 16;
  const int64_t columns = layout.columns;
  for (int64_t first = 0; first < num_vertices; first += columns) {
    const int64_t start = first / columns * layout.row_stride;
    for (int64_t c = 0; c < columns; c += block)
      copy(first + c, c + block < columns ? block : columns - c, start + c * layout.column_stride);
  }
}

template <class Type>
void load(const void *source, const Layout &layout, int64_t num_vertices, int64_t channels, int64_t lanes, void *tile) {
  using Computed = typename Type::Computed;
  const auto *const from = static_cast<const typename Type::Stored *>(source);
  auto *const to = static_cast<Computed *>(tile);
  for_each_block(layout, num_vertices, [&](int64_t v, int64_t count, int64_t offset) {
    Computed *const rows = to + v * lanes;
    if (layout.channel_stride == 1) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t l = 0; l < channels; ++l)
          rows[i * lanes + l] = Type::load(from[offset + i * layout.column_stride + l]);
    } else {
      for (int64_t l = 0; l < channels; ++l) {
        const auto *const channel = from + offset + l * layout.channel_stride;
        for (int64_t i = 0; i < count; ++i) rows[i * lanes + l] = Type::load(channel[i * layout.column_stride]);
      }
    }
    for (int64_t i = 0; i < count; ++i)
      for (int64_t l = channels; l < lanes; ++l) rows[i * lanes + l] = 0;
  });
}

template <class Type>
void store(const void *tile, int64_t lanes, int64_t num_vertices, int64_t channels, const Layout &layout,
           void *target) {
  using Computed = typename Type::Computed;
  const auto *const from = static_cast<const Computed *>(tile);
  auto *const to = static_cast<typename Type::Stored *>(target);
  for_each_block(layout, num_vertices, [&](int64_t v, int64_t count, int64_t offset) {
    const Computed *const rows = from + v * lanes;
    if (layout.channel_stride == 1) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t l = 0; l < channels; ++l)
          to[offset + i * layout.column_stride + l] = Type::store(rows[i * lanes + l]);
    } else {
      for (int64_t l = 0; l < channels; ++l) {
        auto *const channel = to + offset + l * layout.channel_stride;
        for (int64_t i = 0; i < count; ++i) channel[i * layout.column_stride] = Type::store(rows[i * lanes + l]);
      }
    }
  });
}

void load_any(int32_t dtype, const void *source, const Layout &layout, int64_t num_vertices, int64_t channels,
              int64_t lanes, void *tile) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return load<Float32>(source, layout, num_vertices, channels, lanes, tile);
    case TREESCAN_FLOAT64: return load<Float64>(source, layout, num_vertices, channels, lanes, tile);
    case TREESCAN_FLOAT16: return load<Float16>(source, layout, num_vertices, channels, lanes, tile);
    default: return load<BFloat16>(source, layout, num_vertices, channels, lanes, tile);
  }
}

void store_any(int32_t dtype, const void *tile, int64_t lanes, int64_t num_vertices, int64_t channels,
               const Layout &layout, void *target) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return store<Float32>(tile, lanes, num_vertices, channels, layout, target);
    case TREESCAN_FLOAT64: return store<Float64>(tile, lanes, num_vertices, channels, layout, target);
    case TREESCAN_FLOAT16: return store<Float16>(tile, lanes, num_vertices, channels, layout, target);
    default: return store<BFloat16>(tile, lanes, num_vertices, channels, layout, target);
  }
}

constexpr KernelTable kernels = {scan_kernels<float>(), scan_kernels<double>(), {load_any, store_any}};

}  // namespace

const KernelTable &table() { return kernels; }

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
