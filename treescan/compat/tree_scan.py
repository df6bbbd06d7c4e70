"""The vision extension: trees of images, and scans over all pairs of vertices.

`sorted_index`, `sorted_parent` and `sorted_child` are what `bfs_forward` returns. Features and their gradients are by
vertex; edge weights, their gradients and `aggr_up` by position in `sorted_index`. The weight and the coefficient at position
0 have no effect. Results have feature's dtype; half types are computed in float32.
"""

from typing import NamedTuple

from torch import Tensor

from .. import ops
from .._indices import Indices
from ..functional import _check_floats
from ._sorted import (bfs_forward, checked_order, computed, mst_forward, parents_of, rst_forward, to_positions, to_vertices,
                      without_root)

__all__ = ["bfs_forward", "mst_forward", "rst_forward", "tree_scan_refine_backward_edge_weight",
           "tree_scan_refine_backward_feature", "tree_scan_refine_forward"]


class _Prepared(NamedTuple):
    """Arguments as the scans take them, half types in float32; coefficients stay by position, `vertex` says of which vertex."""

    x: Tensor
    weights: Tensor
    coefficient: Tensor
    vertex: Tensor
    parent: Tensor
    order: Tensor


def _prepare(edge_weight: Tensor, sorted_index: Indices, sorted_parent: Indices, edge_coef: Tensor, feature: Tensor,
             **gradients: Tensor) -> _Prepared:
    index, above = checked_order(sorted_index, sorted_parent, edge_weight, feature=feature, **gradients)
    _check_floats("edge_coef", edge_coef)
    if edge_coef.shape != index.shape:
        raise ValueError(f"edge_coef must have shape {tuple(index.shape)}, got {tuple(edge_coef.shape)}")
    edge_weight = computed(edge_weight)
    coefficient = without_root(edge_coef.unsqueeze(1).to(edge_weight.dtype))
    weights = to_vertices(without_root(edge_weight) * coefficient, index)
    return _Prepared(computed(feature), weights, coefficient, index, *parents_of(index, above))


def tree_scan_refine_forward(feature: Tensor, edge_weight: Tensor, sorted_index: Indices, sorted_parent: Indices,
                             sorted_child: Tensor, edge_coef: Tensor) -> tuple[Tensor, Tensor]:
    """out[i] = Σ_j (Π_{e on the path i..j} k_e w_e) x[j], and the same over each subtree alone.

    Arguments:
        feature: x, (B, C, V).
        edge_weight: w, (B, C, V), by position.
        sorted_index, sorted_parent: (B, V); sorted_child is not looked at.
        edge_coef: k, (B, V), by position.

    Returns `out` (B, C, V) by vertex and `aggr_up` (B, C, V) by position.
    """
    x, weights, _, index, parent, order = _prepare(edge_weight, sorted_index, sorted_parent, edge_coef, feature)
    out, aggr_up = (ops.scan(x, weights, parent, order, direction).to(feature.dtype) for direction in ("both", "up"))
    return out, to_positions(aggr_up, index)


def tree_scan_refine_backward_feature(feature: Tensor, edge_weight: Tensor, sorted_index: Indices, sorted_parent: Indices,
                                      sorted_child: Tensor, out: Tensor, aggr_up: Tensor, grad_out: Tensor,
                                      edge_coef: Tensor) -> Tensor:
    """The gradient of feature, (B, C, V) by vertex, from that of `out`. out and aggr_up are not looked at."""
    given = _prepare(edge_weight, sorted_index, sorted_parent, edge_coef, feature, grad_out=grad_out)
    return ops.scan(computed(grad_out), given.weights, given.parent, given.order, "both").to(feature.dtype)


def tree_scan_refine_backward_edge_weight(feature: Tensor, edge_weight: Tensor, sorted_index: Indices,
                                          sorted_parent: Indices, sorted_child: Tensor, out: Tensor, aggr_up: Tensor,
                                          grad_out: Tensor, edge_coef: Tensor) -> Tensor:
    """The gradient of edge_weight, (B, C, V) by position, from that of `out`. out and aggr_up are not looked at."""
    x, weights, coefficient, index, parent, order = _prepare(edge_weight, sorted_index, sorted_parent, edge_coef, feature,
                                                             grad_out=grad_out)
    _, gradient = ops.scan_backward(computed(grad_out), x, weights, parent, order, "both")
    return (to_positions(gradient, index) * coefficient).to(edge_weight.dtype)
