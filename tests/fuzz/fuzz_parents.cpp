// Trees that are given: as parent arrays and as lists of edges. They are taken if and only if they are trees (or forests).
#include "graphs.h"

using namespace fuzzing;

namespace {

// Does every vertex that has a parent come to a root? And is there one root, over all vertices, where one tree is wanted?
bool holds(const std::vector<int64_t> &parent, bool forest) {
  const auto vertices = static_cast<int64_t>(parent.size());
  int64_t roots = 0;
  for (int64_t v = 0; v < vertices; ++v) {
    const int64_t p = parent[static_cast<size_t>(v)];
    if (p < (forest ? -1 : 0) || p >= vertices) return false;
    roots += p == v;
    int64_t at = v, steps = 0;
    while (at >= 0 && parent[static_cast<size_t>(at)] != at && steps++ <= vertices) {
      at = parent[static_cast<size_t>(at)];
      if (at < -1 || at >= vertices) return false;
    }
    if (steps > vertices || (at < 0 && p >= 0)) return false;
  }
  return forest || roots == 1;
}

void from_parents(Data &data) {
  const int64_t batch = data.size(1, 3), vertices = data.size(1, 12);
  const bool forest = data.flag(), moved = !forest && data.flag();
  Tensor parent(data, Role::input, TREESCAN_INT32, {batch, vertices}, vertices);
  if (!data.rarely()) plant(data, parent, nullptr, batch, vertices, forest);
  Tensor root(data, Role::input, TREESCAN_INT32, {data.flag() ? batch : 1}, vertices);
  Tree tree(data, batch, vertices, false);
  const treescan_status status = run(
      data,
      [&](treescan_workspace *workspace, void *stream) {
        if (forest) return treescan_forest_from_parents(parent, tree, workspace, stream);
        return treescan_tree_from_parents(parent, moved ? root : nullptr, tree, workspace, stream);
      },
      {tree.part(0), tree.part(1), tree.part(2)});
  if (!are_small({batch, vertices}) || !parent.is_real() || parent.count() != batch * vertices) return;
  bool all = true;
  for (int64_t item = 0; item < batch; ++item) {
    std::vector<int64_t> given;
    for (int64_t v = 0; v < vertices; ++v) given.push_back(parent.index(item * vertices + v));
    all = all && holds(given, forest);
    if (status != TREESCAN_OK || !tree.has(0)) continue;
    tree.check(item);
    if (moved && root.is_real() && root.count() > 0) {
      const int64_t wanted = root.index(root.size(0) == 1 ? 0 : item);
      REQUIRE(tree.parent(item, wanted) == wanted);
    } else if (!moved) {
      for (int64_t v = 0; v < vertices; ++v) REQUIRE(tree.parent(item, v) == given[static_cast<size_t>(v)]);
    }
  }
  REQUIRE(status != TREESCAN_OK || all);
  REQUIRE(status != TREESCAN_NOT_A_TREE || !all);
}

void from_edges(Data &data) {
  const int64_t batch = data.size(1, 3), edges = data.size(0, 10), vertices = edges < INT64_MAX ? edges + 1 : edges;
  Tensor list(data, Role::input, data.flag() ? TREESCAN_INT64 : TREESCAN_INT32, {batch, edges, 2}, vertices);
  if (!data.rarely() && are_small({batch, edges}) && list.is_real() && list.count() == batch * edges * 2)
    for (int64_t i = 0; i < batch * edges; ++i) {  // each vertex to a lower one
      const int64_t ends[2] = {i % edges + 1, data.range(0, i % edges)};
      for (int64_t k = 0; k < 2; ++k) {
        list.set(2 * i + k, ends[k]);
        list.set(2 * i + k, static_cast<int32_t>(ends[k]));
      }
    }
  Tensor root(data, Role::input, TREESCAN_INT32, {data.flag() ? batch : 1}, vertices);
  Tree tree(data, batch, vertices, true);
  const int32_t sibling_order = data.choice(2);
  const treescan_status status = run(
      data,
      [&](treescan_workspace *workspace, void *stream) {
        return treescan_tree_from_edges(list, root, sibling_order, tree, workspace, stream);
      },
      {tree.part(0), tree.part(1), tree.part(2), tree.part(3)});
  if (status != TREESCAN_OK || !are_small({batch, edges}) || !tree.has(0)) return;
  for (int64_t item = 0; item < batch; ++item) tree.check(item, sibling_order == TREESCAN_BY_EDGE);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  Data data(bytes, size);
  choose_threads(data);
  data.flag() ? from_edges(data) : from_parents(data);
  return 0;
}
