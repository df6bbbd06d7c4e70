// The C interface without Python: one line of JSON for each figure, in seconds, the median over turns. One thread.
// With --count each call runs once within `measured`, for valgrind to count, and its line says what to divide by.
// Every answer is checked before it is timed or counted; a wrong one ends the program.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "boruvka.h"
#include "treescan/treescan.hpp"

#if defined(_MSC_VER)
#define NOT_INLINED __declspec(noinline)
#else
#define NOT_INLINED __attribute__((noinline))
#endif
// The plain loop gets the vectors that the library's kernels have where valgrind runs them.
#if defined(__x86_64__) && defined(__GLIBC__)
#define WITH_AVX2 __attribute__((target_clones("default", "avx2")))
#else
#define WITH_AVX2
#endif

// bench/counts.py asks valgrind for it by name. What follows the call keeps it from being a jump, which is no call.
extern "C" NOT_INLINED void measured(const std::function<void()> &run) {
  static volatile int calls = 0;
  run();
  calls = calls + 1;
}

namespace {

bool counting = false;

using Clock = std::chrono::steady_clock;

struct Contender {
  std::string who;
  std::function<void()> run;
};

void require(bool right, const std::string &what) {
  if (right) return;
  std::fprintf(stderr, "wrong answer, not timed: %s\n", what.c_str());
  std::exit(1);
}

double seconds_of(const std::function<void()> &run, int64_t times) {
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < times; ++i) run();
  return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(times);
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// What works on `size` numbers or edges. They take turns, so that what else the machine does hits all alike.
void compare(const std::string &name, int64_t size, const std::vector<Contender> &contenders) {
  for (size_t i = 0; i < contenders.size() && counting; ++i) {
    contenders[i].run();  // what is found or bound once, and its data in the cache
    measured(contenders[i].run);
    std::printf("{\"case\": \"%s\", \"who\": \"%s\", \"size\": %lld}\n", name.c_str(), contenders[i].who.c_str(),
                static_cast<long long>(size));
  }
  if (counting) return;
  std::vector<int64_t> times;
  std::vector<std::vector<double>> turns(contenders.size());
  for (const Contender &contender : contenders) {
    contender.run();
    times.push_back(std::max<int64_t>(static_cast<int64_t>(0.01 / seconds_of(contender.run, 1)), 1));
  }
  for (int round = 0; round < 9; ++round)
    for (size_t i = 0; i < contenders.size(); ++i) turns[i].push_back(seconds_of(contenders[i].run, times[i]));
  for (size_t i = 0; i < contenders.size(); ++i)
    std::printf("{\"case\": \"%s\", \"who\": \"%s\", \"seconds\": %.9g}\n", name.c_str(),
                contenders[i].who.c_str(), median(turns[i]));
  std::fflush(stdout);
}

std::vector<float> uniform(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> distribution(0, 1);
  std::vector<float> values(count);
  for (float &value : values) value = distribution(generator);
  return values;
}

void trees(int64_t side) {
  const treescan::graph grid = treescan::grid(side, side);
  const treescan_graph description = grid.c();
  const std::vector<int32_t> edges = grid.edges();
  const int64_t num_edges = grid.num_edges(), vertices = side * side;
  const std::vector<float> cost = uniform(static_cast<size_t>(num_edges), 1);
  const treescan::tensor_view cost_view(cost.data(), {1, num_edges});
  const int32_t zero = 0;
  const treescan::tensor_view root(&zero, {1});
  treescan::tree tree(1, vertices, true);
  const treescan::tensor_view parent = tree.parent_view(), order = tree.order_view(), depth = tree.depth_view(),
                              edge = tree.edge_view();
  const auto build = [&](const treescan_tree_output &outputs) {
    treescan::check(treescan_minimum_spanning_tree(&description, &cost_view, 0, &root, nullptr, &outputs, nullptr, nullptr));
  };

  build({&parent, &order, &depth, &edge});
  std::vector<int32_t> chosen(static_cast<size_t>(vertices - 1)), ours(tree.edge);
  const auto textbook = [&] {
    require(textbook_boruvka(edges.data(), cost.data(), num_edges, vertices, chosen.data()) == vertices - 1, "Borůvka");
  };
  textbook();
  std::sort(ours.begin(), ours.end());  // -1, the root's, comes first
  std::vector<int32_t> theirs(chosen);
  std::sort(theirs.begin(), theirs.end());
  require(std::equal(theirs.begin(), theirs.end(), ours.begin() + 1, ours.end()), "the tree's edges");

  compare("tree " + std::to_string(side) + "x" + std::to_string(side), num_edges,
          {{"treescan, parents, order, depths and edges", [&] { build({&parent, &order, &depth, &edge}); }},
           {"treescan, parents alone", [&] { build({&parent, nullptr, nullptr, nullptr}); }},
           {"textbook Borůvka, edges alone", textbook}});
}

struct Image {
  int64_t channels, height, width;

