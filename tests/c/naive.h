// What the library computes, once more: by definition, in double, at any cost.
#pragma once

#include <array>
#include <numeric>

#include "testing.h"

namespace naive {

using Edges = std::vector<std::array<int32_t, 2>>;

inline Edges grid(int32_t height, int32_t width, int32_t connectivity = 4) {
  Edges edges;
  const auto link = [&](int32_t down, int32_t right) {
    for (int32_t r = 0; r + down < height; ++r)
      for (int32_t c = 0; c < width; ++c)
        if (c + right >= 0 && c + right < width) edges.push_back({r * width + c, (r + down) * width + c + right});
  };
  link(1, 0);
  link(0, 1);
  if (connectivity == 8) {
    link(1, 1);
    link(1, -1);
  }
  return edges;
}

inline Edges tokens(int32_t length, int32_t window, int32_t context) {
  Edges edges;
  for (int32_t i = 0; i < length; ++i)
    for (int32_t j = i + 1; j < length; ++j)
      if (j == i + 1 || (i >= length - context && j - i <= window)) edges.push_back({i, j});
  return edges;
}

struct Tree {
  std::vector<double> parent, order, depth, edge;
};

// Roots a forest given by its edges (with their indices in the graph). What hangs on no root is in no tree.
inline Tree root_forest(int32_t vertices, const Edges &edges, const std::vector<int32_t> &indices,
                        const std::vector<int32_t> &roots, bool by_edge = false) {
  Tree tree;
  const auto n = static_cast<size_t>(vertices);
  tree.parent.assign(n, -1);
  tree.depth.assign(n, -1);
  tree.edge.assign(n, -1);
  tree.order.assign(roots.begin(), roots.end());
  for (const int32_t root : roots) {
    tree.parent[static_cast<size_t>(root)] = root;
    tree.depth[static_cast<size_t>(root)] = 0;
  }
  for (size_t i = 0; i < tree.order.size(); ++i) {
    const auto v = static_cast<int32_t>(tree.order[i]);
    const size_t first = tree.order.size();
    for (size_t e = 0; e < edges.size(); ++e)
      for (const int side : {0, 1}) {
        if (edges[e][static_cast<size_t>(side)] != v) continue;
        const auto child = static_cast<size_t>(edges[e][static_cast<size_t>(1 - side)]);
        if (tree.parent[child] >= 0) continue;
        tree.parent[child] = v;
        tree.depth[child] = tree.depth[static_cast<size_t>(v)] + 1;
        tree.edge[child] = indices[e];
        tree.order.push_back(static_cast<double>(child));
      }
    if (!by_edge) std::sort(tree.order.begin() + static_cast<std::ptrdiff_t>(first), tree.order.end());
  }
  for (size_t v = 0; v < n; ++v)
    if (tree.parent[v] < 0) tree.order.push_back(static_cast<double>(v));
  return tree;
}

inline Tree root_tree(int32_t vertices, const Edges &edges, const std::vector<int32_t> &indices, int32_t root,
                      bool by_edge = false) {
  return root_forest(vertices, edges, indices, {root}, by_edge);
}

// Kruskal's algorithm with a label for each vertex. `has`: the edges that take part; `planted`: the vertices that do.
inline Tree minimum_spanning_forest(int32_t vertices, const Edges &edges, const std::vector<double> &cost, int32_t root,
                                    bool maximum, const std::function<bool(size_t)> &has,
                                    const std::function<bool(int32_t)> &planted) {
  std::vector<int32_t> sorted(edges.size());
  std::iota(sorted.begin(), sorted.end(), 0);
  std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t i, int32_t j) {
    const double a = cost[static_cast<size_t>(i)], b = cost[static_cast<size_t>(j)];
    if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
    return maximum ? a > b : a < b;
  });
  std::vector<int32_t> label(static_cast<size_t>(vertices));
  std::iota(label.begin(), label.end(), 0);
  Edges kept;
  std::vector<int32_t> indices;
  for (const int32_t e : sorted) {
    const auto [a, b] = edges[static_cast<size_t>(e)];
    const int32_t from = label[static_cast<size_t>(a)], to = label[static_cast<size_t>(b)];
    if (from == to || (has && !has(static_cast<size_t>(e)))) continue;
    std::replace(label.begin(), label.end(), from, to);
    kept.push_back({a, b});
    indices.push_back(e);
  }
  std::vector<int32_t> roots;
  for (int32_t v = 0; v < vertices; ++v) {
    const auto joined = [&](int32_t other) {
      return planted(other) && label[static_cast<size_t>(other)] == label[static_cast<size_t>(v)];
    };
    bool first = planted(v) && !joined(root);
    for (int32_t lower = 0; lower < v; ++lower) first = first && !joined(lower);
    if (first || (v == root && planted(root))) roots.push_back(v);
  }
  return root_forest(vertices, kept, indices, roots);
}

inline Tree minimum_spanning_tree(int32_t vertices, const Edges &edges, const std::vector<double> &cost, int32_t root,
                                  bool maximum = false, const std::function<bool(size_t)> &has = {}) {
  return minimum_spanning_forest(vertices, edges, cost, root, maximum, has, [](int32_t) { return true; });
}

inline double metric(int32_t kind, const std::vector<double> &a, const std::vector<double> &b) {
  double sum = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += kind == TREESCAN_L1   ? std::fabs(a[i] - b[i])
           : kind == TREESCAN_L2 ? (a[i] - b[i]) * (a[i] - b[i])
                                 : a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return kind == TREESCAN_COSINE ? (aa == 0 || bb == 0 ? 0 : -sum / (std::sqrt(aa) * std::sqrt(bb))) : sum;
}

struct Gradients {
  std::vector<double> x, weights;
};

// For one channel: the sum over all vertices j whose state reaches i, of the product of the weights on the path times
// x[j]. Gives y, and, where g isn't empty, the gradients of the sum of g*y by differentiating each product.
inline std::vector<double> scan(int32_t direction, const std::vector<double> &parent, const std::vector<double> &x,
                                const std::vector<double> &weights, const std::vector<double> &g = {},
                                Gradients *gradients = nullptr) {
  const size_t n = parent.size();
  std::vector<double> y(n, 0);
  if (gradients) *gradients = {std::vector<double>(n, 0), std::vector<double>(n, 0)};
  const auto above = [&](size_t v) {  // v and all its ancestors; none for a vertex in no tree
    if (parent[v] < 0) return std::vector<size_t>{};
    std::vector<size_t> list{v};
    while (static_cast<size_t>(parent[list.back()]) != list.back())
      list.push_back(static_cast<size_t>(parent[list.back()]));
    return list;
  };
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) {
      std::vector<size_t> up = above(i), down = above(j);
      if (up.empty() || down.empty() || up.back() != down.back()) continue;  // in two trees, or in none
      while (!up.empty() && !down.empty() && up.back() == down.back()) {
        up.pop_back();
        down.pop_back();
      }
      // The path from i climbs the edges above `up` and descends those above `down`.
      if (direction == TREESCAN_UP && !up.empty()) continue;
      if (direction == TREESCAN_DOWN && !down.empty()) continue;
      up.insert(up.end(), down.begin(), down.end());
      double product = 1;
      for (const size_t v : up) product *= weights[v];
      y[i] += product * x[j];
      if (!gradients) continue;
      gradients->x[j] += product * g[i];
      for (const size_t v : up) {
        double others = 1;
        for (const size_t u : up)
          if (u != v) others *= weights[u];
        gradients->weights[v] += g[i] * x[j] * others;
      }
    }
  return y;
}

}  // namespace naive
