// The types of vectors that the activations are computed on: a register each where the compiler has them, else single
// numbers.
#pragma once

#include <cstdint>

#include "activations.h"
#include "cpu/vectors.h"

namespace treescan {
namespace {

template <class T>
struct MathTypes;
#if defined(__GNUC__)
template <>
struct MathTypes<float> {
  typedef float Vector __attribute__((vector_size(register_bytes)));
  typedef uint32_t Bits __attribute__((vector_size(register_bytes)));
};
template <>
struct MathTypes<double> {
  typedef double Vector __attribute__((vector_size(register_bytes)));
  typedef uint64_t Bits __attribute__((vector_size(register_bytes)));
};
#else
template <>
struct MathTypes<float> {
  using Vector = float;
  using Bits = uint32_t;
};
template <>
struct MathTypes<double> {
  using Vector = double;
  using Bits = uint64_t;
};
#endif

template <class T>
struct Math : Activations<T, typename MathTypes<T>::Vector, typename MathTypes<T>::Bits> {
  using Vector = typename MathTypes<T>::Vector;
};

}  // namespace
}  // namespace treescan
