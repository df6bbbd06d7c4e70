#include "cpu/copy_kernels.h"

#include "cpu/vectors.h"

namespace treescan {
namespace TREESCAN_KERNELS {
const CopyKernels &copy_kernels();

namespace {

// Vertices are copied a block at a time, so that the block's part of the tile and the lines of the caller's memory that
// it touches stay in the first cache.
constexpr int64_t block = 64;
constexpr int64_t group = 16;  // channels converted at a time

#if defined(__GNUC__)
template <int... I>
struct Indices {};
template <int N, int... I>
struct Range : Range<N - 1, N - 1, I...> {};
template <int... I>
struct Range<0, I...> {
  using Type = Indices<I...>;
};

// Lanes of a and, counted on, of b.
template <class Index, int... Lanes, class Vector>
TREESCAN_FORMULA Vector pick(const Vector &a, const Vector &b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Lanes...);
#else
  return __builtin_shuffle(a, b, Index{Lanes...});
#endif
}

// Swaps the upper half of each 2 H lanes of a with the lower half of those of b.
template <int H, int N, class Index, class Vector, int... I>
TREESCAN_FORMULA void swap_halves(Vector &a, Vector &b, Indices<I...>) {
  const Vector lower = pick<Index, (I & H ? N + I - H : I)...>(a, b);
  b = pick<Index, (I & H ? N + I : I + H)...>(a, b);
  a = lower;
}

// Turns squares of four floats: what swapping halves of two lanes and then of one would do, in half as many instructions.
template <int N, class Index, class Vector, int... I>
TREESCAN_FORMULA void transpose_fours(Vector (&rows)[N], Indices<I...>) {
#pragma GCC unroll 4
  for (int i = 0; i < N; i += 4) {
    const Vector a = pick<Index, ((I & 1) * N + (I & ~3) + (I & 2) / 2)...>(rows[i], rows[i + 1]);
    const Vector b = pick<Index, ((I & 1) * N + (I & ~3) + (I & 2) / 2 + 2)...>(rows[i], rows[i + 1]);
    const Vector c = pick<Index, ((I & 1) * N + (I & ~3) + (I & 2) / 2)...>(rows[i + 2], rows[i + 3]);
    const Vector d = pick<Index, ((I & 1) * N + (I & ~3) + (I & 2) / 2 + 2)...>(rows[i + 2], rows[i + 3]);
    rows[i] = pick<Index, ((I & 2) / 2 * N + (I & ~2))...>(a, c);
    rows[i + 1] = pick<Index, ((I & 2) / 2 * N + (I | 2))...>(a, c);
    rows[i + 2] = pick<Index, ((I & 2) / 2 * N + (I & ~2))...>(b, d);
    rows[i + 3] = pick<Index, ((I & 2) / 2 * N + (I | 2))...>(b, d);
  }
}

template <int H, int N, class Index, class Vector>
TREESCAN_FORMULA void transpose_rows(Vector (&rows)[N]) {
  if constexpr (H == 2 && sizeof(rows[0][0]) == 4) {
    transpose_fours<N, Index>(rows, typename Range<N>::Type());
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      if (!(i & H)) swap_halves<H, N, Index>(rows[i], rows[i + H], typename Range<N>::Type());
    if constexpr (H > 1) transpose_rows<H / 2, N, Index>(rows);
  }
}

template <class T>
struct IndexOf {
  using Type = int64_t;
};
template <>
struct IndexOf<float> {
  using Type = int32_t;
};

// to[j][i] = from[i][j] for i, j < N.
template <int N, class T>
TREESCAN_FORMULA void transpose_square(const T *from, int64_t from_stride, T *to, int64_t to_stride) {
  constexpr int bytes = N * static_cast<int>(sizeof(T));
  using Vector = typename VectorOf<T, bytes>::Type;
  Vector rows[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) rows[i] = read_bytes<Vector>(from + i * from_stride);
  transpose_rows<N / 2, N, typename VectorOf<typename IndexOf<T>::Type, bytes>::Type>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) write_bytes(to + i * to_stride, rows[i]);
}
#endif

// to[j][i] = from[i][j] for i < rows, j < columns, in squares of N and what is left in smaller ones.
template <int N, class T>
void transpose_squares(const T *from, int64_t from_stride, int64_t rows, int64_t columns, T *to, int64_t to_stride) {
#if defined(__GNUC__)
  if constexpr (N > 1) {
    const int64_t whole_rows = rows / N * N, whole_columns = columns / N * N;
    for (int64_t i = 0; i < whole_rows; i += N)
      for (int64_t j = 0; j < whole_columns; j += N)
        transpose_square<N>(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
    if (whole_columns < columns)
      transpose_squares<N / 2>(from + whole_columns, from_stride, whole_rows, columns - whole_columns,
                               to + whole_columns * to_stride, to_stride);
    if (whole_rows < rows)
      transpose_squares<N / 2>(from + whole_rows * from_stride, from_stride, rows - whole_rows, columns, to + whole_rows,
                               to_stride);
    return;
  }
#endif
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
}

template <class T>
void transpose(const T *from, int64_t from_stride, int64_t rows, int64_t columns, T *to, int64_t to_stride) {
  transpose_squares<register_bytes / static_cast<int>(sizeof(T))>(from, from_stride, rows, columns, to, to_stride);
}

// Fetches the next block of some planes while this one is copied: too many planes take turns for the hardware to see it
// coming.
template <class T>
TREESCAN_FORMULA void fetch_planes(const T *block_start, int64_t channel_stride, int64_t channels) {
  for (int64_t l = 0; l < channels; ++l)
    for (int64_t line = 0; line < block * static_cast<int64_t>(sizeof(T)); line += 64)
      prefetch(reinterpret_cast<const char *>(block_start + l * channel_stride) + line);
}

template <class Copy>
void for_each_block(const Layout &layout, int64_t num_vertices, Copy copy) {
  const int64_t columns = layout.columns;
  for (int64_t first = 0; first < num_vertices; first += columns) {
    const int64_t start = first / columns * layout.row_stride;
    for (int64_t c = 0; c < columns; c += block)
      copy(first + c, c + block < columns ? block : columns - c, start + c * layout.column_stride, c + block < columns);
  }
}

template <class Type>
void load(const void *source, const Layout &layout, int64_t num_vertices, int64_t channels, int64_t lanes, int64_t pitch,
          void *tile) {
  using Stored = typename Type::Stored;
  using Computed = typename Type::Computed;
  constexpr bool same_type = sizeof(Stored) == sizeof(Computed);
  const auto *const from = static_cast<const Stored *>(source);
  auto *const to = static_cast<Computed *>(tile);
  for_each_block(layout, num_vertices, [&](int64_t v, int64_t count, int64_t offset, bool more) {
    Computed *const rows = to + v * pitch;
    if (layout.channel_stride == 1) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t l = 0; l < channels; ++l)
          rows[i * pitch + l] = load_one<Type>(from[offset + i * layout.column_stride + l]);
    } else if (layout.column_stride == 1) {
      if (more) fetch_planes(from + offset + block, layout.channel_stride, channels);
      if constexpr (same_type) {
        transpose(from + offset, layout.channel_stride, channels, count, rows, pitch);
      } else {
        for (int64_t first = 0; first < channels; first += group) {
          const int64_t size = first + group < channels ? group : channels - first;
          const Stored *const channel = from + offset + first * layout.channel_stride;
          Computed converted[group * block];
          for (int64_t l = 0; l < size; ++l)
            for (int64_t i = 0; i < count; ++i) converted[l * block + i] = load_one<Type>(channel[l * layout.channel_stride + i]);
          transpose(converted, block, size, count, rows + first, pitch);
        }
      }
    } else {
      for (int64_t l = 0; l < channels; ++l) {
        const auto *const channel = from + offset + l * layout.channel_stride;
        for (int64_t i = 0; i < count; ++i) rows[i * pitch + l] = load_one<Type>(channel[i * layout.column_stride]);
      }
    }
    for (int64_t i = 0; i < count; ++i)
      for (int64_t l = channels; l < lanes; ++l) rows[i * pitch + l] = 0;
  });
}

