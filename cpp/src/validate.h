// All checks of arguments, made before anything is computed.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "status.h"

namespace treescan {

// Fails unless the view is there, lies on a device that this build can use and has a known dtype, sizes >= 0 and offsets that fit 64 bits.
void check_tensor(const treescan_tensor *tensor, const char *name);

// As above, and the dtype is one of those, the rank is that of `sizes`, and each size equals the one given (-1: any).
void check_tensor(const treescan_tensor *tensor, const char *name, std::initializer_list<int32_t> dtypes,
                  std::initializer_list<int64_t> sizes);

// No two elements share memory, so that threads may write them.
void check_writable(const treescan_tensor *tensor, const char *name);

// Of a tensor that has been checked.
void check_in_cpu_memory(const treescan_tensor *tensor, const char *name);

const char *dtype_name(int32_t dtype);
int64_t dtype_size(int32_t dtype);

extern const std::initializer_list<int32_t> floating_dtypes;

}  // namespace treescan
