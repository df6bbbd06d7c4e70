// Minimum, maximum and random spanning trees, and trees from edges and from parents.
#include <map>
#include <optional>
#include <set>

#include "naive.h"

namespace {

// The four outputs of a call, each with strides of its own.
struct Outputs {
  Array<int32_t> parent, order, depth, edge;

  Outputs(int64_t b, int64_t v)
      : parent({b, v}), order({b, v}, {v + 3, 1}), depth({b, v}, {1, b}), edge({b, v}, {-2 * v, 2}) {}

  treescan_status write(const std::function<treescan_status(const treescan_tree_output *)> &call,
                        bool with_edge = true) {
    const treescan::tensor_view p = parent.view(), o = order.view(), d = depth.view(), e = edge.view();
    const treescan_tree_output output{&p, &o, &d, with_edge ? &e : nullptr};
    return call(&output);
  }

  naive::Tree item(int64_t b) const {
    const auto part = [&](const Array<int32_t> &array) {
      const std::vector<double> all = array.values();
      const auto v = static_cast<std::ptrdiff_t>(array.sizes()[1]);
      return std::vector<double>(all.begin() + b * v, all.begin() + (b + 1) * v);
    };
    return {part(parent), part(order), part(depth), part(edge)};
  }
};

void check_tree(const naive::Tree &got, const naive::Tree &expected, bool with_edge = true) {
  CHECK(got.parent == expected.parent, "parent");
  CHECK(got.order == expected.order, "order");
  CHECK(got.depth == expected.depth, "depth");
  CHECK(!with_edge || got.edge == expected.edge, "edge");
}

naive::Edges edges_of(const treescan::graph &graph) {
  const std::vector<int32_t> flat = graph.edges();
  naive::Edges edges;
  for (size_t i = 0; i < flat.size(); i += 2) edges.push_back({flat[i], flat[i + 1]});
  return edges;
}

using Draw = std::function<double(std::mt19937 &)>;
const float infinity = std::numeric_limits<float>::infinity();
const std::vector<Draw> draws = {
    [](std::mt19937 &g) { return std::uniform_real_distribution<double>(-1, 1)(g); },
    [](std::mt19937 &g) { return static_cast<double>(g() % 3) - 1; },  // ties, zeros, negative costs
    [](std::mt19937 &) { return 0.25; },
    [](std::mt19937 &g) {
      const double special[] = {-infinity, infinity, NAN, -NAN, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38};
      return special[g() % 10];
    }};

using HasEdge = std::function<bool(int64_t, std::array<int32_t, 2>)>;

template <class T>
void check_spanning_trees_of(const std::vector<Draw> &draws_of_type, const treescan::graph &graph, const HasEdge &has,
                             int64_t batch, bool flushed = false) {
  const naive::Edges edges = edges_of(graph);
  const auto vertices = static_cast<int32_t>(graph.num_vertices());
  const auto count = static_cast<int64_t>(edges.size());
  const treescan_graph description = graph.c();
  std::mt19937 generator(7);
  for (const Draw &draw : draws_of_type) {
    Array<T> cost({batch, count}, {1, batch});
    cost.fill([&](int64_t) { return draw(generator); });
    for (const bool maximum : {false, true})
      for (const bool own_roots : {false, true}) {
        Array<int32_t> root({own_roots ? batch : 1}, {2});
        root.fill([&](int64_t i) { return static_cast<double>((vertices / 2 + i * 3) % vertices); });
        Outputs outputs(batch, vertices);
        testing::in_every_setting(
            [&](treescan_workspace *workspace) {
              const treescan::tensor_view c = cost.view(), r = root.view();
              return outputs.write([&](const treescan_tree_output *output) {
                std::optional<testing::FlushedDenormals> denormals;
                if (flushed) denormals.emplace();
                return treescan_minimum_spanning_tree(&description, &c, maximum, &r, nullptr, output, workspace, nullptr);
              });
            },
            outputs.parent, outputs.order, outputs.depth, outputs.edge);
        for (int64_t item = 0; item < batch; ++item) {
          const std::vector<double> all = cost.values();
          const std::vector<double> own(all.begin() + item * count, all.begin() + (item + 1) * count);
          check_tree(outputs.item(item),
                     naive::minimum_spanning_tree(vertices, edges, own, root[own_roots ? item : 0], maximum,
                                                  [&](size_t e) { return !has || has(item, edges[e]); }));
        }
      }
  }
}

void check_spanning_trees(const treescan::graph &graph, const HasEdge &has = {}, int64_t batch = 3) {
  check_spanning_trees_of<float>(draws, graph, has, batch);
  std::vector<Draw> doubles = draws;
  doubles.push_back([](std::mt19937 &g) { return 1 + static_cast<double>(g() % 5) * 1e-9; });  // equal in float32
  doubles.push_back([](std::mt19937 &g) {
    const auto exponent = static_cast<int>(g() % 2000) - 1074;
    return std::ldexp(static_cast<double>(g()), exponent);
  });
  check_spanning_trees_of<double>(doubles, graph, has, batch);
  const Draw ties = draws[1], close = [](std::mt19937 &g) { return 2147483647.0 - static_cast<double>(g() % 5); },
             any = [](std::mt19937 &g) { return static_cast<double>(g()) - 2147483648.0; };
  check_spanning_trees_of<int32_t>({ties, close, any}, graph, has, batch);
  const Draw wide = [](std::mt19937 &g) {
    const auto exponent = static_cast<int>(g() % 32);
    return std::ldexp(static_cast<double>(g()) - 2147483648.0, exponent);
  };
  check_spanning_trees_of<int64_t>({ties, close, any, wide}, graph, has, batch);
}

}  // namespace

