#include "plan.h"

#include "call.h"

namespace treescan::cuda {

namespace {

constexpr int most_threads = 512;

// Trees of more vertices get the whole device, one after another: a block alone would take long over each of its rounds,
// longer than the whole device takes to meet.
constexpr int64_t most_vertices_of_block = 16384;

// One row for each item, or one for all.
struct Rows {
  const int32_t *data;
  int64_t item_stride, stride;

  explicit Rows(const treescan_tensor &tensor)
      : data(static_cast<const int32_t *>(tensor.data)),
        item_stride(tensor.sizes[0] == 1 ? 0 : tensor.strides[0]),
        stride(tensor.strides[1]) {}
  __device__ __forceinline__ int32_t at(int64_t item, int64_t i) const {
    return data[item * item_stride + i * stride];
  }
};

// What a team works on: 34 bytes a vertex, of which most have several uses, one after another.
struct Scratch {
  Link *links, *more_links;     // by place
  unsigned long long *heavy;    // by place: most descendants, complement of the child that has them
  int32_t *arrivals[2];         // by place, before `heavy`, in its memory: descendants as they are counted
  int32_t *path_start;          // by the place at a path's head, after `heavy`: first the path's length, then its start
  int32_t *size;                // by place: descendants, itself included
  int32_t *head;                // by place, after `size`: where its path begins
  int32_t *position;            // by vertex: in the order, or its place
  int32_t *offset;              // by place, after `position`: how far it is from its path's head
  int32_t *counts;              // for sorting
  int32_t *deepest;

  // A multiple of 64.
  __host__ __device__ static constexpr int64_t bytes(int64_t vertices) {
    return (32 * vertices + 4 * (sort_counts(vertices) + 1) + 63) / 64 * 64;
  }
  __device__ Scratch(char *memory, int64_t vertices)
      : links(reinterpret_cast<Link *>(memory)),
        more_links(links + vertices),
        heavy(reinterpret_cast<unsigned long long *>(more_links + vertices)),
        arrivals{reinterpret_cast<int32_t *>(heavy), reinterpret_cast<int32_t *>(heavy) + vertices},
        path_start(arrivals[0]),
        size(arrivals[1] + vertices),
        head(size),
        position(size + vertices),
        offset(position),
        counts(position + vertices),
        deepest(counts + sort_counts(vertices)) {}
};

// Plans one tree. Every function leaves what it writes for all of the team to read.
template <class Team>
class Planner {
 public:
  __device__ Planner(Team &team, const Rows &parents, const Rows &orders, int64_t item, int64_t vertices,
                     const Scratch &scratch, const Plan &plan, Failure *failure)
      : team_(team), parents_(parents), orders_(orders), item_(item), vertices_(vertices), scratch_(scratch),
        plan_(plan), failure_(failure) {}

  __device__ void make(ScanStrategy strategy) {
    if (!is_permutation() || !is_forest()) {
      if (team_.rank() == 0) *plan_.summary = {};
      return;
    }
    if (!canonical_) place_by_parent();
    find_children();
    climb();
    const int32_t depth = measure_depth();
    // A level costs a barrier and a way to memory and back, a step along a path nothing but arithmetic, since all that it
    // reads is known ahead. Paths take more barriers to plan than levels, about four times the logarithm of the vertices.
    if (strategy == ScanStrategy::levels ||
        (strategy == ScanStrategy::automatic && depth < 4 * bits_for(vertices_)))
      lay_out_levels(depth);
    else
      lay_out_paths(depth);
  }

 private:
  __device__ __forceinline__ int32_t parent_of(int64_t v) const { return parents_.at(item_, v); }
  __device__ __forceinline__ bool is_vertex(int32_t v) const { return v >= 0 && v < vertices_; }

