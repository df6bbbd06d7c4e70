// Scans and their adjoints in every direction, type and layout.
#include "naive.h"

namespace {

using Strides = std::function<Shape(const Shape &)>;

// Where the elements of a (B, C, V) or (B, C, H, W) array lie.
const std::vector<Strides> layouts = {
    [](const Shape &s) { return testing::dense_strides(s); },
    [](const Shape &s) {  // channels last
      return s.size() == 3 ? Shape{s[1] * s[2], 1, s[1]} : Shape{s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]};
    },
    [](const Shape &s) {  // channels last, padded at the end of every vertex and row
      const int64_t c = s[1] + 3;
      return s.size() == 3 ? Shape{c * s[2] + 1, 1, c} : Shape{c * s[2] * (s[3] + 1), 1, (s[3] + 1) * c, c};
    },
    [](const Shape &s) {  // padded rows
      return s.size() == 3 ? Shape{s[1] * (s[2] + 3), s[2] + 3, 1}
                           : Shape{s[1] * s[2] * (s[3] + 2) + 5, s[2] * (s[3] + 2), s[3] + 2, 1};
    },
    [](const Shape &s) {  // backwards, every other element
      Shape strides = testing::dense_strides(s);
      for (int64_t &stride : strides) stride *= -2;
      return strides;
    },
    [](const Shape &s) {  // the last index slowest
      Shape strides(s.size(), 1);
      for (size_t i = 1; i < s.size(); ++i) strides[i] = strides[i - 1] * std::max<int64_t>(1, s[i - 1]);
      return strides;
    }};

// For inputs only: one number, one channel or one item for all.
const std::vector<Strides> expansions = {[](const Shape &s) { return Shape(s.size(), 0); },
                                         [](const Shape &s) {
                                           Shape strides = testing::dense_strides(s);
                                           strides[1] = 0;
                                           return strides;
                                         },
                                         [](const Shape &s) {
                                           Shape strides = testing::dense_strides(s);
                                           strides[0] = 0;
                                           return strides;
                                         }};

struct Trees {
  Array<int32_t> parent, order;
};

// Random trees with vertices numbered at random; sometimes shallow, sometimes deep.
struct RandomTrees : Trees {
  RandomTrees(int64_t count, int64_t vertices, std::mt19937 &generator, bool canonical)
      : Trees{Array<int32_t>({count, vertices}, {1, count}), Array<int32_t>({count, vertices}, {-vertices, 1})} {
    for (int64_t item = 0; item < count; ++item) {
      std::vector<int32_t> name(static_cast<size_t>(vertices));
      std::iota(name.begin(), name.end(), 0);
      std::shuffle(name.begin(), name.end(), generator);
      for (int64_t i = 0; i < vertices; ++i) {
        const int64_t reach = item % 2 ? std::min<int64_t>(i, 2) : i;
        const int64_t p = i ? i - 1 - static_cast<int64_t>(generator()) % reach : 0;
        parent[item * vertices + name[static_cast<size_t>(i)]] = name[static_cast<size_t>(std::max<int64_t>(0, p))];
        order[item * vertices + i] = name[static_cast<size_t>(i)];
      }
    }
    if (canonical) {
      const treescan::tree sorted = treescan::tree_from_parents(parent.view());
      order.fill([&](int64_t i) { return sorted.order[static_cast<size_t>(i)]; });
    }
  }
};

std::vector<double> channel(const std::vector<double> &all, int64_t index, int64_t vertices) {
  return {all.begin() + index * vertices, all.begin() + (index + 1) * vertices};
}

template <class T>
struct Scan {
  Shape sizes;
  const Trees &trees;
  Array<T> x, weights, grad_y;
  Array<T> y, grad_x, grad_weights;

  Scan(const Shape &shape, const Trees &tree, const Strides &in, const Strides &factor, const Strides &out,
       std::mt19937 &generator)
      : sizes(shape),
        trees(tree),
        x(shape, in(shape)),
        weights(shape, factor(shape)),
        grad_y(shape, in(shape)),
        y(shape, out(shape)),
        grad_x(shape, out(shape)),
        grad_weights(shape, out(shape)) {
    x.random(generator, -1, 1);
    weights.random(generator, -0.9, 0.9);
    grad_y.random(generator, -1, 1);
  }

  treescan_status forward(int32_t direction, treescan_workspace *workspace = nullptr) {
    const treescan::tensor_view p = trees.parent.view(), o = trees.order.view(), a = x.view(), w = weights.view(),
                                b = y.view();
    return treescan_scan(direction, &p, &o, &a, &w, &b, workspace, nullptr);
  }

