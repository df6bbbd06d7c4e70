// What the emulator finds, and what it lets pass: each of test_kernels.cu right and wrong.
#include <numeric>

#include "kernel_test.h"
#include "test_kernels.h"

using namespace kernel_test;
namespace tk = test_kernels;
using treescan::emulation::run;
constexpr int threads = tk::threads;

static std::vector<int> numbers(size_t count, int modulus) {
  std::vector<int> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<int>((i * 37 + 11) % static_cast<size_t>(modulus));
  return values;
}

static int sum(const std::vector<int> &values) { return std::accumulate(values.begin(), values.end(), 0); }

// A complete binary tree over the threads.
static std::vector<int> binary_tree() {
  std::vector<int> parent(threads, -1);
  for (int v = 1; v < threads; ++v) parent[static_cast<size_t>(v)] = (v - 1) / 2;
  return parent;
}

// ---- The table of planted faults ----

static void block_sum(bool correct) {
  const std::vector<int> x = numbers(5 * threads, 100);
  const DeviceArray<int> device_x(x), sums(size_t{5});
  succeed(tk::block_sum(correct, device_x, sums, 5), "block_sum");
  if (correct) EQUAL(sum(sums.values()), sum(x));
}
TEST(a_missing_barrier_in_a_reduction) {
  expect_clean("block_sum", [] { block_sum(true); });
  expect_fault("block_sum", Fault::race, "test_kernels.cu:", [] { block_sum(false); });
}

static void smallest(bool correct) {
  const std::vector<int> x = numbers(5 * threads, 1000);
  const DeviceArray<int> device_x(x), result(std::vector<int>{1 << 30});
  succeed(tk::smallest(correct, device_x, result, 5), "smallest");
  if (correct) EQUAL(result.values()[0], *std::min_element(x.begin(), x.end()));
}
TEST(a_plain_minimum_for_an_atomic_one) {
  expect_clean("smallest", [] { smallest(true); });
  expect_fault("smallest", Fault::race, "allocation #", [] { smallest(false); });
}

static void histogram(bool correct) {
  const std::vector<int> x = numbers(threads, 8);
  const DeviceArray<int> device_x(x), counts(size_t{8});
  succeed(tk::histogram(correct, device_x, counts), "histogram");
  if (correct) EQUAL(sum(counts.values()), threads);
}
TEST(readers_before_shared_memory_is_initialised) {
  expect_clean("histogram", [] { histogram(true); });
  expect_fault("histogram", Fault::race, "", [] { histogram(false); });
}

static void level_pass(bool correct) {
  const std::vector<int> parent = binary_tree(), x = numbers(threads, 100);
  const DeviceArray<int> device_parent(parent), device_x(x), y(size_t{threads});
  succeed(tk::level_pass(correct, device_parent, device_x, y), "level_pass");
  if (!correct) return;
  std::vector<int> expected = x;
  for (size_t v = 1; v < threads; ++v) expected[v] += expected[static_cast<size_t>(parent[v])];
  CHECK(y.values() == expected);
}
TEST(the_second_barrier_of_a_level_pass_missing) {
  expect_clean("level_pass", [] { level_pass(true); });
  expect_fault("level_pass", Fault::race, "a shared array of 256 bytes", [] { level_pass(false); });
}

static void grid_phases(bool correct) {
  const std::vector<int> x = numbers(5 * threads, 100);
  const DeviceArray<int> device_x(x), scratch(x.size()), y(x.size());
  succeed(tk::grid_phases(correct, device_x, scratch, y, 5), "grid_phases");
  if (correct) EQUAL(sum(y.values()), 4 * sum(x));
}
TEST(a_grid_barrier_replaced_by_a_block_barrier) {
  expect_clean("grid_phases", [] { grid_phases(true); });
  expect_fault("grid_phases", Fault::race, "", [] { grid_phases(false); });
}

