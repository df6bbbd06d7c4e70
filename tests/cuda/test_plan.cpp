// Plans of trees, field by field, against plans made step by step on the host.
#include <algorithm>
#include <numeric>

#include "cuda_test.h"
#include "plan.h"

using namespace cuda_test;
using treescan::ValueFault;
using treescan::cuda::Failure;
using treescan::cuda::Plan;
using treescan::cuda::Plans;
using treescan::cuda::PlanSummary;
using treescan::cuda::PlanViews;
using treescan::cuda::ScanStrategy;
using treescan::cuda::TreeTeam;

namespace {

TreeTeam team = TreeTeam::automatic;
ScanStrategy strategy = ScanStrategy::automatic;

using Numbers = std::vector<int32_t>;

// What the device has made.
struct Made {
  PlanSummary summary;
  Numbers vertex, parent, first_child, num_children, sequence, path_start, layer_start;
};

template <class T>
std::vector<T> fetch(const T *from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  if (count) succeed(cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDeviceToHost), "fetch");
  return values;
}

Made fetch(const Plan &plan, int64_t vertices) {
  Made made{fetch(plan.summary, 1)[0], {}, {}, {}, {}, {}, {}, {}};
  if (!made.summary.valid) return made;
  made.vertex = fetch(plan.vertex, vertices);
  made.parent = fetch(plan.parent, vertices);
  made.first_child = fetch(plan.first_child, vertices);
  made.num_children = fetch(plan.num_children, vertices);
  made.sequence = fetch(plan.sequence, made.summary.num_planted);
  made.path_start = fetch(plan.path_start, made.summary.num_paths + 1);
  made.layer_start = fetch(plan.layer_start, made.summary.num_layers + 1);
  return made;
}

struct Result {
  std::vector<Made> trees;
  Failure failure;
};

Result make(const Twin<int32_t> &parent, const Twin<int32_t> &order) {
  treescan::Carver measure;
  Plans(measure, *parent.cuda(), *order.cuda());
  const DeviceArray<char> memory(static_cast<size_t>(std::max<int64_t>(measure.used(), 64)));
  const DeviceArray<Failure> failure(std::vector<Failure>(1));
  treescan::Carver carver(memory);
  Plans plans(carver, *parent.cuda(), *order.cuda());
  plans.make(*parent.cuda(), *order.cuda(), failure, nullptr);
  Result result{{}, failure.values()[0]};
  const PlanViews &views = plans.views();
  for (int64_t tree = 0; tree < views.trees; ++tree) result.trees.push_back(fetch(views.of(tree), views.vertices));
  return result;
}

// A forest: parents by vertex, a root its own, -1 for a vertex in no tree; and an order of it.
struct Forest {
  Numbers parent, order;
};

size_t index(int64_t i) { return static_cast<size_t>(i); }

enum class Order { breadth_first, siblings_shuffled, depth_first };

// Forests from the parents of vertices 0, 1, ..., each a vertex before it, itself or -1. The vertices get random names.
Forest forest(const Numbers &earlier, Order kind, std::mt19937 &random) {
  const auto count = static_cast<int32_t>(earlier.size());
  Numbers name(earlier.size());
  std::iota(name.begin(), name.end(), 0);
  std::shuffle(name.begin(), name.end(), random);
  Forest made{Numbers(earlier.size()), {}};
  for (int32_t v = 0; v < count; ++v)
    made.parent[index(name[index(v)])] = earlier[index(v)] < 0 ? -1 : name[index(earlier[index(v)])];
  std::vector<Numbers> children(earlier.size());
  Numbers &order = made.order, rest;
  for (int32_t v = 0; v < count; ++v) {
    const int32_t p = made.parent[index(v)];
    (p < 0 ? rest : p == v ? order : children[index(p)]).push_back(v);
  }
  if (kind != Order::breadth_first)
    for (Numbers &siblings : children) std::shuffle(siblings.begin(), siblings.end(), random);
  const size_t roots = order.size();
  if (kind == Order::depth_first) {
    Numbers stack;
    for (size_t i = 0; i < roots; ++i) {
      const Numbers &next = children[index(order[i])];
      stack.insert(stack.end(), next.begin(), next.end());
    }
    while (!stack.empty()) {
      const int32_t v = stack.back();
      stack.pop_back();
      order.push_back(v);
      stack.insert(stack.end(), children[index(v)].begin(), children[index(v)].end());
    }
  } else {
    for (size_t i = 0; i < order.size(); ++i) {
      const Numbers next = children[index(order[i])];
      order.insert(order.end(), next.begin(), next.end());
    }
  }
  if (kind != Order::breadth_first) std::shuffle(rest.begin(), rest.end(), random);
  order.insert(order.end(), rest.begin(), rest.end());
  return made;
}

