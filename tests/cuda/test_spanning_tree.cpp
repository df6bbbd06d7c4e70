// Spanning trees on the emulated device against those of the CPU: the same trees, orders and errors, to the last index.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "cuda_test.h"

using namespace cuda_test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Where both sides leave their trees. Rows lie apart, and every other number of them is somebody else's, if spread.
class Output {
 public:
  Output(int64_t batch, int64_t vertices, bool spread = false, bool has_edges = true)
      : parent_(rows(batch, vertices, spread)), order_(rows(batch, vertices, spread)),
        depth_(rows(batch, vertices, spread)), edge_(rows(batch, vertices, spread)), has_edges_(has_edges) {}

  treescan_tree_output cpu() const {
    return {parent_.cpu(), order_.cpu(), depth_.cpu(), has_edges_ ? edge_.cpu() : nullptr};
  }
  treescan_tree_output cuda() const {
    return {parent_.cuda(), order_.cuda(), depth_.cuda(), has_edges_ ? edge_.cuda() : nullptr};
  }
  bool same() const { return parent_.same() && order_.same() && depth_.same() && edge_.same(); }

  // What the device has of an item, all arrays in a row.
  bool all_minus_one(int64_t item, int64_t vertices) const {
    for (const Twin<int32_t> *const twin : {&parent_, &order_, &depth_}) {
      const std::vector<int32_t> values = twin->on_device();
      for (int64_t v = 0; v < vertices; ++v)
        if (values[static_cast<size_t>(item * vertices + v)] != -1) return false;
    }
    return true;
  }

 private:
  static Twin<int32_t> rows(int64_t batch, int64_t vertices, bool spread) {
    return spread ? Twin<int32_t>({batch, vertices}, -7, {2 * vertices + 3, 2}) : Twin<int32_t>({batch, vertices}, -7);
  }

  Twin<int32_t> parent_, order_, depth_, edge_;
  bool has_edges_;
};

enum class Kind { minimum, maximum, random };

treescan_status build(Kind kind, const treescan_graph &graph, const treescan_tensor *cost, const treescan_tensor *root,
                      const treescan_tensor *segments, const treescan_tree_output &tree) {
  if (kind == Kind::random) return treescan_random_spanning_tree(&graph, cost, 77, root, &tree, nullptr, nullptr);
  return treescan_minimum_spanning_tree(&graph, cost, kind == Kind::maximum, root, segments, &tree, nullptr, nullptr);
}

// Costs of which many are equal, and some special.
float cost_of(int64_t i) {
  const auto mixed = static_cast<uint32_t>(i) * 2654435761u >> 8;
  switch (mixed % 23) {
    case 0: return not_a_number;
    case 1: return infinity;
    case 2: return -infinity;
    case 3: return -0.f;
    case 4: return 0.f;
    case 5: return 1e-42f;
    default: return static_cast<float>(mixed % 11) - 5.f;
  }
}

// Any costs, all different.
float any_cost(int64_t i) { return static_cast<float>(static_cast<uint32_t>(i) * 2654435761u); }

// A tree of each item on both sides.
template <class Cost = float>
void compare(const char *what, const TwinGraph &graph, int64_t batch, Kind kind = Kind::minimum,
             const Twin<int32_t> *segments = nullptr, Cost (*value)(int64_t) = cost_of) {
  const int64_t vertices = graph.vertices();
  const Twin<Cost> cost({batch, graph.edges()}, value);
  const Twin<int32_t> root({batch}, [&](int64_t i) { return (5 * i + 2) % vertices; });
  const Output output(batch, vertices);
  SUCCEEDS(build(kind, graph.cpu, cost.cpu(), root.cpu(), segments ? segments->cpu() : nullptr, output.cpu()));
  SUCCEEDS(build(kind, graph.cuda, cost.cuda(), root.cuda(), segments ? segments->cuda() : nullptr, output.cuda()));
  SUCCEEDS(synchronize());
  CHECK(output.same(), what, " differs");
}

// body() under one schedule that leaves some order to chance. Kernels must behave.
Report run_clean(const std::string &team, const std::function<void()> &body,
                 const treescan::emulation::Device &device = {}) {
  SUCCEEDS(treescan_set_cuda_trees(team.c_str()));
  const Report report = treescan::emulation::run(Options{Schedule::runs, 1, 2, false}, body, device);
  CHECK(report.findings.empty(), team, ":\n", report.text());
  EQUAL(report.live_allocations, 0);
  SUCCEEDS(treescan_set_cuda_trees("auto"));
  return report;
}