static void last_block_sum(bool release, bool acquire) {
  const std::vector<int> x = numbers(5 * threads, 100);
  const DeviceArray<int> device_x(x), partial(size_t{5}), result(size_t{1});
  const DeviceArray<unsigned> done(std::vector<unsigned>{0});
  succeed(tk::last_block_sum(release, acquire, device_x, partial, done, result, 5), "last_block_sum");
  if (release && acquire) EQUAL(result.values()[0], sum(x));
}
TEST(a_fence_missing_on_either_side) {
  expect_clean("last_block_sum", [] { last_block_sum(true, true); });
  expect_fault("last_block_sum", Fault::race, "4-byte read", [] { last_block_sum(false, true); });
  expect_fault("last_block_sum", Fault::race, "4-byte read", [] { last_block_sum(true, false); });
}

static void last_block_copy(bool correct) {
  const std::vector<int> x = numbers(5 * threads, 100);
  const DeviceArray<int> device_x(x), between(x.size()), y(std::vector<int>(x.size()));
  const DeviceArray<unsigned> done(std::vector<unsigned>{0});
  succeed(tk::last_block_copy(correct, device_x, between, done, y, 5), "last_block_copy");
  if (correct) CHECK(y.values() == std::vector<int>(x.rbegin(), x.rend()));
}
TEST(a_fence_before_the_barrier_that_should_come_after_it) {
  expect_clean("last_block_copy", [] { last_block_copy(true); });
  expect_fault("last_block_copy", Fault::race, "allocation #2", [] { last_block_copy(false); });
}

static void replace_after_reading(bool correct) {
  const DeviceArray<int> number(std::vector<int>{7}), y(size_t{threads});
  succeed(tk::replace_after_reading(correct, number, y), "replace_after_reading");
  if (correct) CHECK(y.values() == std::vector<int>(threads, 7));
}
TEST(one_warp_waits_where_the_block_should) {
  expect_clean("replace_after_reading", [] { replace_after_reading(true); });
  expect_fault("replace_after_reading", Fault::race, "allocation #1 of 4 bytes", [] { replace_after_reading(false); });
}

// ---- Other orders ----

static void collect_children(bool correct) {
  const std::vector<int> parent = binary_tree();
  std::vector<int> expected(threads, 0), sums(threads, 0);
  for (int v = 1; v < threads; ++v) {
    const auto p = static_cast<size_t>(parent[static_cast<size_t>(v)]);
    ++expected[p];
    sums[p] += v;
  }
  const DeviceArray<int> device_parent(parent), slots(size_t{threads}), degree(std::vector<int>(threads, 0));
  const DeviceArray<int> device_sums(size_t{threads}), device_expected(expected);
  succeed(tk::collect_children(correct, device_parent, slots, degree, device_sums, device_expected),
          "collect_children");
  if (correct) CHECK(device_sums.values() == sums);
}
TEST(a_child_published_before_its_slot_is_written) {
  expect_clean("collect_children", [] { collect_children(true); });
  expect_fault("collect_children", Fault::race, "", [] { collect_children(false); });
}

static void warp_exchange(bool correct) {
  const std::vector<int> x = numbers(threads, 100);
  const DeviceArray<int> device_x(x), y(size_t{threads});
  succeed(tk::warp_exchange(correct, device_x, y), "warp_exchange");
  if (!correct) return;
  std::vector<int> expected(threads);
  for (size_t i = 0; i < threads; ++i) expected[i] = x[i ^ 31];
  CHECK(y.values() == expected);
}
TEST(a_shuffle_orders_nothing) {
  expect_clean("warp_exchange", [] { warp_exchange(true); });
  expect_fault("warp_exchange", Fault::race, "a shared array", [] { warp_exchange(false); });
}

TEST(half_warps_meet_by_themselves) {
  expect_clean("half_warps", [] {
    const std::vector<int> x = numbers(threads, 100);
    const DeviceArray<int> device_x(x), y(size_t{threads});
    succeed(tk::half_warps(device_x, y), "half_warps");
    std::vector<int> expected(threads);
    for (size_t i = 0; i < threads; ++i) expected[i] = x[i ^ 15] + x[i ^ 1];
    CHECK(y.values() == expected);
  });
}

