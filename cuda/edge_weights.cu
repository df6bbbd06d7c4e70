#include "edge_weights.h"

#include <cmath>
#include <limits>

#include "call.h"
#include "contexts.h"
#include "cosine.h"
#include "elementary.h"
#include "failure.h"

namespace treescan::cuda {

namespace {

constexpr int threads = 256;
template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T nan = std::numeric_limits<T>::quiet_NaN();

// How features are stored, and as what they are read.
struct Single {
  using Stored = float;
  __device__ static __forceinline__ float read(float value) { return value; }
};
struct Double {
  using Stored = double;
  __device__ static __forceinline__ double read(double value) { return value; }
};
struct Half {
  using Stored = uint16_t;
  __device__ static __forceinline__ float read(uint16_t bits) { return half_bits_to_float(bits); }
};
struct Bfloat16 {
  using Stored = uint16_t;
  __device__ static __forceinline__ float read(uint16_t bits) { return bfloat16_bits_to_float(bits); }
};

// The features of all items. An image's rows may lie apart.
template <class Type>
struct Features {
  const typename Type::Stored *data;
  int64_t item_stride, channel_stride, row_stride, column_stride;
  int64_t columns, channels;  // no columns: one long row

  explicit Features(const treescan_tensor &tensor)
      : data(static_cast<const typename Type::Stored *>(tensor.data)),
        item_stride(tensor.strides[0]),
        channel_stride(tensor.strides[1]),
        row_stride(tensor.ndim == 4 ? tensor.strides[2] : 0),
        column_stride(tensor.strides[tensor.ndim - 1]),
        columns(tensor.ndim == 3 || row_stride == tensor.sizes[3] * column_stride ? 0 : tensor.sizes[3]),
        channels(tensor.sizes[1]) {}

  __device__ __forceinline__ const typename Type::Stored *vertex(int64_t item, int64_t v) const {
    const int64_t place = columns == 0 ? v * column_stride : v / columns * row_stride + v % columns * column_stride;
    return data + item * item_stride + place;
  }
};

// A sum over channels in the order that cpu/edge_kernels.h lays down: 16 partial sums, number l of the channels
// c = l mod 16, folded by halves. `Lanes` neighbouring threads share it, each holding every Lanes-th partial sum.
constexpr int partials = 16;

template <class T, int Lanes>
struct Sum {
  static constexpr int held = partials / Lanes;
  T partial[held] = {};

  // Of all lanes; every thread of the warp calls it.
  __device__ __forceinline__ T total() {
    fold<partials / 2>();
    return partial[0];
  }

 private:
  template <int half>
  __device__ __forceinline__ void fold() {
    if constexpr (half >= Lanes) {
#pragma unroll
      for (int j = 0; j < half / Lanes; ++j) partial[j] += partial[j + half / Lanes];
    } else {
      partial[0] += __shfl_xor_sync(0xffffffffu, partial[0], half);
    }
    if constexpr (half > 1) fold<half / 2>();
  }
};

// Calls body(j, c) for the channels c of each partial sum j that a lane holds.
template <int Lanes, class Body>
__device__ __forceinline__ void for_each_channel(int64_t channels, int lane, Body body) {
  constexpr int held = partials / Lanes;
  int64_t c = lane;
  for (; c - lane + partials <= channels; c += partials) {
#pragma unroll
    for (int j = 0; j < held; ++j) body(j, c + j * Lanes);
  }
#pragma unroll
  for (int j = 0; j < held; ++j)
    if (c + j * Lanes < channels) body(j, c + j * Lanes);
}

// The largest magnitude in a vector, for all lanes.
template <class Type, int Lanes>
__device__ __forceinline__ auto largest(const typename Type::Stored *vertex, int64_t channel_stride, int64_t channels,
                                        int lane) {
  using T = decltype(Type::read({}));
  typename Floating<T>::Bits found = 0;
  for (int64_t c = lane; c < channels; c += Lanes) found = max(found, magnitude(Type::read(vertex[c * channel_stride])));
  for (int distance = Lanes / 2; distance > 0; distance /= 2)
    found = max(found, __shfl_xor_sync(0xffffffffu, found, distance));
  return found;
}

template <class T, int Lanes>
struct CosineSums {
  Sum<T, Lanes> product, square_a, square_b;

