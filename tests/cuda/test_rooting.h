// Kernels that root forests, each item's by a block's team or by the grid's.
#pragma once

#include "rooting.h"

namespace cuda_test {

// By item: adjacency and root_of stand one after the other, with room for V+1 offsets and 2V half-edges each.
struct Forests {
  int64_t items, vertices;
  treescan::cuda::Adjacency adjacency;
  const int32_t *root_of;
  char *scratch;  // RootingScratch::bytes(vertices), for each block that works alone
};

cudaError_t root_by_blocks(const Forests &forests, const treescan_tree_output &output, unsigned blocks,
                           unsigned threads);
cudaError_t root_by_grid(const Forests &forests, const treescan_tree_output &output, unsigned blocks, unsigned threads);

}  // namespace cuda_test