static void locked_sum(bool correct) {
  const DeviceArray<int> lock(std::vector<int>{0}), total(std::vector<int>{0});
  succeed(tk::locked_sum(correct, lock, total, 4), "locked_sum");
  if (correct) EQUAL(total.values()[0], 8);
}
TEST(a_lock_given_back_without_a_fence) {
  expect_clean("locked_sum", [] { locked_sum(true); });
  expect_fault("locked_sum", Fault::race, "allocation #2", [] { locked_sum(false); });
}

TEST(scans_by_shuffles) {
  expect_clean("block_scan", [] {
    const std::vector<int> x = numbers(128, 100);
    const DeviceArray<int> device_x(x), y(size_t{128});
    succeed(tk::block_scan(device_x, y), "block_scan");
    std::vector<int> expected(128);
    std::partial_sum(x.begin(), x.end(), expected.begin());
    CHECK(y.values() == expected);
  });
}

TEST(bytes_side_by_side_do_not_race) {
  expect_clean("to_bytes", [] {
    const std::vector<int> x = numbers(threads, 100);
    const DeviceArray<int> device_x(x);
    const DeviceArray<uint8_t> y(size_t{threads});
    const DeviceArray<uint16_t> half_bits(size_t{threads});
    succeed(tk::to_bytes(device_x, y, half_bits), "to_bytes");
    for (size_t i = 0; i < threads; ++i) EQUAL(int{y.values()[i]}, 2 * x[i]);
  });
}

// ---- Memory ----

// A parent with five children.
static void child_slots(bool in_shared, int room) {
  std::vector<int> parent(threads, -1);
  for (size_t v = 1; v < 6; ++v) parent[v] = threads - 1;
  const DeviceArray<int> device_parent(parent), slots(size_t{threads * 4}), degree(std::vector<int>(threads, 0));
  const cudaError_t error = tk::child_slots(in_shared, room, device_parent, slots, degree);
  EQUAL(error, cudaSuccess);
  EQUAL(cudaGetLastError(), room == 4 ? cudaErrorIllegalAddress : cudaSuccess);
}
TEST(a_child_slot_out_of_bounds) {
  expect_fault("child_slots", Fault::out_of_bounds, "0 bytes past the end of allocation #2 of 1024 bytes",
               [] { child_slots(false, 4); });
  expect_fault("child_slots", Fault::out_of_bounds, "0 bytes past the end of a shared array of 1024 bytes",
               [] { child_slots(true, 4); });
  expect_clean("child_slots", [] { child_slots(false, 3); });
  expect_clean("child_slots", [] { child_slots(true, 3); });
}

TEST(memory_after_it_is_freed) {
  expect_fault("smallest", Fault::out_of_bounds, "freed allocation #2 of 256 bytes", [] {
    const DeviceArray<int> result(std::vector<int>{0});
    int *x = nullptr;
    cudaMalloc(reinterpret_cast<void **>(&x), threads * sizeof(int));
    cudaFree(x);
    succeed(tk::smallest(true, x, result, 1), "smallest");
  });
}
TEST(memory_of_the_host) {
  expect_fault("smallest", Fault::out_of_bounds, "the host's memory", [] {
    const DeviceArray<int> result(std::vector<int>{0});
    const std::vector<int> x(threads);
    succeed(tk::smallest(true, x.data(), result, 1), "smallest");
  });
  expect_fault("host code", Fault::host_access, "4-byte read at test_kernels.cu:", [] {
    const DeviceArray<int> x(std::vector<int>{42});
    EQUAL(tk::first_element_read_by_host(x), 42);
  });
}

