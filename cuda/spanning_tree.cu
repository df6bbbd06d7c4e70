#include "spanning_tree.h"

#include "call.h"
#include "contexts.h"
#include "cost_ranks.h"
#include "failure.h"
#include "rooting.h"
#include "spanning_forest.h"
#include "strategy.h"
#include "wide_costs.h"

namespace treescan::cuda {

namespace {

// ---- What kernels read ----

// A row of numbers for each item, or one for all.
template <class T>
struct Rows {
  const T *data = nullptr;
  int64_t item_stride = 0, stride = 0;

  Rows() = default;
  explicit Rows(const treescan_tensor &tensor)
      : data(static_cast<const T *>(tensor.data)),
        item_stride(tensor.sizes[0] == 1 ? 0 : tensor.strides[0]),
        stride(tensor.ndim == 1 ? 0 : tensor.strides[1]) {}
  Rows(const T *dense, int64_t size) : data(dense), item_stride(size), stride(1) {}

  __device__ __forceinline__ T at(int64_t item, int64_t i) const { return data[item * item_stride + i * stride]; }
};

// The edges of an item, as grow_forest() wants them.
struct ItemEdges {
  const Graph &graph;
  const Rows<float> &cost;  // none: edges in the order of their list
  bool descending;
  const Rows<int32_t> &segments;  // none: all vertices in one
  int64_t item;
  Stencil stencil;    // of all kinds of graphs but lists
  int64_t open_from;  // the first vertex linked to more than the next one

  __device__ __forceinline__ ItemEdges(const Graph &graph_, const Rows<float> &cost_, bool descending_,
                                       const Rows<int32_t> &segments_, int64_t item_)
      : graph(graph_), cost(cost_), descending(descending_), segments(segments_), item(item_), stencil(graph_),
        open_from(graph_.kind == TREESCAN_TOKENS ? graph_.num_vertices - graph_.context(item_) : 0) {}

  __device__ __forceinline__ int64_t listed(int64_t edge, int64_t side) const {
    return graph.edges.at(graph.own_lists ? item : 0, edge, side);
  }

  template <class Team, class Body>
  __device__ __forceinline__ void for_each(const Team &team, Body body) const {
    if (graph.kind == TREESCAN_EDGES) {
      cuda::for_each(team, graph.num_edges, [&](int64_t edge) { body(edge, ends(edge)); });
      return;
    }
    cuda::for_each(team, graph.num_vertices, [&](int64_t v) {
      for (int64_t k = 0; k < (v < open_from ? 1 : stencil.count); ++k) {
        const int64_t edge = stencil.edge(v, k);
        if (edge >= 0) body(edge, Ends{static_cast<int32_t>(v), static_cast<int32_t>(v + stencil.distance(k))});
      }
    });
  }

  __device__ __forceinline__ bool in_a_segment(int32_t v) const { return !segments.data || segments.at(item, v) >= 0; }

  __device__ __forceinline__ Key key(int64_t edge, Ends ends) const {
    if (segments.data) {
      const int32_t label = segments.at(item, ends.lower);
      if (label < 0 || label != segments.at(item, ends.upper)) return no_edge;
    }
    uint32_t above = 0;
    if (cost.data) {
      const float value = cost.at(item, edge);
      above = static_cast<uint32_t>(sort_key(descending ? -value : value)) ^ 0x80000000u;
    }
    return static_cast<Key>(above) << 32 | static_cast<uint32_t>(edge);
  }

  __device__ __forceinline__ Ends ends(int64_t edge) const {
    if (graph.kind == TREESCAN_EDGES)
      return {static_cast<int32_t>(listed(edge, 0)), static_cast<int32_t>(listed(edge, 1))};
    const Link link = find(edge);
    return {static_cast<int32_t>(link.vertex), static_cast<int32_t>(link.vertex + stencil.distance(link.k))};
  }

