// Forests: of parent arrays, of graphs that are cut into segments, and scans along them.
#include "naive.h"

namespace {

// Parents of random forests whose vertices are numbered at random: some are roots, some are in no tree.
Array<int32_t> random_parents(int64_t batch, int32_t vertices, std::mt19937 &generator) {
  Array<int32_t> parent({batch, vertices}, {1, batch});
  for (int64_t item = 0; item < batch; ++item) {
    std::vector<int32_t> name(static_cast<size_t>(vertices)), planted;
    std::iota(name.begin(), name.end(), 0);
    std::shuffle(name.begin(), name.end(), generator);
    for (const int32_t v : name) {
      const auto kind = generator() % 5;
      parent[item * vertices + v] = kind == 0                    ? -1
                                    : kind == 1 || planted.empty() ? v
                                                                   : planted[generator() % planted.size()];
      if (kind != 0) planted.push_back(v);
    }
  }
  return parent;
}

struct Outputs {
  Array<int32_t> parent, order, depth, edge;

  Outputs(int64_t b, int64_t v) : parent({b, v}), order({b, v}, {v + 3, 1}), depth({b, v}, {1, b}), edge({b, v}) {}

  void check(int64_t item, const naive::Tree &expected, bool with_edge) const {
    const auto part = [&](const Array<int32_t> &array) {
      const std::vector<double> all = array.values();
      const auto v = static_cast<std::ptrdiff_t>(array.sizes()[1]);
      return std::vector<double>(all.begin() + item * v, all.begin() + (item + 1) * v);
    };
    CHECK(part(parent) == expected.parent, "parent");
    CHECK(part(order) == expected.order, "order");
    CHECK(part(depth) == expected.depth, "depth");
    CHECK(!with_edge || part(edge) == expected.edge, "edge");
  }
};

naive::Tree naive_forest(const Array<int32_t> &parent, int64_t item) {
  const auto vertices = static_cast<int32_t>(parent.sizes()[1]);
  naive::Edges edges;
  std::vector<int32_t> roots;
  for (int32_t v = 0; v < vertices; ++v) {
    const int32_t p = parent[item * vertices + v];
    if (p == v) roots.push_back(v);
    if (p >= 0 && p != v) edges.push_back({v, p});
  }
  return naive::root_forest(vertices, edges, std::vector<int32_t>(edges.size()), roots);
}

}  // namespace

TEST(forests_from_parents) {
  std::mt19937 generator(17);
  for (const int32_t vertices : {1, 2, 5, 30}) {
    const int64_t batch = 3;
    const Array<int32_t> parent = random_parents(batch, vertices, generator);
    Outputs outputs(batch, vertices);
    testing::in_every_setting(
        [&](treescan_workspace *workspace) {
          const treescan::tensor_view in = parent.view(), p = outputs.parent.view(), o = outputs.order.view(),
                                      d = outputs.depth.view();
          const treescan_tree_output output{&p, &o, &d, nullptr};
          return treescan_forest_from_parents(&in, &output, workspace, nullptr);
        },
        outputs.parent, outputs.order, outputs.depth);
    for (int64_t item = 0; item < batch; ++item) outputs.check(item, naive_forest(parent, item), false);
  }
}