TEST(trees_of_grids) {
  const int32_t shapes[][2] = {{1, 1}, {1, 6}, {6, 1}, {2, 2}, {3, 4}, {7, 5}};
  for (const auto &[h, w] : shapes)
    for (const int32_t connectivity : {4, 8}) check_spanning_trees(treescan::grid(h, w, connectivity));
}

TEST(trees_of_chains_and_tokens) {
  for (const int64_t length : {1, 2, 9}) check_spanning_trees(treescan::chain(length));
  for (const int64_t window : {1, 3, 30}) check_spanning_trees(treescan::tokens(10, window));
  const int64_t lengths[] = {4, 10, 0};
  check_spanning_trees(
      treescan::tokens(10, 3, treescan::tensor_view(lengths, {3})),
      [&](int64_t item, std::array<int32_t, 2> e) { return e[1] - e[0] == 1 || e[0] >= 10 - lengths[item]; });
  check_spanning_trees(treescan::tokens(10, 3, treescan::tensor_view(lengths, {1})));
}

// Loops and parallel edges are legal; a loop is never in a tree, and of equal parallel edges the first is.
TEST(trees_of_edge_lists) {
  const int32_t list[] = {3, 0, 1, 1, 0, 2, 2, 1, 2, 1, 4, 4, 4, 3, 0, 3};
  check_spanning_trees(treescan::edge_list(treescan::tensor_view(list, {8, 2}), 5));
  const Array<int64_t> strided = std::move(Array<int64_t>({8, 2}, {-1, 30}).fill([&](int64_t i) { return list[i]; }));
  check_spanning_trees(treescan::edge_list(strided.view(), 5));
  const Array<int32_t> none({0, 2});
  check_spanning_trees(treescan::edge_list(none.view(), 1));
}

// The order of costs is that of their bits, whatever the processor takes them for.
TEST(trees_of_costs_too_small_to_be_normal) {
  const int32_t list[] = {0, 1, 0, 2, 1, 2};
  for (const treescan::graph &graph : {treescan::grid(7, 5), treescan::grid(4, 4, 8), treescan::tokens(10, 3),
                                       treescan::edge_list(treescan::tensor_view(list, {3, 2}), 3)}) {
    const auto multiples_of = [](double least) {
      return std::vector<Draw>{[=](std::mt19937 &g) { return least * (static_cast<double>(g() % 9) - 4); },
                               [=](std::mt19937 &g) { return g() % 3 ? least * static_cast<double>(g()) : -0.0; }};
    };
    check_spanning_trees_of<float>(multiples_of(0x1p-149), graph, {}, 3, true);
    check_spanning_trees_of<double>(multiples_of(0x1p-1074), graph, {}, 3, true);
    check_spanning_trees_of<double>(multiples_of(0x1p-149), graph, {}, 3, true);
  }
}

