// Graphs and trees for the fuzz targets, and what must hold of them.
#pragma once

#include <memory>
#include <numeric>

#include "fuzzing.h"

namespace fuzzing {

class Graph {
 public:
  Graph(Data &data, int64_t batch) {
    graph_.kind = data.choice(4);
    graph_.connectivity = data.rarely() ? data.any_int32() : data.flag() ? 8 : 4;
    const int64_t most = data.rarely() ? 70 : 7;
    graph_.height = data.size(1, most);
    graph_.width = data.size(1, most);
    graph_.length = data.size(1, 2 * most);
    graph_.window = data.size(1, 5);
    graph_.num_vertices = data.size(1, 9);
    if (graph_.kind == TREESCAN_TOKENS && data.flag()) {
      contexts_ = std::make_unique<Tensor>(data, Role::input, TREESCAN_INT64, Sizes{data.flag() ? batch : 1}, graph_.length,
                                           true);
      graph_.context_length = *contexts_;
    }
    if (graph_.kind == TREESCAN_EDGES || data.rarely()) {
      const int64_t edges = data.size(0, 14);
      const int32_t dtype = data.flag() ? TREESCAN_INT64 : TREESCAN_INT32;
      const Sizes sizes = data.flag() ? Sizes{batch, edges, 2} : Sizes{edges, 2};
      list_ = std::make_unique<Tensor>(data, Role::input, dtype, sizes, graph_.num_vertices, true);
      graph_.edge_index = *list_;
    }
    missing_ = data.rarely();
    if (treescan_graph_num_vertices(*this, &vertices) != TREESCAN_OK) vertices = 4;
    if (treescan_graph_num_edges(*this, &edges) != TREESCAN_OK) edges = 3;
  }

  operator const treescan_graph *() const { return missing_ ? nullptr : &graph_; }
  const treescan_graph &c() const { return graph_; }
  bool has_own_lists() const { return graph_.kind == TREESCAN_EDGES && graph_.edge_index && graph_.edge_index->ndim == 3; }

  // Whether its contexts can be read here.
  bool is_known() const { return !graph_.context_length || contexts_->is_real(); }

  // The context of an item of a token graph.
  int64_t context(int64_t item) const {
    if (!graph_.context_length) return graph_.length;
    return contexts_->index(contexts_->size(0) == 1 ? 0 : item);
  }
  // Whether an item has an edge of the common list.
  bool has(int64_t item, int32_t lower, int32_t upper) const {
    return graph_.kind != TREESCAN_TOKENS || upper - lower == 1 || lower >= graph_.length - context(item);
  }

  int64_t vertices, edges;

 private:
  treescan_graph graph_{};
  bool missing_ = false;
  std::unique_ptr<Tensor> contexts_, list_;
};

// Where a call leaves a tree: any of the four may be absent.
class Tree {
 public:
  Tree(Data &data, int64_t batch, int64_t vertices, bool with_edge) : vertices_(vertices) {
    const treescan_tensor **const places[] = {&output_.parent, &output_.order, &output_.depth, &output_.edge};
    for (int i = 0; i < 4; ++i) {
      present_[i] = i == 3 ? with_edge != data.rarely() : !data.rarely();
      parts_.push_back(std::make_unique<Tensor>(data, Role::output, TREESCAN_INT32, Sizes{batch, vertices}));
      if (present_[i]) *places[i] = *parts_.back();
    }
    missing_ = data.rarely();
  }

  operator const treescan_tree_output *() const { return missing_ ? nullptr : &output_; }
  Tensor *part(int i) { return parts_[static_cast<size_t>(i)].get(); }
  bool has(int i) const { return present_[i] && parts_[static_cast<size_t>(i)]->is_real(); }
  int32_t parent(int64_t item, int64_t v) const { return parts_[0]->at<int32_t>(item * vertices_ + v); }
  int32_t edge(int64_t item, int64_t v) const { return parts_[3]->at<int32_t>(item * vertices_ + v); }

