"""The language extension: trees of tokens, and scans from the leaves to the root.

Conventions as in `treescan.compat.tree_scan`, without edge coefficients.
"""

from typing import SupportsIndex

from torch import Tensor

from .. import ops
from .._indices import Indices
from . import _sorted
from ._sorted import checked_order, computed, mst_forward, parents_of, rst_forward, to_positions, to_vertices, without_root

__all__ = ["bfs_forward", "mst_forward", "rst_forward", "tree_scan_refine_backward_feature", "tree_scan_refine_forward"]


def bfs_forward(edges: Indices, max_adj: SupportsIndex) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As the vision extension's, with `sorted_child` once more in the fourth place."""
    sorted_index, sorted_parent, sorted_child = _sorted.bfs_forward(edges, max_adj)
    return sorted_index, sorted_parent, sorted_child, sorted_child


def tree_scan_refine_forward(feature: Tensor, edge_weight: Tensor, sorted_index: Indices, sorted_parent: Indices,
                             sorted_child: Tensor) -> Tensor:
    """out[v] = x[v] + Σ_{c: p(c)=v} w[c] out[c], (B, C, V) by vertex; edge_weight (B, C, V) by position."""
    index, above = checked_order(sorted_index, sorted_parent, edge_weight, feature=feature)
    return ops.scan(feature, to_vertices(edge_weight, index), *parents_of(index, above), "up")


def tree_scan_refine_backward_feature(out: Tensor, edge_weight: Tensor, sorted_index: Indices, sorted_parent: Indices,
                                      sorted_child: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of feature, by vertex, and of edge_weight, by position: G = down(grad_out), out[v] G[parent of v]."""
    index, above = checked_order(sorted_index, sorted_parent, edge_weight, out=out, grad_out=grad_out)
    parent, order = parents_of(index, above)
    gradient = ops.scan(computed(grad_out), to_vertices(computed(edge_weight), index), parent, order, "down")
    edge_gradient = without_root(to_positions(computed(out) * ops.gather_parents(gradient, parent), index))
    return gradient.to(out.dtype), edge_gradient.to(edge_weight.dtype)
