// Scans on the device against those in CPU memory: the same bits, whatever the tree, the layout and the way of working.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <random>
#include <string>

#include "cuda_test.h"
#include "half.h"

using namespace cuda_test;
using treescan::bfloat16;
using treescan::float16;
using treescan::emulation::Device;

namespace {

using Numbers = std::vector<int64_t>;

template <class T>
T number(double value) {
  if constexpr (std::is_same_v<T, float16>) {
    return {static_cast<uint16_t>(treescan::float_to_half<uint32_t>(static_cast<float>(value)))};
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return {static_cast<uint16_t>(treescan::float_to_bfloat16<uint32_t>(static_cast<float>(value)))};
  } else {
    return static_cast<T>(value);
  }
}

template <class T>
bool is_nan(T value) {
  if constexpr (std::is_same_v<T, float16>) {
    return (value.bits & 0x7fff) > 0x7c00;
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return (value.bits & 0x7fff) > 0x7f80;
  } else {
    return value != value;
  }
}

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// ---- Trees ----

using Parents = std::vector<int32_t>;

Parents chain(int32_t vertices) {
  Parents parents;
  for (int32_t v = 0; v < vertices; ++v) parents.push_back(std::max(v - 1, 0));
  return parents;
}

Parents star(int32_t vertices) {
  Parents parents(static_cast<size_t>(vertices), vertices / 2);
  return parents;
}

// A forest: vertices in a random order hang from one of those before, near ones or any; some of them are roots, and
// some are in no tree.
Parents grown(int32_t vertices, uint32_t seed, int32_t reach, double roots, double left_out) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> chance(0, 1);
  std::vector<int32_t> names;
  for (int32_t v = 0; v < vertices; ++v) names.push_back(v);
  std::shuffle(names.begin(), names.end(), generator);
  Parents parents(names.size(), -1);
  int32_t planted = 0;
  for (int32_t i = 0; i < vertices; ++i) {
    if (chance(generator) < left_out) continue;
    std::swap(names[static_cast<size_t>(planted)], names[static_cast<size_t>(i)]);
    const int32_t v = names[static_cast<size_t>(planted)];
    const bool is_root = planted == 0 || chance(generator) < roots;
    const auto back = is_root ? 0 : 1 + generator() % static_cast<uint32_t>(std::min(planted, reach));
    parents[static_cast<size_t>(v)] = names[static_cast<size_t>(planted) - back];
    ++planted;
  }
  return parents;
}

// A tree as a random walk over the pixels of an image makes them: long paths, short branches.
Parents of_image(int32_t height, int32_t width, uint32_t seed) {
  std::mt19937 generator(seed);
  Parents parents(static_cast<size_t>(height * width), -1);
  std::vector<int32_t> stack = {0};
  parents[0] = 0;
  while (!stack.empty()) {
    const int32_t v = stack.back(), row = v / width, column = v % width;
    std::vector<int32_t> free;
    const auto offer = [&](bool exists, int32_t next) {
      if (exists && parents[static_cast<size_t>(next)] < 0) free.push_back(next);
    };
    offer(row > 0, v - width);
    offer(row + 1 < height, v + width);
    offer(column > 0, v - 1);
    offer(column + 1 < width, v + 1);
    if (free.empty() || generator() % 4 == 0) {
      stack.pop_back();
      if (!free.empty()) stack.insert(stack.begin(), v);
      continue;
    }
    const int32_t next = free[generator() % free.size()];
    parents[static_cast<size_t>(next)] = v;
    stack.push_back(next);
  }
  return parents;
}

// Any order in which roots come first, parents before their children, and vertices in no tree last.
std::vector<int32_t> order_of(const Parents &parents, bool canonical, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<int32_t> order;
  const auto take = [&](auto &&belongs) {
    const size_t begin = order.size();
    for (size_t v = 0; v < parents.size(); ++v)
      if (belongs(static_cast<int32_t>(v))) order.push_back(static_cast<int32_t>(v));
    if (!canonical) std::shuffle(order.begin() + static_cast<std::ptrdiff_t>(begin), order.end(), generator);
  };
  take([&](int32_t v) { return parents[static_cast<size_t>(v)] == v; });
  for (size_t i = 0; i < order.size(); ++i)
    take([&](int32_t v) { return parents[static_cast<size_t>(v)] == order[i] && v != order[i]; });
  take([&](int32_t v) { return parents[static_cast<size_t>(v)] < 0; });
  return order;
}

