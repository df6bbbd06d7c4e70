// The C++ face: types deduced, owning results, and errors as exceptions.
#include "testing.h"

namespace {

template <class Call>
void check_throws(Call &&call, treescan_status status, const std::string &text, int line) {
  try {
    call();
    testing::report(__FILE__, line, "expected ", treescan_status_name(status), ", nothing was thrown");
  } catch (const treescan::error &error) {
    EQUAL(error.status(), status);
    CHECK(std::string(error.what()).find(text) != std::string::npos, error.what());
  }
}
#define THROWS(call, status, text) check_throws([&] { call; }, status, text, __LINE__)

}  // namespace

TEST(views) {
  const float values[24] = {};
  const treescan::tensor_view dense(values, {2, 3, 4});
  EQUAL(static_cast<const void *>(dense.data), static_cast<const void *>(values));
  EQUAL(dense.dtype, TREESCAN_FLOAT32);
  EQUAL(dense.device, TREESCAN_CPU);
  EQUAL(dense.device_index, 0);
  EQUAL(dense.ndim, 3);
  EQUAL(dense.strides[0], 12);
  EQUAL(dense.strides[1], 4);
  EQUAL(dense.strides[2], 1);
  const treescan::tensor_view strided(values, {2, 3}, {-1, 2});
  EQUAL(strided.strides[0], -1);
  EQUAL(strided.strides[1], 2);
  EQUAL(treescan::tensor_view(values, {}).ndim, 0);
  EQUAL(treescan::tensor_view(static_cast<const treescan_tensor &>(dense)).sizes[2], 4);
  const treescan::tensor_view device(values, {24}, {}, TREESCAN_CUDA, 1);
  EQUAL(device.device, TREESCAN_CUDA);
  EQUAL(device.device_index, 1);
  EQUAL(treescan::tensor_view(static_cast<double *>(nullptr), {0}).dtype, TREESCAN_FLOAT64);
  EQUAL(treescan::tensor_view(static_cast<treescan::float16 *>(nullptr), {0}).dtype, TREESCAN_FLOAT16);
  EQUAL(treescan::tensor_view(static_cast<const treescan::bfloat16 *>(nullptr), {0}).dtype, TREESCAN_BFLOAT16);
  EQUAL(treescan::tensor_view(static_cast<int *>(nullptr), {0}).dtype, TREESCAN_INT32);
  EQUAL(treescan::tensor_view(static_cast<long long *>(nullptr), {0}).dtype, TREESCAN_INT64);
  EQUAL(treescan::tensor_view(static_cast<int64_t *>(nullptr), {0}).dtype, TREESCAN_INT64);
  THROWS(treescan::tensor_view(values, {1, 1, 1, 1, 1}), TREESCAN_INVALID_ARGUMENT, "sizes");
  THROWS(treescan::tensor_view(values, {2, 3}, {1}), TREESCAN_INVALID_ARGUMENT, "strides");
}

// The example at the top of the header.
TEST(an_image_from_end_to_end) {
  const int64_t channels = 2, height = 2, width = 3;
  const std::vector<float> image{0, 1, 1, 0, 0, 9, 5, 5, 5, 5, 5, 5};
  const treescan::graph grid = treescan::grid(height, width);
  EQUAL(grid.num_vertices(), 6);
  EQUAL(grid.num_edges(), 7);
  const treescan::tensor_view x(image.data(), {1, channels, height, width});
  const std::vector<float> cost = treescan::edge_weights(grid, x, treescan::metric::l1);
  CHECK(cost == (std::vector<float>{0, 1, 8, 1, 0, 0, 9}));
  const treescan::tree tree = treescan::minimum_spanning_tree(grid, {cost.data(), {1, grid.num_edges()}});
  EQUAL(tree.batch_size, 1);
  EQUAL(tree.num_vertices, 6);
  CHECK(tree.parent == (std::vector<int32_t>{0, 4, 1, 0, 3, 2}));
  CHECK(tree.order == (std::vector<int32_t>{0, 3, 4, 1, 2, 5}));
  CHECK(tree.depth == (std::vector<int32_t>{0, 3, 4, 1, 2, 5}));
  CHECK(tree.edge == (std::vector<int32_t>{-1, 1, 4, 0, 5, 2}));
  const std::vector<float> weights(12, 1.0f);
  std::vector<float> y(12), grad_x(12), grad_weights(12);
  const treescan::tensor_view w(weights.data(), {1, channels, height, width}),
      out(y.data(), {1, channels, height, width});
  treescan::scan(treescan::direction::both, tree, x, w, out);
  for (size_t i = 0; i < 12; ++i) EQUAL(y[i], i < 6 ? 11.0f : 30.0f);
  treescan::scan_backward(treescan::direction::both, tree, x, w, w, {grad_x.data(), {1, channels, height, width}},
                          {grad_weights.data(), {1, channels, height, width}});
  for (size_t i = 0; i < 12; ++i) EQUAL(grad_x[i], 6.0f);
  EQUAL(grad_weights[0], 0.0f);
  EQUAL(grad_weights[5], 9.0f * 5 + 2.0f);
}