  // Where the stencil has an edge: the lower vertex, and the number of the distance to the upper one.
  struct Link {
    int64_t vertex, k;
  };
  __device__ __forceinline__ Link find(int64_t edge) const {
    if (graph.kind == TREESCAN_CHAIN) return {edge, 0};
    if (graph.kind == TREESCAN_GRID) {
      const int64_t h = graph.height, w = graph.width;
      if (edge < (h - 1) * w) return {edge, 0};
      edge -= (h - 1) * w;
      int64_t k = 1;
      if (edge >= h * (w - 1)) {
        edge -= h * (w - 1);
        k = 2;
        if (edge >= (h - 1) * (w - 1)) {
          edge -= (h - 1) * (w - 1);
          k = 3;
        }
      }
      return {edge / (w - 1) * w + edge % (w - 1) + (k == 3), k};
    }
    int64_t first = 0, last = graph.num_vertices - 1;
    const auto edges_before = [&](int64_t v) {
      return token_edges_before(v, graph.num_vertices, graph.window, graph.num_vertices - graph.longest_context);
    };
    while (last - first > 1) {
      const int64_t middle = (first + last) / 2;
      (edges_before(middle) <= edge ? first : last) = middle;
    }
    return {first, edge - edges_before(first)};
  }
};

// ---- What kernels work on ----

// The memory of a team, in the order in which a block's own should hold it.
struct Scratch {
  Forest forest;
  AdjacencyArrays adjacency;
  int32_t *root_of;
  char *rest;  // for sorting half-edges, and then for rooting

  TREESCAN_MEMBER Scratch(Pieces &pieces, int64_t vertices) {
    forest.carve(pieces, vertices);
    adjacency.carve(pieces, vertices);
    root_of = pieces.take<int32_t>(vertices);
    rest = pieces.take<char>(max(HalfEdges::bytes(vertices), RootingScratch::bytes(vertices)));
  }
};

// The memory of a launch: a block's own, and a part of the workspace for each team.
struct TeamMemory {
  int64_t own_bytes, part_bytes;
  char *parts;
  GridMemory *grid;

  __device__ __forceinline__ Scratch of(int64_t team, char *own, int64_t vertices) const {
    Pieces pieces{own, own_bytes, parts + team * part_bytes};
    return Scratch(pieces, vertices);
  }
};

// How many of [0, count) it holds for.
template <class Team, class Predicate>
__device__ __forceinline__ int64_t count_if(Team &team, int64_t count, Predicate predicate) {
  int64_t own = 0, all;
  for_each(team, count, [&](int64_t i) { own += predicate(i); });
  team.sum_before(own, &all);
  return all;
}

template <class Team>
__device__ __forceinline__ void write_nothing(const Team &team, int64_t vertices, int64_t item, const TreeRows &tree) {
  for_each(team, vertices, [&](int64_t v) {
    tree.parent.set(item, v, -1);
    tree.order.set(item, v, -1);
    tree.depth.set(item, v, -1);
    tree.edge.set(item, v, -1);
  });
}

// A root that the caller gave, or -1.
template <class Team>
__device__ __forceinline__ int32_t read_root(const Team &team, const Rows<int32_t> &root, int64_t item,
                                             int64_t vertices, Failure *failure) {
  const int32_t value = root.at(item, 0);
  if (value >= 0 && value < vertices) return value;
  if (team.rank() == 0) report(failure, ValueFault::root_out_of_range, vertices, value, item);
  return -1;
}

// ---- Trees out of graphs ----

// A stencil's edges at a vertex, both ways, are one bit each: then nothing needs sorting.
__host__ __device__ __forceinline__ bool fits_bits(const Graph &graph) {
  return graph.kind != TREESCAN_EDGES && (graph.kind != TREESCAN_TOKENS || graph.window <= 32);
}

template <class Team>
__device__ __forceinline__ void stencil_adjacency(Team &team, const ItemEdges &edges, const Forest &forest,
                                                  const AdjacencyArrays &adjacency) {
  const Stencil &stencil = edges.stencil;
  const int64_t vertices = edges.graph.num_vertices, count = stencil.count;
  Key *const bits = forest.best;
  for_each(team, vertices, [&](int64_t v) { bits[v] = 0; });
  team.sync();
  for_each(team, vertices, [&](int64_t v) {
    if (forest.edge[v] < 0) return;
    const ItemEdges::Link link = edges.find(forest.edge[v]);
    atomicOr(bits + link.vertex, Key{1} << link.k);
    atomicOr(bits + link.vertex + stencil.distance(link.k), Key{1} << (count + link.k));
  });
  team.sync();
  exclusive_sums(team, vertices + 1, [&](int64_t v) { return v < vertices ? __popcll(bits[v]) : 0; },
                 [&](int64_t v, int64_t sum) { adjacency.offsets[v] = static_cast<uint32_t>(sum); });
  // The number of the i-th smallest distance.
  const auto nearest = [&](int64_t i) -> int64_t {
    if (edges.graph.kind != TREESCAN_GRID) return i;
    return count == 2 ? 1 - i : 0x2031 >> 4 * i & 3;
  };
  for_each(team, vertices, [&](int64_t v) {
    uint32_t j = adjacency.offsets[v];
    for (int64_t i = -count; i < count; ++i) {
      const int64_t k = nearest(i < 0 ? -1 - i : i);
      if (!(bits[v] >> (i < 0 ? count + k : k) & 1)) continue;
      const int64_t lower = i < 0 ? v - stencil.distance(k) : v;
      adjacency.neighbour[j] = static_cast<int32_t>(i < 0 ? lower : v + stencil.distance(k));
      adjacency.edge[j++] = static_cast<int32_t>(stencil.edge(lower, k));
    }
  });
  team.sync();
}

struct GraphTrees {
  int64_t batch, vertices;
  TreeRows tree;
  Failure *failure;
  Graph graph{};
  Rows<int32_t> root{}, segments{};  // no segments: one tree
  Rows<float> cost{};
  bool descending = false;
  bool list_is_tree = false;  // the graph's list should be the edges of a tree
  bool by_edge = false;

