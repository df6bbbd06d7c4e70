// Scans along trees and their adjoints.
#pragma once

#include "treescan/treescan.h"

namespace treescan {

void scan(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order, const treescan_tensor &x,
          const treescan_tensor &weights, const treescan_tensor &y, treescan_workspace *workspace, void *stream);

void scan_backward(int32_t direction, const treescan_tensor &parent, const treescan_tensor &order,
                   const treescan_tensor &x, const treescan_tensor &weights, const treescan_tensor &grad_y,
                   const treescan_tensor &grad_x, const treescan_tensor &grad_weights, treescan_workspace *workspace, void *stream);

}  // namespace treescan
