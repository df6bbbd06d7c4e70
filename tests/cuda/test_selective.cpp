// The selective scan and its adjoint on the device: the CPU's bits, whatever the trees, types, layouts and options.
#include <cmath>

#include "cuda_test.h"

using namespace cuda_test;

namespace {

using Numbers = std::vector<int64_t>;

// Numbers in [low, high) that look random.
struct Random {
  uint64_t state;
  double operator()(double low, double high) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * static_cast<double>(state >> 40) / (1 << 24);
  }
};

// Forests as parent arrays, item after item.
std::vector<int32_t> random_trees(int64_t items, int32_t vertices) {
  Random random{7};
  std::vector<int32_t> parents;
  for (int64_t item = 0; item < items; ++item) {
    std::vector<int32_t> label(static_cast<size_t>(vertices)), parent(static_cast<size_t>(vertices));
    for (int32_t v = 0; v < vertices; ++v) label[static_cast<size_t>(v)] = v;
    for (size_t v = label.size(); v-- > 1;)
      std::swap(label[v], label[static_cast<size_t>(random(0, static_cast<double>(v) + 1))]);
    // Long runs and some branches.
    for (int32_t v = 0; v < vertices; ++v) {
      const double back = random(0, 1) < 0.6 ? v - 1 : random(0, v);
      parent[static_cast<size_t>(label[static_cast<size_t>(v)])] = label[v == 0 ? 0 : static_cast<size_t>(back)];
    }
    parents.insert(parents.end(), parent.begin(), parent.end());
  }
  return parents;
}

// Every third vertex starts a tree or is in none, the last one among them.
std::vector<int32_t> forest(int32_t vertices) {
  std::vector<int32_t> parent;
  for (int32_t v = 0; v < vertices; ++v) {
    const bool in_none = v == vertices - 1 || v % 5 == 2;
    parent.push_back(in_none ? -1 : v % 6 == 0 ? v : v % 5 == 3 ? v - 2 : v - 1);
  }
  return parent;
}

std::vector<int32_t> chain(int32_t vertices) {
  std::vector<int32_t> parent;
  for (int32_t v = 0; v < vertices; ++v) parent.push_back(v == 0 ? 0 : v - 1);
  return parent;
}

std::vector<int32_t> star(int32_t vertices) { return std::vector<int32_t>(static_cast<size_t>(vertices), 2); }

std::vector<int32_t> canonical_order(const std::vector<int32_t> &parents, int64_t trees) {
  const auto vertices = static_cast<int64_t>(parents.size()) / std::max<int64_t>(1, trees);
  std::vector<int32_t> copy = parents, order(parents.size());
  const auto view = [&](std::vector<int32_t> &values) {
    treescan_tensor tensor{};
    tensor.data = values.data();
    tensor.dtype = TREESCAN_INT32;
    tensor.device = TREESCAN_CPU;
    tensor.ndim = 2;
    tensor.sizes[0] = trees;
    tensor.sizes[1] = tensor.strides[0] = vertices;
    tensor.strides[1] = 1;
    return tensor;
  };
  const treescan_tensor given = view(copy), ordered = view(order);
  const treescan_tree_output output = {&given, &ordered, nullptr, nullptr};
  SUCCEEDS(treescan_forest_from_parents(&given, &output, nullptr, nullptr));
  return order;
}

enum Parts { none = 0, with_D = 1, with_z = 2, with_bias = 4, with_softplus = 8, with_state = 16, all = 31 };
enum Factors { by_vertex, fixed_B, fixed_C, both_fixed };
enum Layout { vertices_last, channels_last, apart };

struct Setting {
  int64_t batch = 2, channels = 5, states = 3, groups = 1;
  int options = all;
  Factors factors = by_vertex;
  Layout layout = channels_last;
};

