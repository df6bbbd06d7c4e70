#include "contexts.h"

#include "call.h"

namespace treescan::cuda {

namespace {

constexpr int threads = 256;

struct Lengths {
  int32_t of[threads];
};

__global__ void __launch_bounds__(threads) write_contexts(Lengths lengths, int count, int64_t *contexts) {
  const auto i = static_cast<int>(threadIdx.x);
  if (i < count) contexts[i] = lengths.of[i];
}

bool differ(const Graph &graph) {
  if (graph.context_stride == 0) return false;
  for (int64_t item = 0; item < graph.batch; ++item)
    if (graph.context(item) != graph.longest_context) return true;
  return false;
}

}  // namespace

int64_t *take_contexts(Carver &carver, const Graph &graph) {
  return carver.take<int64_t>(graph.context_stride == 0 ? 0 : graph.batch);  // whatever they are, and may be next time
}

Graph graph_on_device(Graph graph, int64_t *contexts, cudaStream_t stream) {
  if (!differ(graph)) {
    graph.context_lengths = nullptr;
    return graph;
  }
  for (int64_t first = 0; first < graph.batch; first += threads) {
    const auto count = static_cast<int>(std::min<int64_t>(graph.batch - first, threads));
    Lengths lengths{};
    for (int i = 0; i < count; ++i) lengths.of[i] = static_cast<int32_t>(graph.context(first + i));
    check(LAUNCH((write_contexts), 1, threads, 0, stream, lengths, count, contexts + first), "context lengths");
  }
  graph.context_lengths = contexts;
  graph.context_stride = 1;
  return graph;
}

}  // namespace treescan::cuda
