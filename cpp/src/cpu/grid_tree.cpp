#include "cpu/grid_tree.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cpu/dispatch.h"
#include "parallel.h"

namespace treescan {

TREESCAN_KERNEL_FUNCTION(const GridKernels &grid_kernels())

const GridKernels &grid_kernels() { return TREESCAN_KERNEL(grid_kernels)(); }

namespace {

// The root of a set, which points to itself. The first steps are taken whether they are needed or not, since nobody can
// guess that well, and shorten the way.
int32_t find(int32_t *sets, int32_t v) {
  int32_t root = sets[sets[v]];
  while (sets[root] != root) root = sets[root] = sets[sets[root]];
  sets[v] = root;
  return root;
}

int log_from(int64_t count) {
  int log = 0;
  while ((int64_t{1} << log) < count) ++log;
  return log;
}

}  // namespace

// A rectangle of the grid, whose vertices' sets lie together.
struct GridTree::Tile {
  int64_t row, column, rows, columns;
  int64_t first_set;
};

// One item of an output that may be absent.
struct GridTree::Row {
  int32_t *data = nullptr;
  int64_t stride = 0;
  Row(const treescan_tensor *tensor, int64_t item) {
    if (!tensor) return;
    data = static_cast<int32_t *>(tensor->data) + item * tensor->strides[0];
    stride = tensor->strides[1];
  }
  int32_t &operator[](int64_t i) const { return data[i * stride]; }
};

GridTree::GridTree(Carver &carver, const Graph &graph, int64_t workers)
    : graph_(graph), workers_(workers), height_(graph.height), width_(graph.width),
      kinds_(static_cast<int>(graph.connectivity / 2)) {
  constexpr int64_t rows[max_kinds] = {1, 0, 1, 1}, columns[max_kinds] = {0, 1, 1, -1};
  constexpr int forward4[2] = {3, 2}, forward8[4] = {6, 4, 7, 5};
  const int directions = 2 * kinds_;
  for (int k = 0; k < kinds_; ++k) {
    row_step_[k] = rows[k];
    column_step_[k] = columns[k];
    forward_[k] = kinds_ == 2 ? forward4[k] : forward8[k];
    offset_[forward_[k]] = rows[k] * width_ + columns[k];
    offset_[directions - 1 - forward_[k]] = -offset_[forward_[k]];
  }
  rows_log_ = std::min(tile_bits / 2, log_from(height_));
  columns_log_ = std::min(tile_bits - rows_log_, log_from(width_));
  rows_log_ = std::min(tile_bits - columns_log_, log_from(height_));
  tiles_across_ = (width_ + (int64_t{1} << columns_log_) - 1) >> columns_log_;
  tiles_ = tiles_across_ * ((height_ + (int64_t{1} << rows_log_) - 1) >> rows_log_);

  const int64_t vertices = graph.num_vertices, margin = width_ + 1;
  for (int k = 0; k < kinds_; ++k) keys_[k] = inside(carver.take<int32_t>(vertices + 2 * margin), margin);
  links_ = carver.take<uint8_t>(vertices);
  open_ = carver.take<uint8_t>(vertices);
  start_ = carver.take<uint8_t>(vertices);
  nearest_ = inside(carver.take<uint8_t>(vertices + 2 * margin), margin);
  sets_ = carver.take<int32_t>(tiles_ << (rows_log_ + columns_log_));
  touching_ = carver.take<uint8_t>(tiles_ << (rows_log_ + columns_log_));
  most_local_ = kinds_ * std::min<int64_t>(vertices, int64_t{1} << (rows_log_ + columns_log_));
  local_ = carver.take<Keyed>(workers_ * 2 * most_local_);
  table_ = carver.take<Links>(int64_t{1} << directions);
  to_parent_ = carver.take<uint8_t>(vertices);
  // What waits is done with before the search begins, so they share their memory.
  const int64_t order_bytes = (vertices + max_directions) * static_cast<int64_t>(sizeof(int32_t));
  char *const shared = carver.take<char>(order_bytes + vertices + max_directions);
  order_ = reinterpret_cast<int32_t *>(shared);
  back_ = reinterpret_cast<uint8_t *>(inside(shared, order_bytes));
  waiting_ = reinterpret_cast<Keyed *>(shared);
  most_waiting_ = tiles_ == 1 ? 0 : (order_bytes + vertices) / static_cast<int64_t>(2 * sizeof(Keyed));
}

int64_t GridTree::set_of(int64_t r, int64_t c) const {
  const int64_t tile = (r >> rows_log_) * tiles_across_ + (c >> columns_log_);
  const int64_t row = r & ((int64_t{1} << rows_log_) - 1), column = c & ((int64_t{1} << columns_log_) - 1);
  return ((tile << rows_log_ | row) << columns_log_) | column;
}

GridTree::Tile GridTree::tile(int64_t index) const {
  const int64_t row = (index / tiles_across_) << rows_log_, column = (index % tiles_across_) << columns_log_;
  return {row, column, std::min(int64_t{1} << rows_log_, height_ - row),
          std::min(int64_t{1} << columns_log_, width_ - column), index << (rows_log_ + columns_log_)};
}

// Calls body(first row, last row) for pieces of the grid.
template <class Body>
void GridTree::for_each_band(Body &&body) const {
  const int64_t rows = std::max<int64_t>(1, (int64_t{1} << 14) / width_);
  for_each_task(workers_, (height_ + rows - 1) / rows,
                [&](int64_t, int64_t band) { body(band * rows, std::min(height_, (band + 1) * rows)); });
}

void GridTree::build(const treescan_tensor &cost, EdgeOrder order, int64_t item, int32_t root,
                     const treescan_tree_output &output) {
  set_keys(cost, order, item);
  judge();
  std::atomic<int64_t> waiting{0};
  for_each_task(workers_, tiles_, [&](int64_t worker, int64_t index) {
    Keyed *const edges = local_ + worker * 2 * most_local_;
    waiting += join_inside(tile(index), edges, edges + most_local_);
  });
  if (tiles_ > 1) join_tiles(waiting);
  search(root, Row(output.depth, item));
  write(item, root, output);
}

void GridTree::set_keys(const treescan_tensor &cost, EdgeOrder order, int64_t item) {
  const float *const row = static_cast<const float *>(cost.data) + item * cost.strides[0];
  const int64_t stride = cost.strides[1];
  const float flip = order.kind == EdgeOrder::descending ? -1.0f : 1.0f;
  const auto fill = [&](int64_t edge, int64_t count, int32_t *keys) {
    if (stride == 1 && order.kind != EdgeOrder::random) return grid_kernels().sort_keys(row + edge, count, flip, keys);
    constexpr int64_t block = 256;
    float costs[block];
    for (int64_t first = 0; first < count; first += block) {
      const int64_t size = std::min(block, count - first);
      for (int64_t i = 0; i < size; ++i) {
        const int64_t e = edge + first + i;
        const float value = row[e * stride];
        costs[i] = order.kind == EdgeOrder::random ? random_cost(value, order.seed, item, e) : value;
      }
      grid_kernels().sort_keys(costs, size, flip, keys + first);
    }
  };
  const int64_t margin = width_ + 1;
  int64_t first_edge = 0;
  for (int k = 0; k < kinds_; ++k) {
    int32_t *const keys = keys_[k];
    std::fill(keys - margin, keys, no_edge);
    std::fill(keys + graph_.num_vertices, keys + graph_.num_vertices + margin, no_edge);
    const int64_t from = std::max<int64_t>(0, -column_step_[k]), columns = width_ - std::abs(column_step_[k]);
    const int64_t rows = height_ - row_step_[k];
    for_each_band([&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        int32_t *const to = keys + r * width_;
        if (r >= rows || columns == 0) {
          std::fill(to, to + width_, no_edge);
          continue;
        }
        fill(first_edge + r * columns, columns, to + from);
        if (from > 0) to[0] = no_edge;
        if (from + columns < width_) to[width_ - 1] = no_edge;
      }
    });
    first_edge += rows * columns;
  }
}

