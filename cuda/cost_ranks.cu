#include "cost_ranks.h"

#include "call.h"
#include "team.h"
#include "wide_costs.h"

namespace treescan::cuda {

namespace {

constexpr int threads = 256;

// What a team needs for one item.
struct Scratch {
  uint64_t *keys;
  int32_t *entries, *spare, *counts;

  TREESCAN_MEMBER static int64_t bytes(int64_t edges) {
    return 8 * edges + 4 * (2 * edges + sort_counts(edges));
  }
  TREESCAN_MEMBER Scratch(char *memory, int64_t edges)
      : keys(reinterpret_cast<uint64_t *>(memory)), entries(reinterpret_cast<int32_t *>(keys + edges)),
        spare(entries + edges), counts(spare + edges) {}
};

template <class Team>
__device__ __forceinline__ void rank_item(Team &team, const WideCosts &costs, int64_t item, int64_t edges,
                                          const Scratch &scratch, float *ranks) {
  uint64_t *const keys = scratch.keys;
  for_each(team, edges, [&](int64_t e) {
    keys[e] = costs.key(item, e);
    scratch.entries[e] = static_cast<int32_t>(e);
  });
  team.sync();
  int32_t *sorted = scratch.entries, *spare = scratch.spare;
  for (int shift = 0; shift < 64; shift += 32) {
    int32_t *const result = stable_sort(team, sorted, spare, edges, 32, scratch.counts, [&](int32_t e) {
      return static_cast<uint32_t>(keys[e] >> shift);
    });
    if (result == spare) spare = sorted;
    sorted = result;
  }
  const auto rises = [&](int64_t i) { return i > 0 && keys[sorted[i]] != keys[sorted[i - 1]]; };
  exclusive_sums(team, edges, rises, [&](int64_t i, int64_t rank) { ranks[sorted[i]] = rank_as_float(rank + rises(i)); });
}

__global__ void __launch_bounds__(threads) rank_by_block(const WideCosts costs, int64_t batch, int64_t edges, char *parts,
                                                         int64_t part_bytes, float *ranks) {
  BlockTeam team;
  const Scratch scratch(parts + blockIdx.x * part_bytes, edges);
  for (int64_t item = blockIdx.x; item < batch; item += gridDim.x)
    rank_item(team, costs, item, edges, scratch, ranks + item * edges);
}

__global__ void __launch_bounds__(threads) rank_by_grid(const WideCosts costs, int64_t batch, int64_t edges, char *parts,
                                                        GridMemory *grid, float *ranks) {
  GridTeam team(grid);
  const Scratch scratch(parts, edges);
  for (int64_t item = 0; item < batch; ++item) rank_item(team, costs, item, edges, scratch, ranks + item * edges);
}

}  // namespace

CostRanking::CostRanking(const treescan_tensor &cost)
    : batch_(cost.sizes[0]), edges_(is_wide(cost) ? cost.sizes[1] : 0) {
  if (batch_ == 0 || edges_ == 0) return;
  part_bytes_ = (Scratch::bytes(edges_) + 63) / 64 * 64;
  by_grid_ = grid_pays(batch_, edges_);
  blocks_ = by_grid_ ? std::min({resident_blocks(rank_by_grid, threads, 0), GridMemory::most_blocks,
                                 grid_size((edges_ + threads - 1) / threads)})
                     : static_cast<unsigned>(std::min<int64_t>(batch_, resident_blocks(rank_by_block, threads, 0)));
}

void CostRanking::carve(Carver &carver) {
  parts_ = carver.take<char>(times(by_grid_ ? 1 : blocks_, part_bytes_));
  grid_ = carver.take<char>(by_grid_ ? static_cast<int64_t>(sizeof(GridMemory)) : 0);
  ranks_ = carver.take<float>(times(batch_, edges_));
}

const float *CostRanking::run(const treescan_tensor &cost, EdgeOrder order, cudaStream_t stream) const {
  if (blocks_ == 0) return ranks_;
  const WideCosts costs(cost, order);
  if (by_grid_) {
    auto *const grid = reinterpret_cast<GridMemory *>(grid_);
    check(cudaMemsetAsync(grid, 0, sizeof(GridMemory), stream), "cost ranks");
    check(LAUNCH_COOPERATIVE((rank_by_grid), blocks_, threads, 0, stream, costs, batch_, edges_, parts_, grid, ranks_),
          "cost ranks");
  } else {
    check(LAUNCH((rank_by_block), blocks_, threads, 0, stream, costs, batch_, edges_, parts_, part_bytes_, ranks_),
          "cost ranks");
  }
  return ranks_;
}

}  // namespace treescan::cuda