  // Whether the order names every vertex once.
  __device__ bool is_permutation() {
    for_each(team_, vertices_, [&](int64_t v) {
      scratch_.position[v] = -1;
      plan_.first_child[v] = plan_.num_children[v] = 0;
    });
    if (team_.rank() == 0) *scratch_.deepest = 0;
    team_.sync();
    bool wrong = false;
    for_each(team_, vertices_, [&](int64_t i) {
      const int32_t v = orders_.at(item_, i), here = static_cast<int32_t>(i);
      plan_.vertex[i] = v;
      if (!is_vertex(v)) {
        report(failure_, ValueFault::order_out_of_range, vertices_, v, i, item_);
        wrong = true;
        return;
      }
      const int32_t there = atomicCAS(&scratch_.position[v], -1, here);
      if (there < 0) return;
      report(failure_, ValueFault::order_repeats, v, max(here, there), min(here, there), item_);
      wrong = true;
    });
    return !team_.any(wrong);
  }

  // Whether it is an order of the forest: roots first, parents before their children, vertices in no tree last. Takes
  // positions for places, and finds out whether they can stay.
  __device__ bool is_forest() {
    bool wrong = false;
    int64_t planted_and_roots = 0;
    for_each(team_, vertices_, [&](int64_t i) {
      const int32_t v = plan_.vertex[i], p = parent_of(v);
      const int32_t above = is_vertex(p) ? scratch_.position[p] : -1;
      if (p != -1 && !is_vertex(p)) {
        report(failure_, ValueFault::parent_out_of_range, vertices_, p, v, item_);
        wrong = true;
      } else if (above > i) {
        report(failure_, ValueFault::order_child_before_parent, v, i, p, item_);
        wrong = true;
      }
      plan_.parent[i] = above;
      planted_and_roots += (int64_t{above >= 0} << 32) + int64_t{above == i};
    });
    if (team_.any(wrong)) return false;
    team_.sum_before(planted_and_roots, &planted_and_roots);
    planted_ = static_cast<int32_t>(planted_and_roots >> 32);
    roots_ = static_cast<int32_t>(planted_and_roots);

    bool canonical = true;
    for_each(team_, vertices_ - 1, [&](int64_t before) {
      const int64_t i = before + 1;
      const int32_t above = plan_.parent[i], above_before = plan_.parent[before];
      if (above < 0) return;
      const int32_t v = plan_.vertex[i];
      const int32_t family = above == i ? -1 : above, family_before = above_before == before ? -1 : above_before;
      if (above_before < 0) {
        report(failure_, ValueFault::order_lacks_parents_last, v, parent_of(v), i, item_);
        wrong = true;
      } else if (family < 0 && family_before >= 0) {
        report(failure_, ValueFault::order_lacks_roots_first, v, i, item_);
        wrong = true;
      }
      canonical = canonical && (family > family_before || (family == family_before && v > plan_.vertex[before]));
    });
    canonical_ = !team_.any(wrong || !canonical);
    return canonical_ || !team_.any(wrong);
  }

  // Places for a forest whose order leaves siblings apart: by parent, then by vertex.
  __device__ void place_by_parent() {
    auto *const entries = reinterpret_cast<int32_t *>(scratch_.links);
    for_each(team_, vertices_, [&](int64_t v) { entries[v] = static_cast<int32_t>(v); });
    team_.sync();
    const int32_t *const sorted =
        stable_sort(team_, entries, entries + vertices_, vertices_, bits_for(vertices_ + 2), scratch_.counts,
                    [&](int32_t v) {
                      const int32_t p = parent_of(v);
                      return static_cast<uint32_t>(p < 0 ? vertices_ + 1 : p == v ? 0 : p + 1);
                    });
    for_each(team_, vertices_, [&](int64_t i) {
      const int32_t v = sorted[i];
      plan_.vertex[i] = v;
      scratch_.position[v] = static_cast<int32_t>(i);
    });
    team_.sync();
    for_each(team_, planted_, [&](int64_t i) { plan_.parent[i] = scratch_.position[parent_of(plan_.vertex[i])]; });
    team_.sync();
  }