// Whole numbers that a double has no room for, and the ends of their types.
TEST(trees_of_large_integers) {
  const int32_t list[] = {0, 1, 0, 2, 1, 2};
  const treescan::graph triangle = treescan::edge_list(treescan::tensor_view(list, {3, 2}), 3);
  const auto dearest = [&](const auto *cost, bool maximum) {  // the edge that is left out
    const treescan::tree tree = treescan::minimum_spanning_tree(triangle, {cost, {1, 3}}, {0}, maximum);
    return 3 - std::max(0, tree.edge[1]) - std::max(0, tree.edge[2]);
  };
  const int64_t large[] = {(int64_t{1} << 53) + 1, int64_t{1} << 53, (int64_t{1} << 53) + 2};
  EQUAL(dearest(large, false), 2);
  EQUAL(dearest(large, true), 1);
  const int64_t ends[] = {INT64_MAX, INT64_MIN, INT64_MAX - 1};
  EQUAL(dearest(ends, false), 0);
  EQUAL(dearest(ends, true), 1);
  const int32_t narrow[] = {INT32_MIN, INT32_MAX, INT32_MAX - 1};
  EQUAL(dearest(narrow, false), 1);
  EQUAL(dearest(narrow, true), 0);
}

TEST(trees_of_batched_edge_lists) {
  // Item 0 is the chain 0-1-2-3, item 1 the star around 3.
  const int32_t list[] = {0, 1, 1, 2, 2, 3, 3, 0, 3, 1, 3, 2};
  const std::vector<float> cost(6, 1.0f);
  const treescan::tree tree = treescan::minimum_spanning_tree(
      treescan::edge_list(treescan::tensor_view(list, {2, 3, 2}), 4), {cost.data(), {2, 3}});
  const std::vector<int32_t> parent{0, 0, 1, 2, 0, 3, 3, 0}, edge{-1, 0, 1, 2, -1, 1, 2, 0},
      depth{0, 1, 2, 3, 0, 2, 2, 1};
  CHECK(tree.parent == parent);
  CHECK(tree.edge == edge);
  CHECK(tree.depth == depth);
}

// A list that a stride of 0 repeats for every item is that one list.
TEST(trees_of_an_expanded_edge_list) {
  const int32_t list[] = {0, 1, 1, 2, 2, 3};
  const std::vector<float> cost(9, 1.0f);
  const treescan::graph graph = treescan::edge_list(treescan::tensor_view(list, {3, 3, 2}, {0, 2, 1}), 4);
  const treescan::tree tree = treescan::minimum_spanning_tree(graph, {cost.data(), {3, 3}}, {3});
  for (size_t i = 0; i < tree.parent.size(); ++i)
    EQUAL(tree.parent[i], std::min<int32_t>(3, static_cast<int32_t>(i % 4) + 1));
}

TEST(an_empty_batch_has_no_trees) {
  const Array<float> cost({0, 17});
  const treescan::graph graph = treescan::grid(3, 4);
  EQUAL(treescan::minimum_spanning_tree(graph, cost.view()).parent.size(), size_t{0});
  EQUAL(treescan::random_spanning_tree(graph, cost.view(), 1, {}).parent.size(), size_t{0});
  EQUAL(treescan::tree_from_edges(Array<int32_t>({0, 3, 2}).view()).order.size(), size_t{0});
  EQUAL(treescan::tree_from_parents(Array<int32_t>({0, 3}).view()).order.size(), size_t{0});
}

TEST(outputs_that_are_not_wanted) {
  const treescan_graph graph = treescan::grid(2, 2).c();
  const Array<float> cost = std::move(Array<float>({1, 4}).fill([](int64_t) { return 0; }));
  const int32_t zero = 0;
  Array<int32_t> parent({1, 4});
  const treescan::tensor_view c = cost.view(), root(&zero, {1}), p = parent.view();
  const treescan_tree_output output{&p, nullptr, nullptr, nullptr};
  SUCCEEDS(treescan_minimum_spanning_tree(&graph, &c, 0, &root, nullptr, &output, nullptr, nullptr));
  CHECK(parent.values() == (std::vector<double>{0, 0, 0, 1}));
}

