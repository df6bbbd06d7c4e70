// Edge weights on the device against those in CPU memory, to the bit.
#include <cmath>
#include <limits>

#include "cuda_test.h"

using namespace cuda_test;
using Numbers = std::vector<int64_t>;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// In [-1, 1], and each different enough from the others.
double feature(int64_t i) { return std::sin(static_cast<double>(i * i + 3 * i)); }

const std::vector<int32_t> metrics = {TREESCAN_COSINE, TREESCAN_L2, TREESCAN_L1};

template <class Cost>
void compare_costs(const TwinGraph &graph, const treescan_tensor &cpu, const treescan_tensor &cuda, int32_t metric,
                   int32_t exponential) {
  const int64_t edges = graph.edges();
  const Twin<Cost> cost({cpu.sizes[0], edges}, Cost{-7}, {2 * edges + 3, 2});
  SUCCEEDS(treescan_edge_weights(&graph.cpu, &cpu, metric, exponential, cost.cpu(), nullptr, nullptr));
  SUCCEEDS(treescan_edge_weights(&graph.cuda, &cuda, metric, exponential, cost.cuda(), nullptr, nullptr));
  CHECK(cost.same(), "metric ", metric, ", exponential ", exponential, ", dtype ", cpu.dtype, ", ", cpu.sizes[1],
        " channels, ", edges, " edges");
}

void compare(const TwinGraph &graph, const treescan_tensor &cpu, const treescan_tensor &cuda, int32_t metric,
             int32_t exponential) {
  compare_costs<float>(graph, cpu, cuda, metric, exponential);
  if (cpu.dtype == TREESCAN_FLOAT64) compare_costs<double>(graph, cpu, cuda, metric, exponential);
}

template <class T>
void compare(const TwinGraph &graph, const Numbers &sizes, const Numbers &strides = {},
             const std::vector<int32_t> &chosen_metrics = metrics) {
  const Twin<T> x(sizes, [](int64_t i) { return testing::number<T>(feature(i)); }, strides);
  for (const int32_t metric : chosen_metrics)
    compare(graph, *x.cpu(), *x.cuda(), metric, metric == TREESCAN_L2 ? 1 : 0);
}

void expect_clean_once(const std::function<void()> &host_code) {
  const Report report = treescan::emulation::run({Schedule::runs, 1, 4, false}, host_code);
  CHECK(report.findings.empty(), report.text());
  EQUAL(report.live_allocations, 0);
}

template <class T>
void compare_layouts() {
  expect_clean_once([] {
    const int64_t h = 3, w = 5, v = h * w;
    const TwinGraph graph = grid(h, w, 8);
    for (const int64_t b : {1, 2})
      for (const int64_t c : {0, 5, 16, 21}) {
        compare<T>(graph, {b, c, v});
        compare<T>(graph, {b, c, v}, {c * v, 1, c});                                     // channels last
        compare<T>(graph, {b, c, v}, {c * v + 9, 1, c + 3});                             // and padded
        compare<T>(graph, {b, c, v}, {0, v, 1});                                         // one item for all
        compare<T>(graph, {b, c, h, w}, {c * v, 1, w * c, c});                           // channels last
        compare<T>(graph, {b, c, h, w}, {c * h * (w + 2) + 1, h * (w + 2), w + 2, 1});   // padded rows
        compare<T>(graph, {b, c, h, w}, {c * (w + 2) * h, 1, c * (w + 2), c});           // both
        compare<T>(graph, {b, c, h, w}, {c * v, v, 1, h});                               // transposed
      }
  });
}

int64_t launches(const Report &report) {
  int64_t count = 0;
  for (const auto &kernel : report.kernels) count += kernel.second.launches;
  return count;
}

}  // namespace

TEST(layouts_of_float32) { compare_layouts<float>(); }
TEST(layouts_of_float64) { compare_layouts<double>(); }
TEST(layouts_of_float16) { compare_layouts<treescan::float16>(); }
TEST(layouts_of_bfloat16) { compare_layouts<treescan::bfloat16>(); }