void with_both_teams(const std::function<void()> &body) {
  for (const char *team : {"block", "grid"}) run_clean(team, body);
}

}  // namespace

TEST(grids) {
  with_both_teams([] {
    for (const int32_t connectivity : {4, 8}) {
      for (const auto &[height, width] : {std::pair{1, 1}, {1, 5}, {5, 1}, {2, 2}, {3, 4}, {5, 2}, {7, 6}})
        compare("a grid", grid(height, width, connectivity), 2);
      compare("a large grid", grid(19, 17, connectivity), 3);
      compare("a maximum", grid(7, 6, connectivity), 2, Kind::maximum);
      compare("a random tree", grid(7, 6, connectivity), 2, Kind::random);
    }
  });
}

// Costs that float32 has no room for: close ones, special ones, and the ends of their types.
TEST(wide_costs) {
  double (*const close)(int64_t) = [](int64_t i) {
    return i % 7 == 0 ? static_cast<double>(cost_of(i)) : 1 + static_cast<double>(i * 5 % 11) * 1e-9;
  };
  int64_t (*const large)(int64_t) = [](int64_t i) {
    const int64_t ends[] = {INT64_MAX, INT64_MIN, 0, -1};
    return i % 5 == 0 ? ends[i / 5 % 4] : (int64_t{1} << 60) + i * 7 % 13;
  };
  int32_t (*const narrow)(int64_t) = [](int64_t i) {
    return static_cast<int32_t>(i % 5 == 0 ? INT32_MAX - i / 5 % 2 : i % 5 == 1 ? INT32_MIN : i * 7 % 13);
  };
  with_both_teams([&] {
    for (const Kind kind : {Kind::minimum, Kind::maximum, Kind::random}) {
      compare("doubles", grid(7, 6, 4), 3, kind, nullptr, close);
      compare("doubles of tokens", tokens(17, 3, nullptr), 2, kind, nullptr, close);
      compare("64-bit integers", grid(5, 4, 8), 2, kind, nullptr, large);
      compare("32-bit integers", grid(3, 9, 4), 2, kind, nullptr, narrow);
    }
    const Twin<int32_t> labels({2, 42}, [](int64_t v) { return static_cast<int32_t>(v * 5 % 17 / 6) - 1; });
    compare("a forest", grid(7, 6, 4), 2, Kind::minimum, &labels, close);
    compare("a large grid", grid(19, 17, 4), 2, Kind::minimum, nullptr, close);
    compare("one vertex", grid(1, 1, 4), 2, Kind::minimum, nullptr, close);
    compare("no trees", grid(3, 3, 4), 0, Kind::minimum, nullptr, close);
  });
}

TEST(token_graphs_and_chains) {
  with_both_teams([] {
    for (const int64_t window : {1, 2, 5, 32, 33, 39}) compare("tokens", tokens(40, window, nullptr), 2);
    const Twin<int64_t> lengths({4}, [](int64_t i) { return i * 9; });
    for (const int64_t window : {3, 34}) compare("contexts", tokens(38, window, lengths.cpu()), 4);
    const Twin<int64_t> one_length({1}, int64_t{11});
    compare("one context", tokens(38, 4, one_length.cpu()), 3, Kind::maximum);
    for (const int64_t length : {1, 2, 3, 65}) compare("a chain", chain(length), 2);
  });
}

TEST(edge_lists) {
  with_both_teams([] {
    constexpr int64_t vertices = 37, edges = 150;
    std::mt19937 random(5);
    const auto end = [&](int64_t i) -> int64_t {
      const int64_t edge = i / 2 % edges;  // the first edges connect all; the rest may be loops, and repeat
      if (edge < vertices - 1) return i % 2 ? edge + 1 : edge / 3;
      return static_cast<int64_t>(random() % vertices);
    };
    const Twin<int32_t> narrow({edges, 2}, end), own({3, edges, 2}, end, {2 * edges + 1, 1, edges});
    const Twin<int64_t> wide({edges, 2}, end, {5, 2}), expanded({3, edges, 2}, end, {0, 2, 1});
    compare("int32", edge_list(vertices, narrow), 2);
    compare("int64 apart", edge_list(vertices, wide), 2, Kind::maximum);
    compare("own lists", edge_list(vertices, own), 3);
    compare("an expanded list", edge_list(vertices, expanded), 3, Kind::random);
    const Twin<int32_t> none({0, 2}, 0);
    compare("no edges", edge_list(1, none), 2);
    const Twin<int32_t> star({40, 2}, [](int64_t i) { return i % 2 ? 7 : i / 2 < 7 ? i / 2 : i / 2 + 1; });
    compare("a star", edge_list(41, star), 1);
  });
}

