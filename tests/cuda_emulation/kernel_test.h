// What tests of kernels share: arrays on the device, and runs under every schedule.
#pragma once

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../c/testing.h"
#include "device.h"
#include "emulator.h"

namespace kernel_test {

using treescan::emulation::Fault;
using treescan::emulation::Options;
using treescan::emulation::Report;
using treescan::emulation::Schedule;

inline void succeed(cudaError_t error, const char *what) {
  if (error != cudaSuccess) testing::report(__FILE__, __LINE__, what, ": ", cudaGetErrorString(error));
}

// An array on the device. Values may be written to it and read from it between launches only.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) { succeed(cudaMalloc(&data_, count * sizeof(T)), "cudaMalloc"); }
  explicit DeviceArray(const std::vector<T> &values) : DeviceArray(values.size()) {
    succeed(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "copying to the device");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray &) = delete;
  DeviceArray &operator=(const DeviceArray &) = delete;

  operator T *() const { return static_cast<T *>(data_); }
  std::vector<T> values() const {
    std::vector<T> values(count_);
    cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
    return values;
  }

 private:
  void *data_ = nullptr;
  size_t count_;
};

inline bool long_form() { return std::getenv("TREESCAN_EMULATION_LONG") != nullptr; }

inline std::string text(const Options &o) {
  static const char *const schedules[] = {"in order", "reversed", "lockstep", "random", "runs"};
  return std::string(schedules[static_cast<int>(o.schedule)]) + ", seed " + std::to_string(o.seed) + ", " +
         std::to_string(o.resident_blocks) + " resident";
}

// Five schedules, with 2 seeds or 10, with 1 and 4 blocks at a time.
template <class Body>
void under_every_schedule(Body &&body) {
  for (const Schedule schedule :
       {Schedule::in_order, Schedule::reversed, Schedule::lockstep, Schedule::random, Schedule::runs})
    for (uint64_t seed = 0; seed < (long_form() ? 10 : 2); ++seed)
      for (const int resident : {1, 4}) body(Options{schedule, seed, resident, false});
}

// Host code that must leave no finding, and no memory.
inline void expect_clean(const char *what, const std::function<void()> &host_code) {
  under_every_schedule([&](const Options &options) {
    const Report report = treescan::emulation::run(options, host_code);
    CHECK(report.findings.empty(), what, ", ", text(options), ":\n", report.text());
    EQUAL(report.live_allocations, 0);
  });
}

// Whether the tests' build can find this: one without the race check sees operations, but no accesses.
inline bool can_find(Fault fault) {
  return treescan::emulation::sees_accesses() ||
         (fault != Fault::race && fault != Fault::out_of_bounds && fault != Fault::uninitialised &&
          fault != Fault::misaligned && fault != Fault::host_access);
}

// Host code in which every run must find this; the text of each such finding holds `mentions`. There is nothing else to
// find, but that a race may let a thread read what isn't written yet.
inline void expect_fault(const char *what, Fault fault, const std::string &mentions,
                         const std::function<void()> &host_code) {
  if (!can_find(fault)) return;
  under_every_schedule([&](const Options &options) {
    const Report report = treescan::emulation::run(options, host_code);
    CHECK(report.has(fault), what, ", ", text(options), ": found ", report.text());
    for (const auto &finding : report.findings) {
      CHECK(finding.fault == fault || (fault == Fault::race && finding.fault == Fault::uninitialised), what, ", ",
            text(options), ": found ", report.text());
      if (finding.fault == fault)
        CHECK(finding.text.find(mentions) != std::string::npos, "expected \"", mentions, "\" in: ", finding.text);
    }
  });
}

}  // namespace kernel_test
