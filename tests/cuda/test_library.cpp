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

TEST_MAIN