  template <class Team>
  __device__ __forceinline__ void build(Team &team, const Scratch &scratch, int64_t item) const {
    const Forest &forest = scratch.forest;
    const ItemEdges edges(graph, cost, descending, segments, item);
    const int32_t chosen_root = read_root(team, root, item, vertices, failure);
    if (chosen_root < 0 || !edges_in_range(team, edges)) return write_nothing(team, vertices, item, tree);
    const int64_t parts = grow_forest(team, edges, vertices, forest);
    if (parts > 1 && !segments.data) {
      report_parts(team, forest, chosen_root, item, parts);
      return write_nothing(team, vertices, item, tree);
    }
    choose_roots(team, edges, forest, chosen_root, scratch.root_of);
    if (fits_bits(graph)) {
      stencil_adjacency(team, edges, forest, scratch.adjacency);
    } else {
      if (list_is_tree)
        for_each(team, vertices, [&](int64_t v) { forest.edge[v] = static_cast<int32_t>(v < vertices - 1 ? v : -1); });
      sort_adjacency(team, vertices, forest.edge, !by_edge, [&](int64_t edge) { return edges.ends(edge); },
                     HalfEdges(scratch.rest, vertices), scratch.adjacency);
    }
    root_forest(team, vertices, scratch.adjacency.view(by_edge), scratch.root_of, RootingScratch{scratch.rest}, item,
                tree);
  }

 private:
  // Of several indices out of range, any may be the one that is reported.
  template <class Team>
  __device__ __forceinline__ bool edges_in_range(Team &team, const ItemEdges &edges) const {
    if (graph.kind != TREESCAN_EDGES) return true;
    bool found = false;
    for_each(team, graph.num_edges, [&](int64_t edge) {
      for (int side = 0; side < 2; ++side) {
        const int64_t end = edges.listed(edge, side);
        if (end >= 0 && end < vertices) continue;
        report(failure, list_is_tree ? ValueFault::tree_edge_out_of_range : ValueFault::edge_index_out_of_range,
               vertices, end, edge, edges.item);
        found = true;
      }
    });
    return !team.any(found);
  }

  template <class Team>
  __device__ __forceinline__ void report_parts(Team &team, const Forest &forest, int32_t chosen_root, int64_t item,
                                               int64_t parts) const {
    const int64_t reached =
        count_if(team, vertices, [&](int64_t v) { return forest.centre[v] == forest.centre[chosen_root]; });
    if (team.rank() != 0) return;
    if (list_is_tree) {
      report(failure, ValueFault::tree_edges_hold_cycle, item, reached, vertices);
    } else {
      report(failure, ValueFault::disconnected, item, parts);
    }
  }