TEST(every_graph_under_every_schedule) {
  expect_clean("edge_weights", [] {
    const Twin<int64_t> contexts({2}, [](int64_t i) { return i * 4; });
    const Twin<int32_t> common({6, 2}, [](int64_t i) { return i * 5 % 7; });
    const Twin<int64_t> own({2, 4, 2}, [](int64_t i) { return (i + i / 8) % 7; }, {16, 1, 4});
    for (const Numbers &strides : {Numbers{}, Numbers{63, 1, 9}}) {
      compare<float>(grid(1, 1, 4), {2, 9, 1}, strides, {TREESCAN_COSINE});
      compare<float>(grid(1, 7, 4), {2, 9, 7}, strides, {TREESCAN_COSINE});
      compare<float>(grid(7, 1, 8), {2, 9, 7}, strides, {TREESCAN_COSINE});
      compare<float>(chain(7), {2, 9, 7}, strides, {TREESCAN_COSINE});
      compare<float>(tokens(7, 3, nullptr), {2, 9, 7}, strides, {TREESCAN_COSINE});
      compare<float>(tokens(7, 20, contexts.cpu()), {2, 9, 7}, strides, {TREESCAN_COSINE});
      compare<float>(edge_list(7, common), {2, 9, 7}, strides, {TREESCAN_COSINE});
      compare<float>(edge_list(7, own), {2, 9, 7}, strides, {TREESCAN_COSINE});
    }
    compare<float>(grid(3, 4, 4), {0, 3, 12});
    compare<float>(edge_list(5, Twin<int32_t>({0, 2}, 0)), {2, 3, 5});
  });
}

// Vectors of any length beside each other, and some with infinities and NaN.
template <class T>
void compare_lengths() {
  expect_clean_once([] {
    const auto value = [](int64_t i) {
      const int64_t vertex = i / 21 % 12;
      const bool wide = sizeof(T) == 8;
      const int exponents[] = {0, wide ? 900 : 120, wide ? -1000 : -110, -40, -1070, wide ? 1020 : 126, -27, -30};
      if (vertex == 9) return testing::number<T>(0);
      if (vertex == 10 && i % 21 == 5) return testing::number<T>(INFINITY);
      if (vertex == 11 && i % 21 == 5) return testing::number<T>(NAN);
      return testing::number<T>(std::ldexp(feature(i), exponents[vertex % 8]));
    };
    for (const Numbers &strides : {Numbers{252, 1, 21}, Numbers{252, 12, 1}}) {
      const Twin<T> x({1, 21, 12}, [&](int64_t i) { return value(i % 12 * 21 + i / 12); }, strides);
      compare(grid(3, 4, 8), *x.cpu(), *x.cuda(), TREESCAN_COSINE, 0);
    }
  });
}
TEST(lengths_of_float32) { compare_lengths<float>(); }
TEST(lengths_of_float64) { compare_lengths<double>(); }
TEST(lengths_of_bfloat16) { compare_lengths<treescan::bfloat16>(); }

// More vertices than a block takes at a time, in either layout.
TEST(larger_graphs) {
  expect_clean_once([] {
    compare<float>(grid(19, 23, 8), {1, 18, 19, 23});
    compare<float>(grid(19, 23, 8), {1, 18, 19, 23}, {19 * 23 * 18, 1, 23 * 18, 18});
    const Twin<int32_t> edges({700, 2}, [](int64_t i) { return i * i % 97; });
    compare<treescan::bfloat16>(edge_list(97, edges), {1, 20, 97});
    compare<treescan::bfloat16>(edge_list(97, edges), {1, 20, 97}, {97 * 20, 1, 20});
  });
}

TEST(features_that_run_backwards) {
  expect_clean_once([] {
    const Twin<float> x({1, 3, 12}, feature);
    treescan_tensor cpu = *x.cpu(), cuda = *x.cuda();
    for (treescan_tensor *tensor : {&cpu, &cuda}) {
      tensor->data = static_cast<float *>(tensor->data) + 35;
      tensor->strides[1] = -12;
      tensor->strides[2] = -1;
    }
    for (const int32_t metric : metrics) compare(grid(3, 4, 4), cpu, cuda, metric, 1);
  });
}

// More items with a context of their own than one launch carries.
TEST(a_context_for_each_item) {
  const Report report = treescan::emulation::run({}, [] {
    const Twin<int64_t> contexts({300}, [](int64_t i) { return (i * 7) % 6; }, {2});
    compare<float>(tokens(5, 3, contexts.cpu()), {300, 2, 5});
  });
  CHECK(report.findings.empty(), report.text());
  EQUAL(launches(report), 3 * (1 + 2));
}

