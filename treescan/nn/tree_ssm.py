"""The tree state space block of GrootV, state-dict compatible with the original."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal, SupportsIndex

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._arguments import flag, integer, number
from ..functional import METRICS, Metric, _check_floats, build_tree, check_tree, tree_scan
from ..ops import choice
from ..ops_selective import computed_dtype
from ..tree import Tree
from ._outside import in_no_tree


def _normalised(norm: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """norm(values), of parameters in the values' precision where they are of a lower one."""
    if isinstance(norm, nn.Module):
        parameters = {name: parameter.to(values.dtype) for name, parameter in norm.named_parameters()
                      if parameter.dtype in (torch.float16, torch.bfloat16)}
        if parameters:
            normalised: Tensor = torch.func.functional_call(norm, parameters, (values,))
            return normalised
    return norm(values)


def _steps(r: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """softplus(W r + b) in float32 or float64, under autocast as well: a step of 0.001 is far from its neighbours in a half
    type, and 1 less that is none."""
    dtype, device = computed_dtype(r.dtype), r.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        return F.softplus(F.linear(r.to(dtype), weight.to(dtype), bias.to(dtype)))


def tree_scanning(x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, A_logs: Tensor,
                  Ds: Tensor, out_norm: Callable[[Tensor], Tensor], h_norm: Callable[[Tensor], Tensor], *,
                  tree: Tree | None = None, metric: Metric = "cosine") -> Tensor:
    """The input-dependent tree scan of GrootV.

        (r, B, C) = W_x x,  dt = softplus(W_dt r + b_dt),  a = exp(-exp(A) dt),
        h_n = both(dt B_n x; a_n),  y = out_norm(Σ_n C_n h_norm(h_n) + D x)

    for the states n = 1..N, on the minimum spanning tree of the grid under `metric` of x itself.

    Arguments:
        x: (B, D, H, W); channels-last memory is used as it is.
        x_proj_weight: (1, R + 2N, D); dt_projs_weight: (1, D, R); dt_projs_bias: (1, D); A_logs: (D, N); Ds: (D,).
        out_norm, h_norm: modules over the last dimension, D; they get float32 for half types.
        tree: a Tree to scan along instead. Where it leaves out pixels, y is 0, and what x holds there, NaN too, reaches
            neither values nor gradients.

    Returns (B, H, W, D) in x's dtype. Projections to r, B and C have that too; steps, decays, states, norms and sums are
    float32 for half types and under autocast. Raises what `tree_scan` raises. O(B D N H W); deterministic.

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2, algorithm 1.
    """
    for name, tensor in (("x", x), ("x_proj_weight", x_proj_weight), ("dt_projs_weight", dt_projs_weight),
                         ("dt_projs_bias", dt_projs_bias), ("A_logs", A_logs), ("Ds", Ds)):
        _check_floats(name, tensor)
    if x.ndim != 4:
        raise ValueError(f"x must have shape (B, D, H, W), got {tuple(x.shape)}")
    if tree is None:
        tree = build_tree(x, "grid", metric=metric)
        return _scanned(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, out_norm, h_norm, tree).to(x.dtype)
    check_tree("tree", tree, x.shape[0], x.shape[2] * x.shape[3], "x", x)
    outside = in_no_tree(tree, *x.shape[2:])
    x = x.masked_fill(outside[:, None], 0)
    y = _scanned(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, out_norm, h_norm, tree)
    return y.masked_fill(outside[..., None], 0).to(x.dtype)


def _scanned(x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, A_logs: Tensor, Ds: Tensor,
             out_norm: Callable[[Tensor], Tensor], h_norm: Callable[[Tensor], Tensor], tree: Tree) -> Tensor:
    channels, states, rank = x.shape[1], A_logs.shape[1], dt_projs_weight.shape[2]
    pixels = x.permute(0, 2, 3, 1)
    # squeeze, since the derivative of [0] copies.
    r, b, c = F.linear(pixels, x_proj_weight.squeeze(0)).split([rank, states, states], -1)
    dt = _steps(r, dt_projs_weight.squeeze(0), dt_projs_bias.squeeze(0))
    A_logs, Ds, pixels, b, c = (values.to(dt.dtype) for values in (A_logs, Ds, pixels, b, c))
    # States stand beside the channels, all in channels-last memory: (B, H, W, N, D).
    decay = torch.exp(-torch.exp(A_logs).T * dt.unsqueeze(-2))
    drive = (dt * pixels).unsqueeze(-2) * b.unsqueeze(-1)
    h = tree_scan(drive.flatten(3).permute(0, 3, 1, 2), decay.flatten(3).permute(0, 3, 1, 2), tree)
    h = _normalised(h_norm, h.permute(0, 2, 3, 1).unflatten(3, (states, channels)))
    y = h.squeeze(-2) * c if states == 1 else (h * c.unsqueeze(-1)).sum(-2)
    return _normalised(out_norm, torch.addcmul(y, Ds, pixels))


class TreeSSM(nn.Module):
    """The core of GrootV's vision block.

        (u, z) = W_in x,  u = SiLU(depthwise conv(u)),  y = W_out (tree_scanning(u) SiLU(z))

    Arguments:
        d_model: channels of x.
        d_state: N >= 1; the published models use 1.
        ssm_ratio: inner channels D = ssm_ratio * d_model.
        dt_rank: the rank R of the step's projection, "auto" for ceil(d_model / 16).
        d_conv: the kernel of the depthwise convolution, odd.
        conv_bias, bias: whether the convolution and the projections have biases.
        dropout: on the output.
        metric: the cost that the tree minimises.
        dt_min, dt_max, dt_scale, dt_init_floor: the range of steps at initialisation, as in Mamba.

    `forward(x, tree=None, return_tree=False)` takes x (B, H, W, d_model) and returns the same shape, with `return_tree` a
    pair of that and the tree that it scanned along: pass it on as `tree` to share it between blocks. Parameter names and
    shapes are those of the original, so its checkpoints load. Along a tree that leaves out pixels, they count as 0 in the
    convolution, and y is 0 there; what x holds there, NaN too, reaches neither values nor gradients. In a half type, and
    under autocast, projections and the convolution are in that type, and all of the scan is in float32.

    Raises ValueError for sizes below 1 or an even d_conv. O(B D N H W); deterministic.

    >>> TreeSSM(8)(torch.zeros(1, 4, 5, 8)).shape
    torch.Size([1, 4, 5, 8])

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.3, figure 3.
    """

    def __init__(self, d_model: SupportsIndex, d_state: SupportsIndex = 1, ssm_ratio: float = 2.0,
                 dt_rank: SupportsIndex | Literal["auto"] = "auto", d_conv: SupportsIndex = 3,
                 conv_bias: bool = False, bias: bool = False, dropout: float = 0.0,
                 metric: Metric = "cosine", dt_min: float = 0.001, dt_max: float = 0.1, dt_scale: float = 1.0,
                 dt_init_floor: float = 1e-4):
        super().__init__()
        d_model, d_state, d_conv = integer("d_model", d_model, 1), integer("d_state", d_state, 1), integer("d_conv", d_conv, 1)
        if d_conv % 2 == 0:
            raise ValueError(f"d_conv must be odd, got {d_conv}")
        conv_bias, bias, dropout = flag("conv_bias", conv_bias), flag("bias", bias), number("dropout", dropout)
        dt_min, dt_max = number("dt_min", dt_min), number("dt_max", dt_max)
        dt_scale, dt_init_floor = number("dt_scale", dt_scale), number("dt_init_floor", dt_init_floor)
        inner = int(number("ssm_ratio", ssm_ratio) * d_model)
        rank = math.ceil(d_model / 16) if isinstance(dt_rank, str) and dt_rank == "auto" else integer("dt_rank", dt_rank, 1)
        self.metric = choice("metric", metric, METRICS)
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv2d = nn.Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner, bias=conv_bias)
        bound = inner**-0.5
        self.x_proj_weight = nn.Parameter(torch.empty(1, rank + 2 * d_state, inner).uniform_(-bound, bound))
        bound = dt_scale * rank**-0.5
        self.dt_projs_weight = nn.Parameter(torch.empty(1, inner, rank).uniform_(-bound, bound))
        # The bias whose softplus is a step drawn log-uniformly from [dt_min, dt_max].
        step = torch.empty(1, inner).uniform_(math.log(dt_min), math.log(dt_max)).exp().clamp(min=dt_init_floor)
        self.dt_projs_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.A_logs = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(inner, 1))
        self.Ds = nn.Parameter(torch.ones(inner))
        self.out_norm = nn.LayerNorm(inner)
        self.h_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, tree: Tree | None = None, return_tree: bool = False) -> Tensor | tuple[Tensor, Tree]:
        _check_floats("x", x)
        return_tree = flag("return_tree", return_tree)
        if x.ndim != 4 or x.shape[3] != self.in_proj.in_features:
            raise ValueError(f"x must have shape (B, H, W, {self.in_proj.in_features}), got {tuple(x.shape)}")
        if tree is not None:
            check_tree("tree", tree, x.shape[0], x.shape[1] * x.shape[2], "x", x)
        outside = None if tree is None else in_no_tree(tree, *x.shape[1:3])[..., None]
        if outside is not None:
            x = x.masked_fill(outside, 0)
        u, z = self.in_proj(x).chunk(2, -1)
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2)))
        if tree is None:
            tree = build_tree(u, "grid", metric=self.metric)
        y = _scanned(u, self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds, self.out_norm,
                     self.h_norm, tree)
        y = self.out_proj((y * F.silu(z)).to(z.dtype))
        if outside is not None:
            y = y.masked_fill(outside, 0)
        y = self.dropout(y)
        return (y, tree) if return_tree else y