void GridTree::judge() {
  const int64_t vertices = graph_.num_vertices, margin = width_ + 1;
  if (kinds_ != 2) {
    for_each_band([&](int64_t first, int64_t last) {
      std::fill(links_ + first * width_, links_ + last * width_, uint8_t{0});
      std::fill(start_ + first * width_, start_ + last * width_, is_first);
      for (int64_t v = first * width_; v < last * width_; ++v) {
        unsigned bits = 0;
        for (int k = 0; k < kinds_; ++k) bits |= static_cast<unsigned>(keys_[k][v] != no_edge) << k;
        open_[v] = static_cast<uint8_t>(bits);
      }
    });
    return;
  }
  const GridEdges edges{keys_[0], keys_[1], width_};
  std::fill(nearest_ - margin, nearest_, is_first);
  std::fill(nearest_ + vertices, nearest_ + vertices + margin, is_first);
  for_each_band([&](int64_t first, int64_t last) {
    grid_kernels().find_nearest(edges, first * width_, last * width_, nearest_);
  });
  for_each_band([&](int64_t first, int64_t last) {
    grid_kernels().judge(edges, nearest_, first * width_, last * width_, {links_, open_, start_});
  });
}

// Links the vertices of an edge, if `joins` is 1.
void GridTree::link(int64_t v, int kind, unsigned joins) {
  const int forward = forward_[kind], back = 2 * kinds_ - 1 - forward;
  uint8_t &near = links_[v], &far = links_[v + offset_[forward]];
  near = static_cast<uint8_t>(near | joins << forward);
  far = static_cast<uint8_t>(far | joins << back);
}

