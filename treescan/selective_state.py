"""The selective scan one token at a time, on chains and causal trees, in memory that doesn't grow."""

from __future__ import annotations

from typing import NamedTuple, SupportsIndex

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import _register_namedtuple

from ._arguments import flag, integer, kind
from .functional import _check_floats, _shape, cost_keys, deciding_costs
from .graph import edge_graph
from .ops_selective import computed_dtype
from .selective import check_parameter, check_signal


class SelectiveState(NamedTuple):
    """What `step` remembers of a batch of sequences, from the oldest token to the newest. A tuple of tensors.

    Fields:
        h: (B, window, D, N) float32 or float64, the states of the last tokens.
        features: (B, F, window), their features; F is 0 for a chain.
        length: (B,) int64, how many tokens each sequence has had.
    """

    h: Tensor
    features: Tensor
    length: Tensor


# What torch has to be told, to save exported programs that take or return a state, and to load states with weights_only.
_register_namedtuple(SelectiveState, serialized_type_name="treescan.SelectiveState")
torch.serialization.add_safe_globals([SelectiveState])


def init_state(batch_size: SupportsIndex, channels: SupportsIndex, states: SupportsIndex, *, window: SupportsIndex = 1,
               num_features: SupportsIndex = 0, dtype: torch.dtype = torch.float32,
               device: torch.device | str = "cpu") -> SelectiveState:
    """The state before the first token.

    Arguments:
        batch_size, channels, states: B, D and N, at least 1.
        window: among how many tokens before it a token's parent is. 1 is a chain.
        num_features: F, of the features that `step` chooses parents by; at least 1 if window is more than 1.
        dtype: of u and the features. States are float32, float64 for that.
        device: where.

    Raises ValueError for a size below 1, TypeError for another dtype. O(B window (D N + F)) in memory.

    >>> init_state(2, 3, 4, window=5, num_features=6).h.shape
    torch.Size([2, 5, 3, 4])
    """
    batch, depth = integer("batch_size", batch_size, 1), integer("window", window, 1)
    inner = (integer("channels", channels, 1), integer("states", states, 1))
    count = integer("num_features", num_features, 1 if depth > 1 else 0)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype, got {kind(dtype)}")
    features = torch.zeros((batch, count, depth), dtype=dtype, device=device)
    _check_floats("dtype", features)
    h = features.new_zeros((batch, depth, *inner), dtype=computed_dtype(dtype))
    return SelectiveState(h, features, torch.zeros(batch, dtype=torch.int64, device=device))


