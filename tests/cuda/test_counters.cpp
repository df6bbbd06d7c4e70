// What calls cost, as the emulated device counts it, held against counters.txt: a line for each number, which may fall but
// not rise. TREESCAN_RECORD=1 writes that file anew.
//
// Transfers are counted in tensors: 32-byte sectors of global memory, over those that x takes. `touched` counts a sector
// once for each launch that reads it and once for each that writes it, as caches without limit would; `requested` counts
// it for every access of a warp, as if there were none.
#include <fstream>
#include <map>
#include <random>

#include "cuda_test.h"

using namespace cuda_test;

namespace {

std::map<std::string, double> measured;

struct Sums {
  int64_t launches = 0, barriers = 0, bytes = 0;
  double touched = 0, requested = 0;  // sectors
  bool has_width[17] = {};
};

Sums sums_of(const Report &report) {
  CHECK(report.findings.empty(), report.text());
  Sums sums;
  for (const auto &entry : report.kernels) {
    const auto &kernel = entry.second;
    sums.launches += kernel.launches;
    sums.barriers += kernel.most_barriers_of_a_block + kernel.grid_barriers;
    for (const auto *direction : {&kernel.loads, &kernel.stores}) {
      sums.bytes += direction->bytes;
      sums.touched += static_cast<double>(direction->touched_sectors);
      sums.requested += static_cast<double>(direction->requested_sectors);
      for (const auto &width : direction->widths)
        if (width.first <= 16) sums.has_width[width.first] = true;
    }
  }
  return sums;
}

// A spanning tree with random costs, built on the CPU.
struct Tree {
  Twin<int32_t> parent, order;
  Tree(const treescan_graph &graph, int64_t batch, int64_t vertices)
      : parent({batch, vertices}, 0), order({batch, vertices}, 0) {
    int64_t edges = 0;
    SUCCEEDS(treescan_graph_num_edges(&graph, &edges));
    std::mt19937 random(7);
    const Twin<float> cost({batch, edges}, [&](int64_t) { return std::uniform_real_distribution<float>()(random); });
    const Twin<int32_t> root({1}, 0);
    const treescan_tree_output output = {parent.cpu(), order.cpu(), nullptr, nullptr};
    SUCCEEDS(treescan_minimum_spanning_tree(&graph, cost.cpu(), 0, root.cpu(), nullptr, &output, nullptr, nullptr));
    parent.upload();
    order.upload();
  }
};

// A device whose blocks hold no tile of a scan in shared memory, as real ones hold none of a large image.
treescan::emulation::Device without_room() {
  treescan::emulation::Device device;
  device.shared_opt_in = 8 * 1024;
  return device;
}

Options counting() { return Options{Schedule::in_order, 0, 1, true}; }

void scans(const std::string &layout, const std::string &strategy, const treescan::emulation::Device &device) {
  constexpr int64_t side = 28, vertices = side * side, channels = 32;
  const std::vector<int64_t> strides = layout.find("channels_last") == 0 ? std::vector<int64_t>{channels * vertices, 1, channels}
                                                                 : std::vector<int64_t>{};
  SUCCEEDS(treescan_set_cuda_scans(strategy.c_str()));
  for (const bool backward : {false, true}) {
    Sums sums;
    const double tensor = vertices * channels * 4 / 32.0;
    // The launch that plans the tree has its own numbers: it doesn't depend on channels.
    double plan_touched = 0;
    const Report report = treescan::emulation::run(counting(), [&] {
      const Tree tree(grid(side, side, 4).cpu, 1, vertices);
      const std::vector<int64_t> shape = {1, channels, vertices};
      const auto value = [](int64_t i) { return static_cast<float>(i % 17) / 16 - 0.4f; };
      const Twin<float> x(shape, value, strides), weights(shape, value, strides), grad(shape, value, strides);
      const float nan = std::numeric_limits<float>::quiet_NaN();
      const Twin<float> y(shape, nan, strides), grad_x(shape, nan, strides), grad_weights(shape, nan, strides);
      if (backward)
        SUCCEEDS(treescan_scan_backward(TREESCAN_BOTH, tree.parent.cuda(), tree.order.cuda(), x.cuda(), weights.cuda(),
                                        grad.cuda(), grad_x.cuda(), grad_weights.cuda(), nullptr, nullptr));
      else
        SUCCEEDS(treescan_scan(TREESCAN_BOTH, tree.parent.cuda(), tree.order.cuda(), x.cuda(), weights.cuda(), y.cuda(),
                               nullptr, nullptr));
    }, device);
    sums = sums_of(report);
    double plan_requested = 0;
    for (const auto &entry : report.kernels)
      if (entry.first.find("plan") != std::string::npos) {
        plan_touched += static_cast<double>(entry.second.loads.touched_sectors + entry.second.stores.touched_sectors);
        plan_requested += static_cast<double>(entry.second.loads.requested_sectors + entry.second.stores.requested_sectors);
      }
    const std::string name = std::string(backward ? "backward" : "forward") + "_both_" + layout + "_" + strategy;
    measured[name + "_launches"] = static_cast<double>(sums.launches);
    measured[name + "_barriers"] = static_cast<double>(sums.barriers);
    measured[name + "_touched"] = (sums.touched - plan_touched) / tensor;
    measured[name + "_requested"] = (sums.requested - plan_requested) / tensor;
    if (layout.find("channels_last") == 0) {
      CHECK(measured[name + "_touched"] <= (backward ? 9 : 5), name, ": ", measured[name + "_touched"]);
      CHECK(sums.has_width[16], name, ": no access of 16 bytes");
    }
    measured["plan_" + strategy + "_bytes_per_vertex"] = plan_touched * 32 / vertices;
  }
  SUCCEEDS(treescan_set_cuda_scans("auto"));
}

}  // namespace

