// How functions are declared that the CPU's compiler and nvcc compile alike.
//
// Each multiplication and addition rounds on its own (the library is built without contraction), so their results agree
// to the bit wherever they are compiled. They have internal linkage: kernels built for several instruction sets, and
// kernels that run on the emulated device, must not share their code.
#pragma once

#if defined(__CUDACC__)
#define TREESCAN_FORMULA static __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define TREESCAN_FORMULA static inline __attribute__((always_inline))
#else
#define TREESCAN_FORMULA static inline
#endif

// The same for member functions, whose linkage is that of their class.
#if defined(__CUDACC__)
#define TREESCAN_MEMBER __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define TREESCAN_MEMBER inline __attribute__((always_inline))
#else
#define TREESCAN_MEMBER inline
#endif

// Before a loop of few, constant steps. (nvcc compiles everything for the host, too, whose compiler knows no such
// pragma, and itself not the host's.)
#if defined(__CUDA_ARCH__)
#define TREESCAN_UNROLL _Pragma("unroll")
#elif defined(__GNUC__) && !defined(__CUDACC__)
#define TREESCAN_UNROLL _Pragma("GCC unroll 32")
#else
#define TREESCAN_UNROLL
#endif