  int64_t vertices() const { return height * width; }
  size_t numbers() const { return static_cast<size_t>(channels * vertices()); }
  std::vector<int64_t> shape() const { return {1, channels, height, width}; }
  std::vector<int64_t> strides(bool channels_last) const {
    const int64_t all = channels * vertices();
    if (!channels_last) return {all, vertices(), width, 1};
    return {all, 1, width * channels, channels};
  }
  std::string name() const {
    return "1x" + std::to_string(channels) + "x" + std::to_string(height) + "x" + std::to_string(width);
  }
};

treescan::tree tree_of(const Image &image, const std::vector<float> &x) {
  const treescan::graph grid = treescan::grid(image.height, image.width);
  const std::vector<float> cost =
      treescan::edge_weights(grid, treescan::tensor_view(x.data(), image.shape(), image.strides(true)));
  return treescan::minimum_spanning_tree(grid, treescan::tensor_view(cost.data(), {1, grid.num_edges()}));
}

// y of `both` for memory in which the channels of a vertex lie side by side, straight from the recurrence.
std::vector<float> plain_scan(const treescan::tree &tree, const std::vector<float> &x, const std::vector<float> &w,
                              int64_t channels) {
  std::vector<float> y(x);
  const auto each = [&](int32_t vertex, auto &&step) {
    const auto own = static_cast<size_t>(vertex), above = static_cast<size_t>(tree.parent[own]),
               row = static_cast<size_t>(channels);
    for (size_t c = 0; c < row && own != above; ++c) step(own * row + c, above * row + c);
  };
  for (size_t i = tree.order.size(); i-- > 0;)
    each(tree.order[i], [&](size_t own, size_t above) { y[above] += w[own] * y[own]; });
  for (const int32_t vertex : tree.order)
    each(vertex, [&](size_t own, size_t above) { y[own] += w[own] * (y[above] - w[own] * y[own]); });
  return y;
}

bool near(float a, float b, float loose = 1e-4f) { return std::fabs(a - b) <= loose * (1 + std::fabs(b)); }

float number(float value) { return value; }
float number(treescan::bfloat16 value) {
  const uint32_t bits = uint32_t{value.bits} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
void set(float &number, float value) { number = value; }
void set(treescan::bfloat16 &number, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  number.bits = static_cast<uint16_t>(bits >> 16);
}

// A scan in memory of its own, of numbers that come with the channels of a vertex side by side.
template <class T>
std::function<void()> scan_of(const treescan::tree &tree, const Image &image, const std::vector<float> &x,
                              const std::vector<float> &weights, bool channels_last) {
  struct Memory {
    std::vector<T> x, weights, y;
  };
  const size_t size = image.numbers(), vertices = static_cast<size_t>(image.vertices()), channels = size / vertices;
  const auto memory =
      std::make_shared<Memory>(Memory{std::vector<T>(size), std::vector<T>(size), std::vector<T>(size)});
  const auto place = [&](size_t i) { return channels_last ? i : i % channels * vertices + i / channels; };
  for (size_t i = 0; i < size; ++i) {
    set(memory->x[place(i)], x[i]);
    set(memory->weights[place(i)], weights[i]);
  }
  const auto run = [=, &tree] {
    const auto view = [&](const std::vector<T> &values) {
      return treescan::tensor_view(values.data(), image.shape(), image.strides(channels_last));
    };
    treescan::scan(treescan::direction::both, tree, view(memory->x), view(memory->weights), view(memory->y));
  };
  run();
  const std::vector<float> expected = plain_scan(tree, x, weights, image.channels);
  bool right = true;
  for (size_t i = 0; i < size; ++i)
    right &= near(number(memory->y[place(i)]), expected[i], sizeof(T) == 2 ? 2e-2f : 1e-4f);
  require(right, "the scan of " + image.name());
  return run;
}

WITH_AVX2 void multiply_add(size_t size, const float *x, const float *w, float *y) {
  for (size_t i = 0; i < size; ++i) y[i] = x[i] + x[i] * w[i];
}

Contender plain_loop(const std::vector<float> &x, const std::vector<float> &weights) {
  const auto y = std::make_shared<std::vector<float>>(x.size());
  return {"y = x + x w in a plain loop",
          [y, &x, &weights] { multiply_add(x.size(), x.data(), weights.data(), y->data()); }};
}

void scans(const Image &image) {
  const size_t size = image.numbers();
  const std::vector<float> x = uniform(size, 1), weights = uniform(size, 2), grad = uniform(size, 3);
  std::vector<float> grad_x(size), grad_weights(size);
  const auto view = [&](const std::vector<float> &values) {
    return treescan::tensor_view(values.data(), image.shape(), image.strides(true));
  };
  const treescan::tree tree = tree_of(image, x);
  const auto backward = [&] {
    treescan::scan_backward(treescan::direction::both, tree, view(x), view(weights), view(grad), view(grad_x),
                            view(grad_weights));
  };
  backward();
  const std::vector<float> expected = plain_scan(tree, grad, weights, image.channels);
  require(std::equal(grad_x.begin(), grad_x.end(), expected.begin(), [](float a, float b) { return near(a, b); }),
          "the gradient of x");
  compare("scan " + image.name(), static_cast<int64_t>(size),
          {{"forward", scan_of<float>(tree, image, x, weights, true)}, {"backward", backward}, plain_loop(x, weights)});
}

// An image so small that only calling costs.
void small_scan(const Image &image) {
  const std::vector<float> x = uniform(image.numbers(), 1), weights = uniform(image.numbers(), 2);
  const treescan::tree tree = tree_of(image, x);
  compare("scan " + image.name(), static_cast<int64_t>(image.numbers()),
          {{"forward", scan_of<float>(tree, image, x, weights, false)}, plain_loop(x, weights)});
}

// Numbers of 8 bits, which bfloat16 has too, so that all of a case scan the same; quick to draw where valgrind runs it.
std::vector<float> coarse(size_t count, uint32_t state) {
  std::vector<float> values(count);
  for (float &value : values) {
    state = 1664525 * state + 1013904223;
    value = static_cast<float>(state >> 24) / 256;
  }
  return values;
}

void layouts_and_types(const Image &image) {
  const std::vector<float> x = coarse(image.numbers(), 1), weights = coarse(image.numbers(), 2);
  const treescan::tree tree = tree_of(image, x);
  compare("scan " + image.name(), static_cast<int64_t>(image.numbers()),
          {plain_loop(x, weights),
           {"channels-last", scan_of<float>(tree, image, x, weights, true)},
           {"channels-last, bfloat16", scan_of<treescan::bfloat16>(tree, image, x, weights, true)},
           {"contiguous", scan_of<float>(tree, image, x, weights, false)},
           {"contiguous, bfloat16", scan_of<treescan::bfloat16>(tree, image, x, weights, false)}});
}

void grid_and_chain(const Image &image) {
  const std::vector<float> x = coarse(image.numbers(), 1), weights = coarse(image.numbers(), 2);
  std::vector<int32_t> above(static_cast<size_t>(image.vertices()));
  std::iota(above.begin() + 1, above.end(), 0);
  const treescan::tree grid = tree_of(image, x),
                       chain = treescan::tree_from_parents(treescan::tensor_view(above.data(), {1, image.vertices()}));
  compare("scan " + image.name(), static_cast<int64_t>(image.numbers()),
          {plain_loop(x, weights),
           {"chain", scan_of<float>(chain, image, x, weights, true)},
           {"grid", scan_of<float>(grid, image, x, weights, true)}});
}

constexpr Image stages[] = {{160, 56, 56}, {320, 28, 28}, {640, 14, 14}, {1280, 7, 7}};  // of a vision model

}  // namespace

int main(int count, char **arguments) {
  try {
    treescan::set_num_threads(1);
    counting = count == 2 && std::strcmp(arguments[1], "--count") == 0;
    if (counting) {
      std::printf("{\"instruction set\": \"%s\"}\n", treescan::get_instruction_set().c_str());
      for (const Image &image : stages) layouts_and_types(image);
      grid_and_chain({16, 512, 512});
      trees(224);
      return 0;
    }
    for (const int64_t side : {56, 224, 512, 1024}) trees(side);
    for (const Image &image : stages) scans(image);
    scans({64, 512, 512});
    small_scan({8, 4, 4});
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