  __device__ __forceinline__ void add(int j, T x, T y) {
    product.partial[j] += x * y;
    square_a.partial[j] += x * x;
    square_b.partial[j] += y * y;
  }
};

// The cosine cost once more, with scaled vectors, if one leaves the range and can be scaled; else what it was. Out of line, since
// it is seldom needed and would take registers from what is.
template <class Type, int Lanes, class T>
__device__ OUT_OF_LINE T scaled_cosine_of(const typename Type::Stored *a, const typename Type::Stored *b,
                                          int64_t channel_stride, int64_t channels, int lane, bool leaves_a, bool leaves_b,
                                          T plain) {
  const auto largest_a = largest<Type, Lanes>(a, channel_stride, channels, lane);
  const auto largest_b = largest<Type, Lanes>(b, channel_stride, channels, lane);
  const T scale_a = scale_for<T>(largest_a), scale_b = scale_for<T>(largest_b);
  CosineSums<T, Lanes> sums;
  for_each_channel<Lanes>(channels, lane, [&](int j, int64_t c) {
    sums.add(j, Type::read(a[c * channel_stride]) * scale_a, Type::read(b[c * channel_stride]) * scale_b);
  });
  const T product = sums.product.total(), norm_a = std::sqrt(sums.square_a.total()), norm_b = std::sqrt(sums.square_b.total());
  if (!(leaves_a && can_scale<T>(largest_a)) && !(leaves_b && can_scale<T>(largest_b))) return plain;
  return cosine_cost(product, norm_a, norm_b);
}

// The metric of two vertices, for all lanes. Every thread of a warp calls it, those without an edge for no channels.
template <class Type, int Lanes, int metric, class Cost>
__device__ __forceinline__ Cost compare(const typename Type::Stored *a, const typename Type::Stored *b,
                                         int64_t channel_stride, int64_t channels, int lane) {
  using T = decltype(Type::read({}));
  const auto at = [&](const auto *vertex, int64_t c) { return Type::read(vertex[c * channel_stride]); };
  if constexpr (metric == TREESCAN_COSINE) {
    CosineSums<T, Lanes> sums;
    for_each_channel<Lanes>(channels, lane, [&](int j, int64_t c) { sums.add(j, at(a, c), at(b, c)); });
    const T product = sums.product.total();
    const T norm_a = std::sqrt(sums.square_a.total()), norm_b = std::sqrt(sums.square_b.total());
    T cosine = cosine_cost(product, norm_a, norm_b);
    const bool leaves_a = channels > 0 && leaves_range(norm_a), leaves_b = channels > 0 && leaves_range(norm_b);
    if (__any_sync(0xffffffffu, leaves_a || leaves_b))
      cosine = scaled_cosine_of<Type, Lanes>(a, b, channel_stride, channels, lane, leaves_a, leaves_b, cosine);
    return static_cast<Cost>(cosine);
  } else {
    Sum<T, Lanes> sum;
    for_each_channel<Lanes>(channels, lane, [&](int j, int64_t c) {
      const T x = at(a, c), y = at(b, c);
      sum.partial[j] += metric == TREESCAN_L2 ? (x - y) * (x - y) : x < y ? y - x : x - y;
    });
    return static_cast<Cost>(sum.total());
  }
}

struct Edge {
  int64_t index, a, b;  // no edge: -1
};

// Edges come in `kinds` of `places` each: by the lower end and the distance between both, or lists as they stand.
struct Edges {
  Graph graph;
  int64_t kinds, places;

  explicit Edges(const Graph &graph_) : graph(graph_) {
    const bool list = graph.kind == TREESCAN_EDGES;
    kinds = list ? 1 : Stencil(graph).count;
    places = list ? graph.num_edges : graph.num_vertices;
  }

