"""The custom ops: one `torch.ops.treescan` op for every function of the native library.

Schemas and the kernels for the CPU and CUDA are in libtreescan_torch (torch_ops/), which programs without Python load as well.
Here is what has to be Python: fake kernels, and what autograd, vmap and autocast need to know. A tensor on another device is an
error, never a silent copy.

A scan's derivative is made of scans, in every mode of differentiation and to any order:

    reverse   `_differentiable_backward`; where no further derivative is wanted, the fused op `scan_backward`
    forward   `_tangent`

Sources: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2 (the scan and its
gradient); Song et al., "Learnable Tree Filter for Structure-preserving Feature Transform", section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor
from torch._functorch.autograd_function import VmapInfo
from torch._functorch.utils import enable_single_level_autograd_function
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from . import _native as _native  # which loads the library
from .graph import Graph

P = ParamSpec("P")
T = TypeVar("T")

ADJOINTS = {"up": "down", "down": "up", "both": "both"}

_HALVES = (torch.float16, torch.bfloat16)  # whose sums and products are float32's, in derivatives of all kinds

_library: torch.library.Library = torch.library.Library("treescan", "FRAGMENT")


def choice(name: str, value: str, choices: Mapping[str, T]) -> T:
    """choices[value], or a ValueError that lists them."""
    try:
        return choices[value]
    except (KeyError, TypeError):
        listed = ", ".join(repr(key) for key in choices)
        raise ValueError(f"{name} must be one of {listed}, got {value!r}") from None


def _complete(name: str, fake: Callable[P, T], differentiable: bool = False) -> OpOverload[P, T]:
    """Gives the library's op `name` what of it is Python, and returns it."""
    torch.library.register_fake(f"treescan::{name}", fake, lib=_library)
    if not differentiable:
        # Trees, and the costs that pick them, are constants to autograd.
        _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    op: OpOverload[P, T] = getattr(torch.ops.treescan, name).default
    return op


# ---- Scans ----

scan: OpOverload[[Tensor, Tensor, Tensor, Tensor, str], Tensor] = _complete(
    "scan", lambda x, weights, parent, order, direction: torch.empty_like(x), differentiable=True)

# For callers that have memory for the result. It can't be differentiated.
scan_out: OpOverload[..., None] = _complete("scan_out", lambda *arguments, out: None)


def _count_write(keys: torch._C.DispatchKeySet, *arguments: Any, out: Tensor) -> None:
    # Whoever has saved this memory for a backward pass is to notice. The dispatcher counts for torch's own ops only.
    if not out.is_inference():
        torch.autograd.graph.increment_version(out)
    with torch._C._AutoDispatchBelowADInplaceOrView():
        scan_out.redispatch(keys & torch._C._after_ADInplaceOrView_keyset, *arguments, out=out)


_library.impl("scan_out", _count_write, "ADInplaceOrView", with_keyset=True)

scan_backward: OpOverload[[Tensor, Tensor, Tensor, Tensor, Tensor, str], tuple[Tensor, Tensor]] = _complete(
    "scan_backward",
    lambda grad, x, weights, parent, order, direction: (torch.empty_like(x), torch.empty_like(weights)),
    differentiable=True,
)


def as_index(values: Tensor) -> Tensor:
    """Vertices or edges as indices for torch's own functions. A call that failed on a GPU has written -1, at which torch
    would give the device up before anybody could say what was wrong."""
    return values.clamp(min=0).long()


def vertex_numbers(parent: Tensor) -> Tensor:
    """The number of each vertex, int64 in parent's shape. Made from it, so that for a DTensor it is one too."""
    return torch.ones_like(parent).cumsum(1) - 1


class _Edges:
    """Tree edges as torch sees them, for the derivatives that the library has no fused function for."""

    def __init__(self, parent: Tensor, like: Tensor, spanning: bool = False):
        self.shape = like.shape
        self.flat = (*like.shape[:2], parent.shape[1])
        # Out here a vertex in no tree is as good as a root: nothing reaches it, and scans leave zeros there.
        self.above = as_index(parent) if spanning else torch.where(parent < 0, vertex_numbers(parent), parent)
        self.parent = self.above[:, None].expand(self.flat)

    def without_root(self, values: Tensor) -> Tensor:
        root = (self.above == vertex_numbers(self.above)).reshape(-1, 1, *self.shape[2:])
        return torch.where(root, torch.zeros_like(values), values)

    def of_parent(self, values: Tensor) -> Tensor:
        return values.reshape(self.flat).gather(2, self.parent).reshape(self.shape)

    def sum_of_children(self, values: Tensor) -> Tensor:
        values = values.reshape(self.flat)
        return torch.zeros_like(values).scatter_add(2, self.parent, values).reshape(self.shape)