// Is this a spanning tree of the graph that is rooted here, in canonical order?
namespace {
void check_spans(const naive::Tree &tree, const naive::Edges &edges, int32_t vertices, int32_t root) {
  naive::Edges kept;
  std::vector<int32_t> indices;
  std::set<double> used;
  for (const double e : tree.edge)
    if (e >= 0 && used.insert(e).second) {
      kept.push_back(edges[static_cast<size_t>(e)]);
      indices.push_back(static_cast<int32_t>(e));
    }
  EQUAL(kept.size(), static_cast<size_t>(vertices - 1));
  check_tree(tree, naive::root_tree(vertices, kept, indices, root));
}
}  // namespace

TEST(random_trees_span) {
  const int64_t batch = 3;
  std::mt19937 generator(3);
  for (const Draw &draw : draws) {
    const treescan_graph graph = treescan::grid(5, 4, 8).c();
    const naive::Edges edges = naive::grid(5, 4, 8);
    const auto count = static_cast<int64_t>(edges.size());
    Array<float> cost({batch, count});
    cost.fill([&](int64_t) { return draw(generator); });
    const int32_t root = 7;
    for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, UINT64_MAX}) {
      Outputs outputs(batch, 20);
      testing::in_every_setting(
          [&](treescan_workspace *workspace) {
            const treescan::tensor_view c = cost.view(), r(&root, {1});
            return outputs.write([&](const treescan_tree_output *output) {
              return treescan_random_spanning_tree(&graph, &c, seed, &r, output, workspace, nullptr);
            });
          },
          outputs.parent, outputs.order, outputs.depth, outputs.edge);
      for (int64_t item = 0; item < batch; ++item) check_spans(outputs.item(item), edges, 20, root);
    }
  }
}

// The probabilities of the three trees of a triangle follow from the drawing; seeds and items are independent draws.
TEST(random_trees_are_drawn_by_cost) {
  const int32_t list[] = {0, 1, 1, 2, 2, 0};
  const double cost[] = {0, std::log(2), std::log(5)};
  const double weight[] = {1, 1.0 / 2, 1.0 / 5}, sum = 1 + 1.0 / 2 + 1.0 / 5;
  const int64_t batch = 2000;
  const treescan::graph graph = treescan::edge_list(treescan::tensor_view(list, {3, 2}), 3);
  const Array<float> costs = std::move(Array<float>({batch, 3}).fill([&](int64_t i) { return cost[i % 3]; }));
  const auto check_counts = [&](std::map<int, int> counts, double draws_made) {
    for (int last = 0; last < 3; ++last) {  // the edge that is drawn last is left out
      const int a = (last + 1) % 3, b = (last + 2) % 3;
      const double p =
          weight[a] / sum * weight[b] / (sum - weight[a]) + weight[b] / sum * weight[a] / (sum - weight[b]);
      const double deviation = std::sqrt(draws_made * p * (1 - p));
      CHECK(std::fabs(counts[last] - draws_made * p) < 4.5 * deviation, "edge ", last, " left out ", counts[last],
            " times of ", draws_made, ", expected ", draws_made * p);
    }
  };
  const auto left_out = [](const treescan::tree &tree, size_t item) {
    return 3 - (tree.edge[3 * item] + tree.edge[3 * item + 1] + tree.edge[3 * item + 2] + 1);  // the root's is -1
  };
  std::map<int, int> over_items, over_seeds;
  const treescan::tree trees = treescan::random_spanning_tree(graph, costs.view(), 5);
  for (size_t item = 0; item < static_cast<size_t>(batch); ++item) ++over_items[left_out(trees, item)];
  check_counts(over_items, static_cast<double>(batch));
  for (uint64_t seed = 0; seed < 2000; ++seed)
    ++over_seeds[left_out(treescan::random_spanning_tree(graph, {&costs[0], {1, 3}}, seed), 0)];
  check_counts(over_seeds, 2000);
}

