#include "cpu/grid_kernels.h"

#include "edge_order.h"

namespace treescan {
namespace TREESCAN_KERNELS {
const GridKernels &grid_kernels();

namespace {

void sort_keys(const float *cost, int64_t count, bool descending, int32_t *keys) {
  for (int64_t i = 0; i < count; ++i) keys[i] = sort_key(descending ? -cost[i] : cost[i]);
}

void find_nearest(const GridEdges &edges, int64_t first, int64_t last, uint8_t *nearest) {
  const int32_t *const down = edges.down, *const up = edges.down - edges.width;
  const int32_t *const right = edges.right, *const left = edges.right - 1;
  for (int64_t v = first; v < last; ++v) {
    int32_t smallest = up[v];
    int32_t direction = above;
    direction = down[v] < smallest ? static_cast<int32_t>(below) : direction;
    smallest = down[v] < smallest ? down[v] : smallest;
    direction = left[v] < smallest ? static_cast<int32_t>(before) : direction;
    smallest = left[v] < smallest ? left[v] : smallest;
    direction = right[v] < smallest ? static_cast<int32_t>(behind) : direction;
    nearest[v] = static_cast<uint8_t>(direction);
  }
}

void judge(const GridEdges &edges, const uint8_t *nearest, int64_t first, int64_t last, const Verdicts &verdicts) {
  const int64_t w = edges.width;
  const int32_t *const down = edges.down, *const right = edges.right;
  uint8_t *const links = verdicts.links, *const open = verdicts.open, *const start = verdicts.start;
#if defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#else
#pragma GCC ivdep
#endif
  for (int64_t v = first; v < last; ++v) {
    // The squares to the lower right, to the lower left and to the upper right: their edges on the left, on the right, at
    // the top and at the bottom, by ascending index. Where a square has no fourth edge that counts as the largest.
    const int32_t d = down[v], r = right[v];
    const int32_t to_right = down[v + 1], to_bottom = right[v + w];
    const int32_t l_left = down[v - 1], l_top = right[v - 1], l_bottom = right[v - 1 + w];
    const int32_t u_left = down[v - w], u_right = down[v - w + 1], u_top = right[v - w];
    const int32_t cut_down = ((d > to_right) & (d > r) & (d > to_bottom)) | ((d >= l_left) & (d > l_top) & (d > l_bottom));
    const int32_t cut_right = ((r >= d) & (r >= to_right) & (r > to_bottom)) | ((r >= u_left) & (r >= u_right) & (r >= u_top));
    const int32_t n = nearest[v];
    const int32_t up_first = nearest[v + w] == above, left_first = nearest[v + 1] == before;
    const int32_t links_down = (n == below) | up_first, links_right = (n == behind) | left_first;
    const int32_t links_up = (n == above) | (nearest[v - w] == below), links_left = (n == before) | (nearest[v - 1] == behind);
    links[v] = static_cast<uint8_t>(links_up | links_left << 1 | links_right << 2 | links_down << 3);
    open[v] = static_cast<uint8_t>(((d != no_edge) & (links_down ^ 1) & (cut_down ^ 1)) |
                                   ((r != no_edge) & (links_right ^ 1) & (cut_right ^ 1)) << 1);
    start[v] = static_cast<uint8_t>(n | (((n == below) & up_first) | ((n == behind) & left_first)) * is_first);
  }
}

constexpr GridKernels kernels = {sort_keys, find_nearest, judge};

}  // namespace

const GridKernels &grid_kernels() { return kernels; }

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
