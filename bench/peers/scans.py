"""Scans without treescan: torch's own operations level by level, the same compiled, and Higra's accumulations."""

import numpy
import torch
from torch import Tensor


class Levels:
    """A tree cut into its levels, outside of what is timed, as a level-by-level scan needs it."""

    def __init__(self, tree, item: int = 0):
        depth, parent = tree.depth[item].long(), tree.parent[item].long()
        by_depth = depth.argsort(stable=True)
        self.vertices = list(by_depth.split(depth.bincount().tolist()))
        self.parents = [parent[vertices] for vertices in self.vertices]


def by_levels(x: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """`both` for (B, C, V) tensors, an index_add_ and some gathers a level: what torch alone can do."""
    u = x.clone()
    for vertices, parents in zip(reversed(levels.vertices[1:]), reversed(levels.parents[1:])):
        u.index_add_(2, parents, weights[:, :, vertices] * u[:, :, vertices])
    y = u.clone()
    for vertices, parents in zip(levels.vertices[1:], levels.parents[1:]):
        w, own = weights[:, :, vertices], u[:, :, vertices]
        y[:, :, vertices] = own + w * (y[:, :, parents] - w * own)
    return y


def by_levels_in_rows(x: Tensor, weights: Tensor, levels: Levels, direction: str = "both") -> Tensor:
    """The same for (V, C) tensors, the layout that suits torch's indexing best, and for every direction."""
    u = x.clone()
    if direction != "down":
        for vertices, parents in zip(reversed(levels.vertices[1:]), reversed(levels.parents[1:])):
            u.index_add_(0, parents, weights[vertices] * u[vertices])
    if direction == "up":
        return u
    y = u.clone()
    for vertices, parents in zip(levels.vertices[1:], levels.parents[1:]):
        w, own = weights[vertices], u[vertices]
        y[vertices] = own + w * (y[parents] - w * own) if direction == "both" else own + w * y[parents]
    return y


def gradients_by_levels(grad: Tensor, x: Tensor, weights: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Those of `both` in x and weights, (V, C) tensors, from its adjoint's equations."""
    u, y = (by_levels_in_rows(x, weights, levels, along) for along in ("up", "both"))
    grad_u, grad_y = (by_levels_in_rows(grad, weights, levels, along) for along in ("up", "both"))
    grad_weights = torch.zeros_like(weights)
    for vertices, parents in zip(levels.vertices[1:], levels.parents[1:]):
        w, own, grad_own = weights[vertices], u[vertices], grad_u[vertices]
        grad_weights[vertices] = grad_own * (y[parents] - w * own) + own * (grad_y[parents] - w * grad_own)
    return grad_y, grad_weights


class HigraTree:
    """A tree as Higra wants it: parents have higher numbers than their children, and leaves come first."""

    def __init__(self, tree):
        import higra

        parent, order = tree.parent[0].numpy(), tree.order[0].numpy()
        inner = numpy.zeros(len(parent), dtype=bool)
        inner[parent[order[1:]]] = True
        children_first = order[::-1]
        self.vertex = numpy.concatenate([children_first[~inner[children_first]], children_first[inner[children_first]]])
        self.leaves = int((~inner).sum())
        number = numpy.empty(len(parent), dtype=numpy.int64)
        number[self.vertex] = numpy.arange(len(parent))
        self.tree = higra.Tree(number[parent[self.vertex]])

    def up(self, rows):
        """The sum over each subtree of (V, C) values in Higra's numbering: `up` with weights of 1."""
        import higra

        return higra.accumulate_and_add_sequential(self.tree, rows, rows[:self.leaves], higra.Accumulators.sum)

    def down(self, rows):
        """The sum over each path to the root: `down` with weights of 1."""
        import higra

        return higra.propagate_sequential_and_accumulate(self.tree, rows, higra.Accumulators.sum)
