// Roots a forest and brings its vertices into the canonical order, in barriers as many as the logarithm of its vertices.
//
// The tour around a tree passes each edge twice, and the half-edge after u-w is the one after w-u among w's neighbours,
// round and round. Once it is known how far every half-edge is from the end of its tour, the one by which a vertex is left
// for good leads to the parent, and sums along the tours give depth and preorder. Within a level, preorder is
// breadth-first order: preorder keeps subtrees apart, so both go by the parents first, and by label among siblings. A stable
// sort by depth is the rest.
#pragma once

#include "formula.h"
#include "team.h"
#include "treescan/treescan.h"

namespace treescan::cuda {

// By vertex, the neighbours in the forest: two half-edges for each edge. Those of v lie at [offsets[v], offsets[v+1]),
// sorted by their label: the neighbour's number, or the edge's if by_edge.
struct Adjacency {
  const uint32_t *offsets;   // V+1; unsigned, for it counts each edge twice
  const int32_t *neighbour;  // by half-edge
  const int32_t *edge;       // by half-edge, index in the graph's list, or whatever the output shall hold
  bool by_edge;

  __device__ __forceinline__ int32_t label(uint32_t half_edge) const { return (by_edge ? edge : neighbour)[half_edge]; }
};

// An output row of each item, which may not be wanted.
struct TreeRow {
  int32_t *data;
  int64_t item_stride, stride;

  explicit TreeRow(const treescan_tensor *output)
      : data(output ? static_cast<int32_t *>(output->data) : nullptr),
        item_stride(output ? output->strides[0] : 0),
        stride(output ? output->strides[1] : 0) {}

  __device__ __forceinline__ void set(int64_t item, int64_t i, int32_t value) const {
    if (data) data[item * item_stride + i * stride] = value;
  }
};

// Where trees go, as kernels get it. In `order` the index is the position, otherwise the vertex.
struct TreeRows {
  TreeRow parent, order, depth, edge;

  explicit TreeRows(const treescan_tree_output &output)
      : parent(output.parent), order(output.order), depth(output.depth), edge(output.edge) {}
};

// 32 bytes a vertex. One piece of memory, so that a kernel can give each of its blocks a part: RootingScratch{part}.
struct RootingScratch {
  char *memory;  // aligned to 8 bytes

  TREESCAN_MEMBER static constexpr int64_t bytes(int64_t vertices) { return 32 * vertices + 64; }
};

// Every eighth half-edge or so is a post: a thread walks from it to the next. Which ones are is mixed up, lest the tour have
// long stretches without any. The mixing is one-to-one, and posts are the half-edges that it takes to the lowest numbers.
class Posts {
 public:
  __device__ __forceinline__ explicit Posts(uint32_t half_edges)
      : bits_(max(3, bits_for(half_edges))), mask_(static_cast<uint32_t>((int64_t{1} << bits_) - 1)) {}

  // As many numbers; some may belong to no half-edge. At most a quarter of the half-edges, or 1.
  __device__ __forceinline__ uint32_t count() const { return 1u << (bits_ - 3); }

  __device__ __forceinline__ uint32_t number(uint32_t half_edge) const {
    return fold(half_edge * factor & mask_) * factor & mask_;
  }
  __device__ __forceinline__ uint32_t half_edge(uint32_t number) const {
    return fold(number * inverse & mask_) * inverse & mask_;
  }
  __device__ __forceinline__ bool is_post(uint32_t half_edge) const { return number(half_edge) < count(); }

 private:
  static constexpr uint32_t factor = 0x9e3779b1u, inverse = 0x0e8b2f51u;
  static_assert(factor * inverse == 1, "mixing is undone by the inverse");
  __device__ __forceinline__ uint32_t fold(uint32_t x) const { return x ^ x >> (bits_ + 1) / 2; }  // its own inverse

