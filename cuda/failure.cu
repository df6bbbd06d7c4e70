#include "failure.h"

#include <atomic>
#include <mutex>

#include "call.h"

namespace treescan::cuda {

namespace {

constexpr int most_devices = 64;
std::atomic<Failure *> failures[most_devices];

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  if (device >= most_devices)
    fail(TREESCAN_UNSUPPORTED_DEVICE, "device_index: expected at most ", most_devices - 1, ", got ", device);
  return device;
}

}  // namespace

Failure *failure_of_current_device() {
  std::atomic<Failure *> &failure = failures[current_device()];
  if (Failure *const there = failure.load(std::memory_order_acquire)) return there;
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!failure.load(std::memory_order_acquire)) {
    // A stream may be capturing; this memory is no part of what it records.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
    void *memory = nullptr;
    const cudaError_t error = cudaHostAlloc(&memory, sizeof(Failure), cudaHostAllocMapped);
    check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
    check(error, "cudaHostAlloc");
    auto *const fresh = static_cast<Failure *>(memory);
    *fresh = Failure{};
    failure.store(fresh, std::memory_order_release);
  }
  return failure.load(std::memory_order_acquire);
}

void fail_if_reported() {
  Failure *const failure = failures[current_device()].load(std::memory_order_acquire);
  if (!failure) return;
  // Seen whole or not at all: the device writes the fault last.
  auto *const word = reinterpret_cast<std::atomic<int32_t> *>(&failure->fault);
  const int32_t fault = word->load(std::memory_order_acquire);
  if (fault <= 0) return;
  int64_t numbers[value_fault_numbers];
  for (int i = 0; i < value_fault_numbers; ++i) numbers[i] = failure->numbers[i];
  word->store(0, std::memory_order_release);
  fail(static_cast<ValueFault>(fault), numbers[0], numbers[1], numbers[2], numbers[3]);
}

}  // namespace treescan::cuda
