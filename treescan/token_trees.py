"""Trees over a sequence of tokens that know its direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .functional import _check_floats, _shape, build_tree, edge_weights
from .graph import token_graph
from .packed import _check_packed, segments_of
from .tree import Tree


def causal_tree(features: Tensor, window: int = 3, metric: str = "cosine", *, cu_seqlens: Tensor | None = None) -> Tree:
    """The causal tree of a sequence: every token hangs on its nearest among the `window` tokens before it.

        p(0) = 0,    p(t) = argmin over s in t-window ... t-1 of cost(s, t)

    That is the arborescence of least cost of the graph of those edges. A parent is always earlier, and depends on earlier
    tokens and t alone: a scan with direction="down" is causal, through features, tree and state.

        d[0] = x[0],    d[t] = x[t] + w[t]·d[p(t)]

    The decay on an edge is the receiving token's own, w[t].

    Arguments:
        features: (B, C, L): float32, float64, float16 or bfloat16, in any strides.
        window: at least 1; 1 makes the chain.
        metric: the cost, as for `edge_weights`. Of equal costs the earlier token's counts; NaN comes last.
        cu_seqlens: (S+1,) where packed sequences begin, as for `packed_tree`; features are then (1, C, T), and every
            sequence has a tree of its own.

    Raises ValueError for another shape, window or metric, TypeError for another dtype. O(B L window C) in time,
    O(B L window) in memory; deterministic, the same bits for any number of threads. No gradient flows through a tree.

    >>> causal_tree(torch.tensor([[[0.0, 5.0, 1.0, 4.0]]]), metric="l2").parent
    tensor([[0, 0, 0, 1]], dtype=torch.int32)

    Source: the token graph is that of Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model",
    section 3.3; the arborescence that of Chu and Liu, "On the shortest arborescence of a directed graph" (1965), which
    takes no more than the cheapest edge into each vertex where edges point one way.
    """
    _check_floats("features", features)
    if features.ndim != 3:
        raise ValueError(f"features must have shape (B, C, L), got {_shape(features)}")
    batch, _, length = features.shape
    graph = token_graph(length, window)
    token = torch.arange(length, device=features.device)
    first = torch.zeros_like(token)
    if cu_seqlens is not None:
        _check_packed(features)
        first = cu_seqlens.long()[segments_of(cu_seqlens, features).long()]
    cost = edge_weights(features, graph, metric)
    if length == 1:
        return Tree.from_parents(cost.new_zeros((batch, 1), dtype=torch.int32))
    # The candidates of each token, the earliest first, since of equal costs the lower edge index counts. The graph lists
    # the edges of token s to s+1 ... s+window behind those of the tokens before it.
    back = torch.arange(window, 0, -1, device=features.device)
    candidate = token[:, None] - back
    ahead = (length - 1 - token).clamp(max=window)
    edge = (ahead.cumsum(0) - ahead)[candidate.clamp(min=0)] + back - 1
    there = candidate >= first[:, None]
    # In double precision there is room for the order beyond +inf: NaN, and then the tokens that aren't there.
    cost = cost.double().nan_to_num(nan=1e40, posinf=1e39, neginf=-1e39)
    cost = cost[:, torch.where(there, edge, 0)].masked_fill(~there, float("inf"))
    parent = torch.where(token == first, token, token - window + cost.argmin(2))
    return Tree.from_parents(parent.to(torch.int32), forest=cu_seqlens is not None)


def flipped_token_tree(features: Tensor, context_length: int | Sequence[int] | Tensor | None = None, *, window: int = 3,
                       metric: str = "cosine") -> Tree:
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
        features: (B, C, L) in the order of time.
        context_length, window: as for `token_graph`; the originals take the least context length of a batch for all.
        metric: as for `build_tree`.

    Returns a Tree over flipped vertices. Raises ValueError and TypeError as `build_tree` does. O(B L window C) in time;
    deterministic. No gradient flows through a tree.

    >>> flipped_token_tree(torch.tensor([[[0.0, 5.0, 1.0, 4.0]]]), metric="l2").parent
    tensor([[0, 0, 0, 1]], dtype=torch.int32)

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.3.
    """
    _check_floats("features", features)
    if features.ndim != 3:
        raise ValueError(f"features must have shape (B, C, L), got {_shape(features)}")
    return build_tree(features.flip(2), "tokens", metric=metric, window=window, context_length=context_length)