TEST(trees) {
  const std::vector<float> cost{3, 1, 2};
  const int64_t edges[] = {0, 1, 1, 2, 2, 0};
  const treescan::graph triangle = treescan::edge_list(treescan::tensor_view(edges, {3, 2}), 3);
  CHECK(triangle.edges() == (std::vector<int32_t>{0, 1, 1, 2, 2, 0}));
  const treescan::tensor_view view(cost.data(), {1, 3});
  CHECK(treescan::minimum_spanning_tree(triangle, view).parent == (std::vector<int32_t>{0, 2, 0}));
  CHECK(treescan::minimum_spanning_tree(triangle, view, {1}).parent == (std::vector<int32_t>{2, 1, 1}));
  CHECK(treescan::minimum_spanning_tree(triangle, view, {0}, true).parent == (std::vector<int32_t>{0, 0, 0}));
  CHECK(treescan::random_spanning_tree(triangle, view, 5).parent ==
        treescan::random_spanning_tree(triangle, view, 5).parent);
  const int32_t star[] = {2, 1, 2, 0, 2, 3};
  const treescan::tree by_vertex = treescan::tree_from_edges({star, {1, 3, 2}}, {2});
  CHECK(by_vertex.order == (std::vector<int32_t>{2, 0, 1, 3}));
  CHECK(by_vertex.edge == (std::vector<int32_t>{1, 0, -1, 2}));
  const treescan::tree by_edge = treescan::tree_from_edges({star, {1, 3, 2}}, {2}, treescan::sibling_order::by_edge);
  CHECK(by_edge.order == (std::vector<int32_t>{2, 1, 0, 3}));
  const treescan::tree moved = treescan::tree_from_parents(by_vertex.parent_view(), {3});
  CHECK(moved.parent == (std::vector<int32_t>{2, 2, 3, 3}));
  CHECK(moved.depth == (std::vector<int32_t>{2, 2, 1, 0}));
  CHECK(moved.edge.empty());
  CHECK(treescan::tree_from_parents(moved.parent_view()).order == moved.order);
}

// A forest of two segments with a vertex in neither, and the same again from its parents.
TEST(forests) {
  const float cost[] = {1, 1, 1, 1};
  const int32_t segments[] = {0, 0, -1, 1, 1};
  const treescan::tree forest = treescan::minimum_spanning_tree(treescan::chain(5), {cost, {1, 4}}, {1}, false,
                                                                treescan::tensor_view(segments, {1, 5}));
  CHECK(forest.parent == (std::vector<int32_t>{1, 1, -1, 3, 3}));
  CHECK(forest.order == (std::vector<int32_t>{1, 3, 0, 4, 2}));
  CHECK(treescan::forest_from_parents(forest.parent_view()).depth == forest.depth);
  THROWS(treescan::tree_from_parents(forest.parent_view()), TREESCAN_NOT_A_TREE, "parent");
}

