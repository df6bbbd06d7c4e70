// Where the elements of one item's channels lie in the caller's memory.
#pragma once

#include <cstdint>

#include "treescan/treescan.h"

namespace treescan {

// Channel c of vertex v = r * columns + k lies at c * channel_stride + r * row_stride + k * column_stride.
struct Layout {
  int64_t channel_stride, row_stride, column_stride;
  int64_t columns;
  bool one_row;  // all vertices follow each other at the columns' stride

  // Where vertex v lies, whatever the channel.
  int64_t offset(int64_t v) const { return v / columns * row_stride + v % columns * column_stride; }
};

// The layout of a tensor (B, C, V) or (B, C, H, W). A grid whose rows follow each other at the pixels' own stride is one
// long row.
inline Layout layout_of(const treescan_tensor &tensor) {
  const int64_t channel_stride = tensor.strides[1];
  if (tensor.ndim == 3) return {channel_stride, 0, tensor.strides[2], tensor.sizes[2], true};
  const int64_t height = tensor.sizes[2], width = tensor.sizes[3];
  if (width == 1) return {channel_stride, 0, tensor.strides[2], height, true};
  if (height == 1 || tensor.strides[2] == width * tensor.strides[3])
    return {channel_stride, 0, tensor.strides[3], height * width, true};
  return {channel_stride, tensor.strides[2], tensor.strides[3], width, false};
}

}  // namespace treescan
