// Graphs of all kinds: their sizes, their edges, and the costs of these.
#include "graphs.h"

using namespace fuzzing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  Data data(bytes, size);
  choose_threads(data);
  const int64_t batch = data.size(1, 3);
  const Graph graph(data, batch);
  int64_t count = -1;
  check_words(treescan_graph_num_vertices(graph, data.rarely() ? nullptr : &count));
  check_words(treescan_graph_num_edges(graph, data.rarely() ? nullptr : &count));

  const bool own = graph.has_own_lists();
  Tensor ends(data, Role::output, TREESCAN_INT32, own ? Sizes{batch, graph.edges, 2} : Sizes{graph.edges, 2}, 0, true);
  const treescan_status listed = treescan_graph_edges(graph, ends);
  check_words(listed);
  REQUIRE(ends.intact());
  if (listed == TREESCAN_OK)
    for (int64_t i = 0; i < ends.count(); i += 2) {
      const int32_t lower = ends.at<int32_t>(i), upper = ends.at<int32_t>(i + 1);
      REQUIRE(lower >= 0 && lower < graph.vertices && upper >= 0 && upper < graph.vertices);
      REQUIRE(graph.c().kind == TREESCAN_EDGES || lower < upper);
    }

  const int64_t channels = data.size(0, 40);
  Sizes shape = {batch, channels, graph.vertices};
  if (graph.c().kind == TREESCAN_GRID ? data.flag() : data.rarely()) shape = {batch, channels, graph.c().height, graph.c().width};
  Tensor features(data, Role::input, data.pick(floating_dtypes), shape);
  const bool wide = data.rarely();
  Tensor cost(data, Role::output, wide ? TREESCAN_FLOAT64 : TREESCAN_FLOAT32, {batch, graph.edges});
  const int32_t metric = data.choice(3), exponential = data.flag();
  const treescan_status weighed = run(
      data,
      [&](treescan_workspace *workspace, void *stream) {
        return treescan_edge_weights(graph, features, metric, exponential, cost, workspace, stream);
      },
      {&cost});
  REQUIRE(weighed != TREESCAN_OUT_OF_RANGE || exponential);
  // Every cost is written, if only with +inf. What was there before is a NaN of its own.
  if (weighed == TREESCAN_OK && listed == TREESCAN_OK)
    for (int64_t i = 0; i < cost.count(); ++i)
      REQUIRE(wide ? cost.at<uint64_t>(i) != UINT64_MAX : cost.at<uint32_t>(i) != UINT32_MAX);
  return 0;
}
