// Some channels of all vertices at a time, as scans take them from the caller's tensors: where they lie, if a thread's
// lanes can be loaded there in one piece; else as a copy.
#pragma once

#include "lanes.h"
#include "sweep.h"
#include "treescan/treescan.h"

namespace treescan::cuda {

// A tensor (B, C, V) or (B, C, H, W), strides in elements. Vertex r * columns + k of a channel lies r * row_stride +
// k * column_stride behind the channel's first.
struct Operand {
  void *data;
  int64_t item_stride, channel_stride, row_stride, column_stride;
  uint32_t columns;  // 0 for one long row: all rows follow each other at the vertices' own stride
  bool has_vectors;  // whether a vertex's lanes are aligned neighbours, and none of them is missing

  template <class S>
  __device__ __forceinline__ S *at(int64_t item, int64_t channel) const {
    return static_cast<S *>(data) + item * item_stride + channel * channel_stride;
  }
  __device__ __forceinline__ int64_t offset(uint32_t v) const {
    if (columns == 0) return v * column_stride;
    return v / columns * row_stride + v % columns * column_stride;
  }
};

// Host code.
inline Operand operand_of(const treescan_tensor &tensor, int64_t element_size, int64_t lanes) {
  const int64_t *const sizes = tensor.sizes, *const strides = tensor.strides;
  Operand operand{tensor.data, strides[0], strides[1], 0, strides[2], 0, false};
  if (tensor.ndim == 4 && sizes[3] > 1) {
    const bool one_row = sizes[2] == 1 || strides[2] == sizes[3] * strides[3];
    operand.row_stride = strides[2];
    operand.column_stride = strides[3];
    operand.columns = one_row ? 0 : static_cast<uint32_t>(sizes[3]);
  }
  operand.has_vectors = (strides[1] == 1 || sizes[1] == 1) && operand.columns == 0 && sizes[1] % lanes == 0 &&
                        operand.column_stride % lanes == 0 && (sizes[0] == 1 || strides[0] % lanes == 0) &&
                        reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(lanes * element_size) == 0;
  return operand;
}

// How a call is cut into tasks: each is an item's tile of `vectors` vectors, the last tile perhaps of fewer.
struct Tiling {
  int64_t vertices, channels, vectors, tiles, tasks;
};

// A thread's part in a task. Neighbouring threads have neighbouring vectors of a row, and then the next row or path.
struct Seat {
  int64_t item, channel, channels;  // which channels are its lanes; the last vector may lack some
  int64_t vector, vectors;
  uint32_t vertices;
  Turns turns;

  __device__ __forceinline__ Seat(const Tiling &tiling, int64_t task, int lanes)
      : item(task / tiling.tiles), vectors(tiling.vectors), vertices(static_cast<uint32_t>(tiling.vertices)) {
    const auto width = static_cast<unsigned>(vectors);
    vector = threadIdx.x % width;
    channel = (task % tiling.tiles * vectors + vector) * lanes;
    channels = min(static_cast<int64_t>(lanes), tiling.channels - channel);
    turns = {threadIdx.x / width, blockDim.x / width};
    if (channels <= 0 || turns.first >= turns.step) turns.first = no_turn;
  }

  // Rows in the caller's memory.
  template <class S, int N>
  __device__ __forceinline__ Rows<S, N> in_place(const Operand &operand) const {
    constexpr auto size = static_cast<int64_t>(sizeof(S));
    const int64_t offset = item * operand.item_stride + channel * operand.channel_stride;
    return {in_global_memory(static_cast<char *>(operand.data) + offset * size), operand.column_stride * size};
  }
  // Rows number `slot` of those that the block has to itself.
  template <class S, int N>
  __device__ __forceinline__ Rows<S, N> own(char *memory, int slot) const {
    constexpr auto size = static_cast<int64_t>(sizeof(Lanes<S, N>));
    return {memory + (vectors * vertices * slot + vector) * size, vectors * size};
  }
};

// Copies of tiles, to and from rows of the stored type or the computed one.
//
// Rows are copied some at a time, their loads independent of each other.
constexpr uint32_t rows_at_once = 2;

template <class From, class To, int N>
__device__ __forceinline__ void copy_rows(const Seat &seat, const Rows<From, N> &from, const Rows<To, N> &to) {
  const uint32_t step = seat.turns.step;
  for (uint32_t v = seat.turns.first; v < seat.vertices; v += rows_at_once * step) {
    Lanes<From, N> lanes[rows_at_once];
#pragma unroll
    for (uint32_t i = 0; i < rows_at_once; ++i)
      if (v + i * step < seat.vertices) lanes[i] = from.get(v + i * step);
#pragma unroll
    for (uint32_t i = 0; i < rows_at_once; ++i)
      if (v + i * step < seat.vertices) to.put(v + i * step, convert<To>(lanes[i]));
  }
}

// Where vertices lie side by side, a warp takes a run of them from each of its channels and makes whole rows of them,
// so both sides are coalesced.
template <class S, class R, int N>
__device__ __forceinline__ void copy_in(const Seat &seat, const Operand &operand, const Rows<R, N> &rows) {
  if (operand.has_vectors) return copy_rows(seat, seat.in_place<S, N>(operand), rows);
  const S *const from = operand.at<S>(seat.item, seat.channel);
  for (uint32_t v = seat.turns.first; v < seat.vertices; v += seat.turns.step) {
    const S *const vertex = from + operand.offset(v);
    Lanes<S, N> lanes = {};
    for (int l = 0; l < N; ++l)
      if (l < seat.channels) lanes.lane[l] = vertex[l * operand.channel_stride];
    rows.put(v, convert<R>(lanes));
  }
}

template <class S, class R, int N>
__device__ __forceinline__ void copy_out(const Seat &seat, const Rows<R, N> &rows, const Operand &operand) {
  if (operand.has_vectors) return copy_rows(seat, rows, seat.in_place<S, N>(operand));
  S *const to = operand.at<S>(seat.item, seat.channel);
  for (uint32_t v = seat.turns.first; v < seat.vertices; v += seat.turns.step) {
    S *const vertex = to + operand.offset(v);
    const Lanes<S, N> lanes = convert<S>(rows.get(v));
    for (int l = 0; l < N; ++l)
      if (l < seat.channels) vertex[l * operand.channel_stride] = lanes.lane[l];
  }
}

}  // namespace treescan::cuda
