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
