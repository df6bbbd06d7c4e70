#include "cpu/selective_kernels.h"

#include "cpu/vector_math.h"

// As in scan_kernels.cpp: internal linkage throughout, and nothing inline from the standard library.

namespace treescan {
namespace TREESCAN_KERNELS {
const SelectiveKernels &selective_kernels(int32_t computed_dtype);

namespace {

enum Direction { up_ = 1, down_ = 2, both_ = 3 };

template <class T>
struct Kernels {
  using M = Math<T>;
  using Vector = typename M::Vector;
  static constexpr int64_t row_bytes = selective_row_bytes;
  static constexpr int lanes = row_bytes / sizeof(T);
  static constexpr int count = row_bytes / sizeof(Vector);  // vectors in a row

  // Vector k of a row.
  TREESCAN_FORMULA Vector load(const char *rows, int64_t row, int k) {
    return read_bytes<Vector>(rows + row * row_bytes + k * static_cast<int>(sizeof(Vector)));
  }
  TREESCAN_FORMULA void store(char *rows, int64_t row, int k, Vector value) {
    write_bytes(rows + row * row_bytes + k * static_cast<int>(sizeof(Vector)), value);
  }
  TREESCAN_FORMULA void add(char *rows, int64_t row, int k, Vector value) {
    store(rows, row, k, load(rows, row, k) + value);
  }

  TREESCAN_FORMULA Vector factor(const SelectiveFactor &f, int64_t num_states, int64_t v, int64_t n, int k) {
    if (f.by_vertex) return M::all(reinterpret_cast<const T *>(f.values)[v * num_states + n]);
    return load(f.values, n, k);
  }

  // A position of the forest, and the ring's slots of its vertex and of its parent.
  struct Place {
    int64_t i, vertex, own, above;
    bool is_root, has_children, has_next_sibling;
  };
  // The slots are counted by the sweeps. (Here the ring's size is a power of two.)
  TREESCAN_FORMULA Place place(const Plan &plan, int64_t block, int64_t i, int64_t slot, int64_t parent_slot) {
    const Step step = plan.steps[i];
    const int64_t mask = plan.ring - 1;
    return {i, vertex_of(step), (slot & mask) * block, (parent_slot & mask) * block,
            i < plan.num_roots, has_children(step), has_next_sibling(step)};
  }

  // What a vertex's states share, in vector k of its rows.
  struct Cell {
    int64_t v;
    int k;
    Vector step, x;  // the discretised step, and step * u
    Vector gradient;  // of y, on the way back
  };
  template <bool backward>
  TREESCAN_FORMULA Cell cell(const SelectiveTile &t, int64_t v, int k) {
    const Vector step = load(t.delta, v, k);
    return {v, k, step, step * load(t.u, v, k), backward ? load(t.grad_y, v, k) : Vector{}};
  }
  // What state n of a vertex adds of its own, to the scan and to the scan of the gradient.
  TREESCAN_FORMULA Vector drive(const SelectiveTile &t, const Cell &c, int64_t n) {
    return c.x * factor(t.B, t.num_states, c.v, n, c.k);
  }
  TREESCAN_FORMULA Vector gradient(const SelectiveTile &t, const Cell &c, int64_t n) {
    Vector g = c.gradient * factor(t.C, t.num_states, c.v, n, c.k);
    if (c.v == t.last_vertex && t.grad_last_state) g = g + load(t.grad_last_state, n, c.k);
    return g;
  }
  TREESCAN_FORMULA Vector decay(const SelectiveTile &t, const Cell &c, int64_t n) {
    return M::exp(c.step * load(t.A, n, c.k));
  }