enum class Outline { recursive, chain, star, caterpillar, binary, forest, none };

Numbers parents_of(Outline outline, int32_t count, std::mt19937 &random) {
  Numbers parent(static_cast<size_t>(count));
  for (int32_t v = 0; v < count; ++v) {
    const auto earlier = static_cast<int32_t>(v == 0 ? 0 : random() % static_cast<uint32_t>(v));
    switch (outline) {
      case Outline::recursive: parent[index(v)] = earlier; break;
      case Outline::chain: parent[index(v)] = std::max(0, v - 1); break;
      case Outline::star: parent[index(v)] = 0; break;
      case Outline::caterpillar: parent[index(v)] = std::max(0, v % 2 == 0 ? v - 2 : v - 1); break;
      case Outline::binary: parent[index(v)] = v == 0 ? 0 : (v - 1) / 2; break;
      case Outline::forest: {
        const auto draw = random() % 8;
        parent[index(v)] = draw == 0 ? v : draw == 1 ? -1 : earlier;
        if (parent[index(v)] >= 0 && parent[index(earlier)] < 0 && draw > 0) parent[index(v)] = -1;
        break;
      }
      case Outline::none: parent[index(v)] = -1; break;
    }
  }
  return parent;
}

// The plan, made step by step.
Made plan(const Forest &of, ScanStrategy how) {
  const auto count = static_cast<int32_t>(of.parent.size());
  Numbers position(of.parent.size());
  for (int32_t i = 0; i < count; ++i) position[index(of.order[index(i)])] = i;
  // Roots first, siblings side by side, vertices in no tree last: by the parent's position if the order is canonical.
  const auto family = [&](int32_t v, bool by_position) {
    const int32_t p = of.parent[index(v)];
    return p < 0 ? count : p == v ? -1 : by_position ? position[index(p)] : p;
  };
  const auto less = [&](bool by_position) {
    return [=](int32_t v, int32_t w) {
      return std::make_pair(family(v, by_position), v) < std::make_pair(family(w, by_position), w);
    };
  };
  Made made{};
  PlanSummary &summary = made.summary;
  for (int32_t v = 0; v < count; ++v) {
    summary.num_planted += of.parent[index(v)] >= 0;
    summary.num_roots += of.parent[index(v)] == v;
  }
  summary.valid = 1;
  made.vertex = of.order;
  if (!std::is_sorted(made.vertex.begin(), made.vertex.begin() + summary.num_planted, less(true)))
    std::sort(made.vertex.begin(), made.vertex.end(), less(false));
  Numbers place(of.parent.size());
  for (int32_t i = 0; i < count; ++i) place[index(made.vertex[index(i)])] = i;
  made.parent = made.first_child = made.num_children = Numbers(of.parent.size());
  const Numbers zeros(of.parent.size());
  Numbers walk, depth = zeros, layer = zeros, size(of.parent.size(), 1), heavy(of.parent.size(), -1);
  for (int32_t i = 0; i < count; ++i) {
    const int32_t p = of.parent[index(made.vertex[index(i)])];
    made.parent[index(i)] = p < 0 ? i : place[index(p)];
    if (i < summary.num_planted) walk.push_back(place[index(of.order[index(i)])]);
  }
  for (int32_t i = summary.num_planted; i-- > summary.num_roots;) {
    made.first_child[index(made.parent[index(i)])] = i;
    ++made.num_children[index(made.parent[index(i)])];
  }
  for (const int32_t i : walk) {
    const int32_t p = made.parent[index(i)];
    depth[index(i)] = p == i ? 0 : depth[index(p)] + 1;
    summary.depth = std::max(summary.depth, depth[index(i)]);
  }
  for (size_t k = walk.size(); k-- > 0;) {
    const int32_t i = walk[k], p = made.parent[index(i)];
    if (p != i) size[index(p)] += size[index(i)];
  }
  if (how == ScanStrategy::paths)
    for (int32_t i = summary.num_roots; i < summary.num_planted; ++i) {
      int32_t &best = heavy[index(made.parent[index(i)])];
      if (best < 0 || size[index(i)] > size[index(best)]) best = i;
    }
  Numbers heads;
  for (const int32_t i : walk) {
    const int32_t p = made.parent[index(i)];
    const bool head = p == i || heavy[index(p)] != i;
    layer[index(i)] = p == i ? 0 : layer[index(p)] + head;
    if (head) heads.push_back(i);
  }
  std::sort(heads.begin(), heads.end(), [&](int32_t a, int32_t b) {
    return std::make_pair(layer[index(a)], a) < std::make_pair(layer[index(b)], b);
  });
  for (const int32_t head : heads) {
    if (layer[index(head)] == static_cast<int32_t>(made.layer_start.size()))
      made.layer_start.push_back(static_cast<int32_t>(made.path_start.size()));
    made.path_start.push_back(static_cast<int32_t>(made.sequence.size()));
    for (int32_t i = head; i >= 0; i = heavy[index(i)]) made.sequence.push_back(i);
  }
  summary.num_paths = static_cast<int32_t>(made.path_start.size());
  summary.num_layers = static_cast<int32_t>(made.layer_start.size());
  made.path_start.push_back(summary.num_planted);
  made.layer_start.push_back(summary.num_paths);
  return made;
}

