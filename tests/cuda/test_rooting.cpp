// Forests rooted by teams against a plain breadth-first search.
#include "test_rooting.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "cuda_test.h"

using namespace cuda_test;
using treescan::cuda::RootingScratch;

namespace {

using Numbers = std::vector<int32_t>;

struct Edge {
  int32_t a, b;
};

struct Forest {
  int32_t vertices;
  std::vector<Edge> edges;
  Numbers roots;  // ascending
};

struct HalfEdge {
  int32_t label, neighbour, edge;
};

std::vector<std::vector<HalfEdge>> neighbours(const Forest &forest, bool by_edge) {
  std::vector<std::vector<HalfEdge>> lists(static_cast<size_t>(forest.vertices));
  int32_t index = 0;
  for (const Edge e : forest.edges) {
    lists[static_cast<size_t>(e.a)].push_back({by_edge ? index : e.b, e.b, index});
    lists[static_cast<size_t>(e.b)].push_back({by_edge ? index : e.a, e.a, index});
    ++index;
  }
  for (auto &list : lists)
    std::sort(list.begin(), list.end(), [](const HalfEdge &x, const HalfEdge &y) { return x.label < y.label; });
  return lists;
}

struct Rooted {
  Numbers parent, order, depth, edge, root_of;
};

Rooted search(const Forest &forest, bool by_edge) {
  const auto lists = neighbours(forest, by_edge);
  const auto count = static_cast<size_t>(forest.vertices);
  Rooted tree{Numbers(count, -1), forest.roots, Numbers(count, -1), Numbers(count, -1), Numbers(count, -1)};
  for (const int32_t root : forest.roots) {
    tree.parent[static_cast<size_t>(root)] = tree.root_of[static_cast<size_t>(root)] = root;
    tree.depth[static_cast<size_t>(root)] = 0;
  }
  for (size_t i = 0; i < tree.order.size(); ++i) {
    const int32_t vertex = tree.order[i];
    const auto v = static_cast<size_t>(vertex);
    for (const HalfEdge &h : lists[v]) {
      const auto w = static_cast<size_t>(h.neighbour);
      if (tree.parent[w] >= 0) continue;
      tree.parent[w] = vertex;
      tree.depth[w] = tree.depth[v] + 1;
      tree.edge[w] = h.edge;
      tree.root_of[w] = tree.root_of[v];
      tree.order.push_back(h.neighbour);
    }
  }
  for (size_t v = 0; v < count; ++v)
    if (tree.parent[v] < 0) tree.order.push_back(static_cast<int32_t>(v));
  return tree;
}

// parent_of(v, random) is a vertex before v; labels are shuffled afterwards, and so are edges and their ends.
template <class ParentOf>
Forest tree(int32_t vertices, unsigned seed, ParentOf &&parent_of) {
  std::mt19937 random(seed);
  Numbers label(static_cast<size_t>(vertices));
  std::iota(label.begin(), label.end(), 0);
  if (seed > 0) std::shuffle(label.begin(), label.end(), random);
  Forest forest{vertices, {}, {}};
  for (int32_t v = 1; v < vertices; ++v) {
    Edge e{label[static_cast<size_t>(v)], label[static_cast<size_t>(parent_of(v, random))]};
    if (random() % 2) std::swap(e.a, e.b);
    forest.edges.push_back(e);
  }
  if (seed > 0) std::shuffle(forest.edges.begin(), forest.edges.end(), random);
  forest.roots.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(vertices)));
  return forest;
}

Forest random_tree(int32_t vertices, unsigned seed) {
  return tree(vertices, seed, [](int32_t v, std::mt19937 &random) {
    return static_cast<int32_t>(random() % static_cast<unsigned>(v));
  });
}
Forest chain(int32_t vertices, unsigned seed) {
  return tree(vertices, seed, [](int32_t v, std::mt19937 &) { return v - 1; });
}
Forest star(int32_t vertices, unsigned seed) {
  return tree(vertices, seed, [](int32_t, std::mt19937 &) { return 0; });
}
Forest caterpillar(int32_t vertices, unsigned seed) {
  return tree(vertices, seed, [](int32_t v, std::mt19937 &) { return v % 3 == 0 ? v - (v > 2 ? 3 : 1) : v - v % 3; });
}

