"""The selective scan, with everything written out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .scans import AnyTree, outside_as_zero, scan


def _by_channel(factor: Tensor, u: Tensor) -> Tensor:
    """B or C as (B, D, N, V)."""
    if factor.ndim == 2:
        return factor[None, :, :, None].expand(u.shape[0], -1, -1, u.shape[2])
    if factor.ndim == 3:
        factor = factor[:, None]
    return factor.repeat_interleave(u.shape[1] // factor.shape[1], 1)


def selective_tree_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, tree: AnyTree, D: Tensor | None = None,
                        z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
                        direction: str = "down", return_last_state: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """As `treescan.selective_tree_scan`, for u (B, D, L), with tensors of size B D N L in memory."""
    dtype = u.dtype
    u, delta, A, B, C = (t.to(torch.float64 if dtype == torch.float64 else torch.float32) for t in (u, delta, A, B, C))
    u, delta = outside_as_zero(u, tree), outside_as_zero(delta, tree)
    B, C = (factor if factor.ndim == 2 else outside_as_zero(factor, tree) for factor in (B, C))
    step = delta if delta_bias is None else delta + delta_bias[:, None]
    if delta_softplus:
        step = F.softplus(step)
    decay = torch.exp(step[:, :, None] * A[:, :, None])
    drive = (step * u)[:, :, None] * _by_channel(B, u)
    h = scan(drive.flatten(1, 2), decay.flatten(1, 2), tree, direction).unflatten(1, A.shape)
    y = (h * _by_channel(C, u)).sum(2)
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * F.silu(outside_as_zero(z.to(u.dtype), tree))
    y = outside_as_zero(y, tree)
    return (y.to(dtype), h[..., -1]) if return_last_state else y.to(dtype)
