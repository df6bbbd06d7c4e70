#include "cpu/scan_kernels.h"

#include "cpu/vectors.h"

namespace treescan {
namespace TREESCAN_KERNELS {
const ScanKernels &scan_kernels(int32_t dtype);

namespace {

// Rows of vectors, each of Bytes bytes of channels in the type that is computed in: Count of them, or if that is 0 as many
// as the plan says, in units of widest_unit bytes.
template <class Type, int Bytes, int Count>
struct Kernels {
  using Row = Lanes<Type, Bytes>;
  using Vector = typename Row::Vector;
  static constexpr int stored_bytes = Row::stored_bytes;
  static constexpr int unit = Count > 0 ? Count : static_cast<int>(widest_unit) / Bytes;  // vectors handled side by side

  // How many vertices ahead rows are fetched: enough to have many cache misses under way.
  TREESCAN_FORMULA int64_t ahead(const Plan &plan) {
    const int64_t vertices = 3072 / plan.row_bytes;
    return vertices < 4 ? 4 : vertices > 48 ? 48 : vertices;
  }

  // visit(k) for every vector of a row.
  template <class Visit>
  TREESCAN_FORMULA void for_each_vector(const Plan &plan, Visit visit) {
    if constexpr (Count > 0) {
#pragma GCC unroll 4
      for (int k = 0; k < Count; ++k) visit(k);
    } else {
      const int count = static_cast<int>(plan.row_bytes / Bytes);
      for (int first = 0; first < count; first += unit) {
#pragma GCC unroll 4
        for (int k = 0; k < unit; ++k) visit(first + k);
      }
    }
  }

  // Vector k of a row, as computed in.
  TREESCAN_FORMULA Vector read(const char *row, int k) { return Row::read(row + k * Bytes); }
  TREESCAN_FORMULA void write(char *row, int k, const Vector &value) { Row::write(row + k * Bytes, value); }

  // Vector k of a row, as stored.
  TREESCAN_FORMULA Vector load(const char *row, int k) { return Row::load(row + k * stored_bytes); }
  TREESCAN_FORMULA void store(char *row, int k, const Vector &value) { Row::store(row + k * stored_bytes, value); }

  // Vector k of a sum that waits for the way down.
  TREESCAN_FORMULA Vector take(const Tile &place, const Tile &rest, int64_t v, int k) {
    return Row::take(row(place, v) + k * stored_bytes, rest_of(rest, v, k));
  }
  TREESCAN_FORMULA void keep(const Tile &place, const Tile &rest, int64_t v, int k, const Vector &sum) {
    Row::keep(row(place, v) + k * stored_bytes, rest_of(rest, v, k), sum);
  }
  // Half types alone have rests.
  TREESCAN_FORMULA char *rest_of(const Tile &rest, int64_t v, int k) {
    if constexpr (stored_bytes == Bytes) {
      return nullptr;
    } else {
      return row(rest, v) + k * stored_bytes;
    }
  }

  TREESCAN_FORMULA char *row(const Tile &tile, int64_t v) { return tile.data + v * tile.stride; }

  // (Not a function object: compilers take one that only fetches for one that does nothing.)
  template <int Fetched>
  TREESCAN_FORMULA void fetch(const Plan &plan, const Tile *const (&tiles)[Fetched], int64_t v) {
    const int64_t bytes = plan.row_bytes / Bytes * stored_bytes;
    for (int f = 0; f < Fetched; ++f) {
      if (!tiles[f]->data) continue;
      const char *const start = row(*tiles[f], v);
      for (int64_t line = 0; line < bytes; line += 64) prefetch(start + line);
    }
  }

  // Where the sweeps stand: a vertex, and the ring's slots of itself and of its parent.
  struct Place {
    int64_t vertex, own, above;
    int64_t has_children, has_next_sibling;  // all ones or zeros
  };
  TREESCAN_FORMULA Place place(const Plan &plan, int64_t i, int64_t own) {
    const Step step = plan.steps[i];
    const int64_t last = step.vertex >> 31, childless = step.parent >> 31;
    const int64_t above = own - (i - (step.parent ^ childless)) * plan.row_bytes;
    return {step.vertex ^ last, own, above < 0 ? above + plan.ring * plan.row_bytes : above, ~childless, ~last};
  }
  TREESCAN_FORMULA int64_t slot(const Plan &plan, int64_t i) { return i % plan.ring * plan.row_bytes; }
  TREESCAN_FORMULA int64_t slot_before(const Plan &plan, int64_t own) {
    return (own == 0 ? plan.ring * plan.row_bytes : own) - plan.row_bytes;
  }
  TREESCAN_FORMULA int64_t slot_behind(const Plan &plan, int64_t own) {
    const int64_t next = own + plan.row_bytes;
    return next == plan.ring * plan.row_bytes ? 0 : next;
  }