void check_equal(const Made &made, const Made &expected, const std::string &what) {
  CHECK(std::memcmp(&made.summary, &expected.summary, sizeof made.summary) == 0, what);
  CHECK(made.vertex == expected.vertex, what);
  CHECK(made.parent == expected.parent, what);
  CHECK(made.first_child == expected.first_child, what);
  CHECK(made.num_children == expected.num_children, what);
  CHECK(made.sequence == expected.sequence, what);
  CHECK(made.path_start == expected.path_start, what);
  CHECK(made.layer_start == expected.layer_start, what);
}

// What walks along a plan count on, said without the way it was made.
void check_promises(const Made &made, const std::string &what) {
  const PlanSummary &summary = made.summary;
  Numbers times(made.vertex.size()), layer(made.vertex.size(), -1), top(made.vertex.size());
  for (int32_t l = 0; l < summary.num_layers; ++l) {
    CHECK(made.layer_start[index(l)] < made.layer_start[index(l + 1)], what);
    for (int32_t path = made.layer_start[index(l)]; path < made.layer_start[index(l + 1)]; ++path) {
      const int32_t begin = made.path_start[index(path)], end = made.path_start[index(path + 1)];
      CHECK(begin < end, what);
      for (int32_t k = begin; k < end; ++k) {
        const int32_t i = made.sequence[index(k)], p = made.parent[index(i)];
        ++times[index(i)];
        layer[index(i)] = l;
        if (k > begin) CHECK(p == made.sequence[index(k - 1)], what);
        else CHECK(p == i || (layer[index(p)] >= 0 && layer[index(p)] < l), what);
      }
    }
  }
  for (int32_t i = 0; i < static_cast<int32_t>(times.size()); ++i)
    CHECK(times[index(i)] == (i < summary.num_planted), what);
  for (int32_t i = 0; i < summary.num_planted; ++i)
    for (int32_t k = 0; k < made.num_children[index(i)]; ++k) {
      const int32_t child = made.first_child[index(i)] + k;
      CHECK(child >= summary.num_roots && made.parent[index(child)] == i, what);
      if (k > 0) CHECK(made.vertex[index(child)] > made.vertex[index(child - 1)], what);
    }
  CHECK(std::accumulate(made.num_children.begin(), made.num_children.end(), 0) ==
            summary.num_planted - summary.num_roots, what);
}