TEST(reads_of_what_nobody_wrote) {
  const auto body = [](bool correct) {
    const DeviceArray<int> x(numbers(threads, 100)), y(size_t{threads});
    succeed(tk::shared_sum(correct, x, y), "shared_sum");
  };
  expect_clean("shared_sum", [&] { body(true); });
  expect_fault("shared_sum", Fault::uninitialised, "252 bytes into a shared array of 256 bytes", [&] { body(false); });
  expect_fault("smallest", Fault::uninitialised, "allocation #1", [] {
    const DeviceArray<int> x(size_t{threads}), result(std::vector<int>{0});
    succeed(tk::smallest(true, x, result, 1), "smallest");
  });
}

TEST(vectors_off_their_alignment) {
  const auto body = [](int offset) {
    const DeviceArray<float> x(std::vector<float>(260, 1.0f)), y(size_t{260});
    succeed(tk::scale_vectors(x, y, threads, offset), "scale_vectors");
  };
  expect_clean("scale_vectors", [&] { body(4); });
  expect_fault("scale_vectors", Fault::misaligned, "16-byte read", [&] { body(1); });
}

// ---- Barriers that not all reach ----

TEST(barriers_in_divergent_code) {
  const auto body = [](tk::Divergence how) {
    const DeviceArray<int> y(size_t{threads});
    succeed(tk::divergent_barrier(how, y), "divergent_barrier");
    const bool whole = how == tk::Divergence::none || how == tk::Divergence::in_a_warp;
    EQUAL(cudaGetLastError(), whole ? cudaSuccess : cudaErrorLaunchFailure);
  };
  expect_clean("divergent_barrier", [&] { body(tk::Divergence::none); });
  expect_fault("divergent_barrier", Fault::divergence, "has left the kernel", [&] { body(tk::Divergence::left); });
  expect_fault("divergent_barrier", Fault::divergence, "__syncthreads at ",
               [&] { body(tk::Divergence::other_barrier); });
  expect_clean("divergent_barrier", [&] { body(tk::Divergence::in_a_warp); });
  expect_fault("divergent_barrier", Fault::divergence, "__syncwarp at ", [&] { body(tk::Divergence::warp_mask); });
}

TEST(grid_barriers_need_a_cooperative_launch) {
  const auto body = [](bool cooperative) {
    const DeviceArray<int> y(size_t{3 * threads});
    succeed(tk::grid_sync_in(cooperative, y, 3), "grid_sync_in");
  };
  expect_clean("grid_sync_in", [&] { body(true); });
  expect_fault("grid_sync_in", Fault::no_grid_barrier, "cooperative launch", [&] { body(false); });
}

TEST(waiting_for_a_block_that_is_not_there) {
  const auto body = [](bool cooperative) {
    const DeviceArray<int> flag(std::vector<int>{0}), x(std::vector<int>{41}), y(size_t{1});
    succeed(tk::wait_for_block(cooperative, flag, x, y), "wait_for_block");
    if (cooperative) EQUAL(y.values()[0], 42);
  };
  expect_clean("wait_for_block", [&] { body(true); });
  // Block 1 comes first, and alone.
  const Report report = run(Options{Schedule::reversed, 0, 1, false}, [&] { body(false); });
  CHECK(report.has(Fault::deadlock), report.text());
}

// ---- Launches and the runtime ----

TEST(launches_fail_as_in_cuda) {
  const Report report = run({}, [] {
    EQUAL(tk::launch_nothing(1, 1024, 0, false), cudaSuccess);
    EQUAL(tk::launch_nothing({1, 65535, 1}, 1, 0, false), cudaSuccess);
    EQUAL(tk::launch_nothing(1, 1025, 0, false), cudaErrorInvalidConfiguration);
    EQUAL(tk::launch_nothing(1, {1, 1, 65}, 0, false), cudaErrorInvalidConfiguration);
    EQUAL(tk::launch_nothing(0, 32, 0, false), cudaErrorInvalidConfiguration);
    EQUAL(tk::launch_nothing({1, 65536, 1}, 32, 0, false), cudaErrorInvalidConfiguration);
    EQUAL(tk::launch_nothing({1, 1, 65536}, 32, 0, false), cudaErrorInvalidConfiguration);
    EQUAL(cudaGetLastError(), cudaErrorInvalidConfiguration);
    EQUAL(cudaGetLastError(), cudaSuccess);
    EQUAL(tk::launch_nothing(1, 32, 48 * 1024, false), cudaSuccess);
    EQUAL(tk::launch_nothing(1, 32, 48 * 1024 + 1, false), cudaErrorInvalidValue);
    EQUAL(tk::launch_nothing(2 * 4, 1024, 0, true), cudaSuccess);
    EQUAL(tk::launch_nothing(2 * 4 + 1, 1024, 0, true), cudaErrorCooperativeLaunchTooLarge);
  });
  CHECK(report.findings.empty(), report.text());
}

