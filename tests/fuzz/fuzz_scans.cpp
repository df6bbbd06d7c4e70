// Scans and their adjoint, all dtypes and directions; small ones against their definition.
#include "graphs.h"

using namespace fuzzing;

namespace {

double value(const Tensor &tensor, int32_t dtype, int64_t i) {
  return dtype == TREESCAN_FLOAT64 ? tensor.at<double>(i) : static_cast<double>(tensor.at<float>(i));
}

// y[v]: what flows to v of every x, by the path between them.
double scanned(int32_t direction, const std::vector<int32_t> &parent, const std::vector<double> &x,
               const std::vector<double> &w, size_t v, size_t from, bool may_rise) {
  double sum = x[v];
  for (size_t child = 0; child < parent.size(); ++child)
    if (direction != TREESCAN_DOWN && child != from && child != v && parent[child] == static_cast<int32_t>(v))
      sum += w[child] * scanned(direction, parent, x, w, child, v, false);
  const auto p = static_cast<size_t>(parent[v]);
  if (direction != TREESCAN_UP && may_rise && p != v) sum += w[v] * scanned(direction, parent, x, w, p, v, true);
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  Data data(bytes, size);
  choose_threads(data);
  const int64_t batch = data.size(1, 3), channels = data.size(1, data.rarely() ? 300 : 20);
  const bool image = data.flag();
  const int64_t height = data.size(1, 4), width = image ? data.size(1, 4) : 1;
  const bool fits = height >= 0 && width >= 0 && (width == 0 || height <= INT64_MAX / width);
  const int64_t vertices = fits ? height * width : 4;
  const Sizes shape = image ? Sizes{batch, channels, height, width} : Sizes{batch, channels, height};
  const int32_t dtype = data.pick(floating_dtypes), direction = data.choice(3);
  const bool backward = data.flag();
  const int64_t trees = data.flag() ? batch : 1;
  Tensor parent(data, Role::input, TREESCAN_INT32, {trees, vertices}, vertices);
  Tensor order(data, Role::input, TREESCAN_INT32, {trees, vertices}, vertices);
  if (!data.rarely()) plant(data, parent, &order, trees, vertices, data.flag());
  Tensor x(data, Role::input, dtype, shape), weights(data, Role::input, dtype, shape);
  Tensor grad(data, Role::input, dtype, shape);
  Tensor first(data, Role::output, dtype, shape), second(data, Role::output, dtype, shape);
  const treescan_status status = run(
      data,
      [&](treescan_workspace *workspace, void *stream) {
        if (backward)
          return treescan_scan_backward(direction, parent, order, x, weights, grad, first, second, workspace, stream);
        return treescan_scan(direction, parent, order, x, weights, first, workspace, stream);
      },
      {&first, &second});
  if (status != TREESCAN_OK || backward || !x.is_real() || !weights.is_real() || !first.is_real() || !parent.is_real()) return 0;
  if (!are_small({batch, channels}) || vertices > 16) return 0;
  if (dtype != TREESCAN_FLOAT32 && dtype != TREESCAN_FLOAT64) return 0;
  for (int64_t item = 0; item < batch; ++item) {
    std::vector<int32_t> tree;
    for (int64_t v = 0; v < vertices; ++v) tree.push_back(parent.at<int32_t>((trees == 1 ? 0 : item) * vertices + v));
    for (int64_t c = 0; c < std::min<int64_t>(channels, 3); ++c) {
      std::vector<double> row, factors;
      double largest = 0;
      for (int64_t v = 0; v < vertices; ++v) {
        const int64_t i = (item * channels + c) * vertices + v;
        row.push_back(value(x, dtype, i));
        factors.push_back(value(weights, dtype, i));
        largest = std::fabs(row.back()) <= 2 && std::fabs(factors.back()) <= 2 ? largest : 1e300;
      }
      if (largest > 0) continue;  // infinities and NaN have no tolerance
      for (int64_t v = 0; v < vertices; ++v) {
        const double got = value(first, dtype, (item * channels + c) * vertices + v);
        const auto at = static_cast<size_t>(v);
        const double expected = tree[at] < 0 ? 0 : scanned(direction, tree, row, factors, at, at, true);
        REQUIRE(std::fabs(got - expected) <= 1e-3 * (1 + std::ldexp(1.0, static_cast<int>(vertices))));
      }
    }
  }
  return 0;
}
