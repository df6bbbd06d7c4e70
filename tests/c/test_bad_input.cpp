// Every kind of bad input: the right status, a message that names the argument, and nothing written.
#include "testing.h"

namespace {

using treescan::tensor_view;

struct Argument {
  const char *name;
  tensor_view *view;
  const tensor_view **pointer;  // what the call is given; NULL makes the argument missing
  bool output = false, optional = false;
};

// A valid call whose arguments can be spoilt one at a time.
struct Call {
  const char *name;
  std::function<treescan_status(treescan_workspace *, void *)> run;
  std::vector<Argument> arguments;
  std::function<bool()> untouched;  // has no output been written, nor anything beside one?
  std::function<void()> wipe;       // makes the outputs garbage again
};

void check_failure(const Call &call, const std::string &fault, int32_t status, const std::string &text) {
  testing::check_failure(__FILE__, __LINE__, std::string(call.name) + ", " + fault, call.run(nullptr, nullptr), status,
                         text);
  CHECK(call.untouched(), call.name, ", ", fault, ": wrote to an output");
}

// A fault in what an input holds may come to light when other items have been written; nothing else may be.
void check_content_failure(const Call &call, const std::string &fault, int32_t status, const std::string &text) {
  testing::check_failure(__FILE__, __LINE__, std::string(call.name) + ", " + fault, call.run(nullptr, nullptr), status,
                         text);
  call.wipe();
  CHECK(call.untouched(), call.name, ", ", fault, ": wrote beside an output");
}

// A size may be wrong for this argument or make the others wrong: the message names one of them.
void check_size_failure(const Call &call, const std::string &fault) {
  const treescan_status status = call.run(nullptr, nullptr);
  const std::string message = treescan_last_error();
  const bool named = std::any_of(call.arguments.begin(), call.arguments.end(),
                                 [&](const Argument &argument) { return message.rfind(argument.name, 0) == 0; });
  CHECK(status == TREESCAN_INVALID_ARGUMENT && named, call.name, ", ", fault, ": ", treescan_status_name(status), ": ",
        message);
  CHECK(call.untouched(), call.name, ", ", fault, ": wrote to an output");
}

// All that can be wrong with the description of a tensor.
void check_tensor_faults(const Call &call, const Argument &argument) {
  tensor_view &view = *argument.view;
  const tensor_view good = view;
  const auto fault = [&](const std::string &what) { return std::string(argument.name) + ": " + what; };
  if (!argument.optional) {
    *argument.pointer = nullptr;
    check_failure(call, fault("NULL"), TREESCAN_INVALID_ARGUMENT, argument.name);
    *argument.pointer = &view;
  }
  view.data = nullptr;
  check_failure(call, fault("no memory"), TREESCAN_INVALID_ARGUMENT, argument.name);
  view = good;
  for (const int32_t dtype : {0, 7, -1, INT32_MAX}) {
    view.dtype = dtype;
    check_failure(call, fault("dtype " + std::to_string(dtype)), TREESCAN_UNSUPPORTED_DTYPE, argument.name);
  }
  // The wrong kind of number: integers for floating numbers and the other way round. Costs may be either, but no half type.
  const bool integral = good.dtype == TREESCAN_INT32 || good.dtype == TREESCAN_INT64;
  view.dtype = integral ? TREESCAN_FLOAT32 : argument.name == std::string("cost") ? TREESCAN_FLOAT16 : TREESCAN_INT32;
  check_failure(call, fault("wrong dtype"), TREESCAN_UNSUPPORTED_DTYPE, argument.name);
  view = good;
  for (const int32_t device : {int32_t{TREESCAN_CUDA}, 0, 3, -1}) {
    view.device = device;
    // A build with a CUDA backend refuses to mix devices, one without refuses the device.
    check_failure(call, fault("device " + std::to_string(device)), TREESCAN_UNSUPPORTED_DEVICE, argument.name);
  }
  view = good;
  for (const int32_t ndim : {-1, TREESCAN_MAX_DIMS + 1, INT32_MAX, INT32_MIN}) {
    view.ndim = ndim;
    check_failure(call, fault("rank " + std::to_string(ndim)), TREESCAN_INVALID_ARGUMENT, argument.name);
  }
  view.ndim = good.ndim - 1;
  check_size_failure(call, fault("a dimension too few"));
  view.ndim = 0;
  check_size_failure(call, fault("no dimension"));
  if (good.ndim < TREESCAN_MAX_DIMS) {
    view.ndim = good.ndim + 1;
    view.sizes[good.ndim] = view.strides[good.ndim] = 1;
    check_size_failure(call, fault("a dimension too many"));
  }
  view = good;
  for (int32_t d = 0; d < good.ndim; ++d) {
    const std::string dimension = " in dimension " + std::to_string(d);
    for (const int64_t size : {int64_t{-1}, INT64_MIN}) {
      view.sizes[d] = size;
      check_failure(call, fault("size " + std::to_string(size) + dimension), TREESCAN_INVALID_ARGUMENT, argument.name);
    }
    view = good;
    for (const int64_t stride : {INT64_MAX, INT64_MIN, INT64_MAX / 2, int64_t{1} << 60}) {
      view.strides[d] = stride;
      check_failure(call, fault("stride " + std::to_string(stride) + dimension), TREESCAN_TOO_LARGE, argument.name);
    }
    view = good;
    if (argument.output && good.sizes[d] > 1) {
      view.strides[d] = 0;
      check_failure(call, fault("overlapping" + dimension), TREESCAN_INVALID_ARGUMENT, argument.name);
      view = good;
    }
    // Outputs know their sizes. (An input's may be free; those are tested one by one below.)
    if (argument.output)
      for (const int64_t size : {good.sizes[d] + 1, good.sizes[d] - 1}) {
        view.sizes[d] = size;
        check_size_failure(call, fault("size " + std::to_string(size) + dimension));
        view = good;
      }
  }
}

// The valid call works, and each of its tensors is checked.
void check_tensors(const Call &call) {
  const treescan_status status = call.run(nullptr, nullptr);
  CHECK(status == TREESCAN_OK, call.name, ": the valid call fails: ", treescan_last_error());
  call.wipe();
  for (const Argument &argument : call.arguments) {
    check_tensor_faults(call, argument);
    CHECK(call.run(nullptr, nullptr) == TREESCAN_OK, call.name, ": not restored");
    call.wipe();
  }
}

// Streams and scratch memory, for calls that take them.
void check_workspace(const Call &call) {
  int anything = 0;
  testing::check_failure(__FILE__, __LINE__, call.name, call.run(nullptr, &anything), TREESCAN_INVALID_ARGUMENT,
                         "stream");
  // In a query `size` is written, not read.
  treescan_workspace query{nullptr, -1};
  SUCCEEDS(call.run(&query, nullptr));
  CHECK(query.size > 0, call.name, ": a size of ", query.size,
        " makes a caller ask for no memory, get NULL, and query again instead of running");
  CHECK(query.data == nullptr && call.untouched(), call.name, ": a query does nothing else");
  // A query checks the arguments as a call does.
  testing::check_failure(__FILE__, __LINE__, call.name, call.run(&query, &anything), TREESCAN_INVALID_ARGUMENT,
                         "stream");
  std::vector<unsigned char> memory(static_cast<size_t>(std::max<int64_t>(query.size, 0)) + 256);
  unsigned char *const block = memory.data() + 64 - reinterpret_cast<uintptr_t>(memory.data()) % 64;
  if (query.size > 0)
    for (const int64_t size : {int64_t{-1}, INT64_MIN, int64_t{0}, query.size - 1}) {
      treescan_workspace workspace{block, size};
      testing::check_failure(__FILE__, __LINE__, call.name, call.run(&workspace, nullptr), TREESCAN_INVALID_ARGUMENT,
                             "workspace");
    }
  for (const int offset : {1, 8, 32}) {
    treescan_workspace workspace{block + offset, query.size};
    testing::check_failure(__FILE__, __LINE__, call.name, call.run(&workspace, nullptr), TREESCAN_INVALID_ARGUMENT,
                           "workspace");
  }
  CHECK(call.untouched(), call.name, ": wrote to an output");
  treescan_workspace workspace{block, query.size + 1};
  SUCCEEDS(call.run(&workspace, nullptr));
  call.wipe();
}

treescan_graph grid(int64_t height, int64_t width, int32_t connectivity = 4) {
  return treescan::grid(height, width, connectivity).c();
}

void check_call(const Call &call) {
  check_tensors(call);
  check_workspace(call);
}

// ---- The calls ----

struct EdgeWeights {
  treescan_graph graph = grid(2, 3);
  Array<float> memory{{2, 4, 2, 3}}, result{{2, 7}};
  tensor_view features = memory.view(), cost = result.view();
  const tensor_view *features_pointer = &features, *cost_pointer = &cost;
  int32_t metric = TREESCAN_COSINE;
  const treescan_graph *graph_pointer = &graph;
  Call call{"treescan_edge_weights",
            [this](treescan_workspace *workspace, void *stream) {
              return treescan_edge_weights(graph_pointer, features_pointer, metric, 0, cost_pointer, workspace, stream);
            },
            {{"features", &features, &features_pointer}, {"cost", &cost, &cost_pointer, true}},
            [this] { return result.untouched(); },
            [this] { result.wipe(); }};

