// All that kernels use of CUDA, for nvcc and for the host emulation in tests/cuda_emulation alike. Kernels include this
// header instead of CUDA's own, and it holds every question for the compiler.
//
// From CUDA by its own names: __global__, __device__, __forceinline__, __launch_bounds__; threadIdx, blockIdx,
// blockDim, gridDim, warpSize; __syncthreads and its _or, _and, _count; __syncwarp, __shfl_sync and its _up, _down,
// _xor, __any_sync, __all_sync, __ballot_sync; __threadfence and its _system, __trap; atomicAdd, Min, Max, Exch, CAS, Or, And on 32-
// and 64-bit integers; __popc, __clz, __ffs and their ll forms; __float_as_uint and its like; min, max; float2 to
// uint4; and the runtime calls for streams, memory, errors and attributes. Whatever else a kernel needs of CUDA is
// added to the emulation first. Block-wide scans and sorts are kernel code, not CUB's.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// Arrays in shared memory: SHARED(float, rows, 32 * 33); then rows[i]. The dynamic one, whose size the launch gives, is
// aligned to 16 bytes.
#define SHARED(T, name, count) __shared__ T name[count]
#define SHARED_DYNAMIC(T, name)                                          \
  extern __shared__ __align__(16) unsigned char treescan_shared_bytes[]; \
  T *const name = reinterpret_cast<T *>(treescan_shared_bytes)

// Before the name of a device function that isn't to be made part of its callers.
#define OUT_OF_LINE __noinline__

namespace treescan::cuda {

// Waits for all threads of all blocks; in cooperative launches only.
__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

// The same pointer, for a compiler that can't see that it leads to global memory and would ask at every access.
template <class T>
__device__ __forceinline__ T *in_global_memory(T *address) {
  return static_cast<T *>(__cvta_global_to_generic(__cvta_generic_to_global(address)));
}

// A flag's value, without an order of its own: that takes a __threadfence() on both sides.
template <class T>
__device__ __forceinline__ T atomic_load(const T *address) {
  return *static_cast<const volatile T *>(address);
}

template <class T>
__device__ __forceinline__ void atomic_store(T *address, T value) {
  *static_cast<volatile T *>(address) = value;
}

// float16 and bfloat16 as bits, rounded to nearest even. A NaN's bits may differ from the CPU's.
__device__ __forceinline__ float half_bits_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ __forceinline__ uint16_t float_to_half_bits(float value) { return __half_as_ushort(__float2half_rn(value)); }
__device__ __forceinline__ float bfloat16_bits_to_float(uint16_t bits) {
  return __bfloat162float(__ushort_as_bfloat16(bits));
}
__device__ __forceinline__ uint16_t float_to_bfloat16_bits(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

template <class... Parameters, class... Arguments>
[[nodiscard]] cudaError_t launch(bool cooperative, const char *, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                 size_t shared_bytes, cudaStream_t stream, const Arguments &...arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace treescan::cuda

#else

#include "emulation.h"

#define OUT_OF_LINE

#endif

// LAUNCH((kernel<T, 4>), grid, block, shared_bytes, stream, arguments...) is a cudaError_t: that of the launch itself,
// as in CUDA. A cooperative launch has all its blocks on the device at once, or fails.
#define LAUNCH(kernel, ...) ::treescan::cuda::launch(false, #kernel, kernel, __VA_ARGS__)
#define LAUNCH_COOPERATIVE(kernel, ...) ::treescan::cuda::launch(true, #kernel, kernel, __VA_ARGS__)
