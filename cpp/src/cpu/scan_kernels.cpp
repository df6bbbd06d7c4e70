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

  TREESCAN_FORMULA char *row(const Tile &tile, int64_t v) { return tile.data + v * tile.stride; }

  // Where the sum of the vertex at position i waits: as computed, which is also how it's stored if it isn't a half type.
  TREESCAN_FORMULA char *waiting(const Tile &result, const Tile &sums, int64_t v, int64_t i) {
    return stored_bytes == Bytes ? row(result, v) : row(sums, i);
  }

  // (Not a function object: compilers take one that only fetches for one that does nothing.)
  template <int Fetched>
  TREESCAN_FORMULA void fetch(const Plan &plan, const Tile *const (&tiles)[Fetched], int64_t v) {
    const int64_t bytes = Count > 0 ? Count * stored_bytes : plan.row_bytes / Bytes * stored_bytes;
    for (int f = 0; f < Fetched; ++f) {
      const char *const start = row(*tiles[f], v);
      for (int64_t line = 0; line < bytes; line += 64) prefetch(start + line);
    }
  }

  // finish(k, sums) gets, for each vector k of a row, what has begun, or 0, and what the child at a position adds to it, if any.
  template <int Sums, bool HasChild, bool HasBegun, class Sum, class Finish>
  TREESCAN_FORMULA void add_child(const Plan &plan, const Tile &weights, int64_t position,
                                  const char (&begun)[Sums][widest_row], Sum sum, Finish finish) {
    const int64_t child = HasChild ? vertex_of(plan.steps[position]) : 0;
    for_each_vector(plan, [&](int k) {
      Vector sums[Sums];
#pragma GCC unroll 2
      for (int s = 0; s < Sums; ++s) {
        sums[s] = HasBegun ? read(begun[s], k) : Vector{};
        if constexpr (HasChild) sums[s] = sums[s] + to_parent(load(row(weights, child), k), sum(s, child, position, k));
      }
      finish(k, sums);
    });
  }

  // Visits vertices from the last position to the first: visit(v, i, k, sums) gets, for each vector of the row and each of the
  // Sums, `value(s, v, k)` plus what the children add to it. It leaves them where `sum(s, v, i, k)` finds them when it is the
  // parent's turn. Children lie side by side, those of one vertex before those of the next.
  template <int Sums, int Fetched, class Value, class Sum, class Visit>
  TREESCAN_FORMULA void sweep_up(const Plan &plan, const Tile &weights, const Tile *const (&fetched)[Fetched], Value value,
                                 Sum sum, Visit visit) {
    const Step *const steps = plan.steps;
    const int64_t fetched_ahead = ahead(plan);
    alignas(64) char begun[Sums][widest_row];
    int64_t added = plan.num_planted;  // the children from here on
    for (int64_t i = plan.num_planted - 1; i >= 0; --i) {
      if (plan.far) fetch(plan, fetched, vertex_of(steps[i > fetched_ahead ? i - fetched_ahead : 0]));
      const int64_t v = vertex_of(steps[i]);
      const auto begin = [&](int k, const Vector *sums) {
        for (int s = 0; s < Sums; ++s) write(begun[s], k, sums[s]);
      };
      const auto finish = [&](int k, Vector *sums) {
#pragma GCC unroll 2
        for (int s = 0; s < Sums; ++s) sums[s] = up(value(s, v, k), sums[s]);
        visit(v, i, k, sums);
      };
      if (!has_children(steps[i])) {
        add_child<Sums, false, false>(plan, weights, 0, begun, sum, finish);
      } else if (!has_next_sibling(steps[added - 2])) {
        add_child<Sums, true, false>(plan, weights, --added, begun, sum, finish);
      } else {
        add_child<Sums, true, false>(plan, weights, --added, begun, sum, begin);
        while (has_next_sibling(steps[added - 2])) add_child<Sums, true, true>(plan, weights, --added, begun, sum, begin);
        add_child<Sums, true, true>(plan, weights, --added, begun, sum, finish);
      }
    }
  }

  // What a vertex hands to its children: in a ring with a row for each vertex whose children haven't all had their turn, or
  // where it is stored anyway, unless a half type loses digits there.
  struct Handed {
    char *ring;
    const Tile *stored;  // NULL if it isn't
    TREESCAN_MEMBER bool in_ring() const { return !stored || stored_bytes < Bytes; }
  };

  // Visits vertices from the first position to the last: `start(root, i, k, states)` sets what a root hands to its children,
  // visit(v, i, k, w, states) turns the parent's states into the vertex's own. Both store those that are to be found
  // `stored`.
  template <int States, int Fetched, class Start, class Visit>
  TREESCAN_FORMULA void sweep_down(const Plan &plan, const Tile &weights, const Handed (&handed)[States],
                                   const Tile *const (&fetched)[Fetched], Start start, Visit visit) {
    const int64_t ring_bytes = plan.ring * plan.row_bytes, fetched_ahead = ahead(plan);
    int64_t own = 0, above = 0;  // rows of the ring
    const auto next_if = [&](bool is_done, int64_t slot) {
      const int64_t next = slot + (is_done ? plan.row_bytes : 0);
      return next == ring_bytes ? 0 : next;
    };
    const auto hand_on = [&](int k, const Vector *states) {
#pragma GCC unroll 2
      for (int s = 0; s < States; ++s)
        if (handed[s].in_ring()) write(handed[s].ring + own, k, states[s]);
    };
    for (int64_t i = 0; i < plan.num_roots; ++i) {
      const int64_t root = vertex_of(plan.steps[i]);
      for_each_vector(plan, [&](int k) {
        Vector states[States];
        start(root, i, k, states);
        hand_on(k, states);
      });
      own = next_if(has_children(plan.steps[i]), own);
    }
    for (int64_t i = plan.num_roots; i < plan.num_planted; ++i) {
      if (plan.far)
        fetch(plan, fetched, vertex_of(plan.steps[i + fetched_ahead < plan.num_planted ? i + fetched_ahead : 0]));
      const Step step = plan.steps[i];
      const int64_t v = vertex_of(step), parent = parent_of(step);
      const char *const w_row = row(weights, v);
      for_each_vector(plan, [&](int k) {
        Vector states[States];
#pragma GCC unroll 2
        for (int s = 0; s < States; ++s)
          states[s] = handed[s].in_ring() ? read(handed[s].ring + above, k) : load(row(*handed[s].stored, parent), k);
        visit(v, i, k, load(w_row, k), states);
        hand_on(k, states);
      });
      own = next_if(has_children(step), own);
      above = next_if(!has_next_sibling(step), above);
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
        plan, t.weights, {&t.x, &t.weights, &t.y}, [&](int, int64_t v, int k) { return load(row(t.x, v), k); },
        [&](int, int64_t v, int64_t i, int k) { return read(waiting(t.y, t.sums, v, i), k); },
        [&](int64_t v, int64_t i, int k, const Vector *u) {
          write(waiting(t.y, t.sums, v, i), k, *u);
          if constexpr (stored_bytes < Bytes) store(row(t.y, v), k, *u);
        });
    clear(plan, {&t.y});
  }

  static void forward_down(const Plan plan, const ForwardTiles t) {
    sweep_down<1>(
        plan, t.weights, {{t.ring, &t.y}}, {&t.x, &t.weights, &t.y},
        [&](int64_t root, int64_t, int k, Vector *d) {
          *d = load(row(t.x, root), k);
          store(row(t.y, root), k, *d);
        },
        [&](int64_t v, int64_t, int k, Vector w, Vector *d) {
          *d = down(load(row(t.x, v), k), w, *d);
          store(row(t.y, v), k, *d);
        });
    clear(plan, {&t.y});
  }

  static void forward_both(const Plan plan, const ForwardTiles t) {
    sweep_up<1>(
        plan, t.weights, {&t.x, &t.weights, &t.y}, [&](int, int64_t v, int k) { return load(row(t.x, v), k); },
        [&](int, int64_t v, int64_t i, int k) { return read(waiting(t.y, t.sums, v, i), k); },
        [&](int64_t v, int64_t i, int k, const Vector *u) { write(waiting(t.y, t.sums, v, i), k, *u); });
    sweep_down<1>(
        plan, t.weights, {{t.ring, &t.y}}, {&t.weights, &t.y},
        [&](int64_t root, int64_t i, int k, Vector *y) {
          *y = read(waiting(t.y, t.sums, root, i), k);
          store(row(t.y, root), k, *y);
        },
        [&](int64_t v, int64_t i, int k, Vector w, Vector *y) {
          const Vector u = read(waiting(t.y, t.sums, v, i), k);
          *y = both(u, w, beyond(w, u, *y));
          store(row(t.y, v), k, *y);
        });
    clear(plan, {&t.y});
  }

  static void backward_up(const Plan plan, const BackwardTiles t) {
    sweep_up<1>(
        plan, t.weights, {&t.x, &t.weights, &t.grad_weights},
        [&](int, int64_t v, int k) { return load(row(t.x, v), k); },
        [&](int, int64_t v, int64_t i, int k) { return read(waiting(t.grad_weights, t.sums, v, i), k); },
        [&](int64_t v, int64_t i, int k, const Vector *u) { write(waiting(t.grad_weights, t.sums, v, i), k, *u); });
    sweep_down<1>(
        plan, t.weights, {{t.ring, &t.grad_x}}, {&t.grad_y, &t.weights, &t.grad_x, &t.grad_weights},
        [&](int64_t root, int64_t, int k, Vector *d) {
          *d = load(row(t.grad_y, root), k);
          store(row(t.grad_x, root), k, *d);
          store(row(t.grad_weights, root), k, Vector{});
        },
        [&](int64_t v, int64_t i, int k, Vector w, Vector *d) {
          const Vector u = read(waiting(t.grad_weights, t.sums, v, i), k);
          store(row(t.grad_weights, v), k, weight_gradient(u, *d));
          *d = down(load(row(t.grad_y, v), k), w, *d);
          store(row(t.grad_x, v), k, *d);
        });
    clear(plan, {&t.grad_x, &t.grad_weights});
  }

  static void backward_down(const Plan plan, const BackwardTiles t) {
    sweep_up<1>(
        plan, t.weights, {&t.grad_y, &t.weights, &t.grad_x},
        [&](int, int64_t v, int k) { return load(row(t.grad_y, v), k); },
        [&](int, int64_t v, int64_t i, int k) { return read(waiting(t.grad_x, t.grad_sums, v, i), k); },
        [&](int64_t v, int64_t i, int k, const Vector *u) { write(waiting(t.grad_x, t.grad_sums, v, i), k, *u); });
    sweep_down<1>(
        plan, t.weights, {{t.ring, nullptr}}, {&t.x, &t.weights, &t.grad_x, &t.grad_weights},
        [&](int64_t root, int64_t i, int k, Vector *d) {
          *d = load(row(t.x, root), k);
          store(row(t.grad_x, root), k, read(waiting(t.grad_x, t.grad_sums, root, i), k));
          store(row(t.grad_weights, root), k, Vector{});
        },
        [&](int64_t v, int64_t i, int k, Vector w, Vector *d) {
          const Vector parent_d = *d;
          *d = down(load(row(t.x, v), k), w, parent_d);
          const Vector u = read(waiting(t.grad_x, t.grad_sums, v, i), k);
          store(row(t.grad_x, v), k, u);
          store(row(t.grad_weights, v), k, weight_gradient(parent_d, u));
        });
    clear(plan, {&t.grad_x, &t.grad_weights});
  }

  // u and U are swept up side by side; on the way down y, which the weight's gradient needs, is computed anew instead of
  // being kept from the forward pass: it costs no memory traffic.
  static void backward_both(const Plan plan, const BackwardTiles t) {
    sweep_up<2>(
        plan, t.weights, {&t.x, &t.grad_y, &t.weights, &t.grad_weights, &t.grad_x},
        [&](int s, int64_t v, int k) { return load(row(s == 0 ? t.x : t.grad_y, v), k); },
        [&](int s, int64_t v, int64_t i, int k) {
          return s == 0 ? read(waiting(t.grad_weights, t.sums, v, i), k) : read(waiting(t.grad_x, t.grad_sums, v, i), k);
        },
        [&](int64_t v, int64_t i, int k, const Vector *sums) {
          write(waiting(t.grad_weights, t.sums, v, i), k, sums[0]);
          write(waiting(t.grad_x, t.grad_sums, v, i), k, sums[1]);
        });
    sweep_down<2>(
        plan, t.weights, {{t.ring, nullptr}, {t.grad_ring, &t.grad_x}},
        {&t.weights, &t.grad_weights, &t.grad_x},
        [&](int64_t root, int64_t i, int k, Vector *passes) {
          passes[0] = read(waiting(t.grad_weights, t.sums, root, i), k);
          passes[1] = read(waiting(t.grad_x, t.grad_sums, root, i), k);
          store(row(t.grad_x, root), k, passes[1]);
          store(row(t.grad_weights, root), k, Vector{});
        },
        [&](int64_t v, int64_t i, int k, Vector w, Vector *passes) {
          const Vector u = read(waiting(t.grad_weights, t.sums, v, i), k);
          const Vector grad_u = read(waiting(t.grad_x, t.grad_sums, v, i), k);
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