  EdgeWeights() {
    memory.fill([](int64_t i) { return static_cast<double>(i * i % 11); });
  }
};

struct TreeOutput {
  Array<int32_t> memory[4];
  tensor_view parent = memory[0].view(), order = memory[1].view(), depth = memory[2].view(), edge = memory[3].view();
  const tensor_view *pointers[4] = {&parent, &order, &depth, &edge};
  treescan_tree_output result{};
  bool given = true;

  TreeOutput(int64_t batch, int64_t vertices)
      : memory{Array<int32_t>({batch, vertices}), Array<int32_t>({batch, vertices}, {vertices + 2, 1}),
               Array<int32_t>({batch, vertices}), Array<int32_t>({batch, vertices})} {}

  const treescan_tree_output *get() {
    result = {pointers[0], pointers[1], pointers[2], pointers[3]};
    return given ? &result : nullptr;
  }
  bool untouched() const {
    return std::all_of(std::begin(memory), std::end(memory),
                       [](const Array<int32_t> &array) { return array.untouched(); });
  }
  void wipe() {
    for (Array<int32_t> &array : memory) array.wipe();
  }
  std::vector<Argument> arguments(std::vector<Argument> inputs, bool with_edge = true) {
    inputs.push_back({"tree->parent", &parent, &pointers[0], true});
    inputs.push_back({"tree->order", &order, &pointers[1], true, true});
    inputs.push_back({"tree->depth", &depth, &pointers[2], true, true});
    if (with_edge) inputs.push_back({"tree->edge", &edge, &pointers[3], true, true});
    return inputs;
  }
};

struct SpanningTree {
  treescan_graph graph = grid(2, 3);
  const treescan_graph *graph_pointer = &graph;
  Array<float> costs{{2, 7}};
  Array<int32_t> roots{{2}}, labels{{2, 6}};
  TreeOutput output{2, 6};
  tensor_view cost = costs.view(), root = roots.view(), segments = labels.view();
  const tensor_view *cost_pointer = &cost, *root_pointer = &root, *segments_pointer = &segments;
  bool random;
  Call call;

  explicit SpanningTree(bool is_random)
      : random(is_random),
        call{random ? "treescan_random_spanning_tree" : "treescan_minimum_spanning_tree",
             [this](treescan_workspace *workspace, void *stream) {
               return random ? treescan_random_spanning_tree(graph_pointer, cost_pointer, 1, root_pointer, output.get(),
                                                             workspace, stream)
                             : treescan_minimum_spanning_tree(graph_pointer, cost_pointer, 0, root_pointer,
                                                              segments_pointer, output.get(), workspace, stream);
             },
             output.arguments(inputs(is_random)),
             [this] { return output.untouched(); }, [this] { output.wipe(); }} {
    costs.fill([](int64_t i) { return static_cast<double>(i % 5); });
    roots.fill([](int64_t) { return 1; });
    labels.fill([](int64_t i) { return static_cast<double>(i % 3) - 1; });
  }

  std::vector<Argument> inputs(bool is_random) {
    std::vector<Argument> list{{"cost", &cost, &cost_pointer}, {"root", &root, &root_pointer}};
    if (!is_random) list.push_back({"segments", &segments, &segments_pointer, false, true});
    return list;
  }
};

struct TreeFromEdges {
  Array<int64_t> list{{2, 3, 2}};
  Array<int32_t> roots{{1}};
  TreeOutput output{2, 4};
  tensor_view edges = list.view(), root = roots.view();
  const tensor_view *edges_pointer = &edges, *root_pointer = &root;
  int32_t sibling_order = TREESCAN_BY_VERTEX;
  Call call{"treescan_tree_from_edges",
            [this](treescan_workspace *workspace, void *stream) {
              return treescan_tree_from_edges(edges_pointer, root_pointer, sibling_order, output.get(), workspace,
                                              stream);
            },
            output.arguments({{"edges", &edges, &edges_pointer}, {"root", &root, &root_pointer}}),
            [this] { return output.untouched(); }, [this] { output.wipe(); }};