def gather_parents(values: Tensor, parent: Tensor, spanning: bool = False) -> Tensor:
    """values[v] of each vertex's parent, for values (B, C, V) or (B, C, H, W) and parent (B|1, V); differentiable.

    A vertex without a parent gets its own value. Where trees are known to be `spanning`, nobody looks for such vertices."""
    return _Edges(parent, values, spanning).of_parent(values)


def _differentiable_backward(grad: Tensor, x: Tensor, weights: Tensor, parent: Tensor, order: Tensor,
                             direction: str) -> tuple[Tensor, Tensor]:
    """What `scan_backward` computes, from ops that can be differentiated again."""
    if x.dtype in _HALVES:
        exact = _differentiable_backward(grad.float(), x.float(), weights.float(), parent, order, direction)
        return exact[0].to(x.dtype), exact[1].to(x.dtype)

    def scanned(values: Tensor, along: str) -> Tensor:
        return scan(values, weights, parent, order, along)

    edges = _Edges(parent, x)
    w = edges.without_root(weights)
    grad_x = scanned(grad, ADJOINTS[direction])
    if direction == "up":
        grad_weights = scanned(x, "up") * edges.of_parent(grad_x)
    elif direction == "down":
        grad_weights = edges.of_parent(scanned(x, "down")) * grad_x
    else:
        u, y = scanned(x, "up"), scanned(x, "both")
        grad_u = scanned(grad, "up")
        grad_weights = grad_u * (edges.of_parent(y) - w * u) + u * (edges.of_parent(grad_x) - w * grad_u)
    return grad_x, edges.without_root(grad_weights)


class Context(Protocol):
    """What torch hands to the methods of an autograd function."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...
    def save_for_forward(self, *tensors: Tensor | None) -> None: ...
    def set_materialize_grads(self, value: bool) -> None: ...


def saved(index: Tensor) -> Tensor:
    """A tree's tensor as autograd will keep it: one that was made in inference mode has to be copied."""
    return index.clone() if index.is_inference() else index


class _ScanContext(Context, Protocol):
    direction: str