  // Each tree's root is the chosen one if it has that, else its lowest vertex.
  template <class Team>
  __device__ __forceinline__ void choose_roots(Team &team, const ItemEdges &edges, const Forest &forest,
                                               int32_t chosen_root, int32_t *root_of) const {
    if (segments.data) {
      for_each(team, vertices, [&](int64_t v) { offer(forest.best + forest.centre[v], static_cast<Key>(v)); });
      team.sync();
    }
    for_each(team, vertices, [&](int64_t v) {
      const bool chosen = !segments.data || forest.centre[v] == forest.centre[chosen_root];
      const int32_t found = chosen ? chosen_root : static_cast<int32_t>(forest.best[forest.centre[v]]);
      root_of[v] = edges.in_a_segment(static_cast<int32_t>(v)) ? found : -1;
    });
    team.sync();
  }
};

// ---- Trees out of parents ----

struct ParentTrees {
  int64_t batch, vertices;
  TreeRows tree;
  Failure *failure;
  Rows<int32_t> parent, root;  // no root: as it is
  bool one_tree;

  template <class Team>
  __device__ __forceinline__ void build(Team &team, const Scratch &scratch, int64_t item) const {
    const Forest &forest = scratch.forest;
    int32_t new_root = -1;
    if (!prepare(team, forest, item, &new_root)) return write_nothing(team, vertices, item, tree);
    for_each(team, vertices, [&](int64_t v) {
      const int32_t p = parent.at(item, v);
      scratch.root_of[v] = p < 0 ? -1 : new_root >= 0 ? new_root : forest.centre[v];
      forest.edge[v] = p < 0 || p == v ? -1 : static_cast<int32_t>(v);
    });
    const auto ends = [&](int64_t v) { return Ends{static_cast<int32_t>(v), parent.at(item, v)}; };
    sort_adjacency(team, vertices, forest.edge, true, ends, HalfEdges(scratch.rest, vertices),
                   scratch.adjacency);
    root_forest(team, vertices, scratch.adjacency.view(false), scratch.root_of, RootingScratch{scratch.rest}, item,
                tree);
  }

 private:
  // Finds every vertex's root, in forest.centre, and reads the new one. Returns whether this is a tree or a forest.
  template <class Team>
  __device__ __forceinline__ bool prepare(Team &team, const Forest &forest, int64_t item, int32_t *new_root) const {
    bool wrong = false;
    for_each(team, vertices, [&](int64_t v) {
      const int32_t p = parent.at(item, v);
      forest.centre[v] = p < 0 ? static_cast<int32_t>(v) : p;
      if (p >= -1 && p < vertices) return;
      report(failure, ValueFault::parent_out_of_range, vertices, p, v, item);  // of several, any
      wrong = true;
    });
    if (team.any(wrong)) return false;
    const int64_t with_parent = count_if(team, vertices, [&](int64_t v) { return parent.at(item, v) >= 0; });
    if (one_tree) {
      if (!one_root(team, forest.edge, item)) return false;
      if (with_parent < vertices) {
        if (team.rank() == 0) report(failure, ValueFault::parents_missing, vertices - with_parent, vertices, item);
        return false;
      }
      if (root.data && (*new_root = read_root(team, root, item, vertices, failure)) < 0) return false;
    }
    jump_to_ends(team, forest.centre, vertices);
    const int64_t reached = count_if(team, vertices, [&](int64_t v) {
      const int32_t end = forest.centre[v];
      return parent.at(item, v) >= 0 && parent.at(item, end) == end;
    });
    // With a new root the CPU counts from there.
    if (reached != with_parent && team.rank() == 0)
      report(failure, ValueFault::parents_hold_cycle, item, reached, with_parent);
    return reached == with_parent;
  }

