// Runs the threads of a launch, one at a time, and brings them together at barriers and warp operations.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "session.h"

namespace treescan::emulation {

Launch *launching;
Thread *running;

static Fiber host;
static std::vector<std::unique_ptr<Thread>> pool;  // threads, and with them stacks, wait here for the next block

// So many accesses without a change anywhere mean that threads wait for what no thread will do.
constexpr int64_t quiet_limit = 5'000'000;
// Every schedule makes way at last, for threads that wait in a loop.
constexpr int64_t turn_limit = 4096;

static uint64_t draw() {  // splitmix64
  uint64_t z = session().random += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static Thread &in_kernel(const char *what) {
  if (running) return *running;
  std::fprintf(stderr, "%s: called outside of a kernel\n", what);
  std::abort();
}

uint3 thread_index() { return in_kernel("threadIdx").index; }
uint3 block_index() { return in_kernel("blockIdx").block->index; }
dim3 block_size() { return in_kernel("blockDim"), launching->block; }
dim3 grid_size() { return in_kernel("gridDim"), launching->grid; }

static std::string three(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

static uint3 unravel(uint64_t number, dim3 size) {
  return {static_cast<unsigned>(number % size.x), static_cast<unsigned>(number / size.x % size.y),
          static_cast<unsigned>(number / size.x / size.y)};
}

std::string describe_thread(uint32_t block, uint32_t thread) {
  return "thread " + three(unravel(thread, launching->block)) + " of block " + three(unravel(block, launching->grid));
}

std::string describe(const Thread &thread) { return describe_thread(thread.block->number, thread.number); }

static std::string place(const Thread &t) {
  return std::string(t.operation) + " at " + t.file + ":" + std::to_string(t.line);
}

// ---- Who runs next ----

static Thread *pick() {
  const size_t count = launching->threads.size();
  const Schedule schedule = session().options.schedule;
  const bool backwards = schedule == Schedule::reversed;
  size_t i = schedule == Schedule::random || schedule == Schedule::runs ? draw() % count : launching->cursor;
  for (size_t left = count; left-- > 0;) {
    i = backwards ? (i ? i : count) - 1 : i + 1 < count ? i + 1 : 0;
    if (launching->threads[i]->state == State::runnable) {
      launching->cursor = i;
      return launching->threads[i];
    }
  }
  return nullptr;
}

// Goes to another thread, or to the host's loop where none can run or it has something to do.
static void leave(bool to_host = false) {
  Thread *const self = running;
  Thread *const next = to_host ? nullptr : pick();
  self->turn = 0;
  if (next == self) return;
  running = next;
  Fiber::switch_to(self->fiber, next ? next->fiber : host);
}

void make_way(bool atomic) {
  if (++launching->quiet > quiet_limit)
    stop(Fault::deadlock, [&] {
      return "nothing changed for " + std::to_string(quiet_limit) + " accesses: " + describe(*running) +
             " and others wait in a loop for what no resident block does";
    });
  Thread &t = *running;
  t.turn += atomic ? 64 : 1;
  const Schedule schedule = session().options.schedule;
  if (schedule == Schedule::lockstep || (schedule == Schedule::random && draw() % 4 == 0) || t.turn > turn_limit)
    leave();
}

static void wait(State state) {
  running->state = state;
  leave();
}

// Whoever came last to a barrier goes on at once, or anyone does.
static void after_meeting() {
  const Schedule schedule = session().options.schedule;
  if (schedule != Schedule::in_order && schedule != Schedule::reversed) leave();
}

static void resume(Thread &thread) {
  thread.state = State::runnable;
  launching->quiet = 0;
}

// ---- Findings ----

void find(Fault fault, const std::string &text) {
  Session &s = session();
  s.last_fault = fault;
  const std::string kernel = launching ? launching->name : "";
  if (!s.reported.insert(kernel + name(fault) + text).second || s.report.findings.size() >= 100) return;
  s.report.findings.push_back({fault, kernel, text});
}

void end_launch() {
  const Fault fault = session().last_fault;
  session().sticky_error = fault == Fault::out_of_bounds ? cudaErrorIllegalAddress
                           : fault == Fault::misaligned  ? cudaErrorMisalignedAddress
                                                         : cudaErrorLaunchFailure;
  launching->stopped = true;
  running->state = State::left;
  leave(true);
  std::abort();
}

void trap() {
  stop(Fault::trapped, [&] { return describe(in_kernel("__trap")); });
}

// No thread can run: some wait for others that won't come.
static void report_stuck() {
  for (const auto &block : launching->blocks) {
    const Thread *waiting = nullptr, *missing = nullptr;
    size_t together = 0;
    for (const Thread *t : block->threads) {
      if (t->state != State::left && !waiting) waiting = t;
      if (waiting && t->state == waiting->state && t->mask == waiting->mask) ++together;
    }
    if (!waiting) continue;
    for (const Thread *t : block->threads) {
      const bool absent = waiting->state == State::at_warp
                              ? t->number / 32 == waiting->number / 32 && waiting->mask >> t->lane() & 1
                              : true;
      if (absent && (t->state != waiting->state || t->mask != waiting->mask) && !missing) missing = t;
    }
    if (!missing) continue;  // a whole block at the grid barrier: another block is to blame
    find(Fault::divergence,
         place(*waiting) + " is reached by " + std::to_string(together) + " of " +
             std::to_string(launching->block_threads) + " threads, such as " + describe(*waiting) + "; " +
             describe(*missing) +
             (missing->state == State::left ? " has left the kernel" : " waits in " + place(*missing)));
    return;
  }
  find(Fault::divergence, "grid_sync isn't reached by all blocks");
}

// ---- Barriers and warp operations ----

static Thread &arrive(const char *operation, const char *file, int line, unsigned mask) {
  Thread &t = in_kernel(operation);
  t.operation = operation;
  t.file = file;
  t.line = line;
  t.mask = mask;
  return t;
}

// All threads that meet must come from the same place.
static void check_same_place(const Thread &a, const Thread &b) {
  if (a.line != b.line || std::strcmp(a.operation, b.operation) != 0 || std::strcmp(a.file, b.file) != 0)
    stop(Fault::divergence,
         [&] { return describe(a) + " is in " + place(a) + ", " + describe(b) + " in " + place(b); });
}

static void join_clocks(Thread *const *threads, size_t count) {
  std::vector<ThreadClock *> clocks(count);
  for (size_t i = 0; i < count; ++i) clocks[i] = &threads[i]->clock;
  session().races.barrier(clocks.data(), static_cast<int>(count));
}

int block_barrier(Vote vote, bool predicate, const char *file, int line) {
  static const char *const names[] = {"__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count"};
  Thread &t = arrive(names[static_cast<int>(vote)], file, line, 0);
  Block &block = *t.block;
  t.value = predicate;
  if (++block.waiting < launching->block_threads) {
    wait(State::at_block_barrier);
    return static_cast<int>(t.result);
  }
  uint64_t count = 0;
  for (Thread *other : block.threads) {
    check_same_place(*other, t);
    count += other->value;
  }
  join_clocks(block.threads.data(), block.threads.size());
  close_requests(block, -1);
  ++block.barriers;
  ++launching->counters->barriers;
  block.waiting = 0;
  for (Thread *other : block.threads) {
    other->result = vote == Vote::count ? count : vote == Vote::any ? count > 0 : count == launching->block_threads;
    resume(*other);
  }
  after_meeting();
  return static_cast<int>(t.result);
}

// The lanes that meet in an operation of a warp.
struct Lanes {
  Thread *of[32] = {};  // null for those not in the mask
  Thread *present[32];
  size_t count = 0;

  Thread *const *begin() const { return present; }
  Thread *const *end() const { return present + count; }
};

// Brings the lanes of the mask together. Whoever comes last calls complete(lanes).
template <class Complete>
static uint64_t warp_operation(Thread &t, Complete &&complete) {
  Block &block = *t.block;
  const uint32_t first = t.number / 32 * 32;
  const uint32_t size = std::min(32u, launching->block_threads - first);
  if (!(t.mask >> t.lane() & 1))
    stop(Fault::divergence, [&] { return describe(t) + " isn't in the mask of " + place(t); });
  if (size < 32 && t.mask >> size)
    stop(Fault::divergence, [&] {
      return place(t) + ": the mask has lanes past the " + std::to_string(size) + " of the last warp, of " +
             describe(t);
    });
  Lanes lanes;
  for (uint32_t lane = 0; lane < size; ++lane) {
    Thread *const other = block.threads[first + lane];
    const bool here = other == &t || (other->state == State::at_warp && other->mask == t.mask);
    if (here && t.mask >> lane & 1) lanes.present[lanes.count++] = lanes.of[lane] = other;
  }
  if (lanes.count < static_cast<size_t>(__builtin_popcount(t.mask))) {
    wait(State::at_warp);
    return t.result;
  }
  for (const Thread *other : lanes) check_same_place(*other, t);
  complete(lanes);
  if (t.mask == 0xffffffffu) close_requests(block, first / 32);
  ++launching->counters->warp_operations;
  for (Thread *other : lanes) resume(*other);
  after_meeting();
  return t.result;
}

void warp_barrier(unsigned mask, const char *file, int line) {
  Thread &t = arrive("__syncwarp", file, line, mask);
  warp_operation(t, [](const Lanes &lanes) { join_clocks(lanes.present, lanes.count); });
}

unsigned warp_ballot(unsigned mask, bool predicate, const char *file, int line) {
  Thread &t = arrive("a vote", file, line, mask);
  t.value = predicate;
  return static_cast<unsigned>(warp_operation(t, [](const Lanes &lanes) {
    uint64_t ballot = 0;
    for (const Thread *p : lanes) ballot |= p->value << p->lane();
    for (Thread *p : lanes) p->result = ballot;
  }));
}

uint64_t warp_shuffle(Shuffle how, unsigned mask, uint64_t bits, int argument, int width, const char *file, int line) {
  Thread &t = arrive("a shuffle", file, line, mask);
  t.value = bits;
  t.argument = argument;
  t.width = width;
  return warp_operation(t, [how](const Lanes &lanes) {
    for (Thread *p : lanes) {
      const int lane = static_cast<int>(p->lane()), segment = lane / p->width * p->width;
      int from = how == Shuffle::index  ? segment + (p->argument & (p->width - 1))
                 : how == Shuffle::up   ? lane - p->argument
                 : how == Shuffle::down ? lane + p->argument
                                        : lane ^ p->argument;
      if (from < segment || from >= segment + p->width) from = lane;
      if (!lanes.of[from])
        stop(Fault::divergence, [&] {
          return describe(*p) + " takes lane " + std::to_string(from) + ", which isn't in the mask of " + place(*p);
        });
      p->result = lanes.of[from]->value;
    }
  });
}

void grid_barrier(const char *file, int line) {
  Thread &t = arrive("grid_sync", file, line, 0);
  if (!launching->cooperative) stop(Fault::no_grid_barrier, [&] { return place(t) + " needs a cooperative launch"; });
  if (++launching->at_grid_barrier < launching->threads.size()) return wait(State::at_grid_barrier);
  session().races.new_era();
  launching->at_grid_barrier = 0;
  ++launching->counters->grid_barriers;
  for (Thread *other : launching->threads) {
    check_same_place(*other, t);
    other->clock.known = other->clock.released = other->clock.received = nullptr;
  }
  for (const auto &block : launching->blocks) close_requests(*block, -1);
  for (Thread *other : launching->threads) resume(*other);
  after_meeting();
}

void fence() {
  session().races.fence(in_kernel("__threadfence").clock);
  ++launching->counters->fences;
}

// ---- Blocks and launches ----

static void thread_body() {
  launching->body(launching->arguments);
  Thread &t = *running;
  t.state = State::left;
  launching->quiet = 0;
  leave(++t.block->left == launching->block_threads);
}

static void admit() {
  Launch &l = *launching;
  const size_t most = l.cooperative ? SIZE_MAX : static_cast<size_t>(session().options.resident_blocks);
  const bool changes = !l.order.empty() && l.blocks.size() < most;
  while (!l.order.empty() && l.blocks.size() < most) {
    auto block = std::make_unique<Block>();
    block->number = l.order.back();
    l.order.pop_back();
    block->index = unravel(block->number, l.grid);
    if (l.shared_bytes)
      block->shared.push_back({nullptr, std::make_unique<Memory>(l.shared_bytes, size_t{16}, accesses_seen)});
    block->shared_bytes = l.shared_bytes;
    for (uint32_t i = 0; i < l.block_threads; ++i) {
      if (pool.empty()) pool.push_back(std::make_unique<Thread>());
      Thread *t = pool.back().release();
      pool.pop_back();
      t->block = block.get();
      t->number = i;
      t->index = unravel(i, l.block);
      t->state = State::runnable;
      t->turn = 0;
      t->mask = 0;
      t->executions.clear();
      t->clock = {block->number, i, l.block_threads, 1, nullptr, nullptr, nullptr};
      t->fiber.start(thread_body);
      block->threads.push_back(t);
      l.threads.push_back(t);
    }
    l.blocks.push_back(std::move(block));
    ++l.counters->blocks;
    l.counters->threads += l.block_threads;
  }
  if (!changes || l.threads.empty()) return;
  const size_t count = l.threads.size(), shift = session().options.seed % count;
  l.cursor = session().options.schedule == Schedule::reversed ? shift : (shift + count - 1) % count;
}

static void retire(bool all) {
  Launch &l = *launching;
  l.threads.clear();
  for (auto &block : l.blocks) {
    if (!all && block->left < l.block_threads) {
      l.threads.insert(l.threads.end(), block->threads.begin(), block->threads.end());
      continue;
    }
    close_requests(*block, -1);
    for (const SharedArray &array : block->shared) session().races.forget(array.memory->begin, array.memory->bytes);
    l.counters->most_barriers_of_a_block = std::max(l.counters->most_barriers_of_a_block, block->barriers);
    for (Thread *t : block->threads) pool.emplace_back(t);
    block.reset();
  }
  l.blocks.erase(std::remove(l.blocks.begin(), l.blocks.end(), nullptr), l.blocks.end());
  if (l.cursor >= l.threads.size()) l.cursor = 0;
}

static std::vector<uint32_t> block_order(uint64_t blocks) {
  if (blocks > UINT32_MAX) throw std::length_error("the emulation takes fewer than 2^32 blocks");
  const auto count = static_cast<uint32_t>(blocks);
  std::vector<uint32_t> order(count);
  const Options &options = session().options;
  for (uint32_t i = 0; i < count; ++i) order[i] = static_cast<uint32_t>((blocks - 1 - i + options.seed) % blocks);
  if (options.schedule == Schedule::reversed) std::reverse(order.begin(), order.end());
  if (options.schedule == Schedule::random || options.schedule == Schedule::runs)
    for (uint32_t i = count; i > 1; --i) std::swap(order[i - 1], order[draw() % i]);
  return order;
}

cudaError_t resident_blocks(int *count, int block_threads, size_t shared_bytes) {
  const Device &device = session().device;
  const int by_threads = device.threads_per_multiprocessor / std::max(1, (block_threads + 31) / 32 * 32);
  // A block takes 1 KiB of shared memory besides its own.
  const auto by_shared = static_cast<int>(device.shared_per_multiprocessor / (shared_bytes + 1024));
  *count = std::min({device.blocks_per_multiprocessor, by_threads, by_shared});
  return cudaSuccess;
}

static cudaError_t check_launch(bool cooperative, Kernel kernel, dim3 grid, dim3 block, size_t shared_bytes) {
  Session &s = session();
  const uint64_t threads = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (s.sticky_error != cudaSuccess) return s.sticky_error;
  if (threads == 0 || blocks == 0 || threads > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  const auto limit = s.dynamic_shared_limit.find(kernel);
  if (shared_bytes > (limit == s.dynamic_shared_limit.end() ? 48 * 1024 : limit->second)) return cudaErrorInvalidValue;
  if (cooperative) {
    int resident;
    resident_blocks(&resident, static_cast<int>(threads), shared_bytes);
    if (blocks > static_cast<uint64_t>(resident) * static_cast<uint64_t>(s.device.multiprocessors))
      return cudaErrorCooperativeLaunchTooLarge;
  }
  return cudaSuccess;
}

cudaError_t launch(bool cooperative, const char *name, Kernel kernel, dim3 grid, dim3 block, size_t shared_bytes,
                   void (*body)(const void *), const void *arguments, size_t argument_bytes) {
  Session &s = session();
  if (launching) std::fprintf(stderr, "%s: launched from a kernel\n", name), std::abort();
  const cudaError_t error = check_launch(cooperative, kernel, grid, block, shared_bytes);
  if (error != cudaSuccess) return s.last_error = error;

  std::string plain_name = name;  // LAUNCH's argument may stand in parentheses
  if (plain_name.front() == '(') plain_name = plain_name.substr(1, plain_name.size() - 2);
  Launch l{plain_name, grid, block, shared_bytes, cooperative, body, arguments, argument_bytes};
  l.block_threads = block.x * block.y * block.z;
  l.order = block_order(uint64_t{grid.x} * grid.y * grid.z);
  l.counters = &s.report.kernels[l.name];
  ++l.counters->launches;
  ++s.launches;
  s.races.new_era();
  launching = &l;
  for (;;) {
    admit();
    if (l.threads.empty()) break;
    running = pick();
    if (!running) {
      report_stuck();
      s.sticky_error = cudaErrorLaunchFailure;
      break;
    }
    Fiber::switch_to(host, running->fiber);
    running = nullptr;
    if (l.stopped) break;
    retire(false);
  }
  retire(true);
  launching = nullptr;
  return cudaSuccess;  // as on a device, a kernel's failure shows up in the calls after it
}

}  // namespace treescan::emulation
