// What a test says to the emulator and hears from it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace treescan::emulation {

enum class Schedule {
  in_order,  // a thread runs until it waits; then the next one
  reversed,  // the same backwards, the last block first
  lockstep,  // every thread in turn, one memory access each
  random,    // after an access, any thread may be next
  runs,      // any thread, until it waits
};

struct Options {
  Schedule schedule = Schedule::in_order;
  uint64_t seed = 0;           // rotates the orders, draws the random ones
  int resident_blocks = 1;     // of an ordinary launch; a cooperative one has all its blocks resident
  bool count_sectors = false;  // takes time
};

// A small device, so that a cooperative launch which fills it stays small; otherwise as an H100.
struct Device {
  int multiprocessors = 4;
  int threads_per_multiprocessor = 2048, blocks_per_multiprocessor = 32;
  size_t shared_per_multiprocessor = 228 * 1024, shared_opt_in = 227 * 1024;
  int compute_capability = 90;
};

enum class Fault {
  race,           // two accesses that nothing orders, at least one of them a plain write or one plain and one atomic
  out_of_bounds,  // no live memory of the device holds the address
  uninitialised,  // a read of what nobody wrote
  misaligned,
  divergence,  // a barrier or warp operation that not all its threads reach, or not at the same place
  deadlock,
  no_grid_barrier,  // grid_sync in an ordinary launch
  host_access,      // host code reads or writes the device's memory
  shared_too_large,
  stream_capture,  // what a capturing stream forbids
  trapped,
};
const char *name(Fault fault);

struct Finding {
  Fault fault;
  std::string kernel, text;
};

// Of all launches of one kernel. A barrier counts once for each block that passes it, a warp's operation once for a
// warp. Memory is global memory. Sectors are 32 bytes: `requested` counts those that each warp's access touches, by
// itself, as the profiler does; `touched` those that a launch touches at all, which is what caches without limit would
// move.
struct Counters {
  int64_t launches = 0, blocks = 0, threads = 0;
  int64_t barriers = 0, most_barriers_of_a_block = 0, grid_barriers = 0, warp_operations = 0, fences = 0;
  int64_t atomics = 0, shared_accesses = 0;
  struct Direction {
    int64_t accesses = 0, bytes = 0, requested_sectors = 0, touched_sectors = 0;
    std::map<int64_t, int64_t> widths;  // bytes of one access -> how many
  } loads, stores;
};

struct Report {
  std::vector<Finding> findings;
  std::map<std::string, Counters> kernels;
  int64_t synchronisations = 0, copies_to_host = 0, allocations = 0, live_allocations = 0;

  bool has(Fault fault) const;
  std::string text() const;
};

// Runs host code on a fresh device. What is allocated and not freed counts as live, and is gone afterwards.
Report run(const Options &options, const std::function<void()> &host_code, const Device &device = {});

// Whether the kernels were compiled with -fsanitize=thread; otherwise accesses aren't seen, only operations.
bool sees_accesses();

}  // namespace treescan::emulation