  __device__ __forceinline__ Edge at(int64_t item, int64_t kind, int64_t place) const {
    if (place >= places) return {-1, 0, 0};
    if (graph.kind == TREESCAN_EDGES) return {place, graph.edges.at(item, place, 0), graph.edges.at(item, place, 1)};
    const Stencil stencil(graph);
    return {stencil.edge(place, kind), place, place + stencil.distance(kind)};
  }
};

// `Lanes` threads for each edge. A block takes `run` places of one kind and one item at a time.
template <int Lanes>
constexpr int run = Lanes == 1 ? threads : 4 * threads / Lanes;

template <class Type, int Lanes, int metric, class Cost>
__global__ void __launch_bounds__(threads)
    write_edge_weights(Edges edges, Features<Type> features, bool exponential, int64_t runs, Cost *cost,
                       int64_t cost_item_stride, int64_t cost_edge_stride, Failure *failure) {
  const Graph &graph = edges.graph;
  const int64_t runs_of_kind = (edges.places + run<Lanes> - 1) / run<Lanes>;
  const int group = static_cast<int>(threadIdx.x) / Lanes, lane = static_cast<int>(threadIdx.x) % Lanes;
  for (int64_t number = blockIdx.x; number < runs; number += gridDim.x) {
    const int64_t row = number / runs_of_kind, first = number % runs_of_kind * run<Lanes>;
    const int64_t item = row / edges.kinds, kind = row % edges.kinds;
    for (int i = group; i < run<Lanes>; i += threads / Lanes) {
      const Edge edge = edges.at(item, kind, first + i);
      const auto in_range = [&](int64_t v) { return v >= 0 && v < graph.num_vertices; };
      const bool valid = edge.index >= 0 && in_range(edge.a) && in_range(edge.b);
      const bool there = valid && graph.has(item, {static_cast<int32_t>(edge.a), static_cast<int32_t>(edge.b)});
      Cost value = compare<Type, Lanes, metric, Cost>(features.vertex(item, there ? edge.a : 0),
                                                      features.vertex(item, there ? edge.b : 0), features.channel_stride,
                                                      there ? features.channels : 0, lane);
      if (edge.index < 0 || lane != 0) continue;
      if (!valid) {
        report(failure, ValueFault::edge_index_out_of_range, graph.num_vertices, in_range(edge.a) ? edge.b : edge.a,
               edge.index, item);
        value = nan<Cost>;
      } else if (!there) {
        value = infinity<Cost>;
      } else if (exponential) {
        const auto result = static_cast<Cost>(elementary_exp(static_cast<double>(value)));
        if (result == infinity<Cost> && value != infinity<Cost>)
          report(failure, ValueFault::exponential_overflows, cast_bits<int64_t>(static_cast<double>(value)), edge.index, item,
                 8 * sizeof(Cost));
        value = result;
      }
      cost[item * cost_item_stride + edge.index * cost_edge_stride] = value;
    }
  }
}

template <class Type, int Lanes, int metric, class Cost>
void launch_as(const Edges &edges, const treescan_tensor &features, bool exponential, const treescan_tensor &cost,
               cudaStream_t stream) {
  const int64_t runs = cost.sizes[0] * edges.kinds * ((edges.places + run<Lanes> - 1) / run<Lanes>);
  check(LAUNCH((write_edge_weights<Type, Lanes, metric, Cost>), grid_size(runs), threads, 0, stream, edges,
               Features<Type>(features), exponential, runs, static_cast<Cost *>(cost.data), cost.strides[0],
               cost.strides[1], failure_of_current_device()),
        "edge weights");
}

// Neighbouring threads read neighbouring channels where those lie together, else neighbouring vertices.
template <class Type, int metric, class Cost>
void launch_for(const Edges &edges, const treescan_tensor &features, bool exponential, const treescan_tensor &cost,
                cudaStream_t stream) {
  const auto launch = features.strides[1] == 1 ? launch_as<Type, partials, metric, Cost> : launch_as<Type, 1, metric, Cost>;
  launch(edges, features, exponential, cost, stream);
}

template <class Type, class Cost = float>
void launch_for(const Edges &edges, const treescan_tensor &features, int32_t metric, bool exponential,
                const treescan_tensor &cost, cudaStream_t stream) {
  const auto launch = metric == TREESCAN_COSINE ? launch_for<Type, TREESCAN_COSINE, Cost>
                      : metric == TREESCAN_L2   ? launch_for<Type, TREESCAN_L2, Cost>
                                                : launch_for<Type, TREESCAN_L1, Cost>;
  launch(edges, features, exponential, cost, stream);
}

}  // namespace

void edge_weights(const Graph &graph, const treescan_tensor &features, int32_t metric, bool exponential,
                  const treescan_tensor &cost, treescan_workspace *workspace, void *stream_) {
  const cudaStream_t stream = as_stream(stream_);
  const auto layout = [&](Carver &carver) { return take_contexts(carver, graph); };
  with_device_scratch(workspace, stream, layout, [&](Carver &carver) {
    if (cost.sizes[0] == 0 || cost.sizes[1] == 0) return;
    const Edges edges(graph_on_device(graph, layout(carver), stream));
    const auto launch = cost.dtype == TREESCAN_FLOAT64       ? launch_for<Double, double>
                        : features.dtype == TREESCAN_FLOAT32 ? launch_for<Single>
                        : features.dtype == TREESCAN_FLOAT64 ? launch_for<Double>
                        : features.dtype == TREESCAN_FLOAT16 ? launch_for<Half>
                                                             : launch_for<Bfloat16>;
    launch(edges, features, metric, exponential, cost, stream);
  });
}

}  // namespace treescan::cuda
