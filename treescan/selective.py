"""The selective scan: a state space model's recurrence along a tree, whose states are never in memory."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from . import ops, ops_selective
from ._arguments import flag
from .functional import Direction, _check_floats, _num_vertices, _shape, check_tree
from .tree import Tree

_DIRECTIONS = {"up": "up", "down": "down", "both": "both"}


def _check_like(name: str, tensor: Tensor | None, u: Tensor) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.is_complex():
        raise TypeError(f"{name} must be real: complex states have no kernel, got {tensor.dtype}")
    _check_floats(name, tensor)
    if tensor.device != u.device:
        raise ValueError(f"{name} must be on u's device {u.device}, got {tensor.device}")
    return tensor


def check_parameter(name: str, tensor: Tensor, u: Tensor, shape: tuple[int | None, ...], spelled: str) -> Tensor:
    """A parameter of that shape, in the type that is computed in."""
    _check_like(name, tensor, u)
    if tensor.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, tensor.shape)):
        raise ValueError(f"{name} must have shape {spelled} for u of shape {_shape(u)}, got {_shape(tensor)}")
    return tensor.to(ops_selective.computed_dtype(u.dtype))


def check_signal(name: str, tensor: Tensor | None, u: Tensor) -> Tensor:
    """A tensor of u's dtype."""
    signal = _check_like(name, tensor, u)
    if signal.dtype != u.dtype and not torch.is_autocast_enabled(u.device.type):
        raise TypeError(f"{name} must have u's dtype {u.dtype}, got {signal.dtype}")
    return signal


def _factor(name: str, factor: Tensor, u: Tensor, states: int, groups: int | None) -> Tensor:
    """B or C as the op takes them: (D, N), or (B, G, N, V)."""
    _check_like(name, factor, u)
    if factor.ndim == 2:
        return check_parameter(name, factor, u, (u.shape[1], states), f"(D, N) = ({u.shape[1]}, {states})")
    check_signal(name, factor, u)
    given, place = factor, u.shape[2:]
    if factor.ndim == 2 + len(place):
        factor = factor.unsqueeze(1)
    if (factor.ndim != 3 + len(place) or factor.shape[0] != u.shape[0] or factor.shape[2] != states
            or factor.shape[3:] != place or factor.shape[1] < 1 or u.shape[1] % factor.shape[1]):
        raise ValueError(f"{name} must have shape (D, N), (B, N, ...) or (B, G, N, ...) with N = {states}, G a divisor of D "
                         f"and the rest as of u, whose shape is {_shape(u)}, got {_shape(given)}")
    if groups is not None and factor.shape[1] != groups:
        raise ValueError(f"{name} must have as many groups as B, {groups}, got {factor.shape[1]}")
    return factor.flatten(3)


@overload
def selective_tree_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, tree: Tree, D: Tensor | None = None,
                        z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
                        direction: Direction = "down", return_last_state: Literal[False] = False) -> Tensor: ...
@overload
def selective_tree_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, tree: Tree, D: Tensor | None = None,
                        z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
                        direction: Direction = "down", *, return_last_state: Literal[True]) -> tuple[Tensor, Tensor]: ...
@overload
def selective_tree_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, tree: Tree, D: Tensor | None = None,
                        z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
                        direction: Direction = "down",
                        return_last_state: bool = False) -> Tensor | tuple[Tensor, Tensor]: ...