template <class T, class Computed>
class Case {
 public:
  // One tree for each item, or one for all.
  Case(const std::vector<int32_t> &parents, int64_t trees, const Setting &setting,
       const std::vector<int32_t> &orders = {})
      : s(setting),
        vertices(static_cast<int64_t>(parents.size()) / std::max<int64_t>(1, trees)),
        parent({trees, vertices}, at(parents)),
        order({trees, vertices}, at(orders.empty() ? canonical_order(parents, trees) : orders)) {}

  void forward(int32_t direction, treescan_workspace *workspace = nullptr) const {
    const treescan_selective_inputs given = cpu_inputs(), copied = cuda_inputs();
    const bool state = s.options & with_state;
    SUCCEEDS(treescan_selective_scan(direction, parent.cpu(), order.cpu(), &given, y.cpu(),
                                     state ? last.cpu() : nullptr, nullptr, nullptr));
    SUCCEEDS(treescan_selective_scan(direction, parent.cuda(), order.cuda(), &copied, y.cuda(),
                                     state ? last.cuda() : nullptr, workspace, nullptr));
  }
  void backward(int32_t direction, treescan_workspace *workspace = nullptr) const {
    const treescan_selective_inputs given = cpu_inputs(), copied = cuda_inputs();
    const treescan_selective_gradients expected = cpu_gradients(), got = cuda_gradients();
    const bool state = s.options & with_state;
    SUCCEEDS(treescan_selective_scan_backward(direction, parent.cpu(), order.cpu(), &given, grad_y.cpu(),
                                              state ? grad_last.cpu() : nullptr, &expected, nullptr, nullptr));
    SUCCEEDS(treescan_selective_scan_backward(direction, parent.cuda(), order.cuda(), &copied, grad_y.cuda(),
                                              state ? grad_last.cuda() : nullptr, &got, workspace, nullptr));
  }

  void check_forward(const std::string &what) const {
    SUCCEEDS(synchronize());
    CHECK(y.same(), what, ": y");
    CHECK(last.same(), what, ": last_state");
  }
  void check_backward(const std::string &what) const {
    SUCCEEDS(synchronize());
    CHECK(grad_u.same(), what, ": gradient of u");
    CHECK(grad_delta.same(), what, ": gradient of delta");
    CHECK(grad_z.same(), what, ": gradient of z");
    CHECK(grad_A.same(), what, ": gradient of A");
    CHECK(grad_B.same() && grad_B_fixed.same(), what, ": gradient of B");
    CHECK(grad_C.same() && grad_C_fixed.same(), what, ": gradient of C");
    CHECK(grad_D.same(), what, ": gradient of D");
    CHECK(grad_bias.same(), what, ": gradient of delta_bias");
  }
  void check(const std::string &what) const {
    for (int32_t direction = TREESCAN_UP; direction <= TREESCAN_BOTH; ++direction) {
      const std::string text = what + ", direction " + std::to_string(direction);
      forward(direction);
      check_forward(text);
      backward(direction);
      check_backward(text);
    }
  }

  treescan_selective_inputs cpu_inputs() const { return inputs(&Case::cpu<T>, &Case::cpu<Computed>); }
  treescan_selective_gradients cpu_gradients() const { return gradients(&Case::cpu<T>, &Case::cpu<Computed>); }
  treescan_selective_inputs cuda_inputs() const { return inputs(&Case::cuda<T>, &Case::cuda<Computed>); }
  treescan_selective_gradients cuda_gradients() const { return gradients(&Case::cuda<T>, &Case::cuda<Computed>); }

  const Setting s;
  const int64_t vertices;
  Twin<int32_t> parent, order;

 private:
  template <class Element>
  static const treescan_tensor *cpu(const Twin<Element> &twin) { return twin.cpu(); }
  template <class Element>
  static const treescan_tensor *cuda(const Twin<Element> &twin) { return twin.cuda(); }

