// The inner loops of the selective scan. selective_kernels.cpp is compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "cpu/plan.h"
#include "selective_tiling.h"

namespace treescan {

// As many states may be swept along the tree at a time.
constexpr int64_t selective_most_block = 16;

// B or C of one tile, and the sum of its gradients.
struct SelectiveFactor {
  bool by_vertex;       // N numbers for each vertex, shared by all channels; else a row for each state
  const char *values;
  char *grad;           // alike
};

// Some channels of one item: what the caller gave, what waits between the sweeps, and what comes out.
struct SelectiveTile {
  int64_t num_states;
  int64_t block;        // states that are swept along the tree at a time
  bool delta_softplus;
  int64_t last_vertex;  // whose states are returned
  SelectiveFactor B, C;
  const char *A;                           // a row for each state
  const char *D, *delta_bias;              // a row each, or NULL
  char *u, *delta, *y;                     // a row for each vertex; delta becomes the step
  char *z;                                 // alike, or NULL; becomes its gradient on the way back
  char *last_state;                        // a row for each state
  char *rings[2];                          // `block` rows for each slot
  char *sums[2];                           // `block` rows for each position
  // On the way back alone.
  char *slope;                             // the derivative of the step by delta, a row for each vertex
  char *grad_y, *grad_u, *grad_delta;      // alike; grad_y becomes the gradient before the gate
  const char *grad_last_state;             // a row for each state, or NULL
  char *grad_A, *grad_D, *grad_delta_bias; // rows as of A, D and delta_bias, that sums are added to
};

using SelectiveKernel = void (*)(const Plan &, const SelectiveTile &);

// By direction - 1.
struct SelectiveKernels {
  SelectiveKernel forward[3], backward[3];
};

// The build for the instruction set in use; float64 or float32.
const SelectiveKernels &selective_kernels(int32_t computed_dtype);

}  // namespace treescan
