// Sizes and edges of every kind of graph, and edge weights from features.
#include <type_traits>

#include "naive.h"

namespace {

void check_graph(const treescan::graph &graph, int64_t vertices, const naive::Edges &edges) {
  EQUAL(graph.num_vertices(), vertices);
  EQUAL(graph.num_edges(), static_cast<int64_t>(edges.size()));
  const auto count = static_cast<int64_t>(edges.size());
  for (const Shape &strides : {Shape{2, 1}, Shape{1, count}, Shape{5, 2}}) {
    Array<int32_t> listed({count, 2}, strides);
    const treescan_graph description = graph.c();
    const treescan::tensor_view view = listed.view();
    SUCCEEDS(treescan_graph_edges(&description, &view));
    CHECK(listed.intact());
    for (int64_t e = 0; e < count; ++e)
      for (const int64_t k : {0, 1}) EQUAL(listed[2 * e + k], edges[static_cast<size_t>(e)][static_cast<size_t>(k)]);
  }
}

// The graph's edge list, as the library gives it: checked above against the naive one.
naive::Edges edges_of(const treescan::graph &graph) {
  const std::vector<int32_t> flat = graph.edges();
  naive::Edges edges;
  for (size_t i = 0; i < flat.size(); i += 2) edges.push_back({flat[i], flat[i + 1]});
  return edges;
}

// lacks(item, edge): edges that are in the common list but not in this item's graph.
template <class T, class Cost = float>
void check_edge_weights(const treescan::graph &graph, const Shape &sizes, const Shape &strides, unsigned seed,
                        const std::function<bool(int64_t, std::array<int32_t, 2>)> &lacks = {}) {
  std::mt19937 generator(seed);
  const Array<T> features = std::move(Array<T>(sizes, strides).random(generator, -1, 1));
  const naive::Edges edges = edges_of(graph);
  const int64_t batch = sizes[0], channels = sizes[1], vertices = graph.num_vertices();
  const auto count = static_cast<int64_t>(edges.size());
  const treescan_graph description = graph.c();
  const double limit = std::is_same<Cost, float>::value ? 1e-5 : 1e-13;
  for (const int32_t metric : {TREESCAN_COSINE, TREESCAN_L2, TREESCAN_L1})
    for (const bool exponential : {false, true}) {
      Array<Cost> cost({batch, count}, {2 * count + 3, 2});
      testing::in_every_setting(
          [&](treescan_workspace *workspace) {
            const treescan::tensor_view x = features.view(), out = cost.view();
            return treescan_edge_weights(&description, &x, metric, exponential, &out, workspace, nullptr);
          },
          cost);
      for (int64_t item = 0; item < batch; ++item)
        for (int64_t e = 0; e < count; ++e) {
          const auto ends = edges[static_cast<size_t>(e)];
          const Cost got = cost[item * count + e];
          if (lacks && lacks(item, ends)) {
            EQUAL(got, std::numeric_limits<Cost>::infinity());
            continue;
          }
          std::vector<double> a, b;
          for (int64_t c = 0; c < channels; ++c) {
            a.push_back(testing::value_of(features[(item * channels + c) * vertices + ends[0]]));
            b.push_back(testing::value_of(features[(item * channels + c) * vertices + ends[1]]));
          }
          double expected = naive::metric(metric, a, b);
          if (exponential) expected = std::exp(expected);
          CHECK(std::fabs(static_cast<double>(got) - expected) <= limit * (1 + std::fabs(expected)), "edge ", e,
                ": expected ", expected, ", got ", got);
        }
    }
}

template <class T, class Cost = float>
void check_layouts() {
  const int64_t h = 3, w = 4, v = h * w;
  for (const int64_t b : {1, 2})
    for (const int64_t c : {1, 2, 3, 4, 5, 17}) {
      const treescan::graph graph = treescan::grid(h, w, 8);
      check_edge_weights<T, Cost>(graph, {b, c, v}, {}, 1);
      check_edge_weights<T, Cost>(graph, {b, c, v}, {c * v, 1, c}, 2);          // channels last
      check_edge_weights<T, Cost>(graph, {b, c, v}, {c * v + 9, 1, c + 3}, 3);  // and padded
      check_edge_weights<T, Cost>(graph, {b, c, v}, {0, v, 1}, 4);              // one item for all
      check_edge_weights<T, Cost>(graph, {b, c, v}, {c * v, -v, -1}, 5);        // backwards
      check_edge_weights<T, Cost>(graph, {b, c, h, w}, {}, 6);
      check_edge_weights<T, Cost>(graph, {b, c, h, w}, {c * v, 1, w * c, c}, 7);                          // channels last
      check_edge_weights<T, Cost>(graph, {b, c, h, w}, {c * h * (w + 2) + 1, h * (w + 2), w + 2, 1}, 8);  // padded rows
      check_edge_weights<T, Cost>(graph, {b, c, h, w}, {c * (w + 2) * h, 1, c * (w + 2), c},
                            9);                                          // padded rows, channels last
      check_edge_weights<T, Cost>(graph, {b, c, h, w}, {c * v, v, 1, h}, 10);  // transposed
      check_edge_weights<T, Cost>(graph, {b, c, h, w}, {1, 0, 0, 0}, 11);      // expanded from one number
    }
}

}  // namespace

