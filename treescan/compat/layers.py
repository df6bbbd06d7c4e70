"""The layers that projects built on the original extensions import."""

from collections.abc import Callable
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from .._arguments import flag, integer, number
from .._indices import Indices
from ..functional import _check_floats, tree_scan
from ..graph import grid_graph
from ..ops import gather_parents
from ..ops_selective import computed_dtype
from ..tree import Tree
from ._sorted import batch_of_edges, mst_forward


class MinimumSpanningTree(nn.Module):
    """The minimum spanning tree of the 4-connected grid over a feature map, under any distance.

    Arguments:
        distance_func: maps two maps (B, C, h, w) to their distances (B, h, w).
        mapping_func: applied to the distances (B, E), if given.

    `forward(guide_in)` takes (B, C, H, W) and returns the tree's edges, (B, HW-1, 2) int32. Both functions get float32 for
    half types. No gradient flows.

    >>> distance = lambda a, b: (a - b).square().sum(1)
    >>> MinimumSpanningTree(distance)(torch.zeros(1, 2, 3, 4)).shape
    torch.Size([1, 11, 2])

    Source: Song et al., "Learnable Tree Filter for Structure-preserving Feature Transform" (NeurIPS 2019), section 3.1.
    """

    def __init__(self, distance_func: Callable[[Tensor, Tensor], Tensor],
                 mapping_func: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.distance_func = distance_func
        self.mapping_func = mapping_func

    @torch.no_grad()
    def forward(self, guide_in: Tensor) -> Tensor:
        _check_floats("guide_in", guide_in)
        if guide_in.ndim != 4:
            raise ValueError(f"guide_in must have shape (B, C, H, W), got {tuple(guide_in.shape)}")
        guide_in = guide_in.to(computed_dtype(guide_in.dtype))
        graph = grid_graph(*guide_in.shape[2:])
        vertical = self.distance_func(guide_in[:, :, :-1], guide_in[:, :, 1:])
        horizontal = self.distance_func(guide_in[..., :-1], guide_in[..., 1:])
        cost = torch.cat([vertical.flatten(1), horizontal.flatten(1)], 1)
        if self.mapping_func is not None:
            cost = self.mapping_func(cost)
        return mst_forward(graph.edge_index_on(cost.device).expand(cost.shape[0], -1, -1), cost, graph.num_vertices)


class TreeFilter2D(nn.Module):
    """The tree filter with the calls of the Tree Energy Loss.

        y[i] = Σ_j S(i, j) x[j] / Σ_j S(i, j),    S(i, j) = Π over the tree's path i..j of exp(-distance / sigma)

    Arguments:
        groups: the channels of feature and embedding are filtered in that many groups.
        sigma: the scale of distances on low-level trees.
        distance_func: maps two (B·groups, C/groups, V) embeddings to (B·groups, V); default the squared L2 distance.
        enable_log: accepted and unused; the original printed statistics.
        normalize: False leaves out the division, as GrootVL's own copy of the filter does.

    `forward(feature_in, embed_in, tree, low_tree=True)`: feature_in (B, C, H, W), embed_in (B, E, H, W), tree
    (B, HW-1, 2) as `MinimumSpanningTree` returns it; without low_tree distances are not divided by sigma. Returns
    feature_in's shape and dtype; half types are computed in float32, which is what distance_func gets for them.

    Source: Liang et al., "Tree Energy Loss: Towards Sparsely Annotated Semantic Segmentation" (CVPR 2022), section 3.2.
    """

    def __init__(self, groups: SupportsIndex = 1, sigma: float = 0.02,
                 distance_func: Callable[[Tensor, Tensor], Tensor] | None = None, enable_log: bool = False,
                 normalize: bool = True) -> None:
        super().__init__()
        self.groups, self.sigma = integer("groups", groups, 1), number("sigma", sigma)
        self.normalize = flag("normalize", normalize)
        self.distance_func = self.norm2_distance if distance_func is None else distance_func

    @staticmethod
    def norm2_distance(fm_ref: Tensor, fm_tar: Tensor) -> Tensor:
        """The squared L2 distance over dimension 1."""
        return (fm_ref - fm_tar).square().sum(1)

    def forward(self, feature_in: Tensor, embed_in: Tensor, tree: Indices, low_tree: bool = True) -> Tensor:
        for name, tensor in (("feature_in", feature_in), ("embed_in", embed_in)):
            _check_floats(name, tensor)
            if tensor.ndim != 4 or tensor.shape[1] % self.groups:
                raise ValueError(f"{name} must have shape (B, C, H, W) with a multiple of {self.groups} channels, got "
                                 f"{tuple(tensor.shape)}")
        low_tree = flag("low_tree", low_tree)
        batch, _, height, width = feature_in.shape
        dtype = feature_in.dtype
        feature_in, embed_in = (values.to(computed_dtype(values.dtype)) for values in (feature_in, embed_in))
        rooted = Tree.from_edges(batch_of_edges("tree", tree))
        above = gather_parents(embed_in, rooted.parent)
        distance = self.distance_func(*(values.reshape(batch * self.groups, -1, height * width)
                                        for values in (embed_in, above)))
        weights = torch.exp(-distance / self.sigma if low_tree else -distance).reshape(batch, self.groups, height, width)
        each = feature_in.shape[1] // self.groups
        y = tree_scan(feature_in, weights.repeat_interleave(each, 1), rooted)
        if self.normalize:
            y = y / tree_scan(torch.ones_like(weights), weights, rooted).repeat_interleave(each, 1)
        return y.to(dtype)
