// The library itself: version, messages, threads, instruction sets, forks and concurrent calls.
#include <atomic>
#include <thread>

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "testing.h"

namespace {

// A scan of many tiles: work for several threads.
struct Work {
  Array<float> x{{3, 50, 12}}, weights{{3, 50, 12}}, y{{3, 50, 12}};
  Array<float> cost{{3, 17}};
  treescan::graph grid = treescan::grid(3, 4);

  explicit Work(unsigned seed) {
    std::mt19937 generator(seed);
    x.random(generator, -1, 1);
    weights.random(generator, -1, 1);
  }

  std::string run() {
    const treescan::tensor_view features = x.view();
    treescan::edge_weights(grid, features, treescan::metric::l2, false, cost.view());
    const treescan::tree tree = treescan::minimum_spanning_tree(grid, cost.view());
    treescan::scan(treescan::direction::both, tree, features, weights.view(), y.view());
    return y.bytes();
  }
};

}  // namespace

TEST(version) {
  EQUAL(treescan_version(), TREESCAN_VERSION);
  const std::string info = treescan_build_info();
  std::ostringstream number;
  number << TREESCAN_VERSION_MAJOR << "." << TREESCAN_VERSION_MINOR << "." << TREESCAN_VERSION_PATCH;
  CHECK(info.find(number.str()) != std::string::npos, info);
  CHECK(info.find("cpu") != std::string::npos, info);
  CHECK(info.find('\n') == std::string::npos, info);
  for (const std::string &set : testing::instruction_sets()) CHECK(info.find(set) != std::string::npos, info);
}

// Programs of which headers it serves (CONTRIBUTING.md, Versions).
TEST(versions_that_fit) {
  SUCCEEDS(treescan_check_version(TREESCAN_VERSION));
  FAILS(treescan_check_version(TREESCAN_VERSION + 1), TREESCAN_INCOMPATIBLE, "older");
  FAILS(treescan_check_version(TREESCAN_VERSION + 100), TREESCAN_INCOMPATIBLE, "older");
  FAILS(treescan_check_version(TREESCAN_VERSION + 10000), TREESCAN_INCOMPATIBLE, "older");
  FAILS(treescan_check_version(INT32_MAX), TREESCAN_INCOMPATIBLE, "older");
  const int32_t first = TREESCAN_VERSION_MAJOR ? 10000 * TREESCAN_VERSION_MAJOR : 100 * TREESCAN_VERSION_MINOR;
  SUCCEEDS(treescan_check_version(first));
  FAILS(treescan_check_version(first - 1), TREESCAN_INCOMPATIBLE, "too new");
  FAILS(treescan_check_version(0), TREESCAN_INCOMPATIBLE, "too new");
  FAILS(treescan_check_version(-1), TREESCAN_INCOMPATIBLE, "too new");
  std::ostringstream both;
  both << "library " << TREESCAN_VERSION_MAJOR << "." << TREESCAN_VERSION_MINOR << "." << TREESCAN_VERSION_PATCH
       << ", header 34.56.78";
  FAILS(treescan_check_version(345678), TREESCAN_INCOMPATIBLE, both.str());
}

TEST(names_of_statuses) {
  const char *const names[] = {"TREESCAN_OK",
                               "TREESCAN_INVALID_ARGUMENT",
                               "TREESCAN_UNSUPPORTED_DTYPE",
                               "TREESCAN_UNSUPPORTED_DEVICE",
                               "TREESCAN_TOO_LARGE",
                               "TREESCAN_DISCONNECTED",
                               "TREESCAN_NOT_A_TREE",
                               "TREESCAN_OUT_OF_RANGE",
                               "TREESCAN_OUT_OF_MEMORY",
                               "TREESCAN_INTERNAL",
                               "TREESCAN_INCOMPATIBLE"};
  for (int32_t status = 0; status < 11; ++status) EQUAL(std::string(treescan_status_name(status)), names[status]);
  for (const int32_t status : {-1, 11, INT32_MAX, INT32_MIN})
    EQUAL(std::string(treescan_status_name(status)), "unknown status");
}