  TreeFromEdges() {
    list.fill([](int64_t i) { return i % 2 ? static_cast<double>(i % 6 / 2 + 1) : 0; });  // a star around 0
    roots.fill([](int64_t) { return 2; });
  }
};

struct TreeFromParents {
  Array<int32_t> parents{{2, 4}}, roots{{2}};
  TreeOutput output{2, 4};
  tensor_view parent = parents.view(), root = roots.view();
  const tensor_view *parent_pointer = &parent, *root_pointer = &root;
  Call call{
      "treescan_tree_from_parents",
      [this](treescan_workspace *workspace, void *stream) {
        return treescan_tree_from_parents(parent_pointer, root_pointer, output.get(), workspace, stream);
      },
      output.arguments({{"parent", &parent, &parent_pointer}, {"root", &root, &root_pointer, false, true}}, false),
      [this] { return output.untouched(); }, [this] { output.wipe(); }};

  TreeFromParents() {
    output.pointers[3] = nullptr;
    parents.fill([](int64_t i) { return static_cast<double>(i % 4 / 2); });  // 0 0 1 1
    roots.fill([](int64_t i) { return static_cast<double>(i); });
  }
};

struct ForestFromParents {
  Array<int32_t> parents{{2, 4}};
  TreeOutput output{2, 4};
  tensor_view parent = parents.view();
  const tensor_view *parent_pointer = &parent;
  Call call{"treescan_forest_from_parents",
            [this](treescan_workspace *workspace, void *stream) {
              return treescan_forest_from_parents(parent_pointer, output.get(), workspace, stream);
            },
            output.arguments({{"parent", &parent, &parent_pointer}}, false), [this] { return output.untouched(); },
            [this] { output.wipe(); }};

  ForestFromParents() {
    output.pointers[3] = nullptr;
    parents.fill([](int64_t i) { return i % 4 == 1 ? -1 : static_cast<double>(i % 4 / 2 * 2); });  // 0 -1 2 2
  }
};

struct Scan {
  Array<int32_t> parents{{2, 4}}, orders{{2, 4}};
  Array<float> inputs[3] = {Array<float>({2, 3, 4}), Array<float>({2, 3, 4}), Array<float>({2, 3, 4})};
  Array<float> outputs[2] = {Array<float>({2, 3, 4}), Array<float>({2, 3, 4}, {1, 8, 30})};
  tensor_view parent = parents.view(), order = orders.view(), x = inputs[0].view(), weights = inputs[1].view(),
              grad_y = inputs[2].view(), first = outputs[0].view(), second = outputs[1].view();
  const tensor_view *pointers[7] = {&parent, &order, &x, &weights, &grad_y, &first, &second};
  int32_t direction = TREESCAN_BOTH;
  bool backward;
  Call call;

  explicit Scan(bool is_backward)
      : backward(is_backward),
        call{backward ? "treescan_scan_backward" : "treescan_scan",
             [this](treescan_workspace *workspace, void *stream) {
               return backward ? treescan_scan_backward(direction, pointers[0], pointers[1], pointers[2], pointers[3],
                                                        pointers[4], pointers[5], pointers[6], workspace, stream)
                               : treescan_scan(direction, pointers[0], pointers[1], pointers[2], pointers[3],
                                               pointers[5], workspace, stream);
             },
             {{"parent", &parent, &pointers[0]},
              {"order", &order, &pointers[1]},
              {"x", &x, &pointers[2]},
              {"weights", &weights, &pointers[3]}},
             [this] { return outputs[0].untouched() && outputs[1].untouched(); },
             [this] { wipe(); }} {
    if (backward) {
      call.arguments.push_back({"grad_y", &grad_y, &pointers[4]});
      call.arguments.push_back({"grad_x", &first, &pointers[5], true});
      call.arguments.push_back({"grad_weights", &second, &pointers[6], true});
    } else {
      call.arguments.push_back({"y", &first, &pointers[5], true});
    }
    good();
  }

  void good() {
    for (Array<float> &input : inputs) input.fill([](int64_t i) { return static_cast<double>(i % 3) / 2; });
    parents.fill([](int64_t i) { return static_cast<double>(i % 4 / 2); });
    orders.fill([](int64_t i) { return static_cast<double>(i % 4); });
  }
  void wipe() {
    for (Array<float> &output : outputs) output.wipe();
  }
};

}  // namespace

// ---- Tensors, scratch memory and options, for every call ----

TEST(edge_weights) {
  EdgeWeights weights;
  check_call(weights.call);
  for (const int32_t metric : {0, 4, -1, INT32_MAX}) {
    weights.metric = metric;
    check_failure(weights.call, "metric", TREESCAN_INVALID_ARGUMENT, "metric");
  }
  weights.metric = TREESCAN_L1;
  weights.graph_pointer = nullptr;
  check_failure(weights.call, "no graph", TREESCAN_INVALID_ARGUMENT, "graph");
  weights.graph_pointer = &weights.graph;
  weights.features = tensor_view(&weights.memory[0], {2, 4, 7});
  check_failure(weights.call, "7 vertices for 6", TREESCAN_INVALID_ARGUMENT, "features");
  weights.features = tensor_view(&weights.memory[0], {2, 4, 3, 2});
  check_failure(weights.call, "height and width exchanged", TREESCAN_INVALID_ARGUMENT, "features");
  weights.features = tensor_view(&weights.memory[0], {1, 4, 6});
  check_failure(weights.call, "another batch", TREESCAN_INVALID_ARGUMENT, "cost");
  weights.graph = treescan::chain(6).c();
  weights.features = tensor_view(&weights.memory[0], {2, 4, 2, 3});
  check_failure(weights.call, "an image for a chain", TREESCAN_INVALID_ARGUMENT, "features");
}