struct Trees {
  std::vector<Parents> of_items;  // or one for all
  bool canonical = true;
};

// ---- Layouts ----

enum Layout { contiguous, channels_last, cropped, reversed, batch_last, expanded };
constexpr Layout layouts[] = {contiguous, channels_last, cropped, reversed, batch_last, expanded};

// A tensor's twins, and views of them.
template <class T>
struct Tensor {
  Twin<T> twin;
  treescan_tensor cpu, cuda;

  template <class Value>
  Tensor(const Numbers &sizes, Layout layout, Value value)
      : twin(sizes, value, strides(sizes, layout)), cpu(*twin.cpu()), cuda(*twin.cuda()) {
    if (layout != reversed) return;
    for (treescan_tensor *view : {&cpu, &cuda})
      for (int i = 1; i < view->ndim; ++i) {  // all but items, from their ends
        view->data = static_cast<T *>(view->data) + (view->sizes[i] - 1) * view->strides[i];
        view->strides[i] = -view->strides[i];
      }
  }

  static Numbers strides(const Numbers &sizes, Layout layout) {
    Numbers outer;  // dimensions from the innermost on
    const size_t ndim = sizes.size();
    for (size_t i = ndim; i-- > 0;) outer.push_back(static_cast<int64_t>(i));
    if (layout == channels_last) std::rotate(outer.begin(), outer.end() - 2, outer.end() - 1);
    if (layout == batch_last) std::rotate(outer.begin(), outer.end() - 1, outer.end());
    Numbers result(ndim);
    int64_t step = 1;
    for (const int64_t i : outer) {
      result[static_cast<size_t>(i)] = step;
      step *= sizes[static_cast<size_t>(i)] + (layout == cropped ? 1 + i : 0);
    }
    if (layout == expanded) result[1] = result[ndim - 1] = 0;
    return result;
  }
};

double draw(int64_t i, uint32_t seed) {
  uint64_t z = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u + seed * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>(z >> 11) * 0x1p-52 - 1;
}

// ---- Comparisons ----

struct Case {
  Numbers sizes;
  Trees trees;
  Layout x = contiguous, weights = contiguous, grad_y = contiguous, outputs = contiguous;
  int64_t broken = -1;  // the entry of the parents that isn't a vertex
};

Case alike(const Numbers &sizes, const Trees &trees, Layout layout) {
  return {sizes, trees, layout, layout, layout, layout};
}

int64_t vertices_of(const Numbers &sizes) { return sizes.size() == 4 ? sizes[2] * sizes[3] : sizes[2]; }

// The tensors of a case, in both memories. Outputs begin as NaN, and so do weights of roots, which nobody may read.
template <class T>
struct Scene {
  std::vector<int32_t> an_order;
  int64_t vertices, trees;
  Twin<int32_t> parent, order;
  Tensor<T> x, weights, grad_y, y, grad_x, grad_weights;

  explicit Scene(const Case &c)
      : vertices(vertices_of(c.sizes)), trees(static_cast<int64_t>(c.trees.of_items.size())),
        parent({trees, vertices},
               [&](int64_t i) {
                 return i == c.broken ? 99 : parents(c, i / vertices)[static_cast<size_t>(i % vertices)];
               }),
        order({trees, vertices},
              [&](int64_t i) {
                if (i % vertices == 0)
                  an_order = order_of(parents(c, i / vertices), c.trees.canonical, static_cast<uint32_t>(i));
                return an_order[static_cast<size_t>(i % vertices)];
              }),
        x(c.sizes, c.x, [](int64_t i) { return number<T>(draw(i, 1)); }),
        weights(c.sizes, c.weights,
                [&](int64_t i) {
                  const int64_t v = i % vertices, item = i / vertices / c.sizes[1];
                  const bool is_root = parents(c, trees == 1 ? 0 : item)[static_cast<size_t>(v)] == v;
                  return number<T>(is_root && c.weights != expanded && c.weights != reversed ? nan : 0.9 * draw(i, 2));
                }),
        grad_y(c.sizes, c.grad_y, [](int64_t i) { return number<T>(draw(i, 3)); }),
        y(c.sizes, c.outputs, empty), grad_x(c.sizes, c.outputs, empty), grad_weights(c.sizes, c.outputs, empty) {}

