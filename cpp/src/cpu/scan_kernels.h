// The inner loops of the scans. scan_kernels.cpp is compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "cpu/plan.h"

namespace treescan {

// Some channels of all vertices: the row of vertex v starts at data + v * stride, in bytes.
struct Tile {
  char *data;
  int64_t stride;
};

// The sums of the way up wait for the way down in the place of the result; those of a half type, which are float, in a tile
// of their own, by positions.
struct ForwardTiles {
  Tile x, weights;
  Tile y;  // may be x's own memory
  Tile sums;
  char *ring;
};

struct BackwardTiles {
  Tile x, weights, grad_y;
  Tile grad_x;        // may be grad_y's own memory; the sums of grad_y wait here
  Tile grad_weights;  // may be x's own memory; the sums of x wait here
  Tile sums, grad_sums;
  char *ring, *grad_ring;
};

// Rows of few bytes have kernels of their own, rows of any multiple of 64 bytes share the last.
constexpr int num_widths = 4;
constexpr int64_t widest_unit = 64;
constexpr int64_t widest_row = 5120;
constexpr int width_index(int64_t row_bytes) {
  return row_bytes == 16 ? 0 : row_bytes == 32 ? 1 : row_bytes == widest_unit ? 2 : 3;
}

using ForwardKernel = void (*)(Plan, ForwardTiles);
using BackwardKernel = void (*)(Plan, BackwardTiles);

// The kernels for tiles of one dtype, by direction - 1 and width_index. Half types are computed in float.
struct ScanKernels {
  ForwardKernel forward[3][num_widths];
  BackwardKernel backward[3][num_widths];
};

// The build for the instruction set in use.
const ScanKernels &scan_kernels(int32_t dtype);

}  // namespace treescan