TEST(grids) {
  const int32_t shapes[][2] = {{1, 1}, {1, 5}, {5, 1}, {2, 2}, {3, 4}};
  for (const auto &[h, w] : shapes)
    for (const int32_t connectivity : {4, 8})
      check_graph(treescan::grid(h, w, connectivity), h * w, naive::grid(h, w, connectivity));
}

TEST(token_graphs) {
  for (const int32_t length : {1, 2, 5, 9})
    for (const int32_t window : {1, 2, 3, 20}) {
      check_graph(treescan::tokens(length, window), length, naive::tokens(length, window, length));
      for (int32_t context = 0; context <= length; ++context) {
        const int64_t value = context;
        const treescan::tensor_view view(&value, {1});
        check_graph(treescan::tokens(length, window, view), length, naive::tokens(length, window, context));
      }
    }
  // With a context for each item, edges are those of the longest.
  const Array<int64_t> contexts = std::move(Array<int64_t>({3}, {-2}).fill([](int64_t i) { return i * 2 + 1; }));
  check_graph(treescan::tokens(7, 3, contexts.view()), 7, naive::tokens(7, 3, 5));
}

TEST(chains) {
  for (const int32_t length : {1, 2, 6}) check_graph(treescan::chain(length), length, naive::tokens(length, 1, 0));
}

TEST(edge_lists) {
  const naive::Edges edges{{3, 0}, {1, 1}, {0, 2}, {2, 1}, {2, 1}};
  const Array<int32_t> narrow = std::move(Array<int32_t>({5, 2}, {1, 7}).fill([&](int64_t i) {
    return edges[static_cast<size_t>(i / 2)][static_cast<size_t>(i % 2)];
  }));
  const Array<int64_t> wide = std::move(Array<int64_t>({5, 2}, {-3, 1}).fill([&](int64_t i) {
    return edges[static_cast<size_t>(i / 2)][static_cast<size_t>(i % 2)];
  }));
  check_graph(treescan::edge_list(narrow.view(), 4), 4, edges);
  check_graph(treescan::edge_list(wide.view(), 4), 4, edges);
  check_graph(treescan::edge_list(Array<int32_t>({0, 2}).view(), 1), 1, {});
  // A list for each item keeps its rank.
  const Array<int64_t> batched = std::move(Array<int64_t>({2, 3, 2}).fill([](int64_t i) { return i % 4; }));
  const std::vector<int32_t> listed = treescan::edge_list(batched.view(), 4).edges();
  EQUAL(listed.size(), size_t{12});
  for (size_t i = 0; i < listed.size(); ++i) EQUAL(listed[i], static_cast<int32_t>(i % 4));
}

