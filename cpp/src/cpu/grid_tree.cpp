#include "cpu/grid_tree.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

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
  parts_ = carver.take<char>(workers_ * [&] {
    Carver measure;
    carve_parts(measure);
    return measure.used();
  }());
  table_ = carver.take<Links>(int64_t{1} << directions);
  to_parent_ = carver.take<uint8_t>(vertices);
  // What waits is done with before the search begins, so they share their memory. Of a tile no more edges wait than vertices
  // touch its border, less one, and no more than three at a vertex lead to another tile.
  const int64_t along_borders = (tiles_ / tiles_across_ - 1) * width_ + (tiles_across_ - 1) * height_;
  const int64_t order_bytes = (vertices + max_directions) * static_cast<int64_t>(sizeof(int32_t));
  const int64_t waiting_bytes = 2 * (2 + 3) * along_borders * static_cast<int64_t>(sizeof(Keyed));
  char *const shared = carver.take<char>(std::max(order_bytes + vertices + max_directions, waiting_bytes));
  order_ = reinterpret_cast<int32_t *>(shared);
  back_ = reinterpret_cast<uint8_t *>(inside(shared, order_bytes));
  waiting_ = reinterpret_cast<Keyed *>(shared);
}

GridTree::Parts GridTree::carve_parts(Carver &carver) const {
  const int64_t most = int64_t{1} << (rows_log_ + columns_log_);
  Parts parts;
  parts.edges = carver.take<OpenEdge>(kinds_ * most + 1);
  parts.nearest = carver.take<Keyed>(most);
  parts.into = carver.take<int32_t>(most);
  parts.root = carver.take<int32_t>(most + 1);
  parts.number = carver.take<uint16_t>(most);
  parts.touching = carver.take<uint8_t>(most);
  return parts;
}