def _by_channel(name: str, factor: Tensor, u: Tensor, states: int) -> Tensor:
    """B or C of one token as (B|1, D, N)."""
    check_signal(name, factor, u)
    if factor.ndim == 2:
        factor = factor.unsqueeze(1)
    if (factor.ndim != 3 or factor.shape[0] not in (1, u.shape[0]) or factor.shape[2] != states or factor.shape[1] < 1
            or u.shape[1] % factor.shape[1]):
        raise ValueError(f"{name} must have shape (B, N) or (B, G, N) with B = {u.shape[0]}, N = {states} and G a divisor of "
                         f"D = {u.shape[1]}, got {_shape(factor)}")
    return factor.repeat_interleave(u.shape[1] // factor.shape[1], 1)


def _nearest(state: SelectiveState, features: Tensor) -> Tensor:
    """(B,) the slot of each token's parent: the one of least cost, the oldest of several."""
    window = state.h.shape[1]
    slots = torch.arange(window, dtype=torch.int32, device=features.device)
    edges = torch.stack((slots, torch.full_like(slots, window)), 1)
    cost = deciding_costs("features", torch.cat((state.features, features[:, :, None]), 2), edge_graph(edges, window + 1))
    is_there = slots >= window - state.length[:, None].clamp(min=1)
    return cost_keys(cost).masked_fill(~is_there, 2**63 - 1).argmin(1)


def step(state: SelectiveState, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
         z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False, *,
         features: Tensor | None = None, active: Tensor | None = None) -> tuple[Tensor, SelectiveState]:
    """The next token of a batch of sequences: what `selective_tree_scan` with "down" gives for it.

    With the step s = delta + delta_bias, or softplus of that:

        h = exp(s A)·h[parent] + s·B·u,    y = (Σ_n C[n]·h[n] + D·u)·silu(z)

    The parent is the token before, or, with a window, the one of least cosine cost -cos among the `window` tokens before,
    the farthest of several; costs have the bits of `edge_weights`. The first token has none.

    Arguments:
        state: from `init_state` or the step before. It isn't written to.
        u, delta, z: (B, D), as in `selective_tree_scan` at one token; so are A (D, N), D and delta_bias (D,).
        B, C: (B, N) or (B, G, N) in u's dtype. Where they are the same for all tokens, (D, N), give B[None] in u's dtype.
        features: (B, F) in the state's dtype, what the parent is chosen by; with a window of more than 1. No gradient
            flows through the choice.
        active: (B,) bool, the sequences that go on; None for all. The others keep their state and get y = 0, and what is
            given for them, NaN too, reaches no gradient.

    Returns y (B, D) in u's dtype and the new state. Differentiable to any order. Raises ValueError for shapes that don't
    fit the state, TypeError for other dtypes. O(B (D N window + F window)) in time, the same in memory, however
    many tokens there were. Deterministic.

    >>> state = init_state(1, 1, 1)
    >>> token = torch.ones(1, 1)
    >>> for _ in range(3):
    ...     y, state = step(state, token, token, -token, token, token)
    >>> y, state.length
    (tensor([[1.5032]]), tensor([3]))

    Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", section 3.2.
    """
    if not isinstance(state, SelectiveState):
        raise TypeError(f"state must be a SelectiveState, got {type(state).__name__}")
    if state.h.ndim != 4 or state.features.ndim != 3 or state.length.ndim != 1:
        raise ValueError("state's fields must have shapes (B, window, D, N), (B, F, window) and (B,), got "
                         f"{_shape(state.h)}, {_shape(state.features)} and {_shape(state.length)}")
    batch, window, channels, states = state.h.shape
    check_signal("u", u, u)
    for name, signal in (("u", u), ("delta", delta), ("z", z)):
        if signal is None and name == "z":
            continue
        checked = check_signal(name, signal, u)
        if checked.shape != (batch, channels):
            raise ValueError(f"{name} must have shape (B, D) = {(batch, channels)} as the state has, got {_shape(checked)}")
    if state.h.dtype != computed_dtype(u.dtype):
        raise TypeError(f"u must be {'float64' if state.h.dtype == torch.float64 else 'float32 or a half type'} for a state "
                        f"of {state.h.dtype}, got {u.dtype}")
    if active is not None and not isinstance(active, Tensor):
        raise TypeError(f"active must be a bool tensor, got {kind(active)}")
    if active is not None and (active.dtype != torch.bool or active.shape != (batch,)):
        raise ValueError(f"active must be a bool tensor of shape (B,) = ({batch},), got {active.dtype} of shape "
                         f"{_shape(active)}")

    def going_on(values: Tensor) -> Tensor:
        """Values (B, ...) with 0 for the others, whose derivatives nobody then multiplies by."""
        return values if active is None else values.masked_fill(~active.view(-1, *(1,) * (values.ndim - 1)), 0)

    A = check_parameter("A", A, u, (channels, states), f"(D, N) = {(channels, states)}")
    pace = going_on(delta).to(A.dtype)
    if delta_bias is not None:
        pace = pace + check_parameter("delta_bias", delta_bias, u, (channels,), f"(D,) = ({channels},)")
    if flag("delta_softplus", delta_softplus):
        pace = F.softplus(pace)
    num_features = state.features.shape[1]
    if features is not None and not isinstance(features, Tensor):
        raise TypeError(f"features must be a tensor, got {kind(features)}")
    if features is None and window > 1:
        raise ValueError(f"features must be given, the state has a window of {window}")
    if features is not None and (features.shape != (batch, num_features) or features.dtype != state.features.dtype):
        raise ValueError(f"features must be {state.features.dtype} of shape (B, F) = {(batch, num_features)} as the state "
                         f"has, got {features.dtype} of shape {_shape(features)}")
    if features is not None and window > 1:
        above = state.h[torch.arange(batch, device=u.device), _nearest(state, features.detach())]
    else:
        above = state.h[:, 0]
    values = going_on(u).to(A.dtype)
    drive = (pace * values)[:, :, None] * going_on(_by_channel("B", B, u, states))
    is_root = (state.length == 0)[:, None, None]
    decay = torch.exp((pace[:, :, None] * A).masked_fill(is_root, 0))
    h = torch.where(is_root, drive, drive + decay * going_on(above).masked_fill(is_root, 0))
    y = (h * going_on(_by_channel("C", C, u, states))).sum(2)
    if D is not None:
        y = y + check_parameter("D", D, u, (channels,), f"(D,) = ({channels},)") * values
    if z is not None:
        y = y * F.silu(going_on(z).to(A.dtype))
    new_features = state.features
    if features is not None:
        new_features = torch.cat((state.features[:, :, 1:], features.detach()[:, :, None]), 2)
    new = SelectiveState(torch.cat((state.h[:, 1:], h[:, None]), 1), new_features, state.length + 1)
    if active is not None:
        y = torch.where(active[:, None], y, torch.zeros_like(y))
        new = SelectiveState(*(torch.where(active.view(-1, *(1,) * (after.ndim - 1)), after, before)
                               for after, before in zip(new, state)))
    return y.to(u.dtype), new
