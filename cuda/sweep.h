// Both ways along a forest, for the threads of a block: each walks down or up whole paths, with its lanes of every row.
#pragma once

#include "device.h"
#include "plan.h"
#include "recurrence.h"

namespace treescan::cuda {

// Which paths of a layer a thread takes: the `first` and every `step`th from there. Threads without lanes take none.
struct Turns {
  uint32_t first, step;
};

constexpr uint32_t no_turn = INT32_MAX;

// So many places of a path are fetched at a time, by loads that don't depend on each other, and then worked on one by
// one.
constexpr int32_t places_ahead = 2;

// Visits every place in trees after its children. A place has Sums sums, each `value(s, vertex)` plus what its children
// send, and passes them to keep(vertex, is_top, sums). What a path's top sends to its parent on another path is made of
// `states[s]`, where keep has to leave the sums of tops. Each layer begins with a barrier.
template <int Sums, class Weights, class State, class Value, class Keep>
__device__ __forceinline__ void sweep_up(const Plan &plan, Turns turns, const Weights &weights,
                                         const State (&states)[Sums], Value value, Keep keep) {
  using Vector = typename State::Vector;
  for (int32_t layer = plan.summary->num_layers - 1; layer >= 0; --layer) {
    __syncthreads();
    const auto first_path = static_cast<uint32_t>(plan.layer_start[layer]),
               paths_end = static_cast<uint32_t>(plan.layer_start[layer + 1]);
    for (uint32_t path = first_path + turns.first; path < paths_end; path += turns.step) {
      const int32_t top = plan.path_start[path];
      int32_t below = -1;  // the place that was visited before, a child of the next
      Vector sent[Sums] = {};  // by that
      for (int32_t last = plan.path_start[path + 1] - 1; last >= top; last -= places_ahead) {
        int32_t place[places_ahead], vertex[places_ahead];
        Vector values[places_ahead][Sums], w[places_ahead];
#pragma unroll
        for (int j = 0; j < places_ahead; ++j)
          if (last - j >= top) place[j] = plan.sequence[last - j];
#pragma unroll
        for (int j = 0; j < places_ahead; ++j)
          if (last - j >= top) vertex[j] = plan.vertex[place[j]];
#pragma unroll
        for (int j = 0; j < places_ahead; ++j) {
          if (last - j < top) continue;
          for (int s = 0; s < Sums; ++s) values[j][s] = value(s, vertex[j]);
          if (last - j > top) w[j] = weights.load(vertex[j]);
        }
#pragma unroll
        for (int j = 0; j < places_ahead; ++j) {
          if (last - j < top) continue;
          const int32_t first_child = plan.first_child[place[j]];
          Vector sums[Sums] = {};
#pragma unroll 1  // more at a time takes more registers than there are
          for (int32_t child = first_child + plan.num_children[place[j]] - 1; child >= first_child; --child) {
            if (child == below) {
              for (int s = 0; s < Sums; ++s) sums[s] = sums[s] + sent[s];
            } else {
              const int32_t its_vertex = plan.vertex[child];
              const Vector its_weight = weights.load(its_vertex);
              for (int s = 0; s < Sums; ++s) sums[s] = sums[s] + to_parent(its_weight, states[s].load(its_vertex));
            }
          }
          for (int s = 0; s < Sums; ++s) sums[s] = up(values[j][s], sums[s]);
          keep(vertex[j], last - j == top, sums);
          if (last - j > top)
            for (int s = 0; s < Sums; ++s) sent[s] = to_parent(w[j], sums[s]);
          below = place[j];
        }
      }
    }
  }
}

// Visits every place in trees before its children, with `value(i, vertex)` for i < Values: start(vertex, values,
// passed) sets what a root passes on; visit(vertex, w, values, passed) turns what its parent passes on into a
// vertex's own. A place whose children aren't all on its path leaves that in `states` by hand_on(vertex, passed).
// Each layer begins with a barrier.
template <int Passed, int Values, class Weights, class State, class Value, class Start, class Visit, class HandOn>
__device__ __forceinline__ void sweep_down(const Plan &plan, Turns turns, const Weights &weights,
                                           const State (&states)[Passed], Value value, Start start, Visit visit,
                                           HandOn hand_on) {
  using Vector = typename State::Vector;
  const int32_t num_roots = plan.summary->num_roots, num_layers = plan.summary->num_layers;
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    __syncthreads();
    const auto first_path = static_cast<uint32_t>(plan.layer_start[layer]),
               paths_end = static_cast<uint32_t>(plan.layer_start[layer + 1]);
    for (uint32_t path = first_path + turns.first; path < paths_end; path += turns.step) {
      const int32_t top = plan.path_start[path], end = plan.path_start[path + 1];
      Vector passed[Passed] = {};
      for (int32_t next = top; next < end; next += places_ahead) {
        int32_t place[places_ahead], vertex[places_ahead];
        Vector values[places_ahead][Values], w[places_ahead];
#pragma unroll
        for (int j = 0; j < places_ahead; ++j)
          if (next + j < end) place[j] = plan.sequence[next + j];
#pragma unroll
        for (int j = 0; j < places_ahead; ++j)
          if (next + j < end) vertex[j] = plan.vertex[place[j]];
#pragma unroll
        for (int j = 0; j < places_ahead; ++j) {
          if (next + j >= end) continue;
          for (int i = 0; i < Values; ++i) values[j][i] = value(i, vertex[j]);
          if (place[j] >= num_roots) w[j] = weights.load(vertex[j]);
        }
#pragma unroll
        for (int j = 0; j < places_ahead; ++j) {
          if (next + j >= end) continue;
          if (place[j] < num_roots) {
            start(vertex[j], values[j], passed);
          } else {
            if (next + j == top) {
              const int32_t above = plan.vertex[plan.parent[place[j]]];
              for (int s = 0; s < Passed; ++s) passed[s] = states[s].load(above);
            }
            visit(vertex[j], w[j], values[j], passed);
          }
          if (plan.num_children[place[j]] > (next + j + 1 < end)) hand_on(vertex[j], passed);
        }
      }
    }
  }
}

}  // namespace treescan::cuda