// Numbers that programs are compiled with; abidiff doesn't see them, since calls take them as int32_t.
TEST(numbers_of_choices) {
  EQUAL(TREESCAN_FLOAT32, 1);
  EQUAL(TREESCAN_FLOAT64, 2);
  EQUAL(TREESCAN_FLOAT16, 3);
  EQUAL(TREESCAN_BFLOAT16, 4);
  EQUAL(TREESCAN_INT32, 5);
  EQUAL(TREESCAN_INT64, 6);
  EQUAL(TREESCAN_CPU, 1);
  EQUAL(TREESCAN_CUDA, 2);
  EQUAL(TREESCAN_MAX_DIMS, 4);
  EQUAL(TREESCAN_GRID, 1);
  EQUAL(TREESCAN_TOKENS, 2);
  EQUAL(TREESCAN_CHAIN, 3);
  EQUAL(TREESCAN_EDGES, 4);
  EQUAL(TREESCAN_COSINE, 1);
  EQUAL(TREESCAN_L2, 2);
  EQUAL(TREESCAN_L1, 3);
  EQUAL(TREESCAN_UP, 1);
  EQUAL(TREESCAN_DOWN, 2);
  EQUAL(TREESCAN_BOTH, 3);
  EQUAL(TREESCAN_BY_VERTEX, 1);
  EQUAL(TREESCAN_BY_EDGE, 2);
}

TEST(messages_belong_to_a_thread) {
  std::string before, after, here;
  std::thread([&] {
    before = treescan_last_error();
    treescan_set_num_threads(0);
    after = treescan_last_error();
  }).join();
  treescan_set_instruction_set("z80");
  here = treescan_last_error();
  EQUAL(before, "");
  CHECK(after.find("num_threads") != std::string::npos, after);
  CHECK(here.find("z80") != std::string::npos, here);
}

TEST(numbers_of_threads) {
  const int32_t before = treescan_get_num_threads();
  CHECK(before >= 1);
  for (const int32_t count : {1, 7, 1024}) {
    SUCCEEDS(treescan_set_num_threads(count));
    EQUAL(treescan_get_num_threads(), count);
  }
  for (const int32_t count : {0, -1, 1025, INT32_MAX, INT32_MIN}) {
    FAILS(treescan_set_num_threads(count), TREESCAN_INVALID_ARGUMENT, "num_threads");
    EQUAL(treescan_get_num_threads(), 1024);
  }
  treescan_set_num_threads(before);
}

TEST(instruction_sets) {
  const std::string best = treescan_get_instruction_set();
  const std::vector<std::string> sets = testing::instruction_sets();
  CHECK(!sets.empty() && sets[0] == "baseline");
  EQUAL(sets.back(), best);
  for (const std::string &set : sets) {
    SUCCEEDS(treescan_set_instruction_set(set.c_str()));
    EQUAL(std::string(treescan_get_instruction_set()), set);
  }
  SUCCEEDS(treescan_set_instruction_set("baseline"));
  FAILS(treescan_set_instruction_set(nullptr), TREESCAN_INVALID_ARGUMENT, "name");
  FAILS(treescan_set_instruction_set("AVX2"), TREESCAN_INVALID_ARGUMENT, "AVX2");
  FAILS(treescan_set_instruction_set(""), TREESCAN_INVALID_ARGUMENT, "name");
  EQUAL(std::string(treescan_get_instruction_set()), "baseline");
  SUCCEEDS(treescan_set_instruction_set("auto"));
  EQUAL(std::string(treescan_get_instruction_set()), best);
}

TEST(devices) {
  SUCCEEDS(treescan_synchronize(TREESCAN_CPU, 0, nullptr));
  for (const int32_t device : {0, 3, -1, INT32_MAX})
    FAILS(treescan_synchronize(device, 0, nullptr), TREESCAN_UNSUPPORTED_DEVICE, "device: expected device TREESCAN_CPU");
  FAILS(treescan_set_cuda_trees(nullptr), TREESCAN_INVALID_ARGUMENT, "team");
  FAILS(treescan_set_cuda_scans(nullptr), TREESCAN_INVALID_ARGUMENT, "strategy");
  if (testing::has_cuda()) {
    for (const char *const name : {"block", "grid", "auto"}) SUCCEEDS(treescan_set_cuda_trees(name));
    for (const char *const name : {"levels", "paths", "auto"}) SUCCEEDS(treescan_set_cuda_scans(name));
    FAILS(treescan_set_cuda_trees("levels"), TREESCAN_INVALID_ARGUMENT, "team: expected \"auto\"");
    FAILS(treescan_set_cuda_scans("grid"), TREESCAN_INVALID_ARGUMENT, "strategy: expected \"auto\"");
    // With a device or without.
    FAILS(treescan_synchronize(TREESCAN_CUDA, -1, nullptr), TREESCAN_UNSUPPORTED_DEVICE, "device_index: expected a");
  } else {
    const char *const missing = "this build has no CUDA backend";
    FAILS(treescan_synchronize(TREESCAN_CUDA, 0, nullptr), TREESCAN_UNSUPPORTED_DEVICE, missing);
    FAILS(treescan_set_cuda_trees("auto"), TREESCAN_UNSUPPORTED_DEVICE, missing);
    FAILS(treescan_set_cuda_scans("auto"), TREESCAN_UNSUPPORTED_DEVICE, missing);
  }
}

