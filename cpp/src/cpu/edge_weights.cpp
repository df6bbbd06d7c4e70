#include "cpu/edge_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/copy_kernels.h"
#include "cpu/dispatch.h"
#include "cpu/edge_kernels.h"
#include "cpu/layout.h"
#include "cosine.h"
#include "elementary.h"
#include "parallel.h"
#include "validate.h"
#include "value_faults.h"
#include "workspace.h"

namespace treescan {

TREESCAN_KERNEL_FUNCTION(const EdgeKernelTable &edge_table())

TREESCAN_KERNEL_FUNCTION(const CopyKernels &copy_kernels())

const CopyKernels &copy_kernels() { return TREESCAN_KERNEL(copy_kernels)(); }

const EdgeKernelTable &edge_kernel_table() { return TREESCAN_KERNEL(edge_table)(); }

namespace {

// Where features are read: in the caller's memory or in a copy of some vertices, as kernels take them.
template <class T>
struct Rows {
  const T *data;
  int64_t stride, channel_stride;
  const T *operator[](int64_t i) const { return data + i * stride; }
};

constexpr int partials = 16;  // as edge_kernels.h has them
constexpr int64_t longest_run = 256;  // of edges that are weighed at a time

// Sums are of T, costs of Cost.
template <class T, class Cost>
struct Metric {
  using Bits = typename Floating<T>::Bits;

  const EdgeKernels<T> &kernels;
  int32_t kind;
  int64_t channels;

  bool needs_norms() const { return kind == TREESCAN_COSINE; }

  // Of vertices; -1 where the vector has to be scaled, 1 where it is 0.
  void norms(const Rows<T> &rows, int64_t count, T *norm) const {
    kernels.products({rows[0], rows[0], rows.stride, rows.channel_stride, channels, count}, norm);
    for (int64_t first = 0; first < count; first += longest_run) {
      const int64_t size = std::min(longest_run, count - first);
      Bits leave = 0;
      for (int64_t i = first; i < first + size; ++i) norm[i] = std::sqrt(norm[i]);
      for (int64_t i = first; i < first + size; ++i) leave |= leaves_range(norm[i]);
      if (leave) mark_scaled(rows, first, size, norm + first);
    }
  }

  // Of up to longest_run pairs.
  void costs(const Pairs<T> &pairs, const T *norm_a, const T *norm_b, Cost *cost) const {
    T sums[longest_run];
    Bits signs = 0;
    switch (kind) {
      case TREESCAN_COSINE:
        kernels.products(pairs, sums);
        for (int64_t i = 0; i < pairs.count; ++i) cost[i] = static_cast<Cost>(-(sums[i] / (norm_a[i] * norm_b[i])));
        for (int64_t i = 0; i < pairs.count; ++i) signs |= cast_bits<Bits>(norm_a[i]) | cast_bits<Bits>(norm_b[i]);
        for (int64_t i = 0; signs < 0 && i < pairs.count; ++i)
          if (norm_a[i] < 0 || norm_b[i] < 0) cost[i] = static_cast<Cost>(scaled_cost(pairs, i));
        return;
      case TREESCAN_L2: kernels.squared_differences(pairs, sums); break;
      default: kernels.absolute_differences(pairs, sums);
    }
    for (int64_t i = 0; i < pairs.count; ++i) cost[i] = static_cast<Cost>(sums[i]);
  }

 private:
  Bits largest(const T *vertex, int64_t channel_stride) const {
    Bits found = 0;
    for (int64_t c = 0; c < channels; ++c) found = std::max(found, magnitude(vertex[c * channel_stride]));
    return found;
  }

  void mark_scaled(const Rows<T> &rows, int64_t first, int64_t count, T *norm) const {
    Bits found[longest_run] = {};
    if (rows.stride == 1) {  // a plane for each channel: vectors of them at a time
      for (int64_t c = 0; c < channels; ++c) {
        const T *const plane = rows[first] + c * rows.channel_stride;
        for (int64_t i = 0; i < count; ++i) found[i] = std::max(found[i], magnitude(plane[i]));
      }
    } else {
      for (int64_t i = 0; i < count; ++i)
        if (leaves_range(norm[i])) found[i] = largest(rows[first + i], rows.channel_stride);
    }
    for (int64_t i = 0; i < count; ++i) {
      const T ordinary = norm[i] == 0 ? 1 : norm[i];
      norm[i] = leaves_range(norm[i]) && can_scale<T>(found[i]) ? T{-1} : ordinary;
    }
  }

