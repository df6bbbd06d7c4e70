#include "cpu/spanning_tree.h"

#include <algorithm>

#include "cpu/cost_ranks.h"
#include "cpu/edge_sort.h"
#include "cpu/grid_tree.h"
#include "cpu/tree_order.h"
#include "parallel.h"
#include "value_faults.h"

namespace treescan {

namespace {

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

// The labels of an item's vertices; all the same where there are none.
class Segments {
 public:
  Segments(const treescan_tensor *labels, int64_t item) {
    if (!labels) return;
    labels_ = static_cast<const int32_t *>(labels->data) + (labels->sizes[0] == 1 ? 0 : item * labels->strides[0]);
    stride_ = labels->strides[1];
  }

  bool hold(int32_t v) const { return !labels_ || label(v) >= 0; }
  bool link(Ends e) const { return !labels_ || (label(e.lower) >= 0 && label(e.lower) == label(e.upper)); }

 private:
  int32_t label(int32_t v) const { return labels_[v * stride_]; }

  const int32_t *labels_ = nullptr;
  int64_t stride_ = 0;
};

// Kruskal's algorithm. Leaves the edges that it found.
void kruskal(const Graph &graph, const CostRow &costs, int64_t item, const Ends *ends, const Segments &segments,
             DisjointSets &sets, Scratch &scratch) {
  const EdgeOrder order = costs.order;
  int64_t count = 0;
  for (int64_t e = 0; e < graph.num_edges; ++e) {
    if (!graph.has(item, ends[e]) || !segments.link(ends[e])) continue;
    float value = costs.data[e * costs.stride];
    if (order.kind == EdgeOrder::descending) value = -value;
    if (order.kind == EdgeOrder::random) value = random_cost(value, order.seed, item, e);
    scratch.keys[count++] = keyed(sort_key(value), static_cast<uint32_t>(e));
  }
  const Keyed *const sorted = radix_sort(scratch.keys, scratch.spare, count);
  int64_t &found = scratch.tree.num_edges = 0;
  for (int64_t i = 0; i < count && found < graph.num_vertices - 1; ++i) {
    const auto e = static_cast<int32_t>(sorted[i] & 0xffffffffu);
    if (sets.join(ends[e].lower, ends[e].upper)) scratch.tree.edges[found++] = {ends[e].lower, ends[e].upper, e};
  }
}

// Every tree of a forest gets a root: `wanted` if that lies in it, else its lowest vertex.
void choose_roots(const Segments &segments, int32_t wanted, DisjointSets &sets, RootedTree &tree) {
  int32_t *const has_root = tree.parent;  // by set; nothing else needs that memory yet
  std::fill(has_root, has_root + tree.num_vertices, 0);
  if (segments.hold(wanted)) has_root[sets.find(wanted)] = 1;
  tree.num_roots = 0;
  for (int32_t v = 0; v < tree.num_vertices; ++v) {
    if (!segments.hold(v)) continue;
    int32_t &settled = has_root[sets.find(v)];
    if (v == wanted || !settled) tree.order[tree.num_roots++] = v;
    settled = 1;
  }
}

void spanning_tree_of_any(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                          const treescan_tensor *labels, const treescan_tree_output &output,
                          treescan_workspace *workspace) {
  const int64_t batch = cost.sizes[0];
  const int64_t workers = num_workers(batch);
  const int64_t slice = [&] {
    Carver carver;
    Scratch scratch;
    scratch.carve(carver, graph);
    CostRanks(carver, cost);
    return carver.used();
  }();
  const int64_t shared_edges = graph.same_edges() ? graph.num_edges : 0;
  const auto layout = [&](Carver &carver) {
    carver.take<Ends>(shared_edges);
    carver.take<char>(times(slice, workers));
  };
  with_scratch(workspace, layout, [&](Carver &carver) {
    Ends *const shared_ends = carver.take<Ends>(shared_edges);
    char *const slices = carver.take<char>(times(slice, workers));
    if (graph.same_edges() && batch > 0) list_edges(graph, 0, shared_ends);
    for_each_task(workers, batch, [&](int64_t worker, int64_t item) {
      Carver own(slices + worker * slice);
      Scratch scratch;
      scratch.carve(own, graph);
      const CostRanks ranks(own, cost);
      const int32_t root_vertex = read_root(root, item, graph.num_vertices);
      if (!graph.same_edges()) list_edges(graph, item, scratch.ends);
      const Ends *const ends = graph.same_edges() ? shared_ends : scratch.ends;
      const Segments segments(labels, item);
      DisjointSets sets(scratch.sets, graph.num_vertices);
      kruskal(graph, ranks.row(cost, order, item), item, ends, segments, sets, scratch);
      const int64_t parts = graph.num_vertices - scratch.tree.num_edges;
      if (labels) {
        choose_roots(segments, root_vertex, sets, scratch.tree);
        root_forest(scratch.tree);
      } else if (parts == 1) {
        root_tree_at(scratch.tree, root_vertex, TREESCAN_BY_VERTEX);
      } else {
        fail(ValueFault::disconnected, item, parts);
      }
      write_tree(scratch.tree, item, output);
    });
  });
}

// Items in parallel if there are enough of them, else threads inside each.
void spanning_tree_of_grid(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                           const treescan_tree_output &output, treescan_workspace *workspace) {
  const int64_t batch = cost.sizes[0];
  const int64_t workers = num_workers(batch);
  const int64_t workers_inside = workers == 1 && graph.num_vertices >= GridTree::large ? num_threads() : 1;
  const int64_t slice = [&] {
    Carver carver;
    GridTree(carver, graph, workers_inside);
    CostRanks(carver, cost);
    return carver.used();
  }();
  const auto layout = [&](Carver &carver) { return carver.take<char>(times(slice, workers)); };
  with_scratch(workspace, layout, [&](Carver &carver) {
    char *const slices = layout(carver);
    for_each_task(workers, batch, [&](int64_t worker, int64_t item) {
      Carver own(slices + worker * slice);
      GridTree tree(own, graph, workers_inside);
      const CostRanks ranks(own, cost);
      tree.build(ranks.row(cost, order, item), item, read_root(root, item, graph.num_vertices), output);
    });
  });
}

}  // namespace

void spanning_tree(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                   const treescan_tensor *segments, const treescan_tree_output &output, treescan_workspace *workspace, void *) {
  if (!segments && GridTree::fits(graph)) {
    spanning_tree_of_grid(graph, cost, order, root, output, workspace);
  } else {
    spanning_tree_of_any(graph, cost, order, root, segments, output, workspace);
  }
}

}  // namespace treescan