  template <class Team>
  __device__ __forceinline__ bool one_root(Team &team, int32_t *first_two, int64_t item) const {
    const auto is_root = [&](int64_t v) { return parent.at(item, v) == v; };
    const int64_t roots = exclusive_sums(team, vertices, is_root, [&](int64_t v, int64_t before) {
      if (before < 2 && is_root(v)) first_two[before] = static_cast<int32_t>(v);
    });
    if (roots != 1 && team.rank() == 0) {
      if (roots == 0) {
        report(failure, ValueFault::no_root, item);
      } else {
        report(failure, ValueFault::two_roots, first_two[0], first_two[1], item);
      }
    }
    return roots == 1;
  }
};

// ---- Launches ----

constexpr int most_block_threads = 512, grid_threads = 256, draw_threads = 256;

// One tree after the other in the same scratch memory: every way through build() has a barrier behind the last look at what the
// next tree overwrites before its own first barrier.
template <class Trees>
__global__ void __launch_bounds__(most_block_threads, 1) build_by_block(const Trees trees, const TeamMemory memory) {
  SHARED_DYNAMIC(char, own);
  BlockTeam team;
  const Scratch scratch = memory.of(blockIdx.x, own, trees.vertices);
  for (int64_t item = blockIdx.x; item < trees.batch; item += gridDim.x) trees.build(team, scratch, item);
}

template <class Trees>
__global__ void __launch_bounds__(grid_threads, 1) build_by_grid(const Trees trees, const TeamMemory memory) {
  GridTeam team(memory.grid);
  const Scratch scratch = memory.of(0, nullptr, trees.vertices);
  for (int64_t item = 0; item < trees.batch; ++item) trees.build(team, scratch, item);
}

__global__ void __launch_bounds__(draw_threads) draw_costs(Rows<float> cost, int64_t batch, int64_t edges,
                                                           uint64_t seed, float *drawn) {
  const int64_t all = batch * edges, stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < all; i += stride)
    drawn[i] = random_cost(cost.at(i / edges, i % edges), seed, i / edges, i % edges);
}

// A launch that builds the trees of a batch: by which teams, and with how much memory.
template <class Trees>
class Launch {
 public:
  Launch(int64_t batch, int64_t vertices) {
    if (vertices > most_vertices)
      fail(TREESCAN_TOO_LARGE, "tree: expected at most ", most_vertices, " vertices in CUDA memory, got ", vertices);
    by_grid_ = grid_pays(batch, vertices);
    Pieces pieces{nullptr, by_grid_ ? 0 : most_dynamic_shared(), nullptr};
    Scratch(pieces, vertices);
    own_bytes_ = pieces.own_used;
    part_bytes_ = (pieces.used + 63) / 64 * 64;
    if (by_grid_) {
      threads_ = grid_threads;
      blocks_ = std::min({resident_blocks(build_by_grid<Trees>, threads_, 0), GridMemory::most_blocks,
                          grid_size((vertices + threads_ - 1) / threads_)});
    } else {
      threads_ = static_cast<int>(std::min<int64_t>((vertices + 31) / 32 * 32, most_block_threads));
      const unsigned resident = resident_blocks(build_by_block<Trees>, threads_, static_cast<size_t>(own_bytes_));
      blocks_ = static_cast<unsigned>(std::min<int64_t>(batch, resident));
    }
  }

  void carve(Carver &carver) {
    memory_ = {own_bytes_, part_bytes_, carver.take<char>(times(by_grid_ ? 1 : blocks_, part_bytes_)),
               carver.take<GridMemory>(by_grid_)};
  }

  void run(const Trees &trees, cudaStream_t stream) const {
    if (trees.batch == 0) return;
    if (by_grid_) {
      check(cudaMemsetAsync(memory_.grid, 0, sizeof(GridMemory), stream), "trees");
      check(LAUNCH_COOPERATIVE((build_by_grid<Trees>), blocks_, threads_, 0, stream, trees, memory_), "trees");
    } else {
      check(LAUNCH((build_by_block<Trees>), blocks_, threads_, static_cast<size_t>(own_bytes_), stream, trees, memory_),
            "trees");
    }
  }

 private:
  bool by_grid_;
  int threads_;
  unsigned blocks_;
  int64_t own_bytes_, part_bytes_;
  TeamMemory memory_{};
};

}  // namespace

