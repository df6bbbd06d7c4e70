"""A scan along the tree of an image, as a module."""

from typing import SupportsIndex

from torch import Tensor, nn

from .._arguments import flag, integer
from ..functional import DIRECTIONS, METRICS, Direction, Metric, _check_floats, _num_vertices, check_tree, tree_scan
from ..ops import choice
from ..tree import Tree


class TreeScan2d(nn.Module):
    """`treescan.tree_scan` on a 4-connected grid, with its options fixed at construction.

        y[i] = Σ_j (Π_{e on the path i..j} w_e)·x[j]      for direction="both"; "up" and "down" as in `tree_scan`

    Arguments:
        direction: "both", "up" or "down".
        metric: the cost that the tree minimises: "cosine", "l2" or "l1".
        maximum: the maximum tree instead.
        root: the root vertex.

    `forward(x, weights, guide=None, tree=None)` takes x and weights (B, C, H, W) of one floating dtype, a guide
    (B, any C, H, W) that the tree is built from (default x), or a Tree to use instead. It returns y (B, C, H, W).

    Raises what `tree_scan` raises. O(B C H W); deterministic, the same bits for any number of threads.

    >>> import torch
    >>> x = torch.ones(1, 1, 2, 2)
    >>> TreeScan2d("up")(x, torch.full_like(x, 0.5))[0, 0, 0, 0].item()
    2.25

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2.
    """

    def __init__(self, direction: Direction = "both", metric: Metric = "cosine", maximum: bool = False,
                 root: SupportsIndex = 0) -> None:
        super().__init__()
        self.direction, self.metric = choice("direction", direction, DIRECTIONS), choice("metric", metric, METRICS)
        self.maximum, self.root = flag("maximum", maximum), integer("root", root)

    def forward(self, x: Tensor, weights: Tensor, guide: Tensor | None = None, tree: Tree | None = None) -> Tensor:
        if tree is not None:
            _check_floats("x", x)
            check_tree("tree", tree, x.shape[0], _num_vertices(x), "x", x)
        return tree_scan(x, weights, "grid" if tree is None else tree, direction=self.direction, guide=guide,
                         metric=self.metric, maximum=self.maximum, root=self.root)

    def extra_repr(self) -> str:
        return f"direction={self.direction!r}, metric={self.metric!r}, maximum={self.maximum}, root={self.root}"
