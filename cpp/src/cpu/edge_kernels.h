// Sums over the channels of two vertices. edge_kernels.cpp is compiled once for each instruction set.
#pragma once

#include <cstdint>

namespace treescan {

// Every sum is made of 16 partial sums: number l takes the channels c = l mod 16 in ascending order, and they are folded
// by halves. That order is part of the result, which is the same to the bit in all builds.
//
// sums[i] is that of the rows a + i * stride and b + i * stride, for i in [0, count).
template <class T>
struct EdgeKernels {
  using Kernel = void (*)(const T *a, const T *b, int64_t stride, int64_t count, int64_t channels, T *sums);
  Kernel products, squared_differences, absolute_differences;
};

struct EdgeKernelTable {
  EdgeKernels<float> single;
  EdgeKernels<double> twice;
};

// The build for the instruction set in use.
const EdgeKernelTable &edge_kernel_table();

}  // namespace treescan
