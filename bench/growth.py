"""How time grows with the number of vertices: the slope in log-log, which is 1 for linear time."""

import math

import torch

import treescan

from .case import Call, Case
from .cases import scans, trees
from .measure import Outcome, seconds

POWERS = range(12, 23, 2)
CHANNELS = 16


def slope(points: dict[int, float]) -> float:
    """Of the least-squares line through (log size, log seconds)."""
    x, y = ([math.log(value) for value in values] for values in (points.keys(), points.values()))
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    return (sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y)) / sum((a - middle_x) ** 2 for a in x))


def measure() -> tuple[dict[str, dict[int, float]], list[Outcome]]:
    """Seconds by work and vertices, and the bars."""
    works = {
        "tree and order": (trees.Inputs, Call(trees.ours, trees.check_ours)),
        f"scan, {CHANNELS} channels": (lambda height, width: scans.Inputs((1, CHANNELS, height, width)),
                                       scans.FORWARD[scans.INTO]),
    }
    points = {name: {} for name in works}
    for name, (inputs, call) in works.items():
        for power in POWERS:
            side = 2 ** (power // 2)
            case = Case(f"{name} {side}×{side}", lambda: inputs(side, side), {name: call})
            points[name][side * side] = seconds(case, budget=1)[name]
    outcomes = []
    for name, taken in points.items():
        steepness = slope(taken)
        outcomes.append(Outcome("growth", f"{name}, 2^{POWERS[0]} to 2^{POWERS[-1]} vertices", "slope 0.95 to 1.15",
                                steepness, "", 0.95 <= steepness <= 1.15))
    return points, outcomes


def _sizes_are_right(tree, sizes) -> bool:
    """Whether `up` of ones with weights of 1 has counted the vertices of every subtree of a grid of any size: a vertex
    has what its children have and itself, and the root has all."""
    sizes, parent = sizes.flatten().long(), tree.parent[0].long()
    expected = torch.ones_like(sizes)
    below = tree.order[0, 1:].long()
    expected.index_add_(0, parent[below], sizes[below])
    return torch.equal(expected, sizes) and sizes[tree.root[0]].item() == sizes.numel()


def large_grid(side: int = 4096) -> Outcome:
    """Whether a grid of 2^24 vertices works; the figure is the seconds that its tree and a scan take together."""
    from time import perf_counter

    graph = treescan.grid_graph(side, side)
    cost = torch.rand(1, graph.num_edges, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 1, side, side)
    start = perf_counter()
    tree = treescan.minimum_spanning_tree(graph, cost)
    sizes = treescan.tree_scan(ones, ones, tree, direction="up")
    taken = perf_counter() - start
    tree.validate()
    # Counts up to 2^24 are float32 numbers without rounding.
    return Outcome("growth", f"grid {side}×{side}, tree and scan", "works", taken, " s", _sizes_are_right(tree, sizes))
