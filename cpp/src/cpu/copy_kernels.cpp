#include "cpu/copy_kernels.h"

#include "cpu/vectors.h"

namespace treescan {
namespace TREESCAN_KERNELS {
const CopyKernels &copy_kernels();

namespace {

constexpr int64_t side = 4;

// Turns a square of 4 x 4 numbers over.
TREESCAN_FORMULA void transpose_square(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
#if defined(__GNUC__)
  typedef float Vector __attribute__((vector_size(16)));
  typedef int32_t Index __attribute__((vector_size(16)));
  const Vector a = read_bytes<Vector>(from), b = read_bytes<Vector>(from + from_stride),
               c = read_bytes<Vector>(from + 2 * from_stride), d = read_bytes<Vector>(from + 3 * from_stride);
  const Index low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
  const Vector ab_low = __builtin_shuffle(a, b, low), cd_low = __builtin_shuffle(c, d, low);
  const Vector ab_high = __builtin_shuffle(a, b, high), cd_high = __builtin_shuffle(c, d, high);
  write_bytes(to, __builtin_shuffle(ab_low, cd_low, first));
  write_bytes(to + to_stride, __builtin_shuffle(ab_low, cd_low, second));
  write_bytes(to + 2 * to_stride, __builtin_shuffle(ab_high, cd_high, first));
  write_bytes(to + 3 * to_stride, __builtin_shuffle(ab_high, cd_high, second));
#else
  for (int64_t i = 0; i < side; ++i)
    for (int64_t j = 0; j < side; ++j) to[i * to_stride + j] = from[j * from_stride + i];
#endif
}

TREESCAN_FORMULA void transpose_square(const double *from, int64_t from_stride, double *to, int64_t to_stride) {
  for (int64_t i = 0; i < side; ++i)
    for (int64_t j = 0; j < side; ++j) to[i * to_stride + j] = from[j * from_stride + i];
}

// to[j][i] = from[i][j] for i < rows, j < columns.
template <class T>
TREESCAN_FORMULA void transpose(const T *from, int64_t from_stride, int64_t rows, int64_t columns, T *to, int64_t to_stride) {
  const int64_t whole_rows = rows / side * side, whole_columns = columns / side * side;
  for (int64_t i = 0; i < whole_rows; i += side)
    for (int64_t j = 0; j < whole_columns; j += side)
      transpose_square(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
}

// Vertices are copied a block at a time, so that the block's part of the tile and the lines of the caller's memory that
// it touches stay in the first cache.
constexpr int64_t block = 32;
constexpr int64_t group = 16;  // channels converted at a time

template <class Copy>
void for_each_block(const Layout &layout, int64_t num_vertices, Copy copy) {
  const int64_t columns = layout.columns;
  for (int64_t first = 0; first < num_vertices; first += columns) {
    const int64_t start = first / columns * layout.row_stride;
    for (int64_t c = 0; c < columns; c += block)
      copy(first + c, c + block < columns ? block : columns - c, start + c * layout.column_stride);
  }
}

template <class Type>
void load(const void *source, const Layout &layout, int64_t num_vertices, int64_t channels, int64_t lanes, void *tile) {
  using Stored = typename Type::Stored;
  using Computed = typename Type::Computed;
  constexpr bool same_type = sizeof(Stored) == sizeof(Computed);
  const auto *const from = static_cast<const Stored *>(source);
  auto *const to = static_cast<Computed *>(tile);
  for_each_block(layout, num_vertices, [&](int64_t v, int64_t count, int64_t offset) {
    Computed *const rows = to + v * lanes;
    if (layout.channel_stride == 1) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t l = 0; l < channels; ++l)
          rows[i * lanes + l] = load_one<Type>(from[offset + i * layout.column_stride + l]);
    } else if (layout.column_stride == 1) {
      if constexpr (same_type) {
        transpose(from + offset, layout.channel_stride, channels, count, rows, lanes);
      } else {
        for (int64_t first = 0; first < channels; first += group) {
          const int64_t size = first + group < channels ? group : channels - first;
          const Stored *const channel = from + offset + first * layout.channel_stride;
          Computed converted[group * block];
          for (int64_t l = 0; l < size; ++l)
            for (int64_t i = 0; i < count; ++i) converted[l * block + i] = load_one<Type>(channel[l * layout.channel_stride + i]);
          transpose(converted, block, size, count, rows + first, lanes);
        }
      }
    } else {
      for (int64_t l = 0; l < channels; ++l) {
        const auto *const channel = from + offset + l * layout.channel_stride;
        for (int64_t i = 0; i < count; ++i) rows[i * lanes + l] = load_one<Type>(channel[i * layout.column_stride]);
      }
    }
    for (int64_t i = 0; i < count; ++i)
      for (int64_t l = channels; l < lanes; ++l) rows[i * lanes + l] = 0;
  });
}

template <class Type>
void store(const void *tile, int64_t lanes, int64_t num_vertices, int64_t channels, const Layout &layout,
           void *target) {
  using Stored = typename Type::Stored;
  using Computed = typename Type::Computed;
  constexpr bool same_type = sizeof(Stored) == sizeof(Computed);
  const auto *const from = static_cast<const Computed *>(tile);
  auto *const to = static_cast<Stored *>(target);
  for_each_block(layout, num_vertices, [&](int64_t v, int64_t count, int64_t offset) {
    const Computed *const rows = from + v * lanes;
    if (layout.channel_stride == 1) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t l = 0; l < channels; ++l)
          to[offset + i * layout.column_stride + l] = store_one<Type>(rows[i * lanes + l]);
    } else if (layout.column_stride == 1) {
      if constexpr (same_type) {
        transpose(rows, lanes, count, channels, to + offset, layout.channel_stride);
      } else {
        for (int64_t first = 0; first < channels; first += group) {
          const int64_t size = first + group < channels ? group : channels - first;
          Stored *const channel = to + offset + first * layout.channel_stride;
          Computed turned[group * block];
          transpose(rows + first, lanes, count, size, turned, block);
          for (int64_t l = 0; l < size; ++l)
            for (int64_t i = 0; i < count; ++i) channel[l * layout.channel_stride + i] = store_one<Type>(turned[l * block + i]);
        }
      }
    } else {
      for (int64_t l = 0; l < channels; ++l) {
        auto *const channel = to + offset + l * layout.channel_stride;
        for (int64_t i = 0; i < count; ++i) channel[i * layout.column_stride] = store_one<Type>(rows[i * lanes + l]);
      }
    }
  });
}

void load_any(int32_t dtype, const void *source, const Layout &layout, int64_t num_vertices, int64_t channels,
              int64_t lanes, void *tile) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return load<Float32>(source, layout, num_vertices, channels, lanes, tile);
    case TREESCAN_FLOAT64: return load<Float64>(source, layout, num_vertices, channels, lanes, tile);
    case TREESCAN_FLOAT16: return load<Float16>(source, layout, num_vertices, channels, lanes, tile);
    default: return load<BFloat16>(source, layout, num_vertices, channels, lanes, tile);
  }
}

void store_any(int32_t dtype, const void *tile, int64_t lanes, int64_t num_vertices, int64_t channels,
               const Layout &layout, void *target) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return store<Float32>(tile, lanes, num_vertices, channels, layout, target);
    case TREESCAN_FLOAT64: return store<Float64>(tile, lanes, num_vertices, channels, layout, target);
    case TREESCAN_FLOAT16: return store<Float16>(tile, lanes, num_vertices, channels, layout, target);
    default: return store<BFloat16>(tile, lanes, num_vertices, channels, layout, target);
  }
}

constexpr CopyKernels kernels = {load_any, store_any};

}  // namespace

const CopyKernels &copy_kernels() { return kernels; }

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