TEST(transfers_of_scans) {
  if (!treescan::emulation::sees_accesses()) return;
  for (const char *strategy : {"levels", "paths"})
    for (const char *layout : {"channels_last", "contiguous"}) {
      scans(layout, strategy, {});
      scans(std::string(layout) + "_large", strategy, without_room());
    }
}

TEST(launches_from_features_to_the_scan) {
  constexpr int64_t batch = 2, side = 56, vertices = side * side, edges = 2 * side * (side - 1), channels = 4;
  const Report report = treescan::emulation::run(counting(), [&] {
    const treescan_graph graph = grid(side, side, 4).cpu;
    std::mt19937 random(3);
    const auto value = [&](int64_t) { return std::uniform_real_distribution<float>()(random); };
    const std::vector<int64_t> shape = {batch, channels, vertices}, strides = {channels * vertices, 1, channels};
    const Twin<float> x(shape, value, strides), weights(shape, value, strides), y(shape, 0.f, strides),
        cost({batch, edges}, 0.f);
    const Twin<int32_t> root({1}, 0), parent({batch, vertices}, -7), order({batch, vertices}, -7);
    const treescan_tree_output output = {parent.cuda(), order.cuda(), nullptr, nullptr};
    SUCCEEDS(treescan_edge_weights(&graph, x.cuda(), TREESCAN_COSINE, 0, cost.cuda(), nullptr, nullptr));
    SUCCEEDS(treescan_minimum_spanning_tree(&graph, cost.cuda(), 0, root.cuda(), nullptr, &output, nullptr, nullptr));
    SUCCEEDS(treescan_scan(TREESCAN_BOTH, parent.cuda(), order.cuda(), x.cuda(), weights.cuda(), y.cuda(), nullptr,
                           nullptr));
  });
  const Sums sums = sums_of(report);
  measured["features_to_scan_launches"] = static_cast<double>(sums.launches);
  CHECK(sums.launches <= 6, "launches: ", sums.launches);
}

// A chain takes about as many barriers as a random tree of its size, to root it and to scan along it.
TEST(barriers_of_a_chain_and_of_a_random_tree) {
  const int64_t vertices = long_form() ? 65536 : 2048;
  for (const char *team : {"block", "grid"}) {
    SUCCEEDS(treescan_set_cuda_trees(team));
    double barriers[2][2];
    for (const bool chain : {true, false}) {
      const auto run = [&](const std::function<void()> &call) {
        return static_cast<double>(sums_of(treescan::emulation::run(Options{}, call)).barriers);
      };
      std::mt19937 random(5);
      const auto parent_of = [&](int64_t v) {
        if (v == 0) return 0;
        return static_cast<int32_t>(chain ? v - 1 : std::uniform_int_distribution<int64_t>(0, v - 1)(random));
      };
      std::vector<int32_t> parents;
      for (int64_t v = 0; v < vertices; ++v) parents.push_back(parent_of(v));
      const auto given = [&](int64_t v) { return parents[static_cast<size_t>(v)]; };
      barriers[chain][0] = run([&] {
        const Twin<int32_t> in({1, vertices}, given), parent({1, vertices}, -7), order({1, vertices}, -7);
        const treescan_tree_output output = {parent.cuda(), order.cuda(), nullptr, nullptr};
        SUCCEEDS(treescan_tree_from_parents(in.cuda(), nullptr, &output, nullptr, nullptr));
      });
      barriers[chain][1] = run([&] {
        const Twin<int32_t> in({1, vertices}, given), parent({1, vertices}, -7), order({1, vertices}, -7);
        const treescan_tree_output output = {parent.cpu(), order.cpu(), nullptr, nullptr};
        SUCCEEDS(treescan_tree_from_parents(in.cpu(), nullptr, &output, nullptr, nullptr));
        parent.upload();
        order.upload();
        const Twin<float> x({1, 1, vertices}, 1.f), y({1, 1, vertices}, 0.f);
        SUCCEEDS(treescan_scan(TREESCAN_BOTH, parent.cuda(), order.cuda(), x.cuda(), x.cuda(), y.cuda(), nullptr,
                               nullptr));
      });
    }
    for (const int what : {0, 1}) {
      const double chain = barriers[1][what], random = barriers[0][what];
      CHECK(chain <= 4 * random && random <= 4 * chain, team, what ? ", scan: " : ", tree: ", chain, " barriers on a chain, ",
            random, " on a random tree of ", vertices);
      const std::string name = std::string(what ? "scan" : "tree") + "_barriers_" + team;
      if (!long_form()) measured[name + "_chain"] = chain, measured[name + "_random"] = random;
      std::cout << name << " of " << vertices << " vertices: chain " << chain << ", random tree " << random << std::endl;
    }
  }
  SUCCEEDS(treescan_set_cuda_trees("auto"));
}

TEST(nothing_costs_more_than_recorded) {
  const std::string path = TREESCAN_CUDA_TESTS "/counters.txt";
  if (std::getenv("TREESCAN_RECORD")) {
    std::ofstream file(path);
    for (const auto &entry : measured) file << entry.first << " " << entry.second << "\n";
  }
  std::map<std::string, double> recorded;
  std::ifstream file(path);
  std::string name;
  double value;
  while (file >> name >> value) recorded[name] = value;
  for (const auto &entry : measured) {
    const auto budget = recorded.find(entry.first);
    CHECK(budget != recorded.end(), entry.first, " isn't recorded in counters.txt");
    if (budget != recorded.end())
      CHECK(entry.second <= budget->second * 1.001, entry.first, ": ", entry.second, ", recorded ", budget->second);
  }
}

TEST_MAIN