  // Visits vertices from the last position to the first: each of the sums is `value(s, cell, n)` plus what the children
  // sent. They go to visit(place, cell, n, sums), and, times the decay, to the parent's slot.
  template <int Sums, bool backward, class Value, class Visit, class Done>
  TREESCAN_FORMULA void sweep_up(const Plan &plan, const SelectiveTile &t, int64_t first, int64_t states, Value value,
                                 Visit visit, Done done) {
    int64_t slot = 0, parent_slot = -1;  // the last vertex with children is the parent of the last vertex
    for (int64_t i = plan.num_planted - 1; i >= 0; --i) {
      slot -= has_children(plan.steps[i]);
      const Place at = place(plan, t.block, i, slot, parent_slot);
      if (i > 0) parent_slot -= !has_next_sibling(plan.steps[i - 1]);
      for (int k = 0; k < count; ++k) {
        Cell c = cell<backward>(t, at.vertex, k);
        for (int64_t j = 0; j < states; ++j) {
          Vector sums[Sums];
          for (int s = 0; s < Sums; ++s) {
            const Vector own = value(s, c, first + j);
            sums[s] = at.has_children ? up(own, load(t.rings[s], at.own + j, k)) : up(own, Vector{});
          }
          if (!at.is_root) {
            const Vector a = decay(t, c, first + j);
            for (int s = 0; s < Sums; ++s) {
              const Vector siblings = at.has_next_sibling ? load(t.rings[s], at.above + j, k) : Vector{};
              store(t.rings[s], at.above + j, k, siblings + to_parent(a, sums[s]));
            }
          }
          visit(at, c, j, sums);
        }
        done(c);
      }
    }
  }

  TREESCAN_FORMULA Vector &read_out(const SelectiveTile &t, const Cell &c, int64_t n, Vector state, Vector &y) {
    if (c.v == t.last_vertex) store(t.last_state, n, c.k, state);
    return y = y + factor(t.C, t.num_states, c.v, n, c.k) * state;
  }

  template <int direction>
  TREESCAN_FORMULA void forward_block(const Plan &plan, const SelectiveTile &t, int64_t first, int64_t states) {
    if constexpr (direction == up_) {
      Vector y{};
      bool begun = false;
      sweep_up<1, false>(
          plan, t, first, states, [&](int, const Cell &c, int64_t n) { return drive(t, c, n); },
          [&](const Place &, const Cell &c, int64_t j, const Vector *u) {
            if (!begun) y = first == 0 ? Vector{} : load(t.y, c.v, c.k);
            begun = true;
            read_out(t, c, first + j, *u, y);
          },
          [&](const Cell &c) {
            store(t.y, c.v, c.k, y);
            begun = false;
          });
      return;
    }
    if constexpr (direction == both_)
      sweep_up<1, false>(
          plan, t, first, states, [&](int, const Cell &c, int64_t n) { return drive(t, c, n); },
          [&](const Place &at, const Cell &c, int64_t j, const Vector *u) { store(t.sums[0], at.i * t.block + j, c.k, *u); },
          [](const Cell &) {});
    int64_t slot = 0, parent_slot = 0;
    for (int64_t i = 0; i < plan.num_planted; ++i) {
      const Place at = place(plan, t.block, i, slot, parent_slot);
      slot += at.has_children;
      parent_slot += !at.is_root && !at.has_next_sibling;
      for (int k = 0; k < count; ++k) {
        const Cell c = cell<false>(t, at.vertex, k);
        Vector y = first == 0 ? Vector{} : load(t.y, c.v, k);
        for (int64_t j = 0; j < states; ++j) {
          Vector h = direction == both_ ? load(t.sums[0], i * t.block + j, k) : drive(t, c, first + j);
          if (!at.is_root) {
            const Vector a = decay(t, c, first + j), above = load(t.rings[0], at.above + j, k);
            h = direction == both_ ? both(h, a, beyond(a, h, above)) : down(h, a, above);
          }
          store(t.rings[0], at.own + j, k, h);
          read_out(t, c, first + j, h, y);
        }
        store(t.y, c.v, k, y);
      }
    }
  }

  // sum[j] gets what lies in the rows j, each folded by halves.
  TREESCAN_FORMULA void fold(const char *rows, int64_t num_rows, T *sum) {
    for (int64_t j = 0; j < num_rows; ++j) {
      T part[lanes];
      for (int l = 0; l < lanes; ++l) part[l] = reinterpret_cast<const T *>(rows + j * row_bytes)[l];
      for (int half = lanes / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) part[l] += part[l + half];
      sum[j] += part[0];
    }
  }