  treescan_status forward(bool cuda, int32_t direction, treescan_workspace *workspace = nullptr) {
    return cuda ? treescan_scan(direction, parent.cuda(), order.cuda(), &x.cuda, &weights.cuda, &y.cuda, workspace,
                                nullptr)
                : treescan_scan(direction, parent.cpu(), order.cpu(), &x.cpu, &weights.cpu, &y.cpu, workspace, nullptr);
  }
  treescan_status backward(bool cuda, int32_t direction, treescan_workspace *workspace = nullptr) {
    return cuda ? treescan_scan_backward(direction, parent.cuda(), order.cuda(), &x.cuda, &weights.cuda, &grad_y.cuda,
                                         &grad_x.cuda, &grad_weights.cuda, workspace, nullptr)
                : treescan_scan_backward(direction, parent.cpu(), order.cpu(), &x.cpu, &weights.cpu, &grad_y.cpu,
                                         &grad_x.cpu, &grad_weights.cpu, workspace, nullptr);
  }

 private:
  static const Parents &parents(const Case &c, int64_t tree) { return c.trees.of_items[static_cast<size_t>(tree)]; }
  static T empty(int64_t) { return number<T>(nan); }
};

template <class T>
void compare(const Case &c, int32_t direction, const std::string &what) {
  Scene<T> scene(c);
  SUCCEEDS(scene.forward(false, direction));
  SUCCEEDS(scene.forward(true, direction));
  SUCCEEDS(scene.backward(false, direction));
  SUCCEEDS(scene.backward(true, direction));
  SUCCEEDS(synchronize());
  CHECK(scene.y.twin.same(), what);
  CHECK(scene.grad_x.twin.same(), what);
  CHECK(scene.grad_weights.twin.same(), what);
}

constexpr int32_t directions[] = {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH};

// With little shared memory, tiles of more than 32 vertices stay in the caller's memory or go to the workspace.
Device with_shared_memory(bool enough) {
  Device device;
  if (!enough) device.shared_opt_in = 1024;
  return device;
}

const treescan::emulation::Counters &counters(const Report &report) { return report.kernels.at("scan_tiles_kernel"); }

void in_every_place(const std::function<void()> &host_code) {
  for (const bool in_shared : {true, false}) {
    const Report report = treescan::emulation::run({}, host_code, with_shared_memory(in_shared));
    CHECK(report.findings.empty(), report.text());
    EQUAL(report.live_allocations, 0);
    EQUAL(counters(report).atomics, 0);
  }
}

class Strategy {
 public:
  explicit Strategy(const char *name) { SUCCEEDS(treescan_set_cuda_scans(name)); }
  ~Strategy() { SUCCEEDS(treescan_set_cuda_scans("auto")); }
};
constexpr const char *strategies[] = {"levels", "paths"};

template <class T>
void compare_layouts() {
  in_every_place([] {
    int turn = 0;
    for (const int64_t channels : {1, 3, 5, 17, 33, 64})
      for (const Layout layout : layouts) {
        ++turn;
        const Strategy strategy(strategies[turn / 2 % 2]);
        Case c;
        c.sizes = turn % 4 == 0 ? Numbers{2, channels, 37} : Numbers{2, channels, 7, 5};
        const auto vertices = static_cast<int32_t>(vertices_of(c.sizes));
        for (uint32_t item = 0; item < (turn % 4 == 0 ? 1 : 2); ++item)
          c.trees.of_items.push_back(
              grown(vertices, item + static_cast<uint32_t>(turn), 4, turn % 2 * 0.1, turn % 3 * 0.1));
        c.trees.canonical = turn % 5 != 0;
        c.x = layout;
        c.outputs = layout == expanded ? contiguous : layout;
        c.weights = turn % 7 == 0 ? layouts[turn % 6] : layout;
        c.grad_y = turn % 11 == 0 ? expanded : c.outputs;
        compare<T>(c, directions[turn % 3],
                   std::to_string(channels) + " channels, layout " + std::to_string(layout));
      }
  });
}

}  // namespace

TEST(layouts_and_channels_float32) { compare_layouts<float>(); }
TEST(layouts_and_channels_float64) { compare_layouts<double>(); }
TEST(layouts_and_channels_float16) { compare_layouts<float16>(); }
TEST(layouts_and_channels_bfloat16) { compare_layouts<bfloat16>(); }