TEST(forests_of_segments) {
  with_both_teams([] {
    const auto label = [](int64_t i) { return (i / 3 * 2654435761u >> 7) % 4 - 1; };
    const Twin<int32_t> shared({1, 42}, label), own({3, 42}, label, {50, 1}), nowhere({1, 42}, -1), one({1, 42}, 0);
    for (const Twin<int32_t> *const segments : {&shared, &own, &nowhere, &one})
      for (const Kind kind : {Kind::minimum, Kind::maximum}) {
        compare("segments of a grid", grid(7, 6, 4), 3, kind, segments);
        compare("segments of tokens", tokens(42, 40, nullptr), 3, kind, segments);
      }
    const Twin<int32_t> parts({30, 2}, [](int64_t i) { return i / 2 + i % 2 * (i / 2 % 5); });
    compare("a list in parts", edge_list(42, parts), 3, Kind::minimum, &one);
  });
}

TEST(roots_and_outputs_of_any_kind) {
  with_both_teams([] {
    const TwinGraph graph = grid(3, 5, 4);
    const Twin<float> cost({4, graph.edges()}, any_cost, {1, 7});
    const Twin<int32_t> expanded({4}, 14, {0}), one({1}, 6);
    for (const Twin<int32_t> *const root : {&expanded, &one}) {
      const Output output(4, 15, true, root == &one);
      SUCCEEDS(build(Kind::minimum, graph.cpu, cost.cpu(), root->cpu(), nullptr, output.cpu()));
      SUCCEEDS(build(Kind::minimum, graph.cuda, cost.cuda(), root->cuda(), nullptr, output.cuda()));
      SUCCEEDS(synchronize());
      CHECK(output.same());
    }
    compare("an empty batch", graph, 0);
    compare("an empty random batch", graph, 0, Kind::random);
  });
}

TEST(memory_of_the_caller) {
  with_both_teams([] {
    const TwinGraph graph = grid(7, 9, 8);
    const Twin<float> cost({3, graph.edges()}, cost_of);
    const Twin<int32_t> root({3}, 5);
    const Output output(3, 63);
    const treescan_tree_output cpu = output.cpu(), cuda = output.cuda();
    treescan_workspace workspace{};
    SUCCEEDS(treescan_random_spanning_tree(&graph.cpu, cost.cpu(), 1, root.cpu(), &cpu, nullptr, nullptr));
    SUCCEEDS(treescan_random_spanning_tree(&graph.cuda, cost.cuda(), 1, root.cuda(), &cuda, &workspace, nullptr));
    const DeviceArray<char> memory(static_cast<size_t>(workspace.size));
    workspace.data = memory;
    SUCCEEDS(treescan_random_spanning_tree(&graph.cuda, cost.cuda(), 1, root.cuda(), &cuda, &workspace, nullptr));
    SUCCEEDS(synchronize());
    CHECK(output.same());
  });
}

TEST(blocks_with_little_memory_of_their_own) {
  for (const size_t bytes : {1024, 1600, 2500, 4000}) {
    treescan::emulation::Device device;
    device.shared_opt_in = bytes;
    run_clean("block", [] {
      compare("a grid", grid(7, 6, 8), 3);
      const Twin<int32_t> list({60, 2}, [](int64_t i) { return i % 2 ? i / 2 % 34 + 1 : i * 7 % 35; });
      compare("a list", edge_list(35, list), 2);
    }, device);
  }
}

