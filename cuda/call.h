// What the host code of every CUDA operation uses: errors, scratch memory and sizes of launches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "device.h"
#include "status.h"
#include "strategy.h"
#include "workspace.h"

namespace treescan::cuda {

inline cudaStream_t as_stream(void *stream) { return static_cast<cudaStream_t>(stream); }

// Fails unless a call of CUDA's succeeded: check(LAUNCH(...), "scan").
inline void check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // what the next call would otherwise find
  fail(error == cudaErrorMemoryAllocation ? TREESCAN_OUT_OF_MEMORY : TREESCAN_INTERNAL, what, ": CUDA fails with ",
       cudaGetErrorName(error), ", ", cudaGetErrorString(error));
}

inline int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

// The most dynamic shared memory that a block can have: what the device gives, but for arrays of fixed size.
inline int most_dynamic_shared() { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - 1024; }

// How many blocks of a kernel the device holds at once. More dynamic shared memory than 48 KiB is asked for on the way;
// always the same, since other threads may ask for the same kernel before this one launches it.
template <class... Parameters>
unsigned resident_blocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes) {
  if (shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_dynamic_shared()),
          "cudaFuncSetAttribute");
  int count = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, kernel, threads, shared_bytes), "occupancy");
  return static_cast<unsigned>(std::max(1, count) * attribute(cudaDevAttrMultiProcessorCount));
}

// Grids have one dimension, of at most 2^31-1 blocks; kernels walk over the rest.
inline unsigned grid_size(int64_t blocks) {
  return static_cast<unsigned>(std::min<int64_t>(std::max<int64_t>(blocks, 1), INT32_MAX));
}

// Whether trees, one after the other, are better worked on by the whole grid than each by a block. A model on paper: blocks take
// as long as there are vertices, one tree after the other on each multiprocessor; the grid takes for each tree as long as a
// block does for so many vertices, for its barriers are dear.
inline bool grid_pays(int64_t trees, int64_t vertices) {
  constexpr int64_t worth_of_a_grid = 1 << 15;
  if (tree_team() != TreeTeam::automatic) return tree_team() == TreeTeam::grid;
  const int64_t processors = attribute(cudaDevAttrMultiProcessorCount);
  return times((trees + processors - 1) / processors, vertices) > times(trees, worth_of_a_grid);
}

// Memory of the device for the length of a call's work, in the order of the stream.
class StreamMemory {
 public:
  StreamMemory(int64_t bytes, cudaStream_t stream) : stream_(stream) {
    check(cudaMallocAsync(&data_, static_cast<size_t>(bytes), stream), "workspace");
  }
  ~StreamMemory() { cudaFreeAsync(data_, stream_); }
  StreamMemory(const StreamMemory &) = delete;
  StreamMemory &operator=(const StreamMemory &) = delete;
  void *get() const { return data_; }

 private:
  cudaStream_t stream_;
  void *data_ = nullptr;
};

// Runs body(carver) on scratch memory of the device that `layout(carver)` describes, by the protocol of treescan.h.
template <class Layout, class Body>
void with_device_scratch(treescan_workspace *workspace, cudaStream_t stream, Layout &&layout, Body &&body) {
  if (workspace) return with_scratch(workspace, layout, body);
  Carver measure;
  layout(measure);
  if (measure.used() == 0) return body(measure);
  const StreamMemory memory(measure.used(), stream);
  Carver carver(memory.get());
  body(carver);
}

}  // namespace treescan::cuda
