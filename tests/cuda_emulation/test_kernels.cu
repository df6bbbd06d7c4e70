#include "test_kernels.h"

namespace test_kernels {

template <bool correct>
__global__ void block_sum_kernel(const int *x, int *sums) {
  SHARED(int, part, threads);
  const unsigned i = threadIdx.x;
  part[i] = x[blockIdx.x * threads + i];
  __syncthreads();
  for (unsigned half = threads / 2; half > 0; half /= 2) {
    if (i < half) part[i] += part[i + half];
    if (correct) __syncthreads();
  }
  if (i == 0) sums[blockIdx.x] = part[0];
}

cudaError_t block_sum(bool correct, const int *x, int *sums, unsigned blocks) {
  return correct ? LAUNCH(block_sum_kernel<true>, blocks, threads, 0, nullptr, x, sums)
                 : LAUNCH(block_sum_kernel<false>, blocks, threads, 0, nullptr, x, sums);
}

template <bool correct>
__global__ void smallest_kernel(const int *x, int *result) {
  const int value = x[blockIdx.x * blockDim.x + threadIdx.x];
  if (correct) {
    atomicMin(result, value);
  } else {
    *result = min(*result, value);
  }
}

cudaError_t smallest(bool correct, const int *x, int *result, unsigned blocks) {
  return correct ? LAUNCH(smallest_kernel<true>, blocks, threads, 0, nullptr, x, result)
                 : LAUNCH(smallest_kernel<false>, blocks, threads, 0, nullptr, x, result);
}

template <bool correct>
__global__ void histogram_kernel(const int *x, int *counts) {
  SHARED(int, count, 8);
  if (threadIdx.x < 8) count[threadIdx.x] = 0;
  if (correct) __syncthreads();
  atomicAdd(&count[x[threadIdx.x]], 1);
  __syncthreads();
  if (threadIdx.x < 8) counts[threadIdx.x] = count[threadIdx.x];
}

cudaError_t histogram(bool correct, const int *x, int *counts) {
  return correct ? LAUNCH(histogram_kernel<true>, 1, threads, 0, nullptr, x, counts)
                 : LAUNCH(histogram_kernel<false>, 1, threads, 0, nullptr, x, counts);
}

// Pointer jumping: as many rounds as the depth takes, each reading everything before it writes anything.
template <bool correct>
__global__ void level_pass_kernel(const int *parent, const int *x, int *y) {
  SHARED(int, sum, threads);
  SHARED(int, above, threads);
  const unsigned i = threadIdx.x;
  sum[i] = x[i];
  above[i] = parent[i];
  while (__syncthreads_or(above[i] >= 0)) {
    const int p = above[i];
    const int more = p >= 0 ? sum[p] : 0, next = p >= 0 ? above[p] : -1;
    if (correct) __syncthreads();
    sum[i] += more;
    above[i] = next;
  }
  y[i] = sum[i];
}

cudaError_t level_pass(bool correct, const int *parent, const int *x, int *y) {
  return correct ? LAUNCH(level_pass_kernel<true>, 1, threads, 0, nullptr, parent, x, y)
                 : LAUNCH(level_pass_kernel<false>, 1, threads, 0, nullptr, parent, x, y);
}

template <bool correct>
__global__ void grid_phases_kernel(const int *x, int *scratch, int *y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, count = gridDim.x * blockDim.x;
  scratch[i] = 2 * x[i];
  if (correct) {
    treescan::cuda::grid_sync();
  } else {
    __syncthreads();
  }
  y[i] = scratch[i] + scratch[(i + blockDim.x) % count];
}

cudaError_t grid_phases(bool correct, const int *x, int *scratch, int *y, unsigned blocks) {
  return correct ? LAUNCH_COOPERATIVE(grid_phases_kernel<true>, blocks, threads, 0, nullptr, x, scratch, y)
                 : LAUNCH_COOPERATIVE(grid_phases_kernel<false>, blocks, threads, 0, nullptr, x, scratch, y);
}

template <bool release, bool acquire>
__global__ void last_block_sum_kernel(const int *x, int *partial, unsigned *done, int *sum) {
  SHARED(int, part, threads);
  SHARED(unsigned, before, 1);
  part[threadIdx.x] = x[blockIdx.x * threads + threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) {
    int mine = 0;
    for (int i = 0; i < threads; ++i) mine += part[i];
    partial[blockIdx.x] = mine;
    if (release) __threadfence();
    before[0] = atomicAdd(done, 1u);
    if (acquire) __threadfence();
  }
  __syncthreads();
  if (before[0] == gridDim.x - 1 && threadIdx.x == 0) {
    int all = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) all += partial[b];
    *sum = all;
  }
}