namespace {

// The edges of a random tree, shuffled, each either way round.
std::vector<int64_t> random_tree(int64_t vertices, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int64_t> names(static_cast<size_t>(vertices)), ends;
  for (int64_t v = 0; v < vertices; ++v) names[static_cast<size_t>(v)] = v;
  std::shuffle(names.begin(), names.end(), random);
  for (int64_t v = 1; v < vertices; ++v) {
    const int64_t pair[2] = {names[static_cast<size_t>(v)], names[random() % static_cast<uint32_t>(v)]};
    const bool turned = random() % 2;
    ends.push_back(pair[turned]);
    ends.push_back(pair[!turned]);
  }
  return ends;
}

}  // namespace

TEST(trees_from_edges) {
  with_both_teams([] {
    for (const int64_t vertices : {1, 2, 3, 40, 300}) {
      std::vector<int64_t> ends = random_tree(vertices, 1);
      for (const int64_t end : random_tree(vertices, 2)) ends.push_back(end);
      const Twin<int64_t> edges({2, vertices - 1, 2}, [&](int64_t i) { return ends[static_cast<size_t>(i)]; });
      const Twin<int32_t> root({1}, static_cast<int32_t>(vertices / 2));
      for (const int32_t siblings : {TREESCAN_BY_VERTEX, TREESCAN_BY_EDGE}) {
        const Output output(2, vertices, true);
        const treescan_tree_output cpu = output.cpu(), cuda = output.cuda();
        SUCCEEDS(treescan_tree_from_edges(edges.cpu(), root.cpu(), siblings, &cpu, nullptr, nullptr));
        SUCCEEDS(treescan_tree_from_edges(edges.cuda(), root.cuda(), siblings, &cuda, nullptr, nullptr));
        SUCCEEDS(synchronize());
        CHECK(output.same(), vertices, " vertices, siblings ", siblings);
      }
    }
  });
}

namespace {

// Random parents, the first vertex in a random order being the root; with forests, one in eight is a root as well, and
// one in eight with all below it in no tree.
std::vector<int32_t> random_parents(int64_t vertices, bool forest, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> names(static_cast<size_t>(vertices)), parents(static_cast<size_t>(vertices));
  for (int32_t v = 0; v < vertices; ++v) names[static_cast<size_t>(v)] = v;
  std::shuffle(names.begin(), names.end(), random);
  for (size_t v = 0; v < names.size(); ++v) {
    const auto kind = forest ? random() % 8 : 7;
    const int32_t above = v == 0 ? names[0] : names[random() % v];
    const auto own = static_cast<size_t>(names[v]);
    parents[own] = kind == 0 ? -1 : kind == 1 ? names[v] : above;
    if (parents[static_cast<size_t>(above)] < 0) parents[own] = -1;
  }
  return parents;
}

treescan_status from_parents(bool forest, const treescan_tensor *parent, const treescan_tensor *root,
                             const treescan_tree_output &tree) {
  return forest ? treescan_forest_from_parents(parent, &tree, nullptr, nullptr)
                : treescan_tree_from_parents(parent, root, &tree, nullptr, nullptr);
}

}  // namespace

TEST(trees_and_forests_from_parents) {
  with_both_teams([] {
    for (const int64_t vertices : {1, 2, 3, 40, 300})
      for (const bool forest : {false, true}) {
        std::vector<int32_t> parents = random_parents(vertices, forest, 4);
        for (const int32_t p : random_parents(vertices, forest, 5)) parents.push_back(p);
        const Twin<int32_t> parent({2, vertices}, [&](int64_t i) { return parents[static_cast<size_t>(i)]; }, {1, 3});
        const Twin<int32_t> root({2}, [&](int64_t i) { return i == 0 ? vertices - 1 : vertices / 2; });
        for (const bool moved : {false, !forest}) {
          const Output output(2, vertices, false, false);
          SUCCEEDS(from_parents(forest, parent.cpu(), moved ? root.cpu() : nullptr, output.cpu()));
          SUCCEEDS(from_parents(forest, parent.cuda(), moved ? root.cuda() : nullptr, output.cuda()));
          SUCCEEDS(synchronize());
          CHECK(output.same(), vertices, forest ? " vertices, a forest" : " vertices, a tree", moved ? ", moved" : "");
        }
      }
  });
}

