// The selective scan and its adjoint against the definition in double, in every setting; and bad input.
#include "naive.h"

namespace {

// What a selective scan is given, one call's worth, and where its results go.
template <class T, class Computed>
struct Case {
  int64_t batch = 2, channels, vertices = 7, states, groups;  // groups = 0: B and C are the same for all vertices
  bool optional;                                              // whether D, z and delta_bias are there
  bool softplus = true;
  Array<int32_t> parent{{2, 7}}, order{{2, 7}};
  Array<T> u, delta, B, C, z, grad_y, y, grad_u, grad_delta, grad_B, grad_C, grad_z;
  Array<Computed> A, B_fixed, C_fixed, D, delta_bias, grad_state, state, grad_A, grad_B_fixed, grad_C_fixed, grad_D, grad_bias;

  // Vertices lie apart in every tensor but the outputs of u, whose channels do.
  Shape signal() const { return {batch, channels, vertices}; }
  Shape apart() const { return {channels * vertices * 2, vertices * 2, -2}; }
  Shape factor() const { return {batch, std::max<int64_t>(1, groups), states, vertices}; }
  Shape fixed() const { return {channels, states}; }

  Case(int64_t channel_count, int64_t state_count, int64_t group_count, bool with_optional, std::mt19937 &generator)
      : channels(channel_count), states(state_count), groups(group_count), optional(with_optional),
        u(signal(), apart()), delta(signal()), B(factor()), C(factor(), {states * vertices * std::max<int64_t>(1, groups), states * vertices, 1, states}),
        z(signal(), {1, 2, 2 * channels}), grad_y(signal(), apart()), y(signal(), {1, 2 * vertices, 2}), grad_u(signal(), {1, 2, 2 * channels}),
        grad_delta(signal()), grad_B(factor()), grad_C(factor()), grad_z(signal(), apart()), A(fixed(), {1, channels}),
        B_fixed(fixed()), C_fixed(fixed()), D({channels}, {-1}), delta_bias({channels}), grad_state({batch, channels, states}),
        state({batch, channels, states}, {1, 2, 2 * channels}), grad_A(fixed()), grad_B_fixed(fixed(), {1, channels}),
        grad_C_fixed(fixed()), grad_D({channels}), grad_bias({channels}) {
    // A tree, and a forest of two trees and two vertices in none, the last one among them.
    const int32_t parents[] = {0, 0, 1, 1, 0, 2, 5, 0, 1, 0, 1, -1, 3, -1}, orders[] = {0, 1, 4, 2, 3, 5, 6, 0, 1, 2, 3, 5, 4, 6};
    parent.fill([&](int64_t i) { return parents[i]; });
    order.fill([&](int64_t i) { return orders[i]; });
    for (Array<T> *array : {&u, &B, &C, &z, &grad_y}) array->random(generator, -1, 1);
    for (Array<Computed> *array : {&B_fixed, &C_fixed, &D, &delta_bias, &grad_state}) array->random(generator, -1, 1);
    delta.random(generator, 0, 1);
    A.random(generator, -2, 0);
  }

  template <class Call>
  treescan_status run(Call &&call) {
    const treescan::tensor_view views[] = {u.view(), delta.view(), A.view(), groups ? B.view() : B_fixed.view(),
                                           groups ? C.view() : C_fixed.view(), D.view(), z.view(), delta_bias.view()};
    const treescan_selective_inputs inputs = {&views[0], &views[1], &views[2], &views[3], &views[4],
                                              optional ? &views[5] : nullptr, optional ? &views[6] : nullptr,
                                              optional ? &views[7] : nullptr, softplus};
    const treescan::tensor_view p = parent.view(), o = order.view();
    return call(p, o, inputs);
  }
  treescan_status forward(int32_t direction, treescan_workspace *workspace = nullptr) {
    const treescan::tensor_view result = y.view(), last = state.view();
    return run([&](const auto &p, const auto &o, const auto &inputs) {
      return treescan_selective_scan(direction, &p, &o, &inputs, &result, &last, workspace, nullptr);
    });
  }
  treescan_status backward(int32_t direction, treescan_workspace *workspace = nullptr) {
    const treescan::tensor_view g = grad_y.view(), gs = grad_state.view();
    const treescan::tensor_view views[] = {grad_u.view(), grad_delta.view(), grad_A.view(), groups ? grad_B.view() : grad_B_fixed.view(),
                                           groups ? grad_C.view() : grad_C_fixed.view(), grad_D.view(), grad_z.view(), grad_bias.view()};
    const treescan_selective_gradients gradients = {&views[0], &views[1], &views[2], &views[3], &views[4],
                                                    optional ? &views[5] : nullptr, optional ? &views[6] : nullptr,
                                                    optional ? &views[7] : nullptr};
    return run([&](const auto &p, const auto &o, const auto &inputs) {
      return treescan_selective_scan_backward(direction, &p, &o, &inputs, &g, &gs, &gradients, workspace, nullptr);
    });
  }

