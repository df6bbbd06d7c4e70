// What the parts of the emulator share: the device's memory, the launch that runs, and how findings come about.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "emulation.h"
#include "emulator.h"
#include "fiber.h"
#include "race_check.h"

namespace treescan::emulation {

// A piece of the device's memory. Fresh memory holds poison, not zeros.
struct Memory {
  Memory(size_t size, size_t alignment, bool shadowed);
  ~Memory();
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;

  bool holds(const void *address, size_t size) const {
    return address >= begin && static_cast<const char *>(address) + size <= begin + bytes;
  }
  size_t offset(const void *address) const { return static_cast<size_t>(static_cast<const char *>(address) - begin); }

  char *begin;
  size_t bytes;
  std::unique_ptr<Shadow> shadow;  // where accesses are seen

 private:
  void *block_;
  size_t alignment_;
};

struct Allocation : Memory {
  Allocation(size_t size, int64_t number_, bool shadowed) : Memory(size, 256, shadowed), number(number_) {
    if (shadowed) load_launch.resize(size / 32 + 1), store_launch.resize(size / 32 + 1);
  }
  // As it is for a session that begins: written, by nobody who runs.
  void renew() {
    if (!shadow) return;
    shadow = std::make_unique<Shadow>(bytes);
    shadow->mark_written(0, bytes);
  }

  int64_t number;
  bool freed = false;                               // and kept, so that a late access is told from a wild one
  bool pinned = false;                              // host memory that the device sees too
  std::vector<uint32_t> load_launch, store_launch;  // the last launch that touched each sector
};

struct Block;

enum class State { runnable, at_block_barrier, at_warp, at_grid_barrier, left };

struct Thread {
  Fiber fiber;
  Block *block = nullptr;
  uint3 index{};
  uint32_t number = 0;  // in its block
  State state = State::runnable;
  const char *operation = nullptr, *file = nullptr;  // where it waits
  int line = 0;
  unsigned mask = 0;
  uint64_t value = 0, result = 0;  // what it gives to the operation, and gets
  int argument = 0, width = 0;     // of a shuffle
  int64_t turn = 0;                // what it did since it last made way for others
  ThreadClock clock{};
  std::unordered_map<const void *, uint32_t> executions;  // of each instruction, since its warp last met

  uint32_t lane() const { return number % 32; }
};

struct SharedArray {
  const char *key;  // null: the dynamic one
  std::unique_ptr<Memory> memory;
};

struct Block {
  uint3 index{};
  uint32_t number = 0;
  std::vector<Thread *> threads;
  std::vector<SharedArray> shared;
  size_t shared_bytes = 0;
  uint32_t waiting = 0, left = 0;  // threads at the block's barrier, and gone
  int64_t barriers = 0;
  // The sectors that a warp touches at one execution of one instruction.
  std::map<std::tuple<uint32_t, const void *, uint32_t, bool>, std::vector<uintptr_t>> requests;
};

struct Launch {
  std::string name;
  dim3 grid, block;
  size_t shared_bytes;
  bool cooperative;
  void (*body)(const void *);
  const void *arguments;
  size_t argument_bytes;
  uint32_t block_threads = 0;
  std::vector<uint32_t> order{};                 // of the blocks still to come, the last one first
  std::vector<std::unique_ptr<Block>> blocks{};  // resident
  std::vector<Thread *> threads{};               // theirs
  size_t cursor = 0;
  uint64_t at_grid_barrier = 0;
  int64_t quiet = 0;  // accesses since anything last changed
  bool stopped = false;
  Counters *counters = nullptr;
};

struct Session {
  Options options;
  Device device;
  Report report;
  std::map<uintptr_t, std::unique_ptr<Allocation>> memory;
  std::unordered_map<Kernel, size_t> dynamic_shared_limit;
  cudaError_t last_error = cudaSuccess, sticky_error = cudaSuccess;
  bool capturing = false;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  uint32_t launches = 0;
  uint64_t random = 0;
  RaceCheck races;
  std::set<std::string> reported;
  Fault last_fault{};

  Allocation *find(const void *address);  // the one at or below the address
};

// Host memory that the device sees outlives sessions, as the host's variables do that point to it.
std::map<uintptr_t, std::unique_ptr<Allocation>> &pinned_memory();

extern Session *current;
Session &session();         // the current one; ends the program where there is none
extern Launch *launching;   // null outside kernels
extern Thread *running;     // null in host code
extern bool accesses_seen;  // kernels report their accesses

std::string describe(const Thread &thread);
std::string describe_thread(uint32_t block, uint32_t thread);
std::string source_line(const void *site);

void find(Fault fault, const std::string &text);
[[noreturn]] void end_launch();

// Ends the launch with a finding. Nothing on the stacks of its threads is destroyed, so the text must be gone by then.
template <class Text>
[[noreturn]] void stop(Fault fault, Text &&text) {
  find(fault, text());
  end_launch();
}

void make_way(bool atomic);                       // lets another thread run, if the schedule says so
void close_requests(Block &block, int64_t warp);  // counts what a warp's lanes did together; -1: all warps

void access(const void *address, size_t bytes, Access access, const void *site, bool aligned);

}  // namespace treescan::emulation