TEST(trees_of_every_shape) {
  const std::vector<std::pair<const char *, Parents>> trees = {
      {"one vertex", {0}},
      {"one vertex in no tree", {-1}},
      {"roots alone", {0, 1, 2, 3, 4}},
      {"no tree", {-1, -1, -1, -1, -1, -1, -1}},
      {"chain", chain(37)},
      {"chain from the other end", {1, 2, 3, 4, 5, 6, 7, 8, 9, 9}},
      {"star", star(41)},
      {"bush", grown(61, 1, 1000, 0, 0)},
      {"deep tree", grown(61, 2, 2, 0, 0)},
      {"forest", grown(61, 3, 1000, 0.1, 0.2)},
      {"image", of_image(8, 9, 4)},
  };
  in_every_place([&] {
    for (const auto &[name, parents] : trees)
      for (const char *way : strategies)
        for (const int32_t direction : directions)
          for (const Layout layout : {contiguous, channels_last}) {
            const Strategy strategy(way);
            const Case c = alike({2, 8, static_cast<int64_t>(parents.size())}, {{parents}}, layout);
            const std::string what = std::string(name) + ", by " + way;
            compare<float>(c, direction, what);
            compare<float16>(c, direction, what);
          }
  });
}

// Few cases, but under every schedule: each reaches the barriers by another way.
TEST(schedules) {
  struct Scheduled {
    const char *name, *way;
    Case c;
    int32_t direction;
    bool in_shared;
  };
  const Trees image = {{of_image(7, 5, 1)}}, forest = {{grown(35, 5, 1000, 0.1, 0.2)}};
  const Scheduled all[] = {
      {"channels-last in shared memory", "paths", alike({3, 8, 35}, image, channels_last), TREESCAN_BOTH, true},
      {"contiguous in shared memory", "levels", alike({5, 5, 35}, forest, contiguous), TREESCAN_DOWN, true},
      {"channels-last in place", "levels", alike({4, 8, 35}, image, channels_last), TREESCAN_BOTH, false},
      {"channels-last in place, up", "paths", alike({4, 8, 35}, forest, channels_last), TREESCAN_UP, false},
      {"contiguous by copies", "paths", alike({6, 8, 35}, forest, contiguous), TREESCAN_DOWN, false},
  };
  for (const Scheduled &scheduled : all)
    under_every_schedule([&](const Options &options) {
      const Report report = treescan::emulation::run(
          options,
          [&] {
            const Strategy strategy(scheduled.way);
            compare<float>(scheduled.c, scheduled.direction, scheduled.name);
            if (options.schedule == Schedule::random)
              compare<float16>(scheduled.c, scheduled.direction, scheduled.name);
          },
          with_shared_memory(scheduled.in_shared));
      CHECK(report.findings.empty(), scheduled.name, ", ", text(options), ":\n", report.text());
      EQUAL(report.live_allocations, 0);
    });
}

TEST(nothing_to_scan) {
  const Report report = treescan::emulation::run({}, [] {
    for (const Numbers &sizes : {Numbers{0, 4, 5}, Numbers{2, 0, 5}}) {
      Scene<float> scene({sizes, {{chain(5)}}});
      SUCCEEDS(scene.forward(true, TREESCAN_BOTH));
      SUCCEEDS(scene.backward(true, TREESCAN_BOTH));
      treescan_workspace workspace{nullptr, 0};
      SUCCEEDS(scene.forward(true, TREESCAN_BOTH, &workspace));
      CHECK(workspace.size > 0);
      SUCCEEDS(synchronize());
    }
  });
  CHECK(report.findings.empty(), report.text());
  EQUAL(report.kernels.size(), size_t{0});
}

// What is wrong with a tree is found on the device: all results of its item are NaN, the other items are scanned.
TEST(bad_trees) {
  in_every_place([] {
    const auto check = [](auto type, Layout layout) {
      using T = decltype(type);
      Case c = alike({2, 8, 35}, {{of_image(7, 5, 2), of_image(7, 5, 3)}}, layout);
      Scene<T> good(c);
      c.broken = 35 + 20;
      Scene<T> bad(c);
      for (const int32_t direction : directions) {
        SUCCEEDS(good.forward(true, direction));
        SUCCEEDS(good.backward(true, direction));
        SUCCEEDS(synchronize());
        SUCCEEDS(bad.forward(true, direction));
        FAILS(synchronize(), TREESCAN_INVALID_ARGUMENT, "parent: expected vertices in [0, 35) or -1, got 99 at vertex");
        SUCCEEDS(bad.backward(true, direction));
        FAILS(synchronize(), TREESCAN_INVALID_ARGUMENT, "got 99 at vertex 20 of item 1");
        for (const auto &[outcome, expected] : {std::pair(&bad.y, &good.y), std::pair(&bad.grad_x, &good.grad_x),
                                                std::pair(&bad.grad_weights, &good.grad_weights)}) {
          const std::vector<T> got = outcome->twin.on_device(), wanted = expected->twin.on_device();
          for (size_t i = 0; i < got.size(); ++i)
            if (i < got.size() / 2 ? std::memcmp(&got[i], &wanted[i], sizeof(T)) != 0 : !is_nan(got[i]))
              return CHECK(false, "element ", i, " of ", got.size());
        }
      }
    };
    for (const Layout layout : {contiguous, channels_last}) {
      check(float(), layout);
      check(double(), layout);
      check(float16(), layout);
      check(bfloat16(), layout);
    }
  });
}

