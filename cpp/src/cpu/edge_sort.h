// Edges as numbers, and sorting them.
#pragma once

#include <cstdint>

namespace treescan {

// An edge as one number: its key above, its index below. Sorting the keys stably leaves ties by index.
using Keyed = uint64_t;

// The key is one that sorts as a signed number.
inline Keyed keyed(int32_t key, uint32_t index) {
  return static_cast<Keyed>(static_cast<uint32_t>(key) ^ 0x80000000u) << 32 | index;
}

// Sorts by the keys. Returns where the result lies, `from` or `to`.
Keyed *radix_sort(Keyed *from, Keyed *to, int64_t count);

}  // namespace treescan