// A random tree without some of its edges, every part with a root of its own; of vertices by themselves, some are in no
// tree.
Forest forest_of(int32_t vertices, unsigned seed, unsigned kept_percent) {
  Forest forest = random_tree(vertices, seed);
  std::mt19937 random(seed);
  forest.edges.erase(std::remove_if(forest.edges.begin(), forest.edges.end(),
                                    [&](const Edge &) { return random() % 100 >= kept_percent; }),
                     forest.edges.end());
  const auto lists = neighbours(forest, false);
  forest.roots.clear();
  Numbers order(static_cast<size_t>(vertices));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  for (const int32_t v : order) {
    if (search(forest, false).parent[static_cast<size_t>(v)] >= 0) continue;
    if (!lists[static_cast<size_t>(v)].empty() || random() % 2) forest.roots.push_back(v);
    std::sort(forest.roots.begin(), forest.roots.end());
  }
  return forest;
}

// Forests of one size on the device, and what the search makes of them.
class Batch {
 public:
  Batch(const std::vector<Forest> &forests, bool by_edge) : items_(forests.size()), by_edge_(by_edge) {
    vertices_ = forests[0].vertices;
    for (const Forest &forest : forests) {
      const auto lists = neighbours(forest, by_edge);
      const size_t before = neighbour_.size();
      for (const auto &list : lists) {
        offsets_.push_back(static_cast<uint32_t>(neighbour_.size() - before));
        for (const HalfEdge &h : list) {
          neighbour_.push_back(h.neighbour);
          edge_.push_back(h.edge);
        }
      }
      offsets_.push_back(static_cast<uint32_t>(neighbour_.size() - before));
      neighbour_.resize(before + 2 * lists.size(), -7);
      edge_.resize(before + 2 * lists.size(), -7);
      expected_.push_back(search(forest, by_edge));
      root_of_.insert(root_of_.end(), expected_.back().root_of.begin(), expected_.back().root_of.end());
    }
  }

  // `all`: every output, in arrays with gaps; otherwise only parents.
  void check(const char *what, bool grid, unsigned blocks, unsigned threads, bool all = true) const {
    const DeviceArray<uint32_t> offsets(offsets_);
    const DeviceArray<int32_t> neighbour(neighbour_), edge(edge_), root_of(root_of_);
    const auto bytes = static_cast<size_t>(RootingScratch::bytes(vertices_));
    const DeviceArray<char> scratch(bytes * (grid ? 1 : blocks));
    const auto items = static_cast<int64_t>(items_);
    const std::vector<int64_t> sizes{items, vertices_}, strides{2 * vertices_ + 3, 2};
    const Twin<int32_t> parent(sizes, -7), order(sizes, -7, strides), depth(sizes, -7, strides), edges(sizes, -7);
    const treescan_tree_output output{parent.cuda(), all ? order.cuda() : nullptr, all ? depth.cuda() : nullptr,
                                      all ? edges.cuda() : nullptr};
    const Forests forests{items, vertices_, {offsets, neighbour, edge, by_edge_}, root_of, scratch};
    succeed((grid ? root_by_grid : root_by_blocks)(forests, output, blocks, threads), what);
    compare(what, "parent", parent, &Rooted::parent);
    if (!all) return;
    compare(what, "order", order, &Rooted::order);
    compare(what, "depth", depth, &Rooted::depth);
    compare(what, "edge", edges, &Rooted::edge);
  }

 private:
  void compare(const char *what, const char *output, const Twin<int32_t> &actual, Numbers Rooted::*field) const {
    Numbers expected;
    for (const Rooted &tree : expected_) expected.insert(expected.end(), (tree.*field).begin(), (tree.*field).end());
    CHECK(actual.on_device() == expected, what, ": ", output, by_edge_ ? ", by edge" : ", by vertex");
  }

