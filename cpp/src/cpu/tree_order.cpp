#include "cpu/tree_order.h"

#include <algorithm>

#include "parallel.h"
#include "value_faults.h"

namespace treescan {

void RootedTree::carve(Carver &carver, int64_t vertices) {
  num_vertices = vertices;
  edges = carver.take<TreeEdge>(vertices);
  parent = carver.take<int32_t>(vertices);
  order = carver.take<int32_t>(vertices);
  depth = carver.take<int32_t>(vertices);
  edge = carver.take<int32_t>(vertices);
  offsets = carver.take<uint32_t>(vertices + 1);
  neighbours = carver.take<Neighbour>(2 * vertices);
}

namespace {

// Grids and token windows have a handful of children each, and often in order.
void sort_siblings(int32_t *first, int32_t *last) {
  constexpr int64_t handful = 8;
  if (last - first > handful) {
    std::sort(first, last);
    return;
  }
  for (int32_t *i = first + 1; i < last; ++i)
    for (int32_t *j = i; j > first && *j < *(j - 1); --j) std::swap(*j, *(j - 1));
}

}  // namespace

int64_t root_tree(RootedTree &tree, int32_t sibling_order) {
  const int64_t vertices = tree.num_vertices;
  const int64_t count = tree.num_edges;
  // Neighbours of each vertex, in the order of the list: count, sum, and fill from the back of each range.
  uint32_t *const offsets = tree.offsets;
  std::fill(offsets, offsets + vertices + 1, 0u);
  for (int64_t i = 0; i < count; ++i) {
    ++offsets[tree.edges[i].a];
    ++offsets[tree.edges[i].b];
  }
  uint32_t sum = 0;
  for (int64_t v = 0; v <= vertices; ++v) offsets[v] = sum += offsets[v];
  for (int64_t i = count - 1; i >= 0; --i) {
    const TreeEdge e = tree.edges[i];
    tree.neighbours[--offsets[e.a]] = {e.b, e.edge};
    tree.neighbours[--offsets[e.b]] = {e.a, e.edge};
  }

  constexpr int32_t unseen = -1;
  for (int32_t *const values : {tree.parent, tree.depth, tree.edge}) std::fill(values, values + vertices, unseen);
  int64_t reached = tree.num_roots;
  for (int64_t i = 0; i < reached; ++i) {
    const int32_t root = tree.order[i];
    tree.parent[root] = root;
    tree.depth[root] = 0;
  }
  for (int64_t i = 0; i < reached; ++i) {
    const int32_t v = tree.order[i];
    const int64_t first_child = reached;
    for (uint32_t j = offsets[v]; j < offsets[v + 1]; ++j) {
      const RootedTree::Neighbour n = tree.neighbours[j];
      if (tree.parent[n.vertex] != unseen) continue;
      tree.parent[n.vertex] = v;
      tree.depth[n.vertex] = tree.depth[v] + 1;
      tree.edge[n.vertex] = n.edge;
      tree.order[reached++] = n.vertex;
    }
    if (sibling_order == TREESCAN_BY_VERTEX) sort_siblings(tree.order + first_child, tree.order + reached);
  }
  return reached;
}

int64_t root_tree_at(RootedTree &tree, int32_t root, int32_t sibling_order) {
  tree.num_edges = tree.num_vertices - 1;
  tree.num_roots = 1;
  tree.order[0] = root;
  return root_tree(tree, sibling_order);
}

int64_t root_forest(RootedTree &tree) {
  const int64_t reached = root_tree(tree, TREESCAN_BY_VERTEX);
  int64_t last = reached;
  for (int32_t v = 0; v < tree.num_vertices; ++v)
    if (tree.parent[v] < 0) tree.order[last++] = v;
  return reached;
}

namespace {

void write_row(const int32_t *values, int64_t count, int64_t item, const treescan_tensor *output) {
  if (!output) return;
  int32_t *const row = static_cast<int32_t *>(output->data) + item * output->strides[0];
  const int64_t stride = output->strides[1];
  if (stride == 1) {
    std::copy(values, values + count, row);
  } else {
    for (int64_t i = 0; i < count; ++i) row[i * stride] = values[i];
  }
}

}  // namespace

void write_tree(const RootedTree &tree, int64_t item, const treescan_tree_output &output) {
  write_row(tree.parent, tree.num_vertices, item, output.parent);
  write_row(tree.order, tree.num_vertices, item, output.order);
  write_row(tree.depth, tree.num_vertices, item, output.depth);
  write_row(tree.edge, tree.num_vertices, item, output.edge);
}

int32_t read_root(const treescan_tensor &root, int64_t item, int64_t num_vertices) {
  const int64_t entry = root.sizes[0] == 1 ? 0 : item;
  const int32_t value = static_cast<const int32_t *>(root.data)[entry * root.strides[0]];
  if (value < 0 || value >= num_vertices)
    fail(ValueFault::root_out_of_range, num_vertices, value, item);
  return value;
}

void tree_from_edges(const treescan_tensor &edges, const treescan_tensor &root, int32_t sibling_order,
                     const treescan_tree_output &output, treescan_workspace *workspace, void *) {
  const int64_t batch = edges.sizes[0];
  const int64_t vertices = edges.sizes[1] + 1;
  const IndexView view{edges.data, edges.dtype == TREESCAN_INT64, {edges.strides[0], edges.strides[1], edges.strides[2]}};
  const int64_t workers = num_workers(batch);
  const int64_t slice = [&] {
    Carver carver;
    RootedTree tree;
    tree.carve(carver, vertices);
    return carver.used();
  }();
  with_scratch(workspace, [&](Carver &carver) { return carver.take<char>(times(slice, workers)); }, [&](Carver &carver) {
    char *const scratch = carver.take<char>(times(slice, workers));
    for_each_task(workers, batch, [&](int64_t worker, int64_t item) {
      Carver own(scratch + worker * slice);
      RootedTree tree;
      tree.carve(own, vertices);
      for (int64_t i = 0; i < vertices - 1; ++i) {
        int64_t ends[2];
        for (int64_t k = 0; k < 2; ++k) {
          ends[k] = view.at(item, i, k);
          if (ends[k] < 0 || ends[k] >= vertices)
            fail(ValueFault::tree_edge_out_of_range, vertices, ends[k], i, item);
        }
        tree.edges[i] = {static_cast<int32_t>(ends[0]), static_cast<int32_t>(ends[1]), static_cast<int32_t>(i)};
      }
      const int64_t reached = root_tree_at(tree, read_root(root, item, vertices), sibling_order);
      if (reached != vertices)
        fail(ValueFault::tree_edges_hold_cycle, item, reached, vertices);
      write_tree(tree, item, output);
    });
  });
}

void forest_from_parents(const int32_t *parent, int64_t stride, int64_t item, RootedTree &tree) {
  const int64_t vertices = tree.num_vertices;
  tree.num_roots = tree.num_edges = 0;
  for (int64_t v = 0; v < vertices; ++v) {
    const int32_t p = parent[v * stride];
    if (p < -1 || p >= vertices)
      fail(ValueFault::parent_out_of_range, vertices, p, v, item);
    const auto vertex = static_cast<int32_t>(v);
    if (p == v) {
      tree.order[tree.num_roots++] = vertex;
    } else if (p >= 0) {
      tree.edges[tree.num_edges++] = {vertex, p, vertex};
    }
  }
}

namespace {

// The root of what must be one tree.
int32_t only_root(const RootedTree &tree, int64_t item) {
  if (tree.num_roots == 0)
    fail(ValueFault::no_root, item);
  if (tree.num_roots > 1)
    fail(ValueFault::two_roots, tree.order[0], tree.order[1], item);
  if (tree.num_edges < tree.num_vertices - 1)
    fail(ValueFault::parents_missing, tree.num_vertices - 1 - tree.num_edges, tree.num_vertices, item);
  return tree.order[0];
}

}  // namespace

namespace {

// Has `root(tree, item)` root the forest of every item's parents and return how many vertices that reached.
template <class Root>
void write_forests(const treescan_tensor &parent, const treescan_tree_output &output, treescan_workspace *workspace,
                   Root &&root) {
  const int64_t batch = parent.sizes[0];
  const int64_t vertices = parent.sizes[1];
  const int64_t workers = num_workers(batch);
  const int64_t slice = [&] {
    Carver carver;
    RootedTree tree;
    tree.carve(carver, vertices);
    return carver.used();
  }();
  with_scratch(workspace, [&](Carver &carver) { return carver.take<char>(times(slice, workers)); }, [&](Carver &carver) {
    char *const scratch = carver.take<char>(times(slice, workers));
    for_each_task(workers, batch, [&](int64_t worker, int64_t item) {
      Carver own(scratch + worker * slice);
      RootedTree tree;
      tree.carve(own, vertices);
      const int32_t *const row = static_cast<const int32_t *>(parent.data) + item * parent.strides[0];
      forest_from_parents(row, parent.strides[1], item, tree);
      const int64_t with_parent = tree.num_roots + tree.num_edges;
      const int64_t reached = root(tree, item);
      if (reached != with_parent)
        fail(ValueFault::parents_hold_cycle, item, reached, with_parent);
      write_tree(tree, item, output);
    });
  });
}

}  // namespace

void tree_from_parents(const treescan_tensor &parent, const treescan_tensor *root, const treescan_tree_output &output,
                       treescan_workspace *workspace, void *) {
  write_forests(parent, output, workspace, [&](RootedTree &tree, int64_t item) {
    const int32_t old_root = only_root(tree, item);
    return root_tree_at(tree, root ? read_root(*root, item, tree.num_vertices) : old_root, TREESCAN_BY_VERTEX);
  });
}

void forest_from_parents(const treescan_tensor &parent, const treescan_tree_output &output,
                         treescan_workspace *workspace, void *) {
  write_forests(parent, output, workspace, [](RootedTree &tree, int64_t) { return root_forest(tree); });
}

}  // namespace treescan
