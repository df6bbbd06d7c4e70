#include "selective_scan.h"

#include "call.h"

namespace treescan::cuda {

void selective_scan(int32_t, const treescan_tensor &, const treescan_tensor &, const treescan_selective_inputs &, const treescan_tensor &, const treescan_tensor *, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

void selective_scan_backward(int32_t, const treescan_tensor &, const treescan_tensor &, const treescan_selective_inputs &, const treescan_tensor &, const treescan_tensor *, const treescan_selective_gradients &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

}  // namespace treescan::cuda
