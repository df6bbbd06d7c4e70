#include "cpu/edge_kernels.h"

#include "formula.h"

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

// The same sum where channels are few: those that aren't there would add nothing. Compilers see how to take several pairs
// at once if they know the strides, and that the sums are somewhere else.
template <int Channels, class T, class Term>
TREESCAN_FORMULA void few_channels(const Pairs<T> &pairs, int64_t stride, int64_t channel_stride, T *__restrict sums,
                                   Term term) {
  for (int64_t i = 0; i < pairs.count; ++i) {
    const auto partial = [&](int64_t l) {
      const int64_t at = i * stride + l * channel_stride;
      return T{} + term(pairs.a[at], pairs.b[at]);
    };
    T even = partial(0);
    if constexpr (Channels > 2) even += partial(2);
    if constexpr (Channels > 1) {
      T odd = partial(1);
      if constexpr (Channels > 3) odd += partial(3);
      even += odd;
    }
    sums[i] = even;
  }
}

template <class T, class Term>
inline void sums_of_rows(const Pairs<T> &pairs, T *sums, Term term) {
  for (int64_t i = 0; i < pairs.count; ++i)
    sums[i] = sum(pairs.a + i * pairs.stride, pairs.b + i * pairs.stride, pairs.channels, term);
}

template <int Channels, class T, class Term>
inline void sums_of_few(const Pairs<T> &pairs, T *sums, Term term) {
  if (pairs.stride == 1) return few_channels<Channels>(pairs, 1, pairs.channel_stride, sums, term);
  if (pairs.stride == Channels) return few_channels<Channels>(pairs, Channels, 1, sums, term);
  sums_of_rows(pairs, sums, term);
}

template <class T, class Term>
inline void all_sums(const Pairs<T> &pairs, T *sums, Term term) {
  switch (pairs.channels) {
    case 1: return sums_of_few<1>(pairs, sums, term);
    case 2: return sums_of_few<2>(pairs, sums, term);
    case 3: return sums_of_few<3>(pairs, sums, term);
    case most_planes: return sums_of_few<most_planes>(pairs, sums, term);
    default: return sums_of_rows(pairs, sums, term);
  }
}

template <class T>
void products(const Pairs<T> &pairs, T *sums) {
  all_sums(pairs, sums, [](T x, T y) { return x * y; });
}

template <class T>
void squared_differences(const Pairs<T> &pairs, T *sums) {
  all_sums(pairs, sums, [](T x, T y) { return (x - y) * (x - y); });
}

// The loop stays free of branches, which a choice between x - y and y - x would bring: either may trap.
template <class T>
TREESCAN_FORMULA T absolute(T x) {
  return x < 0 ? -x : x;
}

template <class T>
void absolute_differences(const Pairs<T> &pairs, T *sums) {
  all_sums(pairs, sums, [](T x, T y) { return absolute(x - y); });
}

constexpr EdgeKernelTable kernels = {
    {products<float>, squared_differences<float>, absolute_differences<float>},
    {products<double>, squared_differences<double>, absolute_differences<double>},
};

}  // namespace

const EdgeKernelTable &edge_table() { return kernels; }

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