TEST(edge_weights_of_float32) { check_layouts<float>(); }
TEST(edge_weights_of_float64) { check_layouts<double>(); }
TEST(edge_weights_in_float64) { check_layouts<double, double>(); }
TEST(edge_weights_of_float16) { check_layouts<treescan::float16>(); }
TEST(edge_weights_of_bfloat16) { check_layouts<treescan::bfloat16>(); }

TEST(edge_weights_of_every_graph) {
  check_edge_weights<float>(treescan::grid(1, 1), {2, 3, 1}, {}, 1);
  check_edge_weights<float>(treescan::grid(1, 9), {2, 3, 9}, {}, 2);
  check_edge_weights<float>(treescan::grid(9, 1, 8), {2, 3, 9}, {}, 3);
  check_edge_weights<float>(treescan::chain(9), {2, 3, 9}, {}, 4);
  // More vertices in a row than are weighed at a time.
  for (const Shape &strides : {Shape{1560, 520, 1}, Shape{1560, 1, 3}, Shape{2080, 1, 4}}) {
    check_edge_weights<float>(treescan::chain(520), {2, 3, 520}, strides, 8);
    check_edge_weights<double>(treescan::grid(2, 260, 8), {2, 3, 520}, strides, 9);
  }
  check_edge_weights<float>(treescan::tokens(9, 3), {2, 3, 9}, {27, 1, 3}, 5);
  check_edge_weights<float>(treescan::grid(3, 4), {0, 3, 12}, {}, 6);
  check_edge_weights<float>(treescan::grid(3, 4), {2, 0, 12}, {}, 7);
  const int64_t lengths[] = {2, 9, 0};
  check_edge_weights<float>(
      treescan::tokens(9, 3, treescan::tensor_view(lengths, {3})), {3, 4, 9}, {}, 8,
      [&](int64_t item, std::array<int32_t, 2> e) { return e[1] - e[0] > 1 && e[0] < 9 - lengths[item]; });
  const Array<int32_t> list = std::move(Array<int32_t>({6, 2}).fill([](int64_t i) { return i * 5 % 7; }));
  check_edge_weights<float>(treescan::edge_list(list.view(), 7), {2, 3, 7}, {}, 9);
  check_edge_weights<treescan::bfloat16>(treescan::edge_list(list.view(), 7), {2, 3, 7}, {}, 10);
}

// More than one block of vertices for each thread, and rows that end inside a block.
TEST(edge_weights_of_a_larger_grid) {
  check_edge_weights<float>(treescan::grid(37, 41, 8), {1, 64, 37, 41}, {37 * 41 * 64, 1, 41 * 64, 64}, 1);
  check_edge_weights<float>(treescan::grid(37, 41), {1, 64, 37, 41}, {64 * 37 * 50, 37 * 50, 50, 1}, 2);
}

// Each item with its own list of edges.
TEST(edge_weights_of_batched_lists) {
  const Array<int64_t> list = std::move(Array<int64_t>({2, 4, 2}).fill([](int64_t i) { return (i + i / 8) % 5; }));
  const Array<double> x =
      std::move(Array<double>({2, 1, 5}).fill([](int64_t i) { return static_cast<double>(i * i); }));
  const std::vector<float> cost =
      treescan::edge_weights(treescan::edge_list(list.view(), 5), x.view(), treescan::metric::l1);
  for (int64_t item = 0; item < 2; ++item)
    for (int64_t e = 0; e < 4; ++e) {
      const int64_t a = list[item * 8 + e * 2], b = list[item * 8 + e * 2 + 1];
      EQUAL(static_cast<double>(cost[static_cast<size_t>(item * 4 + e)]), std::fabs(x[item * 5 + a] - x[item * 5 + b]));
    }
}