  // The states' gradients: on the way up what only depends on the subtree waits in `sums`, on the way down everything
  // comes together.
  //            sums      handed down
  //   up       u         the gradient
  //   down     gradient  h
  //   both     both      both
  template <int direction>
  TREESCAN_FORMULA void backward_block(const Plan &plan, const SelectiveTile &t, int64_t first, int64_t states) {
    constexpr int passes = direction == both_ ? 2 : 1;
    sweep_up<passes, true>(
        plan, t, first, states,
        [&](int s, const Cell &c, int64_t n) {
          return direction == up_ || (direction == both_ && s == 0) ? drive(t, c, n) : gradient(t, c, n);
        },
        [&](const Place &at, const Cell &c, int64_t j, const Vector *sums) {
          for (int s = 0; s < passes; ++s) store(t.sums[s], at.i * t.block + j, c.k, sums[s]);
        },
        [](const Cell &) {});
    alignas(64) char of_B[selective_most_block * row_bytes], of_C[selective_most_block * row_bytes];
    int64_t slot = 0, parent_slot = 0;
    for (int64_t i = 0; i < plan.num_planted; ++i) {
      const Place at = place(plan, t.block, i, slot, parent_slot);
      slot += at.has_children;
      parent_slot += !at.is_root && !at.has_next_sibling;
      for (int k = 0; k < count; ++k) {
        const Cell c = cell<true>(t, at.vertex, k);
        const bool begin = first == 0;
        Vector y = begin ? Vector{} : load(t.y, c.v, k);
        Vector grad_x = begin ? Vector{} : load(t.grad_u, c.v, k), grad_step = begin ? Vector{} : load(t.grad_delta, c.v, k);
        for (int64_t j = 0; j < states; ++j) {
          const int64_t n = first + j;
          Vector handed[passes], sums[passes];
          for (int s = 0; s < passes; ++s) sums[s] = load(t.sums[s], i * t.block + j, k);
          if (direction == up_) handed[0] = gradient(t, c, n);
          if (direction == down_) handed[0] = drive(t, c, n);
          if (direction == both_)
            for (int s = 0; s < passes; ++s) handed[s] = sums[s];
          if (!at.is_root) {
            const Vector A = load(t.A, n, k), a = M::exp(c.step * A);
            Vector above[passes], grad_a;
            for (int s = 0; s < passes; ++s) above[s] = load(t.rings[s], at.above + j, k);
            if constexpr (direction == both_) {
              for (int s = 0; s < passes; ++s) {
                above[s] = beyond(a, sums[s], above[s]);
                handed[s] = both(sums[s], a, above[s]);
              }
              grad_a = weight_gradient_both(sums[0], above[0], sums[1], above[1]);
            } else {
              handed[0] = down(handed[0], a, above[0]);
              grad_a = weight_gradient(sums[0], above[0]);
            }
            const Vector grad_exponent = grad_a * a;
            grad_step = grad_step + grad_exponent * A;
            add(t.grad_A, n, k, grad_exponent * c.step);
          }
          for (int s = 0; s < passes; ++s) store(t.rings[s], at.own + j, k, handed[s]);
          const Vector state = direction == up_ ? sums[0] : handed[0];
          const Vector grad_state = direction == both_ ? handed[passes - 1] : direction == up_ ? handed[0] : sums[0];
          y = y + factor(t.C, t.num_states, c.v, n, k) * state;
          grad_x = grad_x + factor(t.B, t.num_states, c.v, n, k) * grad_state;
          const Vector grad_B = grad_state * c.x, grad_C = c.gradient * state;
          if (t.B.by_vertex) {
            store(of_B, j, k, grad_B);
          } else {
            add(t.B.grad, n, k, grad_B);
          }
          if (t.C.by_vertex) {
            store(of_C, j, k, grad_C);
          } else {
            add(t.C.grad, n, k, grad_C);
          }
        }
        store(t.y, c.v, k, y);
        store(t.grad_u, c.v, k, grad_x);
        store(t.grad_delta, c.v, k, grad_step);
      }
      if (t.B.by_vertex) fold(of_B, states, reinterpret_cast<T *>(t.B.grad) + at.vertex * t.num_states + first);
      if (t.C.by_vertex) fold(of_C, states, reinterpret_cast<T *>(t.C.grad) + at.vertex * t.num_states + first);
    }
  }

