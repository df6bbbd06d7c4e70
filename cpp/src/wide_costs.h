// Costs that a float32 has no room for: float64, int32 and int64. A tree is decided by their order alone, so before it is built
// each gives way to its rank among those of its item, as a float32 in the same order: what builds trees knows no other type.
#pragma once

#include <cstdint>

#include "edge_order.h"
#include "treescan/treescan.h"

namespace treescan {

inline bool is_wide(const treescan_tensor &cost) { return cost.dtype != TREESCAN_FLOAT32; }

// The order of doubles as integers without a sign: -0 equals +0, and NaN comes after everything.
TREESCAN_FORMULA uint64_t wide_key(double cost, bool descending) {
  constexpr uint64_t sign = uint64_t{1} << 63, infinity = 0x7ff0000000000000u;
  const uint64_t bits = cast_bits<uint64_t>(cost), magnitude = bits & ~sign;
  if (magnitude > infinity) return UINT64_MAX;
  return ((bits & sign) != 0) != descending ? sign - magnitude : sign + magnitude;
}

TREESCAN_FORMULA uint64_t wide_key(int64_t cost, bool descending) {
  const uint64_t ascending = static_cast<uint64_t>(cost) ^ uint64_t{1} << 63;
  return descending ? ~ascending : ascending;
}

struct WideCosts {
  const void *data;
  int32_t dtype;
  int64_t item_stride, stride;
  EdgeOrder order;

  WideCosts(const treescan_tensor &cost, EdgeOrder order_)
      : data(cost.data), dtype(cost.dtype), item_stride(cost.strides[0]), stride(cost.strides[1]), order(order_) {}

  // A number that comes where the cost does in the order.
  TREESCAN_MEMBER uint64_t key(int64_t item, int64_t edge) const {
    const int64_t at = item * item_stride + edge * stride;
    const bool descending = order.kind == EdgeOrder::descending;
    if (dtype == TREESCAN_FLOAT64) return key_of(static_cast<const double *>(data)[at], descending, item, edge);
    if (dtype == TREESCAN_INT64) return key_of(static_cast<const int64_t *>(data)[at], descending, item, edge);
    return key_of(int64_t{static_cast<const int32_t *>(data)[at]}, descending, item, edge);
  }

 private:
  template <class T>
  TREESCAN_MEMBER uint64_t key_of(T cost, bool descending, int64_t item, int64_t edge) const {
    if (order.kind == EdgeOrder::random)
      return wide_key(random_cost(static_cast<double>(cost), order.seed, item, edge), false);
    return wide_key(cost, descending);
  }
};

// A rank as a float in the order of ranks. NaN's place isn't reached.
constexpr int64_t most_ranks = 0x7f800000;
TREESCAN_FORMULA float rank_as_float(int64_t rank) { return cast_bits<float>(static_cast<int32_t>(rank)); }

}  // namespace treescan