// Step 2. Returns how many of the tile's edges are left open.
int64_t GridTree::join_inside(const Tile &t, Keyed *edges, Keyed *spare) {
  int32_t *const sets = sets_ + t.first_set;
  const int32_t pitch = int32_t{1} << columns_log_;
  const int32_t base = static_cast<int32_t>(t.first_set);
  // Every vertex starts out below its nearest neighbour.
  const int32_t step[2 * is_first] = {-pitch, pitch, -1, 1, 0, 0, 0, 0};
  const bool has_above = t.row > 0, has_below = t.row + t.rows < height_;
  const bool has_before = t.column > 0, has_behind = t.column + t.columns < width_;
  for (int64_t r = 0; r < t.rows; ++r) {
    const uint8_t *const start = start_ + (t.row + r) * width_ + t.column;
    int32_t *const row = sets + r * pitch;
    const int32_t here = base + static_cast<int32_t>(r) * pitch;
    for (int64_t c = 0; c < t.columns; ++c) row[c] = here + static_cast<int32_t>(c) + step[start[c]];
    const auto stay_if = [&](bool is_edge, int64_t c, Neighbour outside) {
      if (is_edge && start[c] == outside) row[c] = here + static_cast<int32_t>(c);
    };
    for (int64_t c = 0; r == 0 && c < t.columns; ++c) stay_if(has_above, c, above);
    for (int64_t c = 0; r == t.rows - 1 && c < t.columns; ++c) stay_if(has_below, c, below);
    stay_if(has_before, 0, before);
    stay_if(has_behind, t.columns - 1, behind);
    std::memset(touching_ + t.first_set + r * pitch, 0, static_cast<size_t>(t.columns));
  }
  for (int64_t r = 0; r < t.rows; ++r)  // chains of nearest neighbours are short
    for (int64_t c = 0; c < t.columns; ++c) sets[r * pitch + c] = sets_[sets[r * pitch + c]];
  const auto touch = [&](int64_t r, int64_t c) {
    touching_[find(sets_, base + static_cast<int32_t>(r * pitch + c))] = 1;
  };
  for (int64_t c = 0; c < t.columns; ++c) {
    if (has_above) touch(0, c);
    if (has_below) touch(t.rows - 1, c);
  }
  for (int64_t r = 0; r < t.rows; ++r) {
    if (has_before) touch(r, 0);
    if (has_behind) touch(r, t.columns - 1);
  }

  // The tile's open edges, by ascending index.
  int64_t count = 0, left = 0;
  for (int k = 0; k < kinds_; ++k) {
    const int64_t first = std::max<int64_t>(0, -column_step_[k]), last = t.columns - std::max<int64_t>(0, column_step_[k]);
    const uint8_t bit = static_cast<uint8_t>(1 << k);
    for (int64_t r = 0; r < t.rows; ++r) {
      const int64_t v = (t.row + r) * width_ + t.column;
      uint8_t *const open = open_ + v;
      const int32_t *const keys = keys_[k] + v;
      const auto code = static_cast<uint32_t>(r * pitch) << kind_bits | static_cast<uint32_t>(k);
      if (r + row_step_[k] < t.rows) {
        for (int64_t c = first; c < last; ++c) {
          edges[count] = keyed(keys[c], code + (static_cast<uint32_t>(c) << kind_bits));
          count += open[c] >> k & 1;
          open[c] = static_cast<uint8_t>(open[c] & ~bit);
        }
        for (int64_t c = 0; c < first; ++c) left += open[c] >> k & 1;
        for (int64_t c = last; c < t.columns; ++c) left += open[c] >> k & 1;
      } else {
        for (int64_t c = 0; c < t.columns; ++c) left += open[c] >> k & 1;
      }
    }
  }
  const Keyed *const sorted = radix_sort(edges, spare, count);
  for (int64_t i = 0; i < count; ++i) {
    const auto code = static_cast<uint32_t>(sorted[i]);
    const int k = static_cast<int>(code & ((1u << kind_bits) - 1));
    const auto inside = static_cast<int32_t>(code >> kind_bits), at = base + inside;
    const int32_t a = find(sets_, at);
    const int32_t b = find(sets_, at + static_cast<int32_t>(row_step_[k] * pitch + column_step_[k]));
    const unsigned joins = a != b;
    const int64_t v = (t.row + (inside >> columns_log_)) * width_ + t.column + (inside & (pitch - 1));
    if (joins & touching_[a] & touching_[b]) {
      open_[v] = static_cast<uint8_t>(open_[v] | 1 << k);
      ++left;
      continue;
    }
    const int32_t first = std::min(a, b), second = std::max(a, b);
    sets_[second] = first;
    touching_[first] = static_cast<uint8_t>(touching_[first] | touching_[second]);
    link(v, k, joins);
  }
  return left;
}

