// What cuda/device.h includes where nvcc doesn't compile: CUDA's names, with the emulator (emulator.h) behind them.
// Only names that the emulator gives a meaning are here: a kernel that uses another, such as `__shared__`, doesn't
// compile.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "half.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define TREESCAN_VECTORS(T, name)                            \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };         \
  struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };   \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
TREESCAN_VECTORS(float, float)
TREESCAN_VECTORS(int, int)
TREESCAN_VECTORS(unsigned, uint)
TREESCAN_VECTORS(unsigned short, ushort)
#undef TREESCAN_VECTORS

// ---- Inside kernels ----

namespace treescan::emulation {

// A thread asks for its place through functions that aren't compiled with the kernels, so that asking is no access.
uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
dim3 block_size() __attribute__((const));
dim3 grid_size() __attribute__((const));

void *shared_array(const char *key, size_t bytes, size_t alignment);
void *shared_dynamic();

enum class Vote { none, any, all, count };
int block_barrier(Vote vote, bool predicate, const char *file, int line);
void warp_barrier(unsigned mask, const char *file, int line);
unsigned warp_ballot(unsigned mask, bool predicate, const char *file, int line);
enum class Shuffle { index, up, down, exclusive_or };
uint64_t warp_shuffle(Shuffle how, unsigned mask, uint64_t bits, int argument, int width, const char *file, int line);
void grid_barrier(const char *file, int line);
void fence();
[[noreturn]] void trap();

enum class Atomic { add, min, max, exchange, compare, bit_or, bit_and, load, store };
template <class T>
T atomic(Atomic what, T *address, T operand, T compare);  // for the four integer types of CUDA's atomics

template <class T>
T shuffle(Shuffle how, unsigned mask, T value, int argument, int width, const char *file, int line) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 32- and 64-bit numbers");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_shuffle(how, mask, bits, argument, width, file, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace treescan::emulation

#define threadIdx ::treescan::emulation::thread_index()
#define blockIdx ::treescan::emulation::block_index()
#define blockDim ::treescan::emulation::block_size()
#define gridDim ::treescan::emulation::grid_size()
constexpr int warpSize = 32;

// The key's address tells arrays apart, also those of different instances of a template.
#define SHARED(T, name, count)                 \
  static const char name##_key = 0;            \
  T(&name)[count] = *static_cast<T(*)[count]>( \
      ::treescan::emulation::shared_array(&name##_key, sizeof(T) * (count), alignof(T)))
#define SHARED_DYNAMIC(T, name) T *const name = static_cast<T *>(::treescan::emulation::shared_dynamic())

// Where a call stands in the source.
#define TREESCAN_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(TREESCAN_HERE) {
  treescan::emulation::block_barrier(treescan::emulation::Vote::none, false, file, line);
}
inline int __syncthreads_or(int predicate, TREESCAN_HERE) {
  return treescan::emulation::block_barrier(treescan::emulation::Vote::any, predicate != 0, file, line);
}
inline int __syncthreads_and(int predicate, TREESCAN_HERE) {
  return treescan::emulation::block_barrier(treescan::emulation::Vote::all, predicate != 0, file, line);
}
inline int __syncthreads_count(int predicate, TREESCAN_HERE) {
  return treescan::emulation::block_barrier(treescan::emulation::Vote::count, predicate != 0, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, TREESCAN_HERE) {
  treescan::emulation::warp_barrier(mask, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, TREESCAN_HERE) {
  return treescan::emulation::warp_ballot(mask, predicate != 0, file, line);
}
inline int __any_sync(unsigned mask, int predicate, TREESCAN_HERE) {
  return treescan::emulation::warp_ballot(mask, predicate != 0, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, TREESCAN_HERE) {
  return treescan::emulation::warp_ballot(mask, predicate == 0, file, line) == 0;
}
#define TREESCAN_SHUFFLE(name, how, argument)                                                                         \
  template <class T>                                                                                                  \
  T name(unsigned mask, T value, int argument, int width = 32, TREESCAN_HERE) {                                       \
    return treescan::emulation::shuffle(treescan::emulation::Shuffle::how, mask, value, argument, width, file, line); \
  }
TREESCAN_SHUFFLE(__shfl_sync, index, lane)
TREESCAN_SHUFFLE(__shfl_up_sync, up, distance)
TREESCAN_SHUFFLE(__shfl_down_sync, down, distance)
TREESCAN_SHUFFLE(__shfl_xor_sync, exclusive_or, lanes)
#undef TREESCAN_SHUFFLE

inline void __threadfence() { treescan::emulation::fence(); }
inline void __threadfence_system() { treescan::emulation::fence(); }
[[noreturn]] inline void __trap() { treescan::emulation::trap(); }

// CUDA has its atomics for these types; a float's has no place here, since its result depends on the order.
template <class T>
constexpr bool has_atomics =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
constexpr bool has_ordered_atomics = has_atomics<T> || std::is_same_v<T, long long>;

// What is called `plain` does the same without being atomic: mutation puts it in the atomic's place.
#define TREESCAN_ATOMIC(name, what, types, changed)                                              \
  template <class T>                                                                             \
  T name(T *address, std::common_type_t<T> value) {                                              \
    static_assert(types<T>, "CUDA has no " #name " for this type");                              \
    return treescan::emulation::atomic<T>(treescan::emulation::Atomic::what, address, value, 0); \
  }                                                                                              \
  namespace plain {                                                                              \
  template <class T>                                                                             \
  T name(T *address, std::common_type_t<T> value) {                                              \
    const T old = *address;                                                                      \
    *address = static_cast<T>(changed);                                                          \
    return old;                                                                                  \
  }                                                                                              \
  }
TREESCAN_ATOMIC(atomicAdd, add, has_atomics, old + value)
TREESCAN_ATOMIC(atomicMin, min, has_ordered_atomics, value < old ? value : old)
TREESCAN_ATOMIC(atomicMax, max, has_ordered_atomics, value > old ? value : old)
TREESCAN_ATOMIC(atomicExch, exchange, has_atomics, value)
TREESCAN_ATOMIC(atomicOr, bit_or, has_atomics, old | value)
TREESCAN_ATOMIC(atomicAnd, bit_and, has_atomics, old & value)
#undef TREESCAN_ATOMIC
template <class T>
T atomicCAS(T *address, std::common_type_t<T> compare, std::common_type_t<T> value) {
  static_assert(has_atomics<T>, "CUDA has no atomicCAS for this type");
  return treescan::emulation::atomic<T>(treescan::emulation::Atomic::compare, address, value, compare);
}
namespace plain {
template <class T>
T atomicCAS(T *address, std::common_type_t<T> compare, std::common_type_t<T> value) {
  const T old = *address;
  if (old == compare) *address = value;
  return old;
}
template <class T>
T atomic_load(const T *address) {
  return *address;
}
template <class T>
void atomic_store(T *address, T value) {
  *address = value;
}
}  // namespace plain

// min and max take two values of one type; CUDA's mixed forms hide conversions.
#define TREESCAN_MIN_MAX(T)                        \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
TREESCAN_MIN_MAX(int)
TREESCAN_MIN_MAX(unsigned)
TREESCAN_MIN_MAX(long)
TREESCAN_MIN_MAX(unsigned long)
TREESCAN_MIN_MAX(long long)
TREESCAN_MIN_MAX(unsigned long long)
#undef TREESCAN_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __float_as_uint(float x) { return treescan::cast_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return treescan::cast_bits<float>(x); }
inline int __float_as_int(float x) { return treescan::cast_bits<int>(x); }
inline float __int_as_float(int x) { return treescan::cast_bits<float>(x); }
inline long long __double_as_longlong(double x) { return treescan::cast_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return treescan::cast_bits<double>(x); }

// ---- The runtime, for host code ----

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorIllegalAddress = 700,
  cudaErrorMisalignedAddress = 716,
  cudaErrorLaunchFailure = 719,
  cudaErrorCooperativeLaunchTooLarge = 720,
  cudaErrorStreamCaptureUnsupported = 900,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2, cudaMemoryTypeManaged = 3 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal = 0, cudaStreamCaptureModeRelaxed = 2 };
constexpr unsigned cudaHostAllocMapped = 2;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrCooperativeLaunch = 95,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
  void *devicePointer, *hostPointer;
};
using cudaStream_t = struct CUstream_st *;
using cudaGraph_t = struct CUgraph_st *;

cudaError_t cudaMalloc(void **address, size_t bytes);
cudaError_t cudaFree(void *address);
cudaError_t cudaMallocAsync(void **address, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void *address, cudaStream_t stream);
cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *address);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);

namespace treescan::emulation {

// Any kernel's address, for the tables of the emulator.
using Kernel = void (*)();
cudaError_t launch(bool cooperative, const char *name, Kernel kernel, dim3 grid, dim3 block, size_t shared_bytes,
                   void (*body)(const void *arguments), const void *arguments, size_t argument_bytes);
cudaError_t set_dynamic_shared_limit(Kernel kernel, int bytes);
cudaError_t resident_blocks(int *count, int block_threads, size_t shared_bytes);

}  // namespace treescan::emulation

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int value) {
  return treescan::emulation::set_dynamic_shared_limit(reinterpret_cast<treescan::emulation::Kernel>(kernel), value);
}
template <class... Parameters>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, void (*)(Parameters...), int block_threads,
                                                          size_t shared_bytes) {
  return treescan::emulation::resident_blocks(count, block_threads, shared_bytes);
}