// Vectors of all lengths that their type has, beside each other: their cosines don't depend on the lengths.
template <class T>
void check_lengths(const std::vector<int> &exponents) {
  const int64_t vertices = 20;
  const treescan::graph graph = treescan::grid(4, 5, 8);
  const treescan_graph description = graph.c();
  const naive::Edges edges = edges_of(graph);
  std::mt19937 generator(3);
  for (const int64_t channels : {1, 5, 37})
    for (const Shape &strides : {Shape{}, Shape{0, 1, 5 * channels, channels}}) {
      const auto exponent = [&](int64_t v) { return exponents[static_cast<size_t>(v * 7 % 11) % exponents.size()]; };
      std::uniform_real_distribution<double> draw(-1, 1);
      const Array<T> features = std::move(Array<T>({1, channels, 4, 5}, strides).fill([&](int64_t i) {
        return i % vertices == 13 ? 0 : std::ldexp(draw(generator), exponent(i % vertices));
      }));
      Array<float> cost({1, graph.num_edges()});
      const auto weigh = [&](treescan_workspace *workspace) {
        const treescan::tensor_view x = features.view(), out = cost.view();
        return treescan_edge_weights(&description, &x, TREESCAN_COSINE, 0, &out, workspace, nullptr);
      };
      testing::in_every_setting(weigh, cost);
      for (size_t e = 0; e < edges.size(); ++e) {
        std::vector<double> ends[2];
        for (const size_t k : {0u, 1u})
          for (int64_t c = 0; c < channels; ++c)
            ends[k].push_back(std::ldexp(testing::value_of(features[c * vertices + edges[e][k]]), -exponent(edges[e][k])));
        const double got = static_cast<double>(cost[static_cast<int64_t>(e)]);
        const double expected = naive::metric(TREESCAN_COSINE, ends[0], ends[1]);
        CHECK(std::fabs(got - expected) < 1e-6, "edge ", e, " of ", channels, " channels: ", got, " for ", expected);
      }
      testing::in_every_setting(
          [&](treescan_workspace *workspace) {
            const testing::FlushedDenormals denormals;
            return weigh(workspace);
          },
          cost);
      for (const double value : cost.values()) CHECK(std::fabs(value) < 1 + 1e-6, "flushed: ", value);
    }
}
TEST(lengths_of_float32) { check_lengths<float>({0, 126, -120, 63, -140, 64, -64, -20, 100}); }
TEST(lengths_of_float64) { check_lengths<double>({0, 1020, -1000, 511, -1050, 512, -512, -30, 128}); }
TEST(lengths_of_float16) { check_lengths<treescan::float16>({0, 15, -12, -4}); }
TEST(lengths_of_bfloat16) { check_lengths<treescan::bfloat16>({0, 126, -120, 63, 64, -64, -20, -128}); }

TEST(special_features) {
  const treescan::graph pair = treescan::chain(2);
  const auto weight = [&](float a, float b, treescan::metric metric, bool exponential = false) {
    const float features[] = {a, b};
    return treescan::edge_weights(pair, {features, {1, 1, 2}}, metric, exponential)[0];
  };
  const float infinity = std::numeric_limits<float>::infinity();
  // A zero vector has no direction: its cosine is 0, not NaN.
  EQUAL(weight(0, 5, treescan::metric::cosine), 0.0f);
  EQUAL(weight(0, 0, treescan::metric::cosine, true), 1.0f);
  CHECK(std::isnan(weight(NAN, 1, treescan::metric::l2)));
  EQUAL(weight(-infinity, 1, treescan::metric::l1), infinity);
  // exp that float32 holds, and exp that it doesn't.
  CHECK(std::isfinite(weight(0, 88, treescan::metric::l1, true)));
  try {
    weight(0, 89, treescan::metric::l1, true);
    CHECK(false, "exp(89) fits no float32");
  } catch (const treescan::error &error) {
    EQUAL(error.status(), TREESCAN_OUT_OF_RANGE);
    CHECK(std::string(error.what()).find("exponential") != std::string::npos, error.what());
  }
}

TEST_MAIN