TEST(workspace_of_the_caller) {
  in_every_place([] {
    for (const Layout layout : {contiguous, channels_last}) {
      const Case c = alike({2, 12, 35}, {{of_image(7, 5, 6)}}, layout);
      Scene<float16> scene(c);
      SUCCEEDS(scene.forward(false, TREESCAN_BOTH));
      SUCCEEDS(scene.backward(false, TREESCAN_BOTH));
      const auto call = [&](auto &&scan) {
        treescan_workspace workspace{nullptr, 0};
        SUCCEEDS(scan(&workspace));
        const DeviceArray<char> memory(static_cast<size_t>(workspace.size));
        workspace.data = static_cast<char *>(memory);
        --workspace.size;
        FAILS(scan(&workspace), TREESCAN_INVALID_ARGUMENT, "workspace: expected at least");
        ++workspace.size;
        SUCCEEDS(scan(&workspace));
        SUCCEEDS(synchronize());
      };
      call([&](treescan_workspace *workspace) { return scene.forward(true, TREESCAN_BOTH, workspace); });
      call([&](treescan_workspace *workspace) { return scene.backward(true, TREESCAN_BOTH, workspace); });
      CHECK(scene.y.twin.same() && scene.grad_x.twin.same() && scene.grad_weights.twin.same());
    }
  });
}

// What a call moves, in tensors' sizes, on a tree of an image. Caches without limit would move what is touched.
struct Traffic {
  double touched, requested;
};

Traffic traffic_of(bool backward, Layout layout, const char *way, bool in_shared, const std::string &name) {
  constexpr int32_t side = 14;
  constexpr int64_t channels = 32;
  const Strategy strategy(way);
  Options options;
  options.count_sectors = true;
  const Report report = treescan::emulation::run(
      options,
      [&] {
        const Case c = alike({1, channels, side, side}, {{of_image(side, side, 7)}}, layout);
        Scene<float> scene(c);
        SUCCEEDS(backward ? scene.backward(true, TREESCAN_BOTH) : scene.forward(true, TREESCAN_BOTH));
        SUCCEEDS(synchronize());
      },
      with_shared_memory(in_shared));
  CHECK(report.findings.empty(), report.text());
  EQUAL(report.kernels.size(), size_t{2});
  for (const auto &[kernel, counters] : report.kernels) EQUAL(counters.launches, 1);
  const auto &[loads, stores] = std::pair(counters(report).loads, counters(report).stores);
  CHECK((counters(report).shared_accesses > 0) == in_shared);
  if (layout == channels_last) {
    EQUAL(stores.widths.size(), size_t{1});
    EQUAL(stores.widths.count(16), size_t{1});
    EQUAL(loads.widths.count(8), size_t{0});
  }
  constexpr double sectors = side * side * channels * sizeof(float) / 32.0;
  const Traffic traffic = {static_cast<double>(loads.touched_sectors + stores.touched_sectors) / sectors,
                           static_cast<double>(loads.requested_sectors + stores.requested_sectors) / sectors};
  std::printf("%s, %s, by %s: touched %.2f, requested %.2f tensors' sizes\n", backward ? "backward" : "forward",
              name.c_str(), way, traffic.touched, traffic.requested);
  return traffic;
}

TEST(traffic) {
  if (!treescan::emulation::sees_accesses()) return;
  for (const char *way : strategies)
    for (const bool in_shared : {true, false})
      for (const Layout layout : {channels_last, contiguous}) {
        const std::string name = std::string(layout == contiguous ? "contiguous" : "channels-last") +
                                 (in_shared ? ", in shared memory" : ", in memory");
        const Traffic forward = traffic_of(false, layout, way, in_shared, name),
                      backward = traffic_of(true, layout, way, in_shared, name);
        if (in_shared || layout == channels_last) {
          CHECK(forward.touched <= 5, name);
          CHECK(backward.touched <= 9, name);
        }
      }
}

TEST_MAIN
