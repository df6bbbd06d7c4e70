"""Inputs and calls that are compared, each checked for the same answer before anybody times it."""

from dataclasses import dataclass
from typing import Callable

import numpy
import scipy.sparse
import torch

import treescan

from . import peers


@dataclass
class Case:
    """One piece of work, done by treescan and by others on the same input."""

    name: str
    ours: Callable[[], object]
    others: dict[str, Callable[[], object]]


def scan_case(height: int = 56, width: int = 56, channels: int = 160) -> Case:
    """The float32 forward scan over all pairs, channels-last memory, tree given."""
    generator = torch.Generator().manual_seed(0)
    x, weights = (torch.rand(1, channels, height, width, generator=generator).to(memory_format=torch.channels_last)
                  for _ in range(2))
    tree = treescan.build_tree(x)
    levels = peers.Levels(tree)
    flat, flat_weights = (values.contiguous().flatten(2) for values in (x, weights))
    rows, row_weights = (values[0].T.contiguous() for values in (flat, flat_weights))
    out = torch.empty_like(x)
    y = treescan.tree_scan(x, weights, tree).flatten(2)
    torch.testing.assert_close(y, peers.torch_scan_by_levels(flat, flat_weights, levels), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y[0].T, peers.torch_scan_by_levels_in_rows(rows, row_weights, levels), rtol=1e-5, atol=1e-5)
    return Case(f"scan {height}x{width}x{channels}", lambda: treescan.tree_scan(x, weights, tree), {
        "torch, level by level, (B, C, V)": lambda: peers.torch_scan_by_levels(flat, flat_weights, levels),
        "torch, level by level, (V, C)": lambda: peers.torch_scan_by_levels_in_rows(rows, row_weights, levels),
        "torch.addcmul": lambda: torch.addcmul(x, x, weights, out=out),
    })


def tree_case(height: int = 56, width: int = 56) -> Case:
    """The spanning tree with order from given edge costs."""
    graph = treescan.grid_graph(height, width)
    cost = torch.rand(1, graph.num_edges, generator=torch.Generator().manual_seed(0)) + 1
    edges = graph.edge_index.numpy()
    matrix = scipy.sparse.csr_matrix((cost[0].double().numpy(), (edges[:, 0], edges[:, 1])),
                                     shape=(graph.num_vertices,) * 2)
    theirs, _, above = peers.scipy_tree_of(matrix)
    ours = treescan.minimum_spanning_tree(graph, cost)
    total = cost[0][ours.edge[0][ours.edge[0] >= 0].long()].double().sum().item()
    assert numpy.isclose(theirs.sum(), total, rtol=1e-12)
    assert (above[1:] == ours.parent[0, 1:].numpy()).all()
    return Case(f"tree and order {height}x{width}", lambda: treescan.minimum_spanning_tree(graph, cost), {
        "scipy": lambda: peers.scipy_tree_of(matrix),
    })


CASES = (scan_case, tree_case)
