"""What people could use instead: the same results from scipy and from torch's own operations."""

import scipy.sparse
import torch
from scipy.sparse import csgraph
from torch import Tensor


def scipy_tree(edges, cost, vertices: int):
    """A minimum spanning tree and its breadth-first order. scipy takes 0 for "no edge", so costs must be positive."""
    matrix = scipy.sparse.csr_matrix((cost, (edges[:, 0], edges[:, 1])), shape=(vertices, vertices))
    return scipy_tree_of(matrix)


def scipy_tree_of(matrix):
    tree = csgraph.minimum_spanning_tree(matrix)
    return tree, *csgraph.breadth_first_order(tree, 0, directed=False)


class Levels:
    """A tree cut into its levels, outside of what is timed, as a level-by-level scan needs it."""

    def __init__(self, tree):
        depth = tree.depth[0].long()
        self.vertices = [(depth == level).nonzero()[:, 0] for level in range(int(depth.max()) + 1)]
        self.parents = [tree.parent[0].long()[vertices] for vertices in self.vertices]


def torch_scan_by_levels(x: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """`both` for (B, C, V) tensors, an index_add_ and some gathers a level: what torch alone can do."""
    u = x.clone()
    for vertices, parents in zip(reversed(levels.vertices[1:]), reversed(levels.parents[1:])):
        u.index_add_(2, parents, weights[:, :, vertices] * u[:, :, vertices])
    y = u.clone()
    for vertices, parents in zip(levels.vertices[1:], levels.parents[1:]):
        w, own = weights[:, :, vertices], u[:, :, vertices]
        y[:, :, vertices] = own + w * (y[:, :, parents] - w * own)
    return y


def torch_scan_by_levels_in_rows(x: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """The same for (V, C) tensors, the layout that suits torch's indexing best."""
    u = x.clone()
    for vertices, parents in zip(reversed(levels.vertices[1:]), reversed(levels.parents[1:])):
        u.index_add_(0, parents, weights[vertices] * u[vertices])
    y = u.clone()
    for vertices, parents in zip(levels.vertices[1:], levels.parents[1:]):
        w, own = weights[vertices], u[vertices]
        y[vertices] = own + w * (y[parents] - w * own)
    return y
