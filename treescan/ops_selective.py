"""The custom ops of the selective scan: `selective_scan` and the adjoint that its derivative is made of.

They are differentiable once, in reverse. A second derivative and forward mode raise: the materialised scan has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, Protocol

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._ops import OpOverload
from torch.autograd.function import _SingleLevelFunction

from . import ops
from .ops import T

_NUM_TENSORS = 8  # u, delta, A, B, C, D, z, delta_bias


def computed_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a scan of this dtype is computed in, and what the parameters A, D and delta_bias have to be in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _new_result(u: Tensor, delta: Tensor, A: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(u), A.new_empty((u.shape[0], *A.shape))


def _new_gradients(grad_y: Tensor, grad_last_state: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    # An op can't return None; an input that isn't there has an empty gradient.
    return tuple(grad_y.new_empty(0) if tensor is None else torch.empty_like(tensor) for tensor in arguments[:_NUM_TENSORS])


selective_scan: OpOverload[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor, bool, str],
    tuple[Tensor, Tensor],
] = ops._complete("selective_scan", _new_result, differentiable=True)

selective_scan_backward: OpOverload[..., tuple[Tensor, ...]] = ops._complete(
    "selective_scan_backward", _new_gradients, differentiable=True)


class _Context(ops.Context, Protocol):
    options: tuple[bool, str]


class _SelectiveScan(_SingleLevelFunction):
    apply: ClassVar[Callable[..., tuple[Tensor, Tensor]]]

    @staticmethod
    def forward(ctx: _Context, *arguments: Any) -> tuple[Tensor, Tensor]:
        ctx.options = arguments[_NUM_TENSORS + 2:]
        ctx.save_for_backward(*arguments[:_NUM_TENSORS], *map(ops.saved, arguments[_NUM_TENSORS:_NUM_TENSORS + 2]))
        ctx.set_materialize_grads(False)
        # As for ops.scan: differentiation must stay on for the levels below this one.
        with torch.enable_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
            return selective_scan(*arguments)

    @staticmethod
    def backward(ctx: _Context, grad_y: Tensor | None, grad_last_state: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        if grad_y is None:
            grad_y = torch.zeros_like(tensors[0])
        gradients = selective_scan_backward(grad_y, grad_last_state, *tensors, *ctx.options)
        return *(None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients)), *(None,) * 4

    @staticmethod
    def jvp(ctx: _Context, *tangents: Tensor | None) -> NoReturn:
        raise RuntimeError("selective_tree_scan has no forward-mode derivative; take reverse mode, or tree_scan of "
                           "weights exp(delta A) and inputs delta B u, which has both")


class _SelectiveScanBackward(_SingleLevelFunction):
    apply: ClassVar[Callable[..., tuple[Tensor, ...]]]

    @staticmethod
    def forward(ctx: _Context, *arguments: Any) -> tuple[Tensor, ...]:
        with torch.enable_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
            return selective_scan_backward(*arguments)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor | None) -> NoReturn:
        raise RuntimeError("selective_tree_scan can be differentiated once only; for second derivatives take tree_scan of "
                           "weights exp(delta A) and inputs delta B u")

    jvp = _SelectiveScan.jvp


def _autograd(op: OpOverload[..., T], apply: Callable[..., T]) -> Callable[..., T]:
    def rule(*arguments: Any) -> T:
        if ops.is_differentiated(*(argument for argument in arguments if isinstance(argument, Tensor))):
            with enable_single_level_autograd_function():
                return apply(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)

    return rule


ops._library.impl(selective_scan, _autograd(selective_scan, _SelectiveScan.apply), "Autograd")
ops._library.impl(selective_scan_backward, _autograd(selective_scan_backward, _SelectiveScanBackward.apply), "Autograd")
for _op in (selective_scan, selective_scan_backward):
    for _device in ("cpu", "cuda"):
        # As for scan: a long sum of products would lose too much in a half type.
        torch.library.register_autocast(_op, _device, torch.float32, lib=ops._library)
