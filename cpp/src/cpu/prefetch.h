// Asking for memory before it is needed.
#pragma once

#include "recurrence.h"

namespace treescan {

// Into the second-level cache: more of these can be under way at a time than of those into the first.
TREESCAN_FORMULA void prefetch(const void *address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 2);
#else
  (void)address;
#endif
}

}  // namespace treescan
