// One valid call of every kind that computes something, and some that fail, to be made many times over: for tests of what a
// call does when many run at once, or when memory runs out.
#pragma once

#include "testing.h"

namespace testing {

struct EveryCall {
  const char *name;
  treescan_status expected;
  std::function<treescan_status()> run;
  std::function<std::string()> bytes;  // of all outputs
  std::function<bool()> intact;        // is what lies beside the outputs as it was?
  std::function<void()> wipe;
};

// The calls and their arguments. They are its own, so each thread can have one.
class EveryCalls {
 public:
  std::vector<EveryCall> calls;

  explicit EveryCalls(unsigned seed, int64_t batch = 4) : batch_(batch) {
    std::mt19937 generator(seed);
    for (Array<float> *const array : {&features_, &x_, &weights_, &grad_}) array->random(generator, -1, 1);
    for (Array<float> *const array : {&u_, &delta_, &B_, &C_}) array->random(generator, 0, 1);
    A_.random(generator, -1, 0);
    costs_.random(generator, 0, 1);
    list_.fill([](int64_t i) { return static_cast<double>((i / 2 + i % 2) % vertices); });  // a ring
    list_cost_.random(generator, 0, 1);
    root_.fill([](int64_t) { return 0; });
    labels_.fill([](int64_t i) { return static_cast<double>(i % 5) - 1; });
    star_.fill([](int64_t i) { return i % 2 ? static_cast<double>(i / 2 % (vertices - 1) + 1) : 0; });
    parent_.fill([](int64_t i) { return static_cast<double>(i % vertices / 2); });
    order_.fill([](int64_t i) { return static_cast<double>(i % vertices); });
    // Roots, then the others depth first: an order that has to be sorted out.
    deep_.fill([](int64_t i) {
      constexpr int deep[vertices] = {0, 1, 3, 7, 6, 2, 5, 11, 10, 4, 9, 8};
      return deep[i % vertices];
    });
    list_all();
  }
  EveryCalls(const EveryCalls &) = delete;
  EveryCalls &operator=(const EveryCalls &) = delete;

 private:
  static constexpr int64_t vertices = 12, channels = 20, states = 2;  // a grid of 3 x 4
  using View = treescan::tensor_view;

  template <class... Outputs>
  void add(const char *name, treescan_status expected, std::function<treescan_status()> run, Outputs &...outputs) {
    calls.push_back({name, expected, std::move(run), [&] { return (std::string() + ... + outputs.bytes()); },
                     [&] { return (true && ... && outputs.intact()); }, [&] { (outputs.wipe(), ...); }});
  }

  void list_all() {
    const auto ok = TREESCAN_OK;
    add("graph_edges", ok, [this] {
      const treescan_graph graph = treescan::grid(3, 4, 8).c();
      const View edges = edges_.view();
      return treescan_graph_edges(&graph, &edges);
    }, edges_);
    add("edge_weights", ok, [this] { return edge_weights(treescan::grid(3, 4).c(), cost_); }, cost_);
    add("edge_weights of a list", ok, [this] { return edge_weights(ring(), ring_cost_); }, ring_cost_);
    add("minimum_spanning_tree", ok, [this] { return spanning_tree(treescan::grid(3, 4).c(), costs_, false, false); }, tree_[0], tree_[1], tree_[2], tree_[3]);
    add("minimum_spanning_tree of a list", ok, [this] { return spanning_tree(ring(), list_cost_, false, false); }, tree_[0], tree_[1], tree_[2], tree_[3]);
    add("minimum_spanning_tree of segments", ok, [this] { return spanning_tree(treescan::grid(3, 4).c(), costs_, true, false); }, tree_[0], tree_[1], tree_[2], tree_[3]);
    add("random_spanning_tree", ok, [this] { return spanning_tree(treescan::grid(3, 4).c(), costs_, false, true); }, tree_[0], tree_[1], tree_[2], tree_[3]);
    add("tree_from_edges", ok, [this] {
      const View edges = star_.view(), root = root_.view();
      return into_tree(true, [&](const treescan_tree_output *tree) { return treescan_tree_from_edges(&edges, &root, TREESCAN_BY_EDGE, tree, nullptr, nullptr); });
    }, tree_[0], tree_[1], tree_[2], tree_[3]);
    add("tree_from_parents", ok, [this] {
      const View parent = parent_.view(), root = root_.view();
      return into_tree(false, [&](const treescan_tree_output *tree) { return treescan_tree_from_parents(&parent, &root, tree, nullptr, nullptr); });
    }, tree_[0], tree_[1], tree_[2]);
    add("forest_from_parents", ok, [this] {
      const View parent = parent_.view();
      return into_tree(false, [&](const treescan_tree_output *tree) { return treescan_forest_from_parents(&parent, tree, nullptr, nullptr); });
    }, tree_[0], tree_[1], tree_[2]);
    add("scan", ok, [this] { return scan(order_); }, y_);
    add("scan in an order that isn't canonical", ok, [this] { return scan(deep_); }, y_);
    add("scan_backward", ok, [this] {
      const View parent = parent_.view(), order = order_.view(), x = x_.view(), weights = weights_.view(), grad = grad_.view(),
                 grad_x = y_.view(), grad_weights = grad_weights_.view();
      return treescan_scan_backward(TREESCAN_BOTH, &parent, &order, &x, &weights, &grad, &grad_x, &grad_weights, nullptr, nullptr);
    }, y_, grad_weights_);
    add("selective_scan", ok, [this] {
      const View parent = parent_.view(), order = order_.view(), y = y_.view(), last = state_.view();
      return selective([&](const treescan_selective_inputs *inputs) { return treescan_selective_scan(TREESCAN_DOWN, &parent, &order, inputs, &y, &last, nullptr, nullptr); });
    }, y_, state_);
    add("selective_scan_backward", ok, [this] {
      const View parent = parent_.view(), order = order_.view(), grad = grad_.view(), u = y_.view(), delta = grad_weights_.view(),
                 A = grad_A_.view(), B = grad_B_.view(), C = grad_C_.view();
      const treescan_selective_gradients gradients = {&u, &delta, &A, &B, &C, nullptr, nullptr, nullptr};
      return selective([&](const treescan_selective_inputs *inputs) { return treescan_selective_scan_backward(TREESCAN_BOTH, &parent, &order, inputs, &grad, nullptr, &gradients, nullptr, nullptr); });
    }, y_, grad_weights_, grad_A_, grad_B_, grad_C_);

    add("graph_num_vertices of no graph", TREESCAN_INVALID_ARGUMENT, [this] { return treescan_graph_num_vertices(nullptr, &number_); });
    add("graph_num_edges of an edge list that isn't there", TREESCAN_INVALID_ARGUMENT, [this] {
      treescan_graph graph = ring();
      graph.edge_index = nullptr;
      return treescan_graph_num_edges(&graph, &number_);
    });
    add("set_instruction_set", TREESCAN_INVALID_ARGUMENT, [] { return treescan_set_instruction_set("z80"); });
    add("tree_from_parents of a circle", TREESCAN_NOT_A_TREE, [this] {
      const View parent = deep_.view();
      return into_tree(false, [&](const treescan_tree_output *tree) { return treescan_tree_from_parents(&parent, nullptr, tree, nullptr, nullptr); });
    });
    add("scan of integers", TREESCAN_UNSUPPORTED_DTYPE, [this] {
      const View order = order_.view();
      View x = x_.view();
      x.dtype = TREESCAN_INT32;
      return treescan_scan(TREESCAN_UP, &order, &order, &x, &x, &x, nullptr, nullptr);
    });
  }