void spanning_tree(const Graph &graph, const treescan_tensor &cost, EdgeOrder order, const treescan_tensor &root,
                   const treescan_tensor *segments, const treescan_tree_output &output, treescan_workspace *workspace,
                   void *stream) {
  const int64_t batch = cost.sizes[0];
  const bool wide = is_wide(cost), draws = order.kind == EdgeOrder::random && !wide;
  Launch<GraphTrees> launch(batch, graph.num_vertices);
  CostRanking ranking(cost);
  int64_t *contexts;
  float *drawn;
  const auto layout = [&](Carver &carver) {
    contexts = take_contexts(carver, graph);
    drawn = carver.take<float>(draws ? times(batch, graph.num_edges) : 0);
    ranking.carve(carver);
    launch.carve(carver);
  };
  with_device_scratch(workspace, as_stream(stream), layout, [&](Carver &carver) {
    layout(carver);
    if (batch == 0) return;
    GraphTrees trees{batch, graph.num_vertices, TreeRows(output), failure_of_current_device()};
    trees.graph = graph_on_device(graph, contexts, as_stream(stream));
    trees.root = Rows<int32_t>(root);
    if (segments) trees.segments = Rows<int32_t>(*segments);
    trees.cost = wide ? Rows<float>(ranking.run(cost, order, as_stream(stream)), graph.num_edges) : Rows<float>(cost);
    if (draws && graph.num_edges > 0) {
      const int64_t blocks = (batch * graph.num_edges + draw_threads - 1) / draw_threads;
      check(LAUNCH((draw_costs), grid_size(blocks), draw_threads, 0, as_stream(stream), trees.cost, batch,
                   graph.num_edges, order.seed, drawn), "random costs");
      trees.cost = Rows<float>(drawn, graph.num_edges);
    }
    trees.descending = order.kind == EdgeOrder::descending && !wide;
    launch.run(trees, as_stream(stream));
  });
}

void tree_from_edges(const treescan_tensor &edges, const treescan_tensor &root, int32_t sibling_order,
                     const treescan_tree_output &output, treescan_workspace *workspace, void *stream) {
  Graph graph;
  graph.kind = TREESCAN_EDGES;
  graph.num_edges = edges.sizes[1];
  graph.num_vertices = graph.num_edges + 1;
  graph.edges = {edges.data, edges.dtype == TREESCAN_INT64, {edges.strides[0], edges.strides[1], edges.strides[2]}};
  graph.own_lists = true;
  Launch<GraphTrees> launch(edges.sizes[0], graph.num_vertices);
  const auto layout = [&](Carver &carver) { launch.carve(carver); };
  with_device_scratch(workspace, as_stream(stream), layout, [&](Carver &carver) {
    layout(carver);
    GraphTrees trees{edges.sizes[0], graph.num_vertices, TreeRows(output), failure_of_current_device()};
    trees.graph = graph;
    trees.root = Rows<int32_t>(root);
    trees.list_is_tree = true;
    trees.by_edge = sibling_order == TREESCAN_BY_EDGE;
    launch.run(trees, as_stream(stream));
  });
}

namespace {

void trees_from_parents(const treescan_tensor &parent, const treescan_tensor *root, bool one_tree,
                        const treescan_tree_output &output, treescan_workspace *workspace, void *stream) {
  Launch<ParentTrees> launch(parent.sizes[0], parent.sizes[1]);
  const auto layout = [&](Carver &carver) { launch.carve(carver); };
  with_device_scratch(workspace, as_stream(stream), layout, [&](Carver &carver) {
    layout(carver);
    launch.run({parent.sizes[0], parent.sizes[1], TreeRows(output), failure_of_current_device(), Rows<int32_t>(parent),
                root ? Rows<int32_t>(*root) : Rows<int32_t>(), one_tree}, as_stream(stream));
  });
}

}  // namespace

void tree_from_parents(const treescan_tensor &parent, const treescan_tensor *root, const treescan_tree_output &output,
                       treescan_workspace *workspace, void *stream) {
  trees_from_parents(parent, root, true, output, workspace, stream);
}

void forest_from_parents(const treescan_tensor &parent, const treescan_tree_output &output,
                         treescan_workspace *workspace, void *stream) {
  trees_from_parents(parent, nullptr, false, output, workspace, stream);
}

}  // namespace treescan::cuda
