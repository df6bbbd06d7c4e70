#include "test_team.h"

namespace cuda_test {

using namespace treescan::cuda;

namespace {

template <class Work>
__global__ void __launch_bounds__(1024) block_works(Work work) {
  BlockTeam team;
  work(team);
}

template <class Work>
__global__ void __launch_bounds__(1024) grid_works(Work work, GridMemory *memory) {
  GridTeam team(memory);
  work(team);
}

template <class Work>
cudaError_t run(TeamShape shape, const Work &work) {
  if (shape.blocks == 0) return LAUNCH((block_works<Work>), 1, shape.threads, 0, nullptr, work);
  void *memory = nullptr;
  cudaError_t error = cudaMallocAsync(&memory, sizeof(GridMemory), nullptr);
  if (error == cudaSuccess) error = cudaMemsetAsync(memory, 0, sizeof(GridMemory), nullptr);
  if (error == cudaSuccess)
    error = LAUNCH_COOPERATIVE((grid_works<Work>), shape.blocks, shape.threads, 0, nullptr, work,
                               static_cast<GridMemory *>(memory));
  cudaFreeAsync(memory, nullptr);
  return error;
}

struct SumTwice {
  const int32_t *values;
  int64_t count;
  int64_t *sums, *totals;
  template <class Team>
  __device__ void operator()(Team &team) const {
    const int64_t total = exclusive_sums(team, count, [&](int64_t i) { return values[i]; },
                                         [&](int64_t i, int64_t sum) { sums[i] = sum; });
    const int64_t of_sums = exclusive_sums(team, count, [&](int64_t i) { return sums[i]; },
                                           [&](int64_t i, int64_t sum) { sums[i] = sum; });
    if (team.rank() != team.size() - 1) return;
    totals[0] = total;
    totals[1] = of_sums;
  }
};

struct SortKeys {
  const uint32_t *keys;
  int64_t count;
  int bits;
  int32_t *entries, *spare, *counts, *sorted;
  template <class Team>
  __device__ void operator()(Team &team) const {
    for_each(team, count, [&](int64_t i) { entries[i] = static_cast<int32_t>(i); });
    team.sync();
    const int32_t *const result =
        stable_sort(team, entries, spare, count, bits, counts, [&](int32_t entry) { return keys[entry]; });
    for_each(team, count, [&](int64_t i) { sorted[i] = result[i]; });
  }
};

struct Rank {
  Link *links, *spare;
  int64_t count;
  uint32_t *ranks;
  template <class Team>
  __device__ void operator()(Team &team) const {
    const Link *const ranked = rank_lists(team, links, spare, count);
    for_each(team, count, [&](int64_t i) { ranks[i] = static_cast<uint32_t>(ranked[i]); });
  }
};

struct Vote {
  const int32_t *votes;
  int64_t count;
  int32_t *results;
  template <class Team>
  __device__ void operator()(Team &team) const {
    for (int64_t k = 0; k < count; ++k) {
      const int64_t mine = k * team.size() + team.rank();
      results[mine] = team.any(votes[mine] != 0);
    }
  }
};

}  // namespace

cudaError_t sum_twice(TeamShape shape, const int32_t *values, int64_t count, int64_t *sums, int64_t *totals) {
  return run(shape, SumTwice{values, count, sums, totals});
}

cudaError_t sort_keys(TeamShape shape, const uint32_t *keys, int64_t count, int bits, int32_t *entries,
                      int32_t *spare, int32_t *counts, int32_t *sorted) {
  return run(shape, SortKeys{keys, count, bits, entries, spare, counts, sorted});
}

cudaError_t rank(TeamShape shape, Link *links, Link *spare, int64_t count, uint32_t *ranks) {
  return run(shape, Rank{links, spare, count, ranks});
}

cudaError_t vote(TeamShape shape, const int32_t *votes, int64_t count, int32_t *results) {
  return run(shape, Vote{votes, count, results});
}

}  // namespace cuda_test