  // Visits vertices from the last position to the first: `fetch(v)` some steps ahead, then for each vector of the row
  // visit(v, k, states), which gets one state for each of the Sums: `value(s, v, k)` plus what the children sent. Each
  // state then goes to the parent's slot of ring s, times the weight.
  template <int Sums, int Fetched, class Value, class Visit>
  TREESCAN_FORMULA void sweep_up(const Plan &plan, const Tile &weights, char *const (&rings)[Sums],
                                 const Tile *const (&fetched)[Fetched], Value value, Visit visit) {
    const int64_t fetched_ahead = ahead(plan);
    int64_t own = slot(plan, plan.num_planted + plan.ring - 1);
    for (int64_t i = plan.num_planted - 1; i >= plan.num_roots; --i, own = slot_before(plan, own)) {
      if (plan.far) fetch(plan, fetched, vertex_of(plan.steps[i > fetched_ahead ? i - fetched_ahead : 0]));
      const Place at = place(plan, i, own);
      const char *const w_row = row(weights, at.vertex);
      for_each_vector(plan, [&](int k) {
        const Vector w = load(w_row, k);
        Vector states[Sums];
#pragma GCC unroll 2
        for (int s = 0; s < Sums; ++s) {
          const Vector children = Row::only_if(at.has_children, read(rings[s] + at.own, k));
          states[s] = up(value(s, at.vertex, k), children);
          const Vector siblings = Row::only_if(at.has_next_sibling, read(rings[s] + at.above, k));
          write(rings[s] + at.above, k, siblings + to_parent(w, states[s]));
        }
        visit(at.vertex, k, states);
      });
    }
    for (int64_t i = plan.num_roots - 1; i >= 0; --i, own = slot_before(plan, own)) {
      const Place root = place(plan, i, own);
      for_each_vector(plan, [&](int k) {
        Vector states[Sums];
        for (int s = 0; s < Sums; ++s)
          states[s] = up(value(s, root.vertex, k), Row::only_if(root.has_children, read(rings[s] + root.own, k)));
        visit(root.vertex, k, states);
      });
    }
  }

  // Visits vertices from the first position to the last: `start(root, k, states)` sets what a root hands to its children,
  // visit(v, k, w, states) turns the parent's states into the vertex's own.
  template <int States, int Fetched, class Start, class Visit>
  TREESCAN_FORMULA void sweep_down(const Plan &plan, const Tile &weights, char *const (&rings)[States],
                                   const Tile *const (&fetched)[Fetched], Start start, Visit visit) {
    int64_t own = 0;
    for (int64_t i = 0; i < plan.num_roots; ++i, own = slot_behind(plan, own)) {
      const int64_t root = vertex_of(plan.steps[i]);
      for_each_vector(plan, [&](int k) {
        Vector states[States];
        start(root, k, states);
        for (int s = 0; s < States; ++s) write(rings[s] + own, k, states[s]);
      });
    }
    const int64_t fetched_ahead = ahead(plan);
    for (int64_t i = plan.num_roots; i < plan.num_planted; ++i, own = slot_behind(plan, own)) {
      if (plan.far)
        fetch(plan, fetched, vertex_of(plan.steps[i + fetched_ahead < plan.num_planted ? i + fetched_ahead : 0]));
      const Place at = place(plan, i, own);
      const char *const w_row = row(weights, at.vertex);
      for_each_vector(plan, [&](int k) {
        Vector states[States];
        for (int s = 0; s < States; ++s) states[s] = read(rings[s] + at.above, k);
        visit(at.vertex, k, load(w_row, k), states);
        for (int s = 0; s < States; ++s) write(rings[s] + at.own, k, states[s]);
      });
    }
  }

