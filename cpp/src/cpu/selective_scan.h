// The selective scan, whose weights and inputs are made of its arguments on the way, and its adjoint.
#pragma once

#include "treescan/treescan.h"

namespace treescan {

// `last_state` may be NULL.
void selective_scan(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                    const treescan_selective_inputs &inputs, const treescan_tensor &y, const treescan_tensor *last_state,
                    treescan_workspace *workspace, void *stream);

// `grad_last_state` may be NULL.
void selective_scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                             const treescan_selective_inputs &inputs, const treescan_tensor &grad_y,
                             const treescan_tensor *grad_last_state, const treescan_selective_gradients &gradients,
                             treescan_workspace *workspace, void *stream);

}  // namespace treescan
