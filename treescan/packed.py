"""Trees of packed sequences and images: parts of different sizes side by side in one item, each with its own tree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsIndex

import torch
from torch import Tensor

from ._arguments import integer, kind
from ._indices import Indices, can_look, indices
from .functional import Metric, _graph_for, _shape, deciding_costs, spanning_forest, tree_features
from .graph import edge_graph, grid_graph
from .tree import Tree


def packed_tree(features: Tensor, cu_seqlens: Indices | None = None, graph: str = "tokens", *,
                sizes: Iterable[Iterable[SupportsIndex]] | None = None, metric: Metric = "cosine", maximum: bool = False,
                window: SupportsIndex = 3) -> Tree:
    """The minimum spanning trees of packed sequences or images: one forest, in which every part has a tree of its own.

    A scan along it equals one call for each part, bit for bit, as do its gradients. The root of each tree is the part's
    first vertex.

    Arguments:
        features: (1, C, T), the parts one behind the other; of any strides and dtype that `build_tree` takes.
        cu_seqlens: for sequences, (S+1,) indices: where each of S sequences begins, and T at the end. Sequences
            may be empty. Inside `torch.compile`, and on a GPU, the values are not looked at; tokens past the last end
            are then a sequence of their own.
        graph: "tokens" or "chain" for sequences, "grid" for images.
        sizes: for images, the (height, width) of each, pixels row by row.
        metric, maximum: as for `build_tree`.
        window: for graph="tokens", as for `token_graph`.

    Returns a Tree with batch size 1. Raises ValueError for sizes that don't add up to T or another option, TypeError for
    another dtype. O(E C) in time, O(E) in memory; deterministic. No gradient flows through a tree.

    >>> packed_tree(torch.rand(1, 4, 5), torch.tensor([0, 2, 5]), "chain").parent
    tensor([[0, 0, 2, 2, 3]], dtype=torch.int32)
    >>> packed_tree(torch.rand(1, 4, 10), graph="grid", sizes=[(2, 2), (2, 3)]).root
    tensor([0], dtype=torch.int32)
    """
    features = checked_packed(features)
    if isinstance(graph, str) and graph == "grid":
        if sizes is None or cu_seqlens is not None:
            raise ValueError("graph='grid' takes sizes, the (height, width) of each image, and no cu_seqlens")
        return _tree_of_images(features, sizes, metric, maximum)
    if not isinstance(graph, str) or graph not in ("tokens", "chain"):
        raise ValueError(f"graph must be 'tokens', 'chain' or 'grid', got {graph!r}")
    if sizes is not None or cu_seqlens is None:
        raise ValueError(f"graph={graph!r} takes cu_seqlens, where each sequence begins, and no sizes")
    packed = _graph_for(graph, "features", features, window, None)
    segments = segments_of(starts_of(cu_seqlens, features), features)[None]
    return spanning_forest(packed, deciding_costs("features", features, packed, metric), maximum, 0, segments)


def checked_packed(features: Tensor) -> Tensor:
    """Features of packed parts, in a dtype that costs are computed in."""
    features = tree_features("features", features)
    if features.ndim != 3 or features.shape[0] != 1:
        raise ValueError(f"features must have shape (1, C, T) for packed parts, got {_shape(features)}")
    return features


def starts_of(cu_seqlens: Indices, features: Tensor) -> Tensor:
    """Where each of several packed sequences begins, and where the last one ends: (S+1,) int32 on the features' device."""
    starts = indices("cu_seqlens", cu_seqlens)
    if starts.ndim != 1 or starts.shape[0] < 2:
        raise ValueError(f"cu_seqlens must have shape (S+1,) for S >= 1 sequences, got {_shape(starts)}")
    total = features.shape[2]
    if can_look(starts) and (starts[0] != 0 or starts[-1] != total or (starts.diff() < 0).any()):
        raise ValueError(f"cu_seqlens must ascend from 0 to {total} for features of shape {_shape(features)}, got "
                         f"{starts.tolist()}")
    return starts.to(features.device)


def segments_of(starts: Tensor, features: Tensor) -> Tensor:
    """The number of the sequence that each vertex of packed features is in, (T,) int32."""
    vertex = torch.arange(features.shape[2], dtype=torch.int32, device=features.device)
    return torch.searchsorted(starts, vertex, right=True, out_int32=True) - 1


def _tree_of_images(features: Tensor, sizes: Iterable[Iterable[SupportsIndex]], metric: Metric, maximum: bool) -> Tree:
    total = features.shape[2]
    try:
        pairs = [(height, width) for height, width in sizes]
    except (TypeError, ValueError):
        raise TypeError(f"sizes must hold (height, width) pairs, got {kind(sizes)}: {sizes}") from None
    edges, first = [], 0
    for height, width in pairs:
        image = grid_graph(integer("sizes", height, 1), integer("sizes", width, 1))
        edges.append(image.edge_index_on(features.device) + first)
        first += image.num_vertices
    if first != total:
        raise ValueError(f"sizes must add up to {total} pixels for features of shape {_shape(features)}, got {first} in "
                         f"{[(int(height), int(width)) for height, width in pairs]}")
    if not edges:
        raise ValueError("sizes must hold at least one (height, width) pair, got none")
    packed = edge_graph(torch.cat(edges), total)
    return spanning_forest(packed, deciding_costs("features", features, packed, metric), maximum, 0,
                           features.new_zeros((1, total), dtype=torch.int32))