// The forms that write to the caller's memory, in scratch memory of the caller's, make what the others return.
TEST(memory_of_the_callers) {
  const float cost[] = {2, 1, 1, 3, 2};
  const int32_t triangle_and_tail[] = {0, 1, 1, 2, 0, 2, 2, 3, 3, 4}, root[] = {4}, segments[] = {0, 0, 0, 0, 0};
  const treescan::graph graph = treescan::edge_list({triangle_and_tail, {5, 2}}, 5);
  const treescan::tensor_view costs(cost, {1, 5}), roots(root, {1});
  treescan::tree made(1, 5, true);
  const treescan::tensor_view parent = made.parent_view(), order = made.order_view(), depth = made.depth_view(),
                              edge = made.edge_view();
  const treescan_tree_output output{&parent, &order, &depth, &edge}, without_edges{&parent, &order, &depth, nullptr};
  const auto check_made = [&](auto &&write, const treescan::tree &expected) {
    for (std::vector<int32_t> *numbers : {&made.parent, &made.order, &made.depth, &made.edge}) numbers->assign(5, -7);
    treescan::workspace scratch([&](treescan_workspace *w) { write(w); });
    CHECK(scratch.size > 0 && reinterpret_cast<uintptr_t>(scratch.data) % 64 == 0);
    CHECK(made.parent[0] == -7);
    write(&scratch);
    CHECK(made.parent == expected.parent && made.order == expected.order && made.depth == expected.depth);
    CHECK(expected.edge.empty() || made.edge == expected.edge);
  };
  const treescan::tree minimum = treescan::minimum_spanning_tree(graph, costs, {4});
  check_made([&](treescan_workspace *w) { treescan::minimum_spanning_tree(graph, costs, roots, false, {}, output, w); },
             minimum);
  check_made(
      [&](treescan_workspace *w) {
        treescan::minimum_spanning_tree(graph, costs, roots, false, treescan::tensor_view(segments, {1, 5}), output, w);
      },
      minimum);
  check_made([&](treescan_workspace *w) { treescan::random_spanning_tree(graph, costs, 3, roots, output, w); },
             treescan::random_spanning_tree(graph, costs, 3, {4}));
  const int32_t list[] = {0, 2, 1, 2, 2, 3, 3, 4};
  check_made(
      [&](treescan_workspace *w) {
        treescan::tree_from_edges({list, {1, 4, 2}}, roots, treescan::sibling_order::by_edge, output, w);
      },
      treescan::tree_from_edges({list, {1, 4, 2}}, {4}, treescan::sibling_order::by_edge));
  const treescan::tensor_view given = minimum.parent_view();
  check_made([&](treescan_workspace *w) { treescan::tree_from_parents(given, {}, without_edges, w); },
             treescan::tree_from_parents(given));
  const int32_t zero[] = {0};
  check_made(
      [&](treescan_workspace *w) {
        treescan::tree_from_parents(given, treescan::tensor_view(zero, {1}), without_edges, w);
      },
      treescan::tree_from_parents(given, {0}));
  check_made([&](treescan_workspace *w) { treescan::forest_from_parents(given, without_edges, w); },
             treescan::forest_from_parents(given));
}

// As the C interface does it, with and without the arguments that may be left out.
TEST(selective_scans) {
  std::mt19937 generator(7);
  const int64_t items = 2, channels = 3, vertices = 5, states = 2;
  const Shape values{items, channels, vertices}, state_shape{items, channels, states};
  const int32_t parents[] = {0, 0, 1, 1, 3, 2, 2, 2, 1, 3};
  const treescan::tree tree = treescan::tree_from_parents({parents, {items, vertices}});
  Array<float> u(values), delta(values), A({channels, states}), B({items, 1, states, vertices}), C({channels, states}),
      D({channels}), z(values), bias({channels}), grad_y(values), grad_state(state_shape);
  for (Array<float> *array : {&u, &delta, &A, &B, &C, &D, &z, &bias, &grad_y, &grad_state})
    array->random(generator, -1, 1);
  const auto views = [](const std::vector<Array<float> *> &arrays, bool all) {
    treescan::selective_tensors result{arrays[0]->view(), arrays[1]->view(), arrays[2]->view(), arrays[3]->view(),
                                       arrays[4]->view()};
    if (all) result.D = arrays[5]->view(), result.z = arrays[6]->view(), result.delta_bias = arrays[7]->view();
    return result;
  };
  for (const bool all : {false, true}) {
    const std::vector<Array<float> *> arrays{&u, &delta, &A, &B, &C, &D, &z, &bias};
    const treescan::selective_tensors inputs = views(arrays, all);
    const auto p = [](const std::optional<treescan::tensor_view> &view) { return view ? &*view : nullptr; };
    const treescan_selective_inputs plain{
        &inputs.u, &inputs.delta, &inputs.A, &inputs.B, &inputs.C, p(inputs.D), p(inputs.z), p(inputs.delta_bias), all};
    const treescan::tensor_view parent = tree.parent_view(), order = tree.order_view();
    Array<float> y(values), expected_y(values), state(state_shape), expected_state(state_shape);
    const treescan::tensor_view y_view = expected_y.view(), state_view = expected_state.view();
    SUCCEEDS(treescan_selective_scan(TREESCAN_DOWN, &parent, &order, &plain, &y_view, &state_view, nullptr, nullptr));
    treescan::selective_scan(treescan::direction::down, tree, inputs, all, y.view(), state.view());
    CHECK(y.bytes() == expected_y.bytes() && state.bytes() == expected_state.bytes());
    treescan::selective_scan(treescan::direction::down, tree, inputs, all, y.wipe().view());
    CHECK(y.bytes() == expected_y.bytes());

    std::vector<Array<float>> gradients, expected;
    for (const Array<float> *array : arrays)
      gradients.emplace_back(array->sizes()), expected.emplace_back(array->sizes());
    std::vector<Array<float> *> to, to_expected;
    for (size_t i = 0; i < arrays.size(); ++i) to.push_back(&gradients[i]), to_expected.push_back(&expected[i]);
    const treescan::selective_tensors targets = views(to_expected, all);
    const treescan_selective_gradients plain_targets{&targets.u, &targets.delta, &targets.A,   &targets.B,
                                                     &targets.C, p(targets.D),   p(targets.z), p(targets.delta_bias)};
    const treescan::tensor_view grad_y_view = grad_y.view(), grad_state_view = grad_state.view();
    SUCCEEDS(treescan_selective_scan_backward(TREESCAN_DOWN, &parent, &order, &plain, &grad_y_view, &grad_state_view,
                                              &plain_targets, nullptr, nullptr));
    treescan::selective_scan_backward(treescan::direction::down, tree, inputs, all, grad_y.view(), grad_state.view(),
                                      views(to, all));
    for (size_t i = 0; i < (all ? 8u : 5u); ++i) CHECK(gradients[i].bytes() == expected[i].bytes(), i);
  }
}

