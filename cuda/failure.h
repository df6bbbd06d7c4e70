// What a kernel finds wrong with the values that it reads. Nobody waits for a kernel, so it can't be what the call returns:
// the first fault is written down in memory that the host sees, and the next call on that device, or
// treescan_synchronize, fails with it.
#pragma once

#include "device.h"
#include "value_faults.h"

namespace treescan::cuda {

struct Failure {
  int32_t fault;  // 0: none; -1: being written; else a ValueFault
  int32_t unused;
  int64_t numbers[value_fault_numbers];
};

__device__ __forceinline__ void report(Failure *failure, ValueFault fault, int64_t a, int64_t b = 0, int64_t c = 0,
                                       int64_t d = 0) {
  if (atomicCAS(&failure->fault, 0, -1) != 0) return;  // an earlier one stands there
  failure->numbers[0] = a;
  failure->numbers[1] = b;
  failure->numbers[2] = c;
  failure->numbers[3] = d;
  __threadfence_system();
  atomic_store(&failure->fault, static_cast<int32_t>(fault));
}

// Where kernels on the current device report. Host code.
Failure *failure_of_current_device();

// Fails with what kernels on the current device have reported since it last did.
void fail_if_reported();

}  // namespace treescan::cuda