  template <class Signal, class Parameter>
  treescan_selective_inputs inputs(Signal of_signal, Parameter parameter) const {
    return {of_signal(u), of_signal(delta), parameter(A), B_is_fixed() ? parameter(B_fixed) : of_signal(B),
            C_is_fixed() ? parameter(C_fixed) : of_signal(C), s.options & with_D ? parameter(D) : nullptr,
            s.options & with_z ? of_signal(z) : nullptr, s.options & with_bias ? parameter(bias) : nullptr,
            (s.options & with_softplus) != 0};
  }
  template <class Signal, class Parameter>
  treescan_selective_gradients gradients(Signal of_signal, Parameter parameter) const {
    return {of_signal(grad_u), of_signal(grad_delta), parameter(grad_A),
            B_is_fixed() ? parameter(grad_B_fixed) : of_signal(grad_B),
            C_is_fixed() ? parameter(grad_C_fixed) : of_signal(grad_C),
            s.options & with_D ? parameter(grad_D) : nullptr, s.options & with_z ? of_signal(grad_z) : nullptr,
            s.options & with_bias ? parameter(grad_bias) : nullptr};
  }
  bool B_is_fixed() const { return s.factors == fixed_B || s.factors == both_fixed; }
  bool C_is_fixed() const { return s.factors == fixed_C || s.factors == both_fixed; }

  template <class Values>
  static auto at(Values values) {
    return [values](int64_t i) { return values[static_cast<size_t>(i)]; };
  }
  template <class Element>
  auto random(double low, double high) {
    Random &numbers = random_;
    return [&numbers, low, high](int64_t) { return testing::number<Element>(numbers(low, high)); };
  }
  Numbers signal() const { return {s.batch, s.channels, vertices}; }
  Numbers strides() const {
    if (s.layout == channels_last) return {vertices * s.channels, 1, s.channels};
    if (s.layout == apart) return {vertices * s.channels * 3 + 1, vertices * 3, 3};
    return {};
  }
  // What comes out lies otherwise than what goes in.
  Numbers other_strides() const {
    return s.layout == channels_last ? Numbers{} : Numbers{vertices * s.channels * 2, 2, 2 * s.channels};
  }
  Numbers factor() const { return {s.batch, s.groups, s.states, vertices}; }
  // States or vertices side by side.
  Numbers factor_strides() const {
    if (s.layout == vertices_last) return {};
    return {s.groups * s.states * vertices, s.states * vertices, 1, s.states};
  }
  Numbers fixed() const { return {s.channels, s.states}; }
  Numbers fixed_strides() const { return s.layout == vertices_last ? Numbers{} : Numbers{1, s.channels}; }

  Random random_{1};

 public:
  Twin<T> u{signal(), random<T>(-1, 1), strides()}, delta{signal(), random<T>(-1, 2), strides()},
      z{signal(), random<T>(-2, 2)}, grad_y{signal(), random<T>(-1, 1), strides()},
      B{factor(), random<T>(-1, 1), factor_strides()}, C{factor(), random<T>(-1, 1)};
  Twin<Computed> A{fixed(), random<Computed>(-1, 0), fixed_strides()}, B_fixed{fixed(), random<Computed>(-1, 1)},
      C_fixed{fixed(), random<Computed>(-1, 1), fixed_strides()}, D{{s.channels}, random<Computed>(-1, 1), {2}},
      bias{{s.channels}, random<Computed>(-1, 1)},
      grad_last{{s.batch, s.channels, s.states}, random<Computed>(-1, 1)};
  // What nobody writes keeps its value.
  const T five = testing::number<T>(5);
  Twin<T> y{signal(), five, other_strides()}, grad_u{signal(), five, other_strides()}, grad_delta{signal(), five},
      grad_z{signal(), five, strides()}, grad_B{factor(), five, factor_strides()}, grad_C{factor(), five};
  Twin<Computed> last{{s.batch, s.channels, s.states}, Computed(5), {s.channels * s.states, 1, s.channels}},
      grad_A{fixed(), Computed(5), fixed_strides()}, grad_B_fixed{fixed(), Computed(5), fixed_strides()},
      grad_C_fixed{fixed(), Computed(5)}, grad_D{{s.channels}, Computed(5), {3}},
      grad_bias{{s.channels}, Computed(5)};
};

