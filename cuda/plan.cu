#include "plan.h"

#include "call.h"

namespace treescan::cuda {

namespace {

constexpr int most_threads = 384;  // more would leave them too few registers on some architectures

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

// What a team works on: 34 bytes a vertex, most of which have several uses, one after another.
struct Scratch {
  Link *links, *more_links;   // by place
  unsigned long long *heavy;  // by place: most descendants, complement of the child that has them
  int32_t *arrivals;          // by place, two for each, before `heavy`, in its memory: descendants as they are counted
  int32_t *path_start;        // by the place at a path's head, after `heavy`: first the path's length, then its start
  int32_t *size;              // by place: descendants, itself included
  int32_t *head;              // by place, after `size`: where its path begins
  int32_t *position;          // by vertex: in the order, or its place
  int32_t *offset;            // by place, after `position`: how far it is from its path's head
  int32_t *counts;            // for sorting
  int32_t *deepest;           // one number

  // A multiple of 64.
  __host__ __device__ static constexpr int64_t bytes(int64_t vertices) {
    return (32 * vertices + 4 * (sort_counts(vertices) + 1) + 63) / 64 * 64;
  }
  __device__ __forceinline__ Scratch(char *memory, int64_t vertices)
      : links(reinterpret_cast<Link *>(memory)),
        more_links(links + vertices),
        heavy(reinterpret_cast<unsigned long long *>(more_links + vertices)),
        arrivals(reinterpret_cast<int32_t *>(heavy)),
        path_start(arrivals),
        size(arrivals + 2 * vertices),
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
  __device__ Planner(Team &team, const PlanViews &views, const Rows &parents, const Rows &orders, int64_t item,
                     char *memory, Failure *failure)
      : team_(team), views_(views), parents_(parents), orders_(orders), item_(item), memory_(memory),
        links_(scratch().links), more_links_(scratch().more_links), failure_(failure) {}

  __device__ void make(ScanStrategy strategy) {
    if (!is_permutation() || !is_forest()) {
      if (team_.rank() == 0) *plan().summary = {};
      return;
    }
    if (!canonical_) place_by_parent();
    find_children();
    climb();
    const int32_t depth = measure_depth();
    // A model on paper: on each level scans wait for a barrier and for memory, at a path's step for arithmetic, since
    // all that it reads is known ahead. Paths take more barriers to plan, two to three times the logarithm of the
    // vertices, and then one for each layer, at most that logarithm.
    const bool levels = strategy == ScanStrategy::levels ||
                        (strategy == ScanStrategy::automatic && depth < 4 * bits_for(vertices()));
    if (levels) take_places_for_paths();
    else find_heavy_paths();
    // A canonical order has places by depth.
    lay_out(depth, !levels ? bits_for(bits_for(int64_t{planted_} + 1)) : canonical_ ? 0 : bits_for(int64_t{depth} + 1));
  }

 private:
  // Pointers are computed where they are used: all of them at once would take too many registers.
  __device__ __forceinline__ Plan plan() const { return views_.of(item_); }
  __device__ __forceinline__ Scratch scratch() const { return {memory_, vertices()}; }
  __device__ __forceinline__ int32_t vertices() const { return static_cast<int32_t>(views_.vertices); }
  __device__ __forceinline__ int32_t parent_of(int64_t v) const { return parents_.at(item_, v); }
  __device__ __forceinline__ bool is_vertex(int32_t v) const { return v >= 0 && v < vertices(); }

  // Whether the order names every vertex once.
  __device__ bool is_permutation() {
    for_each(team_, vertices(), [&](int32_t v) {
      scratch().position[v] = -1;
      plan().first_child[v] = plan().num_children[v] = 0;
    });
    if (team_.rank() == 0) *scratch().deepest = 0;
    team_.sync();
    bool wrong = false;
    for_each(team_, vertices(), [&](int32_t i) {
      const int32_t v = orders_.at(item_, i);
      plan().vertex[i] = v;
      if (!is_vertex(v)) {
        report(failure_, ValueFault::order_out_of_range, vertices(), v, i, item_);
        wrong = true;
        return;
      }
      const int32_t there = atomicCAS(&scratch().position[v], -1, i);
      if (there < 0) return;
      report(failure_, ValueFault::order_repeats, v, max(i, there), min(i, there), item_);
      wrong = true;
    });
    return !team_.any(wrong);
  }

