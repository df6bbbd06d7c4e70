#include "selective_tiling.h"

#include <algorithm>

#include "validate.h"
#include "workspace.h"

namespace treescan {

namespace {

constexpr int64_t wanted_strands = 16;  // of all items and groups: each has sums of its own

int64_t num_groups(const treescan_selective_inputs &inputs) {
  for (const treescan_tensor *const factor : {inputs.B, inputs.C})
    if (factor->ndim == 4) return factor->sizes[1];
  return 1;
}

}  // namespace

SelectiveTiling::SelectiveTiling(const treescan_selective_inputs &inputs)
    : batch(inputs.u->sizes[0]),
      channels(inputs.u->sizes[1]),
      vertices(inputs.u->sizes[2]),
      states(inputs.A->sizes[1]),
      groups(num_groups(inputs)),
      lanes(selective_row_bytes / dtype_size(inputs.A->dtype)),
      group_channels(channels / groups),
      tiles(group_channels / lanes + (group_channels % lanes > 0)),  // there may be any number of channels of no item
      strands(std::max<int64_t>(1, std::min(tiles, wanted_strands / std::max<int64_t>(1, times(batch, groups))))) {}

}  // namespace treescan