// Whether `how`, forced, gives just the plans expected, of trees that are `parents` and `orders`, one after another.
void check_plans(const std::vector<Forest> &forests, const std::string &what) {
  const auto trees = static_cast<int64_t>(forests.size()), vertices = static_cast<int64_t>(forests[0].parent.size());
  const auto cell = [&](const Numbers Forest::*row) {
    return [&, row](int64_t i) {
      return (forests[index(i / vertices)].*row)[index(i % vertices)];
    };
  };
  const Twin<int32_t> parent({trees, vertices}, cell(&Forest::parent)), order({trees, vertices}, cell(&Forest::order));
  for (const TreeTeam t : {TreeTeam::block, TreeTeam::grid})
    for (const ScanStrategy s : {ScanStrategy::levels, ScanStrategy::paths}) {
      team = t;
      strategy = s;
      const std::string which = what + (t == TreeTeam::grid ? ", grid" : ", block") +
                                (s == ScanStrategy::paths ? ", paths" : ", levels");
      const Result result = make(parent, order);
      EQUAL(result.failure.fault, 0);
      for (size_t k = 0; k < forests.size(); ++k) {
        check_equal(result.trees[k], plan(forests[k], s), which);
        check_promises(result.trees[k], which);
      }
    }
  team = TreeTeam::automatic;
  strategy = ScanStrategy::automatic;
}

constexpr Outline outlines[] = {Outline::recursive, Outline::chain, Outline::star, Outline::caterpillar,
                            Outline::binary, Outline::forest, Outline::none};
constexpr Order orders[] = {Order::breadth_first, Order::siblings_shuffled, Order::depth_first};

template <class Body>
Report run(const Body &body) {
  const Report report = treescan::emulation::run({}, body);
  CHECK(report.findings.empty(), report.text());
  return report;
}

}  // namespace

namespace treescan::cuda {
TreeTeam tree_team() { return team; }
ScanStrategy scan_strategy() { return strategy; }
}  // namespace treescan::cuda

TEST(every_field_is_as_planned_step_by_step) {
  std::mt19937 random(1);
  for (const int32_t count : {1, 2, 3, 7, 31, 33, 65, 130})
    for (const Outline outline : outlines)
      for (const Order order : orders)
        run([&] {
          check_plans({forest(parents_of(outline, count, random), order, random)},
                      "outline " + std::to_string(static_cast<int>(outline)) + ", order " +
                          std::to_string(static_cast<int>(order)) + ", vertices " + std::to_string(count));
        });
}

TEST(blocks_of_a_grid_plan_one_tree_together) {
  std::mt19937 random(2);
  for (const Order order : {Order::breadth_first, Order::depth_first})
    run([&] {
      check_plans({forest(parents_of(Outline::forest, 900, random), order, random)}, "three blocks");
    });
}

TEST(every_item_has_its_own_rows) {
  std::mt19937 random(3);
  run([&] {
    std::vector<Forest> forests;
    for (size_t k = 0; k < 9; ++k)
      forests.push_back(forest(parents_of(outlines[k % 7], 37, random), orders[k % 3], random));
    check_plans(forests, "nine trees");
  });
}

