"""Kruskal's algorithm and breadth-first search, vertex by vertex."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Tree(NamedTuple):
    """What `treescan.Tree` holds: int32 tensors (B, V), (B, V), (B, V), (B,) and (B, V)."""

    parent: Tensor
    order: Tensor
    depth: Tensor
    root: Tensor
    edge: Tensor | None = None


def _roots(root, batch: int) -> list[int]:
    roots = root.tolist() if isinstance(root, Tensor) else [root]
    return roots * batch if len(roots) == 1 else roots


def tree_from_edges(edges: Tensor, root=0, edge_index=None) -> Tree:
    """Roots trees given as (B, V-1, 2) edges, children in ascending order. `edge_index`: the edges' own numbers."""
    batch, vertices = edges.shape[0], edges.shape[1] + 1
    rows = []
    for item, start in enumerate(_roots(root, batch)):
        neighbours = [[] for _ in range(vertices)]
        for number, (a, b) in enumerate(edges[item].tolist()):
            name = number if edge_index is None else edge_index[item][number]
            neighbours[a].append((b, name))
            neighbours[b].append((a, name))
        parent, depth, edge, order = {start: start}, {start: 0}, {start: -1}, [start]
        for v in order:  # grows while it is walked
            for child, name in sorted(neighbours[v]):
                if child not in parent:
                    parent[child], depth[child], edge[child] = v, depth[v] + 1, name
                    order.append(child)
        if len(order) != vertices:
            raise ValueError(f"edges must form a tree, but {len(order)} of {vertices} vertices hang together")
        by_vertex = [[field[v] for v in range(vertices)] for field in (parent, depth, edge)]
        rows.append((by_vertex[0], order, by_vertex[1], start, by_vertex[2]))
    return Tree(*(torch.tensor([row[i] for row in rows], dtype=torch.int32) for i in range(5)))


def tree_from_parents(parent: Tensor, root=None) -> Tree:
    """The tree of a parent array (B, V), at its own root or at another."""
    own = torch.arange(parent.shape[1])
    if not ((parent == own).sum(1) == 1).all():
        raise ValueError("parent must have exactly one vertex that is its own parent")
    edges = torch.stack([torch.stack((own[row != own], row[row != own]), 1) for row in parent.long()])
    if root is None:
        root = (parent == own).int().argmax(1)
    return tree_from_edges(edges, root)._replace(edge=None)


def minimum_spanning_tree(graph, cost: Tensor, *, maximum: bool = False, root=0) -> Tree:
    """As `treescan.minimum_spanning_tree`: edges by (cost in float32, index), each kept unless it closes a cycle."""
    cost = cost.float()
    chosen = []
    for item in range(cost.shape[0]):
        edges = (graph.edge_index if graph.edge_index.ndim == 2 else graph.edge_index[item]).tolist()
        costs = [-c if maximum else c for c in cost[item].tolist()]
        ranked = sorted(range(len(edges)), key=lambda e: (math.isnan(costs[e]), 0 if math.isnan(costs[e]) else costs[e], e))
        component = list(range(graph.num_vertices))
        kept = []
        for e in ranked:
            a, b = (component[v] for v in edges[e])
            if a != b:
                component = [a if c == b else c for c in component]
                kept.append(e)
        if len(kept) != graph.num_vertices - 1:
            raise ValueError(f"graph must be connected, but item {item} falls into {len(set(component))} parts")
        chosen.append((sorted(kept), edges))
    ends = torch.tensor([[edges[e] for e in kept] for kept, edges in chosen]).reshape(len(chosen), -1, 2)
    return tree_from_edges(ends, root, [kept for kept, _ in chosen])
