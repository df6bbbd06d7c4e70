"""Edge weights, edge by edge."""

from typing import Protocol

import torch
from torch import Tensor


class AnyGraph(Protocol):
    """What is looked at of a `treescan.Graph`."""

    @property
    def num_vertices(self) -> int: ...
    @property
    def edge_index(self) -> Tensor: ...


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """-a·b / (|a| |b|) over dimension 1, 0 where either is 0, of vectors that are first brought to length 1 or so."""
    return -(_unit(a) * _unit(b)).sum(1)


def _unit(vectors: Tensor) -> Tensor:
    if vectors.shape[1] == 0:
        return vectors
    largest = vectors.detach().abs().amax(1, keepdim=True)
    exponent = torch.where(largest.isfinite(), torch.frexp(largest).exponent, 0).to(vectors.dtype)
    scaled = _times_power_of_two(vectors, -exponent)
    norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(norm == 0, 1, norm)


def _times_power_of_two(values: Tensor, exponent: Tensor) -> Tensor:
    """In four steps, for the power itself may be out of range."""
    quarter = (exponent / 4).trunc()
    for step in (quarter, quarter, quarter, exponent - 3 * quarter):
        values = values * 2**step
    return values


def edge_weights(features: Tensor, graph: AnyGraph, metric: str = "cosine", *, exp: bool = False) -> Tensor:
    """As `treescan.edge_weights`, but in the features' own precision (float32 for half types) and differentiable.

    An edge whose cost isn't finite, as where a depth map has no value at one end, is a constant to autograd: the gradient of
    an edge that nobody uses, 0, would become NaN at both its ends.
    """
    values = features.flatten(2)
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    edges = graph.edge_index.long()
    if edges.ndim == 2:
        edges = edges.expand(values.shape[0], -1, -1)
    a, b = [values.gather(2, edges[:, None, :, k].expand(-1, values.shape[1], -1)) for k in (0, 1)]
    cost = _cost(a.detach(), b.detach(), metric, exp)
    finite = cost.isfinite()
    a, b = (torch.where(finite[:, None], end, torch.ones_like(end)) for end in (a, b))
    return torch.where(finite, _cost(a, b, metric, exp), cost)


def _cost(a: Tensor, b: Tensor, metric: str, exp: bool) -> Tensor:
    if metric == "cosine":
        cost = _cosine(a, b)
    elif metric == "l2":
        cost = (a - b).square().sum(1)
    elif metric == "l1":
        cost = (a - b).abs().sum(1)
    else:
        raise ValueError(f"metric must be 'cosine', 'l2' or 'l1', got {metric!r}")
    return cost.exp() if exp else cost
