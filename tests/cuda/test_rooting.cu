#include "test_rooting.h"

namespace cuda_test {

using namespace treescan::cuda;

namespace {

template <class Team>
__device__ void root_item(Team &team, const Forests &forests, int64_t item, char *scratch, const TreeRows &rows) {
  Adjacency adjacency = forests.adjacency;
  adjacency.offsets += item * (forests.vertices + 1);
  adjacency.neighbour += item * 2 * forests.vertices;
  adjacency.edge += item * 2 * forests.vertices;
  root_forest(team, forests.vertices, adjacency, forests.root_of + item * forests.vertices, RootingScratch{scratch},
              item, rows);
}

__global__ void __launch_bounds__(256) root_by_blocks_kernel(Forests forests, TreeRows rows) {
  BlockTeam team;
  char *const scratch = forests.scratch + blockIdx.x * RootingScratch::bytes(forests.vertices);
  for (int64_t item = blockIdx.x; item < forests.items; item += gridDim.x) root_item(team, forests, item, scratch, rows);
}

__global__ void __launch_bounds__(256) root_by_grid_kernel(Forests forests, TreeRows rows, GridMemory *memory) {
  GridTeam team(memory);
  for (int64_t item = 0; item < forests.items; ++item) root_item(team, forests, item, forests.scratch, rows);
}

}  // namespace

cudaError_t root_by_blocks(const Forests &forests, const treescan_tree_output &output, unsigned blocks,
                           unsigned threads) {
  return LAUNCH((root_by_blocks_kernel), blocks, threads, 0, nullptr, forests, TreeRows(output));
}

cudaError_t root_by_grid(const Forests &forests, const treescan_tree_output &output, unsigned blocks, unsigned threads) {
  void *memory = nullptr;
  cudaError_t error = cudaMallocAsync(&memory, sizeof(GridMemory), nullptr);
  if (error == cudaSuccess) error = cudaMemsetAsync(memory, 0, sizeof(GridMemory), nullptr);
  if (error == cudaSuccess)
    error = LAUNCH_COOPERATIVE((root_by_grid_kernel), blocks, threads, 0, nullptr, forests, TreeRows(output),
                               static_cast<GridMemory *>(memory));
  cudaFreeAsync(memory, nullptr);
  return error;
}

}  // namespace cuda_test