  // That an item is a forest whose roots come first and whose order is breadth-first with siblings ascending (unless they
  // stand by their edges), vertices in no tree last; and that depth, where it is wanted, goes with it.
  void check(int64_t item, bool by_edge = false) const {
    std::vector<int64_t> position(static_cast<size_t>(vertices_), -1);
    if (!has(1)) return;
    int64_t last_key = -2, last = -1;
    for (int64_t i = 0; i < vertices_; ++i) {
      const int64_t v = parts_[1]->at<int32_t>(item * vertices_ + i);
      REQUIRE(v >= 0 && v < vertices_ && position[static_cast<size_t>(v)] < 0);
      position[static_cast<size_t>(v)] = i;
      const int64_t p = parent(item, v);
      REQUIRE(p >= -1 && p < vertices_);
      const int64_t key = p < 0 ? vertices_ : p == v ? -1 : position[static_cast<size_t>(p)];
      REQUIRE(p < 0 || p == v || key >= 0);
      REQUIRE(key > last_key || (key == last_key && (by_edge || v > last)));
      last_key = key;
      last = v;
      if (has(2)) {
        const int32_t depth = parts_[2]->at<int32_t>(item * vertices_ + v);
        REQUIRE(depth == (p < 0 ? -1 : p == v ? 0 : parts_[2]->at<int32_t>(item * vertices_ + p) + 1));
      }
      if (has(3)) REQUIRE((edge(item, v) < 0) == (p < 0 || p == v));
    }
  }

 private:
  int64_t vertices_;
  treescan_tree_output output_{};
  bool present_[4], missing_;
  std::vector<std::unique_ptr<Tensor>> parts_;
};

// A parent array that may be a forest, a tree or neither, by its vertices' numbers: parents are mostly lower, so that most
// arrays hold; and an order that goes with it, if there is one.
inline void plant(Data &data, Tensor &parent, Tensor *order, int64_t batch, int64_t vertices, bool forest) {
  if (!are_small({batch, vertices}) || vertices == 0 || !parent.is_real() || parent.count() != batch * vertices) return;
  for (int64_t item = 0; item < batch; ++item) {
    std::vector<int32_t> above(static_cast<size_t>(vertices)), line;
    const std::vector<uint8_t> bytes = data.bytes(static_cast<size_t>(std::min<int64_t>(vertices, 32)));
    for (int64_t v = 0; v < vertices; ++v) {
      const int64_t byte = bytes.empty() ? 0 : bytes[static_cast<size_t>(v) % bytes.size()];
      int64_t p = v == 0 ? 0 : byte % v;
      if (forest && byte % 16 == 15) p = v;
      if (forest && byte % 16 == 14) p = -1;
      if (p >= 0 && p != v && above[static_cast<size_t>(p)] < 0) p = v;
      above[static_cast<size_t>(v)] = static_cast<int32_t>(p);
    }
    if (data.rarely()) above[static_cast<size_t>(data.range(0, vertices - 1))] = static_cast<int32_t>(data.range(-2, vertices));
    for (int64_t v = 0; v < vertices; ++v) parent.set(item * vertices + v, above[static_cast<size_t>(v)]);
    if (!order || !order->is_real() || order->count() != batch * vertices) continue;
    for (int32_t v = 0; v < vertices; ++v)
      if (above[static_cast<size_t>(v)] == v) line.push_back(v);
    const bool depth_first = data.flag();  // an order that holds and isn't canonical
    for (int32_t v = 0; v < vertices; ++v)
      if (above[static_cast<size_t>(v)] >= 0 && above[static_cast<size_t>(v)] != v && depth_first) line.push_back(v);
    for (size_t i = 0; i < line.size() && !depth_first; ++i)
      for (int32_t v = 0; v < vertices; ++v)
        if (above[static_cast<size_t>(v)] == line[i] && v != line[i]) line.push_back(v);
    for (int32_t v = 0; v < vertices; ++v)
      if (above[static_cast<size_t>(v)] < 0) line.push_back(v);
    line.resize(static_cast<size_t>(vertices), 0);
    if (data.rarely()) std::swap(line[static_cast<size_t>(data.range(0, vertices - 1))], line[0]);
    if (data.rarely()) line[static_cast<size_t>(data.range(0, vertices - 1))] = static_cast<int32_t>(data.range(-1, vertices));
    for (int64_t i = 0; i < vertices; ++i) order->set(item * vertices + i, line[static_cast<size_t>(i)]);
  }
}

}  // namespace fuzzing