  treescan_status backward(int32_t direction, treescan_workspace *workspace = nullptr) {
    const treescan::tensor_view p = trees.parent.view(), o = trees.order.view(), a = x.view(), w = weights.view(),
                                g = grad_y.view(), gx = grad_x.view(), gw = grad_weights.view();
    return treescan_scan_backward(direction, &p, &o, &a, &w, &g, &gx, &gw, workspace, nullptr);
  }

  void check(int32_t direction) {
    const int64_t channels = sizes[1];
    const int64_t vertices = sizes.size() == 3 ? sizes[2] : sizes[2] * sizes[3];
    const int64_t shared = trees.parent.sizes()[0] == 1;
    const std::vector<double> parents = trees.parent.values(), xs = x.values(), ws = weights.values(),
                              gs = grad_y.values();
    const std::vector<double> ys = y.values(), gxs = grad_x.values(), gws = grad_weights.values();
    for (int64_t i = 0; i < sizes[0] * channels; ++i) {
      naive::Gradients gradients;
      const std::vector<double> parent = channel(parents, shared ? 0 : i / channels, vertices);
      const std::vector<double> expected = naive::scan(direction, parent, channel(xs, i, vertices),
                                                       channel(ws, i, vertices), channel(gs, i, vertices), &gradients);
      CHECK(testing::close<T>(channel(ys, i, vertices), expected, 4), "y, channel ", i, ", direction ", direction);
      CHECK(testing::close<T>(channel(gxs, i, vertices), gradients.x, 4), "grad_x, channel ", i, ", direction ",
            direction);
      CHECK(testing::close<T>(channel(gws, i, vertices), gradients.weights, 8), "grad_weights, channel ", i,
            ", direction ", direction);
      for (int64_t v = 0; v < vertices; ++v)
        if (static_cast<int64_t>(parent[static_cast<size_t>(v)]) == v)
          EQUAL(channel(gws, i, vertices)[static_cast<size_t>(v)], 0.0);
    }
  }

  void run(bool in_every_setting) {
    for (const int32_t direction : {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH}) {
      if (in_every_setting) {
        testing::in_every_setting([&](treescan_workspace *workspace) { return forward(direction, workspace); }, y);
        testing::in_every_setting([&](treescan_workspace *workspace) { return backward(direction, workspace); }, grad_x,
                                  grad_weights);
      } else {
        SUCCEEDS(forward(direction));
        SUCCEEDS(backward(direction));
        CHECK(y.intact() && grad_x.intact() && grad_weights.intact());
      }
      check(direction);
    }
  }
};

// Every layout of the inputs with every layout of the outputs.
template <class T>
void check_layouts() {
  std::mt19937 generator(1);
  const RandomTrees own(3, 12, generator, true), shared(1, 12, generator, true);
  for (const Shape &sizes : {Shape{3, 5, 12}, Shape{3, 5, 3, 4}})
    for (size_t in = 0; in < layouts.size() + expansions.size(); ++in) {
      const Strides &input = in < layouts.size() ? layouts[in] : expansions[in - layouts.size()];
      for (const Strides &output : layouts) Scan<T>(sizes, own, input, input, output, generator).run(false);
      Scan<T>(sizes, shared, layouts[1], input, layouts[in % layouts.size()], generator).run(true);
    }
}

// Numbers of channels on both sides of every width of a tile.
template <class T>
void check_channels() {
  std::mt19937 generator(2);
  const RandomTrees trees(2, 9, generator, true);
  for (const int64_t channels : {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 96, 128})
    for (const Strides &layout : {layouts[0], layouts[1], layouts[2]})
      Scan<T>({2, channels, 9}, trees, layout, layout, layout, generator).run(channels % 16 == 0 && channels > 0);
  // More than a tile is wide.
  const RandomTrees few(1, 5, generator, true);
  Scan<T>({1, 1281, 5}, few, layouts[1], layouts[1], layouts[1], generator).run(false);
}

// Stars, whose root adds up its children one after the other, and trees in which most vertices wait for their children at
// once: both are where a ring is longest.
template <class T>
void check_many_children() {
  std::mt19937 generator(7);
  const int64_t half = 20, vertices = 2 * half + 1;
  Trees trees{Array<int32_t>({2, vertices}), Array<int32_t>({2, vertices})};
  trees.parent.fill([&](int64_t i) { return i < vertices || i % vertices <= half ? 0 : i % vertices - half; });
  trees.order.fill([&](int64_t i) { return i % vertices; });
  for (const int64_t channels : {1, 5, 16, 40})
    for (const Strides &layout : {layouts[0], layouts[1]})
      Scan<T>({2, channels, vertices}, trees, layout, layout, layout, generator).run(channels == 5);
}

template <class T>
void check_all() {
  check_layouts<T>();
  check_channels<T>();
  check_many_children<T>();
}