TEST(spanning_trees) {
  for (const bool random : {false, true}) {
    SpanningTree tree(random);
    check_call(tree.call);
    tree.graph_pointer = nullptr;
    check_failure(tree.call, "no graph", TREESCAN_INVALID_ARGUMENT, "graph");
    tree.graph_pointer = &tree.graph;
    tree.output.given = false;
    check_failure(tree.call, "no output", TREESCAN_INVALID_ARGUMENT, "tree");
    tree.output.given = true;
    for (const int32_t root : {-1, 6, INT32_MAX, INT32_MIN}) {
      tree.roots.fill([&](int64_t) { return root; });
      check_content_failure(tree.call, "root " + std::to_string(root), TREESCAN_INVALID_ARGUMENT, "root");
    }
    tree.roots.fill([](int64_t) { return 0; });
    tree.root = tensor_view(&tree.roots[0], {3}, {0});
    check_failure(tree.call, "3 roots for 2", TREESCAN_INVALID_ARGUMENT, "root");
    tree.root = tensor_view(&tree.roots[0], {0});
    check_failure(tree.call, "no roots", TREESCAN_INVALID_ARGUMENT, "root");
    tree.root = tree.roots.view();
    tree.cost = tensor_view(&tree.costs[0], {2, 6}, {7, 1});
    check_failure(tree.call, "too few costs", TREESCAN_INVALID_ARGUMENT, "cost");
    tree.cost = tree.costs.view();
    tree.cost.dtype = TREESCAN_FLOAT16;
    check_failure(tree.call, "costs of float16", TREESCAN_UNSUPPORTED_DTYPE, "cost");
  }
}

TEST(tree_from_edges) {
  TreeFromEdges tree;
  check_call(tree.call);
  for (const int32_t order : {0, 3, -1}) {
    tree.sibling_order = order;
    check_failure(tree.call, "sibling order", TREESCAN_INVALID_ARGUMENT, "sibling_order");
  }
  tree.sibling_order = TREESCAN_BY_EDGE;
  tree.output.given = false;
  check_failure(tree.call, "no output", TREESCAN_INVALID_ARGUMENT, "tree");
  tree.output.given = true;
  for (const int32_t root : {-1, 4}) {
    tree.roots[0] = root;
    check_content_failure(tree.call, "root " + std::to_string(root), TREESCAN_INVALID_ARGUMENT, "root");
  }
  tree.roots[0] = 0;
  for (const int64_t end : {int64_t{-1}, int64_t{4}, (int64_t{1} << 32) + 1, INT64_MIN}) {
    for (const int64_t place : {0, 5}) {
      const int64_t before = tree.list[place];
      tree.list[place] = end;
      check_content_failure(tree.call, "end " + std::to_string(end), TREESCAN_INVALID_ARGUMENT, "edges");
      tree.list[place] = before;
    }
  }
  // A loop, and an edge that is listed twice: each leaves a vertex out.
  tree.list[2] = tree.list[3] = 1;
  check_content_failure(tree.call, "a loop", TREESCAN_NOT_A_TREE, "edges");
  tree.list[2] = 0;
  tree.list[3] = 1;
  check_content_failure(tree.call, "an edge twice", TREESCAN_NOT_A_TREE, "edges");
  tree.edges = tensor_view(&tree.list[0], {2, 3, 3}, {0, 0, 0});
  check_failure(tree.call, "three ends", TREESCAN_INVALID_ARGUMENT, "edges");
}

TEST(tree_from_parents) {
  TreeFromParents tree;
  check_call(tree.call);
  tree.output.pointers[3] = &tree.output.edge;
  check_failure(tree.call, "edges", TREESCAN_INVALID_ARGUMENT, "tree->edge");
  tree.output.pointers[3] = nullptr;
  tree.output.given = false;
  check_failure(tree.call, "no output", TREESCAN_INVALID_ARGUMENT, "tree");
  tree.output.given = true;
  for (const int32_t root : {-1, 4}) {
    tree.roots[1] = root;
    check_content_failure(tree.call, "root " + std::to_string(root), TREESCAN_INVALID_ARGUMENT, "root");
  }
  const Array<int32_t> none({2, 0});
  tree.parent = none.view();
  check_failure(tree.call, "no vertices", TREESCAN_INVALID_ARGUMENT, "parent");
}

TEST(forest_from_parents) {
  ForestFromParents forest;
  check_call(forest.call);
  forest.output.pointers[3] = &forest.output.edge;
  check_failure(forest.call, "edges", TREESCAN_INVALID_ARGUMENT, "tree->edge");
  forest.output.pointers[3] = nullptr;
  const Array<int32_t> none({2, 0});
  forest.parent = none.view();
  check_failure(forest.call, "no vertices", TREESCAN_INVALID_ARGUMENT, "parent");
  forest.parent = forest.parents.view();
  forest.parents[4] = 6;
  check_content_failure(forest.call, "an index above", TREESCAN_INVALID_ARGUMENT, "parent");
  forest.parents[4] = -2;
  check_content_failure(forest.call, "an index below", TREESCAN_INVALID_ARGUMENT, "parent");
  forest.parents[4] = 1;
  forest.parents[5] = 0;
  check_content_failure(forest.call, "a cycle", TREESCAN_NOT_A_TREE, "parent");
}

TEST(scans) {
  for (const bool backward : {false, true}) {
    Scan scan(backward);
    check_call(scan.call);
    for (const int32_t direction : {0, 4, -1}) {
      scan.direction = direction;
      check_failure(scan.call, "direction", TREESCAN_INVALID_ARGUMENT, "direction");
    }
    scan.direction = TREESCAN_UP;
    const float *const memory = &scan.inputs[0][0];
    scan.x = tensor_view(memory, {2, 3, 0});
    check_size_failure(scan.call, "no vertices");
    scan.x = tensor_view(memory, {2, 3, 2, 2});
    check_size_failure(scan.call, "another rank");
    scan.x = scan.inputs[0].view();
    scan.weights.dtype = TREESCAN_BFLOAT16;
    check_failure(scan.call, "two types", TREESCAN_UNSUPPORTED_DTYPE, "weights");
    scan.weights = tensor_view(memory, {2, 1, 4});
    check_failure(scan.call, "one channel", TREESCAN_INVALID_ARGUMENT, "weights");
    scan.weights = scan.inputs[1].view();
    scan.parent = tensor_view(&scan.parents[0], {3, 4}, {0, 1});
    check_failure(scan.call, "3 trees for 2", TREESCAN_INVALID_ARGUMENT, "parent");
    scan.parent = tensor_view(&scan.parents[0], {2, 3}, {4, 1});
    check_failure(scan.call, "3 vertices for 4", TREESCAN_INVALID_ARGUMENT, "parent");
    scan.parent = scan.parents.view();
    scan.order = tensor_view(&scan.orders[0], {2, 3}, {4, 1});
    check_failure(scan.call, "3 positions for 4", TREESCAN_INVALID_ARGUMENT, "order");
    scan.order = tensor_view(&scan.orders[0], {2, 4}, {4, 1});
    scan.parent.dtype = TREESCAN_INT64;
    check_failure(scan.call, "wide parents", TREESCAN_UNSUPPORTED_DTYPE, "parent");
  }
}