// Runs on a small device without a finding, level by level and by paths.
void on_device(const std::function<void(const std::string &)> &body, const treescan::emulation::Device &device = {}) {
  for (const char *const strategy : {"levels", "paths"}) {
    SUCCEEDS(treescan_set_cuda_scans(strategy));
    const Report report = treescan::emulation::run({}, [&] { body(strategy); }, device);
    CHECK(report.findings.empty(), strategy, ":\n", report.text());
    EQUAL(report.live_allocations, 0);
  }
  SUCCEEDS(treescan_set_cuda_scans("auto"));
}

template <class T, class Computed>
void check(const char *what, const std::vector<int32_t> &parents, int64_t trees, const Setting &setting) {
  on_device([&](const std::string &strategy) {
    Case<T, Computed>(parents, trees, setting).check(what + (", " + strategy));
  });
}

std::vector<int32_t> tree_and_forest(int32_t vertices) {
  std::vector<int32_t> parents = random_trees(1, vertices), second = forest(vertices);
  parents.insert(parents.end(), second.begin(), second.end());
  return parents;
}

}  // namespace

TEST(dtypes) {
  check<float, float>("float32", tree_and_forest(23), 2, {});
  check<double, double>("float64", tree_and_forest(23), 2, {});
  check<treescan::float16, float>("float16", tree_and_forest(23), 2, {});
  check<treescan::bfloat16, float>("bfloat16", tree_and_forest(23), 2, {});
}

TEST(layouts) {
  for (const Layout layout : {vertices_last, channels_last, apart}) {
    Setting setting;
    setting.layout = layout;
    check<float, float>("layout", random_trees(2, 19), 2, setting);
  }
}

TEST(options) {
  for (const int options : {int{none}, int{with_D}, int{with_z}, int{with_bias}, int{with_softplus}, int{with_state}}) {
    Setting setting;
    setting.options = options;
    check<float, float>("options", tree_and_forest(11), 2, setting);
  }
}

TEST(numbers_of_states) {
  for (const int64_t states : {1, 16, 20}) {
    Setting setting;
    setting.states = states;
    setting.layout = vertices_last;
    setting.batch = 1;
    check<float, float>("states", random_trees(1, 13), 1, setting);
    setting.channels = 3;
    if (states != 16) check<double, double>("states in double", random_trees(1, 9), 1, setting);
  }
}

TEST(channels_and_groups) {
  for (const int64_t groups : {1, 2}) {
    Setting setting;
    setting.channels = 38;
    setting.groups = groups;
    check<float, float>("groups", random_trees(1, 7), 1, setting);
    check<double, double>("groups in double", forest(7), 1, setting);
  }
}

TEST(factors_that_are_the_same_everywhere) {
  for (const Factors factors : {fixed_B, fixed_C, both_fixed}) {
    Setting setting;
    setting.factors = factors;
    setting.states = 9;
    setting.channels = 18;
    check<float, float>("fixed", tree_and_forest(11), 2, setting);
  }
}

TEST(trees_of_every_kind) {
  Setting setting;
  setting.states = 2;
  check<float, float>("one vertex", {0}, 1, setting);
  check<float, float>("in no tree", {-1, -1, -1}, 1, setting);
  check<float, float>("chain", chain(65), 1, setting);
  check<float, float>("star", star(40), 1, setting);
  check<float, float>("forest", forest(33), 1, setting);
  check<float, float>("roots alone", {0, 1, 2, 3}, 1, setting);
}

// Fewer blocks than tiles: each takes several.
TEST(a_device_with_one_block) {
  treescan::emulation::Device device;
  device.multiprocessors = 1;
  device.threads_per_multiprocessor = 256;
  Setting setting;
  setting.channels = 37;
  setting.batch = 3;
  setting.options = all & ~with_z;
  on_device(
      [&](const std::string &strategy) { Case<float, float>(forest(9), 1, setting).check("one block, " + strategy); },
      device);
}