TEST(the_library_itself) {
  EQUAL(treescan::version(), TREESCAN_VERSION);
  EQUAL(treescan::build_info(), std::string(treescan_build_info()));
  EQUAL(treescan::status_name(TREESCAN_TOO_LARGE), "TREESCAN_TOO_LARGE");
  treescan::check_version();
  const int32_t threads = treescan::get_num_threads();
  treescan::set_num_threads(3);
  EQUAL(treescan::get_num_threads(), 3);
  THROWS(treescan::set_num_threads(0), TREESCAN_INVALID_ARGUMENT, "num_threads");
  int calls = 0;
  treescan::set_parallel_for(
      [](void *context, int64_t count, void (*body)(void *, int64_t), void *task) {
        ++*static_cast<int *>(context);
        while (count-- > 0) body(task, count);
      },
      &calls);
  const std::vector<float> values(3 * 64);
  std::vector<float> cost(3 * 63);
  treescan::edge_weights(treescan::chain(64), {values.data(), {3, 1, 64}}, treescan::metric::l2, false,
                         {cost.data(), {3, 63}});
  CHECK(calls > 0);
  treescan::set_parallel_for(nullptr);
  treescan::set_num_threads(threads);
  const std::string set = treescan::get_instruction_set();
  treescan::set_instruction_set("baseline");
  EQUAL(treescan::get_instruction_set(), "baseline");
  treescan::set_instruction_set(set);
  THROWS(treescan::set_instruction_set("z80"), TREESCAN_INVALID_ARGUMENT, "z80");
  if (testing::has_cuda()) {
    treescan::set_cuda_trees("auto");
    treescan::set_cuda_scans("auto");
    THROWS(treescan::set_cuda_scans("grid"), TREESCAN_INVALID_ARGUMENT, "strategy");
  } else {
    THROWS(treescan::set_cuda_trees("auto"), TREESCAN_UNSUPPORTED_DEVICE, "no CUDA backend");
    THROWS(treescan::set_cuda_scans("auto"), TREESCAN_UNSUPPORTED_DEVICE, "no CUDA backend");
  }
}

TEST(graphs_can_be_copied) {
  const int64_t lengths[] = {2, 4};
  std::vector<treescan::graph> graphs;
  for (int i = 0; i < 3; ++i) graphs.push_back(treescan::tokens(5, 2, treescan::tensor_view(lengths, {2})));
  const treescan::graph copy = graphs[1];
  graphs.clear();
  EQUAL(copy.num_edges(), 4 + 2);
  EQUAL(treescan::chain(5).num_edges(), 4);
}

TEST(errors) {
  THROWS(treescan::grid(0, 3).num_vertices(), TREESCAN_INVALID_ARGUMENT, "height");
  THROWS(treescan::grid(3, 3, 5).num_edges(), TREESCAN_INVALID_ARGUMENT, "connectivity");
  THROWS(treescan::chain(int64_t{1} << 31).num_vertices(), TREESCAN_TOO_LARGE, "length");
  const float cost[] = {1};
  THROWS(treescan::minimum_spanning_tree(treescan::chain(2), {cost, {1, 1}}, {2}), TREESCAN_INVALID_ARGUMENT, "root");
  THROWS(treescan::minimum_spanning_tree(treescan::chain(2), {cost, {1}}), TREESCAN_INVALID_ARGUMENT, "cost");
  const int32_t cycle[] = {0, 2, 1};
  THROWS(treescan::tree_from_parents({cycle, {1, 3}}), TREESCAN_NOT_A_TREE, "parent");
  THROWS(treescan::edge_weights(treescan::chain(3), {cycle, {1, 1, 3}}), TREESCAN_UNSUPPORTED_DTYPE, "features");
  THROWS(treescan::synchronize(static_cast<treescan_device>(3)), TREESCAN_UNSUPPORTED_DEVICE, "device");
  treescan::synchronize(TREESCAN_CPU);
  THROWS(treescan::check(TREESCAN_OUT_OF_MEMORY), TREESCAN_OUT_OF_MEMORY, "");
  treescan::check(TREESCAN_OK);
}

TEST_MAIN
