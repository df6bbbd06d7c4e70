#include "parallel.h"

#include <condition_variable>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace treescan {

namespace {

// Threads that sleep between jobs. One job at a time: a caller that finds the pool busy (another thread's call, or a
// call from inside a job) does its own work alone, which changes nothing but the time.
class Pool {
 public:

  void run(int64_t count, void (*body)(void *, int64_t), void *task) {
    const std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
    if (!busy.owns_lock() || count == 1) {
      for (int64_t i = 0; i < count; ++i) body(task, i);
      return;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_threads(count - 1);
      body_ = body;
      task_ = task;
      count_ = count;
      next_ = 0;
      unfinished_ = count;
    }
    wake_.notify_all();
    take_parts();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return unfinished_ == 0; });
  }

 private:
  // So many threads, or as many as the system grants: parts are handed out one by one, so fewer do as well.
  void start_threads(int64_t count) {
    try {
      while (static_cast<int64_t>(threads_.size()) < count) threads_.emplace_back([this] { serve(); });
    } catch (const std::system_error &) {
    } catch (const std::bad_alloc &) {
    }
  }

  void serve() {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return next_ < count_; });
      }
      take_parts();
    }
  }

  void take_parts() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (next_ < count_) {
      const int64_t i = next_++;
      const auto body = body_;
      void *const task = task_;
      lock.unlock();
      body(task, i);
      lock.lock();
      if (--unfinished_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  void (*body_)(void *, int64_t) = nullptr;
  void *task_ = nullptr;
  int64_t count_ = 0, next_ = 0, unfinished_ = 0;
};

std::atomic<int32_t> thread_count{0};  // 0: not set, the number of processors
thread_local int32_t pinned_count = 0;  // 0: none
std::atomic<treescan_parallel_for> lent_parallel_for{nullptr};
std::atomic<void *> lent_context{nullptr};

// The pool is never destroyed: at exit its threads may be gone already, and joining them could hang.
std::atomic<Pool *> pool{nullptr};
std::mutex pool_mutex;

#if !defined(_WIN32)
// A forked child has none of the parent's threads. It forgets the pool (and leaks its few bytes) and starts a new one.
void forget_pool_in_child() {
  new (&pool_mutex) std::mutex;
  pool.store(nullptr);
}
#endif

Pool &own_pool() {
  if (Pool *existing = pool.load()) return *existing;
  const std::lock_guard<std::mutex> lock(pool_mutex);
  if (!pool.load()) {
#if !defined(_WIN32)
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool_in_child);
    (void)registered;
#endif
    pool.store(new Pool);
  }
  return *pool.load();
}

}  // namespace

PinnedThreads::PinnedThreads() : outer_(pinned_count) {
  pinned_count = 0;
  pinned_count = num_threads();
}

PinnedThreads::~PinnedThreads() { pinned_count = outer_; }

int32_t num_threads() {
  if (pinned_count > 0) return pinned_count;
  const int32_t count = thread_count.load(std::memory_order_relaxed);
  if (count > 0) return count;
  static const int32_t processors =
      std::min<int32_t>(1024, std::max<int32_t>(1, static_cast<int32_t>(std::thread::hardware_concurrency())));
  return processors;
}

void set_num_threads(int32_t count) { thread_count.store(count); }

void set_parallel_for(treescan_parallel_for parallel_for, void *context) {
  lent_parallel_for.store(nullptr);
  lent_context.store(context);
  lent_parallel_for.store(parallel_for);
}

void run_parallel(int64_t count, void (*body)(void *task, int64_t i), void *task) {
  if (const treescan_parallel_for lent = lent_parallel_for.load()) {
    lent(lent_context.load(), count, body, task);
  } else {
    own_pool().run(count, body, task);
  }
}

}  // namespace treescan