// Every schedule, a tile and a half, and fewer blocks than tiles.
TEST(no_schedule_finds_anything) {
  treescan::emulation::Device device;
  device.multiprocessors = 1;
  device.threads_per_multiprocessor = 512;
  Setting setting;
  setting.channels = 17;
  setting.batch = 2;
  setting.factors = fixed_C;
  setting.states = 2;
  for (const char *const strategy : {"levels", "paths"}) {
    SUCCEEDS(treescan_set_cuda_scans(strategy));
    under_every_schedule([&](const Options &options) {
      const Report report = treescan::emulation::run(options, [&] {
        const Case<float, float> all_options(forest(8), 1, setting);
        all_options.forward(TREESCAN_BOTH);
        all_options.check_forward(text(options));
        all_options.backward(TREESCAN_BOTH);
        all_options.check_backward(text(options));
      }, device);
      CHECK(report.findings.empty(), strategy, ", ", text(options), ":\n", report.text());
      EQUAL(report.live_allocations, 0);
    });
  }
  SUCCEEDS(treescan_set_cuda_scans("auto"));
}

// Sums over vertices are made in the order of places, which is another if the given order isn't the canonical one.
TEST(orders_that_are_not_canonical) {
  on_device([&](const std::string &strategy) {
    // Vertex 3 comes before its uncle 1.
    const Case<double, double> c({0, 0, 0, 2, 1, 3}, 1, {}, {0, 2, 3, 1, 4, 5});
    for (int32_t direction = TREESCAN_UP; direction <= TREESCAN_BOTH; ++direction) {
      c.forward(direction);
      c.check_forward(strategy);
      c.backward(direction);
      SUCCEEDS(synchronize());
      CHECK(c.grad_u.same() && c.grad_delta.same() && c.grad_z.same() && c.grad_B.same() && c.grad_C.same(), strategy);
      for (const Twin<double> *const sums : {&c.grad_A, &c.grad_D, &c.grad_bias}) {
        const std::vector<double> got = sums->on_device();
        for (size_t i = 0; i < got.size(); ++i)
          CHECK(std::fabs(got[i] - (*sums)[static_cast<int64_t>(i)]) <= 1e-13, strategy);
      }
    }
  });
}

TEST(arrays_that_are_no_forest) {
  on_device([&](const std::string &strategy) {
    std::vector<int32_t> parents = random_trees(1, 6), orders = canonical_order(parents, 1);
    parents.insert(parents.end(), {0, 0, 6, 1, 1, 2});
    orders.insert(orders.end(), {0, 1, 2, 3, 4, 5});
    Setting setting;
    setting.factors = fixed_C;
    const Case<float, float> c(parents, 2, setting, orders);
    const treescan_selective_inputs inputs = c.cuda_inputs();
    const treescan_selective_gradients gradients = c.cuda_gradients();
    const auto check_nan = [&](const auto &twin, bool everywhere, const char *name) {
      const auto values = twin.on_device();
      for (size_t i = 0; i < values.size(); ++i)
        CHECK(std::isnan(values[i]) == (everywhere || i >= values.size() / 2), strategy, ": ", name, " at ", i);
    };
    SUCCEEDS(treescan_selective_scan(TREESCAN_BOTH, c.parent.cuda(), c.order.cuda(), &inputs, c.y.cuda(), c.last.cuda(),
                                     nullptr, nullptr));
    FAILS(synchronize(), TREESCAN_INVALID_ARGUMENT,
          "parent: expected vertices in [0, 6) or -1, got 6 at vertex 2 of item 1");
    check_nan(c.y, false, "y");
    check_nan(c.last, false, "last_state");
    SUCCEEDS(treescan_selective_scan_backward(TREESCAN_BOTH, c.parent.cuda(), c.order.cuda(), &inputs, c.grad_y.cuda(),
                                              nullptr, &gradients, nullptr, nullptr));
    FAILS(synchronize(), TREESCAN_INVALID_ARGUMENT, "got 6 at vertex 2 of item 1");
    check_nan(c.grad_u, false, "gradient of u");
    check_nan(c.grad_delta, false, "gradient of delta");
    check_nan(c.grad_z, false, "gradient of z");
    check_nan(c.grad_B, false, "gradient of B");
    check_nan(c.grad_A, true, "gradient of A");
    check_nan(c.grad_C_fixed, true, "gradient of C");
    check_nan(c.grad_D, true, "gradient of D");
    check_nan(c.grad_bias, true, "gradient of delta_bias");
  });
}

