// How a selective scan cuts channels into tiles. Sums over channels are made tile by tile, so every device cuts alike.
#pragma once

#include <cstdint>

#include "formula.h"
#include "treescan/treescan.h"

namespace treescan {

// Tiles hold rows of so many bytes: channels side by side, in the type that is computed in.
constexpr int64_t selective_row_bytes = 64;

// Everything that follows from shapes alone.
//
// Channels of one group are cut into tiles, and the tiles into strands. Gradients of B and C, which all channels of a
// group share, are added up tile by tile within a strand, and then strand by strand.
struct SelectiveTiling {
  int64_t batch, channels, vertices, states, groups;
  int64_t lanes, group_channels, tiles, strands;  // tiles and strands of a group

  explicit SelectiveTiling(const treescan_selective_inputs &inputs);

  TREESCAN_MEMBER int64_t all_tiles() const { return groups * tiles; }
  // A strand's tiles end where those of the next begin.
  TREESCAN_MEMBER int64_t first_tile(int64_t strand) const { return tiles * strand / strands; }
  // By the number among all tiles.
  TREESCAN_MEMBER int64_t first_channel(int64_t tile) const {
    return tile / tiles * group_channels + tile % tiles * lanes;
  }
  TREESCAN_MEMBER int64_t channels_of(int64_t tile) const {
    const int64_t rest = group_channels - tile % tiles * lanes;
    return rest < lanes ? rest : lanes;
  }
};

}  // namespace treescan