namespace {

// A call on two items, of which only the second is wrong: the device says what the CPU says, and gives the first one its
// tree and the second one nothing.
void expect_same_fault(const char *what, int64_t vertices, bool has_edges,
                       const std::function<treescan_status(bool cuda, const treescan_tree_output &)> &call) {
  const Output output(2, vertices, false, has_edges);
  const treescan_status expected = call(false, output.cpu());
  const std::string message = treescan_last_error();
  CHECK(expected != TREESCAN_OK, what);
  SUCCEEDS(call(true, output.cuda()));
  EQUAL(synchronize(), expected);
  EQUAL(std::string(treescan_last_error()), message);
  CHECK(output.all_minus_one(1, vertices), what);
  CHECK(!output.all_minus_one(0, vertices), what);
  SUCCEEDS(synchronize());  // it is said once
}

template <class Index>
void expect_graph_fault(const char *what, int64_t vertices, const Twin<Index> &list, int32_t wrong_root,
                        const Twin<int32_t> *segments = nullptr) {
  const TwinGraph graph = edge_list(vertices, list);
  const Twin<float> cost({2, graph.edges()}, cost_of);
  const Twin<int32_t> root({2}, [&](int64_t i) { return i == 1 ? wrong_root : 0; });
  expect_same_fault(what, vertices, true, [&](bool cuda, const treescan_tree_output &tree) {
    const treescan_tensor *const labels = segments ? (cuda ? segments->cuda() : segments->cpu()) : nullptr;
    return build(Kind::minimum, cuda ? graph.cuda : graph.cpu, cuda ? cost.cuda() : cost.cpu(),
                 cuda ? root.cuda() : root.cpu(), labels, tree);
  });
}

}  // namespace

TEST(faults_of_graphs) {
  with_both_teams([] {
    constexpr int64_t vertices = 35;
    for (const int64_t wrong : {int64_t{-1}, vertices, int64_t{1} << 40}) {
      const Twin<int64_t> list({2, vertices - 1, 2}, [&](int64_t i) {
        return i == 2 * vertices + 7 ? wrong : i / 2 % (vertices - 1) + i % 2;
      });
      expect_graph_fault("an end out of range", vertices, list, 0);
    }
    const Twin<int32_t> parts({2, vertices, 2}, [&](int64_t i) {  // the second item's edges lead three or none ahead
      return i < 2 * vertices ? i / 2 % (vertices - 1) + i % 2 : i / 2 % 30 + i % 2 * (i / 2 % 2 * 3);
    });
    expect_graph_fault("parts", vertices, parts, 0);
    const Twin<int32_t> chain_list({vertices, 2}, [&](int64_t i) { return i / 2 % (vertices - 1) + i % 2; });
    const Twin<int32_t> one({1, vertices}, 0);
    expect_graph_fault("a root below", vertices, chain_list, -1);
    expect_graph_fault("a root above", vertices, chain_list, vertices, &one);
  });
}

TEST(faults_of_lists_that_should_be_trees) {
  with_both_teams([] {
    constexpr int64_t vertices = 36;
    const Twin<int32_t> root({1}, 33);
    const auto expect_edges_fault = [&](const char *what, const std::function<int64_t(int64_t)> &second) {
      const Twin<int64_t> edges({2, vertices - 1, 2}, [&](int64_t i) {
        return i < 2 * (vertices - 1) ? i / 2 + i % 2 : second(i - 2 * (vertices - 1));
      });
      expect_same_fault(what, vertices, true, [&](bool cuda, const treescan_tree_output &tree) {
        return treescan_tree_from_edges(cuda ? edges.cuda() : edges.cpu(), cuda ? root.cuda() : root.cpu(),
                                        TREESCAN_BY_EDGE, &tree, nullptr, nullptr);
      });
    };
    expect_edges_fault("below", [](int64_t i) { return i == 5 ? -1 : i / 2 + i % 2; });
    expect_edges_fault("above", [](int64_t i) { return i == 5 ? vertices : i / 2 + i % 2; });
    expect_edges_fault("a loop", [](int64_t i) { return i == 41 ? 20 : i / 2 + i % 2; });
    expect_edges_fault("a cycle", [](int64_t i) { return i == 41 ? 0 : i / 2 + i % 2; });
  });
}