  // Whether it is an order of the forest: roots first, parents before their children, vertices in no tree last. Takes
  // positions for places, and finds out whether they can stay.
  __device__ bool is_forest() {
    bool wrong = false;
    int64_t planted_and_roots = 0;
    for_each(team_, vertices(), [&](int32_t i) {
      const int32_t v = plan().vertex[i], p = parent_of(v);
      const int32_t above = is_vertex(p) ? scratch().position[p] : -1;
      if (p != -1 && !is_vertex(p)) {
        report(failure_, ValueFault::parent_out_of_range, vertices(), p, v, item_);
        wrong = true;
      } else if (above > i) {
        report(failure_, ValueFault::order_child_before_parent, v, i, p, item_);
        wrong = true;
      }
      plan().parent[i] = above;
      planted_and_roots += (int64_t{above >= 0} << 32) + int64_t{above == i};
    });
    if (team_.any(wrong)) return false;
    team_.sum_before(planted_and_roots, &planted_and_roots);
    planted_ = static_cast<int32_t>(planted_and_roots >> 32);
    roots_ = static_cast<int32_t>(planted_and_roots);

    bool canonical = true;
    for_each(team_, vertices() - 1, [&](int32_t before) {
      const int32_t i = before + 1;
      const int32_t above = plan().parent[i], above_before = plan().parent[before];
      if (above < 0) return;
      const int32_t v = plan().vertex[i];
      const int32_t family = above == i ? -1 : above, family_before = above_before == before ? -1 : above_before;
      if (above_before < 0) {
        report(failure_, ValueFault::order_lacks_parents_last, v, parent_of(v), i, item_);
        wrong = true;
      } else if (family < 0 && family_before >= 0) {
        report(failure_, ValueFault::order_lacks_roots_first, v, i, item_);
        wrong = true;
      }
      canonical = canonical && (family > family_before || (family == family_before && v > plan().vertex[before]));
    });
    canonical_ = !team_.any(wrong || !canonical);
    return canonical_ || !team_.any(wrong);
  }

  // Places for a forest whose order leaves siblings apart: by parent, then by vertex.
  __device__ void place_by_parent() {
    auto *const entries = reinterpret_cast<int32_t *>(links_);
    for_each(team_, vertices(), [&](int32_t v) { entries[v] = v; });
    team_.sync();
    const auto family = [&](int32_t v) {
      const int32_t p = parent_of(v);
      return p < 0 ? static_cast<uint32_t>(vertices()) + 1 : p == v ? 0u : static_cast<uint32_t>(p) + 1;
    };
    const int32_t *const sorted = stable_sort(team_, entries, entries + vertices(), vertices(),
                                              bits_for(int64_t{vertices()} + 2), scratch().counts, family);
    for_each(team_, vertices(), [&](int32_t i) {
      const int32_t v = sorted[i];
      plan().vertex[i] = v;
      scratch().position[v] = i;
    });
    team_.sync();
    for_each(team_, planted_, [&](int32_t i) { plan().parent[i] = scratch().position[parent_of(plan().vertex[i])]; });
    team_.sync();
  }

  // The first child of every place and, for now, one past the last in `num_children`. Sets out on the way up.
  __device__ void find_children() {
    for_each(team_, vertices(), [&](int32_t i) {
      if (i >= planted_) {
        plan().parent[i] = i;
        return;
      }
      const int32_t above = plan().parent[i];
      links_[i] = make_link(above, above != i);
      scratch().size[i] = 1;
      scratch().arrivals[i] = scratch().arrivals[vertices() + i] = 0;
      if (i < roots_) return;
      if (i == roots_ || plan().parent[i - 1] != above) plan().first_child[above] = i;
      if (i + 1 == planted_ || plan().parent[i + 1] != above) plan().num_children[above] = i + 1;
    });
    team_.sync();
  }

  // Depths, in the links, and descendants. In every round a link reaches twice as far up as before, and each place has
  // counted the descendants less far below than that: it tells them to the place that lies exactly so far above.
  __device__ void climb() {
    int32_t *arrived = scratch().arrivals, *arriving = arrived + vertices();
    bool climbing = true;
    for (uint32_t reach = 1; climbing; reach *= 2) {
      bool reaches = false;
      for_each(team_, planted_, [&](int32_t i) {
        const Link link = links_[i], beyond = links_[next(link)];
        const int32_t below = scratch().size[i] + arrived[i];
        scratch().size[i] = below;
        arrived[i] = 0;
        if (distance(link) == reach) {
          atomicAdd(&arriving[next(link)], below);
          reaches = true;
        }
        more_links_[i] = make_link(next(beyond), distance(link) + distance(beyond));
      });
      climbing = team_.any(reaches);
      swap(links_, more_links_);
      swap(arrived, arriving);
    }
  }