// ---- Trees that are none ----

TEST(parents_that_are_no_tree) {
  const struct {
    const char *what;
    int32_t parent[4];
    int32_t status;
  } cases[] = {{"a cycle and no root", {1, 0, 1, 2}, TREESCAN_NOT_A_TREE},
               {"a cycle beside the root", {0, 0, 3, 2}, TREESCAN_NOT_A_TREE},
               {"a long cycle", {0, 2, 3, 1}, TREESCAN_NOT_A_TREE},
               {"two roots", {0, 0, 2, 2}, TREESCAN_NOT_A_TREE},
               {"a vertex without a parent", {0, 0, -1, 1}, TREESCAN_NOT_A_TREE},
               {"an index below", {0, 0, -2, 2}, TREESCAN_INVALID_ARGUMENT},
               {"an index above", {0, 0, 4, 2}, TREESCAN_INVALID_ARGUMENT},
               {"the largest index", {0, 0, INT32_MAX, 2}, TREESCAN_INVALID_ARGUMENT}};
  for (const auto &entry : cases) {
    for (const bool move_root : {false, true}) {
      TreeFromParents tree;
      tree.parents.fill([&](int64_t i) { return entry.parent[i % 4]; });
      if (!move_root) tree.root_pointer = nullptr;
      check_content_failure(tree.call, entry.what, entry.status, "parent");
    }
    for (const bool backward : {false, true}) {
      Scan scan(backward);
      scan.parents.fill([&](int64_t i) { return entry.parent[i % 4]; });
      for (const int32_t direction : {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH}) {
        scan.direction = direction;
        check_content_failure(scan.call, entry.what, entry.status, "parent");
      }
    }
  }
}

TEST(orders_that_are_none) {
  const struct {
    const char *what;
    int32_t order[4];
    int32_t status;
  } cases[] = {{"a child before its parent", {0, 2, 1, 3}, TREESCAN_NOT_A_TREE},
               {"the root last", {1, 2, 3, 0}, TREESCAN_NOT_A_TREE},
               {"a vertex twice", {0, 1, 1, 3}, TREESCAN_NOT_A_TREE},
               {"the root twice", {0, 0, 1, 2}, TREESCAN_NOT_A_TREE},
               {"an index below", {0, 1, -1, 3}, TREESCAN_INVALID_ARGUMENT},
               {"an index above", {0, 1, 4, 3}, TREESCAN_INVALID_ARGUMENT},
               {"the smallest index", {INT32_MIN, 1, 2, 3}, TREESCAN_INVALID_ARGUMENT}};
  for (const auto &entry : cases)
    for (const bool backward : {false, true})
      for (const int64_t item : {0, 1}) {  // in either of two trees
        Scan scan(backward);
        for (int64_t i = 0; i < 4; ++i) scan.orders[item * 4 + i] = entry.order[i];
        check_content_failure(scan.call, entry.what, entry.status, "order");
      }
}

TEST(disconnected_graphs) {
  for (const bool random : {false, true}) {
    SpanningTree tree(random);
    tree.segments_pointer = nullptr;  // with segments it would be a forest
    const int32_t list[] = {0, 1, 1, 2, 0, 2, 3, 4, 4, 5, 3, 5, 3, 3};
    const tensor_view edges(list, {7, 2});
    tree.graph = treescan::edge_list(edges, 6).c();
    tree.graph.edge_index = &edges;
    check_content_failure(tree.call, "two parts", TREESCAN_DISCONNECTED, "graph");
    // Too few edges to begin with, and none at all.
    const tensor_view few(list, {4, 2}), none(list, {0, 2});
    tree.cost = tensor_view(&tree.costs[0], {2, 4}, {7, 1});
    tree.graph.edge_index = &few;
    check_content_failure(tree.call, "few edges", TREESCAN_DISCONNECTED, "graph");
    tree.cost = tensor_view(&tree.costs[0], {2, 0});
    tree.graph.edge_index = &none;
    check_content_failure(tree.call, "no edges", TREESCAN_DISCONNECTED, "graph");
  }
}

// ---- Graphs ----

namespace {

// A graph that every call must refuse alike.
void check_graph_failure(const treescan_graph &graph, int32_t status, const std::string &text, int line) {
  const auto check = [&](const char *name, int32_t got) {
    testing::check_failure(__FILE__, line, std::string(name) + ", " + text, got, status, text);
  };
  int64_t count = -7;
  check("num_vertices", treescan_graph_num_vertices(&graph, &count));
  check("num_edges", treescan_graph_num_edges(&graph, &count));
  EQUAL(count, -7);
  EdgeWeights weights;
  SpanningTree minimum(false), random(true);
  Array<int32_t> list({7, 2});
  const tensor_view edges = list.view();
  weights.graph = minimum.graph = random.graph = graph;
  check("edges", treescan_graph_edges(&graph, &edges));
  check("edge weights", weights.call.run(nullptr, nullptr));
  check("minimum", minimum.call.run(nullptr, nullptr));
  check("random", random.call.run(nullptr, nullptr));
  CHECK(list.untouched() && weights.call.untouched() && minimum.call.untouched() && random.call.untouched());
}
#define REFUSED(graph, status, text) check_graph_failure(graph, status, text, __LINE__)

}  // namespace