TEST(rows_may_be_strided_and_serve_all_items) {
  std::mt19937 random(4);
  constexpr int64_t count = 45;
  const Forest one = forest(parents_of(Outline::recursive, count, random), Order::breadth_first, random);
  Forest other = one;  // the same tree in another order
  std::reverse(other.order.begin() + 1, other.order.end());
  std::stable_sort(other.order.begin(), other.order.end(), [&](int32_t v, int32_t w) {
    const auto depth = [&](int32_t of) {
      int32_t steps = 0;
      for (; one.parent[index(of)] != of; of = one.parent[index(of)]) ++steps;
      return steps;
    };
    return depth(v) < depth(w);
  });
  strategy = ScanStrategy::paths;
  run([&] {
    const Twin<int32_t> parent({1, count}, [&](int64_t i) { return one.parent[index(i)]; }, {1, 3});
    const Twin<int32_t> order({2, count}, [&](int64_t i) {
      return (i < count ? one : other).order[index(i % count)];
    }, {1, 2});
    const Result two_orders = make(parent, order);
    EQUAL(two_orders.trees.size(), size_t{2});
    check_equal(two_orders.trees[0], plan(one, strategy), "one parent, first order");
    check_equal(two_orders.trees[1], plan(other, strategy), "one parent, second order");

    const Twin<int32_t> expanded({3, count}, [&](int64_t i) { return one.parent[index(i % count)]; }, {0, 1});
    const Twin<int32_t> once({1, count}, [&](int64_t i) { return one.order[index(i)]; });
    const Result three = make(expanded, once);
    EQUAL(three.trees.size(), size_t{3});
    for (const Made &made : three.trees) check_equal(made, plan(one, strategy), "expanded parents");
  });
  strategy = ScanStrategy::automatic;
}

TEST(nothing_to_plan) {
  run([] {
    EQUAL(make(Twin<int32_t>({0, 5}, 0), Twin<int32_t>({0, 5}, 0)).trees.size(), size_t{0});
    const Twin<int32_t> parent({2, 0}, 0), order({2, 0}, 0);
    treescan::Carver measure;
    Plans plans(measure, *parent.cuda(), *order.cuda());
    plans.make(*parent.cuda(), *order.cuda(), nullptr, nullptr);
  });
}

namespace {

// The second of three trees is wrong; the others are planned all the same.
void check_fault(const Numbers &parent, const Numbers &order, ValueFault fault, const std::vector<int64_t> &numbers,
                 const char *what) {
  const Numbers good_parent = {0, 0, 0, 1, 1, 2}, good_order = {0, 1, 2, 3, 4, 5};
  for (const TreeTeam t : {TreeTeam::block, TreeTeam::grid})
    for (const Schedule schedule : {Schedule::in_order, Schedule::reversed}) {
      team = t;
      const Report report = treescan::emulation::run({schedule}, [&] {
        const auto rows = [](const Numbers &good, const Numbers &bad) {
          return [&](int64_t i) { return (i / 6 == 1 ? bad : good)[index(i % 6)]; };
        };
        const Twin<int32_t> parents({3, 6}, rows(good_parent, parent)), in_order({3, 6}, rows(good_order, order));
        const Result result = make(parents, in_order);
        CHECK(result.failure.fault == static_cast<int32_t>(fault), what, ": ", result.failure.fault);
        for (size_t i = 0; i < numbers.size(); ++i)
          CHECK(result.failure.numbers[i] == numbers[i], what, ", number ", i);
        CHECK(result.trees[0].summary.valid == 1 && result.trees[2].summary.valid == 1, what);
        CHECK(result.trees[1].summary.valid == 0, what);
      });
      CHECK(report.findings.empty(), report.text());
    }
  team = TreeTeam::automatic;
}

}  // namespace

TEST(faults_are_reported_as_the_cpu_reports_them) {
  const Numbers parent = {0, 0, 0, 1, 1, 2}, order = {0, 1, 2, 3, 4, 5};
  check_fault(parent, {0, 1, 2, 6, 4, 5}, ValueFault::order_out_of_range, {6, 6, 3, 1}, "vertex too large");
  check_fault(parent, {0, 1, 2, 3, 4, -1}, ValueFault::order_out_of_range, {6, -1, 5, 1}, "vertex negative");
  check_fault(parent, {0, 1, 2, 3, 2, 5}, ValueFault::order_repeats, {2, 4, 2, 1}, "vertex twice");
  check_fault({0, 0, 0, 1, 6, 2}, order, ValueFault::parent_out_of_range, {6, 6, 4, 1}, "parent too large");
  check_fault({0, 0, 0, -2, 1, 2}, order, ValueFault::parent_out_of_range, {6, -2, 3, 1}, "parent negative");
  check_fault({0, 0, 0, -1, 1, 2}, order, ValueFault::order_lacks_parents_last, {4, 1, 4, 1}, "no parent, not last");
  check_fault({0, 0, 2, 1, 1, 2}, order, ValueFault::order_lacks_roots_first, {2, 2, 1}, "root behind another vertex");
  check_fault(parent, {0, 1, 3, 5, 2, 4}, ValueFault::order_child_before_parent, {5, 3, 2, 1}, "child too early");
  check_fault({0, 0, 4, 1, 2, 2}, order, ValueFault::order_child_before_parent, {2, 2, 4, 1}, "a cycle");
  check_fault({1, 2, 0, 4, 5, 3}, order, ValueFault::order_child_before_parent, {}, "cycles only");
}