TEST(trees_from_edges) {
  std::mt19937 generator(11);
  for (const int32_t vertices : {1, 2, 3, 12}) {
    const int64_t batch = 2;
    Array<int32_t> narrow({batch, vertices - 1, 2}, {1, 2 * batch, batch});
    Array<int64_t> wide({batch, vertices - 1, 2});
    naive::Edges edges[2];
    for (naive::Edges &list : edges) {
      for (int32_t v = 1; v < vertices; ++v) {
        const auto p = static_cast<int32_t>(generator() % static_cast<unsigned>(v));
        list.push_back(v % 2 ? std::array<int32_t, 2>{v, p} : std::array<int32_t, 2>{p, v});
      }
      std::shuffle(list.begin(), list.end(), generator);
    }
    const auto end = [&](int64_t i) {
      return edges[i / (2 * (vertices - 1))][static_cast<size_t>(i / 2 % (vertices - 1))][static_cast<size_t>(i % 2)];
    };
    narrow.fill(end);
    wide.fill(end);
    const int32_t roots[] = {vertices - 1, vertices / 2};
    for (const int32_t sibling_order : {TREESCAN_BY_VERTEX, TREESCAN_BY_EDGE})
      for (const treescan::tensor_view &view : {narrow.view(), wide.view()}) {
        Outputs outputs(batch, vertices);
        testing::in_every_setting(
            [&](treescan_workspace *workspace) {
              const treescan::tensor_view r(roots, {batch});
              return outputs.write([&](const treescan_tree_output *output) {
                return treescan_tree_from_edges(&view, &r, sibling_order, output, workspace, nullptr);
              });
            },
            outputs.parent, outputs.order, outputs.depth, outputs.edge);
        std::vector<int32_t> indices(static_cast<size_t>(vertices - 1));
        std::iota(indices.begin(), indices.end(), 0);
        for (const int64_t item : {0, 1})
          check_tree(outputs.item(item),
                     naive::root_tree(vertices, edges[item], indices, roots[item], sibling_order == TREESCAN_BY_EDGE));
      }
  }
}

TEST(trees_from_parents) {
  std::mt19937 generator(13);
  for (const int32_t vertices : {1, 2, 3, 12}) {
    // Vertex numbers that say nothing about the tree, so that parents may be larger than their children.
    const int64_t batch = 2;
    Array<int32_t> parent({batch, vertices}, {-1, 2});
    naive::Edges edges[2];
    std::vector<int32_t> old_roots;
    for (int64_t item = 0; item < batch; ++item) {
      std::vector<int32_t> name(static_cast<size_t>(vertices));
      std::iota(name.begin(), name.end(), 0);
      std::shuffle(name.begin(), name.end(), generator);
      for (int32_t v = 0; v < vertices; ++v) {
        const size_t p = v ? generator() % static_cast<unsigned>(v) : 0;
        parent[item * vertices + name[static_cast<size_t>(v)]] = name[p];
        if (v) edges[item].push_back({name[static_cast<size_t>(v)], name[p]});
      }
      old_roots.push_back(name[0]);
    }
    const std::vector<int32_t> new_root{vertices - 1}, new_roots{vertices / 3, vertices / 2};
    for (const std::vector<int32_t> &roots : {std::vector<int32_t>{}, new_root, new_roots}) {
      Outputs outputs(batch, vertices);
      testing::in_every_setting(
          [&](treescan_workspace *workspace) {
            const treescan::tensor_view p = parent.view(), r(roots.data(), {static_cast<int64_t>(roots.size())});
            return outputs.write(
                [&](const treescan_tree_output *output) {
                  return treescan_tree_from_parents(&p, roots.empty() ? nullptr : &r, output, workspace, nullptr);
                },
                false);
          },
          outputs.parent, outputs.order, outputs.depth);
      CHECK(outputs.edge.untouched());
      for (size_t item = 0; item < 2; ++item) {
        const int32_t root = roots.empty() ? old_roots[item] : roots[item % roots.size()];
        check_tree(outputs.item(static_cast<int64_t>(item)),
                   naive::root_tree(vertices, edges[item], std::vector<int32_t>(edges[item].size()), root), false);
      }
    }
  }
}

// A path of many vertices: no recursion, nothing quadratic.
TEST(a_long_path) {
  const int64_t length = 200000;
  const std::vector<float> cost(static_cast<size_t>(length - 1), 1.0f);
  const treescan::tree tree = treescan::minimum_spanning_tree(treescan::chain(length), {cost.data(), {1, length - 1}});
  EQUAL(tree.depth.back(), static_cast<int32_t>(length - 1));
  const treescan::tree turned = treescan::tree_from_parents(tree.parent_view(), {static_cast<int32_t>(length - 1)});
  EQUAL(turned.depth[0], static_cast<int32_t>(length - 1));
}

TEST_MAIN
