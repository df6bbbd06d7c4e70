// Threads that work on one tree together: a block, or the whole grid of a cooperative launch. What is written for a team
// serves both; small trees get a block each, a large one all blocks at once.
//
// Every thread of a team calls its functions, with the same arguments unless a comment says otherwise. A function's
// inputs must have been written before the team's last sync(); its outputs may be read after it returns.
#pragma once

#include "device.h"

namespace treescan::cuda {

constexpr int most_warps = 32;

// The sum of the values of the lanes up to this one.
__device__ __forceinline__ int64_t warp_sum_through(int64_t value) {
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const int64_t before = __shfl_up_sync(0xffffffffu, value, distance);
    if (threadIdx.x % 32 >= distance) value += before;
  }
  return value;
}

// The sum of the values of the threads before this one in its block, and of all of them.
__device__ __forceinline__ int64_t block_sum_before(int64_t value, int64_t *total) {
  SHARED(int64_t, warp_sums, most_warps);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t through = warp_sum_through(value);
  if (lane == 31) warp_sums[warp] = through;
  __syncthreads();
  const int64_t through_warps = warp_sum_through(lane < blockDim.x / 32 ? warp_sums[lane] : 0);
  __syncthreads();  // the next call writes warp_sums
  *total = __shfl_sync(0xffffffffu, through_warps, 31);
  const int64_t before_warp = __shfl_sync(0xffffffffu, through_warps, static_cast<int>((warp + 31) % 32));
  return through - value + (warp > 0 ? before_warp : 0);
}

struct BlockTeam {
  __device__ __forceinline__ unsigned rank() const { return threadIdx.x; }
  __device__ __forceinline__ unsigned size() const { return blockDim.x; }
  __device__ __forceinline__ void sync() { __syncthreads(); }
  // Whether it holds for any thread. Also a sync().
  __device__ __forceinline__ bool any(bool predicate) { return __syncthreads_or(predicate) != 0; }
  __device__ __forceinline__ int64_t sum_before(int64_t value, int64_t *total) { return block_sum_before(value, total); }
};

// What a grid's blocks share, zeroed before the launch.
struct GridMemory {
  static constexpr unsigned most_blocks = 2048;
  int64_t sums[2][most_blocks];
  int32_t votes[3];
};

class GridTeam {
 public:
  __device__ explicit GridTeam(GridMemory *memory) : memory_(memory) {}

  __device__ __forceinline__ unsigned rank() const { return blockIdx.x * blockDim.x + threadIdx.x; }
  __device__ __forceinline__ unsigned size() const { return gridDim.x * blockDim.x; }
  __device__ __forceinline__ void sync() { grid_sync(); }

  __device__ __forceinline__ bool any(bool predicate) {
    // Three places in turn: this vote's, the last one's, which may still be read, and the next one's.
    const int mine = vote_, next = vote_ == 2 ? 0 : vote_ + 1;
    vote_ = next;
    if (__syncthreads_or(predicate) && threadIdx.x == 0) atomicOr(&memory_->votes[mine], 1);
    if (rank() == 0) memory_->votes[next] = 0;
    grid_sync();
    return memory_->votes[mine] != 0;
  }

  __device__ __forceinline__ int64_t sum_before(int64_t value, int64_t *total) {
    // Two places in turn: this sum's, and the last one's, which may still be read.
    int64_t *const sums = memory_->sums[sum_];
    sum_ ^= 1;
    int64_t of_block;
    const int64_t in_block = block_sum_before(value, &of_block);
    if (threadIdx.x == 0) sums[blockIdx.x] = of_block;
    grid_sync();
    int64_t before = 0, all = 0;
    for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x) {
      const int64_t sum = sums[b];
      all += sum;
      if (b < blockIdx.x) before += sum;
    }
    block_sum_before(before, &before);
    block_sum_before(all, &all);
    *total = all;
    return before + in_block;
  }

 private:
  GridMemory *memory_;
  int sum_ = 0, vote_ = 0;
};

// Calls body(i) for every i in [0, count), neighbours by neighbouring threads. Here and below, counts are at most 2^31:
// 32-bit numbers take half the registers.
template <class Team, class Body>
__device__ __forceinline__ void for_each(const Team &team, int64_t count, Body body) {
  const auto end = static_cast<uint32_t>(count);
#pragma unroll 1
  for (uint32_t i = team.rank(); i < end; i += team.size()) body(i);
}

// put(i, sum of get(j) over j < i) for every i in [0, count). Returns the sum of all. put(i) may overwrite what get(i)
// read.
template <class Team, class Get, class Put>
__device__ __forceinline__ int64_t exclusive_sums(Team &team, int64_t count, Get get, Put put) {
  const auto all = static_cast<uint32_t>(count);
  const uint32_t piece = (all + team.size() - 1) / team.size();
  const uint32_t begin = min(all, piece * team.rank()), end = min(all, begin + piece);
  int64_t sum = 0, total;
  for (uint32_t i = begin; i < end; ++i) sum += get(i);
  sum = team.sum_before(sum, &total);
#pragma unroll 1
  for (uint32_t i = begin; i < end; ++i) {
    const int64_t value = get(i);
    put(i, sum);
    sum += value;
  }
  team.sync();
  return total;
}