TEST(no_values_lead_astray) {
  std::mt19937 random(5);
  constexpr int32_t count = 6;
  int valid = 0;
  for (int round = 0; round < 300; ++round) {
    // A tree with a few numbers overwritten.
    Forest one = forest(parents_of(Outline::forest, count, random), orders[round % 3], random);
    for (auto change = random() % 3; change-- > 0;)
      (random() % 2 ? one.parent : one.order)[random() % count] = static_cast<int32_t>(random() % (count + 3)) - 2;
    bool right = true, unplanted = false, other = false;
    Numbers at(count, -1);
    for (int32_t i = 0; i < count && right; ++i) {
      const int32_t v = one.order[index(i)];
      right = v >= 0 && v < count && at[index(v)] < 0;
      if (!right) break;
      const int32_t p = one.parent[index(v)];
      right = p >= -1 && p < count && (p < 0 || !unplanted) && (p != v || !other);
      right = right && (p < 0 || p == v || at[index(p)] >= 0);
      unplanted |= p < 0;
      other |= p != v;
      at[index(v)] = i;
    }
    valid += right;
    run([&] {
      const Twin<int32_t> parent({1, count}, [&](int64_t i) { return one.parent[index(i)]; });
      const Twin<int32_t> order({1, count}, [&](int64_t i) { return one.order[index(i)]; });
      const Result result = make(parent, order);
      EQUAL(result.trees[0].summary.valid, right);
      EQUAL(result.failure.fault == 0, right);
      if (right) check_promises(result.trees[0], "changed");
    });
  }
  CHECK(valid > 50 && valid < 250, valid);
}

TEST(the_order_in_which_threads_run_is_nothing_to_go_by) {
  for (const Order order : {Order::breadth_first, Order::depth_first})
    expect_clean("plans of small trees", [&] {
      std::mt19937 random(6);
      check_plans({forest(parents_of(Outline::forest, 33, random), order, random),
                   forest(parents_of(Outline::caterpillar, 33, random), order, random)}, "any schedule");
      const Twin<int32_t> ones({1, 33}, 1);
      EQUAL(make(ones, ones).trees[0].summary.valid, 0);
    });
  team = TreeTeam::grid;
  strategy = ScanStrategy::paths;
  expect_clean("a plan by two blocks", [&] {
    std::mt19937 random(7);
    const Forest one = forest(parents_of(Outline::caterpillar, 400, random), Order::depth_first, random);
    const Twin<int32_t> parent({1, 400}, [&](int64_t i) { return one.parent[index(i)]; });
    const Twin<int32_t> in_order({1, 400}, [&](int64_t i) { return one.order[index(i)]; });
    check_equal(make(parent, in_order).trees[0], plan(one, strategy), "two blocks");
  });
  team = TreeTeam::automatic;
  strategy = ScanStrategy::automatic;
}

