"""The functions: from features to edge weights, to trees, to scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, SupportsIndex, TypeAlias

import torch
from torch import Tensor

from . import ops
from ._arguments import flag, integer, kind
from ._indices import Indices, are_indices
from .graph import Graph, chain_graph, grid_graph, token_graph
from .tree import Root, Tree, root_tensor

# What `direction` and `metric` may be, for annotations elsewhere as well.
Direction: TypeAlias = Literal["up", "down", "both"]
Metric: TypeAlias = Literal["cosine", "l2", "l1"]
Contexts: TypeAlias = "SupportsIndex | Sequence[SupportsIndex] | Indices"

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Types of at most 16 bits, which float32 holds exactly, and of 32.
_NARROW = (torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.uint16, torch.int16)
_INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64)
_EXACT_COSTS = (torch.float32, torch.float64, torch.int32, torch.int64)
METRICS: dict[str, Metric] = {"cosine": "cosine", "l2": "l2", "l1": "l1"}
DIRECTIONS: dict[str, Direction] = {"up": "up", "down": "down", "both": "both"}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _check_floats(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in _FLOATS:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {tensor.dtype}")
    _check_device(name, tensor)


def _check_device(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "a nested tensor" if tensor.is_nested else str(tensor.layout)
        raise TypeError(f"{name} must be an ordinary dense tensor, got {kind}")
    if not (tensor.is_cpu or tensor.is_cuda or tensor.is_meta):
        raise ValueError(f"{name} must be on the CPU or a CUDA device, got {tensor.device}")


def tree_features(name: str, features: Tensor) -> Tensor:
    """Features that a tree is built from, which may be integers, in a dtype that costs are computed in."""
    if isinstance(features, Tensor) and features.dtype in _INTEGERS:
        _check_device(name, features)
        # Sums of so many squares of 8 bits are exact in float32.
        short = features.dtype in (torch.uint8, torch.int8) and features.ndim > 1 and features.shape[1] <= 256
        return features.to(torch.float32 if short else torch.float64)
    _check_floats(name, features)
    return features


def _graph_for(graph: str | Graph, name: str, tensor: Tensor, window: SupportsIndex,
               context_length: Contexts | None) -> Graph:
    """The graph that `graph` names, for features `tensor` of shape (B, C, H, W) or (B, C, L)."""
    if isinstance(graph, Graph):
        if tensor.ndim not in (3, 4):
            raise ValueError(f"{name} must have shape (B, C, V) or (B, C, H, W), got {_shape(tensor)}")
        if tensor.ndim == 4 and graph.kind == "grid":
            if tensor.shape[2] != graph.height or tensor.shape[3] != graph.width:
                raise ValueError(f"graph is {graph}, but {name} has shape {_shape(tensor)}")
        elif _num_vertices(tensor) != graph.num_vertices:
            raise ValueError(f"graph is {graph} with {graph.num_vertices} vertices, but {name} has shape "
                             f"{_shape(tensor)} with {_num_vertices(tensor)}")
        return graph
    if not isinstance(graph, str) or graph not in ("grid", "tokens", "chain"):
        raise ValueError(f"graph must be 'grid', 'tokens', 'chain', a Graph or a Tree, got {graph!r}")
    wanted = 4 if graph == "grid" else 3
    if tensor.ndim != wanted:
        shape = "(B, C, H, W)" if graph == "grid" else "(B, C, L)"
        raise ValueError(f"{name} must have shape {shape} for graph={graph!r}, got {_shape(tensor)}")
    if graph == "grid":
        return grid_graph(tensor.shape[2], tensor.shape[3])
    if graph == "tokens":
        return token_graph(tensor.shape[2], window, context_length)
    return chain_graph(tensor.shape[2])


def _num_vertices(tensor: Tensor) -> int:
    shape = tensor.shape
    return shape[2] if len(shape) == 3 else shape[2] * shape[3]


def check_tree(name: str, tree: Tree, batch: int, vertices: int, other: str, x: Tensor) -> None:
    """Raises unless `tree` is one of so many vertices and of that batch size or 1, as `other`, x, has."""
    if not isinstance(tree, Tree):
        raise TypeError(f"{name} must be a Tree, got {kind(tree)}")
    parent, order = tree.parent, tree.order
    shape = parent.shape
    if len(shape) != 2 or shape[1] != vertices or shape[0] not in (1, batch):
        raise ValueError(f"{name}'s parent must have shape ({batch}, {vertices}) or (1, {vertices}) for {other} of shape "
                         f"{_shape(x)}, got {_shape(parent)}")
    if parent.dtype != torch.int32 or order.dtype != torch.int32:
        wrong = "parent" if parent.dtype != torch.int32 else "order"
        raise TypeError(f"{name}'s {wrong} must be an int32 tensor, got {kind(getattr(tree, wrong))}: Tree.from_parents takes "
                        "others")


def _spanning_tree(graph: Graph, cost: Tensor, maximum: bool, root: Root, mask: Tensor | None) -> Tree:
    if mask is not None:
        return spanning_forest(graph, cost, maximum, root, _segments_of_mask(mask, graph, cost.shape[0]))
    roots = root_tensor(root, cost.shape[0], cost)
    maximum = flag("maximum", maximum)
    parent, order, depth, edge = ops.minimum_spanning_tree(cost, *graph.arguments, maximum, roots, None)
    # A view takes as long as a tenth of a small image's tree. The caller's own tensor may change, so that isn't kept.
    roots = roots if cost.shape[0] == 1 and type(root) is int else order[:, 0]
    return Tree(parent, order, depth, roots, edge)


def spanning_forest(graph: Graph, cost: Tensor, maximum: bool, root: Root, segments: Tensor) -> Tree:
    """The minimum spanning forest of a graph without the edges between segments: labels, (B|1, V) int32, -1 for none."""
    roots = root_tensor(root, cost.shape[0], cost)
    return Tree.of_forest(*ops.minimum_spanning_tree(cost, *graph.arguments, flag("maximum", maximum), roots, segments))


def _segments_of_mask(mask: Tensor, graph: Graph, batch: int) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a bool tensor, got {mask.dtype if isinstance(mask, Tensor) else type(mask).__name__}")
    shapes = [(graph.num_vertices,)] + [(graph.height, graph.width)] * (graph.kind == "grid")
    if mask.ndim < 2 or mask.shape[0] not in (1, batch) or tuple(mask.shape[1:]) not in shapes:
        raise ValueError(f"mask must have shape {(batch, *shapes[-1])} for {graph}, got {_shape(mask)}")
    return mask.flatten(1).to(torch.int32) - 1


def _check_cost(graph: Graph, cost: Tensor) -> Tensor:
    if not isinstance(graph, Graph):
        raise TypeError(f"graph must be a Graph such as grid_graph returns, got {type(graph).__name__}")
    if not isinstance(cost, Tensor):
        raise TypeError(f"cost must be a tensor, got {type(cost).__name__}")
    _check_device("cost", cost)
    if cost.ndim != 2 or cost.shape[1] != graph.num_edges:
        raise ValueError(f"cost must have shape (B, {graph.num_edges}) for {graph}, got {_shape(cost)}")
    if cost.dtype in _EXACT_COSTS:
        return cost.detach() if cost.requires_grad else cost
    if cost.dtype in _NARROW:
        return cost.detach().to(torch.float32)
    if cost.dtype == torch.uint32:
        return cost.to(torch.int64)
    raise TypeError(f"cost must be of a floating dtype or integers of at most 64 bits with a sign or 32 without, got {cost.dtype}")


def cost_keys(cost: Tensor) -> Tensor:
    """The order of costs as int64: -0 equals +0, and NaN comes last, below 2^63 - 1. Of the bits, since comparisons of floats
    take the smallest numbers for 0 where the processor is told to."""
    whole, infinity = (torch.int64, 0x7FF0 << 48) if cost.dtype == torch.float64 else (torch.int32, 0x7F80 << 16)
    bits = cost.view(whole).to(torch.int64)
    magnitude = bits & (2**63 - 1 if whole == torch.int64 else 2**31 - 1)
    return torch.where(bits < 0, -magnitude, magnitude).masked_fill(magnitude > infinity, 2**63 - 2)


def edge_weights(features: Tensor, graph: Graph, metric: Metric = "cosine", *, exp: bool = False,
                 dtype: torch.dtype = torch.float32) -> Tensor:
    """The cost of every edge {a, b} of a graph, from the features f at its ends.

        "cosine"  -f[a]·f[b] / (|f[a]| |f[b]|), 0 if either is 0
        "l2"      Σ_c (f[a] - f[b])²
        "l1"      Σ_c |f[a] - f[b]|

    Arguments:
        features: (B, C, V), or (B, C, H, W) for a grid: float32, float64, float16, bfloat16 or integers but uint32 and
            uint64, in any strides. Half types and 8-bit integers of at most 256 channels are computed with in float32, other
            integers in float64.
        graph: what `grid_graph`, `token_graph`, `chain_graph` or `edge_graph` returned.
        metric: "cosine", "l2" or "l1".
        exp: whether to take exp of it. No tree needs that: it keeps the order and costs digits.

        dtype: of the result, float32 or float64. float64 is computed in float64 whatever the features are; it is what
            `build_tree` decides by where features are float64 or integers that float32 has no room for.

    Returns (B, E) of that dtype, a constant to autograd: costs decide a tree, which has no derivative
    (`treescan.reference.edge_weights` is differentiable). Edges that an item lacks cost +inf, as do differences that the
    dtype has no room for. The cosine is that of vectors of any finite length.

    Raises ValueError for another metric, sizes that don't fit together or an exp that the dtype cannot hold, TypeError
    for another dtype. O(B E C) in time, O(B E) in memory. Channels are summed in one fixed order, so the result has the
    same bits for any number of threads and any instruction set.

    >>> edge_weights(torch.tensor([[[0.0, 1.0, 3.0]]]), chain_graph(3), "l2")
    tensor([[1., 4.]])

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2 (cosine); Song et
    al., "Learnable Tree Filter for Structure-preserving Feature Transform", section 3.1 (squared distance).
    """
    if not isinstance(graph, Graph):
        raise TypeError(f"graph must be a Graph such as grid_graph returns, got {type(graph).__name__}")
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    features = tree_features("features", features)
    exp = flag("exp", exp)
    ops.choice("metric", metric, METRICS)
    _graph_for(graph, "features", features, 0, None)
    return _edge_weights(features, graph, metric, exp, dtype)


def _edge_weights(features: Tensor, graph: Graph, metric: str, exp: bool, dtype: torch.dtype) -> Tensor:
    features = features.detach().to(torch.float64 if dtype == torch.float64 else features.dtype)
    return ops.edge_weights(features, *graph.arguments, metric, exp, dtype)


def deciding_costs(name: str, features: Tensor, graph: Graph, metric: Metric = "cosine") -> Tensor:
    """The costs that a tree of these features is decided by: `edge_weights` in a dtype with room for their differences."""
    features = tree_features(name, features)
    ops.choice("metric", metric, METRICS)
    return _edge_weights(features, graph, metric, False, torch.float64 if features.dtype == torch.float64 else torch.float32)


def minimum_spanning_tree(graph: Graph, cost: Tensor, *, maximum: bool = False, root: Root = 0,
                          mask: Tensor | None = None) -> Tree:
    """The spanning tree of least total cost, unique under the order (cost, edge index).

    Arguments:
        graph: what `grid_graph`, `token_graph`, `chain_graph` or `edge_graph` returned.
        cost: (B, E), of any floating dtype or integers but uint64: compared as they are. -0 equals +0, infinities are
            ordinary, NaN comes last.
        maximum: the tree of greatest cost, under the order (-cost, edge index); NaN comes last here too.
        root: a vertex, or (B,) indices with one for each item.
        mask: (B|1, V), or (B|1, H, W) for a grid, bool: True for vertices that take part. The others are in no tree. The
            result is then the minimum spanning forest, be it connected or not; each of its trees is rooted at `root` if
            that lies in it, else at its lowest vertex.

    Raises ValueError for a graph without a spanning tree (unless there is a mask), an index or a root out of range or sizes
    that don't fit, TypeError for a mask that isn't bool.
    O(B E) expected time, O(E) memory beside the tree; costs of float64 or integers of 32 and 64 bits are sorted first. The
    tree is the same on every run, for any number of threads.

    >>> minimum_spanning_tree(grid_graph(2, 2), torch.tensor([[1.0, 2.0, 4.0, 3.0]])).parent
    tensor([[0, 3, 0, 2]], dtype=torch.int32)
    >>> minimum_spanning_tree(chain_graph(4), torch.zeros(1, 3), mask=torch.tensor([[True, False, True, True]])).parent
    tensor([[ 0, -1,  2,  2]], dtype=torch.int32)

    Source: Borůvka, "O jistém problému minimálním" (1926); Xiao et al., "GrootVL: Tree Topology is All You Need in
    State Space Model", section 3.2.
    """
    return _spanning_tree(graph, _check_cost(graph, cost), maximum, root, mask)


def random_spanning_tree(graph: Graph, cost: Tensor, *, seed: SupportsIndex, root: Root = 0) -> Tree:
    """A random spanning tree that prefers cheap edges.

    Edges are drawn one by one without replacement, each with probability in proportion to exp(-cost), and kept unless
    they close a cycle.

    Arguments:
        graph, cost, root: as for `minimum_spanning_tree`. NaN is drawn last.
        seed: an integer in [0, 2^64); the same seed gives the same tree for any number of threads.

    Raises ValueError as `minimum_spanning_tree` does and for a seed out of range. O(B E) expected time.

    >>> graph = grid_graph(3, 3)
    >>> random_spanning_tree(graph, torch.zeros(1, graph.num_edges), seed=1).parent.shape
    torch.Size([1, 9])

    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006), for the drawing by sorted keys.
    """
    number = integer("seed", seed)
    if not 0 <= number < 2**64:
        raise ValueError(f"seed must be in [0, 2^64), got {number}")
    cost = _check_cost(graph, cost)
    roots = root_tensor(root, cost.shape[0], cost)
    signed = number - 2**64 if number >= 2**63 else number  # an op's integers are signed
    parent, order, depth, edge = ops.random_spanning_tree(cost, *graph.arguments, signed, roots)
    return Tree(parent, order, depth, order[:, 0], edge)


def build_tree(features: Tensor, graph: str | Graph = "grid", *, metric: Metric = "cosine", maximum: bool = False,
               root: Root = 0, window: SupportsIndex = 3,
               context_length: Contexts | None = None, mask: Tensor | None = None) -> Tree:
    """The minimum spanning tree of features: `edge_weights` and `minimum_spanning_tree` in one call.

    Arguments:
        features: (B, C, H, W) for "grid", (B, C, L) for "tokens" and "chain", of any strides and dtype that `edge_weights`
            takes. Trees of float64, and of integers that float32 has no room for, are decided in float64.
        graph: "grid" (4-connected), "tokens", "chain", or a Graph.
        metric, maximum, root, mask: as for those two functions.
        window, context_length: for graph="tokens", as for `token_graph`.

    Raises ValueError and TypeError as those functions do. O(B E C) in time, O(B E) in memory; deterministic. No
    gradient flows through a tree.

    >>> build_tree(torch.tensor([[[[0.0, 5.0], [1.0, 2.0]]]]), metric="l2").parent
    tensor([[0, 3, 0, 2]], dtype=torch.int32)

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2.
    """
    features = tree_features("features", features)
    graph = _graph_for(graph, "features", features, window, context_length)
    return _spanning_tree(graph, deciding_costs("features", features, graph, metric), maximum, root, mask)


def _tree_for_scan(x: Tensor, graph: str | Graph, guide: Tensor | None, metric: Metric, maximum: bool, root: Root,
                   window: SupportsIndex, context_length: Contexts | None, mask: Tensor | None) -> Tree:
    name, features = ("x", x) if guide is None else ("guide", guide)
    features = tree_features(name, features)
    graph = _graph_for(graph, name, features, window, context_length)
    if guide is not None and (features.shape[0] != x.shape[0] or _num_vertices(features) != _num_vertices(x)):
        raise ValueError(f"guide must have x's batch size and vertices, x has shape {_shape(x)}, guide {_shape(guide)}")
    ops.choice("metric", metric, METRICS)
    if graph.kind == "chain":  # whose one tree doesn't depend on features
        shared = mask is None and not (are_indices(root) and root.ndim == 1 and root.shape[0] > 1)
        cost = x.new_zeros((1 if shared else x.shape[0], graph.num_edges), dtype=torch.float32)
        return _spanning_tree(graph, cost, False, root, mask)
    return _spanning_tree(graph, deciding_costs(name, features, graph, metric), maximum, root, mask)


def tree_scan(x: Tensor, weights: Tensor, graph: str | Graph | Tree = "grid", *, direction: Direction = "both",
              guide: Tensor | None = None, metric: Metric = "cosine", maximum: bool = False, root: Root = 0,
              window: SupportsIndex = 3, context_length: Contexts | None = None,
              mask: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """State propagation along a tree, in time linear in its vertices.

    For every batch item and channel, with p the parent map of the tree and r its root:

        "up"    u[v] = x[v] + Σ_{c: p(c)=v} w[c]·u[c]
        "down"  d[r] = x[r];  d[v] = x[v] + w[v]·d[p(v)]
        "both"  y[r] = u[r];  y[v] = u[v] + w[v]·(y[p(v)] - w[v]·u[v])

    so that "both" sums over all pairs: y[i] = Σ_j (Π_{e on the path i..j} w_e)·x[j].

    Arguments:
        x: (B, C, H, W) or (B, C, L): float32, float64, float16 or bfloat16, in any strides. The half types are
            accumulated in float32.
        weights: w, of x's dtype and of a shape that broadcasts to x's; w[v] belongs to the edge between v and its
            parent, the root's is not used.
        graph: "grid" (4-connected), "tokens", "chain" or a Graph, of which the minimum spanning tree is built; or a
            Tree, which may have batch size 1 to serve all items. A Tree makes the arguments below `direction` unused.
        direction: "up" (leaves to root), "down" (root to leaves) or "both".
        guide: (B, any C, ...) features that the tree is built from, an 8-bit image for one; default x. No gradient flows through it.
        metric, maximum, root: as for `build_tree`.
        window, context_length: for graph="tokens", as for `token_graph`.
        mask: (B|1, V) or (B|1, H, W) bool, True for vertices that take part; y is 0 at the others. Where that disconnects
            the graph, every part has a tree of its own (see `minimum_spanning_tree`). Not beside a Tree, which has its own.
        out: where to write y, a tensor like x with memory of its own; only where no gradient is wanted. For large images
            new memory costs about as much as the scan.

    Returns y, with x's shape and dtype and, if x is dense, its strides. Differentiable in x and weights to any order,
    in reverse and in forward mode; the gradient of the root's weight is 0. Under autocast it computes in float32, as
    cumsum does.

    Raises ValueError for shapes that don't fit together, an unknown option, a tensor on another device or a `graph`
    that isn't a tree, TypeError for another dtype or for x and weights of different ones. O(B C V) in time; memory for
    the output and a tile per thread; x, weights and the tree are kept for the gradient. Deterministic: the same bits
    for any number of threads.

    >>> x = torch.ones(1, 1, 2, 2)
    >>> tree_scan(x, torch.full_like(x, 0.5), graph="grid")
    tensor([[[[2.2500, 2.2500],
              [1.8750, 1.8750]]]])

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2, equations 5 to 7.
    """
    _check_floats("x", x)
    if x.ndim != 3 and x.ndim != 4:
        raise ValueError(f"x must have shape (B, C, H, W) or (B, C, L), got {_shape(x)}")
    _check_floats("weights", weights)
    if weights.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"weights must have x's dtype {x.dtype}, got {weights.dtype}")
    if weights.device != x.device:
        raise ValueError(f"weights must be on x's device {x.device}, got {weights.device}")
    if weights.shape != x.shape:
        if weights.ndim != x.ndim or any(w != 1 and w != n for w, n in zip(weights.shape, x.shape)):
            raise ValueError(f"weights must broadcast to x's shape {_shape(x)}, got {_shape(weights)}")
        weights = weights.expand(x.shape)
    ops.choice("direction", direction, ops.ADJOINTS)
    if isinstance(graph, Tree):
        if mask is not None:
            raise ValueError("mask can't be given beside a Tree: give it to what builds the tree")
        check_tree("graph", graph, x.shape[0], _num_vertices(x), "x", x)
        parent, order = graph.parent, graph.order
    else:
        tree = _tree_for_scan(x, graph, guide, metric, maximum, root, window, context_length, mask)
        parent, order = tree.parent, tree.order
    if out is not None:
        return _scan_into(out, x, weights, parent, order, direction)
    return ops.scan(x, weights, parent, order, direction)


def _scan_into(out: Tensor, x: Tensor, weights: Tensor, parent: Tensor, order: Tensor, direction: Direction) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a tensor, got {type(out).__name__}")
    if out.shape != x.shape or out.dtype != x.dtype or out.device != x.device:
        raise ValueError(f"out must be like x, {x.dtype} of shape {_shape(x)} on {x.device}, got {out.dtype} of shape "
                         f"{_shape(out)} on {out.device}")
    if ops.is_differentiated(x, weights, out):
        raise RuntimeError("out can't be given where a derivative is wanted: x, weights or out requires or carries one")
    if torch.compiler.is_compiling() or out.is_neg():  # a compiler takes it from here; negated memory isn't what it is
        return out.copy_(ops.scan(x, weights, parent, order, direction))
    if out.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError("out was made in torch.inference_mode() and can't be written to outside of it: give a clone of it")
    if not out.is_meta and out.untyped_storage().data_ptr() in (
            x.untyped_storage().data_ptr(), weights.untyped_storage().data_ptr()) and out.numel():
        raise ValueError("out must have memory of its own, but shares it with x or weights")
    ops.scan_out(x, weights, parent, order, direction, out=out)
    return out
