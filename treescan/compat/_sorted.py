"""The originals' conventions: trees as lists of edges, and arrays by position in the sorted order."""

from typing import SupportsIndex

import torch
from torch import Tensor

from .. import ops
from .._arguments import integer
from .._indices import Indices, indices
from ..functional import _check_floats, minimum_spanning_tree, random_spanning_tree
from ..graph import Graph, edge_graph
from ..ops_selective import computed_dtype
from ..tree import Tree


def batch_of_edges(name: str, edges: Indices) -> Tensor:
    """Trees as (B, V-1, 2) int32 edges."""
    values = indices(name, edges)
    if values.ndim != 3 or values.shape[2] != 2:
        raise ValueError(f"{name} must have shape (B, V-1, 2), got {tuple(values.shape)}")
    return values


def _costs_of(edge_index: Indices, edge_weight: Tensor, vertex_count: SupportsIndex) -> tuple[Graph, Tensor]:
    """The graph of these edges, and their costs in float32, as the originals compare them."""
    _check_floats("edge_weight", edge_weight)
    return edge_graph(edge_index, integer("vertex_count", vertex_count, 1)), narrowed(edge_weight.detach())


def narrowed(costs: Tensor) -> Tensor:
    """Costs as float32, with their order also where float32's numbers are denormal and torch's mode has a conversion flush them:
    those are put together from their bits, which count steps of 2^-149."""
    if costs.dtype != torch.float64:
        return costs.float()
    size = costs.abs()
    steps = (size * 2.0**149).round().clamp(max=2**23).to(torch.int32)
    denormal = torch.where(costs.signbit(), steps - 2**31, steps).view(torch.float32)
    return torch.where(size < 2.0**-126, denormal, costs.float())


def _edges_of(tree: Tree, edge_index: Indices) -> Tensor:
    assert tree.edge is not None  # the tree is one of a graph
    # By ascending index in the list, as the edges stand there.
    edge = ops.as_index(tree.edge.sort(1).values[:, 1:])
    listed = indices("edge_index", edge_index).expand(edge.shape[0], -1, -1)
    return listed.gather(1, edge.unsqueeze(-1).expand(-1, -1, 2))


def mst_forward(edge_index: Indices, edge_weight: Tensor, vertex_count: SupportsIndex) -> Tensor:
    """The minimum spanning tree's edges.

    Arguments:
        edge_index: (B, E, 2) integers, expanded views welcome, or (E, 2) for all items.
        edge_weight: (B, E), narrowed to float32; ties go to the edge listed first.
        vertex_count: V.

    Returns (B, V-1, 2) int32: edges as `edge_index` has them, in its order. (The original's order was that in which its
    algorithm happened to find them.) Raises ValueError or TypeError naming what doesn't fit.

    >>> mst_forward(torch.tensor([[[0, 1], [1, 2], [0, 2]]]), torch.tensor([[3.0, 1.0, 2.0]]), 3).tolist()
    [[[1, 2], [0, 2]]]
    """
    return _edges_of(minimum_spanning_tree(*_costs_of(edge_index, edge_weight, vertex_count)), edge_index)