TEST(faults_of_parents) {
  with_both_teams([] {
    constexpr int64_t vertices = 36;
    const Twin<int32_t> roots({2}, [](int64_t i) { return i == 1 ? 36 : 0; });
    const auto expect_parents_fault = [&](const char *what, bool forest, const std::function<int64_t(int64_t)> &second,
                                          bool moved = false) {
      const Twin<int32_t> parent({2, vertices}, [&](int64_t i) {
        return i < vertices ? std::max<int64_t>(i - 1, 0) : second(i - vertices);
      });
      expect_same_fault(what, vertices, false, [&](bool cuda, const treescan_tree_output &tree) {
        const treescan_tensor *const root = moved ? (cuda ? roots.cuda() : roots.cpu()) : nullptr;
        return from_parents(forest, cuda ? parent.cuda() : parent.cpu(), root, tree);
      });
    };
    for (const bool forest : {false, true}) {
      expect_parents_fault("below", forest, [](int64_t v) { return v == 3 ? -2 : 0; });
      expect_parents_fault("above", forest, [](int64_t v) { return v == 3 ? vertices : 0; });
      expect_parents_fault("a cycle", forest, [](int64_t v) { return v < 4 ? 0 : v == 4 ? vertices - 1 : v - 1; });
    }
    expect_parents_fault("hanging from none", true, [](int64_t v) { return v < 5 ? v : v == 5 ? -1 : v - 1; });
    expect_parents_fault("no root", false, [](int64_t v) { return v == 0 ? 1 : v - 1; });
    expect_parents_fault("more than one root", false, [](int64_t v) { return v % 7 == 3 ? v : v / 2; });
    expect_parents_fault("some missing", false, [](int64_t v) { return v == 3 || v == 30 ? -1 : 0; });
    expect_parents_fault("a new root out of range", false, [](int64_t) { return 0; }, true);
  });
}

namespace {

// How many rounds Boruvka's algorithm takes.
int rounds_of(const treescan_graph &graph, const std::vector<float> &costs) {
  int64_t vertices = 0;
  SUCCEEDS(treescan_graph_num_vertices(&graph, &vertices));
  std::vector<int32_t> ends(2 * costs.size());
  const treescan::tensor_view view(ends.data(), {static_cast<int64_t>(costs.size()), 2});
  SUCCEEDS(treescan_graph_edges(&graph, &view));
  std::vector<size_t> above(static_cast<size_t>(vertices));
  for (size_t v = 0; v < above.size(); ++v) above[v] = v;
  const auto part = [&](int32_t end) {
    auto v = static_cast<size_t>(end);
    while (above[v] != v) v = above[v];
    return v;
  };
  for (int rounds = 0;; ++rounds) {
    std::map<size_t, std::pair<float, size_t>> best;  // by part: cost and edge
    for (size_t e = 0; e < costs.size(); ++e) {
      const size_t a = part(ends[2 * e]), b = part(ends[2 * e + 1]);
      if (a == b) continue;
      for (const size_t v : {a, b}) {
        const auto found = best.try_emplace(v, costs[e], e).first;
        found->second = std::min(found->second, {costs[e], e});
      }
    }
    if (best.empty()) return rounds;
    for (const auto &entry : best) {
      const size_t e = entry.second.second;
      above[part(ends[2 * e])] = part(ends[2 * e + 1]);
    }
  }
}

treescan::emulation::Counters counters_of(const Report &report) {
  EQUAL(report.kernels.size(), size_t{1});
  return report.kernels.begin()->second;
}

// The kernel that builds a tree on the device.
treescan::emulation::Counters count(const char *team, const TwinGraph &graph, const std::vector<float> &costs) {
  return counters_of(run_clean(team, [&] {
    const Twin<float> cost({1, graph.edges()}, [&](int64_t i) { return costs[static_cast<size_t>(i)]; });
    const Twin<int32_t> root({1}, 0);
    const Output output(1, graph.vertices());
    SUCCEEDS(build(Kind::minimum, graph.cuda, cost.cuda(), root.cuda(), nullptr, output.cuda()));
  }));
}

std::vector<float> random_costs(int64_t edges) {
  std::mt19937 random(7);
  std::vector<float> costs(static_cast<size_t>(edges));
  for (float &cost : costs) cost = static_cast<float>(random() >> 8);
  return costs;
}

}  // namespace