cudaError_t last_block_sum(bool release, bool acquire, const int *x, int *partial, unsigned *done, int *sum,
                           unsigned blocks) {
  if (release && acquire)
    return LAUNCH((last_block_sum_kernel<true, true>), blocks, threads, 0, nullptr, x, partial, done, sum);
  return release ? LAUNCH((last_block_sum_kernel<true, false>), blocks, threads, 0, nullptr, x, partial, done, sum)
                 : LAUNCH((last_block_sum_kernel<false, true>), blocks, threads, 0, nullptr, x, partial, done, sum);
}

template <bool correct>
__global__ void last_block_copy_kernel(const int *x, int *between, unsigned *done, int *y) {
  SHARED(unsigned, before, 1);
  const unsigned i = threadIdx.x, count = gridDim.x * threads;
  between[blockIdx.x * threads + i] = x[blockIdx.x * threads + i];
  if (!correct) __threadfence();
  __syncthreads();
  if (i == 0) {
    if (correct) __threadfence();
    before[0] = atomicAdd(done, 1u);
    __threadfence();
  }
  __syncthreads();
  if (before[0] == gridDim.x - 1)
    for (unsigned j = i; j < count; j += threads) y[j] = between[count - 1 - j];
}

cudaError_t last_block_copy(bool correct, const int *x, int *between, unsigned *done, int *y, unsigned blocks) {
  return correct ? LAUNCH(last_block_copy_kernel<true>, blocks, threads, 0, nullptr, x, between, done, y)
                 : LAUNCH(last_block_copy_kernel<false>, blocks, threads, 0, nullptr, x, between, done, y);
}

template <bool correct>
__global__ void replace_after_reading_kernel(int *number, int *y) {
  const unsigned i = threadIdx.x;
  y[i] = *number;
  if (correct) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  if (i == threads - 1) *number = 1;
}

cudaError_t replace_after_reading(bool correct, int *number, int *y) {
  return correct ? LAUNCH(replace_after_reading_kernel<true>, 1, threads, 0, nullptr, number, y)
                 : LAUNCH(replace_after_reading_kernel<false>, 1, threads, 0, nullptr, number, y);
}

template <bool correct>
__global__ void collect_children_kernel(const int *parent, int *slots, int *degree, int *sums, const int *expected) {
  const int v = static_cast<int>(threadIdx.x), p = parent[v];
  if (p >= 0) {
    if (correct) {
      slots[v] = v;
      __threadfence();
      atomicAdd(&degree[p], 1);
    } else {
      atomicAdd(&degree[p], 1);
      __threadfence();
      slots[v] = v;
    }
  }
  while (treescan::cuda::atomic_load(&degree[v]) < expected[v]) {
  }
  __threadfence();
  int sum = 0;
  for (int c = 0; c < threads; ++c)
    if (parent[c] == v) sum += slots[c];
  sums[v] = sum;
}

cudaError_t collect_children(bool correct, const int *parent, int *slots, int *degree, int *sums, const int *expected) {
  return correct ? LAUNCH_COOPERATIVE(collect_children_kernel<true>, 1, threads, 0, nullptr, parent, slots, degree,
                                      sums, expected)
                 : LAUNCH_COOPERATIVE(collect_children_kernel<false>, 1, threads, 0, nullptr, parent, slots, degree,
                                      sums, expected);
}

template <bool correct>
__global__ void locked_sum_kernel(int *lock, int *sum) {
  if (threadIdx.x % 32 == 0) {
    while (atomicCAS(lock, 0, 1) != 0) {
    }
    __threadfence();
    *sum += 1;
    if (correct) __threadfence();
    atomicExch(lock, 0);
  }
}

cudaError_t locked_sum(bool correct, int *lock, int *sum, unsigned blocks) {
  return correct ? LAUNCH_COOPERATIVE(locked_sum_kernel<true>, blocks, threads, 0, nullptr, lock, sum)
                 : LAUNCH_COOPERATIVE(locked_sum_kernel<false>, blocks, threads, 0, nullptr, lock, sum);
}