def rst_forward(edge_index: Indices, edge_weight: Tensor, vertex_count: SupportsIndex) -> Tensor:
    """A random spanning tree's edges; arguments and result as for `mst_forward`.

    Cheap edges are likelier, see `treescan.random_spanning_tree`. The seed is drawn from torch's default generator, so
    `torch.manual_seed` makes it repeat.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    return _edges_of(random_spanning_tree(*_costs_of(edge_index, edge_weight, vertex_count), seed=seed), edge_index)


def bfs_forward(edges: Indices, max_adj: SupportsIndex) -> tuple[Tensor, Tensor, Tensor]:
    """Breadth-first order of trees from vertex 0, neighbours in the order in which their edges are listed.

    Arguments:
        edges: (B, V-1, 2) integers.
        max_adj: the width of the table of children, at least the largest degree. On a GPU children that are too many are left
            out, since nobody waits there to say so.

    Returns int32 `sorted_index` (B, V), the vertex at each position; `sorted_parent` (B, V), the position of its
    parent; `sorted_child` (B, V, max_adj), the positions of its children, padded with 0.

    >>> [part.tolist() for part in bfs_forward(torch.tensor([[[0, 2], [0, 1]]]), 2)]
    [[[0, 2, 1]], [[0, 0, 0]], [[[1, 2], [0, 0], [0, 0]]]]
    """
    listed, most = batch_of_edges("edges", edges), integer("max_adj", max_adj, 0)
    parent, order, _, _ = ops.tree_from_edges(listed, listed.new_zeros(1), True)
    batch, vertices = order.shape
    place = torch.arange(vertices, device=order.device).expand(batch, -1)
    position = torch.empty_like(order).scatter_(1, ops.as_index(order), place.to(torch.int32))
    sorted_parent = position.gather(1, ops.as_index(parent.gather(1, ops.as_index(order))))
    child, above = place[:, 1:], sorted_parent[:, 1:].long()
    degree = torch.zeros_like(place).scatter_add_(1, above, torch.ones_like(child))
    degree[:, 1:] += 1
    if order.is_cpu and degree.numel() and degree.max() > most:
        raise ValueError(f"max_adj must be at least the largest degree, {degree.max().item()}, got {most}")
    # Siblings stand together: a child's place among them is its distance from the first. One column more takes those that
    # are too many.
    first = torch.full_like(place, vertices).scatter_reduce_(1, above, child, "amin")
    sibling = (child - first.gather(1, above)).clamp(max=most)
    sorted_child = order.new_zeros(batch, vertices * (most + 1))
    sorted_child.scatter_(1, above * (most + 1) + sibling, child.to(torch.int32))
    return order, sorted_parent, sorted_child.view(batch, vertices, most + 1)[:, :, :most].contiguous()


def checked_order(sorted_index: Indices, sorted_parent: Indices, edge_weight: Tensor,
                  **features: Tensor) -> tuple[Tensor, Tensor]:
    """sorted_index and sorted_parent as int32 tensors, for features and edge weights of one shape (B, C, V). The order itself
    is checked by the scan; values are looked at on the CPU."""
    (first, like), *_ = features.items()
    for name, values in (*features.items(), ("edge_weight", edge_weight)):
        _check_floats(name, values)
        if values.ndim != 3:
            raise ValueError(f"{name} must have shape (B, C, V), got {tuple(values.shape)}")
        if values.shape != like.shape:
            raise ValueError(f"{name} must have {first}'s shape {tuple(like.shape)}, got {tuple(values.shape)}")
    shape = (like.shape[0], like.shape[2])
    checked = indices("sorted_index", sorted_index).to(like.device), indices("sorted_parent", sorted_parent).to(like.device)
    for name, values in zip(("sorted_index", "sorted_parent"), checked):
        if tuple(values.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(values.shape)}")
        if values.is_cpu and values.numel() and (values.min() < 0 or values.max() >= shape[1]):
            raise ValueError(f"{name} must hold numbers in [0, {shape[1]}), got {values.min().item()} to {values.max().item()}")
    return checked


def parents_of(sorted_index: Tensor, sorted_parent: Tensor) -> tuple[Tensor, Tensor]:
    """The parent array and the order, both (B, V) int32, of a tree by positions."""
    index = sorted_index.long()
    parent = torch.zeros_like(index).scatter(1, index, index.gather(1, sorted_parent.long()))
    return parent.to(torch.int32), sorted_index.to(torch.int32)


def computed(values: Tensor) -> Tensor:
    """Half types as the float32 that products and sums of them are computed in."""
    return values.to(computed_dtype(values.dtype))


def without_root(values: Tensor) -> Tensor:
    """Values by position with 0 at the root's, which has no edge."""
    return torch.cat((torch.zeros_like(values[..., :1]), values[..., 1:]), -1)


def to_vertices(values: Tensor, sorted_index: Tensor) -> Tensor:
    """(B, C, V) by position to by vertex."""
    index = sorted_index.long().unsqueeze(1).expand_as(values)
    return torch.empty_like(values, memory_format=torch.contiguous_format).scatter_(2, index, values)


def to_positions(values: Tensor, sorted_index: Tensor) -> Tensor:
    """(B, C, V) by vertex to by position."""
    return values.gather(2, sorted_index.long().unsqueeze(1).expand_as(values))