TEST(a_lent_parallel_for) {
  treescan_set_num_threads(4);
  const std::string expected = Work(1).run();
  struct Lent {
    std::atomic<int> calls{0}, bodies{0};
  } lent;
  // On threads of its own, one for each part.
  const auto on_threads = [](void *context, int64_t count, void (*body)(void *, int64_t), void *task) {
    auto &counts = *static_cast<Lent *>(context);
    ++counts.calls;
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < count; ++i)
      threads.emplace_back([&counts, body, task, i] {
        ++counts.bodies;
        body(task, i);
      });
    for (std::thread &thread : threads) thread.join();
  };
  // Backwards on the calling thread: a pool with no threads to spare.
  const auto backwards = [](void *context, int64_t count, void (*body)(void *, int64_t), void *task) {
    ++static_cast<Lent *>(context)->calls;
    for (int64_t i = count; i-- > 0;) body(task, i);
  };
  for (const treescan_parallel_for parallel_for :
       {treescan_parallel_for{on_threads}, treescan_parallel_for{backwards}}) {
    SUCCEEDS(treescan_set_parallel_for(parallel_for, &lent));
    CHECK(Work(1).run() == expected);
    CHECK(lent.calls > 0);
    // A failure inside a task comes back as a status.
    const int32_t parent[] = {1, 0, 1, 0, 1, 0, 1, 0};
    int32_t out[8];
    const treescan::tensor_view p(parent, {4, 2}), o(out, {4, 2});
    const treescan_tree_output output{&o, nullptr, nullptr, nullptr};
    FAILS(treescan_tree_from_parents(&p, nullptr, &output, nullptr, nullptr), TREESCAN_NOT_A_TREE, "parent");
    lent.calls = 0;
  }
  CHECK(lent.bodies >= 2);
  SUCCEEDS(treescan_set_parallel_for(nullptr, nullptr));
  CHECK(Work(1).run() == expected);
  EQUAL(lent.calls.load(), 0);
  treescan_set_num_threads(2);
}

// Calls from several threads at once share one pool; each gets its own result.
TEST(concurrent_calls) {
  treescan_set_num_threads(3);
  std::vector<std::string> expected;
  for (unsigned seed = 0; seed < 6; ++seed) expected.push_back(Work(seed).run());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 6; ++seed)
    threads.emplace_back([&, seed] {
      Work work(seed);
      for (int round = 0; round < 40; ++round) {
        wrong += work.run() != expected[seed];
        // Failures of other threads leave this thread's message alone.
        const std::string text = "thread " + std::to_string(seed);
        treescan_set_instruction_set(text.c_str());
        wrong += std::string(treescan_last_error()).find(text) == std::string::npos;
      }
    });
  // Meanwhile the number of threads changes.
  for (int round = 0; round < 40; ++round) treescan_set_num_threads(1 + round % 5);
  for (std::thread &thread : threads) thread.join();
  EQUAL(wrong.load(), 0);
  treescan_set_num_threads(2);
}

// Not under ThreadSanitizer, which lets no child start threads, nor under AddressSanitizer: its allocator in older compilers
// can stay locked in the child of a process with threads.
// tests/test_properties.py forks without it.
#if !defined(_WIN32) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// A child has none of the threads that its parent started; calls in it work nevertheless.
TEST(calls_after_a_fork) {
  treescan_set_num_threads(3);
  const std::string expected = Work(1).run();
  for (int round = 0; round < 3; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      bool right = Work(1).run() == expected;
      treescan_set_num_threads(5);
      right = right && Work(1).run() == expected;
      const pid_t grandchild = fork();  // again, from a process whose threads are its own
      if (grandchild == 0) _exit(Work(1).run() == expected ? 0 : 1);
      int status = -1;
      right = right && waitpid(grandchild, &status, 0) == grandchild && status == 0;
      _exit(right ? 0 : 1);
    }
    int status = -1;
    EQUAL(waitpid(child, &status, 0), child);
    EQUAL(status, 0);
    CHECK(Work(1).run() == expected);
  }
  treescan_set_num_threads(2);
}
#endif

TEST_MAIN
