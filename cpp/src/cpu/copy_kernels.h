// Copies between the caller's memory and tiles. copy_kernels.cpp is compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "cpu/layout.h"

namespace treescan {

// A tile's rows have `lanes` lanes, of which the first `channels` are the caller's; load fills the others with zeros. They
// start `pitch` numbers apart. The dtype is the caller's; half types are float in a tile.
struct CopyKernels {
  void (*load)(int32_t dtype, const void *source, const Layout &, int64_t num_vertices, int64_t channels, int64_t lanes,
               int64_t pitch, void *tile);
  void (*store)(int32_t dtype, const void *tile, int64_t pitch, int64_t num_vertices, int64_t channels, const Layout &,
                void *target);
};

// The build for the instruction set in use.
const CopyKernels &copy_kernels();

}  // namespace treescan
