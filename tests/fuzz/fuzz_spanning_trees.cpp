// Minimum, maximum and random spanning trees and forests, against Kruskal's algorithm in its plainest form.
#include "graphs.h"

using namespace fuzzing;

namespace {

int32_t find(std::vector<int32_t> &sets, int32_t v) {
  while (sets[static_cast<size_t>(v)] != v) v = sets[static_cast<size_t>(v)];
  return v;
}

// The edges of the minimum spanning forest of one item under (cost, index), NaN last; -1 in `labels` leaves a vertex out.
std::vector<char> kruskal(const std::vector<long double> &cost, const std::vector<int32_t> &ends, const std::vector<char> &there,
                          int64_t vertices) {
  std::vector<int32_t> sets(static_cast<size_t>(vertices)), order(cost.size());
  std::iota(sets.begin(), sets.end(), 0);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const long double x = cost[static_cast<size_t>(a)], y = cost[static_cast<size_t>(b)];
    return std::isnan(x) || std::isnan(y) ? !std::isnan(x) && std::isnan(y) : x < y;
  });
  std::vector<char> chosen(cost.size());
  for (const int32_t e : order) {
    const auto i = static_cast<size_t>(e);
    if (!there[i]) continue;
    const int32_t a = find(sets, ends[2 * i]), b = find(sets, ends[2 * i + 1]);
    chosen[i] = a != b;
    sets[static_cast<size_t>(a)] = b;
  }
  return chosen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  Data data(bytes, size);
  choose_threads(data);
  const int64_t batch = data.size(1, 3);
  const Graph graph(data, batch);
  constexpr int32_t cost_dtypes[] = {TREESCAN_FLOAT32, TREESCAN_FLOAT64, TREESCAN_INT32, TREESCAN_INT64};
  const int32_t dtype = data.pick(cost_dtypes);
  Tensor cost(data, Role::input, dtype, {batch, graph.edges}, dtype == TREESCAN_INT32 || dtype == TREESCAN_INT64 ? 7 : 0);
  Tensor root(data, Role::input, TREESCAN_INT32, {data.flag() ? batch : 1}, graph.vertices);
  const bool random = data.range(0, 3) == 3, labelled = !random && data.flag();
  const int32_t maximum = data.flag();
  const uint64_t seed = random ? data.bits() : 0;
  const int64_t label_batch = data.flag() ? batch : 1;
  Tensor segments(data, Role::input, TREESCAN_INT32, {labelled ? label_batch : 0, graph.vertices}, 0);
  Tree tree(data, batch, graph.vertices, true);
  const treescan_status status = run(
      data,
      [&](treescan_workspace *workspace, void *stream) {
        if (random) return treescan_random_spanning_tree(graph, cost, seed, root, tree, workspace, stream);
        return treescan_minimum_spanning_tree(graph, cost, maximum, root, labelled ? segments : nullptr, tree, workspace, stream);
      },
      {tree.part(0), tree.part(1), tree.part(2), tree.part(3)});
  if (status != TREESCAN_OK || !are_small({batch, graph.vertices, graph.edges})) return 0;
  if (batch == 0) return 0;  // without items no edge is followed, so none is judged
  if (!graph.is_known() || !cost.is_real() || !tree.has(0) || (labelled && !segments.is_real())) return 0;

  const bool own = graph.has_own_lists();
  std::vector<int32_t> ends(static_cast<size_t>((own ? batch : 1) * graph.edges * 2));
  treescan_tensor list{ends.data(), TREESCAN_INT32, TREESCAN_CPU, 0, own ? 3 : 2, {}, {}};
  const Sizes sizes = own ? Sizes{batch, graph.edges, 2} : Sizes{graph.edges, 2};
  int64_t step = 1;
  for (size_t d = sizes.size(); d-- > 0; step *= sizes[d]) {
    list.sizes[d] = sizes[d];
    list.strides[d] = step;
  }
  REQUIRE(ends.empty() || treescan_graph_edges(graph, &list) == TREESCAN_OK);
  for (int64_t item = 0; item < batch; ++item) {
    tree.check(item);
    const auto label = [&](int32_t v) {
      return labelled ? segments.at<int32_t>((segments.size(0) == 1 ? 0 : item) * graph.vertices + v) : 0;
    };
    std::vector<long double> costs;  // with room for every int64
    std::vector<char> there;
    const std::vector<int32_t> own_ends(ends.begin() + (own ? item * graph.edges * 2 : 0), ends.end());
    for (int64_t e = 0; e < graph.edges; ++e) {
      const int32_t a = own_ends[static_cast<size_t>(2 * e)], b = own_ends[static_cast<size_t>(2 * e + 1)];
      const int64_t i = item * graph.edges + e;
      const long double value = dtype == TREESCAN_FLOAT32   ? static_cast<long double>(cost.at<float>(i))
                                : dtype == TREESCAN_FLOAT64 ? static_cast<long double>(cost.at<double>(i))
                                                            : static_cast<long double>(cost.index(i));
      costs.push_back(maximum ? -value : value);
      there.push_back(graph.has(item, a, b) && label(a) >= 0 && label(a) == label(b));
    }
    const std::vector<char> chosen = kruskal(costs, own_ends, there, graph.vertices);
    std::vector<int32_t> sets(static_cast<size_t>(graph.vertices));
    std::iota(sets.begin(), sets.end(), 0);
    int64_t linked = 0;
    for (int32_t v = 0; v < graph.vertices; ++v) {
      const int32_t p = tree.parent(item, v);
      REQUIRE((p < 0) == (label(v) < 0));
      if (p < 0 || p == v) continue;
      ++linked;
      const int32_t a = find(sets, v), b = find(sets, p);
      REQUIRE(a != b);
      sets[static_cast<size_t>(a)] = b;
      if (!tree.has(3)) continue;
      const auto e = static_cast<size_t>(tree.edge(item, v));
      REQUIRE(e < costs.size() && there[e] && (random || chosen[e]));
      const int32_t lower = own_ends[2 * e], upper = own_ends[2 * e + 1];
      REQUIRE((lower == v && upper == p) || (lower == p && upper == v));
    }
    REQUIRE(linked == std::count(chosen.begin(), chosen.end(), 1));
    const int64_t wanted = root.is_real() ? root.index(root.size(0) == 1 ? 0 : item) : -1;
    REQUIRE(wanted < 0 || label(static_cast<int32_t>(wanted)) < 0 || tree.parent(item, wanted) == wanted);
  }
  return 0;
}
