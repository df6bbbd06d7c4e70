// What holds for every call with memory of a device.
#include "cuda_test.h"

using namespace cuda_test;

TEST(memory_must_be_where_the_tensor_says) {
  treescan::emulation::run({}, [] {
    const Twin<int32_t> parent({1, 4}, 0), order({1, 4}, 0);
    const Twin<float> x({1, 2, 4}, 0.f), y({1, 2, 4}, 0.f);
    const auto scan = [&](const treescan_tensor *weights, const treescan_tensor *output) {
      return treescan_scan(TREESCAN_BOTH, parent.cuda(), order.cuda(), x.cuda(), weights, output, nullptr, nullptr);
    };
    FAILS(scan(x.cpu(), y.cuda()), TREESCAN_UNSUPPORTED_DEVICE, "weights: expected CUDA memory as x has, got CPU memory");
    treescan_tensor wrong = *y.cuda();
    wrong.data = y.cpu()->data;
    FAILS(scan(x.cuda(), &wrong), TREESCAN_UNSUPPORTED_DEVICE, "y: expected memory of CUDA device 0, got a pointer into");
    wrong = *y.cuda();
    wrong.device_index = 1;
    FAILS(scan(x.cuda(), &wrong), TREESCAN_UNSUPPORTED_DEVICE, "y: expected device 0 as x has, got device 1");
    FAILS(treescan_scan(TREESCAN_UP, parent.cpu(), order.cpu(), x.cpu(), x.cpu(), y.cpu(), nullptr, y.cpu()->data),
          TREESCAN_INVALID_ARGUMENT, "stream: expected NULL for tensors in CPU memory");
  });
}

TEST(ways_of_working_have_names) {
  for (const char *name : {"block", "grid", "auto"}) SUCCEEDS(treescan_set_cuda_trees(name));
  for (const char *name : {"levels", "paths", "auto"}) SUCCEEDS(treescan_set_cuda_scans(name));
  FAILS(treescan_set_cuda_trees("warp"), TREESCAN_INVALID_ARGUMENT, "\"auto\", \"block\" or \"grid\", got \"warp\"");
  FAILS(treescan_set_cuda_scans(nullptr), TREESCAN_INVALID_ARGUMENT, "strategy");
}

TEST(waiting_for_a_device) {
  treescan::emulation::run({}, [] {
    SUCCEEDS(synchronize());
    FAILS(treescan_synchronize(TREESCAN_CUDA, 5, nullptr), TREESCAN_UNSUPPORTED_DEVICE, "expected a device from 0 to 0, got 5");
    SUCCEEDS(treescan_synchronize(TREESCAN_CPU, 0, nullptr));
  });
}

// From features to the gradients of a scan on one stream, which captures: no copy to the host, no wait, no allocation that
// isn't in the stream's order.
TEST(the_whole_path_can_be_captured) {
  const Report report = treescan::emulation::run({}, [] {
    cudaStream_t stream;
    succeed(cudaStreamCreate(&stream), "cudaStreamCreate");
    {
      const treescan_graph graph = grid(5, 7, 4).cpu;
      const auto value = [](int64_t i) { return static_cast<float>(i * 37 % 101) / 101; };
      const std::vector<int64_t> shape = {2, 3, 5, 7};
      const Twin<float> x(shape, value), weights(shape, value), cost({2, 58}, 0.f), y(shape, 0.f), grad_x(shape, 0.f),
          grad_weights(shape, 0.f);
      const Twin<int32_t> root({1}, 17), parent({2, 35}, -7), order({2, 35}, -7), depth({2, 35}, -7), edge({2, 35}, -7);
      const treescan_tree_output tree = {parent.cuda(), order.cuda(), depth.cuda(), edge.cuda()};
      succeed(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
      SUCCEEDS(treescan_edge_weights(&graph, x.cuda(), TREESCAN_COSINE, 0, cost.cuda(), nullptr, stream));
      SUCCEEDS(treescan_minimum_spanning_tree(&graph, cost.cuda(), 0, root.cuda(), nullptr, &tree, nullptr, stream));
      SUCCEEDS(treescan_random_spanning_tree(&graph, cost.cuda(), 5, root.cuda(), &tree, nullptr, stream));
      SUCCEEDS(treescan_scan(TREESCAN_BOTH, parent.cuda(), order.cuda(), x.cuda(), weights.cuda(), y.cuda(), nullptr,
                             stream));
      SUCCEEDS(treescan_scan_backward(TREESCAN_BOTH, parent.cuda(), order.cuda(), x.cuda(), weights.cuda(), y.cuda(),
                                      grad_x.cuda(), grad_weights.cuda(), nullptr, stream));
      cudaGraph_t captured;
      succeed(cudaStreamEndCapture(stream, &captured), "cudaStreamEndCapture");
      SUCCEEDS(synchronize());
    }
    succeed(cudaStreamDestroy(stream), "cudaStreamDestroy");
  });
  CHECK(report.findings.empty(), report.text());
  EQUAL(report.live_allocations, 0);
}

// What is wrong with values is said by the next call, or by treescan_synchronize; once, and then work goes on.
TEST(faults_of_values_are_heard_later) {
  treescan::emulation::run({}, [] {
    const Twin<int32_t> parent({1, 3}, [](int64_t i) { return i ? 0 : 0; }), bad({1, 3}, 9), order({1, 3}, [](int64_t i) {
      return i;
    });
    const Twin<float> x({1, 2, 3}, 1.f), y({1, 2, 3}, 0.f);
    const auto scan = [&](const Twin<int32_t> &parents) {
      return treescan_scan(TREESCAN_DOWN, parents.cuda(), order.cuda(), x.cuda(), x.cuda(), y.cuda(), nullptr, nullptr);
    };
    SUCCEEDS(scan(bad));
    for (const float value : y.on_device()) CHECK(value != value, "expected NaN, got ", value);
    FAILS(scan(parent), TREESCAN_INVALID_ARGUMENT, "parent: expected vertices in [0, 3) or -1, got 9 at vertex");
    SUCCEEDS(scan(parent));
    SUCCEEDS(scan(bad));
    FAILS(synchronize(), TREESCAN_INVALID_ARGUMENT, "parent: expected vertices in [0, 3) or -1, got 9 at vertex");
    SUCCEEDS(synchronize());
  });
}

TEST_MAIN
