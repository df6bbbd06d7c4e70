"""Kruskal's algorithm and breadth-first search, vertex by vertex."""

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .graphs import AnyGraph


class Tree(NamedTuple):
    """What `treescan.Tree` holds: int32 tensors (B, V), (B, V), (B, V), (B,) and (B, V)."""

    parent: Tensor
    order: Tensor
    depth: Tensor
    root: Tensor
    edge: Tensor | None = None


def _roots(root: int | Tensor, batch: int) -> list[int]:
    roots = root.tolist() if isinstance(root, Tensor) else [root]
    return roots * batch if len(roots) == 1 else roots


_Row: TypeAlias = tuple[list[int], list[int], list[int], int, list[int]]


def _rooted(vertices: int, edges: Iterable[tuple[int, int, int]], roots: list[int]) -> _Row:
    """One item's fields from its (a, b, number) edges: breadth-first from all roots, children in ascending order."""
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(vertices)]
    for a, b, number in edges:
        neighbours[a].append((b, number))
        neighbours[b].append((a, number))
    parent, depth, edge, order = [-1] * vertices, [-1] * vertices, [-1] * vertices, list(roots)
    for v in roots:
        parent[v], depth[v] = v, 0
    for v in order:  # grows while it is walked
        for child, number in sorted(neighbours[v]):
            if parent[child] < 0:
                parent[child], depth[child], edge[child] = v, depth[v] + 1, number
                order.append(child)
    order += [v for v in range(vertices) if parent[v] < 0]
    return parent, order, depth, parent[order[0]], edge


def _tree(rows: list[_Row]) -> Tree:
    return Tree(*(torch.tensor([row[i] for row in rows], dtype=torch.int32) for i in range(5)))


def tree_from_edges(edges: Tensor, root: int | Tensor = 0) -> Tree:
    """Roots trees given as (B, V-1, 2) edges, children in ascending order."""
    batch, vertices = edges.shape[0], edges.shape[1] + 1
    rows = [_rooted(vertices, [(a, b, number) for number, (a, b) in enumerate(edges[item].tolist())], [start])
            for item, start in enumerate(_roots(root, batch))]
    if any(-1 in parent for parent, *_ in rows):
        raise ValueError("edges must form a tree, but some vertices don't hang together with the root")
    return _tree(rows)


def tree_from_parents(parent: Tensor, root: int | Tensor | None = None, *, forest: bool = False) -> Tree:
    """The tree of a parent array (B, V), at its own root or at another; or the forest, in which -1 stands for no tree."""
    rows = []
    for item, above in enumerate(parent.tolist()):
        roots = [v for v, p in enumerate(above) if p == v]
        if not forest and len(roots) != 1:
            raise ValueError("parent must have exactly one vertex that is its own parent")
        start = roots if root is None else [_roots(root, len(parent))[item]]
        rows.append(_rooted(len(above), [(p, v, -1) for v, p in enumerate(above) if p not in (v, -1)], start))
    return _tree(rows)._replace(edge=None)


def _keys(cost: Tensor, maximum: bool) -> list[float]:
    """Costs in their order, NaN last. Floats as the integers of their bits, a sign and a magnitude, since in torch's mode that
    flushes denormal numbers comparisons of floats take those for 0."""
    sign = -1 if maximum else 1
    if not cost.is_floating_point():
        return [sign * c for c in cost.tolist()]
    width = 8 * cost.element_size()
    with_infinity = torch.cat((cost.new_tensor([math.inf]), cost.detach()))
    infinity, *bits = with_infinity.view(getattr(torch, f"int{width}")).tolist()
    keys = [sign * (b if b >= 0 else -(b + 2 ** (width - 1))) for b in bits]
    return [math.inf if abs(key) > infinity else key for key in keys]


def minimum_spanning_tree(graph: AnyGraph, cost: Tensor, *, maximum: bool = False, root: int | Tensor = 0,
                          mask: Tensor | None = None) -> Tree:
    """As `treescan.minimum_spanning_tree`: edges by (cost, index), each kept unless it closes a cycle."""
    rows = []
    for item, start in enumerate(_roots(root, cost.shape[0])):
        edges = (graph.edge_index if graph.edge_index.ndim == 2 else graph.edge_index[item]).tolist()
        keys = _keys(cost[item], maximum)
        ranked = sorted(range(len(edges)), key=lambda e: (keys[e], e))
        taking_part = [True] * graph.num_vertices if mask is None else mask.flatten(1)[item % len(mask)].tolist()
        component = list(range(graph.num_vertices))
        kept = []
        for e in ranked:
            (a, b), here = (component[v] for v in edges[e]), all(taking_part[v] for v in edges[e])
            if a != b and here:
                component = [a if c == b else c for c in component]
                kept.append((*edges[e], e))
        parts = sorted({component[v] for v in range(graph.num_vertices) if taking_part[v]})
        if mask is None and len(parts) != 1:
            raise ValueError(f"graph must be connected, but item {item} falls into {len(parts)} parts")
        members = [[v for v in range(graph.num_vertices) if taking_part[v] and component[v] == part] for part in parts]
        rows.append(_rooted(graph.num_vertices, kept, sorted(start if start in part else part[0] for part in members)))
    return _tree(rows)