  treescan_graph ring() {
    list_view_ = list_.view();
    treescan_graph graph{};
    graph.kind = TREESCAN_EDGES;
    graph.num_vertices = vertices;
    graph.edge_index = &list_view_;
    return graph;
  }

  treescan_status edge_weights(const treescan_graph &graph, Array<float> &cost) {
    const View features = features_.view(), costs = cost.view();
    return treescan_edge_weights(&graph, &features, TREESCAN_COSINE, 0, &costs, nullptr, nullptr);
  }

  template <class Call>
  treescan_status into_tree(bool with_edge, Call &&call) {
    const View views[] = {tree_[0].view(), tree_[1].view(), tree_[2].view(), tree_[3].view()};
    const treescan_tree_output tree = {&views[0], &views[1], &views[2], with_edge ? &views[3] : nullptr};
    return call(&tree);
  }

  treescan_status spanning_tree(const treescan_graph &graph, Array<float> &costs, bool labelled, bool random) {
    const View cost = costs.view(), root = root_.view(), segments = labels_.view();
    return into_tree(true, [&](const treescan_tree_output *tree) {
      return random ? treescan_random_spanning_tree(&graph, &cost, 7, &root, tree, nullptr, nullptr)
                    : treescan_minimum_spanning_tree(&graph, &cost, 0, &root, labelled ? &segments : nullptr, tree, nullptr, nullptr);
    });
  }

  treescan_status scan(Array<int32_t> &order_array) {
    const View parent = parent_.view(), order = order_array.view(), x = x_.view(), weights = weights_.view(), y = y_.view();
    return treescan_scan(TREESCAN_BOTH, &parent, &order, &x, &weights, &y, nullptr, nullptr);
  }

  template <class Call>
  treescan_status selective(Call &&call) {
    const View u = u_.view(), delta = delta_.view(), A = A_.view(), B = B_.view(), C = C_.view();
    const treescan_selective_inputs inputs = {&u, &delta, &A, &B, &C, nullptr, nullptr, nullptr, 1};
    return call(&inputs);
  }

  int64_t batch_, number_ = 0;
  Shape signal_{batch_, channels, vertices}, factor_{batch_, 1, states, vertices}, fixed_{channels, states};
  Array<int32_t> edges_{{29, 2}}, root_{{1}}, labels_{{1, vertices}};
  Array<int32_t> parent_{{batch_, vertices}}, order_{{batch_, vertices}}, deep_{{batch_, vertices}};
  Array<int32_t> tree_[4] = {Array<int32_t>({batch_, vertices}, {2 * vertices, 2}), Array<int32_t>({batch_, vertices}),
                             Array<int32_t>({batch_, vertices}), Array<int32_t>({batch_, vertices})};
  Array<int64_t> list_{{vertices, 2}}, star_{{batch_, vertices - 1, 2}};
  View list_view_ = list_.view();
  Array<float> features_{signal_}, cost_{{batch_, 17}}, costs_{{batch_, 17}}, ring_cost_{{batch_, vertices}}, list_cost_{{batch_, vertices}};
  Array<float> x_{signal_}, weights_{signal_}, grad_{signal_}, y_{signal_, {channels * vertices, 1, channels}}, grad_weights_{signal_};
  Array<float> u_{signal_}, delta_{signal_}, A_{fixed_}, B_{factor_}, C_{factor_}, state_{{batch_, channels, states}};
  Array<float> grad_A_{fixed_}, grad_B_{factor_}, grad_C_{factor_};
};

}  // namespace testing
