// Kernels that let a team work: a block's, or a grid's.
#pragma once

#include "team.h"

namespace cuda_test {

struct TeamShape {
  unsigned blocks, threads;  // 0 blocks: the team of one block
};

// Sums of the values before each, then the sums of those sums, in place. Both totals.
cudaError_t sum_twice(TeamShape shape, const int32_t *values, int64_t count, int64_t *sums, int64_t *totals);

// sorted[i]: the index of the key that comes i-th.
cudaError_t sort_keys(TeamShape shape, const uint32_t *keys, int64_t count, int bits, int32_t *entries,
                      int32_t *spare, int32_t *counts, int32_t *sorted);

cudaError_t rank(TeamShape shape, treescan::cuda::Link *links, treescan::cuda::Link *spare, int64_t count, uint32_t *ranks);

// Vote k is for votes[k * threads + i] of every thread i. results: what each was told.
cudaError_t vote(TeamShape shape, const int32_t *votes, int64_t count, int32_t *results);

}  // namespace cuda_test
