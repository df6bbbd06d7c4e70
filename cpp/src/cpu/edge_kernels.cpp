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

// The same sum where channels are few: those that aren't there would add nothing. Compilers see how to take several pairs of
// rows at once, for which the result has to be somewhere else.
template <int Channels, class T, class Term>
void few_channels(const T *a, const T *b, int64_t count, T *__restrict sums, Term term) {
  for (int64_t i = 0; i < count; ++i) {
    T partial[Channels];
    for (int l = 0; l < Channels; ++l) partial[l] = T{} + term(a[i * Channels + l], b[i * Channels + l]);
    for (int half = 2; half > 0; half /= 2)
      for (int l = 0; l < half && l + half < Channels; ++l) partial[l] += partial[l + half];
    sums[i] = partial[0];
  }
}

template <class T, class Term>
inline void all_sums(const T *a, const T *b, int64_t stride, int64_t count, int64_t channels, T *sums, Term term) {
  if (stride == channels && channels == 1) return few_channels<1>(a, b, count, sums, term);
  if (stride == channels && channels == 2) return few_channels<2>(a, b, count, sums, term);
  if (stride == channels && channels == 3) return few_channels<3>(a, b, count, sums, term);
  if (stride == channels && channels == 4) return few_channels<4>(a, b, count, sums, term);
  for (int64_t i = 0; i < count; ++i) sums[i] = sum(a + i * stride, b + i * stride, channels, term);
}

template <class T>
void products(const T *a, const T *b, int64_t stride, int64_t count, int64_t channels, T *sums) {
  all_sums(a, b, stride, count, channels, sums, [](T x, T y) { return x * y; });
}

template <class T>
void squared_differences(const T *a, const T *b, int64_t stride, int64_t count, int64_t channels, T *sums) {
  all_sums(a, b, stride, count, channels, sums, [](T x, T y) { return (x - y) * (x - y); });
}

template <class T>
void absolute_differences(const T *a, const T *b, int64_t stride, int64_t count, int64_t channels, T *sums) {
  all_sums(a, b, stride, count, channels, sums, [](T x, T y) { return x < y ? y - x : x - y; });
}

constexpr EdgeKernelTable kernels = {
    {products<float>, squared_differences<float>, absolute_differences<float>},
    {products<double>, squared_differences<double>, absolute_differences<double>},
};

}  // namespace

const EdgeKernelTable &edge_table() { return kernels; }

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