  // The depth of the deepest place.
  __device__ int32_t measure_depth() {
    int32_t deepest = 0;
    for_each(team_, planted_, [&](int32_t i) {
      deepest = max(deepest, static_cast<int32_t>(distance(links_[i])));
      plan().num_children[i] -= plan().first_child[i];
      scratch().heavy[i] = 0;
    });
    if (deepest > atomic_load(scratch().deepest)) atomicMax(scratch().deepest, deepest);
    team_.sync();
    return *scratch().deepest;
  }

  // Every place a path of its own; its layer, in the links, is its depth.
  __device__ void take_places_for_paths() {
    for_each(team_, planted_, [&](int32_t i) {
      scratch().head[i] = i;
      scratch().offset[i] = 0;
      scratch().path_start[i] = 1;
    });
    team_.sync();
  }

  // A path goes on to the child with the most descendants, the first of them if there are several. A child off the path
  // has at most half of its parent's descendants, so there are no more layers than bits in the number of vertices.
  __device__ void find_heavy_paths() {
    for_each(team_, planted_, [&](int32_t i) {
      if (i < roots_) return;
      unsigned long long *const heaviest = &scratch().heavy[plan().parent[i]];
      const auto size = static_cast<unsigned long long>(scratch().size[i]);
      const unsigned long long mine = size << 32 | ~static_cast<uint32_t>(i);
      if (atomic_load(heaviest) < mine) atomicMax(heaviest, mine);
    });
    team_.sync();
    for_each(team_, planted_, [&](int32_t i) {
      const int32_t above = plan().parent[i];
      const bool goes_on = above != i && ~static_cast<uint32_t>(scratch().heavy[above]) == static_cast<uint32_t>(i);
      links_[i] = make_link(goes_on ? above : i, goes_on);
    });
    team_.sync();
    rank_links();

    // Where every place is on its path, how long the paths are, and links that climb one layer each.
    for_each(team_, planted_, [&](int32_t i) {
      const auto head = static_cast<int32_t>(next(links_[i])), offset = static_cast<int32_t>(distance(links_[i]));
      const int32_t above = plan().parent[head];
      scratch().head[i] = head;
      scratch().offset[i] = offset;
      if (plan().num_children[i] == 0) scratch().path_start[head] = offset + 1;
      more_links_[i] = make_link(above, above != head);
    });
    team_.sync();
    swap(links_, more_links_);
    rank_links();
  }

  // Writes the paths down by their layers, which are in the links and take so many bits.
  __device__ void lay_out(int32_t depth, int layer_bits) {
    const auto layer_of = [&](int32_t i) { return distance(links_[i]); };
    auto *const heads = reinterpret_cast<int32_t *>(more_links_);
    const auto num_paths = static_cast<int32_t>(exclusive_sums(
        team_, planted_, [&](int32_t i) { return scratch().head[i] == i; },
        [&](int32_t i, int64_t path) {
          if (scratch().head[i] == i) heads[path] = i;
        }));
    const int32_t *const sorted =
        stable_sort(team_, heads, heads + vertices(), num_paths, layer_bits, scratch().counts, layer_of);
    exclusive_sums(
        team_, num_paths, [&](int32_t path) { return scratch().path_start[sorted[path]]; },
        [&](int32_t path, int64_t start) {
          const int32_t head = sorted[path];
          scratch().path_start[head] = plan().path_start[path] = static_cast<int32_t>(start);
          if (path == 0 || layer_of(sorted[path - 1]) != layer_of(head))
            plan().layer_start[layer_of(head)] = path;
        });
    for_each(team_, planted_, [&](int32_t i) {
      plan().sequence[scratch().path_start[scratch().head[i]] + scratch().offset[i]] = i;
    });
    if (team_.rank() != 0) return;
    const int32_t num_layers = num_paths > 0 ? static_cast<int32_t>(layer_of(sorted[num_paths - 1]) + 1) : 0;
    plan().path_start[num_paths] = planted_;
    plan().layer_start[num_layers] = num_paths;
    *plan().summary = {1, roots_, planted_, num_paths, num_layers, depth};
  }

