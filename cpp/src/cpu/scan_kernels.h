// The inner loops of the scans. scan_kernels.cpp is compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "cpu/layout.h"

namespace treescan {

// One tree by positions in its canonical order: position 0 is the root, parents come before their children.
struct Plan {
  int64_t num_vertices;
  const int32_t *order;   // the vertex at a position
  const int32_t *parent;  // the position of its parent
};

// Some channels of all vertices: row v starts at data + v * stride and is as long as the kernel has lanes.
template <class T>
struct Tile {
  T *data;
  int64_t stride;
};

template <class T>
struct ForwardTiles {
  Tile<const T> x, weights;
  Tile<T> y;       // may be x's own memory
  T *accumulator;  // V rows without gaps
};

template <class T>
struct BackwardTiles {
  Tile<const T> x, weights, grad_y;
  Tile<T> grad_x;        // may be grad_y's own memory
  Tile<T> grad_weights;  // may be x's own memory
  T *accumulator, *grad_accumulator;
};

// Tiles come in three widths: one narrow for a few channels, one cache line, two cache lines.
constexpr int num_widths = 3;
constexpr int width_bytes[num_widths] = {16, 64, 128};

template <class T>
struct ScanKernels {
  using Forward = void (*)(const Plan &, const ForwardTiles<T> &);
  using Backward = void (*)(const Plan &, const BackwardTiles<T> &);
  // By direction - 1 and by width.
  Forward forward[3][num_widths];
  Backward backward[3][num_widths];
};

// Copies between the caller's memory and a tile of `lanes` lanes, of which `channels` are in use; load fills the rest
// with zeros. The dtype is the caller's; half types are float in a tile.
struct CopyKernels {
  void (*load)(int32_t dtype, const void *source, const Layout &, int64_t num_vertices, int64_t channels, int64_t lanes,
               void *tile);
  void (*store)(int32_t dtype, const void *tile, int64_t lanes, int64_t num_vertices, int64_t channels, const Layout &,
                void *target);
};

struct KernelTable {
  ScanKernels<float> single;
  ScanKernels<double> twice;
  CopyKernels copy;
};

// The build for the instruction set in use.
const KernelTable &kernel_table();

}  // namespace treescan