TEST(one_launch) {
  for (const int kind : {0, 1, 2, 3}) {
    const Report report = treescan::emulation::run({}, [&] {
      const Twin<int64_t> equal({2}, int64_t{4});
      const TwinGraph graphs[] = {grid(2, 3, 8), chain(6), tokens(6, 2, nullptr), tokens(6, 2, equal.cpu())};
      compare<float>(graphs[kind], {2, 3, 6});
    });
    EQUAL(launches(report), 3);
  }
}

// What warps ask for is what they use, but for the ends of rows that start inside a sector.
TEST(coalesced) {
  if (!treescan::emulation::sees_accesses()) return;
  const int64_t side = 32, v = side * side, channels = 32;
  for (const Numbers &strides : {Numbers{v * channels, v, 1}, Numbers{v * channels, 1, channels}}) {
    const TwinGraph graph = grid(side, side, 4);
    const int64_t edges = graph.edges();
    const Report report = treescan::emulation::run({Schedule::lockstep, 0, 1, true}, [&] {
      const Twin<float> x({1, channels, v}, feature, strides), cost({1, edges}, 0.f);
      SUCCEEDS(treescan_edge_weights(&graph.cuda, x.cuda(), TREESCAN_COSINE, 0, cost.cuda(), nullptr, nullptr));
    });
    const auto &loads = report.kernels.begin()->second.loads;
    CHECK(loads.bytes == edges * 2 * channels * 4, loads.bytes);
    CHECK(loads.requested_sectors * 32 <= loads.bytes * 115 / 100, loads.requested_sectors * 32, " of ", loads.bytes);
  }
}

TEST(scratch_memory_of_the_caller) {
  expect_clean("edge_weights", [] {
    const Twin<int64_t> contexts({2}, [](int64_t i) { return 2 + 3 * i; });
    const TwinGraph graph = tokens(6, 2, contexts.cpu());
    const int64_t edges = graph.edges();
    const Twin<float> x({2, 3, 6}, feature), cost({2, edges}, -7.f);
    const auto weights = [&](const treescan_tensor *features, const treescan_tensor *output,
                             treescan_workspace *workspace) {
      return treescan_edge_weights(&graph.cpu, features, TREESCAN_L2, 0, output, workspace, nullptr);
    };
    treescan_workspace workspace{};
    SUCCEEDS(weights(x.cuda(), cost.cuda(), &workspace));
    CHECK(workspace.size >= 16, workspace.size);
    for (const float value : cost.on_device()) EQUAL(value, -7.f);
    const DeviceArray<char> memory(static_cast<size_t>(workspace.size));
    workspace.data = memory;
    SUCCEEDS(weights(x.cpu(), cost.cpu(), nullptr));
    SUCCEEDS(weights(x.cuda(), cost.cuda(), &workspace));
    CHECK(cost.same());
    workspace.size -= 1;
    FAILS(weights(x.cuda(), cost.cuda(), &workspace), TREESCAN_INVALID_ARGUMENT, "workspace: expected at least");
  });
}