  size_t items_;
  bool by_edge_;
  int64_t vertices_;
  std::vector<uint32_t> offsets_;
  Numbers neighbour_, edge_, root_of_;
  std::vector<Rooted> expected_;
};

// Both teams: under every schedule, or once.
void expect_rooted(const char *what, const std::vector<Forest> &forests, bool every_schedule) {
  for (const bool by_edge : {false, true}) {
    const Batch batch(forests, by_edge);
    const auto host_code = [&] {
      batch.check(what, false, 2, 32);
      batch.check(what, true, 3, 32);
      batch.check(what, false, 1, 128);
    };
    if (every_schedule || long_form()) {
      expect_clean(what, host_code);
    } else {
      const Report report = treescan::emulation::run({Schedule::random, 1}, host_code);
      CHECK(report.findings.empty(), what, ":\n", report.text());
    }
  }
}

}  // namespace

TEST(trees_of_every_form) {
  for (const int32_t vertices : {1, 2, 3, 17})
    expect_rooted("small trees", {random_tree(vertices, 1), chain(vertices, 2), star(vertices, 3), caterpillar(vertices, 4)},
                  true);
  for (const int32_t vertices : {64, 131, 400})
    expect_rooted("trees", {random_tree(vertices, 5), chain(vertices, 0), chain(vertices, 6), star(vertices, 7),
                            star(vertices, 0), caterpillar(vertices, 8), caterpillar(vertices, 0)},
                  false);
}

TEST(every_root) {
  std::vector<Forest> trees;
  for (int32_t root = 0; root < 13; ++root) {
    trees.push_back(random_tree(13, 3));
    trees.back().roots = {root};
  }
  expect_rooted("every root", trees, false);
  for (unsigned seed = 1; seed < 30; ++seed) trees.push_back(random_tree(13, seed));
  expect_rooted("many trees", trees, false);
}

TEST(forests) {
  expect_rooted("small forests", {forest_of(21, 1, 90), forest_of(21, 2, 60), forest_of(21, 3, 20)}, true);
  expect_rooted("forests", {forest_of(300, 4, 99), forest_of(300, 5, 80), forest_of(300, 6, 3)}, false);
  expect_rooted("no tree at all", {Forest{5, {}, {}}, Forest{5, {}, {0, 1, 2, 3, 4}}, Forest{5, {}, {4}}}, true);
}

TEST(parents_alone) {
  const Batch batch({random_tree(40, 1), forest_of(40, 2, 70), chain(40, 3)}, false);
  expect_clean("parents alone", [&] {
    batch.check("parents alone", false, 1, 64, false);
    batch.check("parents alone", true, 2, 32, false);
  });
}

// However deep a tree is, and whatever its degrees.
TEST(barriers_grow_with_the_logarithm) {
  const int32_t vertices = long_form() ? 65536 : 4096;
  const auto barriers = [&](const Forest &forest, bool grid) {
    const Batch batch({forest}, false);
    const Report report = treescan::emulation::run({}, [&] { batch.check("large", grid, grid ? 4 : 1, 256); });
    CHECK(report.findings.empty(), report.text());
    const auto &counters = report.kernels.begin()->second;
    return grid ? counters.grid_barriers : counters.most_barriers_of_a_block;
  };
  for (const bool grid : {false, true}) {
    const int64_t of_random = barriers(random_tree(vertices, 1), grid);
    const int64_t of_chain = barriers(chain(vertices, 2), grid), of_star = barriers(star(vertices, 3), grid);
    std::printf("%d vertices, %s: %lld barriers for a random tree, %lld for a chain, %lld for a star\n", vertices,
                grid ? "grid" : "block", static_cast<long long>(of_random), static_cast<long long>(of_chain),
                static_cast<long long>(of_star));
    CHECK(of_chain <= 4 * of_random && of_random <= 4 * of_chain, of_chain, " and ", of_random);
    CHECK(of_chain <= 100 && of_star <= 100, of_chain, " and ", of_star);
  }
}

TEST_MAIN