  // The cosine cost of a pair of which one has to be scaled, by the same sums over copies that are.
  T scaled_cost(const Pairs<T> &pairs, int64_t i) const {
    const T *const a = pairs.a + i * pairs.stride, *const b = pairs.b + i * pairs.stride;
    const T scale_a = scale_for<T>(largest(a, pairs.channel_stride)), scale_b = scale_for<T>(largest(b, pairs.channel_stride));
    T partial[3][partials] = {};
    for (int64_t c = 0; c < channels; ++c) {
      const T x = a[c * pairs.channel_stride] * scale_a, y = b[c * pairs.channel_stride] * scale_b;
      partial[0][c % partials] += x * y;
      partial[1][c % partials] += x * x;
      partial[2][c % partials] += y * y;
    }
    for (T *const sums : partial)
      for (int half = partials / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) sums[l] += sums[l + half];
    return cosine_cost(partial[0][0], std::sqrt(partial[1][0]), std::sqrt(partial[2][0]));
  }
};

template <class Cost>
Cost exponential_of(Cost value, int64_t item, int64_t edge) {
  const auto result = static_cast<Cost>(elementary_exp(static_cast<double>(value)));
  if (std::isinf(result) && std::isfinite(value))
    fail(ValueFault::exponential_overflows, cast_bits<int64_t>(static_cast<double>(value)), edge, item, 8 * sizeof(Cost));
  return result;
}

template <class T>
class Features {
 public:
  Features(const treescan_tensor &tensor, const CopyKernels &copy)
      : tensor_(tensor), layout_(layout_of(tensor)), copy_(copy) {
    const bool own_type = tensor.dtype == TREESCAN_FLOAT32 || tensor.dtype == TREESCAN_FLOAT64;
    const bool in_planes = tensor.sizes[1] <= most_planes && layout_.column_stride == 1;
    in_place = own_type && layout_.one_row && (layout_.channel_stride == 1 || in_planes);
  }

  bool in_place;

  // A range of vertices that is copied starts and ends with rows of this length.
  int64_t row() const { return layout_.one_row ? 1 : layout_.columns; }

  Rows<T> read(int64_t item, int64_t first, int64_t count, T *place) const {
    const int64_t offset = item * tensor_.strides[0] + layout_.offset(first);
    const void *const source = static_cast<const char *>(tensor_.data) + offset * dtype_size(tensor_.dtype);
    if (in_place) return {static_cast<const T *>(source), layout_.column_stride, layout_.channel_stride};
    Layout layout = layout_;
    layout.columns = std::min(layout.columns, count);
    copy_.load(tensor_.dtype, source, layout, count, tensor_.sizes[1], tensor_.sizes[1], tensor_.sizes[1], place);
    return {place, tensor_.sizes[1], 1};
  }