TEST(dynamic_shared_memory) {
  const auto body = [](size_t bytes) {
    const std::vector<int> x = numbers(threads, 100);
    const DeviceArray<int> device_x(x), y(size_t{threads});
    EQUAL(tk::dynamic_reverse(device_x, y, bytes), bytes > 228 * 1024 ? cudaErrorInvalidValue : cudaSuccess);
    if (bytes == 256) CHECK(y.values() == std::vector<int>(x.rbegin(), x.rend()));
  };
  expect_clean("dynamic_reverse", [&] { body(256); });
  expect_fault("dynamic_reverse", Fault::out_of_bounds,
               "0 bytes past the end of the dynamic shared memory of 252 bytes", [&] { body(252); });
  const Report report = run({}, [&] {
    EQUAL(tk::allow_dynamic_shared(227 * 1024 + 1), cudaErrorInvalidValue);
    EQUAL(tk::allow_dynamic_shared(227 * 1024), cudaSuccess);
    body(227 * 1024);
  });
  CHECK(report.findings.empty(), report.text());
}

TEST(static_and_dynamic_shared_memory_together) {
  const auto body = [](size_t bytes) {
    const DeviceArray<int> y(size_t{threads});
    succeed(tk::static_and_dynamic(y, bytes), "static_and_dynamic");
  };
  expect_clean("static_and_dynamic", [&] { body(187 * 1024); });
  expect_fault("static_and_dynamic", Fault::shared_too_large, "of at most 232448", [&] { body(187 * 1024 + 16); });
}

TEST(traps) {
  const auto body = [](bool correct) {
    const DeviceArray<int> y(size_t{threads});
    succeed(tk::trap_unless(correct, y), "trap_unless");
    EQUAL(cudaDeviceSynchronize(), correct ? cudaSuccess : cudaErrorLaunchFailure);
  };
  expect_clean("trap_unless", [&] { body(true); });
  expect_fault("trap_unless", Fault::trapped, "thread (3,0,0) of block (0,0,0)", [&] { body(false); });
}

