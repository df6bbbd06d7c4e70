#include "cpu/spanning_tree.h"

#include <algorithm>
#include <cstring>

#include "cpu/tree_order.h"
#include "elementary.h"
#include "parallel.h"

namespace treescan {

namespace {

// The order of floats as unsigned integers: -0 equals +0, and NaN comes after everything.
uint32_t sort_key(float cost) {
  if (cost != cost) return 0xffffffffu;
  cost += 0.0f;  // turns -0 into +0
  uint32_t bits;
  std::memcpy(&bits, &cost, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// A uniform number in (0, 1) for an edge of an item: a counter run through splitmix64, so any thread or device can
// draw it without the ones before.
double uniform(uint64_t seed, int64_t item, int64_t edge) {
  const auto mix = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  constexpr uint64_t step = 0x9e3779b97f4a7c15u;
  const uint64_t stream = mix(seed + step * (static_cast<uint64_t>(item) + 1));
  const uint64_t bits = mix(stream + step * (static_cast<uint64_t>(edge) + 1));
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

// Drawing edges one by one, each with probability in proportion to exp(-cost), is the same as sorting them by
// log(E) + cost with E = -log(U) drawn from the exponential distribution.
float random_cost(float cost, uint64_t seed, int64_t item, int64_t edge) {
  return static_cast<float>(elementary_log(-elementary_log(uniform(seed, item, edge))) + static_cast<double>(cost));
}

// An edge as one number: its key above, its index below. Sorting the keys stably leaves ties by index.
using Keyed = uint64_t;

// Sorts by the upper 32 bits, 11 at a time, leaving out digits that are all equal. Returns where the result lies.
Keyed *radix_sort(Keyed *from, Keyed *to, int64_t count) {
  constexpr int bits = 11, passes = 3;
  constexpr uint32_t buckets = 1u << bits;
  int32_t histogram[passes][buckets] = {};
  for (int64_t i = 0; i < count; ++i) {
    const auto key = static_cast<uint32_t>(from[i] >> 32);
    for (int pass = 0; pass < passes; ++pass) ++histogram[pass][(key >> (bits * pass)) & (buckets - 1)];
  }
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = 32 + bits * pass;
    int32_t *const start = histogram[pass];
    if (count > 0 && start[(from[0] >> shift) & (buckets - 1)] == count) continue;
    int32_t sum = 0;
    for (uint32_t bucket = 0; bucket < buckets; ++bucket) {
      const int32_t size = start[bucket];
      start[bucket] = sum;
      sum += size;
    }
    for (int64_t i = 0; i < count; ++i) to[start[(from[i] >> shift) & (buckets - 1)]++] = from[i];
    std::swap(from, to);
  }
  return from;
}

// Disjoint sets by size: a root holds minus the size of its set, the others the way to their root.
class DisjointSets {
 public:
  DisjointSets(int32_t *entries, int64_t count) : entries_(entries) { std::fill(entries, entries + count, -1); }

  int32_t find(int32_t v) {
    while (entries_[v] >= 0) {
      const int32_t above = entries_[v];
      if (entries_[above] >= 0) entries_[v] = entries_[above];
      v = above;
    }
    return v;
  }

  bool join(int32_t a, int32_t b) {
    a = find(a);
    b = find(b);
    if (a == b) return false;
    if (entries_[a] > entries_[b]) std::swap(a, b);
    entries_[a] += entries_[b];
    entries_[b] = a;
    return true;
  }

 private:
  int32_t *entries_;
};

// What one worker needs for one item.
struct Scratch {
  Keyed *keys, *spare;
  int32_t *sets;
  Ends *ends;  // of this item's own edge list; unused where all items share one
  RootedTree tree;

  void carve(Carver &carver, const Graph &graph) {
    keys = carver.take<Keyed>(graph.num_edges);
    spare = carver.take<Keyed>(graph.num_edges);
    sets = carver.take<int32_t>(graph.num_vertices);
    ends = carver.take<Ends>(graph.same_edges() ? 0 : graph.num_edges);
    tree.carve(carver, graph.num_vertices);
  }
};

// Kruskal's algorithm. Returns the number of edges found.
int64_t kruskal(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, int64_t item, const Ends *ends,
                Scratch &scratch) {
  const float *const row = static_cast<const float *>(cost.data) + item * cost.strides[0];
  const int64_t stride = cost.strides[1];
  int64_t count = 0;
  for (int64_t e = 0; e < graph.num_edges; ++e) {
    if (!graph.has(item, ends[e])) continue;
    float value = row[e * stride];
    if (order.kind == EdgeOrder::descending) value = -value;
    if (order.kind == EdgeOrder::random) value = random_cost(value, order.seed, item, e);
    scratch.keys[count++] = static_cast<Keyed>(sort_key(value)) << 32 | static_cast<Keyed>(e);
  }
  const Keyed *const sorted = radix_sort(scratch.keys, scratch.spare, count);
  DisjointSets sets(scratch.sets, graph.num_vertices);
  int64_t found = 0;
  for (int64_t i = 0; i < count && found < graph.num_vertices - 1; ++i) {
    const auto e = static_cast<int32_t>(sorted[i] & 0xffffffffu);
    if (sets.join(ends[e].lower, ends[e].upper)) scratch.tree.edges[found++] = {ends[e].lower, ends[e].upper, e};
  }
  return found;
}

}  // namespace

void spanning_tree(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                   const treescan_tree_output &output, treescan_workspace *workspace) {
  const int64_t batch = cost.sizes[0];
  const int64_t workers = num_workers(batch);
  const int64_t slice = [&] {
    Carver carver;
    Scratch scratch;
    scratch.carve(carver, graph);
    return carver.used();
  }();
  const int64_t shared_edges = graph.same_edges() ? graph.num_edges : 0;
  const auto layout = [&](Carver &carver) {
    carver.take<Ends>(shared_edges);
    carver.take<char>(slice * workers);
  };
  with_scratch(workspace, layout, [&](Carver &carver) {
    Ends *const shared_ends = carver.take<Ends>(shared_edges);
    char *const slices = carver.take<char>(slice * workers);
    if (graph.same_edges()) list_edges(graph, 0, shared_ends);
    for_each_task(workers, batch, [&](int64_t worker, int64_t item) {
      Carver own(slices + worker * slice);
      Scratch scratch;
      scratch.carve(own, graph);
      const int32_t root_vertex = read_root(root, item, graph.num_vertices);
      if (!graph.same_edges()) list_edges(graph, item, scratch.ends);
      const Ends *const ends = graph.same_edges() ? shared_ends : scratch.ends;
      const int64_t found = kruskal(graph, cost, order, item, ends, scratch);
      if (found < graph.num_vertices - 1)
        fail(TREESCAN_DISCONNECTED, "graph: expected a connected graph, but item ", item, " falls into ",
             graph.num_vertices - found, " parts");
      root_tree(scratch.tree, root_vertex, TREESCAN_BY_VERTEX);
      write_tree(scratch.tree, item, output);
    });
  });
}

}  // namespace treescan
