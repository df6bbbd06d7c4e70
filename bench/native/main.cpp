// The C interface without Python: one line of JSON for each figure, in seconds, the median over turns. One thread.
// Every answer is checked before it is timed; a wrong one ends the program.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "boruvka.h"
#include "treescan/treescan.hpp"

namespace {

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

// They take turns, so that what else the machine does hits all alike.
void compare(const std::string &name, const std::vector<Contender> &contenders) {
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

  compare("tree " + std::to_string(side) + "x" + std::to_string(side),
          {{"treescan, parents, order, depths and edges", [&] { build({&parent, &order, &depth, &edge}); }},
           {"treescan, parents alone", [&] { build({&parent, nullptr, nullptr, nullptr}); }},
           {"textbook Borůvka, edges alone", textbook}});
}

// y of `both` for memory in which the channels of a vertex lie side by side, straight from the recurrence.
std::vector<float> plain_scan(const treescan::tree &tree, const std::vector<float> &x, const std::vector<float> &w,
                              size_t channels) {
  std::vector<float> y(x);
  const auto each = [&](int32_t vertex, auto &&step) {
    const auto own = static_cast<size_t>(vertex), above = static_cast<size_t>(tree.parent[own]);
    for (size_t c = 0; c < channels && own != above; ++c) step(own * channels + c, above * channels + c);
  };
  for (size_t i = tree.order.size(); i-- > 0;)
    each(tree.order[i], [&](size_t own, size_t above) { y[above] += w[own] * y[own]; });
  for (const int32_t vertex : tree.order)
    each(vertex, [&](size_t own, size_t above) { y[own] += w[own] * (y[above] - w[own] * y[own]); });
  return y;
}

void scans(int64_t channels, int64_t side) {
  const auto size = static_cast<size_t>(channels * side * side);
  const std::vector<float> x = uniform(size, 1), weights = uniform(size, 2), grad = uniform(size, 3);
  std::vector<float> y(size), grad_x(size), grad_weights(size);
  const std::vector<int64_t> shape{1, channels, side, side}, strides{static_cast<int64_t>(size), 1, side * channels, channels};
  const auto view = [&](const std::vector<float> &values) {
    return treescan::tensor_view(values.data(), shape, strides);
  };
  const treescan::graph grid = treescan::grid(side, side);
  const std::vector<float> cost = treescan::edge_weights(grid, view(x));
  const treescan::tensor_view cost_view(cost.data(), {1, grid.num_edges()});
  const treescan::tree tree = treescan::minimum_spanning_tree(grid, cost_view);

  const auto forward = [&] { treescan::scan(treescan::direction::both, tree, view(x), view(weights), view(y)); };
  const auto backward = [&] {
    treescan::scan_backward(treescan::direction::both, tree, view(x), view(weights), view(grad), view(grad_x),
                            view(grad_weights));
  };
  const auto near = [](const std::vector<float> &values, const std::vector<float> &expected) {
    return std::equal(values.begin(), values.end(), expected.begin(),
                      [](float a, float b) { return std::fabs(a - b) <= 1e-4f * (1 + std::fabs(b)); });
  };
  forward();
  require(near(y, plain_scan(tree, x, weights, static_cast<size_t>(channels))), "the scan");
  backward();
  require(near(grad_x, plain_scan(tree, grad, weights, static_cast<size_t>(channels))), "the gradient of x");

  const auto multiply_add = [&] {
    for (size_t i = 0; i < size; ++i) y[i] = x[i] + x[i] * weights[i];
  };
  compare("scan 1x" + std::to_string(channels) + "x" + std::to_string(side) + "x" + std::to_string(side),
          {{"forward", forward}, {"backward", backward}, {"y = x + x w in a plain loop", multiply_add}});
}

}  // namespace

int main() {
  try {
    treescan::check(treescan_set_num_threads(1));
    for (const int64_t side : {56, 224, 512, 1024}) trees(side);
    scans(160, 56);
    scans(320, 28);
    scans(640, 14);
    scans(1280, 7);
    scans(64, 512);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
