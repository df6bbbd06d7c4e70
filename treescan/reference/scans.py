"""Scans, vertex by vertex, and straight from their definition."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .graphs import AnyGraph, edge_weights
from .trees import minimum_spanning_tree


@runtime_checkable
class AnyTree(Protocol):
    """What is looked at of a `treescan.Tree`, or of one made here."""

    @property
    def parent(self) -> Tensor: ...
    @property
    def order(self) -> Tensor: ...
    @property
    def depth(self) -> Tensor: ...


def outside_as_zero(values: Tensor, tree: AnyTree) -> Tensor:
    """Values (..., V) with 0 at vertices in no tree, whose derivatives nobody then multiplies by."""
    outside = tree.parent < 0
    return values.masked_fill(outside.reshape(-1, *(1,) * (values.ndim - 2), outside.shape[1]), 0)


def scan(x: Tensor, weights: Tensor, tree: AnyTree, direction: str = "both") -> Tensor:
    """Scans x (B, C, V) along a tree: the recurrences of design notes and docstrings, one vertex at a time."""
    items = []
    for item in range(x.shape[0]):
        row = item if tree.parent.shape[0] > 1 else 0
        parent, order = tree.parent[row].tolist(), tree.order[row].tolist()
        values, w = list(x[item].unbind(-1)), list(weights[item].unbind(-1))
        below = [v for v in order if parent[v] not in (v, -1)]
        values = [torch.zeros_like(value) if parent[v] < 0 else value for v, value in enumerate(values)]
        if direction in ("up", "both"):
            for v in reversed(below):
                values[parent[v]] = values[parent[v]] + w[v] * values[v]
        if direction == "down":
            for v in below:
                values[v] = values[v] + w[v] * values[parent[v]]
        if direction == "both":
            for v in below:
                values[v] = values[v] + w[v] * (values[parent[v]] - w[v] * values[v])
        items.append(torch.stack(values, -1))
    return torch.stack(items) if items else x.clone()


def scan_by_paths(x: Tensor, weights: Tensor, tree: AnyTree, direction: str = "both") -> Tensor:
    """The same from the definition, in O(V²): every vertex gathers from every other along the path between them."""
    reach = torch.zeros(*x.shape, x.shape[-1], dtype=x.dtype)
    x, outside = outside_as_zero(x, tree), (tree.parent < 0)[:, None]
    for item in range(x.shape[0]):
        row = item if tree.parent.shape[0] > 1 else 0
        parent, depth = tree.parent[row].tolist(), tree.depth[row].tolist()
        for i in range(x.shape[-1]):
            for j in range(x.shape[-1]):
                a, b, factor = i, j, torch.ones_like(x[item, :, 0])
                while a != b and max(depth[a], depth[b]) > 0:
                    if depth[a] >= depth[b]:
                        factor, a = factor * weights[item, :, a], parent[a]
                    else:
                        factor, b = factor * weights[item, :, b], parent[b]
                if a != b or parent[a] < 0:
                    continue  # in two trees, or in none
                # a is where the two ways to the root meet: i itself if j lies below it, j itself if it lies above.
                if direction == "both" or a == (i if direction == "up" else j):
                    reach[item, :, i, j] = factor
    return (reach * x[:, :, None]).sum(-1).masked_fill(outside, 0)


def tree_scan(x: Tensor, weights: Tensor, graph: AnyGraph | AnyTree, *, direction: str = "both",
              guide: Tensor | None = None, metric: str = "cosine", maximum: bool = False, root: int | Tensor = 0) -> Tensor:
    """As `treescan.tree_scan` for a tree or a graph value."""
    if not isinstance(graph, AnyTree):
        cost = edge_weights((x if guide is None else guide).detach(), graph, metric)
        graph = minimum_spanning_tree(graph, cost, maximum=maximum, root=root)
    return scan(x.flatten(2), weights.expand_as(x).flatten(2), graph, direction).reshape(x.shape)