class _Scan(_SingleLevelFunction):
    # Of torch's C base class, which its stubs leave out.
    apply: ClassVar[Callable[[Tensor, Tensor, Tensor, Tensor, str], Tensor]]

    @staticmethod
    def forward(ctx: _ScanContext, x: Tensor, weights: Tensor, parent: Tensor, order: Tensor, direction: str) -> Tensor:
        ctx.direction = direction
        tensors = x, weights, saved(parent), saved(order)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        # A Function turns differentiation off, which under torch.func must stay on for the levels below this one.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
            return scan(x, weights, parent, order, direction)

    @staticmethod
    def backward(ctx: _ScanContext, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        x, weights, parent, order = ctx.saved_tensors
        grad_weights: Tensor | None
        if ctx.needs_input_grad[1]:
            grad_x, grad_weights = scan_backward(grad, x, weights, parent, order, ctx.direction)
        else:
            grad_x, grad_weights = scan(grad, weights, parent, order, ADJOINTS[ctx.direction]), None
        return grad_x, grad_weights, None, None, None

    @staticmethod
    def jvp(ctx: _ScanContext, x_tangent: Tensor, weights_tangent: Tensor, *_: None) -> Tensor:
        # As in forward: stay differentiable for torch.func's levels below, but without this level's own tangents.
        with forward_ad._set_fwd_grad_enabled(True):
            x, weights, parent, order = (forward_ad.unpack_dual(tensor, level=0).primal for tensor in ctx.saved_tensors)
            return _tangent(x_tangent, weights_tangent, x, weights, parent, order, ctx.direction)


def _tangent(dx: Tensor, dw: Tensor, x: Tensor, weights: Tensor, parent: Tensor, order: Tensor, direction: str) -> Tensor:
    """The tangent of a scan's output, from those of x and weights, which torch gives as zeros where there is none."""
    if x.dtype in _HALVES:
        return _tangent(dx.float(), dw.float(), x.float(), weights.float(), parent, order, direction).to(x.dtype)

    def scanned(values: Tensor, along: str) -> Tensor:
        return scan(values, weights, parent, order, along)

    edges = _Edges(parent, x)
    w, dw = edges.without_root(weights), edges.without_root(dw)
    if direction == "down":
        return scanned(dx + dw * edges.of_parent(scanned(x, "down")), "down")
    u = scanned(x, "up")
    du = scanned(dx + edges.sum_of_children(dw * u), "up")
    if direction == "up":
        return du
    # y[v] = u[v] + w[v] (y[p] - w[v] u[v]), differentiated, is a recurrence from the root down again.
    y = scanned(x, "both")
    return scanned(du * (1 - w * w) + dw * (edges.of_parent(y) - 2 * w * u), "down")


def is_differentiated(*tensors: Tensor) -> bool:
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    if forward_ad._current_level < 0 and not torch._C._are_functorch_transforms_active():
        return False  # the common case, and much cheaper to see
    # At the level given: under torch.compile forward_ad doesn't know that torch.func has entered one.
    return any(forward_ad.unpack_dual(tensor, level=0).tangent is not None for tensor in tensors)


def _scan_autograd(x: Tensor, weights: Tensor, parent: Tensor, order: Tensor, direction: str) -> Tensor:
    if is_differentiated(x, weights):
        # The dispatcher calls this once for each level of torch.func's transforms, so each time for that level alone.
        with enable_single_level_autograd_function():
            return _Scan.apply(x, weights, parent, order, direction)
    with torch._C._AutoDispatchBelowAutograd():
        return scan(x, weights, parent, order, direction)


def _scan_backward_autograd(grad: Tensor, x: Tensor, weights: Tensor, parent: Tensor, order: Tensor,
                            direction: str) -> tuple[Tensor, Tensor]:
    if is_differentiated(grad, x, weights):
        return _differentiable_backward(grad, x, weights, parent, order, direction)
    with torch._C._AutoDispatchBelowAutograd():
        return scan_backward(grad, x, weights, parent, order, direction)


def _scan_vmap(info: VmapInfo, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
    """Both scan ops: the mapped dimension joins the channels, or, if the trees differ along it, the batch."""
    *tensors, parent, order, direction = arguments
    *tensor_dims, parent_dim, order_dim, _ = in_dims
    size = info.batch_size
    if parent_dim is None and order_dim is None:
        at = 1
    else:
        at = 0
        batch = tensors[0].shape[1 if tensor_dims[0] == 0 else 0]
        parent, order = (_fold(tree, dim, size, 0, batch) for tree, dim in ((parent, parent_dim), (order, order_dim)))
    folded = [_fold(tensor, dim, size, at) for tensor, dim in zip(tensors, tensor_dims)]
    if len(folded) == 2:
        x, weights = folded
        return _unfold(scan(x, weights, parent, order, direction), size, at), at
    grad, x, weights = folded
    outputs = scan_backward(grad, x, weights, parent, order, direction)
    return tuple(_unfold(output, size, at) for output in outputs), (at, at)


def _fold(tensor: Tensor, dim: int | None, size: int, at: int = 0, batch: int | None = None) -> Tensor:
    """`tensor` with the mapped dimension `dim` (None: the same for all) merged into the one at `at`."""
    mapped = tensor.unsqueeze(at) if dim is None else tensor.movedim(dim, at)
    sizes = list(mapped.shape)
    sizes[at] = size
    if batch is not None:
        sizes[at + 1] = batch
    return mapped.expand(sizes).flatten(at, at + 1)


def _unfold(tensor: Tensor, size: int, at: int = 0) -> Tensor:
    unfolded: Tensor = tensor.unflatten(at, (size, tensor.shape[at] // size))
    return unfolded


for _name, _autograd in (("scan", _scan_autograd), ("scan_backward", _scan_backward_autograd)):
    _library.impl(_name, _autograd, "Autograd")
    torch.library.register_vmap(f"treescan::{_name}", _scan_vmap, lib=_library)
    for _device in ("cpu", "cuda"):
        # As for cumsum: a long sum of products would lose too much in a half type.
        torch.library.register_autocast(f"treescan::{_name}", _device, torch.float32, lib=_library)


# ---- Graphs and trees ----

def _new_tree(like: Tensor, batch: int, vertices: int) -> tuple[Tensor, Tensor, Tensor]:
    parent = like.new_empty((batch, vertices), dtype=torch.int32)
    return parent, torch.empty_like(parent), torch.empty_like(parent)


def _new_tree_of_edges(like: Tensor, batch: int, vertices: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parent, order, depth = _new_tree(like, batch, vertices)
    return parent, order, depth, torch.empty_like(parent)


def _new_spanning_tree(cost: Tensor, kind: str, sizes: Sequence[int],
                       *options: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width, _, length, _, listed = sizes
    vertices = height * width if kind == "grid" else listed if kind == "edges" else length
    return _new_tree_of_edges(cost, cost.shape[0], vertices)


def _new_edge_weights(features: Tensor, kind: str, sizes: Sequence[int], context_length: Sequence[int] | None,
                      edge_index: Tensor | None, metric: str, exp: bool, dtype: torch.dtype | None = None) -> Tensor:
    graph = Graph.from_arguments(kind, sizes, context_length, edge_index)
    return features.new_empty((features.shape[0], graph.num_edges), dtype=dtype or torch.float32)


edge_weights: OpOverload[
    [Tensor, str, Sequence[int], Sequence[int] | None, Tensor | None, str, bool, torch.dtype | None], Tensor
] = _complete("edge_weights", _new_edge_weights)

minimum_spanning_tree: OpOverload[
    [Tensor, str, Sequence[int], Sequence[int] | None, Tensor | None, bool, Tensor, Tensor | None],
    tuple[Tensor, Tensor, Tensor, Tensor],
] = _complete("minimum_spanning_tree", _new_spanning_tree)

random_spanning_tree: OpOverload[
    [Tensor, str, Sequence[int], Sequence[int] | None, Tensor | None, int, Tensor],
    tuple[Tensor, Tensor, Tensor, Tensor],
] = _complete("random_spanning_tree", _new_spanning_tree)

tree_from_edges: OpOverload[[Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor, Tensor]] = _complete(
    "tree_from_edges", lambda edges, root, by_edge: _new_tree_of_edges(edges, edges.shape[0], edges.shape[1] + 1))

tree_from_parents: OpOverload[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]] = _complete(
    "tree_from_parents", lambda parent, root: _new_tree(parent, *parent.shape))

forest_from_parents: OpOverload[[Tensor], tuple[Tensor, Tensor, Tensor]] = _complete(
    "forest_from_parents", lambda parent: _new_tree(parent, *parent.shape))


def _graph_op_vmap(op: OpOverload[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """The ops that take a tensor of batch items and a graph: the mapped dimension joins the batch."""

    def rule(info: VmapInfo, in_dims: Sequence[int | None], batched: Tensor, kind: str, sizes: Sequence[int],
             context_length: Sequence[int] | None, edge_index: Tensor | None, *options: object) -> tuple[Any, Any]:
        size = info.batch_size
        batch = batched.shape[1 if in_dims[0] == 0 else 0]
        if context_length is not None and len(context_length) > 1:
            context_length = list(context_length) * size
        edge_dim = in_dims[4]
        if edge_index is not None and (edge_dim is not None or edge_index.ndim == 3):
            if edge_dim is not None and edge_index.ndim == 3:  # one list for a whole batch
                edge_index, edge_dim = edge_index.movedim(edge_dim, 0).unsqueeze(1), 0
            edge_index = _fold(edge_index, edge_dim, size, 0, batch)
        folded = [_fold(option, dim, size, 0, batch) if isinstance(option, Tensor) else option
                  for option, dim in zip(options, in_dims[5:])]
        outputs = op(_fold(batched, in_dims[0], size), kind, sizes, context_length, edge_index, *folded)
        if isinstance(outputs, Tensor):
            return _unfold(outputs, size), 0
        return tuple(_unfold(output, size) for output in outputs), (0,) * len(outputs)

    return rule


for _op in (edge_weights, minimum_spanning_tree):
    torch.library.register_vmap(_op, _graph_op_vmap(_op), lib=_library)


def _tree_op_vmap(op: OpOverload[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """The ops that take trees, and perhaps their roots: the mapped dimension joins the batch."""

    def rule(info: VmapInfo, in_dims: Sequence[int | None], trees: Tensor, *options: object) -> tuple[Any, Any]:
        size = info.batch_size
        batch = trees.shape[1 if in_dims[0] == 0 else 0]
        folded = [_fold(option, dim, size, 0, batch) if isinstance(option, Tensor) else option
                  for option, dim in zip(options, in_dims[1:])]
        outputs = op(_fold(trees, in_dims[0], size), *folded)
        return tuple(_unfold(output, size) for output in outputs), (0,) * len(outputs)

    return rule


for _tree_op in (tree_from_edges, tree_from_parents, forest_from_parents):
    torch.library.register_vmap(_tree_op, _tree_op_vmap(_tree_op), lib=_library)
