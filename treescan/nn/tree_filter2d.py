"""The learnable tree filter."""

from typing import Literal, SupportsIndex

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._arguments import integer, number
from ..functional import METRICS, Metric, _check_floats, build_tree, check_tree, tree_features, tree_scan
from ..ops import choice, gather_parents
from ..ops_selective import computed_dtype
from ..tree import Tree
from ._outside import in_no_tree


DISTANCES: dict[str, Literal["l2", "l1"]] = {"l2": "l2", "l1": "l1"}


class TreeFilter2d(nn.Module):
    """Structure-preserving smoothing: every pixel becomes a weighted mean of all, weighted along the tree.

        y[i] = Σ_j S(i, j)·x[j] / Σ_j S(i, j),    S(i, j) = exp(-Σ_{e on the path i..j} D_e / sigma)

    with D_e the squared distance ("l2") or the sum of absolute differences ("l1") of the embedding between the ends of
    a tree edge. Channels of x and of the embedding are split into `groups`, each filtered with its own weights.

    Arguments:
        groups: divides the channels of x and of the embedding.
        sigma: > 0, the scale of distances.
        distance: "l2" or "l1".
        metric: the cost that the tree minimises: "l2", "l1" or "cosine".

    `forward(x, embedding=None, guide=None, tree=None)`: x (B, C, H, W), embedding (B, E, H, W) (default x), guide
    (B, any, H, W) that the tree is built from (default the embedding), or a Tree instead. Returns (B, C, H, W) in x's
    dtype, and in channels-last memory if x is. Distances, weights and means are formed in float32 for half types.
    Differentiable in x and embedding; no gradient flows through the tree. Pixels in no tree, which a mask took out, come
    out as 0; whatever they hold, NaN or infinity too, reaches neither values nor gradients.

    Raises ValueError for groups that don't divide the channels, sigma <= 0 or sizes that don't fit together, TypeError for
    another dtype, and what `tree_scan` raises. O(B (C + E) H W); deterministic, the same bits for any number of threads
    and any memory layout.

    >>> TreeFilter2d(groups=2)(torch.ones(1, 4, 3, 3)).sum().item()
    36.0

    Source: Song et al., "Learnable Tree Filter for Structure-preserving Feature Transform" (NeurIPS 2019), section 3.1.
    """

    def __init__(self, groups: SupportsIndex = 1, sigma: float = 1.0, distance: Literal["l2", "l1"] = "l2",
                 metric: Metric = "l2") -> None:
        super().__init__()
        sigma = number("sigma", sigma)
        if sigma <= 0:
            raise ValueError(f"sigma must be > 0, got {sigma}")
        self.groups, self.sigma = integer("groups", groups, 1), sigma
        self.distance, self.metric = choice("distance", distance, DISTANCES), choice("metric", metric, METRICS)

    def forward(self, x: Tensor, embedding: Tensor | None = None, guide: Tensor | None = None,
                tree: Tree | None = None) -> Tensor:
        for name, tensor in (("x", x), ("embedding", x if embedding is None else embedding)):
            _check_floats(name, tensor)
            if tensor.ndim != 4:
                raise ValueError(f"{name} must have shape (B, C, H, W), got {tuple(tensor.shape)}")
            if tensor.shape[1] % self.groups:
                raise ValueError(f"{name} must have a multiple of {self.groups} channels, got {tensor.shape[1]}")
        in_rows = x.stride(1) == 1
        if self._has_few_channels(x):
            x = x.contiguous()  # torch is slow on rows of a few channels
        embedding = x if embedding is None else embedding
        if embedding.shape[0] not in (1, x.shape[0]) or embedding.shape[2:] != x.shape[2:]:
            raise ValueError(f"embedding must have x's batch size, height and width, x has shape {tuple(x.shape)}, embedding "
                             f"{tuple(embedding.shape)}")
        spanning = tree is None
        if tree is None:
            features = embedding if guide is None else tree_features("guide", guide)
            tree = build_tree(features, "grid", metric=self.metric)
        else:
            check_tree("tree", tree, x.shape[0], x.shape[2] * x.shape[3], "x", x)
        dtype = x.dtype
        x = x.to(computed_dtype(dtype))  # a half type can't count the pixels of an image
        y, total = self._sums(x, self._weights(embedding, tree, spanning).to(x.dtype), tree)
        # Every pixel of a tree has at least its own weight, 1; one in no tree has no mean, and comes out as zero.
        y = (y / self._of_group(total.clamp(min=1), x)).to(dtype)
        return y.contiguous(memory_format=torch.channels_last) if in_rows else y

    def _has_few_channels(self, x: Tensor) -> bool:
        """Whether one scan of x and its groups' ones hardly takes longer than one of x."""
        return x.shape[1] + self.groups <= 8

    def _weights(self, embedding: Tensor, tree: Tree, spanning: bool) -> Tensor:
        """exp(-D / sigma) of the edges to the parents, (B, groups, H, W)."""
        # Channels in planes are quicker to fetch, and added up in one order.
        embedding = embedding.to(computed_dtype(embedding.dtype)).contiguous()
        if not spanning:
            embedding = embedding.masked_fill(in_no_tree(tree, *embedding.shape[2:])[:, None], 0)
        difference = (embedding - gather_parents(embedding, tree.parent, spanning)).unflatten(1, (self.groups, -1))
        distance = (difference.square() if self.distance == "l2" else difference.abs()).sum(2)
        return torch.exp(distance / -self.sigma)

    def _of_group(self, values: Tensor, x: Tensor) -> Tensor:
        """Values (B, groups, H, W) for each channel of x, or for all alike."""
        return values if self.groups == 1 else values.repeat_interleave(x.shape[1] // self.groups, 1)

    def _sums(self, x: Tensor, weights: Tensor, tree: Tree) -> tuple[Tensor, Tensor]:
        """x, and a group's ones, summed along the tree."""
        channels, own = x.shape[1], self._of_group(weights, x)
        if not self._has_few_channels(x):
            return tree_scan(x, own, tree), tree_scan(torch.ones_like(weights), weights, tree)
        beside = F.pad(x, (0, 0, 0, 0, 0, self.groups), value=1.0)
        sums = tree_scan(beside, weights if self.groups == 1 else torch.cat((own, weights), 1), tree)
        return sums[:, :channels], sums[:, channels:]

    def extra_repr(self) -> str:
        return f"groups={self.groups}, sigma={self.sigma}, distance={self.distance!r}, metric={self.metric!r}"