TEST(graphs) {
  const int64_t large = int64_t{1} << 31;
  for (const int32_t kind : {0, 5, -1, INT32_MAX}) {
    treescan_graph graph = grid(2, 3);
    graph.kind = kind;
    REFUSED(graph, TREESCAN_INVALID_ARGUMENT, "kind");
  }
  for (const int64_t size : {int64_t{0}, int64_t{-1}, INT64_MIN}) {
    REFUSED(grid(size, 3), TREESCAN_INVALID_ARGUMENT, "height");
    REFUSED(grid(3, size), TREESCAN_INVALID_ARGUMENT, "width");
    REFUSED(treescan::chain(size).c(), TREESCAN_INVALID_ARGUMENT, "length");
    REFUSED(treescan::tokens(size).c(), TREESCAN_INVALID_ARGUMENT, "length");
    REFUSED(treescan::tokens(6, size).c(), TREESCAN_INVALID_ARGUMENT, "window");
  }
  for (const int32_t connectivity : {0, 3, 6, -4, INT32_MAX})
    REFUSED(grid(2, 3, connectivity), TREESCAN_INVALID_ARGUMENT, "connectivity");
  for (const int64_t size : {large, INT64_MAX}) {
    REFUSED(grid(size, 1), TREESCAN_TOO_LARGE, "height");
    REFUSED(grid(1, size), TREESCAN_TOO_LARGE, "width");
    REFUSED(treescan::chain(size).c(), TREESCAN_TOO_LARGE, "length");
    REFUSED(treescan::tokens(size).c(), TREESCAN_TOO_LARGE, "length");
  }
  // Sides that fit, areas that don't; and vertices that fit, edges that don't.
  for (const int32_t connectivity : {4, 8}) {
    REFUSED(grid(1 << 16, 1 << 15, connectivity), TREESCAN_TOO_LARGE, "graph");
    REFUSED(grid(large - 1, large - 1, connectivity), TREESCAN_TOO_LARGE, "graph");
    REFUSED(grid(1 << 15, 40000, connectivity), TREESCAN_TOO_LARGE, "graph");
  }
  REFUSED(treescan::tokens(large - 1, 2).c(), TREESCAN_TOO_LARGE, "graph");
  REFUSED(treescan::tokens(large - 1, large - 1).c(), TREESCAN_TOO_LARGE, "graph");
  // As large as it may be.
  EQUAL(treescan::chain(large - 1).num_edges(), large - 2);
  EQUAL(treescan::grid(1 << 15, 1 << 15).num_vertices(), int64_t{1} << 30);
  EQUAL(treescan::tokens(10, INT64_MAX >> 33).num_edges(), 45);
}

TEST(missing_places_for_counts) {
  const treescan_graph graph = grid(2, 3);
  int64_t count = 0;
  FAILS(treescan_graph_num_vertices(&graph, nullptr), TREESCAN_INVALID_ARGUMENT, "num_vertices");
  FAILS(treescan_graph_num_edges(&graph, nullptr), TREESCAN_INVALID_ARGUMENT, "num_edges");
  FAILS(treescan_graph_num_vertices(nullptr, &count), TREESCAN_INVALID_ARGUMENT, "graph");
  FAILS(treescan_graph_num_edges(nullptr, &count), TREESCAN_INVALID_ARGUMENT, "graph");
}

TEST(outputs_for_edges) {
  treescan_graph graph = grid(2, 3);
  Array<int32_t> list({7, 2}, {3, 1});
  tensor_view edges = list.view();
  const tensor_view *pointer = &edges;
  const treescan_graph *graph_pointer = &graph;
  const Call call{"treescan_graph_edges",
                  [&](treescan_workspace *, void *) { return treescan_graph_edges(graph_pointer, pointer); },
                  {{"edges", &edges, &pointer, true}},
                  [&] { return list.untouched(); },
                  [&] { list.wipe(); }};
  check_tensors(call);
  edges.dtype = TREESCAN_INT64;
  check_failure(call, "wide", TREESCAN_UNSUPPORTED_DTYPE, "edges");
  edges = list.view();
  graph_pointer = nullptr;
  check_failure(call, "no graph", TREESCAN_INVALID_ARGUMENT, "graph");
}

TEST(edge_lists) {
  const int32_t list[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0, 1, 4};
  const tensor_view good(list, {7, 2});
  treescan_graph graph = treescan::edge_list(good, 6).c();
  graph.edge_index = nullptr;
  REFUSED(graph, TREESCAN_INVALID_ARGUMENT, "edge_index");
  const auto refuse = [&](const treescan_tensor &edges, int32_t status, const char *text, int line) {
    graph.edge_index = &edges;
    check_graph_failure(graph, status, text, line);
  };
  tensor_view bad = good;
  const auto spoil = [&](int32_t status, int line) {
    refuse(bad, status, "edge_index", line);
    bad = good;
  };
  bad.data = nullptr;
  spoil(TREESCAN_INVALID_ARGUMENT, __LINE__);
  bad.dtype = TREESCAN_FLOAT32;
  spoil(TREESCAN_UNSUPPORTED_DTYPE, __LINE__);
  bad.device = 3;
  spoil(TREESCAN_UNSUPPORTED_DEVICE, __LINE__);
  if (!testing::has_cuda()) {
    bad.device = TREESCAN_CUDA;
    spoil(TREESCAN_UNSUPPORTED_DEVICE, __LINE__);
  }
  for (const int32_t ndim : {-1, 0, 1, 4, 5}) {
    bad.ndim = ndim;
    spoil(TREESCAN_INVALID_ARGUMENT, __LINE__);
  }
  bad.sizes[1] = 3;
  bad.strides[0] = bad.strides[1] = 0;
  spoil(TREESCAN_INVALID_ARGUMENT, __LINE__);
  bad.sizes[0] = -1;
  spoil(TREESCAN_INVALID_ARGUMENT, __LINE__);
  bad.strides[0] = INT64_MAX;
  spoil(TREESCAN_TOO_LARGE, __LINE__);
  graph.edge_index = &good;
  for (const int64_t vertices : {int64_t{0}, int64_t{-1}}) {
    graph.num_vertices = vertices;
    REFUSED(graph, TREESCAN_INVALID_ARGUMENT, "num_vertices");
  }
  graph.num_vertices = int64_t{1} << 31;
  REFUSED(graph, TREESCAN_TOO_LARGE, "num_vertices");
  // More edges than an index can name, all the same one.
  graph.num_vertices = 2;
  refuse(tensor_view(list, {int64_t{1} << 31, 2}, {0, 1}), TREESCAN_TOO_LARGE, "graph", __LINE__);
  refuse(tensor_view(list, {INT64_MAX, 2}, {0, 1}), TREESCAN_TOO_LARGE, "graph", __LINE__);
}