template <bool in_shared>
__global__ void child_slots_kernel(int room, const int *parent, int *slots, int *degree) {
  SHARED(int, shared_slots, threads * 4);
  int *const list = in_shared ? shared_slots : slots;
  const int v = static_cast<int>(threadIdx.x), p = parent[v];
  if (p >= 0) list[p * room + atomicAdd(&degree[p], 1)] = v;
}

cudaError_t child_slots(bool in_shared, int room, const int *parent, int *slots, int *degree) {
  return in_shared ? LAUNCH(child_slots_kernel<true>, 1, threads, 0, nullptr, room, parent, slots, degree)
                   : LAUNCH(child_slots_kernel<false>, 1, threads, 0, nullptr, room, parent, slots, degree);
}

template <bool correct>
__global__ void warp_exchange_kernel(const int *x, int *y) {
  SHARED(int, row, threads);
  const unsigned i = threadIdx.x;
  row[i] = x[i];
  if (correct) {
    __syncwarp();
  } else {
    __shfl_sync(0xffffffffu, row[i], 0);
  }
  y[i] = row[i ^ 31u];
}

cudaError_t warp_exchange(bool correct, const int *x, int *y) {
  return correct ? LAUNCH(warp_exchange_kernel<true>, 1, threads, 0, nullptr, x, y)
                 : LAUNCH(warp_exchange_kernel<false>, 1, threads, 0, nullptr, x, y);
}

__global__ void half_warps_kernel(const int *x, int *y) {
  SHARED(int, row, threads);
  const unsigned i = threadIdx.x;
  const unsigned mask = i % 32 < 16 ? 0xffffu : 0xffff0000u;
  row[i] = x[i];
  __syncwarp(mask);
  y[i] = row[i ^ 15u] + __shfl_xor_sync(mask, row[i], 1);
}

cudaError_t half_warps(const int *x, int *y) { return LAUNCH(half_warps_kernel, 1, threads, 0, nullptr, x, y); }

__device__ __forceinline__ int warp_inclusive_sum(int value) {
  const int lane = static_cast<int>(threadIdx.x) % warpSize;
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, value, distance);
    if (lane >= static_cast<int>(distance)) value += other;
  }
  return value;
}

__global__ void block_scan_kernel(const int *x, int *y) {
  SHARED(int, warp_sum, 4);
  const unsigned i = threadIdx.x, warp = i / 32;
  int sum = warp_inclusive_sum(x[i]);
  if (i % 32 == 31) warp_sum[warp] = sum;
  __syncthreads();
  for (unsigned w = 0; w < warp; ++w) sum += warp_sum[w];
  y[i] = sum;
}

cudaError_t block_scan(const int *x, int *y) { return LAUNCH(block_scan_kernel, 1, 128, 0, nullptr, x, y); }

template <bool correct>
__global__ void shared_sum_kernel(const int *x, int *y) {
  SHARED(int, row, threads);
  if (correct || threadIdx.x < threads - 1) row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < threads; ++i) sum += row[i];
  y[threadIdx.x] = sum;
}

cudaError_t shared_sum(bool correct, const int *x, int *y) {
  return correct ? LAUNCH(shared_sum_kernel<true>, 1, threads, 0, nullptr, x, y)
                 : LAUNCH(shared_sum_kernel<false>, 1, threads, 0, nullptr, x, y);
}

__global__ void divergent_barrier_kernel(Divergence how, int *y) {
  const bool low = threadIdx.x < 32;
  if (how == Divergence::left && !low) return;
  if (how == Divergence::in_a_warp && !low) __syncwarp();
  if (how == Divergence::warp_mask && threadIdx.x % 32 < 16) __syncwarp();
  if (how == Divergence::other_barrier && !low) {
    y[threadIdx.x] = 1;
    __syncthreads();
  } else {
    __syncthreads();
    y[threadIdx.x] = 1;
  }
}

cudaError_t divergent_barrier(Divergence how, int *y) {
  return LAUNCH(divergent_barrier_kernel, 1, threads, 0, nullptr, how, y);
}