// Step 3, for so many open edges.
void GridTree::join_tiles(int64_t waiting) {
  // Edges between tiles that are in the tree already, as nearest neighbours.
  const auto follow = [&](int64_t r, int64_t c, int k) {
    if (!(links_[r * width_ + c] >> forward_[k] & 1)) return;
    const int32_t a = find(sets_, static_cast<int32_t>(set_of(r, c)));
    const int32_t b = find(sets_, static_cast<int32_t>(set_of(r + row_step_[k], c + column_step_[k])));
    sets_[std::max(a, b)] = std::min(a, b);
  };
  if (kinds_ == 2) {
    for (int64_t r = (int64_t{1} << rows_log_) - 1; r + 1 < height_; r += int64_t{1} << rows_log_)
      for (int64_t c = 0; c < width_; ++c) follow(r, c, 0);
    for (int64_t r = 0; r < height_; ++r)
      for (int64_t c = (int64_t{1} << columns_log_) - 1; c + 1 < width_; c += int64_t{1} << columns_log_) follow(r, c, 1);
  }
  if (waiting <= most_waiting_) return join(waiting_, waiting_ + waiting);
  // Rare: costs of which the tiles can decide little. This memory comes from the system.
  const Block block = allocate(2 * waiting * static_cast<int64_t>(sizeof(Keyed)));
  Keyed *const edges = static_cast<Keyed *>(block.get());
  join(edges, edges + waiting);
}

void GridTree::join(Keyed *edges, Keyed *spare) {
  int64_t found = 0;
  for (int k = 0; k < kinds_; ++k)
    for (int64_t v = 0; v < graph_.num_vertices; ++v) {
      if ((v & 7) == 0 && v + 8 <= graph_.num_vertices) {
        uint64_t eight;
        std::memcpy(&eight, open_ + v, sizeof eight);
        if ((eight & 0x0101010101010101u << k) == 0) {
          v += 7;
          continue;
        }
      }
      if (open_[v] >> k & 1) edges[found++] = keyed(keys_[k][v], static_cast<uint32_t>(v << kind_bits | k));
    }
  const Keyed *const sorted = radix_sort(edges, spare, found);
  for (int64_t i = 0; i < found; ++i) {
    const auto code = static_cast<uint32_t>(sorted[i]);
    const int k = static_cast<int>(code & ((1u << kind_bits) - 1));
    const int64_t v = code >> kind_bits;
    const int64_t r = v / width_, c = v % width_;
    const int32_t a = find(sets_, static_cast<int32_t>(set_of(r, c)));
    const int32_t b = find(sets_, static_cast<int32_t>(set_of(r + row_step_[k], c + column_step_[k])));
    sets_[std::max(a, b)] = std::min(a, b);
    link(v, k, a != b);
  }
}

