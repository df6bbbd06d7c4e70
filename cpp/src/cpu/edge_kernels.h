// Sums over the channels of two vertices. edge_kernels.cpp is compiled once for each instruction set.
#pragma once

#include <cstdint>

namespace treescan {

constexpr int64_t most_planes = 4;

// The vertices at a + i * stride and b + i * stride, for i in [0, count). Their channels lie together; where the vertices do
// and there are at most `most_planes` channels, each may have a plane instead.
template <class T>
struct Pairs {
  const T *a, *b;
  int64_t stride, channel_stride, channels, count;
};

// Every sum is made of 16 partial sums: number l takes the channels c = l mod 16 in ascending order, and they are folded
// by halves. That order is part of the result, which is the same to the bit in all builds.
template <class T>
struct EdgeKernels {
  void (*products)(const Pairs<T> &, T *sums);
  void (*squared_differences)(const Pairs<T> &, T *sums);
  void (*absolute_differences)(const Pairs<T> &, T *sums);
};

struct EdgeKernelTable {
  EdgeKernels<float> single;
  EdgeKernels<double> twice;
};

// The build for the instruction set in use.
const EdgeKernelTable &edge_kernel_table();

}  // namespace treescan