GridTree::Parts GridTree::parts_of(int64_t worker) const {
  Carver measure;
  carve_parts(measure);
  Carver carver(parts_ + worker * measure.used());
  return carve_parts(carver);
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

void GridTree::build(const CostRow &costs, int64_t item, int32_t root, const treescan_tree_output &output) {
  set_keys(costs, item);
  judge();
  for_each_task(workers_, tiles_, [&](int64_t worker, int64_t index) { join_inside(tile(index), parts_of(worker)); });
  if (tiles_ > 1) join_tiles();
  search(root, Row(output.depth, item));
  write(item, root, output);
}

void GridTree::set_keys(const CostRow &costs, int64_t item) {
  const EdgeOrder order = costs.order;
  const bool descending = order.kind == EdgeOrder::descending;
  const auto fill = [&](int64_t edge, int64_t count, int32_t *keys) {
    if (costs.stride == 1 && order.kind != EdgeOrder::random)
      return grid_kernels().sort_keys(costs.data + edge, count, descending, keys);
    constexpr int64_t block = 256;
    float values[block];
    for (int64_t first = 0; first < count; first += block) {
      const int64_t size = std::min(block, count - first);
      for (int64_t i = 0; i < size; ++i) {
        const int64_t e = edge + first + i;
        const float value = costs.data[e * costs.stride];
        values[i] = order.kind == EdgeOrder::random ? random_cost(value, order.seed, item, e) : value;
      }
      grid_kernels().sort_keys(values, size, descending, keys + first);
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

// Step 2.
void GridTree::join_inside(const Tile &t, const Parts &parts) {
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
  }
  // Its part is numbered at the root. Chains of nearest neighbours are short.
  int32_t count = 0;
  for (int32_t r = 0; r < t.rows; ++r)
    for (int32_t i = r * pitch; i < r * pitch + t.columns; ++i) {
      sets[i] = sets_[sets[i]];
      parts.number[i] = static_cast<uint16_t>(count);
      parts.root[count] = base + i;
      count += sets[i] == base + i;
    }
  std::memset(parts.touching, 0, static_cast<size_t>(count));
  const auto touch = [&](int64_t r, int64_t c) {
    parts.touching[parts.number[find(sets_, base + static_cast<int32_t>(r * pitch + c)) - base]] = 1;
  };
  for (int64_t c = 0; c < t.columns; ++c) {
    if (has_above) touch(0, c);
    if (has_below) touch(t.rows - 1, c);
  }
  for (int64_t r = 0; r < t.rows; ++r) {
    if (has_before) touch(r, 0);
    if (has_behind) touch(r, t.columns - 1);
  }
  count = join_parts(t, parts, count, true);
  if (tiles_ == 1) return;

  // Parts that touch the border may be joined on trial: an edge that isn't in the tree of the tile alone isn't in that of the
  // grid, and one that is has to wait.
  for (int32_t p = 0; p < count; ++p) parts.number[parts.root[p] - base] = static_cast<uint16_t>(p);
  join_parts(t, parts, count, false);
}

// Boruvka's algorithm on the parts of a tile: each that doesn't touch the border is joined to its nearest neighbour, by an
// edge that is `certain` to be in the tree, or else open again. Returns how many parts are left.
int32_t GridTree::join_parts(const Tile &t, const Parts &parts, int32_t count, bool certain) {
  constexpr Keyed none = ~Keyed{0};
  OpenEdge *const edges = parts.edges;
  Keyed *const nearest = parts.nearest;
  int32_t *const into = parts.into, *const root = parts.root;
  uint8_t *const touching = parts.touching;
  const int64_t pitch = int64_t{1} << columns_log_;
  const auto vertex = [&](uint32_t code) {
    const int64_t inside = code & ((1u << tile_bits) - 1);
    return (t.row + (inside >> columns_log_)) * width_ + t.column + (inside & (pitch - 1));
  };
  const auto reopen = [&](uint32_t code) { open_[vertex(code)] |= static_cast<uint8_t>(1 << (code >> tile_bits)); };
  const bool some_touch = certain && tiles_ > 1;

  // Keeps an edge if it is between parts. Which is nearer can't be guessed.
  int64_t kept = 0;
  const auto keep = [&](uint32_t key, uint32_t code, uint16_t a, uint16_t b) {
    if (some_touch && (touching[a] & touching[b])) {
      if (a != b) reopen(code);
      return;
    }
    edges[kept] = {key, code, a, b};
    const Keyed same = a == b, place = (static_cast<Keyed>(key) << 32 | static_cast<uint32_t>(kept)) | (0 - same);
    nearest[a] = std::min(nearest[a], place);
    nearest[b] = std::min(nearest[b], place);
    kept += static_cast<int64_t>(1 - same);
  };
  std::fill(nearest, nearest + count, none);
  for (int k = 0; k < kinds_; ++k) {  // by ascending index
    const int64_t first = std::max<int64_t>(0, -column_step_[k]), last = t.columns - std::max<int64_t>(0, column_step_[k]);
    const int32_t step = static_cast<int32_t>(row_step_[k] * pitch + column_step_[k]);
    const auto bit = static_cast<uint8_t>(1 << k);
    for (int64_t r = 0; r + row_step_[k] < t.rows; ++r) {
      uint8_t *const open = open_ + (t.row + r) * width_ + t.column;
      const int32_t *const keys = keys_[k] + (t.row + r) * width_ + t.column;
      const auto code = static_cast<uint32_t>(k) << tile_bits | static_cast<uint32_t>(r * pitch);
      int64_t found = kept;
      for (int64_t c = first; c < last; ++c) {
        edges[found].code = code + static_cast<uint32_t>(c);
        found += open[c] >> k & 1;
      }
      if (tiles_ > 1)
        for (int64_t c = first; c < last; ++c) open[c] = static_cast<uint8_t>(open[c] & ~bit);
      for (int64_t i = kept; i < found; ++i) {
        const uint32_t edge = edges[i].code;
        const auto at = static_cast<int32_t>(t.first_set + (edge & ((1u << tile_bits) - 1)));
        keep(static_cast<uint32_t>(keyed(keys[edge - code], 0) >> 32), edge, parts.number[find(sets_, at) - t.first_set],
             parts.number[find(sets_, at + step) - t.first_set]);
      }
    }
  }
  while (kept > 0) {
    for (int32_t p = 0; p < count; ++p) {
      into[p] = p;
      const Keyed place = nearest[p];
      if (place == none || (some_touch && touching[p])) continue;
      const OpenEdge edge = edges[static_cast<uint32_t>(place)];
      const int32_t q = edge.a ^ edge.b ^ p;
      int32_t stays = (nearest[q] == place) & (p < q);  // the first of two that are each other's
      if (some_touch) {
        stays &= touching[q] == 0;
        sets_[root[p]] = root[stays ? p : q];
      }
      into[p] = q + (p - q) * stays;
      if (certain) {
        link(vertex(edge.code), static_cast<int>(edge.code >> tile_bits), 1);
      } else {
        reopen(edge.code);
      }
    }
    for (int32_t p = 0; p < count; ++p) into[p] = find(into, p);
    int32_t left = 0;
    if (some_touch) {
      for (int32_t p = 0; p < count; ++p) touching[into[p]] |= touching[p];
      for (int32_t p = 0; p < count; ++p) {
        touching[left] = touching[p];
        root[left] = root[p];
        left += into[p] == p;
      }
      left = 0;
    }
    for (int32_t p = 0; p < count; ++p) {
      nearest[p] = static_cast<Keyed>(left);
      left += into[p] == p;
    }
    for (int32_t p = 0; p < count; ++p) into[p] = static_cast<int32_t>(nearest[into[p]]);
    count = left;
    std::fill(nearest, nearest + count, none);
    const int64_t listed = std::exchange(kept, 0);
    for (int64_t i = 0; i < listed; ++i) {
      const OpenEdge edge = edges[i];
      keep(edge.key, edge.code, static_cast<uint16_t>(into[edge.a]), static_cast<uint16_t>(into[edge.b]));
    }
  }
  return count;
}

// Step 3.
void GridTree::join_tiles() {
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
      if (open_[v] >> k & 1) waiting_[found++] = keyed(keys_[k][v], static_cast<uint32_t>(v << kind_bits | k));
    }
  const Keyed *const sorted = radix_sort(waiting_, waiting_ + found, found);
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
  order_[0] = root;
  back_[0] = 0;
  int64_t first = 0, reached = 1;
  for (int32_t level = 0; first < reached;) {
    if (workers_ > 1 && reached - first >= wide) search_in_pieces(first, reached, level, depth);
    const int64_t count = reached - first;
    const int64_t found = visit({order_ + first, back_ + first}, count, level++, depth, {order_ + reached, back_ + reached});
    first = reached;
    reached += found;
  }
}

// Visits the vertices of a level. Returns how many are in the next, which it lists.
int64_t GridTree::visit(const Level &from, int64_t count, int32_t level, const Row &depth, const Level &to) const {
  int32_t nobody = 0;
  int32_t *const depths = depth.data ? depth.data : &nobody;
  const bool four = kinds_ == 2;
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t v = from.order[i];
    const uint8_t back = from.back[i];
    const Links &links = table_[links_[v] & ~back];
    to_parent_[v] = back;
    depths[v * depth.stride] = level;
    // As many as there could be; those that aren't there are overwritten by the next.
    if (four) {
      for (int j = 0; j < 4; ++j) to.order[found + j] = v + links.offset[j];
      std::memcpy(to.back + found, links.back, 4);
    } else {
      for (int j = 0; j < 8; ++j) to.order[found + j] = v + links.offset[j];
      std::memcpy(to.back + found, links.back, 8);
    }
    found += links.count;
  }
  return found;
}

// Cuts a level, the vertices in [first, reached), into pieces and searches below each of them for some levels; then does so again
// while there is a wide level and room. The order goes through each level piece by piece.
void GridTree::search_in_pieces(int64_t &first, int64_t &reached, int32_t &level, const Row &depth) {
  // Memory that steps 1 to 3 are done with holds the pieces, half of them in either array, and where their levels end and go.
  const int64_t room = graph_.num_vertices / (pieces / 2);
  const auto piece = [&](int64_t p) {
    return Level{keys_[p % 2] + p / 2 * room, (p % 2 ? open_ : start_) + p / 2 * room};
  };
  const auto ends = [&](int64_t p) { return sets_ + 2 * p * (most_levels + 1); };
  const auto places = [&](int64_t p) { return ends(p) + most_levels + 1; };
  int64_t made[pieces], most = 0;
  const auto put_in_order = [&](int64_t p) {
    const int32_t *const end = ends(p), *const place = places(p);
    for (int64_t l = 0; l + 1 < most; ++l) std::copy(piece(p).order + end[l], piece(p).order + end[l + 1], order_ + place[l]);
  };
  do {
    const int64_t count = reached - first, levels = std::clamp<int64_t>(room / 2 / count, 1, most_levels);
    for_each_task(workers_, pieces, [&](int64_t, int64_t p) {
      put_in_order(p);
      const int64_t start = first + count * p / pieces;
      int64_t size = first + count * (p + 1) / pieces - start, l = 0;
      Level from{order_ + start, back_ + start};
      int32_t *const end = ends(p);
      end[0] = 0;
      for (; l < levels && end[l] + (size + 1) * 2 * kinds_ <= room; ++l) {
        const Level to{piece(p).order + end[l], piece(p).back + end[l]};
        size = visit(from, size, level + static_cast<int32_t>(l), depth, to);
        end[l + 1] = end[l] + static_cast<int32_t>(size);
        from = to;
      }
      made[p] = l;
    });
    most = *std::min_element(made, made + pieces);
    for (int64_t l = 0; l < most; ++l) {
      first = reached;
      for (int64_t p = 0; p < pieces; ++p) {
        places(p)[l] = static_cast<int32_t>(reached);
        reached += ends(p)[l + 1] - ends(p)[l];
      }
    }
    for (int64_t p = 0; p < pieces && most > 0; ++p) {  // the next round starts from this
      const int32_t begin = ends(p)[most - 1], end = ends(p)[most], place = places(p)[most - 1];
      std::copy(piece(p).order + begin, piece(p).order + end, order_ + place);
      std::copy(piece(p).back + begin, piece(p).back + end, back_ + place);
    }
    level += static_cast<int32_t>(most);
  } while (most > 0 && reached - first >= wide);
  for_each_task(workers_, pieces, [&](int64_t, int64_t p) { put_in_order(p); });
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
