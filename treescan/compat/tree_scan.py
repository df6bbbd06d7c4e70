"""The vision extension: trees of images, and scans over all pairs of vertices.

`sorted_index`, `sorted_parent` and `sorted_child` are what `bfs_forward` returns. Features and their gradients are by
vertex; edge weights, their gradients and `aggr_up` by position in `sorted_index`. The weight and the coefficient at position
0 have no effect. Results have feature's dtype; half types are computed in float32.
"""

from torch import Tensor

from .. import ops
from ._sorted import (bfs_forward, check_sorted, computed, mst_forward, parents_of, rst_forward, to_positions, to_vertices,
                      without_root)

__all__ = ["bfs_forward", "mst_forward", "rst_forward", "tree_scan_refine_backward_edge_weight",
           "tree_scan_refine_backward_feature", "tree_scan_refine_forward"]


def _prepare(feature: Tensor, edge_weight: Tensor, sorted_index: Tensor, sorted_parent: Tensor,
             edge_coef: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_sorted(feature, edge_weight, sorted_index, sorted_parent)
    if edge_coef.shape != sorted_index.shape:
        raise ValueError(f"edge_coef must have shape {tuple(sorted_index.shape)}, got {tuple(edge_coef.shape)}")
    edge_weight = computed(edge_weight)
    coefficient = without_root(edge_coef.unsqueeze(1).to(edge_weight.dtype))
    weights = to_vertices(without_root(edge_weight) * coefficient, sorted_index)
    return computed(feature), weights, coefficient, *parents_of(sorted_index, sorted_parent)


def tree_scan_refine_forward(feature: Tensor, edge_weight: Tensor, sorted_index: Tensor, sorted_parent: Tensor,
                             sorted_child: Tensor, edge_coef: Tensor) -> tuple[Tensor, Tensor]:
    """out[i] = Σ_j (Π_{e on the path i..j} k_e w_e) x[j], and the same over each subtree alone.

    Arguments:
        feature: x, (B, C, V).
        edge_weight: w, (B, C, V), by position.
        sorted_index, sorted_parent: (B, V); sorted_child is not looked at.
        edge_coef: k, (B, V), by position.

    Returns `out` (B, C, V) by vertex and `aggr_up` (B, C, V) by position.
    """
    x, weights, _, parent, order = _prepare(feature, edge_weight, sorted_index, sorted_parent, edge_coef)
    out, aggr_up = (ops.scan(x, weights, parent, order, direction).to(feature.dtype) for direction in ("both", "up"))
    return out, to_positions(aggr_up, sorted_index)


def tree_scan_refine_backward_feature(feature: Tensor, edge_weight: Tensor, sorted_index: Tensor, sorted_parent: Tensor,
                                      sorted_child: Tensor, out: Tensor, aggr_up: Tensor, grad_out: Tensor,
                                      edge_coef: Tensor) -> Tensor:
    """The gradient of feature, (B, C, V) by vertex, from that of `out`. out and aggr_up are not looked at."""
    _, weights, _, parent, order = _prepare(feature, edge_weight, sorted_index, sorted_parent, edge_coef)
    return ops.scan(computed(grad_out), weights, parent, order, "both").to(feature.dtype)


def tree_scan_refine_backward_edge_weight(feature: Tensor, edge_weight: Tensor, sorted_index: Tensor,
                                          sorted_parent: Tensor, sorted_child: Tensor, out: Tensor, aggr_up: Tensor,
                                          grad_out: Tensor, edge_coef: Tensor) -> Tensor:
    """The gradient of edge_weight, (B, C, V) by position, from that of `out`. out and aggr_up are not looked at."""
    x, weights, coefficient, parent, order = _prepare(feature, edge_weight, sorted_index, sorted_parent, edge_coef)
    _, gradient = ops.scan_backward(computed(grad_out), x, weights, parent, order, "both")
    return (to_positions(gradient, sorted_index) * coefficient).to(edge_weight.dtype)
