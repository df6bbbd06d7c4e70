// Work in parallel on the library's own pool, or on one that the caller lends.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

#include "floating_point_control.h"
#include "treescan/treescan.h"

namespace treescan {

// Of this thread's call where one is pinned, else of the library. set_num_threads doesn't change what is pinned.
int32_t num_threads();
void set_num_threads(int32_t count);

// Keeps this thread's call at one number of threads, from the measuring of its scratch memory to its last task.
class PinnedThreads {
 public:
  PinnedThreads();
  ~PinnedThreads();
  PinnedThreads(const PinnedThreads &) = delete;
  PinnedThreads &operator=(const PinnedThreads &) = delete;

 private:
  int32_t outer_;
};

void set_parallel_for(treescan_parallel_for parallel_for, void *context);

// Runs body(task, i) for i in [0, count) on the pool in force. The body must not throw.
void run_parallel(int64_t count, void (*body)(void *task, int64_t i), void *task);

// How many workers share `tasks` tasks: each worker owns one slice of the scratch memory.
inline int64_t num_workers(int64_t tasks) { return std::max<int64_t>(1, std::min<int64_t>(num_threads(), tasks)); }

// Calls body(worker, task) for every task in [0, tasks); a worker takes one task at a time, and computes as the caller's thread
// would. The first exception stops the handing out of tasks and is thrown here once all workers have come home.
template <class Body>
void for_each_task(int64_t workers, int64_t tasks, Body &&body) {
  struct Shared {
    std::remove_reference_t<Body> &body;
    const int64_t tasks;
    const uint64_t control;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;
  } shared{body, tasks, floating_point_control(), {0}, {}, nullptr};
  const auto work = [](void *pointer, int64_t worker) {
    Shared &s = *static_cast<Shared *>(pointer);
    const FloatingPointControl control(s.control);
    try {
      for (int64_t task; (task = s.next.fetch_add(1, std::memory_order_relaxed)) < s.tasks;) s.body(worker, task);
    } catch (...) {
      s.next.store(s.tasks, std::memory_order_relaxed);
      const std::lock_guard<std::mutex> lock(s.mutex);
      if (!s.failure) s.failure = std::current_exception();
    }
  };
  if (workers == 1) {
    work(&shared, 0);
  } else {
    run_parallel(workers, work, &shared);
  }
  if (shared.failure) std::rethrow_exception(shared.failure);
}

}  // namespace treescan