  // The same with one state that is stored: `start(root, k)` and visit(v, k, w, parent's state) return it. Where storing it
  // loses nothing, children read it from there, and no ring is needed.
  template <int Fetched, class Start, class Visit>
  TREESCAN_FORMULA void sweep_down_storing(const Plan &plan, const Tile &weights, const Tile &stored, char *const ring,
                                           const Tile *const (&fetched)[Fetched], Start start, Visit visit) {
    if constexpr (stored_bytes == Bytes) {
      for (int64_t i = 0; i < plan.num_roots; ++i) {
        const int64_t root = vertex_of(plan.steps[i]);
        for_each_vector(plan, [&](int k) { store(row(stored, root), k, start(root, k)); });
      }
      const int64_t fetched_ahead = ahead(plan);
      for (int64_t i = plan.num_roots; i < plan.num_planted; ++i) {
        if (plan.far)
          fetch(plan, fetched, vertex_of(plan.steps[i + fetched_ahead < plan.num_planted ? i + fetched_ahead : 0]));
        const int64_t v = vertex_of(plan.steps[i]);
        const char *const w_row = row(weights, v);
        const char *const parent_row = row(stored, vertex_of(plan.steps[parent_of(plan.steps[i])]));
        for_each_vector(plan, [&](int k) {
          store(row(stored, v), k, visit(v, k, load(w_row, k), load(parent_row, k)));
        });
      }
    } else {
      sweep_down<1>(
          plan, weights, {ring}, fetched,
          [&](int64_t root, int k, Vector *state) {
            *state = start(root, k);
            store(row(stored, root), k, *state);
          },
          [&](int64_t v, int k, Vector w, Vector *state) {
            *state = visit(v, k, w, *state);
            store(row(stored, v), k, *state);
          });
    }
  }

  // Zeros for the vertices that are in no tree.
  template <int Cleared>
  TREESCAN_FORMULA void clear(const Plan &plan, const Tile *const (&tiles)[Cleared]) {
    for (int64_t i = plan.num_planted; i < plan.num_vertices; ++i)
      for (int c = 0; c < Cleared; ++c)
        for_each_vector(plan, [&](int k) { store(row(*tiles[c], vertex_of(plan.steps[i])), k, Vector{}); });
  }

  static void forward_up(const Plan plan, const ForwardTiles t) {
    sweep_up<1>(
        plan, t.weights, {t.ring}, {&t.x, &t.weights, &t.y},
        [&](int, int64_t v, int k) { return load(row(t.x, v), k); },
        [&](int64_t v, int k, const Vector *u) { store(row(t.y, v), k, *u); });
    clear(plan, {&t.y});
  }

  static void forward_down(const Plan plan, const ForwardTiles t) {
    sweep_down_storing(
        plan, t.weights, t.y, t.ring, {&t.x, &t.weights, &t.y},
        [&](int64_t root, int k) { return load(row(t.x, root), k); },
        [&](int64_t v, int k, Vector w, Vector parent_d) { return down(load(row(t.x, v), k), w, parent_d); });
    clear(plan, {&t.y});
  }

  static void forward_both(const Plan plan, const ForwardTiles t) {
    sweep_up<1>(
        plan, t.weights, {t.ring}, {&t.x, &t.weights, &t.y, &t.rest},
        [&](int, int64_t v, int k) { return load(row(t.x, v), k); },
        [&](int64_t v, int k, const Vector *u) { keep(t.y, t.rest, v, k, *u); });
    sweep_down_storing(
        plan, t.weights, t.y, t.ring, {&t.weights, &t.y, &t.rest},
        [&](int64_t root, int k) { return take(t.y, t.rest, root, k); },
        [&](int64_t v, int k, Vector w, Vector parent_y) {
          const Vector u = take(t.y, t.rest, v, k);
          return both(u, w, beyond(w, u, parent_y));
        });
    clear(plan, {&t.y});
  }

  static void backward_up(const Plan plan, const BackwardTiles t) {
    sweep_up<1>(
        plan, t.weights, {t.ring}, {&t.x, &t.weights, &t.grad_weights, &t.rest},
        [&](int, int64_t v, int k) { return load(row(t.x, v), k); },
        [&](int64_t v, int k, const Vector *u) { keep(t.grad_weights, t.rest, v, k, *u); });
    sweep_down_storing(
        plan, t.weights, t.grad_x, t.ring, {&t.grad_y, &t.weights, &t.grad_x, &t.grad_weights, &t.rest},
        [&](int64_t root, int k) {
          store(row(t.grad_weights, root), k, Vector{});
          return load(row(t.grad_y, root), k);
        },
        [&](int64_t v, int k, Vector w, Vector parent_d) {
          const Vector u = take(t.grad_weights, t.rest, v, k);
          store(row(t.grad_weights, v), k, weight_gradient(u, parent_d));
          return down(load(row(t.grad_y, v), k), w, parent_d);
        });
    clear(plan, {&t.grad_x, &t.grad_weights});
  }

