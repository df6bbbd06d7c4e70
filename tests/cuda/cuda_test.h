// What the tests of the CUDA backend share: arrays that are in CPU memory and on the emulated device at once, so that a call
// on the one can be held against the same call on the other.
#pragma once

#include <cstring>
#include <initializer_list>
#include <vector>

#include "../cuda_emulation/kernel_test.h"
#include "treescan/treescan.hpp"

namespace cuda_test {

using namespace kernel_test;

template <class T>
constexpr int32_t dtype_of() {
  return treescan::detail::dtype_of<T>();
}

// A strided array and its copy on the device. Elements that no index reaches hold the fill value, too.
template <class T>
class Twin {
 public:
  using Numbers = std::vector<int64_t>;

  // Contiguous, unless strides are given. All elements hold `fill`.
  Twin(const Numbers &sizes, T fill, const Numbers &strides = {}) : Twin(sizes, strides) {
    std::fill(host_.begin(), host_.end(), fill);
    upload();
  }

  // Element number i, counted with the last index fastest, is value(i).
  template <class Value, class = decltype(T(std::declval<Value>()(int64_t{})))>
  Twin(const Numbers &sizes, Value value, const Numbers &strides = {}) : Twin(sizes, strides) {
    for (int64_t i = 0; i < count_; ++i) host_[static_cast<size_t>(offset(i))] = T(value(i));
    upload();
  }

  const treescan_tensor *cpu() const { return &cpu_; }
  const treescan_tensor *cuda() const { return &cuda_; }

  T operator[](int64_t i) const { return host_[static_cast<size_t>(offset(i))]; }

  // Copies what the CPU has to the device.
  void upload() const {
    succeed(cudaMemcpy(device_, host_.data(), host_.size() * sizeof(T), cudaMemcpyHostToDevice), "copying to the device");
  }

  // Whether both hold the same bits, in all memory that they take.
  bool same() const {
    std::vector<T> values(host_.size());
    cudaMemcpy(values.data(), device_, host_.size() * sizeof(T), cudaMemcpyDeviceToHost);
    return std::memcmp(values.data(), host_.data(), host_.size() * sizeof(T)) == 0;
  }
  // What the device has, in the order of indices.
  std::vector<T> on_device() const {
    std::vector<T> all(host_.size()), values;
    cudaMemcpy(all.data(), device_, host_.size() * sizeof(T), cudaMemcpyDeviceToHost);
    for (int64_t i = 0; i < count_; ++i) values.push_back(all[static_cast<size_t>(offset(i))]);
    return values;
  }

  ~Twin() { cudaFree(device_); }
  Twin(const Twin &) = delete;
  Twin &operator=(const Twin &) = delete;

 private:
  Twin(const Numbers &sizes, const Numbers &strides) : count_(1) {
    const auto ndim = static_cast<int32_t>(sizes.size());
    int64_t extent = 1;
    for (int32_t i = ndim - 1; i >= 0; --i) {
      const auto k = static_cast<size_t>(i);
      cpu_.sizes[i] = sizes[k];
      cpu_.strides[i] = strides.empty() ? count_ : strides[k];
      extent += (sizes[k] - 1) * cpu_.strides[i];
      count_ *= sizes[k];
    }
    host_.resize(static_cast<size_t>(count_ > 0 ? extent : 1), T{});
    cpu_.data = host_.data();
    cpu_.dtype = dtype_of<T>();
    cpu_.device = TREESCAN_CPU;
    cpu_.ndim = ndim;
    succeed(cudaMalloc(&device_, host_.size() * sizeof(T)), "cudaMalloc");
    cuda_ = cpu_;
    cuda_.device = TREESCAN_CUDA;
    cuda_.data = device_;
  }

  int64_t offset(int64_t i) const {
    int64_t sum = 0;
    for (int32_t k = cpu_.ndim - 1; k >= 0; --k) {
      sum += i % cpu_.sizes[k] * cpu_.strides[k];
      i /= cpu_.sizes[k];
    }
    return sum;
  }

  int64_t count_;
  std::vector<T> host_;
  void *device_ = nullptr;
  treescan_tensor cpu_{}, cuda_{};
};

// A graph and its list of edges, if it has one, on both sides.
struct TwinGraph {
  treescan_graph cpu{}, cuda{};

  explicit TwinGraph(const treescan_graph &graph) : cpu(graph), cuda(graph) {}
  TwinGraph(treescan_graph graph, const treescan_tensor *cpu_list, const treescan_tensor *cuda_list)
      : cpu(graph), cuda(graph) {
    cpu.edge_index = cpu_list;
    cuda.edge_index = cuda_list;
  }

  int64_t vertices() const {
    int64_t count = 0;
    treescan_graph_num_vertices(&cpu, &count);
    return count;
  }
  int64_t edges() const {
    int64_t count = 0;
    treescan_graph_num_edges(&cpu, &count);
    return count;
  }
};

inline TwinGraph grid(int64_t height, int64_t width, int32_t connectivity) {
  return TwinGraph(treescan::grid(height, width, connectivity).c());
}

inline TwinGraph tokens(int64_t length, int64_t window, const treescan_tensor *contexts) {
  treescan_graph graph = treescan::tokens(length, window).c();
  graph.context_length = contexts;
  return TwinGraph(graph);
}

inline TwinGraph chain(int64_t length) {
  return TwinGraph(treescan::chain(length).c());
}

template <class Index>
TwinGraph edge_list(int64_t vertices, const Twin<Index> &list) {
  treescan_graph graph{};
  graph.kind = TREESCAN_EDGES;
  graph.num_vertices = vertices;
  return TwinGraph(graph, list.cpu(), list.cuda());
}

// Waits for the device and hears what it found wrong.
inline treescan_status synchronize() { return treescan_synchronize(TREESCAN_CUDA, 0, nullptr); }

}  // namespace cuda_test