TEST(scratch_memory) {
  on_device([&](const std::string &strategy) {
    const Case<float, float> c(tree_and_forest(9), 2, {});
    const auto run = [&](const auto &call) {
      treescan_workspace workspace{};
      call(&workspace);
      CHECK(workspace.size >= 64, strategy);
      const DeviceArray<char> memory(static_cast<size_t>(workspace.size));
      workspace.data = memory;
      call(&workspace);
    };
    run([&](treescan_workspace *workspace) { c.forward(TREESCAN_BOTH, workspace); });
    c.check_forward(strategy);
    run([&](treescan_workspace *workspace) { c.backward(TREESCAN_BOTH, workspace); });
    c.check_backward(strategy);
    const treescan_selective_inputs inputs = c.cuda_inputs();
    const DeviceArray<char> small(size_t{64});
    treescan_workspace workspace{small, 64};
    FAILS(treescan_selective_scan(TREESCAN_UP, c.parent.cuda(), c.order.cuda(), &inputs, c.y.cuda(), nullptr,
                                  &workspace, nullptr),
          TREESCAN_INVALID_ARGUMENT, "workspace: expected at least");
  });
}

// Sums over no item are zeros.
TEST(nothing_to_do) {
  Setting setting;
  setting.batch = 0;
  check<float, float>("no item", chain(4), 1, setting);
  setting.factors = both_fixed;
  check<float, float>("no item, fixed factors", chain(4), 1, setting);
  setting.batch = 2;
  setting.channels = 0;
  check<float, float>("no channel", chain(4), 1, setting);
  setting.factors = by_vertex;
  check<float, float>("no channel, factors by vertex", chain(4), 1, setting);
}

// A long chain is one path: it takes no more barriers than a small tree.
TEST(barriers_and_launches) {
  const auto counters = [](const char *strategy, int32_t vertices, bool backward) {
    SUCCEEDS(treescan_set_cuda_scans(strategy));
    Setting setting;
    setting.batch = 1;
    const Report report = treescan::emulation::run({}, [&] {
      const Case<float, float> c(chain(vertices), 1, setting);
      backward ? c.backward(TREESCAN_BOTH) : c.forward(TREESCAN_BOTH);
      SUCCEEDS(synchronize());
    });
    SUCCEEDS(treescan_set_cuda_scans("auto"));
    CHECK(report.findings.empty(), report.text());
    EQUAL(report.allocations - report.live_allocations >= 1, true);
    treescan::emulation::Counters sum;
    for (const auto &[name, of_kernel] : report.kernels) {
      if (name.find("plan") != std::string::npos) continue;
      sum.launches += of_kernel.launches;
      sum.most_barriers_of_a_block += of_kernel.most_barriers_of_a_block;
    }
    return sum;
  };
  EQUAL(counters("paths", 300, false).launches, 2);
  EQUAL(counters("paths", 300, true).launches, 3);
  for (const bool backward : {false, true}) {
    const int64_t barriers = counters("paths", 300, backward).most_barriers_of_a_block;
    EQUAL(barriers, counters("paths", 20, backward).most_barriers_of_a_block);
    CHECK(barriers <= 6, barriers);
    EQUAL(counters("levels", 300, backward).most_barriers_of_a_block, barriers + 2 * 299);
  }
}

TEST_MAIN
