// The per-vertex formulas of the scans and of their adjoints, written once for every traversal and device.
//
// T is a number or a vector of numbers with one lane per channel.
#pragma once

#include "formula.h"

namespace treescan {

// up: u[v] = x[v] + children, where children sums w[c] u[c] from the last sibling to the first, starting at 0.
template <class T>
TREESCAN_FORMULA T up(T x, T children) {
  return x + children;
}

// What a vertex adds to its parent's `children`.
template <class T>
TREESCAN_FORMULA T to_parent(T w, T u) {
  return w * u;
}

// down: d[v] = x[v] + w[v] d[p]
template <class T>
TREESCAN_FORMULA T down(T x, T w, T parent_d) {
  return x + w * parent_d;
}

// What a vertex sees beyond its own subtree, through its parent: y[p] - w u.
template <class T>
TREESCAN_FORMULA T beyond(T w, T u, T parent_y) {
  return parent_y - w * u;
}

// both: y[v] = u[v] + w[v] (y[p] - w[v] u[v])
template <class T>
TREESCAN_FORMULA T both(T u, T w, T beyond_v) {
  return u + w * beyond_v;
}

// The gradients of the weight on the edge to the parent.
//   up    u[v] D[p]        with D = down(g)
//   down  d[p] U[v]        with U = up(g)
//   both  U (y[p] - w u) + u (Y[p] - w U)    with U, Y the passes of g
template <class T>
TREESCAN_FORMULA T weight_gradient(T below, T above) {
  return below * above;
}

template <class T>
TREESCAN_FORMULA T weight_gradient_both(T u, T beyond_y, T gradient_u, T gradient_beyond) {
  return gradient_u * beyond_y + u * gradient_beyond;
}

}  // namespace treescan
