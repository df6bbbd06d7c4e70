"""Trees over a sequence of tokens that know its direction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import SupportsIndex

import torch
from torch import Tensor

from ._arguments import integer, kind
from ._indices import Indices, are_indices, can_look, indices
from .functional import Contexts, Metric, _shape, cost_keys, deciding_costs, minimum_spanning_tree, tree_features
from .graph import Graph, token_graph
from .packed import checked_packed, segments_of, starts_of
from .tree import Tree


def _checked_factors(features: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The factors of the features; features themselves are the only factor."""
    if not isinstance(features, (Tensor, Sequence)):
        raise TypeError(f"features must be a tensor or several, got {kind(features)}")
    factors = [tree_features("features", factor) for factor in ([features] if isinstance(features, Tensor) else features)]
    for factor in factors:
        if factor.ndim != 3 or (factor.shape[0], factor.shape[2]) != (factors[0].shape[0], factors[0].shape[2]):
            raise ValueError("features must have shape (B, C, L), or be several of the same B and L, got "
                             + ", ".join(map(_shape, factors)))
    if not factors:
        raise ValueError("features must be a tensor or several, got none")
    return factors


def _cost(factors: list[Tensor], graph: Graph, metric: Metric) -> Tensor:
    """(B, E): `edge_weights` of the factors' outer product, which is never made since its cosine is theirs multiplied."""
    if len(factors) == 1:
        return deciding_costs("features", factors[0], graph, metric)
    if metric != "cosine":
        raise ValueError(f"metric must be 'cosine' for features in several factors, got {metric!r}")
    costs = [deciding_costs("features", factor, graph) for factor in factors]
    return torch.where(costs[0] == float("inf"), costs[0], -reduce(torch.mul, [-cost for cost in costs]))