  int bits_;
  uint32_t mask_;
};

// The vertex, not before `from`, among whose half-edges this one is.
__device__ __forceinline__ int32_t tail_of(const uint32_t *offsets, int32_t vertices, int32_t from, uint32_t half_edge) {
  const auto begins = [&](int32_t step) { return step < vertices - from && offsets[from + step] <= half_edge; };
  int32_t step = 1;
  for (; begins(step); step *= 2) from += step;
  while (step /= 2)
    if (begins(step)) from += step;
  return from;
}

// The half-edge with this label among those of a vertex that has one.
__device__ __forceinline__ uint32_t find_label(const Adjacency &adjacency, int32_t vertex, int32_t label) {
  uint32_t first = adjacency.offsets[vertex], last = adjacency.offsets[vertex + 1] - 1;
  while (first < last) {
    const uint32_t middle = first + (last - first) / 2;
    if (adjacency.label(middle) < label) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return first;
}

// By half-edge, how many come after it in its tour. `links` holds 2 (posts.count() + 1).
template <class Team>
__device__ __forceinline__ void rank_tours(Team &team, int32_t vertices, const Adjacency &adjacency,
                                           const int32_t *root_of, uint32_t *ranks, Link *links) {
  const uint32_t *const offsets = adjacency.offsets;
  const uint32_t half_edges = offsets[vertices];
  // First the half-edge that comes next, or itself at the end. A thread takes neighbouring ones: their tails, too, are.
  uint32_t *const next = ranks;
  const uint32_t piece = (half_edges + team.size() - 1) / team.size();
  const uint32_t begin = min(half_edges, piece * team.rank()), past = min(half_edges, begin + piece);
  int32_t tail = 0;
#pragma unroll 1
  for (uint32_t j = begin; j < past; ++j) {
    tail = tail_of(offsets, vertices, tail, j);
    const int32_t head = adjacency.neighbour[j];
    const int32_t label = adjacency.by_edge ? adjacency.edge[j] : tail;
    const uint32_t after = find_label(adjacency, head, label) + 1;
    if (after < offsets[head + 1]) {
      next[j] = after;
    } else {
      next[j] = root_of[head] == head ? j : offsets[head];
    }
  }
  team.sync();

  const Posts posts(half_edges);
  const uint32_t end = posts.count();
  // The next post's number, or `end`, and how far that is.
  const auto walk = [&](uint32_t half_edge) {
    for (uint32_t distance = 0;; ++distance) {
      const uint32_t following = next[half_edge];
      if (following == half_edge) return make_link(end, distance);
      if (posts.is_post(following)) return make_link(posts.number(following), distance + 1);
      half_edge = following;
    }
  };
  for_each(team, end + 1, [&](uint32_t number) {
    const uint32_t post = posts.half_edge(number);
    links[number] = number < end && post < half_edges ? walk(post) : make_link(end, 0);
  });
  team.sync();
  const Link *const ranked = rank_lists(team, links, links + end + 1, end + 1);

  // The same walks once more, each over what no other walk reads.
  const auto write = [&](uint32_t half_edge, uint32_t rank) {
    for (;; --rank) {
      const uint32_t following = next[half_edge];
      ranks[half_edge] = rank;
      if (rank == 0 || posts.is_post(following)) return;
      half_edge = following;
    }
  };
  for_each(team, end, [&](uint32_t number) {
    const uint32_t post = posts.half_edge(number);
    if (post < half_edges) write(post, static_cast<uint32_t>(ranked[number]));
  });
  for_each(team, vertices, [&](int32_t v) {
    const uint32_t first = offsets[v];
    if (root_of[v] != v || first == offsets[v + 1] || posts.is_post(first)) return;
    const Link link = walk(first);
    write(first, static_cast<uint32_t>(link) + static_cast<uint32_t>(ranked[link >> 32]));
  });
  team.sync();
}

// Writes an item's forest of at most 2^30 vertices. root_of[v] is the root of v's tree, or -1 if v is in none, and then has
// no neighbours. The adjacency must hold a forest: whoever calls this has made sure of it. It takes more than 64 registers:
// blocks of kernels that call it have at most 512 threads.
template <class Team>
__device__ void root_forest(Team &team, int64_t num_vertices, const Adjacency &adjacency, const int32_t *root_of,
                            const RootingScratch &scratch, int64_t item, const TreeRows &output) {
  const auto vertices = static_cast<int32_t>(num_vertices);
  const uint32_t *const offsets = adjacency.offsets;
  auto *const ranks = reinterpret_cast<uint32_t *>(scratch.memory);
  auto *const sums = reinterpret_cast<int64_t *>(scratch.memory + 8 * num_vertices);
  auto *const up = reinterpret_cast<uint32_t *>(scratch.memory + 24 * num_vertices + 64);
  uint32_t *const enter = up + vertices;
  if (offsets[vertices] > 0) rank_tours(team, vertices, adjacency, root_of, ranks, reinterpret_cast<Link *>(sums));

  // Trees take a range of numbers each, by ascending root. A root notes where its range begins in `up`, where it ends in
  // `enter`; other vertices, the half-edge to the parent and the rank of the parent's; those in no tree, which of these.
  constexpr int64_t planted_one = int64_t{1} << 32;
  const auto tree_size = [&](int32_t root) {
    return offsets[root] == offsets[root + 1] ? 1 : (int64_t{ranks[offsets[root]]} + 3) / 2;
  };
  const auto counted = [&](int32_t v) {
    return root_of[v] == v ? tree_size(v) * planted_one : root_of[v] < 0 ? 1 : 0;
  };
  const int64_t planted = exclusive_sums(team, vertices, counted, [&](int32_t v, int64_t before) {
    if (root_of[v] == v) {
      up[v] = static_cast<uint32_t>(before >> 32);
      enter[v] = up[v] + static_cast<uint32_t>(tree_size(v));
    } else if (root_of[v] < 0) {
      enter[v] = static_cast<uint32_t>(before);
    } else {
      // From the first neighbour to the parent ranks fall; after the parent, where the tour went first, they are higher.
      const uint32_t first = offsets[v], end = offsets[v + 1];
      uint32_t last = first;
      for (uint32_t above = end; above - last > 1;) {
        const uint32_t middle = last + (above - last) / 2;
        (ranks[middle] <= ranks[first] ? last : above) = middle;
      }
      up[v] = last;
      enter[v] = ranks[last + 1 == end ? first : last + 1] + 1;
    }
  }) >> 32;

  // What each half-edge adds on the way: 1 to the depth in the lower half, and in the upper one what moves a vertex to its
  // place in preorder. For the tour takes the children after the grandparent first, which should come last.
  const auto slot = [&](int64_t top, uint32_t rank) { return 2 * top - 2 - rank; };
  for_each(team, vertices, [&](int32_t v) {
    const int32_t root = root_of[v];
    if (root < 0) return;
    const int64_t top = enter[root];
    if (root == v) {
      sums[2 * int64_t{up[v]}] = sums[2 * top - 1] = 0;
      return;
    }
    const int32_t parent = adjacency.neighbour[up[v]];
    int64_t moved = 0;
    if (parent != root) {
      const uint32_t first = offsets[parent], leaving = up[parent];
      const uint32_t turn = ranks[first == leaving ? leaving : first];
      const int32_t label = adjacency.by_edge ? adjacency.edge[up[v]] : v;
      moved = label > adjacency.label(leaving) ? (turn - ranks[leaving]) / 2
                                               : -static_cast<int64_t>((enter[parent] - 1 - turn) / 2);
    }
    const int64_t step = moved * planted_one + 1;
    sums[slot(top, enter[v])] = step;
    sums[slot(top, ranks[up[v]])] = -step;
  });
  team.sync();
  exclusive_sums(team, 2 * planted, [&](uint32_t i) { return sums[i]; }, [&](uint32_t i, int64_t sum) { sums[i] = sum; });

  auto *const preorder = reinterpret_cast<int32_t *>(ranks), *const spare = preorder + vertices;
  uint32_t *const depths = up;
  uint32_t deepest = 0;
  for_each(team, vertices, [&](int32_t v) {
    const int32_t root = root_of[v];
    if (root < 0) {
      output.parent.set(item, v, -1);
      output.depth.set(item, v, -1);
      output.edge.set(item, v, -1);
      output.order.set(item, planted + enter[v], v);
      return;
    }
    const int64_t top = enter[root];
    int64_t place = up[v];
    uint32_t depth = 0;
    if (root != v) {
      const int64_t sum = sums[slot(top, enter[v]) + 1];
      depth = static_cast<uint32_t>(sum);
      place = top - 1 - (enter[v] - depth) / 2 + (sum >> 32);
    }
    output.parent.set(item, v, root == v ? v : adjacency.neighbour[up[v]]);
    output.depth.set(item, v, static_cast<int32_t>(depth));
    output.edge.set(item, v, root == v ? -1 : adjacency.edge[up[v]]);
    preorder[place] = v;
    depths[v] = depth;
    deepest = max(deepest, depth);
  });
  if (!output.order.data) return team.sync();
  int bits = 0;
  while (team.any(int64_t{deepest} >> bits)) bits += digit_bits;
  const int32_t *const order = stable_sort(team, preorder, spare, planted, bits, reinterpret_cast<int32_t *>(sums),
                                           [&](int32_t v) { return depths[v]; });
  for_each(team, planted, [&](uint32_t i) { output.order.set(item, i, order[i]); });
  team.sync();
}

}  // namespace treescan::cuda