  template <class Visit>
  TREESCAN_FORMULA void each(const Plan &plan, int64_t first, int64_t last, Visit visit) {
    for (int64_t i = first; i < last; ++i)
      for (int k = 0; k < count; ++k) visit(vertex_of(plan.steps[i]), k);
  }

  // delta becomes the step.
  template <bool backward>
  TREESCAN_FORMULA void prepare(const Plan &plan, const SelectiveTile &t) {
    each(plan, 0, plan.num_planted, [&](int64_t v, int k) {
      Vector step = load(t.delta, v, k), slope = M::all(1);
      if (t.delta_bias) step = step + load(t.delta_bias, 0, k);
      if (t.delta_softplus) {
        if (backward) slope = M::sigmoid(step);
        step = M::softplus(step);
      }
      store(t.delta, v, k, step);
      if (!backward) return;
      store(t.slope, v, k, slope);
      if (!t.z) return;
      const Vector gradient = load(t.grad_y, v, k), z = load(t.z, v, k);
      store(t.grad_y, v, k, gradient * M::silu(z));
      store(t.z, v, k, gradient * M::silu_derivative(z));
    });
  }

  template <int direction>
  static void forward(const Plan &plan, const SelectiveTile &t) {
    prepare<false>(plan, t);
    for (int64_t first = 0; first < t.num_states; first += t.block)
      forward_block<direction>(plan, t, first, t.num_states - first < t.block ? t.num_states - first : t.block);
    each(plan, 0, plan.num_planted, [&](int64_t v, int k) {
      Vector y = load(t.y, v, k);
      if (t.D) y = y + load(t.D, 0, k) * load(t.u, v, k);
      if (t.z) y = y * M::silu(load(t.z, v, k));
      store(t.y, v, k, y);
    });
    each(plan, plan.num_planted, plan.num_vertices, [&](int64_t v, int k) { store(t.y, v, k, Vector{}); });
  }

  template <int direction>
  static void backward(const Plan &plan, const SelectiveTile &t) {
    prepare<true>(plan, t);
    for (int64_t first = 0; first < t.num_states; first += t.block)
      backward_block<direction>(plan, t, first, t.num_states - first < t.block ? t.num_states - first : t.block);
    each(plan, 0, plan.num_planted, [&](int64_t v, int k) {
      const Vector u = load(t.u, v, k), gradient = load(t.grad_y, v, k), grad_x = load(t.grad_u, v, k);
      const Vector grad_delta = (load(t.grad_delta, v, k) + grad_x * u) * load(t.slope, v, k);
      Vector grad_u = grad_x * load(t.delta, v, k), y = load(t.y, v, k);
      if (t.D) {
        const Vector D = load(t.D, 0, k);
        grad_u = grad_u + D * gradient;
        y = y + D * u;
        add(t.grad_D, 0, k, gradient * u);
      }
      if (t.z) store(t.z, v, k, load(t.z, v, k) * y);
      if (t.delta_bias) add(t.grad_delta_bias, 0, k, grad_delta);
      store(t.grad_u, v, k, grad_u);
      store(t.grad_delta, v, k, grad_delta);
    });
    each(plan, plan.num_planted, plan.num_vertices, [&](int64_t v, int k) {
      store(t.grad_u, v, k, Vector{});
      store(t.grad_delta, v, k, Vector{});
      if (t.z) store(t.z, v, k, Vector{});
    });
  }

  static constexpr SelectiveKernels table = {{forward<up_>, forward<down_>, forward<both_>},
                                             {backward<up_>, backward<down_>, backward<both_>}};
};

}  // namespace

const SelectiveKernels &selective_kernels(int32_t computed_dtype) {
  return computed_dtype == TREESCAN_FLOAT64 ? Kernels<double>::table : Kernels<float>::table;
}

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