  // The first child of every place and, for now, one past the last in `num_children`. Sets out on the way up.
  __device__ void find_children() {
    for_each(team_, vertices_, [&](int64_t i) {
      const int32_t here = static_cast<int32_t>(i);
      if (i >= planted_) {
        plan_.parent[i] = here;
        return;
      }
      const int32_t above = plan_.parent[i];
      scratch_.links[i] = make_link(static_cast<uint32_t>(above), above != i);
      scratch_.size[i] = 1;
      scratch_.arrivals[0][i] = scratch_.arrivals[1][i] = 0;
      if (i < roots_) return;
      if (i == roots_ || plan_.parent[i - 1] != above) plan_.first_child[above] = here;
      if (i + 1 == planted_ || plan_.parent[i + 1] != above) plan_.num_children[above] = here + 1;
    });
    team_.sync();
  }

  // Depths, in the links, and descendants. In every round a link reaches twice as far up as before, and each place has
  // counted the descendants less far below than that: it tells them to the place that lies exactly so far above.
  __device__ void climb() {
    int32_t *arrived = scratch_.arrivals[0], *arriving = scratch_.arrivals[1];
    bool climbing = true;
    for (uint32_t reach = 1; climbing; reach *= 2) {
      bool reaches = false;
      for_each(team_, planted_, [&](int64_t i) {
        const Link link = scratch_.links[i], beyond = scratch_.links[link >> 32];
        const int32_t below = scratch_.size[i] + arrived[i];
        scratch_.size[i] = below;
        arrived[i] = 0;
        if (static_cast<uint32_t>(link) == reach) {
          atomicAdd(&arriving[link >> 32], below);
          reaches = true;
        }
        scratch_.more_links[i] = make_link(static_cast<uint32_t>(beyond >> 32),
                                           static_cast<uint32_t>(link) + static_cast<uint32_t>(beyond));
      });
      climbing = team_.any(reaches);
      swap(scratch_.links, scratch_.more_links);
      swap(arrived, arriving);
    }
  }

  // The depth of the deepest place.
  __device__ int32_t measure_depth() {
    int32_t deepest = 0;
    for_each(team_, planted_, [&](int64_t i) {
      deepest = max(deepest, depth_of(i));
      plan_.num_children[i] -= plan_.first_child[i];
      scratch_.heavy[i] = 0;
    });
    if (deepest > atomic_load(scratch_.deepest)) atomicMax(scratch_.deepest, deepest);
    team_.sync();
    return *scratch_.deepest;
  }
  __device__ __forceinline__ int32_t depth_of(int64_t i) const { return static_cast<int32_t>(scratch_.links[i]); }

  // Every place a path of its own.
  __device__ void lay_out_levels(int32_t depth) {
    // A canonical order has them by depth.
    const int32_t *const sorted = canonical_ ? nullptr : sort_by_depth(depth);
    const int32_t num_layers = planted_ > 0 ? depth + 1 : 0;
    for_each(team_, planted_, [&](int64_t i) {
      const int64_t here = sorted ? sorted[i] : i, before = sorted && i > 0 ? sorted[i - 1] : i - 1;
      plan_.sequence[i] = static_cast<int32_t>(here);
      plan_.path_start[i] = static_cast<int32_t>(i);
      if (i == 0 || depth_of(here) != depth_of(before)) plan_.layer_start[depth_of(here)] = static_cast<int32_t>(i);
    });
    finish(planted_, num_layers, depth);
  }

  __device__ const int32_t *sort_by_depth(int32_t depth) {
    auto *const entries = reinterpret_cast<int32_t *>(scratch_.more_links);
    for_each(team_, planted_, [&](int64_t i) { entries[i] = static_cast<int32_t>(i); });
    team_.sync();
    return stable_sort(team_, entries, entries + vertices_, planted_, bits_for(depth + 1), scratch_.counts,
                       [&](int32_t i) { return static_cast<uint32_t>(depth_of(i)); });
  }