  __device__ void rank_links() {
    Link *const ranked = rank_lists(team_, links_, more_links_, planted_);
    if (ranked != links_) swap(links_, more_links_);
  }

  __device__ static __forceinline__ uint32_t next(Link link) { return static_cast<uint32_t>(link >> 32); }
  __device__ static __forceinline__ uint32_t distance(Link link) { return static_cast<uint32_t>(link); }
  template <class T>
  __device__ static __forceinline__ void swap(T &a, T &b) {
    const T kept = a;
    a = b;
    b = kept;
  }

  Team &team_;
  const PlanViews &views_;
  const Rows &parents_, &orders_;
  int64_t item_;
  char *memory_;
  Link *links_, *more_links_;
  Failure *failure_;
  int32_t planted_ = 0, roots_ = 0;
  bool canonical_ = false;
};

// No barrier stands between two trees: what one writes before its first barrier, nobody but the same thread still reads
// for the tree before.

// A block for each tree at a time. Blocks stay, and keep their scratch memory: shared memory if `scratch` is null.
__global__ void __launch_bounds__(most_threads, 1) plan_by_blocks(PlanViews views, Rows parents, Rows orders,
                                                                  ScanStrategy strategy, char *scratch,
                                                                  Failure *failure) {
  SHARED_DYNAMIC(char, shared);
  BlockTeam team;
  char *const own = scratch ? scratch + blockIdx.x * Scratch::bytes(views.vertices) : shared;
  for (int64_t tree = blockIdx.x; tree < views.trees; tree += gridDim.x)
    Planner<BlockTeam>(team, views, parents, orders, tree, own, failure).make(strategy);
}

// One tree after the other, by all blocks together.
__global__ void __launch_bounds__(most_threads, 1) plan_by_grid(PlanViews views, Rows parents, Rows orders,
                                                                ScanStrategy strategy, char *scratch,
                                                                GridMemory *memory, Failure *failure) {
  GridTeam team(memory);
  for (int64_t tree = 0; tree < views.trees; ++tree)
    Planner<GridTeam>(team, views, parents, orders, tree, scratch, failure).make(strategy);
}

}  // namespace

Plans::Plans(Carver &carver, const treescan_tensor &parent, const treescan_tensor &order) {
  const int64_t trees = std::max(parent.sizes[0], order.sizes[0]), vertices = parent.sizes[1];
  views_.trees = trees;
  views_.vertices = vertices;
  views_.summaries = carver.take<PlanSummary>(trees);
  views_.arrays = carver.take<int32_t>(times(trees, PlanViews::array_elements(vertices)));
  if (trees == 0 || vertices == 0) return;
  const int64_t bytes = Scratch::bytes(vertices);
  threads_ = static_cast<int>(std::min<int64_t>((vertices + 31) / 32 * 32, most_threads));
  if (grid_pays(trees, vertices)) {
    blocks_ = std::min({resident_blocks(plan_by_grid, threads_, 0), GridMemory::most_blocks,
                        grid_size((vertices + threads_ - 1) / threads_)});
    grid_memory_ = carver.take<GridMemory>(1);
    scratch_ = carver.take<char>(bytes);
  } else {
    if (bytes <= most_dynamic_shared()) shared_bytes_ = static_cast<size_t>(bytes);
    blocks_ = static_cast<unsigned>(std::min<int64_t>(trees, resident_blocks(plan_by_blocks, threads_, shared_bytes_)));
    scratch_ = shared_bytes_ ? nullptr : carver.take<char>(times(blocks_, bytes));
  }
}

void Plans::make(const treescan_tensor &parent, const treescan_tensor &order, Failure *failure, cudaStream_t stream) {
  if (views_.trees == 0 || views_.vertices == 0) return;
  const Rows parents(parent), orders(order);
  if (grid_memory_) {
    check(cudaMemsetAsync(grid_memory_, 0, sizeof(GridMemory), stream), "plan");
    check(LAUNCH_COOPERATIVE((plan_by_grid), blocks_, threads_, 0, stream, views_, parents, orders, scan_strategy(),
                             scratch_, grid_memory_, failure),
          "plan");
  } else {
    check(LAUNCH((plan_by_blocks), blocks_, threads_, shared_bytes_, stream, views_, parents, orders, scan_strategy(),
                 scratch_, failure),
          "plan");
  }
}

}  // namespace treescan::cuda
