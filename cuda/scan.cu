#include "scan.h"

#include "call.h"

namespace treescan::cuda {

void scan(int32_t, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

void scan_backward(int32_t, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, const treescan_tensor &, treescan_workspace *, void *) { fail(TREESCAN_INTERNAL, "not written yet"); }

}  // namespace treescan::cuda