TEST(launches) {
  for (const char *team : {"block", "grid"})
    for (const Kind kind : {Kind::minimum, Kind::random}) {
      int64_t launches = 0;
      const Report report = run_clean(team, [&] { compare("a batch", grid(5, 6, 4), 20, kind); });
      for (const auto &kernel : report.kernels) launches += kernel.second.launches;
      EQUAL(launches, kind == Kind::random ? 2 : 1);
    }
}

TEST(teams_by_size) {
  const auto team_of = [](int64_t vertices) {
    return run_clean("auto", [&] { compare("a chain", chain(vertices), 1); }).kernels.begin()->first;
  };
  EQUAL(team_of(100), std::string("build_by_block<Trees>"));
  if (long_form()) EQUAL(team_of(40000), std::string("build_by_grid<Trees>"));
}

// With rooting, though rounds are Boruvka's alone.
TEST(traffic_for_each_round) {
  if (!treescan::emulation::sees_accesses()) return;
  const TwinGraph graph = grid(56, 56, 4);
  const std::vector<float> costs = random_costs(graph.edges());
  const int rounds = rounds_of(graph.cpu, costs);
  for (const char *team : {"block", "grid"}) {
    const treescan::emulation::Counters counters = count(team, graph, costs);
    const double bytes = static_cast<double>(counters.loads.bytes + counters.stores.bytes) /
                         static_cast<double>(rounds * graph.vertices());
    CHECK(bytes <= (team[0] == 'b' ? 10 : 200), team, ": ", bytes, " bytes per vertex in each of ", rounds, " rounds");
  }
}

TEST(barriers_of_a_chain_and_of_a_random_tree) {
  const int64_t vertices = long_form() ? 65536 : 500;
  const std::vector<int64_t> ends = random_tree(vertices, 8);
  for (const char *team : {"block", "grid"}) {
    double barriers[2];
    for (const bool chain : {false, true}) {
      const Report report = run_clean(team, [&] {
        const Twin<int32_t> list({vertices - 1, 2}, [&](int64_t i) {
          return chain ? i / 2 + i % 2 : ends[static_cast<size_t>(i)];
        });
        const std::vector<float> random = random_costs(vertices - 1);
        const Twin<float> cost({1, vertices - 1}, [&](int64_t i) {  // the chain's falls together in one round
          return chain ? static_cast<float>(i) : random[static_cast<size_t>(i)];
        });
        const Twin<int32_t> root({1}, 0);
        const TwinGraph graph = edge_list(vertices, list);
        const Output output(1, vertices);
        SUCCEEDS(build(Kind::minimum, graph.cuda, cost.cuda(), root.cuda(), nullptr, output.cuda()));
      });
      barriers[chain] = static_cast<double>(counters_of(report).most_barriers_of_a_block);
    }
    CHECK(std::max(barriers[0], barriers[1]) <= 2 * std::min(barriers[0], barriers[1]), team, ": ", barriers[0],
          " barriers for a random tree, ", barriers[1], " for a chain");
  }
}

TEST(no_schedule_finds_anything) {
  for (const char *team : {"block", "grid"}) {
    SUCCEEDS(treescan_set_cuda_trees(team));
    expect_clean(team, [] {
      compare("a grid", grid(5, 7, 8), 2);
      const Twin<int32_t> segments({1, 35}, [](int64_t i) { return i / 4 % 3 - 1; });
      compare("segments", grid(5, 7, 4), 1, Kind::random, nullptr);
      compare("segments", grid(5, 7, 4), 1, Kind::maximum, &segments);
      const Twin<int32_t> list({60, 2}, [](int64_t i) { return i % 2 ? i / 2 % 34 + 1 : i * 7 % 35; });
      compare("a list", edge_list(35, list), 1, Kind::minimum, &segments);
      const std::vector<int32_t> parents = random_parents(40, false, 6);
      const Twin<int32_t> parent({1, 40}, [&](int64_t i) { return parents[static_cast<size_t>(i)]; });
      const Output output(1, 40, false, false);
      SUCCEEDS(from_parents(false, parent.cpu(), nullptr, output.cpu()));
      SUCCEEDS(from_parents(false, parent.cuda(), nullptr, output.cuda()));
      SUCCEEDS(synchronize());
      CHECK(output.same());
    });
  }
  SUCCEEDS(treescan_set_cuda_trees("auto"));
}

TEST_MAIN
