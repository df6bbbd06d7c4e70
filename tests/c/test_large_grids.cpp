// Trees of grids that the CPU cuts into tiles, of 65,536 vertices, and joins afterwards, and that it searches in pieces. An edge
// list takes another way to the same tree.
#include "testing.h"

namespace {

using Cost = std::function<double(std::mt19937 &, int64_t)>;  // of an edge

void check_grid(int32_t height, int32_t width, int32_t connectivity, const Cost &draw, int32_t root) {
  const treescan::graph grid = treescan::grid(height, width, connectivity);
  const std::vector<int32_t> list = grid.edges();
  const auto count = static_cast<int64_t>(list.size() / 2);
  const treescan::graph edges = treescan::edge_list(treescan::tensor_view(list.data(), {count, 2}), height * width);
  std::mt19937 generator(11);
  Array<float> cost({1, count});
  cost.fill([&](int64_t e) { return draw(generator, e); });
  const treescan::tree expected = treescan::minimum_spanning_tree(edges, cost.view(), {root});
  for (const int32_t threads : {1, 2, 5}) {
    treescan_set_num_threads(threads);
    const treescan::tree got = treescan::minimum_spanning_tree(grid, cost.view(), {root});
    EQUAL(got.parent.size(), static_cast<size_t>(height * width));
    CHECK(got.parent == expected.parent, "parent");
    CHECK(got.order == expected.order, "order");
    CHECK(got.depth == expected.depth, "depth");
    CHECK(got.edge == expected.edge, "edge");
  }
  treescan_set_num_threads(2);
}

const Cost drawn = [](std::mt19937 &g, int64_t) { return static_cast<double>(g() % 1000); };

}  // namespace

// With the second kind of costs hardly an edge can be chosen inside a tile: columns hang together first, and all of them reach
// from one tile into the next.
TEST(trees_of_large_grids) {
  const int32_t height = 310, width = 290;
  for (const int32_t connectivity : {4, 8}) {
    check_grid(height, width, connectivity, drawn, height * width / 3);
    check_grid(height, width, connectivity, [&](std::mt19937 &g, int64_t e) {
      return e < (height - 1) * width ? 0.0 : 1.0 + static_cast<double>(g() % 1000);
    }, height * width / 3);
  }
}

// Ties alone, NaN and infinities; the corners as roots.
TEST(large_grids_of_special_costs) {
  const int32_t height = 257, width = 259;
  check_grid(height, width, 4, [](std::mt19937 &, int64_t) { return 0.5; }, 0);
  check_grid(height, width, 8, [](std::mt19937 &, int64_t) { return 0.5; }, height * width - 1);
  const double special[] = {-HUGE_VAL, HUGE_VAL, std::nan(""), 0.0, -0.0, 1.0};
  check_grid(height, width, 4, [&](std::mt19937 &g, int64_t) { return special[g() % 6]; }, width - 1);
  check_grid(height, width, 8, [&](std::mt19937 &g, int64_t) { return special[g() % 6]; }, (height - 1) * width);
}

// Levels that are never wide, and tiles that are as long as the grid.
TEST(large_grids_that_are_thin) {
  check_grid(1, 70000, 4, drawn, 30000);
  check_grid(70000, 1, 8, drawn, 69999);
  check_grid(2, 35000, 8, drawn, 0);
}

// A comb: the pieces that the search cuts a level into are most unlike, for one has the back and with it nearly everything that
// comes. It runs out of room before the others do.
TEST(large_grids_in_unlike_pieces) {
  const int32_t side = 390;
  const int64_t down = (side - 1) * side, back = down + side / 2 * (side - 1);
  check_grid(side, side, 4, [&](std::mt19937 &g, int64_t e) {
    const bool chosen = e < down || (e >= back && e < back + side - 1);
    return static_cast<double>(g() % 1000) + (chosen ? 0 : 1000);
  }, side / 2 * side);
}

TEST_MAIN