def selective_tree_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, tree: Tree, D: Tensor | None = None,
                        z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
                        direction: Direction = "down",
                        return_last_state: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """Mamba's selective scan with a tree in place of the sequence, discretisation, read-out, skip and gate in one pass.

    With the step s = delta + delta_bias, or softplus of that, and p the parent map of the tree, every channel has N
    states h[n] that are scanned along the tree as by `tree_scan`: for "down"

        h[n, v] = exp(s[v] A[n])·h[n, p(v)] + s[v]·B[n, v]·u[v]
        y[v]    = (Σ_n C[n, v]·h[n, v] + D·u[v])·silu(z[v])

    and for "up" and "both" with those recurrences, exp(s[v] A[n]) being the weight between v and its parent. The decay
    is the receiving vertex's own. On a chain "down" is Mamba's `selective_scan_fn`.

    Arguments:
        u, delta: (B, D, L), or (B, D, H, W) for a grid: float32, float64, float16 or bfloat16, of one dtype, in any
            strides. The half types are accumulated in float32.
        A: (D, N), real; usually negative. Any floating dtype, as D and delta_bias: they are converted to float32
            (float64 if u is that).
        B, C: (B, N, L), (B, G, N, L) for G groups of D/G channels each, in u's dtype, with H, W in place of L for a
            grid; or (D, N), the same for all vertices, in any floating dtype.
        tree: a Tree of L vertices, of batch size B or 1.
        D: (D,), the skip; None for zeros.
        z: like u, the gate; None for none.
        delta_bias: (D,); None for zeros.
        delta_softplus: whether the step is softplus of delta + delta_bias.
        direction: "down" (root to leaves), "up" (leaves to root) or "both".
        return_last_state: whether to return h of the last vertex, L-1, as well. On a chain with "down" it is the state
            after the last token, Mamba's last state; it is zero if the vertex is in no tree.

    Returns y, like u; with `return_last_state` (y, (B, D, N) float32 or float64). Differentiable once, in reverse, in all
    eight tensors, through the last state too; a second derivative and forward mode raise RuntimeError. Under autocast it
    computes in float32.

    Raises ValueError for shapes that don't fit together, an unknown direction or a tensor on another device, TypeError
    for other dtypes, complex ones among them. O(B D N L) in time. Memory for the outputs, the inputs kept for the
    gradient, and a tile of channels per thread: nothing of size B D N L, forward or backward; the backward pass computes
    the states anew. Deterministic: the same bits for any number of threads and any instruction set.

    >>> from treescan import Tree
    >>> chain = Tree.from_parents(torch.tensor([[0, 0, 1]]))
    >>> u, delta, B, C = torch.ones(1, 1, 3), torch.ones(1, 1, 3), torch.ones(1, 2, 3), torch.ones(1, 2, 3)
    >>> selective_tree_scan(u, delta, torch.tensor([[0.0, -1.0]]), B, C, chain)
    tensor([[[2.0000, 3.3679, 4.5032]]])

    Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", section 3.2, algorithm 2; Xiao
    et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2.
    """
    _check_like("u", u, u)
    delta_softplus, return_last_state = flag("delta_softplus", delta_softplus), flag("return_last_state", return_last_state)
    if u.ndim not in (3, 4):
        raise ValueError(f"u must have shape (B, D, L) or (B, D, H, W), got {_shape(u)}")
    ops.choice("direction", direction, _DIRECTIONS)
    for name, signal in (("delta", delta), ("z", z)):
        if name == "z" and z is None:
            continue
        checked = check_signal(name, signal, u)
        if checked.shape != u.shape:
            raise ValueError(f"{name} must have u's shape {_shape(u)}, got {_shape(checked)}")
    channels = u.shape[1]
    A = check_parameter("A", A, u, (channels, None), f"(D, N) = ({channels}, N)")
    states = A.shape[1]
    if states < 1:
        raise ValueError(f"A must have at least one state, got shape {_shape(A)}")
    B = _factor("B", B, u, states, None)
    C = _factor("C", C, u, states, B.shape[1] if B.ndim == 4 else None)
    if D is not None:
        D = check_parameter("D", D, u, (channels,), f"(D,) = ({channels},)")
    if delta_bias is not None:
        delta_bias = check_parameter("delta_bias", delta_bias, u, (channels,), f"(D,) = ({channels},)")
    check_tree("tree", tree, u.shape[0], _num_vertices(u), "u", u)
    y, last_state = ops_selective.selective_scan(
        u.flatten(2), delta.flatten(2), A, B, C, D, None if z is None else z.flatten(2), delta_bias, tree.parent, tree.order,
        delta_softplus, direction)
    y = y.reshape(u.shape)
    return (y, last_state) if return_last_state else y