namespace {

struct Cost {
  int64_t barriers, bytes;  // of global memory, for each vertex
  PlanSummary summary;
};

// What planning one tree takes.
Cost cost(Outline outline, int32_t count, Order order = Order::breadth_first) {
  std::mt19937 random(8);
  PlanSummary summary{};
  const Report report = run([&] {
    const Forest made = forest(parents_of(outline, count, random), order, random);
    const Twin<int32_t> parent({1, count}, [&](int64_t i) { return made.parent[index(i)]; });
    const Twin<int32_t> in_order({1, count}, [&](int64_t i) { return made.order[index(i)]; });
    summary = make(parent, in_order).trees[0].summary;
    EQUAL(summary.valid, 1);
  });
  EQUAL(report.kernels.size(), size_t{1});
  const auto &counters = report.kernels.begin()->second;
  EQUAL(counters.launches, 1);
  return {counters.most_barriers_of_a_block + counters.grid_barriers,
          (counters.loads.bytes + counters.stores.bytes) / count, summary};
}

}  // namespace

TEST(the_strategy_goes_by_depth) {
  EQUAL(cost(Outline::chain, 200).summary.num_paths, 1);
  EQUAL(cost(Outline::caterpillar, 200).summary.num_layers, 2);
  EQUAL(cost(Outline::star, 200).summary.num_paths, 200);
  EQUAL(cost(Outline::recursive, 200).summary.num_paths, 200);
}

TEST(heavy_paths_have_as_many_layers_as_the_logarithm) {
  strategy = ScanStrategy::paths;
  for (const Outline outline : outlines) CHECK(cost(outline, 255).summary.num_layers <= 8);
  EQUAL(cost(Outline::binary, 255).summary.num_layers, 8);
  EQUAL(cost(Outline::chain, 255).summary.num_layers, 1);
  strategy = ScanStrategy::automatic;
}

// Blocks keep their memory from tree to tree: their own, or the device's where they have little.
TEST(a_block_plans_many_trees) {
  std::mt19937 random(9);
  for (const size_t shared : {size_t{1024}, size_t{65536}}) {
    treescan::emulation::Device device;
    device.multiprocessors = 2;
    device.blocks_per_multiprocessor = 1;
    device.shared_opt_in = shared;
    const Report report = treescan::emulation::run({}, [&] {
      std::vector<Forest> forests;
      for (size_t k = 0; k < 14; ++k)
        forests.push_back(forest(parents_of(outlines[k % 7], 51, random), orders[k % 3], random));
      check_plans(forests, "fourteen trees");
    }, device);
    CHECK(report.findings.empty(), report.text());
    for (const auto &[kernel, counters] : report.kernels)
      if (kernel.find("plan_by_blocks") != std::string::npos) EQUAL(counters.blocks, 2 * counters.launches);
  }
}

// Any tree takes about as many barriers as any other, and of the device's memory a block touches little but results.
TEST(what_planning_takes) {
  if (!treescan::emulation::sees_accesses()) return;
  const int32_t count = long_form() ? 65536 : 4096;
  for (const TreeTeam t : {TreeTeam::block, TreeTeam::grid}) {
    team = t;
    const int32_t vertices = t == TreeTeam::block ? count : count / 4;
    const auto show = [&](const char *what, const Cost &taken) {
      std::cout << (t == TreeTeam::block ? "block, " : "grid, ") << vertices << " vertices, " << what << ": "
                << taken.barriers << " barriers, " << taken.bytes << " bytes a vertex" << std::endl;
    };
    const Cost chain = cost(Outline::chain, vertices);
    show("chain", chain);
    for (const auto &[outline, what] : {std::make_pair(Outline::recursive, "random tree"), {Outline::star, "star"},
                                        {Outline::caterpillar, "caterpillar"}}) {
      const Cost other = cost(outline, vertices);
      show(what, other);
      CHECK(chain.barriers <= 4 * other.barriers, what, ": ", chain.barriers, " and ", other.barriers);
      CHECK(other.barriers <= 4 * chain.barriers, what, ": ", chain.barriers, " and ", other.barriers);
    }
    const Cost shuffled = cost(Outline::recursive, vertices, Order::depth_first);
    show("random tree, depth first", shuffled);
    if (t == TreeTeam::block && !long_form()) {
      CHECK(chain.bytes <= 100, chain.bytes);
      CHECK(shuffled.bytes <= 130, shuffled.bytes);
    }
  }
  team = TreeTeam::automatic;
}

TEST_MAIN
