// Memory and threads run out: every allocation of every call fails in turn, and so does every start of a thread.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <thread>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

#include "every_call.h"

namespace {

// The allocation that fails, counted from now; all behind it too, if so wanted. Negative: none.
std::atomic<int64_t> countdown{-1};
std::atomic<bool> all_behind{false};
std::atomic<int64_t> asked{0}, refused{0}, blocks{0};

void *get(std::size_t size, std::size_t alignment) {
  ++asked;
  if (countdown >= 0 && (countdown == 0 || countdown.fetch_sub(1) == 0)) {
    ++refused;
    if (!all_behind) countdown = -1;
    throw std::bad_alloc();
  }
  void *const memory = std::aligned_alloc(alignment, (std::max<std::size_t>(size, 1) + alignment - 1) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
  ++blocks;
  return memory;
}

void release(void *memory) {
  if (memory) --blocks;
  std::free(memory);
}

}  // namespace

// The library's allocations, and all of the standard library's on its behalf, come here.
void *operator new(std::size_t size) { return get(size, alignof(std::max_align_t)); }
void *operator new(std::size_t size, std::align_val_t alignment) { return get(size, static_cast<std::size_t>(alignment)); }
void operator delete(void *memory) noexcept { release(memory); }
void operator delete(void *memory, std::size_t) noexcept { release(memory); }
void operator delete(void *memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept { release(memory); }

namespace {

// Runs a call with the k-th allocation failing on a new thread, which keeps no scratch memory from an earlier call. Returns
// the status, and the message in a place that needs no memory.
treescan_status run_short(const testing::EveryCall &call, int64_t k, bool behind, char (&message)[256]) {
  treescan_status status = TREESCAN_OK;
  std::thread([&] {
    refused = 0;
    all_behind = behind;
    countdown = k;
    status = call.run();
    countdown = -1;
    std::snprintf(message, sizeof message, "%s", status == TREESCAN_OK ? "" : treescan_last_error());
  }).join();
  return status;
}

void check_every_allocation(const testing::EveryCall &call, int32_t threads) {
  treescan_set_num_threads(threads);
  char message[256];
  std::string expected;
  for (const bool behind : {false, true})
    for (int64_t k = 0;; ++k) {
      call.wipe();
      const treescan_status status = run_short(call, k, behind, message);
      const bool was_short = refused > 0;
      const auto where = [&] { return std::string(call.name) + ", allocation " + std::to_string(k) + ": " + message; };
      CHECK(call.intact(), where(), ": wrote beside an output");
      // A call that gets fewer threads than it would like does its work all the same.
      if (was_short && status != call.expected) {
        CHECK(status == TREESCAN_OUT_OF_MEMORY && std::string(message) == "out of memory", where(), " ", status);
      } else {
        CHECK(status == call.expected, where());
        if (status != TREESCAN_OK) CHECK(std::strlen(message) > 20, where());
      }
      // The next call works and finds what it would have found, and nothing is left behind.
      int64_t before = 0, after = 0;
      for (int64_t *const count : {&before, &after}) {
        call.wipe();
        CHECK(run_short(call, -1, false, message) == call.expected, where(), ", the next call");
        const std::string bytes = call.bytes();
        if (expected.empty()) expected = bytes;
        CHECK(bytes == expected, where(), ": the next call has another result");
        run_short(call, k, behind, message);
        *count = blocks;
      }
      CHECK(before == after, where(), ": ", after - before, " blocks are left behind");
      if (!was_short) break;
      if (k > 500) {
        CHECK(false, where(), ": no end of allocations");
        break;
      }
    }
}

}  // namespace

// First, while the library has no threads yet: the pool's own memory is part of it.
TEST(every_allocation_fails) {
  const int64_t before = asked;
  testing::EveryCalls every(1);
  for (const int32_t threads : {3, 1})
    for (const testing::EveryCall &call : every.calls) check_every_allocation(call, threads);
  CHECK(asked - before > 1000, "the library's allocations don't come here");
  treescan_set_num_threads(2);
}

#if defined(__linux__)
namespace {
std::atomic<int64_t> threads_left{INT64_MAX}, threads_refused{0};
}

extern "C" int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
  using Create = int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  static const auto real = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left.fetch_sub(1) <= 0) {
    ++threads_refused;
    return EAGAIN;
  }
  return real(thread, attributes, body, argument);
}

// A system that grants no more threads: work is done by those there are, down to the caller alone.
TEST(every_thread_fails) {
  testing::EveryCalls every(2, 40);
  std::vector<std::string> expected;
  treescan_set_num_threads(1);
  for (const testing::EveryCall &call : every.calls) {
    EQUAL(call.run(), call.expected);
    expected.push_back(call.bytes());
  }
  treescan_set_num_threads(30);
  for (const int64_t left : {0, 0, 1, 5, 100}) {
    threads_refused = 0;
    threads_left = left;
    for (size_t i = 0; i < every.calls.size(); ++i) {
      every.calls[i].wipe();
      EQUAL(every.calls[i].run(), every.calls[i].expected);
      CHECK(every.calls[i].bytes() == expected[i], every.calls[i].name);
    }
    threads_left = INT64_MAX;
    CHECK((threads_refused > 0) == (left < 20), left, " threads left, ", threads_refused.load(), " refused");
  }
  treescan_set_num_threads(2);
}
#endif

TEST_MAIN