namespace treescan::cuda {

inline void grid_sync(TREESCAN_HERE) { emulation::grid_barrier(file, line); }

template <class T>
T *in_global_memory(T *address) {
  return address;
}

template <class T>
T atomic_load(const T *address) {
  return emulation::atomic<T>(emulation::Atomic::load, const_cast<T *>(address), T{}, T{});
}

template <class T>
void atomic_store(T *address, T value) {
  emulation::atomic<T>(emulation::Atomic::store, address, value, T{});
}

inline float half_bits_to_float(uint16_t bits) { return half_to_float<float, uint32_t>(bits); }
inline uint16_t float_to_half_bits(float value) { return static_cast<uint16_t>(float_to_half<uint32_t>(value)); }
inline float bfloat16_bits_to_float(uint16_t bits) { return bfloat16_to_float<float, uint32_t>(bits); }
inline uint16_t float_to_bfloat16_bits(float value) {
  return static_cast<uint16_t>(float_to_bfloat16<uint32_t>(value));
}

template <class Parameter, class Argument>
constexpr bool keeps_its_value = std::is_convertible_v<const Argument &, Parameter> &&
                                 !(std::is_integral_v<Parameter> && std::is_floating_point_v<Argument>) &&
                                 !(std::is_arithmetic_v<Parameter> && sizeof(Parameter) < sizeof(Argument));

// Every thread calls the kernel with its own copy of the arguments, as on the device.
template <class... Parameters, class... Arguments>
[[nodiscard]] cudaError_t launch(bool cooperative, const char *name, void (*kernel)(Parameters...), dim3 grid,
                                 dim3 block, size_t shared_bytes, cudaStream_t, const Arguments &...arguments) {
  static_assert((keeps_its_value<Parameters, Arguments> && ...), "an argument doesn't fit the kernel's parameter");
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  } call{kernel, std::tuple<Parameters...>(static_cast<Parameters>(arguments)...)};
  return emulation::launch(
      cooperative, name, reinterpret_cast<emulation::Kernel>(kernel), grid, block, shared_bytes,
      [](const void *pointer) {
        const Call &made = *static_cast<const Call *>(pointer);
        std::apply(made.kernel, made.arguments);
      },
      &call, sizeof call);
}

}  // namespace treescan::cuda

#undef TREESCAN_HERE