TEST(forests_of_segments) {
  std::mt19937 generator(19);
  const int32_t list[] = {3, 0, 1, 1, 0, 2, 2, 1, 2, 1, 4, 5};  // two parts, a loop, parallel edges
  const treescan::graph graphs[] = {treescan::grid(4, 5), treescan::grid(3, 3, 8), treescan::tokens(11, 3),
                                    treescan::chain(6), treescan::edge_list(treescan::tensor_view(list, {6, 2}), 7)};
  const int64_t batch = 3;
  for (const treescan::graph &graph : graphs) {
    const auto vertices = static_cast<int32_t>(graph.num_vertices());
    const std::vector<int32_t> flat = graph.edges();
    naive::Edges edges;
    for (size_t i = 0; i < flat.size(); i += 2) edges.push_back({flat[i], flat[i + 1]});
    const auto count = static_cast<int64_t>(edges.size());
    const treescan_graph description = graph.c();
    Array<float> cost({batch, count}, {1, batch});
    cost.fill([&](int64_t) { return static_cast<double>(generator() % 4); });
    for (const bool own_labels : {false, true})
      for (const bool maximum : {false, true}) {
        Array<int32_t> labels({own_labels ? batch : 1, vertices}, {-vertices, 1}), root({batch});
        labels.fill([&](int64_t) { return static_cast<double>(generator() % 4) - 1; });
        root.fill([&](int64_t) { return static_cast<double>(generator() % static_cast<unsigned>(vertices)); });
        Outputs outputs(batch, vertices);
        testing::in_every_setting(
            [&](treescan_workspace *workspace) {
              const treescan::tensor_view c = cost.view(), r = root.view(), s = labels.view(),
                                          p = outputs.parent.view(), o = outputs.order.view(),
                                          d = outputs.depth.view(), e = outputs.edge.view();
              const treescan_tree_output output{&p, &o, &d, &e};
              return treescan_minimum_spanning_tree(&description, &c, maximum, &r, &s, &output, workspace, nullptr);
            },
            outputs.parent, outputs.order, outputs.depth, outputs.edge);
        for (int64_t item = 0; item < batch; ++item) {
          const auto label = [&](int32_t v) { return labels[(own_labels ? item * vertices : 0) + v]; };
          const std::vector<double> all = cost.values();
          const std::vector<double> own(all.begin() + item * count, all.begin() + (item + 1) * count);
          const auto has = [&](size_t e) { return label(edges[e][0]) >= 0 && label(edges[e][0]) == label(edges[e][1]); };
          outputs.check(item,
                        naive::minimum_spanning_forest(vertices, edges, own, root[item], maximum, has,
                                                       [&](int32_t v) { return label(v) >= 0; }),
                        true);
        }
      }
  }
}

TEST(scans_along_forests) {
  std::mt19937 generator(23);
  for (const int32_t vertices : {1, 2, 3, 7, 40}) {
    const int64_t batch = vertices < 7 ? 40 : 2, channels = 5;  // small ones: no tree at all, lone roots, and so on
    const Array<int32_t> parent = random_parents(batch, vertices, generator);
    const treescan::tree forest = treescan::forest_from_parents(parent.view());
    const Shape shape{batch, channels, vertices};
    for (const Shape &strides : {testing::dense_strides(shape), Shape{channels * vertices, 1, channels}})
      for (const int32_t direction : {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH}) {
        Array<double> x(shape, strides), weights(shape, strides), grad_y(shape, strides), y(shape, strides),
            grad_x(shape, strides), grad_weights(shape, strides);
        for (Array<double> *array : {&x, &weights, &grad_y}) array->random(generator, -1, 1);
        const treescan::tensor_view p = forest.parent_view(), o = forest.order_view(), a = x.view(), w = weights.view(),
                                    g = grad_y.view(), b = y.view(), ga = grad_x.view(), gw = grad_weights.view();
        testing::in_every_setting(
            [&](treescan_workspace *workspace) {
              return treescan_scan(direction, &p, &o, &a, &w, &b, workspace, nullptr);
            },
            y);
        testing::in_every_setting(
            [&](treescan_workspace *workspace) {
              return treescan_scan_backward(direction, &p, &o, &a, &w, &g, &ga, &gw, workspace, nullptr);
            },
            grad_x, grad_weights);
        for (int64_t row = 0; row < batch * channels; ++row) {
          const auto part = [&](const std::vector<double> &all, int64_t index) {
            return std::vector<double>(all.begin() + index * vertices, all.begin() + (index + 1) * vertices);
          };
          naive::Gradients expected;
          const std::vector<double> right =
              naive::scan(direction, part(parent.values(), row / channels), part(x.values(), row),
                          part(weights.values(), row), part(grad_y.values(), row), &expected);
          CHECK(testing::close<double>(part(y.values(), row), right));
          CHECK(testing::close<double>(part(grad_x.values(), row), expected.x));
          CHECK(testing::close<double>(part(grad_weights.values(), row), expected.weights));
        }
      }
  }
}

TEST_MAIN