TEST(vertices_of_edge_lists) {
  for (const int64_t end : {int64_t{-1}, int64_t{6}, int64_t{1} << 32, INT64_MIN, INT64_MAX})
    for (const int place : {0, 7, 13}) {
      int64_t list[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0, 1, 4};
      list[place] = end;
      const tensor_view edges(list, {7, 2});
      EdgeWeights weights;
      SpanningTree minimum(false), random(true);
      weights.graph = minimum.graph = random.graph = treescan::edge_list(edges, 6).c();
      weights.graph.edge_index = minimum.graph.edge_index = random.graph.edge_index = &edges;
      weights.features = tensor_view(&weights.memory[0], {2, 4, 6});
      check_content_failure(weights.call, "end " + std::to_string(end), TREESCAN_INVALID_ARGUMENT, "edge_index");
      check_content_failure(minimum.call, "end " + std::to_string(end), TREESCAN_INVALID_ARGUMENT, "edge_index");
      check_content_failure(random.call, "end " + std::to_string(end), TREESCAN_INVALID_ARGUMENT, "edge_index");
      Array<int32_t> listed({7, 2});
      const tensor_view view = listed.view();
      FAILS(treescan_graph_edges(&minimum.graph, &view), TREESCAN_INVALID_ARGUMENT, "edge_index");
    }
}

TEST(batches_of_graphs) {
  const int32_t list[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0, 1, 4};
  const int64_t lengths[] = {2, 3, 4};
  // A list or a context for each of 3 items, or of none, where there are 2.
  for (const int64_t batch : {3, 0}) {
    const tensor_view edges(list, {batch, 7, 2}, {0, 2, 1});
    const tensor_view contexts(lengths, {batch});
    EdgeWeights weights;
    SpanningTree minimum(false), random(true);
    weights.graph = minimum.graph = random.graph = treescan::edge_list(edges, 6).c();
    weights.graph.edge_index = minimum.graph.edge_index = random.graph.edge_index = &edges;
    weights.features = tensor_view(&weights.memory[0], {2, 4, 6});
    for (const Call *call : {&weights.call, &minimum.call, &random.call})
      check_failure(*call, "edge lists for " + std::to_string(batch), TREESCAN_INVALID_ARGUMENT, "edge_index");
    treescan_graph tokens = treescan::tokens(6, 2).c();
    tokens.context_length = &contexts;
    weights.graph = minimum.graph = random.graph = tokens;
    int64_t edges_of_tokens = 0;
    SUCCEEDS(treescan_graph_num_edges(&tokens, &edges_of_tokens));
    Array<float> cost({2, edges_of_tokens});
    weights.cost = minimum.cost = random.cost = cost.view();
    for (const Call *call : {&weights.call, &minimum.call, &random.call})
      check_failure(*call, "contexts for " + std::to_string(batch), TREESCAN_INVALID_ARGUMENT, "context_length");
    CHECK(cost.untouched());
  }
}

TEST(context_lengths) {
  for (const int64_t length : {int64_t{-1}, int64_t{7}, INT64_MAX, INT64_MIN}) {
    const int64_t lengths[] = {6, length};
    const tensor_view contexts(lengths, {2});
    treescan_graph graph = treescan::tokens(6).c();
    graph.context_length = &contexts;
    REFUSED(graph, TREESCAN_INVALID_ARGUMENT, "context_length");
  }
  const int64_t length = 3;
  const tensor_view good(&length, {1});
  tensor_view bad = good;
  treescan_graph graph = treescan::tokens(6).c();
  graph.context_length = &bad;
  bad.dtype = TREESCAN_INT32;
  REFUSED(graph, TREESCAN_UNSUPPORTED_DTYPE, "context_length");
  bad = good;
  bad.device = TREESCAN_CUDA;
  REFUSED(graph, TREESCAN_UNSUPPORTED_DEVICE, "context_length");
  bad = good;
  bad.data = nullptr;
  REFUSED(graph, TREESCAN_INVALID_ARGUMENT, "context_length");
  bad = good;
  bad.ndim = 0;
  REFUSED(graph, TREESCAN_INVALID_ARGUMENT, "context_length");
}

// ---- Sizes that overflow ----

TEST(sizes_past_32_bits) {
  const float number = 1;
  int32_t index = 0;
  const int64_t large = int64_t{1} << 31;
  const tensor_view zero(&index, {1}), parents(&index, {1, 1});
  for (const int64_t size : {large, INT64_MAX}) {
    // One number that claims to be many vertices.
    const tensor_view x(&number, {1, 1, size}, {0, 0, 0}), parent(&index, {1, size}, {0, 0});
    const treescan_tree_output tree{&parent, nullptr, nullptr, nullptr};
    FAILS(treescan_scan(TREESCAN_UP, &parent, &parent, &x, &x, &x, nullptr, nullptr), TREESCAN_TOO_LARGE, "x");
    FAILS(treescan_scan_backward(TREESCAN_UP, &parent, &parent, &x, &x, &x, &x, &x, nullptr, nullptr),
          TREESCAN_TOO_LARGE, "x");
    FAILS(treescan_tree_from_parents(&parent, nullptr, &tree, nullptr, nullptr), TREESCAN_TOO_LARGE, "");
    const tensor_view edges(&index, {1, size, 2}, {0, 0, 0});
    FAILS(treescan_tree_from_edges(&edges, &zero, TREESCAN_BY_VERTEX, &tree, nullptr, nullptr), TREESCAN_TOO_LARGE, "");
    // The same with nothing in it.
    const tensor_view empty(&number, {0, 1, size}), none(&index, {0, size}), no_edges(&index, {0, size, 2});
    const treescan_tree_output no_tree{&none, nullptr, nullptr, nullptr};
    FAILS(treescan_scan(TREESCAN_UP, &none, &none, &empty, &empty, &empty, nullptr, nullptr), TREESCAN_TOO_LARGE, "x");
    FAILS(treescan_tree_from_edges(&no_edges, &zero, TREESCAN_BY_VERTEX, &no_tree, nullptr, nullptr),
          TREESCAN_TOO_LARGE, "");
  }
  const tensor_view area(&number, {1, 1, large, large}, {0, 0, 0, 0}),
      wide(&number, {1, 1, INT64_MAX, 2}, {0, 0, 0, 0});
  FAILS(treescan_scan(TREESCAN_UP, &parents, &parents, &area, &area, &area, nullptr, nullptr), TREESCAN_TOO_LARGE, "x");
  FAILS(treescan_scan(TREESCAN_UP, &parents, &parents, &wide, &wide, &wide, nullptr, nullptr), TREESCAN_TOO_LARGE, "x");
  // Empty tensors, and expanded ones, whose sizes overflow when multiplied: nothing to do or an error, but no overflow.
  for (const Shape &shape :
       {Shape{0, INT64_MAX, 1}, Shape{INT64_MAX, 0, 1}, Shape{0, INT64_MAX, 4}, Shape{1, INT64_MAX, 1}}) {
    Array<int32_t> parent({1, shape[2]}), order({1, shape[2]});
    parent.fill([](int64_t i) { return static_cast<double>(std::max<int64_t>(0, i - 1)); });
    order.fill([](int64_t i) { return static_cast<double>(i); });
    const tensor_view p = parent.view(), o = order.view(), t(&number, shape, {0, 0, 0});
    const treescan_status expected = shape[0] == 1 ? TREESCAN_INVALID_ARGUMENT : TREESCAN_OK;  // an expanded output
    const treescan_status forward = treescan_scan(TREESCAN_BOTH, &p, &o, &t, &t, &t, nullptr, nullptr);
    CHECK(forward == expected || forward == TREESCAN_TOO_LARGE, treescan_status_name(forward));
    const treescan_status backward =
        treescan_scan_backward(TREESCAN_BOTH, &p, &o, &t, &t, &t, &t, &t, nullptr, nullptr);
    CHECK(backward == expected || backward == TREESCAN_TOO_LARGE, treescan_status_name(backward));
  }
}