TEST(recorded_in_a_cuda_graph) {
  expect_clean("edge_weights", [] {
    const Twin<int64_t> contexts({2}, [](int64_t i) { return 2 + 3 * i; });
    const TwinGraph graph = tokens(6, 2, contexts.cpu());
    const Twin<float> x({2, 3, 6}, feature), cost({2, graph.edges()}, -7.f);
    cudaStream_t stream = nullptr;
    cudaGraph_t recorded = nullptr;
    succeed(cudaStreamCreate(&stream), "cudaStreamCreate");
    succeed(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    SUCCEEDS(treescan_edge_weights(&graph.cuda, x.cuda(), TREESCAN_L1, 1, cost.cuda(), nullptr, stream));
    succeed(cudaStreamEndCapture(stream, &recorded), "cudaStreamEndCapture");
    succeed(cudaStreamDestroy(stream), "cudaStreamDestroy");
    SUCCEEDS(treescan_edge_weights(&graph.cpu, x.cpu(), TREESCAN_L1, 1, cost.cpu(), nullptr, nullptr));
    CHECK(cost.same());
  });
}

TEST(edges_that_name_no_vertex) {
  expect_clean("edge_weights", [] {
    for (const int64_t bad : {int64_t{-1}, int64_t{5}, int64_t{1} << 40})
      for (const int64_t end : {0, 1})
        for (const Numbers &strides : {Numbers{15, 5, 1}, Numbers{15, 1, 3}}) {
          const Twin<int64_t> edges({4, 2}, [&](int64_t i) { return i == 4 + end ? bad : i % 5; });
          const TwinGraph graph = edge_list(5, edges);
          const Twin<float> x({2, 3, 5}, feature, strides), cost({2, 4}, -7.f);
          SUCCEEDS(treescan_edge_weights(&graph.cuda, x.cuda(), TREESCAN_L1, 0, cost.cuda(), nullptr, nullptr));
          const std::string message = "graph->edge_index: expected vertices in [0, 5), got " + std::to_string(bad) +
                                      " at edge 2 of item ";
          FAILS(synchronize(), TREESCAN_INVALID_ARGUMENT, message);
          FAILS(treescan_edge_weights(&graph.cpu, x.cpu(), TREESCAN_L1, 0, cost.cpu(), nullptr, nullptr),
                TREESCAN_INVALID_ARGUMENT, message);
          const std::vector<float> costs = cost.on_device();
          for (size_t e = 0; e < costs.size(); ++e) CHECK(std::isnan(costs[e]) == (e % 4 == 2), costs[e], " at ", e);
          SUCCEEDS(synchronize());
        }
  });
}

TEST(exponentials_that_overflow) {
  expect_clean("edge_weights", [] {
    const TwinGraph graph = chain(4);
    for (const Numbers &strides : {Numbers{4, 4, 1}, Numbers{4, 1, 1}}) {
      const Twin<float> x({2, 1, 4}, [](int64_t i) { return i < 6 ? 0 : 89 * (i - 5); }, strides), cost({2, 3}, -7.f);
      SUCCEEDS(treescan_edge_weights(&graph.cuda, x.cuda(), TREESCAN_L1, 1, cost.cuda(), nullptr, nullptr));
      FAILS(synchronize(), TREESCAN_OUT_OF_RANGE, "exponential: exp(89), edge ");
      const std::vector<float> costs = cost.on_device();
      CHECK(costs == (std::vector<float>{1, 1, 1, 1, infinity, infinity}));
    }
    const Twin<float> infinite({1, 1, 2}, [](int64_t i) { return i == 0 ? 0.f : infinity; }), cost({1, 1}, -7.f);
    const TwinGraph pair = chain(2);
    SUCCEEDS(treescan_edge_weights(&pair.cuda, infinite.cuda(), TREESCAN_L1, 1, cost.cuda(), nullptr, nullptr));
    SUCCEEDS(synchronize());
    EQUAL(cost.on_device()[0], infinity);
  });
}

// NaNs are NaNs, though perhaps of other bits.
TEST(special_features) {
  expect_clean("edge_weights", [] {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    const float values[] = {0, 0, -0.f, 1, infinity, -infinity, 1e30f, nan, 2, 1e-30f, 1e-44f};
    const TwinGraph graph = chain(11);
    for (const Numbers &strides : {Numbers{11, 11, 1}, Numbers{11, 1, 1}})
      for (const int32_t metric : metrics)
        for (const int32_t exponential : {0, metric == TREESCAN_COSINE ? 1 : 0}) {
          const Twin<float> x({1, 1, 11}, [&](int64_t i) { return values[i]; }, strides), cost({1, 10}, -7.f);
          SUCCEEDS(treescan_edge_weights(&graph.cpu, x.cpu(), metric, exponential, cost.cpu(), nullptr, nullptr));
          SUCCEEDS(treescan_edge_weights(&graph.cuda, x.cuda(), metric, exponential, cost.cuda(), nullptr, nullptr));
          SUCCEEDS(synchronize());
          const std::vector<float> costs = cost.on_device();
          for (int64_t e = 0; e < 10; ++e) {
            const float got = costs[static_cast<size_t>(e)], expected = cost[e];
            CHECK(std::isnan(expected) ? std::isnan(got) : std::memcmp(&got, &expected, sizeof got) == 0, "metric ",
                  metric, ", edge ", e, ": ", got, " and ", expected);
          }
        }
  });
}

TEST_MAIN