TEST(memory_and_streams) {
  const Report report = run({}, [] {
    cudaStream_t stream = nullptr;
    EQUAL(cudaStreamCreate(&stream), cudaSuccess);
    void *a = nullptr, *b = nullptr;
    EQUAL(cudaMallocAsync(&a, 100, stream), cudaSuccess);
    EQUAL(cudaMalloc(&b, 100), cudaSuccess);
    std::vector<char> host(100);
    EQUAL(cudaMemsetAsync(a, 7, 100, stream), cudaSuccess);
    EQUAL(cudaMemcpyAsync(b, a, 100, cudaMemcpyDeviceToDevice, stream), cudaSuccess);
    EQUAL(cudaMemcpyAsync(host.data(), b, 100, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    EQUAL(cudaStreamSynchronize(stream), cudaSuccess);
    CHECK(host == std::vector<char>(100, 7));
    EQUAL(cudaMemsetAsync(a, 7, 101, stream), cudaErrorInvalidValue);
    EQUAL(cudaMemcpyAsync(host.data(), host.data(), 1, cudaMemcpyDeviceToHost, stream), cudaErrorInvalidValue);
    cudaPointerAttributes attributes;
    EQUAL(cudaPointerGetAttributes(&attributes, a), cudaSuccess);
    EQUAL(attributes.type, cudaMemoryTypeDevice);
    EQUAL(cudaPointerGetAttributes(&attributes, host.data()), cudaSuccess);
    EQUAL(attributes.type, cudaMemoryTypeUnregistered);
    EQUAL(cudaFreeAsync(a, stream), cudaSuccess);
    EQUAL(cudaFreeAsync(a, stream), cudaErrorInvalidValue);
    EQUAL(cudaStreamDestroy(stream), cudaSuccess);
  });
  CHECK(report.findings.empty(), report.text());
  EQUAL(report.allocations, 2);
  EQUAL(report.live_allocations, 1);
  EQUAL(report.synchronisations, 1);
  EQUAL(report.copies_to_host, 1);
}

TEST(captures_refuse_what_they_cannot_record) {
  const Report report = run({}, [] {
    const DeviceArray<int> x(numbers(threads, 100)), result(std::vector<int>{1000});
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaStreamCreate(&stream);
    EQUAL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    EQUAL(tk::smallest(true, x, result, 1), cudaSuccess);
    EQUAL(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
    EQUAL(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    EQUAL(cudaDeviceSynchronize(), cudaSuccess);
    cudaStreamDestroy(stream);
  });
  CHECK(report.has(Fault::stream_capture), report.text());
  EQUAL(report.findings.size(), size_t{1});
}

// ---- Counters ----

TEST(counters_of_vectors_and_strides) {
  if (!treescan::emulation::sees_accesses()) return;
  const auto counters = [](const std::function<void()> &body) {
    Options options;
    options.count_sectors = true;
    const Report report = run(options, body);
    EQUAL(report.kernels.size(), size_t{1});
    return report.kernels.begin()->second;
  };
  const auto vectors = counters([] {
    const DeviceArray<float> x(std::vector<float>(1000, 1.0f)), y(size_t{1000});
    succeed(tk::scale_vectors(x, y, 250, 0), "scale_vectors");
  });
  EQUAL(vectors.launches, 1);
  EQUAL(vectors.threads, 256);
  for (const auto *direction : {&vectors.loads, &vectors.stores}) {
    EQUAL(direction->accesses, 250);
    EQUAL(direction->bytes, 4000);
    EQUAL(direction->widths.at(16), 250);
    EQUAL(direction->requested_sectors, 125);
    EQUAL(direction->touched_sectors, 125);
  }
  // 64 floats side by side are 8 sectors; 8 floats apart, each is its own.
  for (const int stride : {1, 2, 8, 16}) {
    const auto strided = counters([stride] {
      const DeviceArray<float> x(std::vector<float>(1024, 1.0f)), y(size_t{1024});
      succeed(tk::scale_strided(x, y, threads, stride), "scale_strided");
    });
    EQUAL(strided.loads.requested_sectors, std::min(64, 8 * stride));
    EQUAL(strided.loads.touched_sectors, std::min(64, 8 * stride));
    EQUAL(strided.loads.widths.at(4), 64);
  }
}

TEST(counters_of_operations) {
  const Report sums = run({}, [] { block_sum(true); });
  const auto &c = sums.kernels.at("block_sum_kernel<true>");
  EQUAL(c.blocks, 5);
  EQUAL(c.barriers, 5 * 7);
  EQUAL(c.most_barriers_of_a_block, 7);
  const Report last = run({}, [] { last_block_sum(true, true); });
  const auto &l = last.kernels.at("last_block_sum_kernel<true, true>");
  EQUAL(l.atomics, 5);
  EQUAL(l.fences, 10);
  const Report phases = run({}, [] { grid_phases(true); });
  EQUAL(phases.kernels.at("grid_phases_kernel<true>").grid_barriers, 1);
  const Report scan = run({}, [] {
    const DeviceArray<int> x(numbers(128, 9)), y(size_t{128});
    succeed(tk::block_scan(x, y), "block_scan");
  });
  EQUAL(scan.kernels.at("block_scan_kernel").warp_operations, 4 * 5);
}

TEST_MAIN