  // The inputs as numbers, in the order of the interface: u, delta, A, B, C, D, z, delta_bias.
  std::vector<std::vector<double>> numbers() const {
    return {u.values(), delta.values(), A.values(), groups ? B.values() : B_fixed.values(), groups ? C.values() : C_fixed.values(),
            D.values(), z.values(), delta_bias.values()};
  }

  // y and the last state, by definition.
  std::pair<std::vector<double>, std::vector<double>> defined(int32_t direction, const std::vector<std::vector<double>> &in) const {
    std::vector<double> out(static_cast<size_t>(batch * channels * vertices)), last(static_cast<size_t>(batch * channels * states));
    const auto at = [&](size_t which, int64_t i) { return in[which][static_cast<size_t>(i)]; };
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t d = 0; d < channels; ++d) {
        const int64_t row = (b * channels + d) * vertices;
        std::vector<double> sum(static_cast<size_t>(vertices)), step(static_cast<size_t>(vertices));
        for (int64_t v = 0; v < vertices; ++v) {
          double s = at(1, row + v) + (optional ? at(7, d) : 0);
          step[static_cast<size_t>(v)] = softplus ? std::log1p(std::exp(s)) : s;
        }
        for (int64_t n = 0; n < states; ++n) {
          const auto factor = [&](size_t which, int64_t v) {
            if (groups == 0) return at(which, d * states + n);
            return at(which, ((b * groups + d / (channels / groups)) * states + n) * vertices + v);
          };
          std::vector<double> h(static_cast<size_t>(vertices));
          for (int64_t i = 0; i < vertices; ++i) {
            // From every other vertex, along the path between them.
            for (int64_t j = 0; j < vertices; ++j) {
              if (parent[b * vertices + i] < 0 || parent[b * vertices + j] < 0) continue;
              double reach = 1;
              int64_t from = j, to = i;
              const auto depth = [&](int64_t v) {
                int steps = 0;
                for (; parent[b * vertices + v] != v; v = parent[b * vertices + v]) ++steps;
                return steps;
              };
              while (from != to && reach != 0) {
                int64_t &lower = depth(from) >= depth(to) ? from : to;
                if (parent[b * vertices + lower] == lower) reach = 0;  // two trees
                reach *= std::exp(step[static_cast<size_t>(lower)] * at(2, d * states + n));
                lower = parent[b * vertices + lower];
              }
              if (direction == TREESCAN_UP && from != i) continue;
              if (direction == TREESCAN_DOWN && from != j) continue;
              if (reach != 0) h[static_cast<size_t>(i)] += reach * step[static_cast<size_t>(j)] * factor(3, j) * at(0, row + j);
            }
            sum[static_cast<size_t>(i)] += factor(4, i) * h[static_cast<size_t>(i)];
          }
          last[static_cast<size_t>((b * channels + d) * states + n)] = h.back();
        }
        for (int64_t v = 0; v < vertices; ++v) {
          double result = sum[static_cast<size_t>(v)];
          if (optional) {
            const double gate = at(6, row + v);
            result = (result + at(5, d) * at(0, row + v)) * gate / (1 + std::exp(-gate));
          }
          out[static_cast<size_t>(row + v)] = parent[b * vertices + v] < 0 ? 0 : result;
        }
      }
    return {out, last};
  }

  double loss(int32_t direction, const std::vector<std::vector<double>> &in) const {
    const auto [out, last] = defined(direction, in);
    const std::vector<double> g = grad_y.values(), gs = grad_state.values();
    return std::inner_product(out.begin(), out.end(), g.begin(), 0.0) + std::inner_product(last.begin(), last.end(), gs.begin(), 0.0);
  }

  void check(int32_t direction) {
    testing::in_every_setting([&](treescan_workspace *workspace) { return forward(direction, workspace); }, y, state);
    const auto [out, last] = defined(direction, numbers());
    CHECK(testing::close<T>(y.values(), out, 4), "y, direction ", direction, ", ", channels, " channels");
    CHECK(testing::close<Computed>(state.values(), last, 4), "last state, direction ", direction);
  }