// One number that claims to be more channels than could ever be copied.
TEST(features_past_32_bits) {
  const float number = 1;
  float out[4] = {};
  const treescan_graph graph = treescan::chain(4).c();
  const tensor_view cost(out, {1, 3}), features(&number, {1, INT64_MAX / 4, 4}, {0, 0, 0});
  for (const int32_t metric : {TREESCAN_COSINE, TREESCAN_L2, TREESCAN_L1}) {
    const treescan_status status = treescan_edge_weights(&graph, &features, metric, 0, &cost, nullptr, nullptr);
    CHECK(status == TREESCAN_TOO_LARGE || status == TREESCAN_OUT_OF_MEMORY, treescan_status_name(status));
  }
  const tensor_view nothing(out, {0, INT64_MAX, 4}), no_cost(out, {0, 3});
  const treescan_status status = treescan_edge_weights(&graph, &nothing, TREESCAN_L1, 0, &no_cost, nullptr, nullptr);
  CHECK(status == TREESCAN_OK || status == TREESCAN_TOO_LARGE, treescan_status_name(status));
}

// Where there are no elements nobody walks along strides, which may be any numbers, in any order of the dimensions.
TEST(strides_of_outputs_without_elements) {
  const treescan_graph graph = treescan::chain(1).c();  // without edges
  int32_t out[2] = {};
  for (const int64_t stride : {INT64_MIN, INT64_MAX, int64_t{0}}) {
    const tensor_view edges(out, {0, 2}, {1, stride});
    SUCCEEDS(treescan_graph_edges(&graph, &edges));
    float number = 0;
    const tensor_view features(&number, {3, 1, 1}), cost(&number, {3, 0}, {stride, stride});
    SUCCEEDS(treescan_edge_weights(&graph, &features, TREESCAN_L2, 0, &cost, nullptr, nullptr));
  }
}

// No edges and no channels, but a batch that no loop should walk through.
TEST(a_batch_of_nothing) {
  float out = 0;
  const treescan_graph graph = treescan::chain(1).c();
  const tensor_view features(&out, {int64_t{1} << 42, 0, 1}), cost(&out, {int64_t{1} << 42, 0});
  SUCCEEDS(treescan_edge_weights(&graph, &features, TREESCAN_L1, 0, &cost, nullptr, nullptr));

  int32_t no_edge[2] = {};
  const tensor_view lists(no_edge, {int64_t{1} << 42, 0, 2});
  const treescan::graph without_edges = treescan::edge_list(lists, 1);
  const treescan_graph listed = without_edges.c();
  SUCCEEDS(treescan_graph_edges(&listed, &lists));

  int32_t vertex = 0;
  const tensor_view tree(&vertex, {1, 1}), u(&out, {int64_t{1} << 42, 0, 1}), A(&out, {0, 1}), B(&out, {0, 1});
  const treescan_selective_inputs inputs{&u, &u, &A, &B, &B, nullptr, nullptr, nullptr, 0};
  SUCCEEDS(treescan_selective_scan(TREESCAN_DOWN, &tree, &tree, &inputs, &u, nullptr, nullptr, nullptr));
}

// No items, but more channels than any sum of theirs may pass.
TEST(any_number_of_channels_of_no_item) {
  float number = 0;
  int32_t vertex = 0;
  const tensor_view tree(&vertex, {1, 1});
  for (const int64_t channels : {INT64_MAX, INT64_MAX - 15, int64_t{1} << 60}) {
    const tensor_view u(&number, {0, channels, 1}), A(&number, {channels, 1}, {0, 0});
    const treescan_selective_inputs inputs{&u, &u, &A, &A, &A, nullptr, nullptr, nullptr, 0};
    for (const int32_t direction : {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH})
      SUCCEEDS(treescan_selective_scan(direction, &tree, &tree, &inputs, &u, nullptr, nullptr, nullptr));
    SUCCEEDS(treescan_scan(TREESCAN_DOWN, &tree, &tree, &u, &u, &u, nullptr, nullptr));
  }
}

// ---- NaN ----

// NaN costs are legal: they come after all numbers, in minimum and maximum trees alike, ties by index.
TEST(nan_costs_come_last) {
  const int32_t list[] = {0, 1, 1, 2, 2, 0};
  const treescan::graph triangle = treescan::edge_list(tensor_view(list, {3, 2}), 3);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const bool maximum : {false, true})
    for (const float other : {1.0f, infinity, -infinity}) {
      const float cost[] = {NAN, other, other};
      const treescan::tree tree = treescan::minimum_spanning_tree(triangle, {cost, {1, 3}}, {0}, maximum);
      CHECK(tree.edge == (std::vector<int32_t>{-1, 1, 2}), "maximum ", maximum, ", other ", other);
    }
  const float all[] = {NAN, -NAN, NAN};
  CHECK(treescan::minimum_spanning_tree(triangle, {all, {1, 3}}).edge == (std::vector<int32_t>{-1, 0, 1}));
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const float cost[] = {NAN, 1, 1};
    CHECK(treescan::random_spanning_tree(triangle, {cost, {1, 3}}, seed).edge == (std::vector<int32_t>{-1, 1, 2}));
  }
}

TEST_MAIN