  // A path goes on to the child with the most descendants, the first of them if there are several. A child off the path
  // has at most half of its parent's descendants, so there are no more layers than bits in the number of vertices.
  __device__ void lay_out_paths(int32_t depth) {
    for_each(team_, planted_ - roots_, [&](int64_t k) {
      const int64_t i = roots_ + k;
      unsigned long long *const heaviest = &scratch_.heavy[plan_.parent[i]];
      const unsigned long long mine = static_cast<unsigned long long>(scratch_.size[i]) << 32 | ~static_cast<uint32_t>(i);
      if (atomic_load(heaviest) < mine) atomicMax(heaviest, mine);
    });
    team_.sync();
    for_each(team_, planted_, [&](int64_t i) {
      const uint32_t here = static_cast<uint32_t>(i), above = static_cast<uint32_t>(plan_.parent[i]);
      const bool goes_on = above != here && ~static_cast<uint32_t>(scratch_.heavy[above]) == here;
      scratch_.links[i] = make_link(goes_on ? above : here, goes_on);
    });
    team_.sync();
    climb_lists();

    // Where every place is on its path, how long the paths are, and links that climb one layer each.
    for_each(team_, planted_, [&](int64_t i) {
      const Link to_head = scratch_.links[i];
      const uint32_t head = static_cast<uint32_t>(to_head >> 32), offset = static_cast<uint32_t>(to_head);
      const uint32_t above = static_cast<uint32_t>(plan_.parent[head]);
      scratch_.head[i] = static_cast<int32_t>(head);
      scratch_.offset[i] = static_cast<int32_t>(offset);
      if (plan_.num_children[i] == 0) scratch_.path_start[head] = static_cast<int32_t>(offset + 1);
      scratch_.more_links[i] = above == head ? make_link(static_cast<uint32_t>(i), 0) : make_link(above, 1);
    });
    team_.sync();
    swap(scratch_.links, scratch_.more_links);
    climb_lists();
    const auto layer_of = [&](int32_t i) { return static_cast<uint32_t>(scratch_.links[i]); };

    auto *const heads = reinterpret_cast<int32_t *>(scratch_.more_links);
    const int64_t num_paths = exclusive_sums(
        team_, planted_, [&](int64_t i) { return int64_t{scratch_.head[i] == i}; },
        [&](int64_t i, int64_t path) {
          if (scratch_.head[i] == i) heads[path] = static_cast<int32_t>(i);
        });
    const int32_t *const sorted = stable_sort(team_, heads, heads + vertices_, num_paths,
                                              bits_for(bits_for(planted_ + 1)), scratch_.counts, layer_of);
    exclusive_sums(
        team_, num_paths, [&](int64_t path) { return int64_t{scratch_.path_start[sorted[path]]}; },
        [&](int64_t path, int64_t start) {
          const int32_t head = sorted[path];
          scratch_.path_start[head] = plan_.path_start[path] = static_cast<int32_t>(start);
          if (path == 0 || layer_of(sorted[path - 1]) != layer_of(head))
            plan_.layer_start[layer_of(head)] = static_cast<int32_t>(path);
        });
    for_each(team_, planted_, [&](int64_t i) {
      plan_.sequence[scratch_.path_start[scratch_.head[i]] + scratch_.offset[i]] = static_cast<int32_t>(i);
    });
    finish(static_cast<int32_t>(num_paths), num_paths > 0 ? static_cast<int32_t>(layer_of(sorted[num_paths - 1])) + 1 : 0,
           depth);
  }

  __device__ void climb_lists() {
    Link *const ranked = rank_lists(team_, scratch_.links, scratch_.more_links, planted_);
    if (ranked != scratch_.links) swap(scratch_.links, scratch_.more_links);
  }

  __device__ void finish(int32_t num_paths, int32_t num_layers, int32_t depth) {
    if (team_.rank() != 0) return;
    plan_.path_start[num_paths] = planted_;
    plan_.layer_start[num_layers] = num_paths;
    *plan_.summary = {1, roots_, planted_, num_paths, num_layers, depth};
  }