__global__ void grid_sync_kernel(int *y) {
  treescan::cuda::grid_sync();
  y[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

cudaError_t grid_sync_in(bool cooperative, int *y, unsigned blocks) {
  return cooperative ? LAUNCH_COOPERATIVE(grid_sync_kernel, blocks, threads, 0, nullptr, y)
                     : LAUNCH(grid_sync_kernel, blocks, threads, 0, nullptr, y);
}

__global__ void wait_for_block_kernel(int *flag, const int *x, int *y) {
  if (threadIdx.x == 0) {
    if (blockIdx.x == 0) {
      *y = *x;
      __threadfence();
      treescan::cuda::atomic_store(flag, 1);
    } else {
      while (treescan::cuda::atomic_load(flag) == 0) {
      }
      __threadfence();
      *y += 1;
    }
  }
}

cudaError_t wait_for_block(bool cooperative, int *flag, const int *x, int *y) {
  return cooperative ? LAUNCH_COOPERATIVE(wait_for_block_kernel, 2, threads, 0, nullptr, flag, x, y)
                     : LAUNCH(wait_for_block_kernel, 2, threads, 0, nullptr, flag, x, y);
}

__global__ void scale_vectors_kernel(const float *x, float *y, int vectors) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= vectors) return;
  float4 v = reinterpret_cast<const float4 *>(x)[i];
  v.x *= 2, v.y *= 2, v.z *= 2, v.w *= 2;
  reinterpret_cast<float4 *>(y)[i] = v;
}

cudaError_t scale_vectors(const float *x, float *y, int vectors, int offset) {
  const auto blocks = static_cast<unsigned>((vectors + threads - 1) / threads);
  return LAUNCH(scale_vectors_kernel, blocks, threads, 0, nullptr, x + offset, y + offset, vectors);
}

__global__ void scale_strided_kernel(const float *x, float *y, int count, int stride) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) y[i * stride] = 2 * x[i * stride];
}

cudaError_t scale_strided(const float *x, float *y, int count, int stride) {
  return LAUNCH(scale_strided_kernel, 1, threads, 0, nullptr, x, y, count, stride);
}

__global__ void to_bytes_kernel(const int *x, uint8_t *y, uint16_t *half_bits) {
  const unsigned i = threadIdx.x;
  y[i] = static_cast<uint8_t>(x[i]);
  half_bits[i] = treescan::cuda::float_to_half_bits(static_cast<float>(x[i]));
  y[i] = static_cast<uint8_t>(y[i] + treescan::cuda::half_bits_to_float(half_bits[i]));
}

cudaError_t to_bytes(const int *x, uint8_t *y, uint16_t *half_bits) {
  return LAUNCH(to_bytes_kernel, 1, threads, 0, nullptr, x, y, half_bits);
}

__global__ void dynamic_reverse_kernel(const int *x, int *y) {
  SHARED_DYNAMIC(int, row);
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
}

cudaError_t dynamic_reverse(const int *x, int *y, size_t shared_bytes) {
  return LAUNCH(dynamic_reverse_kernel, 1, threads, shared_bytes, nullptr, x, y);
}

cudaError_t allow_dynamic_shared(int bytes) {
  return cudaFuncSetAttribute(dynamic_reverse_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

__global__ void static_and_dynamic_kernel(int *y) {
  SHARED(int, table, 10 * 1024);
  SHARED_DYNAMIC(int, row);
  table[threadIdx.x] = 1;
  row[threadIdx.x] = table[threadIdx.x];
  y[threadIdx.x] = row[threadIdx.x];
}

cudaError_t static_and_dynamic(int *y, size_t shared_bytes) {
  const cudaError_t error = cudaFuncSetAttribute(static_and_dynamic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(shared_bytes));
  return error != cudaSuccess ? error : LAUNCH(static_and_dynamic_kernel, 1, threads, shared_bytes, nullptr, y);
}

__global__ void trap_kernel(bool correct, int *y) {
  if (!correct && threadIdx.x == 3) __trap();
  y[threadIdx.x] = 1;
}

cudaError_t trap_unless(bool correct, int *y) { return LAUNCH(trap_kernel, 1, threads, 0, nullptr, correct, y); }

__global__ void nothing_kernel() {}

cudaError_t launch_nothing(dim3 grid, dim3 block, size_t shared_bytes, bool cooperative) {
  return cooperative ? LAUNCH_COOPERATIVE(nothing_kernel, grid, block, shared_bytes, nullptr)
                     : LAUNCH(nothing_kernel, grid, block, shared_bytes, nullptr);
}

int first_element_read_by_host(const int *device_memory) { return *device_memory; }

}  // namespace test_kernels
