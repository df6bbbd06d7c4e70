// Teams against plain loops.
#include "test_team.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "cuda_test.h"

using namespace cuda_test;
using namespace treescan::cuda;

namespace {

const TeamShape shapes[] = {{0, 32}, {0, 64}, {0, 256}, {1, 32}, {3, 32}, {2, 96}};
const size_t counts[] = {0, 1, 31, 32, 33, 97, 1000};

std::string text(TeamShape shape, size_t count) {
  return std::to_string(count) + " for " + (shape.blocks ? std::to_string(shape.blocks) + " blocks of " : "a block of ") +
         std::to_string(shape.threads);
}

// The larger sizes once, the others under every schedule.
template <class Test>
void for_each_shape(const char *what, Test &&test) {
  for (const TeamShape shape : shapes)
    for (const size_t count : counts) {
      const auto host_code = [&] { test(shape, count); };
      if (count < 100 || long_form()) {
        expect_clean(what, host_code);
      } else {
        for (const Schedule schedule : {Schedule::in_order, Schedule::random}) {
          const Report report = treescan::emulation::run({schedule, 1}, host_code);
          CHECK(report.findings.empty(), what, ", ", text(shape, count), ":\n", report.text());
        }
      }
    }
}

}  // namespace

TEST(sums_of_those_before) {
  for_each_shape("sums", [](TeamShape shape, size_t count) {
    std::mt19937 random(static_cast<unsigned>(count));
    std::vector<int32_t> values(count);
    for (int32_t &value : values) value = static_cast<int32_t>(random());  // sums beyond 32 bits, and negative ones
    const DeviceArray<int32_t> on_device(values);
    const DeviceArray<int64_t> sums(count), totals(size_t{2});
    succeed(sum_twice(shape, on_device, static_cast<int64_t>(count), sums, totals), "sum_twice");
    std::vector<int64_t> expected(count);
    int64_t total = 0, of_sums = 0;
    for (size_t i = 0; i < count; ++i) {
      expected[i] = of_sums;
      of_sums += total;
      total += values[i];
    }
    CHECK(sums.values() == expected, text(shape, count));
    CHECK((totals.values() == std::vector<int64_t>{total, of_sums}), text(shape, count));
  });
}

TEST(sorts_keep_the_order_of_equal_keys) {
  for (const int bits : {0, 1, 7})
    for_each_shape("sort", [&](TeamShape shape, size_t count) {
      std::mt19937 random(static_cast<unsigned>(count));
      const unsigned few = bits == 7 ? 0x63 : static_cast<unsigned>(bits);
      std::vector<uint32_t> keys(count);
      for (uint32_t &key : keys) key = static_cast<uint32_t>(random()) & few;
      std::vector<int32_t> expected(count);
      std::iota(expected.begin(), expected.end(), 0);
      std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
        return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)];
      });
      const DeviceArray<uint32_t> on_device(keys);
      const DeviceArray<int32_t> entries(count), spare(count), sorted(count),
          counters(static_cast<size_t>(sort_counts(static_cast<int64_t>(count))));
      succeed(sort_keys(shape, on_device, static_cast<int64_t>(count), bits, entries, spare, counters, sorted), "sort");
      CHECK(sorted.values() == expected, text(shape, count), ", ", bits, " bits");
    });
}

TEST(sorts_by_all_32_bits) {
  const size_t count = 200;
  std::mt19937 random(1);
  std::vector<uint32_t> keys(count);
  for (uint32_t &key : keys) key = static_cast<uint32_t>(random());
  treescan::emulation::run({}, [&] {
    const DeviceArray<uint32_t> on_device(keys);
    const DeviceArray<int32_t> entries(count), spare(count), sorted(count), counters(size_t{digits * 8});
    succeed(sort_keys({0, 64}, on_device, count, 32, entries, spare, counters, sorted), "sort");
    uint32_t last = 0;
    for (const int32_t i : sorted.values()) {
      CHECK(keys[static_cast<size_t>(i)] >= last);
      last = keys[static_cast<size_t>(i)];
    }
  });
}

TEST(ranks_of_lists) {
  for_each_shape("lists", [](TeamShape shape, size_t count) {
    // Lists of lengths from 1 up to all, in a shuffled order, with distances from 1 to 3.
    std::mt19937 random(static_cast<unsigned>(count));
    std::vector<uint32_t> places(count);
    std::iota(places.begin(), places.end(), 0u);
    std::shuffle(places.begin(), places.end(), random);
    for (const uint32_t ends : {1u, 5u}) {
      std::vector<Link> links(count);
      std::vector<uint32_t> expected(count);
      for (size_t i = 0; i < count; ++i) {
        const bool end = i == 0 || (ends > 1 && random() % ends == 0);
        const uint32_t distance = end ? 0 : 1 + static_cast<uint32_t>(random() % 3);
        links[places[i]] = make_link(end ? places[i] : places[i - 1], distance);
        expected[places[i]] = end ? 0 : expected[places[i - 1]] + distance;
      }
      const DeviceArray<Link> on_device(links), spare(count);
      const DeviceArray<uint32_t> ranks(count);
      succeed(rank(shape, on_device, spare, static_cast<int64_t>(count), ranks), "rank");
      CHECK(ranks.values() == expected, text(shape, count));
    }
  });
}

// Pointer jumping ends with the longest list.
TEST(short_lists_take_few_rounds) {
  const auto barriers = [](size_t count, size_t length) {
    std::vector<Link> links(count);
    for (size_t i = 0; i < count; ++i) {
      const bool end = i % length == 0;
      links[i] = make_link(static_cast<uint32_t>(end ? i : i - 1), end ? 0 : 1);
    }
    const Report report = treescan::emulation::run({}, [&] {
      const DeviceArray<Link> on_device(links), spare(count);
      const DeviceArray<uint32_t> ranks(count);
      succeed(rank({0, 64}, on_device, spare, static_cast<int64_t>(count), ranks), "rank");
    });
    return report.kernels.begin()->second.barriers;
  };
  EQUAL(barriers(1024, 1024), 10);
  EQUAL(barriers(1000, 1000), 10);
  EQUAL(barriers(1024, 4), 3);
  EQUAL(barriers(1024, 1), 1);
}

TEST(votes) {
  const size_t count = 8;
  for (const TeamShape shape : shapes)
    expect_clean("votes", [&] {
      const size_t threads = std::max(1u, shape.blocks) * shape.threads;
      std::mt19937 random(static_cast<unsigned>(threads));
      std::vector<int32_t> votes(count * threads), expected(count * threads);
      for (const size_t k : {0, 1, 3, 4, 6}) {  // two yes, a no, two yes, a no, a yes, a no
        votes[k * threads + random() % threads] = 1;
        std::fill_n(&expected[k * threads], threads, 1);
      }
      const DeviceArray<int32_t> on_device(votes), results(votes.size());
      succeed(vote(shape, on_device, count, results), "vote");
      CHECK(results.values() == expected, text(shape, count));
    });
}

TEST_MAIN
