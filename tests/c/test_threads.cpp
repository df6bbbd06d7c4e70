// Many threads at once, each with calls of every kind, while the number of threads changes: the results are those of a
// thread alone, and every thread has its own messages. `make sanitize` runs it under ThreadSanitizer as well.
#include <atomic>
#include <thread>

#include "every_call.h"

TEST(every_call_at_once) {
  constexpr unsigned callers = 5;
  constexpr int rounds = 12;
  std::atomic<int> wrong{0}, unfinished{callers};
  treescan_set_num_threads(1);
  std::vector<std::unique_ptr<testing::EveryCalls>> every;
  std::vector<std::vector<std::string>> expected(callers);
  for (unsigned caller = 0; caller < callers; ++caller) {
    every.push_back(std::make_unique<testing::EveryCalls>(caller));
    for (const testing::EveryCall &call : every[caller]->calls) {
      EQUAL(call.run(), call.expected);
      expected[caller].push_back(call.bytes());
    }
  }
  std::vector<std::thread> threads;
  for (unsigned caller = 0; caller < callers; ++caller)
    threads.emplace_back([&, caller] {
      const std::vector<testing::EveryCall> &calls = every[caller]->calls;
      for (int round = 0; round < rounds; ++round)
        for (size_t i = 0; i < calls.size(); ++i) {
          const size_t which = (i * 7 + caller * 3) % calls.size();  // everybody in another order
          calls[which].wipe();
          wrong += calls[which].run() != calls[which].expected || calls[which].bytes() != expected[caller][which];
          const std::string text = "thread " + std::to_string(caller);
          treescan_set_instruction_set(text.c_str());
          wrong += std::string(treescan_last_error()).find(text) == std::string::npos;
        }
      --unfinished;
    });
  const std::vector<std::string> sets = testing::instruction_sets();
  for (int round = 0; unfinished > 0; ++round) {
    treescan_set_num_threads(1 + round % 4);
    treescan_set_instruction_set(sets[static_cast<size_t>(round) % sets.size()].c_str());
    wrong += treescan_get_num_threads() != 1 + round % 4;
    std::this_thread::yield();
  }
  for (std::thread &thread : threads) thread.join();
  EQUAL(wrong.load(), 0);
  treescan_set_instruction_set("auto");
}

// Threads that come and go: each has scratch memory and messages of its own, and takes them with it.
TEST(callers_that_come_and_go) {
  testing::EveryCalls first(1);
  treescan_set_num_threads(3);
  std::atomic<int> wrong{0};
  for (int round = 0; round < 10; ++round) {
    std::vector<std::thread> threads;
    for (int caller = 0; caller < 3; ++caller)
      threads.emplace_back([&] {
        wrong += *treescan_last_error() != 0;
        testing::EveryCalls every(1);
        for (const testing::EveryCall &call : every.calls) wrong += call.run() != call.expected;
      });
    for (std::thread &thread : threads) thread.join();
  }
  EQUAL(wrong.load(), 0);
}

TEST_MAIN