// The digits that entries are sorted by, and how many counters that takes.
constexpr int digit_bits = 4, digits = 1 << digit_bits;
__host__ __device__ constexpr int64_t sort_counts(int64_t count) { return digits * (count / 32 + 1); }

// The digits of a warp's entries, bit by bit.
class WarpDigits {
 public:
  // Every lane of the warp, with what its entry's digit is, if it has an entry.
  __device__ __forceinline__ WarpDigits(bool has_entry, unsigned digit) : entries_(__ballot_sync(0xffffffffu, has_entry)) {
    for (int k = 0; k < digit_bits; ++k) bits_[k] = __ballot_sync(0xffffffffu, static_cast<int>(digit >> k & 1));
  }
  // The lanes whose entries have this digit.
  __device__ __forceinline__ unsigned lanes(unsigned digit) const {
    unsigned lanes = entries_;
    for (int k = 0; k < digit_bits; ++k) lanes &= digit >> k & 1 ? bits_[k] : ~bits_[k];
    return lanes;
  }

 private:
  unsigned entries_, bits_[digit_bits];
};

// Sorts entries by key(entry), an uint32_t of so many bits, entries of one key staying in their order. `spare` holds `count`
// entries, `counts` sort_counts(count) numbers. Returns where the result lies, `entries` or `spare`.
template <class Team, class Key>
__device__ __forceinline__ int32_t *stable_sort(Team &team, int32_t *entries, int32_t *spare, int64_t count, int bits,
                                                int32_t *counts, Key key) {
  // Each warp takes a piece, 32 entries at a time, and its lanes count one digit each.
  const auto all = static_cast<uint32_t>(count);
  const uint32_t warps = min(team.size() / 32, all / 32 + 1), warp = team.rank() / 32, lane = threadIdx.x % 32;
  const uint32_t piece = (all + warps * 32 - 1) / (warps * 32) * 32;
  const uint32_t begin = warp < warps ? min(all, piece * warp) : all, end = min(all, begin + piece);
  const bool has_counter = warp < warps && lane < digits;
  int32_t *const counter = counts + lane * warps + warp;
  for (int shift = 0; shift < bits; shift += digit_bits) {
    const auto digit = [&](int32_t entry) { return key(entry) >> shift & (digits - 1); };
    int32_t counted = 0;
#pragma unroll 1
    for (uint32_t row = begin; row < end; row += 32) {
      const uint32_t i = row + lane;
      counted += __popc(WarpDigits(i < end, i < end ? digit(entries[i]) : 0).lanes(lane));
    }
    if (has_counter) *counter = counted;
    team.sync();
    exclusive_sums(team, digits * warps, [&](uint32_t i) { return counts[i]; },
                   [&](uint32_t i, int64_t sum) { counts[i] = static_cast<int32_t>(sum); });
    int32_t place = has_counter ? *counter : 0;
#pragma unroll 1
    for (uint32_t row = begin; row < end; row += 32) {
      const uint32_t i = row + lane;
      const int32_t entry = i < end ? entries[i] : 0;
      const uint32_t mine = i < end ? digit(entry) : 0;
      const WarpDigits others(i < end, mine);
      const int32_t first = __shfl_sync(0xffffffffu, place, static_cast<int>(mine));
      if (i < end) spare[first + __popc(others.lanes(mine) & ((1u << lane) - 1))] = entry;
      place += __popc(others.lanes(lane));
    }
    team.sync();
    int32_t *const sorted = spare;
    spare = entries;
    entries = sorted;
  }
  return entries;
}

// The number of bits that numbers below `count` take.
__host__ __device__ constexpr int bits_for(int64_t count) {
  int bits = 0;
  while ((int64_t{1} << bits) < count) ++bits;
  return bits;
}

// A link of a list: the next element, itself at the end, and how far that is; as one number, to be read in one piece.
using Link = uint64_t;
__host__ __device__ constexpr Link make_link(uint32_t next, uint32_t distance) {
  return static_cast<Link>(next) << 32 | distance;
}

// How far the end of its list is from every element, in the lower 32 bits of each link. On entry an end's distance is 0,
// any other element's that to the next. Pointer jumping: rounds as the logarithm of the longest list's elements. Returns
// where the result lies, `links` or `spare`.
template <class Team>
__device__ __forceinline__ Link *rank_lists(Team &team, Link *links, Link *spare, int64_t count) {
  bool moved = true;
  for (int64_t reached = 1; reached < count && moved; reached *= 2) {
    bool mine = false;
    for_each(team, count, [&](int64_t i) {
      const Link link = links[i], beyond = links[link >> 32];
      const Link both = make_link(static_cast<uint32_t>(beyond >> 32),
                                  static_cast<uint32_t>(link) + static_cast<uint32_t>(beyond));
      spare[i] = both;
      mine |= both != link;
    });
    moved = team.any(mine);
    Link *const ranked = spare;
    spare = links;
    links = ranked;
  }
  return links;
}

}  // namespace treescan::cuda