  static void backward_down(const Plan plan, const BackwardTiles t) {
    sweep_up<1>(
        plan, t.weights, {t.ring}, {&t.grad_y, &t.weights, &t.grad_x, &t.grad_rest},
        [&](int, int64_t v, int k) { return load(row(t.grad_y, v), k); },
        [&](int64_t v, int k, const Vector *u) { keep(t.grad_x, t.grad_rest, v, k, *u); });
    sweep_down<1>(
        plan, t.weights, {t.ring}, {&t.x, &t.weights, &t.grad_x, &t.grad_weights, &t.grad_rest},
        [&](int64_t root, int k, Vector *d) {
          *d = load(row(t.x, root), k);
          store(row(t.grad_x, root), k, take(t.grad_x, t.grad_rest, root, k));
          store(row(t.grad_weights, root), k, Vector{});
        },
        [&](int64_t v, int k, Vector w, Vector *d) {
          const Vector parent_d = *d;
          *d = down(load(row(t.x, v), k), w, parent_d);
          const Vector u = take(t.grad_x, t.grad_rest, v, k);
          store(row(t.grad_x, v), k, u);
          store(row(t.grad_weights, v), k, weight_gradient(parent_d, u));
        });
    clear(plan, {&t.grad_x, &t.grad_weights});
  }

  // u and U are swept up side by side; on the way down y, which the weight's gradient needs, is computed anew instead of
  // being kept from the forward pass: it costs no memory traffic.
  static void backward_both(const Plan plan, const BackwardTiles t) {
    sweep_up<2>(
        plan, t.weights, {t.ring, t.grad_ring},
        {&t.x, &t.grad_y, &t.weights, &t.grad_weights, &t.grad_x, &t.rest, &t.grad_rest},
        [&](int s, int64_t v, int k) { return load(row(s == 0 ? t.x : t.grad_y, v), k); },
        [&](int64_t v, int k, const Vector *sums) {
          keep(t.grad_weights, t.rest, v, k, sums[0]);
          keep(t.grad_x, t.grad_rest, v, k, sums[1]);
        });
    sweep_down<2>(
        plan, t.weights, {t.ring, t.grad_ring}, {&t.weights, &t.grad_weights, &t.grad_x, &t.rest, &t.grad_rest},
        [&](int64_t root, int k, Vector *passes) {
          passes[0] = take(t.grad_weights, t.rest, root, k);
          passes[1] = take(t.grad_x, t.grad_rest, root, k);
          store(row(t.grad_x, root), k, passes[1]);
          store(row(t.grad_weights, root), k, Vector{});
        },
        [&](int64_t v, int k, Vector w, Vector *passes) {
          const Vector u = take(t.grad_weights, t.rest, v, k);
          const Vector grad_u = take(t.grad_x, t.grad_rest, v, k);
          const Vector beyond_y = beyond(w, u, passes[0]);
          const Vector grad_beyond = beyond(w, grad_u, passes[1]);
          passes[0] = both(u, w, beyond_y);
          passes[1] = both(grad_u, w, grad_beyond);
          store(row(t.grad_x, v), k, passes[1]);
          store(row(t.grad_weights, v), k, weight_gradient_both(u, beyond_y, grad_u, grad_beyond));
        });
    clear(plan, {&t.grad_x, &t.grad_weights});
  }
};

// In vectors of a register each; half types come in pairs of those.
template <class Type>
struct KernelsOf {
  static constexpr int widest_vector = is_half<Type> && register_bytes < widest_unit ? 2 * register_bytes : register_bytes;
  template <int RowBytes>
  using Row = Kernels<Type, (RowBytes < widest_vector ? RowBytes : widest_vector),
                      (RowBytes < widest_vector ? 1 : RowBytes / widest_vector)>;
  using Rows = Kernels<Type, widest_vector, 0>;
#define TREESCAN_WIDTHS(kernel) {Row<16>::kernel, Row<32>::kernel, Row<widest_unit>::kernel, Rows::kernel}
  static constexpr ScanKernels table = {
      {TREESCAN_WIDTHS(forward_up), TREESCAN_WIDTHS(forward_down), TREESCAN_WIDTHS(forward_both)},
      {TREESCAN_WIDTHS(backward_up), TREESCAN_WIDTHS(backward_down), TREESCAN_WIDTHS(backward_both)}};
#undef TREESCAN_WIDTHS
};

}  // namespace

const ScanKernels &scan_kernels(int32_t dtype) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return KernelsOf<Float32>::table;
    case TREESCAN_FLOAT64: return KernelsOf<Float64>::table;
    case TREESCAN_FLOAT16: return KernelsOf<Float16>::table;
    default: return KernelsOf<BFloat16>::table;
  }
}

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