  template <class T>
  __device__ static __forceinline__ void swap(T &a, T &b) {
    const T kept = a;
    a = b;
    b = kept;
  }

  Team &team_;
  const Rows &parents_, &orders_;
  int64_t item_, vertices_;
  Scratch scratch_;
  Plan plan_;
  Failure *failure_;
  int32_t planted_ = 0, roots_ = 0;
  bool canonical_ = false;
};

// A block for each tree at a time. Blocks stay, and keep their scratch memory.
__global__ void __launch_bounds__(most_threads) plan_by_blocks(PlanViews views, Rows parents, Rows orders,
                                                               ScanStrategy strategy, char *scratch, Failure *failure) {
  BlockTeam team;
  const Scratch own(scratch + blockIdx.x * Scratch::bytes(views.vertices), views.vertices);
  for (int64_t tree = blockIdx.x; tree < views.trees; tree += gridDim.x) {
    Planner<BlockTeam>(team, parents, orders, tree, views.vertices, own, views.of(tree), failure).make(strategy);
    team.sync();
  }
}

// One tree after the other, by all blocks together.
__global__ void __launch_bounds__(most_threads) plan_by_grid(PlanViews views, Rows parents, Rows orders,
                                                             ScanStrategy strategy, char *scratch, GridMemory *memory,
                                                             Failure *failure) {
  GridTeam team(memory);
  const Scratch shared(scratch, views.vertices);
  for (int64_t tree = 0; tree < views.trees; ++tree) {
    Planner<GridTeam>(team, parents, orders, tree, views.vertices, shared, views.of(tree), failure).make(strategy);
    team.sync();
  }
}

int threads_for(int64_t vertices) {
  return static_cast<int>(std::min<int64_t>((vertices + 31) / 32 * 32, most_threads));
}

}  // namespace

Plans::Plans(Carver &carver, const treescan_tensor &parent, const treescan_tensor &order) {
  const int64_t trees = std::max(parent.sizes[0], order.sizes[0]), vertices = parent.sizes[1];
  views_.trees = trees;
  views_.vertices = vertices;
  views_.summaries = carver.take<PlanSummary>(trees);
  views_.arrays = carver.take<int32_t>(times(trees, PlanViews::array_elements(vertices)));
  if (trees == 0 || vertices == 0) return;
  by_grid_ = tree_team() == TreeTeam::grid ||
             (tree_team() == TreeTeam::automatic && vertices > most_vertices_of_block);
  threads_ = threads_for(vertices);
  const unsigned resident =
      by_grid_ ? resident_blocks(plan_by_grid, threads_, 0) : resident_blocks(plan_by_blocks, threads_, 0);
  blocks_ = by_grid_ ? std::min<int64_t>({resident, GridMemory::most_blocks, (vertices + threads_ - 1) / threads_})
                     : std::min<int64_t>(resident, trees);
  grid_memory_ = carver.take<GridMemory>(by_grid_ ? 1 : 0);
  scratch_ = carver.take<char>(times(by_grid_ ? 1 : blocks_, Scratch::bytes(vertices)));
}

void Plans::make(const treescan_tensor &parent, const treescan_tensor &order, Failure *failure, cudaStream_t stream) {
  if (views_.trees == 0 || views_.vertices == 0) return;
  const Rows parents(parent), orders(order);
  const ScanStrategy strategy = scan_strategy();
  if (by_grid_) {
    check(cudaMemsetAsync(grid_memory_, 0, sizeof(GridMemory), stream), "plan");
    check(LAUNCH_COOPERATIVE((plan_by_grid), grid_size(blocks_), threads_, 0, stream, views_, parents, orders, strategy,
                             scratch_, grid_memory_, failure),
          "plan");
  } else {
    check(LAUNCH((plan_by_blocks), grid_size(blocks_), threads_, 0, stream, views_, parents, orders, strategy, scratch_,
                 failure),
          "plan");
  }
}

}  // namespace treescan::cuda