// Half types compute in float32 and round once: the float32 scan of the same numbers, rounded.
template <class T>
void check_half() {
  check_all<T>();
  std::mt19937 generator(3);
  const RandomTrees trees(2, 40, generator, true);
  const Shape sizes{2, 5, 40};
  Scan<T> half(sizes, trees, layouts[0], layouts[0], layouts[0], generator);
  Scan<float> single(sizes, trees, layouts[0], layouts[0], layouts[0], generator);
  // Numbers near both ends of the range, so that some results are subnormal, some infinite.
  const auto scale = [&](int64_t i) { return std::ldexp(1.0, i % 5 == 0 ? -14 : i % 5 == 1 ? 15 : 0); };
  half.x.fill([&](int64_t i) { return testing::value_of(half.x[i]) * scale(i); });
  single.x.fill([&](int64_t i) { return testing::value_of(half.x[i]); });
  single.weights.fill([&](int64_t i) { return testing::value_of(half.weights[i]); });
  single.grad_y.fill([&](int64_t i) { return testing::value_of(half.grad_y[i]); });
  for (const int32_t direction : {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH}) {
    SUCCEEDS(half.forward(direction));
    SUCCEEDS(half.backward(direction));
    SUCCEEDS(single.forward(direction));
    SUCCEEDS(single.backward(direction));
    const auto same = [&](const Array<T> &rounded, const Array<float> &exact) {
      int different = 0;
      for (int64_t i = 0; i < exact.count(); ++i)
        different += rounded[i].bits != testing::number<T>(testing::value_of(exact[i])).bits;
      EQUAL(different, 0);
    };
    same(half.y, single.y);
    same(half.grad_x, single.grad_x);
    same(half.grad_weights, single.grad_weights);
  }
}

}  // namespace

TEST(scans_of_float32) { check_all<float>(); }
TEST(scans_of_float64) { check_all<double>(); }
TEST(scans_of_float16) { check_half<treescan::float16>(); }
TEST(scans_of_bfloat16) { check_half<treescan::bfloat16>(); }

TEST(small_and_empty) {
  std::mt19937 generator(4);
  for (const int64_t vertices : {1, 2, 3}) {
    const RandomTrees trees(2, vertices, generator, true);
    Scan<float>({2, 3, vertices}, trees, layouts[0], layouts[0], layouts[0], generator).run(true);
    Scan<float>({2, 3, 1, vertices}, trees, layouts[1], layouts[1], layouts[1], generator).run(true);
    Scan<float>({2, 3, vertices, 1}, trees, layouts[3], layouts[3], layouts[3], generator).run(true);
  }
  const RandomTrees shared(1, 6, generator, true);
  Scan<float>({0, 3, 6}, shared, layouts[0], layouts[0], layouts[0], generator).run(true);
  Scan<float>({2, 0, 6}, shared, layouts[0], layouts[0], layouts[0], generator).run(true);
}

// An order that isn't canonical, but has parents first: the same bits.
TEST(any_order_with_parents_first) {
  std::mt19937 generator(5);
  RandomTrees trees(3, 30, generator, false);
  for (const Strides &layout : {layouts[0], layouts[1]}) {
    Scan<float> scan({3, 5, 30}, trees, layout, layout, layout, generator);
    const treescan::tree sorted = treescan::tree_from_parents(trees.parent.view());
    const std::vector<double> depth_first = trees.order.values();
    for (const int32_t direction : {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH}) {
      testing::in_every_setting([&](treescan_workspace *w) { return scan.forward(direction, w); }, scan.y);
      testing::in_every_setting([&](treescan_workspace *w) { return scan.backward(direction, w); }, scan.grad_x,
                                scan.grad_weights);
      scan.check(direction);
      const std::string y = scan.y.bytes(), grad_x = scan.grad_x.bytes(), grad_weights = scan.grad_weights.bytes();
      trees.order.fill([&](int64_t i) { return sorted.order[static_cast<size_t>(i)]; });
      SUCCEEDS(scan.forward(direction));
      SUCCEEDS(scan.backward(direction));
      CHECK(scan.y.bytes() == y && scan.grad_x.bytes() == grad_x && scan.grad_weights.bytes() == grad_weights);
      trees.order.fill([&](int64_t i) { return depth_first[static_cast<size_t>(i)]; });
    }
  }
}

// The root's weight is not used: not even where it is NaN or infinite.
TEST(the_weight_of_the_root) {
  std::mt19937 generator(6);
  const RandomTrees trees(1, 7, generator, true);
  for (const float weight : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Scan<float> scan({1, 3, 7}, trees, layouts[0], layouts[0], layouts[0], generator);
    Array<float> replaced({1, 3, 7});
    for (int64_t c = 0; c < 3; ++c) scan.weights[c * 7 + trees.order[0]] = 0.5f;
    for (const int32_t direction : {TREESCAN_UP, TREESCAN_DOWN, TREESCAN_BOTH}) {
      SUCCEEDS(scan.forward(direction));
      SUCCEEDS(scan.backward(direction));
      const std::string before = scan.y.bytes() + scan.grad_x.bytes() + scan.grad_weights.bytes();
      for (int64_t c = 0; c < 3; ++c) scan.weights[c * 7 + trees.order[0]] = weight;
      SUCCEEDS(scan.forward(direction));
      SUCCEEDS(scan.backward(direction));
      CHECK(scan.y.bytes() + scan.grad_x.bytes() + scan.grad_weights.bytes() == before, "direction ", direction);
      for (int64_t c = 0; c < 3; ++c) scan.weights[c * 7 + trees.order[0]] = 0.5f;
    }
  }
}