template <class Type>
void store(const void *tile, int64_t pitch, int64_t num_vertices, int64_t channels, const Layout &layout,
           void *target) {
  using Stored = typename Type::Stored;
  using Computed = typename Type::Computed;
  constexpr bool same_type = sizeof(Stored) == sizeof(Computed);
  const auto *const from = static_cast<const Computed *>(tile);
  auto *const to = static_cast<Stored *>(target);
  for_each_block(layout, num_vertices, [&](int64_t v, int64_t count, int64_t offset, bool more) {
    const Computed *const rows = from + v * pitch;
    if (layout.channel_stride == 1) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t l = 0; l < channels; ++l)
          to[offset + i * layout.column_stride + l] = store_one<Type>(rows[i * pitch + l]);
    } else if (layout.column_stride == 1) {
      if (more) fetch_planes(to + offset + block, layout.channel_stride, channels);
      if constexpr (same_type) {
        transpose(rows, pitch, count, channels, to + offset, layout.channel_stride);
      } else {
        for (int64_t first = 0; first < channels; first += group) {
          const int64_t size = first + group < channels ? group : channels - first;
          Stored *const channel = to + offset + first * layout.channel_stride;
          Computed turned[group * block];
          transpose(rows + first, pitch, count, size, turned, block);
          for (int64_t l = 0; l < size; ++l)
            for (int64_t i = 0; i < count; ++i) channel[l * layout.channel_stride + i] = store_one<Type>(turned[l * block + i]);
        }
      }
    } else {
      for (int64_t l = 0; l < channels; ++l) {
        auto *const channel = to + offset + l * layout.channel_stride;
        for (int64_t i = 0; i < count; ++i) channel[i * layout.column_stride] = store_one<Type>(rows[i * pitch + l]);
      }
    }
  });
}

void load_any(int32_t dtype, const void *source, const Layout &layout, int64_t num_vertices, int64_t channels,
              int64_t lanes, int64_t pitch, void *tile) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return load<Float32>(source, layout, num_vertices, channels, lanes, pitch, tile);
    case TREESCAN_FLOAT64: return load<Float64>(source, layout, num_vertices, channels, lanes, pitch, tile);
    case TREESCAN_FLOAT16: return load<Float16>(source, layout, num_vertices, channels, lanes, pitch, tile);
    default: return load<BFloat16>(source, layout, num_vertices, channels, lanes, pitch, tile);
  }
}

void store_any(int32_t dtype, const void *tile, int64_t pitch, int64_t num_vertices, int64_t channels,
               const Layout &layout, void *target) {
  switch (dtype) {
    case TREESCAN_FLOAT32: return store<Float32>(tile, pitch, num_vertices, channels, layout, target);
    case TREESCAN_FLOAT64: return store<Float64>(tile, pitch, num_vertices, channels, layout, target);
    case TREESCAN_FLOAT16: return store<Float16>(tile, pitch, num_vertices, channels, layout, target);
    default: return store<BFloat16>(tile, pitch, num_vertices, channels, layout, target);
  }
}

constexpr CopyKernels kernels = {load_any, store_any};

}  // namespace

const CopyKernels &copy_kernels() { return kernels; }

}  // namespace TREESCAN_KERNELS
}  // namespace treescan
