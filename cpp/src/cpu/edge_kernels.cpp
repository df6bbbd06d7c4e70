#include "cpu/edge_kernels.h"

// As in scan_kernels.cpp: internal linkage throughout, and nothing inline from the standard library.

namespace treescan {
namespace TREESCAN_KERNELS {
const EdgeKernelTable &edge_table();

namespace {

constexpr int partials = 16;

template <class T, class Term>
inline T sum(const T *a, const T *b, int64_t channels, Term term) {
  T partial[partials] = {};
  int64_t c = 0;
  for (; c + partials <= channels; c += partials)
    for (int l = 0; l < partials; ++l) partial[l] += term(a[c + l], b[c + l]);
  for (int l = 0; c + l < channels; ++l) partial[l] += term(a[c + l], b[c + l]);
  for (int half = partials / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) partial[l] += partial[l + half];
  return partial[0];
}

template <class T>
T product(const T *a, const T *b, int64_t channels) {
  return sum(a, b, channels, [](T x, T y) { return x * y; });
}

template <class T>
T squared_difference(const T *a, const T *b, int64_t channels) {
  return sum(a, b, channels, [](T x, T y) { return (x - y) * (x - y); });
}

template <class T>
T absolute_difference(const T *a, const T *b, int64_t channels) {
  return sum(a, b, channels, [](T x, T y) { return x < y ? y - x : x - y; });
}

constexpr EdgeKernelTable kernels = {{product<float>, squared_difference<float>, absolute_difference<float>},
                                     {product<double>, squared_difference<double>, absolute_difference<double>}};

}  // namespace

const EdgeKernelTable &edge_table() { return kernels; }

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