 private:
  const treescan_tensor &tensor_;
  Layout layout_;
  const CopyKernels &copy_;
};

// Graphs whose edges go a short way ahead: blocks of consecutive vertices, each edge with the block of its lower end.
template <class T, class Cost>
void stencil_weights(const Graph &graph, const Features<T> &features, const Metric<T, Cost> &metric, bool exponential,
                     const treescan_tensor &cost, treescan_workspace *workspace) {
  const Stencil stencil(graph);
  const int64_t batch = cost.sizes[0], vertices = graph.num_vertices;
  const int64_t row = features.row();
  const auto whole_rows = [&](int64_t count) { return std::min(vertices, (count + row - 1) / row * row); };
  // A block is a few times what it shares with the next, and small enough for the second-level cache.
  const int64_t cached = 256 * 1024 / (std::max<int64_t>(1, metric.channels) * static_cast<int64_t>(sizeof(T)));
  const int64_t block = whole_rows(std::max(std::max(cached, 2 * stencil.reach), int64_t{16}));
  const int64_t extent = whole_rows(block + stencil.reach);
  const int64_t blocks = (vertices + block - 1) / block;
  // Of so many vertices, edges over the same distance have consecutive indices. In a token graph they may be as many apart as
  // its window is long, and each item has edges of its own.
  const int64_t run = graph.kind == TREESCAN_GRID ? graph.width : graph.kind == TREESCAN_CHAIN ? vertices : 1;
  const int64_t workers = num_workers(batch * blocks);
  const int64_t copied = features.in_place ? 0 : extent * metric.channels;
  const int64_t norms = metric.needs_norms() ? extent : 0;
  struct Pieces {
    T *rows, *norms;
  };
  const auto layout = [&](Carver &carver) {
    Pieces pieces;
    pieces.rows = carver.take<T>(times(workers, copied));
    pieces.norms = carver.take<T>(times(workers, norms));
    return pieces;
  };
  with_scratch(workspace, layout, [&](Carver &carver) {
    const Pieces pieces = layout(carver);
    for_each_task(workers, batch * blocks, [&](int64_t worker, int64_t task) {
      const int64_t item = task / blocks, first = task % blocks * block;
      const int64_t last = std::min(vertices, first + block), end = std::min(vertices, first + extent);
      const Rows<T> rows = features.read(item, first, end - first, pieces.rows + worker * copied);
      T *const norm = pieces.norms + worker * norms;
      if (metric.needs_norms()) metric.norms(rows, end - first, norm);
      const auto norm_of = [&](int64_t i) { return metric.needs_norms() ? norm + i : nullptr; };
      Cost *const target = static_cast<Cost *>(cost.data) + item * cost.strides[0];
      for (int64_t v = first, next; v < last; v = next) {
        next = std::min({last, v / run * run + run, v + longest_run});
        for (int64_t k = 0; k < stencil.count; ++k) {
          // At most one edge is missing at either end, or all are.
          const int64_t from = v + (stencil.edge(v, k) < 0), to = next - (stencil.edge(next - 1, k) < 0);
          const int64_t e = from < to ? stencil.edge(from, k) : -1;
          if (e < 0) continue;
          const int64_t a = from - first, b = a + stencil.distance(k);
          Cost values[longest_run];
          if (graph.has(item, {static_cast<int32_t>(from), static_cast<int32_t>(from + stencil.distance(k))})) {
            metric.costs({rows[a], rows[b], rows.stride, rows.channel_stride, metric.channels, to - from}, norm_of(a),
                         norm_of(b), values);
            if (exponential)
              for (int64_t i = 0; i < to - from; ++i) values[i] = exponential_of(values[i], item, e + i);
          } else {
            std::fill(values, values + (to - from), std::numeric_limits<Cost>::infinity());
          }
          for (int64_t i = 0; i < to - from; ++i) target[(e + i) * cost.strides[1]] = values[i];
        }
      }
    });
  });
}

// Edge lists: both ends of every edge are fetched.
template <class T, class Cost>
void list_weights(const Graph &graph, const Features<T> &features, const Metric<T, Cost> &metric, bool exponential,
                  const treescan_tensor &cost, treescan_workspace *workspace) {
  constexpr int64_t block = 1024;
  const int64_t batch = cost.sizes[0], blocks = (graph.num_edges + block - 1) / block;
  const int64_t workers = num_workers(batch * blocks);
  const int64_t copied = features.in_place ? 0 : 2 * metric.channels;
  const auto layout = [&](Carver &carver) { return carver.take<T>(times(workers, copied)); };
  with_scratch(workspace, layout, [&](Carver &carver) {
    T *const places = layout(carver);
    for_each_task(workers, batch * blocks, [&](int64_t worker, int64_t task) {
      const int64_t item = task / blocks, first = task % blocks * block;
      T *const place = places + worker * copied;
      Cost *const target = static_cast<Cost *>(cost.data) + item * cost.strides[0];
      for (int64_t e = first; e < std::min(graph.num_edges, first + block); ++e) {
        const Ends ends = list_edge(graph, item, e);
        const Rows<T> a = features.read(item, ends.lower, 1, place);
        const Rows<T> b = features.read(item, ends.upper, 1, features.in_place ? place : place + metric.channels);
        T norm_a{}, norm_b{};
        if (metric.needs_norms()) {
          metric.norms(a, 1, &norm_a);
          metric.norms(b, 1, &norm_b);
        }
        Cost value;
        metric.costs({a[0], b[0], a.stride, a.channel_stride, metric.channels, 1}, &norm_a, &norm_b, &value);
        if (exponential) value = exponential_of(value, item, e);
        target[e * cost.strides[1]] = value;
      }
    });
  });
}

template <class Cost, class T>
void edge_weights_as(const EdgeKernels<T> &kernels, const Graph &graph, const treescan_tensor &tensor, int32_t metric_kind,
                     bool exponential, const treescan_tensor &cost, treescan_workspace *workspace) {
  const Features<T> features(tensor, copy_kernels());
  const Metric<T, Cost> metric{kernels, metric_kind, tensor.sizes[1]};
  if (graph.kind == TREESCAN_EDGES) {
    list_weights(graph, features, metric, exponential, cost, workspace);
  } else {
    stencil_weights(graph, features, metric, exponential, cost, workspace);
  }
}

void edge_weights_of(const EdgeKernelTable &table, const Graph &graph, const treescan_tensor &features, int32_t metric,
                     bool exponential, const treescan_tensor &cost, treescan_workspace *workspace) {
  if (cost.dtype == TREESCAN_FLOAT64) {
    edge_weights_as<double>(table.twice, graph, features, metric, exponential, cost, workspace);
  } else if (features.dtype == TREESCAN_FLOAT64) {
    edge_weights_as<float>(table.twice, graph, features, metric, exponential, cost, workspace);
  } else {
    edge_weights_as<float>(table.single, graph, features, metric, exponential, cost, workspace);
  }
}

}  // namespace

void edge_weights(const Graph &graph, const treescan_tensor &features, int32_t metric, bool exponential,
                  const treescan_tensor &cost, treescan_workspace *workspace, void *) {
  if (cost.sizes[0] == 0 || cost.sizes[1] == 0) {  // whatever the other size is, there is nothing to walk through
    with_scratch(workspace, [](Carver &) {}, [](Carver &) {});
    return;
  }
  const EdgeKernelTable &table = edge_kernel_table();
  if (features.sizes[1] == 0) {  // no channels: nothing is read, and there needn't be memory to point to
    double nothing = 0;
    treescan_tensor empty = features;
    empty.data = &nothing;
    std::fill(empty.strides, empty.strides + TREESCAN_MAX_DIMS, 0);
    return edge_weights_of(table, graph, empty, metric, exponential, cost, workspace);
  }
  edge_weights_of(table, graph, features, metric, exponential, cost, workspace);
}

}  // namespace treescan