  void check_backward(int32_t direction) {
    std::vector<std::vector<double>> in = numbers();
    const auto compare = [&](size_t which, const auto &gradient, const char *name) {
      std::vector<double> expected;
      for (double &number : in[which]) {
        const double kept = number, small = 1e-4;
        number = kept + small;
        const double above = loss(direction, in);
        number = kept - small;
        expected.push_back((above - loss(direction, in)) / (2 * small));
        number = kept;
      }
      std::vector<double> got = gradient.values();
      bool close = got.size() == expected.size();
      for (size_t i = 0; close && i < got.size(); ++i) close = std::fabs(got[i] - expected[i]) <= std::max(1e-6, 20 * testing::tolerance<T>);
      CHECK(close, "gradient of ", name, ", direction ", direction);
    };
    const auto run_all = [&](auto &of_B, auto &of_C) {
      const auto call = [&](treescan_workspace *workspace) { return backward(direction, workspace); };
      if (optional) {
        testing::in_every_setting(call, grad_u, grad_delta, grad_A, of_B, of_C, grad_D, grad_z, grad_bias);
      } else {
        testing::in_every_setting(call, grad_u, grad_delta, grad_A, of_B, of_C);
      }
      compare(0, grad_u, "u");
      compare(1, grad_delta, "delta");
      compare(2, grad_A, "A");
      compare(3, of_B, "B");
      compare(4, of_C, "C");
      if (!optional) return;
      compare(5, grad_D, "D");
      compare(6, grad_z, "z");
      compare(7, grad_bias, "delta_bias");
    };
    groups ? run_all(grad_B, grad_C) : run_all(grad_B_fixed, grad_C_fixed);
  }
};

template <class T, class Computed>
void check_all() {
  std::mt19937 generator(1);
  for (int32_t direction = TREESCAN_UP; direction <= TREESCAN_BOTH; ++direction) {
    Case<T, Computed>(6, 3, 2, true, generator).check(direction);
    Case<T, Computed>(19, 17, 1, false, generator).check(direction);
    Case<T, Computed>(3, 1, 0, true, generator).check(direction);
    Case<T, Computed>(4, 3, 2, true, generator).check_backward(direction);
    Case<T, Computed>(3, 2, 0, false, generator).check_backward(direction);
  }
}

}  // namespace

TEST(float32) { check_all<float, float>(); }
TEST(float64) { check_all<double, double>(); }
TEST(float16) { check_all<treescan::float16, float>(); }
TEST(bfloat16) { check_all<treescan::bfloat16, float>(); }

