// Trees of grids that the CPU cuts into tiles, of 65,536 vertices, and joins afterwards. An edge list takes another way to the
// same tree.
#include "testing.h"

// With the second kind of costs hardly an edge can be chosen inside a tile: columns hang together first, and all of them reach
// from one tile into the next.
TEST(trees_of_large_grids) {
  const int32_t height = 310, width = 290;
  const auto vertices = static_cast<size_t>(height * width);
  for (const int32_t connectivity : {4, 8}) {
    const treescan::graph grid = treescan::grid(height, width, connectivity);
    const std::vector<int32_t> list = grid.edges();
    const auto count = static_cast<int64_t>(list.size() / 2);
    const treescan::graph edges = treescan::edge_list(treescan::tensor_view(list.data(), {count, 2}), height * width);
    const auto columns_first = [&](std::mt19937 &g, int64_t e) {
      return e < (height - 1) * width ? 0.0 : 1.0 + static_cast<double>(g() % 1000);
    };
    for (const bool in_columns : {false, true})
      for (const int32_t threads : {1, 3}) {
        treescan_set_num_threads(threads);
        std::mt19937 generator(11);
        Array<float> cost({1, count});
        cost.fill([&](int64_t e) {
          return in_columns ? columns_first(generator, e) : static_cast<double>(generator() % 1000);
        });
        const treescan::tree got = treescan::minimum_spanning_tree(grid, cost.view(), {height * width / 3});
        const treescan::tree expected = treescan::minimum_spanning_tree(edges, cost.view(), {height * width / 3});
        EQUAL(got.parent.size(), vertices);
        CHECK(got.parent == expected.parent, "parent");
        CHECK(got.order == expected.order, "order");
        CHECK(got.depth == expected.depth, "depth");
        CHECK(got.edge == expected.edge, "edge");
      }
  }
  treescan_set_num_threads(2);
}

TEST_MAIN
