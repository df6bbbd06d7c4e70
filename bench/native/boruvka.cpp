#include "boruvka.h"

#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

namespace {

class Sets {
 public:
  explicit Sets(int64_t count) : above_(static_cast<size_t>(count)), size_(static_cast<size_t>(count), 1) {
    std::iota(above_.begin(), above_.end(), 0);
  }

  int32_t find(int32_t vertex) {
    while (above(vertex) != vertex) {
      above(vertex) = above(above(vertex));
      vertex = above(vertex);
    }
    return vertex;
  }

  void join(int32_t a, int32_t b) {
    if (size(a) < size(b)) std::swap(a, b);
    above(b) = a;
    size(a) += size(b);
  }

 private:
  int32_t &above(int32_t vertex) { return above_[static_cast<size_t>(vertex)]; }
  int32_t &size(int32_t vertex) { return size_[static_cast<size_t>(vertex)]; }

  std::vector<int32_t> above_, size_;
};

}  // namespace

int64_t textbook_boruvka(const int32_t *edges, const float *cost, int64_t num_edges, int64_t num_vertices,
                         int32_t *chosen) {
  Sets sets(num_vertices);
  std::vector<int32_t> cheapest(static_cast<size_t>(num_vertices));
  int64_t found = 0;
  for (bool joined = true; joined && found < num_vertices - 1;) {
    joined = false;
    cheapest.assign(cheapest.size(), -1);
    for (int32_t edge = 0; edge < num_edges; ++edge) {
      const int32_t a = sets.find(edges[2 * edge]), b = sets.find(edges[2 * edge + 1]);
      if (a == b) continue;
      // Edges come by ascending index, so that the first of equals stays.
      for (const int32_t set : {a, b}) {
        int32_t &best = cheapest[static_cast<size_t>(set)];
        if (best < 0 || cost[edge] < cost[best]) best = edge;
      }
    }
    for (int32_t set = 0; set < num_vertices; ++set) {
      const int32_t edge = cheapest[static_cast<size_t>(set)];
      if (edge < 0) continue;
      const int32_t a = sets.find(edges[2 * edge]), b = sets.find(edges[2 * edge + 1]);
      if (a == b) continue;
      sets.join(a, b);
      chosen[found++] = edge;
      joined = true;
    }
  }
  return found;
}