def _check_mask(mask: Tensor, like: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a bool tensor, got {mask.dtype if isinstance(mask, Tensor) else type(mask).__name__}")
    shape = (like.shape[0], like.shape[2])
    if mask.ndim != 2 or mask.shape[0] not in (1, shape[0]) or mask.shape[1] != shape[1]:
        raise ValueError(f"mask must have shape (B, L) = {shape} or (1, {shape[1]}), got {_shape(mask)}")


def _checked_contexts(context_length: Contexts, like: Tensor) -> Tensor | int:
    """Context lengths in [0, L]: one integer, or a tensor (B|1, 1)."""
    wanted = f"in [0, {like.shape[2]}] for features of shape {_shape(like)}"
    if not are_indices(context_length) and not isinstance(context_length, Sequence):
        one = integer("context_length", context_length)
        if not 0 <= one <= like.shape[2]:
            raise ValueError(f"context_length must be {wanted}, got {one}")
        return one
    if are_indices(context_length):
        contexts = indices("context_length", context_length)
    else:
        contexts = torch.tensor([integer("context_length", item) for item in context_length])
    if contexts.ndim > 1 or contexts.numel() not in (1, like.shape[0]):
        raise ValueError(f"context_length must be an integer or have shape (B,) = ({like.shape[0]},), got {_shape(contexts)}")
    if can_look(contexts) and not ((contexts >= 0) & (contexts <= like.shape[2])).all():
        raise ValueError(f"context_length must be {wanted}, got {contexts.tolist()}")
    return contexts.to(like.device).reshape(-1, 1)


def causal_tree(features: Tensor | Sequence[Tensor], window: SupportsIndex = 3, metric: Metric = "cosine", *,
                context_length: Contexts | None = None, mask: Tensor | None = None,
                cu_seqlens: Indices | None = None) -> Tree:
    """The causal tree of a sequence: every token hangs on its nearest among the `window` tokens before it.

        p(0) = 0,    p(t) = argmin over s in t-window ... t-1 of cost(s, t)

    That is the arborescence of least cost of the graph of those edges. A parent is always earlier, and depends on earlier
    tokens and t alone: a scan with direction="down" is causal, through features, tree and state.

        d[0] = x[0],    d[t] = x[t] + w[t]·d[p(t)]

    The decay on an edge is the receiving token's own, w[t].

    Arguments:
        features: (B, C, L), of any strides and dtype that `build_tree` takes. Or several such, of any C each: the
            factors of an outer product, x ⊗ y ⊗ ..., whose cosine is the product of theirs.
        window: at least 1; 1 makes the chain.
        metric: the cost, as for `edge_weights`. Of equal costs the earlier token's counts; NaN comes last. Features in
            several factors have "cosine".
        context_length: how many tokens choose, an int for all rows or B of them, each in [0, L]: the first ones, not
            counting those outside the mask. The tokens behind hang on the token before them. None for all.
        mask: (B|1, L) bool, True for tokens that take part. The others, as padding, are in no tree and nobody's parent. A
            token with none before it in the window begins a tree of its own.
        cu_seqlens: (S+1,) where packed sequences begin, as for `packed_tree`; features are then (1, C, T), and every
            sequence has a tree of its own. Not beside the two above.

    Raises ValueError for another shape, window or metric and a context out of range, TypeError for another dtype.
    O(B L window C) in time, O(B L window) in memory; deterministic, the same bits for any number of threads. No gradient
    flows through a tree.

    >>> causal_tree(torch.tensor([[[0.0, 5.0, 1.0, 4.0]]]), metric="l2").parent
    tensor([[0, 0, 0, 1]], dtype=torch.int32)
    >>> causal_tree(torch.tensor([[[0.0, 5.0, 1.0, 4.0]]]), metric="l2", context_length=2).parent
    tensor([[0, 0, 1, 2]], dtype=torch.int32)

    Source: the token graph is that of Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model",
    section 3.3; the arborescence that of Chu and Liu, "On the shortest arborescence of a directed graph" (1965), which
    takes no more than the cheapest edge into each vertex where edges point one way.
    """
    factors = _checked_factors(features)
    like = factors[0]
    batch, _, length = like.shape
    window = integer("window", window, 1)
    graph = token_graph(length, window)
    token = torch.arange(length, device=like.device)
    first = torch.zeros_like(token)
    if cu_seqlens is not None:
        if context_length is not None or mask is not None:
            raise ValueError("cu_seqlens can't be given beside context_length or mask")
        checked_packed(like)
        starts = starts_of(cu_seqlens, like)
        first = starts.long()[segments_of(starts, like).long()]
    if mask is not None:
        _check_mask(mask, like)
    contexts = None if context_length is None else _checked_contexts(context_length, like)
    cost = _cost(factors, graph, metric)
    parent = token.expand(batch, length)
    if length > 1:
        # The candidates of each token, the earliest first, since of equal costs the lower edge index counts. The graph
        # lists the edges of token s to s+1 ... s+window behind those of the tokens before it.
        back = torch.arange(window, 0, -1, device=like.device)
        candidate = token[:, None] - back
        ahead = (length - 1 - token).clamp(max=window)
        edge = (ahead.cumsum(0) - ahead)[candidate.clamp(min=0)] + back - 1
        there = candidate >= first[:, None]
        edge = torch.where(there, edge, 0)
        if mask is not None:
            there = there & mask[:, candidate.clamp(min=0)]
        if contexts is not None:
            before = token[None] if mask is None else mask.cumsum(1) - 1
            there = there & ((before < contexts)[:, :, None] | (back == 1))
        # Behind NaN come the tokens that aren't there.
        keys = cost_keys(cost)[:, edge].masked_fill(~there, 2**63 - 1)
        parent = torch.where(there.any(-1), token - window + keys.argmin(2), token)
    if mask is not None:
        parent = parent.masked_fill(~mask, -1)
    return Tree.from_parents(parent.to(torch.int32), forest=cu_seqlens is not None or mask is not None)


def flipped_token_tree(features: Tensor | Sequence[Tensor], context_length: Contexts | None = None, *,
                       window: SupportsIndex = 3, metric: Metric = "cosine", mask: Tensor | None = None) -> Tree:
    """The tree of the original language models: the minimum spanning tree of the sequence flipped in time.

    Vertex v is token L-1-v, so the root is the last token, and the context, the last vertices, are the first tokens. The
    originals scan it upwards, with the decays A of the tokens, and add the result to that of a chain:

        h[L-1-v] = u[v],    u[v] = b[L-1-v] + Σ_{c: p(c)=v} A[L-c]·u[c]

    Two properties follow, which `causal_tree` does not have:

    - It is not causal inside the context. Whom a token hangs on is decided by a spanning tree of all tokens, and state
      flows to a token from children that may be later ones.
    - The decay on the edge from c to its parent is that of the token after c's, A[L-c], wherever the parent is. On a
      chain that is the receiving token's own; elsewhere it is not.

    Arguments:
        features: (B, C, L) in the order of time, or several such, the factors of an outer product, as for `causal_tree`.
        context_length, window: as for `token_graph`; the originals take the least context length of a batch for all.
        metric: as for `build_tree`; features in several factors have "cosine".
        mask: (B|1, L) bool in the order of time, as for `minimum_spanning_tree`. Tokens outside it count in the context.

    Returns a Tree over flipped vertices. Raises ValueError and TypeError as `build_tree` does. O(B L window C) in time;
    deterministic. No gradient flows through a tree.

    >>> flipped_token_tree(torch.tensor([[[0.0, 5.0, 1.0, 4.0]]]), metric="l2").parent
    tensor([[0, 0, 0, 1]], dtype=torch.int32)

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.3.
    """
    factors = [factor.flip(2) for factor in _checked_factors(features)]
    if mask is not None:
        _check_mask(mask, factors[0])
        mask = mask.flip(1)
    graph = token_graph(factors[0].shape[2], window, context_length)
    return minimum_spanning_tree(graph, _cost(factors, graph, metric), mask=mask)