// Step 4: the canonical order, and of each vertex the way to its parent.
void GridTree::search(int32_t root, const Row &depth) {
  const int directions = 2 * kinds_;
  for (int mask = 0; mask < 1 << directions; ++mask) {
    Links &links = table_[mask];
    links.count = 0;
    for (int bit = 0; bit < directions; ++bit) {
      if (!(mask >> bit & 1)) continue;
      links.offset[links.count] = static_cast<int32_t>(offset_[bit]);
      links.back[links.count] = static_cast<uint8_t>(1 << (directions - 1 - bit));
      ++links.count;
    }
    for (int i = links.count; i < max_directions; ++i) links.offset[i] = links.back[i] = 0;
  }
  int32_t nobody = 0;
  int32_t *const depths = depth.data ? depth.data : &nobody;
  int32_t *const order = order_;
  uint8_t *const back = back_;
  order[0] = root;
  back[0] = 0;
  int64_t reached = 1;
  int32_t level = 0;
  for (int64_t i = 0; i < reached; ++level)
    for (const int64_t end = reached; i < end; ++i) {
      const int32_t v = order[i];
      const Links &links = table_[links_[v] & ~back[i]];
      to_parent_[v] = back[i];
      depths[v * depth.stride] = level;
      // As many as there could be; those that aren't there are overwritten by the next.
      if (directions == 4) {
        for (int j = 0; j < 4; ++j) order[reached + j] = v + links.offset[j];
        std::memcpy(back + reached, links.back, 4);
      } else {
        for (int j = 0; j < 8; ++j) order[reached + j] = v + links.offset[j];
        std::memcpy(back + reached, links.back, 8);
      }
      reached += links.count;
    }
}

void GridTree::write(int64_t item, int32_t root, const treescan_tree_output &output) const {
  const Row parent(output.parent, item), order(output.order, item), edge(output.edge, item);
  const int directions = 2 * kinds_;
  for_each_band([&](int64_t first, int64_t last) {
    int32_t to_parent[(1 << (max_directions - 1)) + 1] = {}, to_edge[(1 << (max_directions - 1)) + 1] = {};
    for (int64_t r = first; r < last; ++r) {
      int64_t first_edge = 0;
      for (int k = 0; k < kinds_; ++k) {
        // Edge (r, c) of a kind has the index first_edge + r * columns + c - from.
        const int64_t from = std::max<int64_t>(0, -column_step_[k]), columns = width_ - std::abs(column_step_[k]);
        const auto index = [&](int64_t row) { return first_edge + row * columns - from - row * width_; };  // minus v
        const int ahead = 1 << forward_[k], behind_bit = 1 << (directions - 1 - forward_[k]);
        const int64_t offset = offset_[forward_[k]];
        to_parent[ahead] = static_cast<int32_t>(offset);
        to_parent[behind_bit] = static_cast<int32_t>(-offset);
        to_edge[ahead] = static_cast<int32_t>(index(r));
        to_edge[behind_bit] = static_cast<int32_t>(index(r - row_step_[k]) - offset);
        first_edge += (height_ - row_step_[k]) * columns;
      }
      for (int64_t v = r * width_; v < (r + 1) * width_; ++v) parent[v] = static_cast<int32_t>(v) + to_parent[to_parent_[v]];
      if (edge.data)
        for (int64_t v = r * width_; v < (r + 1) * width_; ++v) edge[v] = static_cast<int32_t>(v) + to_edge[to_parent_[v]];
    }
    if (order.data)
      for (int64_t i = first * width_; i < last * width_; ++i) order[i] = order_[i];
  });
  if (edge.data) edge[root] = -1;
}

}  // namespace treescan
