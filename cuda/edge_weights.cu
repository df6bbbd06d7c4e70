#include "edge_weights.h"

#include "call.h"

namespace treescan::cuda {

void edge_weights(const Graph &, const treescan_tensor &, int32_t, bool, const treescan_tensor &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

}  // namespace treescan::cuda