// NaN and infinity go where the path takes them, and nowhere else.
TEST(nan_stays_on_its_way) {
  const int32_t parent[] = {0, 0, 0, 1}, order[] = {0, 1, 2, 3};
  const float x[] = {1, NAN, 1, 1}, weights[] = {1, 0.5f, 0.5f, 0.5f};
  float y[4];
  const treescan::tensor_view p(parent, {1, 4}), o(order, {1, 4});
  treescan::scan(treescan::direction::down, p, o, {x, {1, 1, 4}}, {weights, {1, 1, 4}}, {y, {1, 1, 4}});
  CHECK(y[0] == 1 && std::isnan(y[1]) && y[2] == 1.5f && std::isnan(y[3]));
  treescan::scan(treescan::direction::up, p, o, {x, {1, 1, 4}}, {weights, {1, 1, 4}}, {y, {1, 1, 4}});
  CHECK(std::isnan(y[0]) && std::isnan(y[1]) && y[2] == 1 && y[3] == 1);
}

// x and weights may be one array.
TEST(one_array_twice) {
  const int32_t parent[] = {0, 0, 1}, order[] = {0, 1, 2};
  const double x[] = {0.5, 2, 3};
  double y[3];
  treescan::scan(treescan::direction::up, {parent, {1, 3}}, {order, {1, 3}}, {x, {1, 1, 3}}, {x, {1, 1, 3}},
                 {y, {1, 1, 3}});
  CHECK(y[2] == 3 && y[1] == 2 + 3 * 3 && y[0] == 0.5 + 2 * 11);
}

// A tree and an image of many tiles for every thread, and of rows that are fetched ahead.
TEST(a_larger_grid) {
  const int64_t h = 60, w = 47, channels = 200;
  std::mt19937 generator(8);
  const treescan::graph grid = treescan::grid(h, w);
  Array<float> cost({1, grid.num_edges()});
  cost.random(generator, 0, 1);
  const treescan::tree tree = treescan::minimum_spanning_tree(grid, cost.view(), {17});
  for (const Strides &layout : {layouts[0], layouts[1]}) {
    const Shape sizes{1, channels, h, w};
    Array<float> x(sizes, layout(sizes)), weights(sizes, layout(sizes)), y(sizes, layout(sizes));
    x.random(generator, -1, 1);
    weights.random(generator, 0, 1);
    const treescan::tensor_view p = tree.parent_view(), o = tree.order_view(), a = x.view(), b = weights.view();
    testing::in_every_setting(
        [&](treescan_workspace *workspace) {
          const treescan::tensor_view out = y.view();
          return treescan_scan(TREESCAN_BOTH, &p, &o, &a, &b, &out, workspace, nullptr);
        },
        y);
    // The recurrence in double.
    const int64_t vertices = h * w;
    for (const int64_t i : {int64_t{0}, int64_t{77}, channels - 1}) {
      const auto at = [&](const std::vector<int32_t> &values, int64_t v) {
        return static_cast<int64_t>(values[static_cast<size_t>(v)]);
      };
      std::vector<double> up(static_cast<size_t>(vertices)), both;
      for (int64_t v = 0; v < vertices; ++v) up[static_cast<size_t>(v)] = testing::value_of(x[i * vertices + v]);
      for (int64_t k = vertices - 1; k > 0; --k) {
        const int64_t v = at(tree.order, k);
        up[static_cast<size_t>(at(tree.parent, v))] +=
            testing::value_of(weights[i * vertices + v]) * up[static_cast<size_t>(v)];
      }
      both = up;
      for (int64_t k = 1; k < vertices; ++k) {
        const int64_t v = at(tree.order, k);
        const double factor = testing::value_of(weights[i * vertices + v]);
        both[static_cast<size_t>(v)] +=
            factor * (both[static_cast<size_t>(at(tree.parent, v))] - factor * up[static_cast<size_t>(v)]);
      }
      std::vector<double> got;
      for (int64_t v = 0; v < vertices; ++v) got.push_back(testing::value_of(y[i * vertices + v]));
      CHECK(testing::close<float>(got, both, 10), "channel ", i);
    }
  }
}

TEST_MAIN