// One argument is spoilt at a time; nothing is written but where only values are wrong.
TEST(bad_input) {
  std::mt19937 generator(2);
  Case<float, float> good(4, 3, 2, true, generator);
  treescan::tensor_view p = good.parent.view(), o = good.order.view(), u = good.u.view(), delta = good.delta.view(),
                        A = good.A.view(), B = good.B.view(), C = good.C.view(), D = good.D.view(), z = good.z.view(),
                        bias = good.delta_bias.view(), y = good.y.view(), last = good.state.view(), g = good.grad_y.view(),
                        gs = good.grad_state.view(), gu = good.grad_u.view(), gdelta = good.grad_delta.view(),
                        gA = good.grad_A.view(), gB = good.grad_B.view(), gC = good.grad_C.view(), gD = good.grad_D.view(),
                        gz = good.grad_z.view(), gbias = good.grad_bias.view();
  treescan_selective_inputs inputs = {&u, &delta, &A, &B, &C, &D, &z, &bias, 1};
  treescan_selective_gradients gradients = {&gu, &gdelta, &gA, &gB, &gC, &gD, &gz, &gbias};
  int32_t direction = TREESCAN_DOWN;
  const treescan_selective_inputs *given = &inputs;
  const treescan_selective_gradients *wanted = &gradients;
  int stream = 0;
  void *on = nullptr;
  const auto fails = [&](int32_t status, const std::string &text, bool forward = true) {
    const std::string what = "spoilt: " + text;
    if (forward)
      testing::check_failure(__FILE__, __LINE__, what, treescan_selective_scan(direction, &p, &o, given, &y, &last, nullptr, on), status, text);
    testing::check_failure(__FILE__, __LINE__, what + ", backward",
                           treescan_selective_scan_backward(direction, &p, &o, given, &g, &gs, wanted, nullptr, on), status, text);
    CHECK(good.y.untouched() && good.state.untouched() && good.grad_u.untouched() && good.grad_B.untouched(), what);
  };
  const auto spoil = [&](auto &place, auto value, int32_t status, const std::string &text, bool forward = true) {
    const auto kept = place;
    place = static_cast<std::remove_reference_t<decltype(place)>>(value);
    fails(status, text, forward);
    place = kept;
  };
  spoil(direction, 0, TREESCAN_INVALID_ARGUMENT, "direction");
  spoil(given, nullptr, TREESCAN_INVALID_ARGUMENT, "inputs: expected a pointer");
  spoil(on, &stream, TREESCAN_INVALID_ARGUMENT, "stream");
  const std::pair<const treescan_tensor **, const char *> members[] = {
      {&inputs.u, "inputs->u"}, {&inputs.delta, "inputs->delta"}, {&inputs.A, "inputs->A"}, {&inputs.B, "inputs->B"}, {&inputs.C, "inputs->C"}};
  for (const auto &[member, name] : members) spoil(*member, nullptr, TREESCAN_INVALID_ARGUMENT, std::string(name) + ": expected a tensor, got NULL");
  const std::pair<treescan::tensor_view *, const char *> views[] = {
      {&u, "inputs->u"}, {&delta, "inputs->delta"}, {&A, "inputs->A"}, {&B, "inputs->B"}, {&C, "inputs->C"}, {&D, "inputs->D"},
      {&z, "inputs->z"}, {&bias, "inputs->delta_bias"}};
  for (const auto &[view, name] : views) {
    spoil(view->dtype, TREESCAN_INT32, TREESCAN_UNSUPPORTED_DTYPE, name);
    spoil(view->device, TREESCAN_CUDA, TREESCAN_UNSUPPORTED_DEVICE, name);
    spoil(view->ndim, 5, TREESCAN_INVALID_ARGUMENT, name);
    spoil(view->ndim, 1 + (view->ndim == 1), TREESCAN_INVALID_ARGUMENT, name);
    spoil(view->data, nullptr, TREESCAN_INVALID_ARGUMENT, name);
    spoil(view->strides[0], INT64_MAX, TREESCAN_TOO_LARGE, name);
  }
  spoil(A.sizes[1], 0, TREESCAN_INVALID_ARGUMENT, "inputs->A: expected 1 to");
  spoil(B.sizes[1], 3, TREESCAN_INVALID_ARGUMENT, "inputs->B: expected groups that divide 4 channels, got 3");
  spoil(C.sizes[1], 1, TREESCAN_INVALID_ARGUMENT, "inputs->C");
  spoil(C.sizes[3], 6, TREESCAN_INVALID_ARGUMENT, "inputs->C");
  spoil(p.sizes[1], 6, TREESCAN_INVALID_ARGUMENT, "parent");
  spoil(wanted, nullptr, TREESCAN_INVALID_ARGUMENT, "gradients: expected a pointer", false);
  spoil(gradients.u, nullptr, TREESCAN_INVALID_ARGUMENT, "gradients->u", false);
  spoil(inputs.z, nullptr, TREESCAN_INVALID_ARGUMENT, "gradients->z: expected NULL", false);
  spoil(gA.sizes[1], 2, TREESCAN_INVALID_ARGUMENT, "gradients->A", false);
  spoil(gB.strides[3], 0, TREESCAN_INVALID_ARGUMENT, "gradients->B: expected an output", false);
  spoil(g.sizes[2], 6, TREESCAN_INVALID_ARGUMENT, "grad_y", false);
  spoil(gs.dtype, TREESCAN_FLOAT64, TREESCAN_UNSUPPORTED_DTYPE, "grad_last_state", false);

  const auto forward_fails = [&](auto &place, auto value, int32_t status, const std::string &text) {
    const auto kept = place;
    place = static_cast<std::remove_reference_t<decltype(place)>>(value);
    FAILS(treescan_selective_scan(direction, &p, &o, given, &y, &last, nullptr, nullptr), status, text);
    place = kept;
  };
  forward_fails(y.sizes[2], 6, TREESCAN_INVALID_ARGUMENT, "y: expected shape");
  forward_fails(y.strides[1], 0, TREESCAN_INVALID_ARGUMENT, "y: expected an output");
  forward_fails(last.dtype, TREESCAN_FLOAT64, TREESCAN_UNSUPPORTED_DTYPE, "last_state");
  // A fault of values may be found when results are there already.
  forward_fails(good.parent[9], 9, TREESCAN_INVALID_ARGUMENT, "parent: expected vertices in [0, 7)");
  treescan_workspace small = {&stream, 1};
  FAILS(treescan_selective_scan(direction, &p, &o, given, &y, nullptr, &small, nullptr), TREESCAN_INVALID_ARGUMENT, "workspace");
  SUCCEEDS(treescan_selective_scan(direction, &p, &o, given, &y, nullptr, nullptr, nullptr));
}

TEST_MAIN
