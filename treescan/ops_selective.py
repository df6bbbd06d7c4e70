"""The custom ops of the selective scan: `selective_scan` and the adjoint that its derivative is made of.

They are differentiable once, in reverse. A second derivative and forward mode raise: the materialised scan has them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from . import ops
from ._native import _C

_INPUTS = ("Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
           "Tensor parent, Tensor order, bool delta_softplus, str direction")
_NUM_TENSORS = 8  # u, delta, A, B, C, D, z, delta_bias


def computed_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a scan of this dtype is computed in, and what the parameters A, D and delta_bias have to be in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _new_result(u, delta, A, *_):
    return torch.empty_like(u), A.new_empty((u.shape[0], *A.shape))


def _fill_result(result, *arguments):
    *tensors, parent, order, delta_softplus, direction = arguments
    _C.selective_scan(ops.choice("direction", direction, _C.DIRECTIONS), parent, order, tensors, delta_softplus, *result)


def _new_gradients(grad_y, grad_last_state, *arguments):
    # An op can't return None; an input that isn't there has an empty gradient.
    return tuple(grad_y.new_empty(0) if tensor is None else torch.empty_like(tensor) for tensor in arguments[:_NUM_TENSORS])


def _fill_gradients(gradients, grad_y, grad_last_state, *arguments):
    *tensors, parent, order, delta_softplus, direction = arguments
    gradients = [None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients)]
    _C.selective_scan_backward(ops.choice("direction", direction, _C.DIRECTIONS), parent, order, tensors, delta_softplus,
                               grad_y, grad_last_state, gradients)


selective_scan = ops._define(f"selective_scan({_INPUTS}) -> (Tensor, Tensor)", _new_result, _fill_result, differentiable=True)

selective_scan_backward = ops._define(
    f"selective_scan_backward(Tensor grad_y, Tensor? grad_last_state, {_INPUTS})"
    f" -> ({', '.join(['Tensor'] * _NUM_TENSORS)})",
    _new_gradients, _fill_gradients, differentiable=True)


class _SelectiveScan(_SingleLevelFunction):
    @staticmethod
    def forward(ctx, *arguments):
        ctx.options = arguments[_NUM_TENSORS + 2:]
        ctx.save_for_backward(*arguments[:_NUM_TENSORS + 2])
        ctx.set_materialize_grads(False)
        # As for ops.scan: differentiation must stay on for the levels below this one.
        with torch.enable_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
            return selective_scan(*arguments)

    @staticmethod
    def backward(ctx, grad_y, grad_last_state):
        tensors = ctx.saved_tensors
        if grad_y is None:
            grad_y = torch.zeros_like(tensors[0])
        gradients = selective_scan_backward(grad_y, grad_last_state, *tensors, *ctx.options)
        return *(None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients)), *(None,) * 4

    @staticmethod
    def jvp(ctx, *tangents):
        raise RuntimeError("selective_tree_scan has no forward-mode derivative; take reverse mode, or tree_scan of "
                           "weights exp(delta A) and inputs delta B u, which has both")


class _SelectiveScanBackward(_SingleLevelFunction):
    @staticmethod
    def forward(ctx, *arguments):
        with torch.enable_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
            return selective_scan_backward(*arguments)

    @staticmethod
    def backward(ctx, *gradients):
        raise RuntimeError("selective_tree_scan can be differentiated once only; for second derivatives take tree_scan of "
                           "weights exp(delta A) and inputs delta B u")

    jvp = _SelectiveScan.jvp


def _autograd(op, function):
    def rule(*arguments):
        if ops._is_differentiated(*(argument for argument in arguments if isinstance(argument, Tensor))):
            with enable_single_level_autograd_function():
                return function.apply(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)

    return rule


for _op, _function in ((selective_scan, _SelectiveScan), (selective_scan_backward, _SelectiveScanBackward)):
    ops._library.impl(_op.name().removeprefix("treescan::"), _autograd(_op, _function), "Autograd")
    for _device in ("cpu", "cuda"):
        # As for scan: a long sum of products would lose too much in a half type.
        torch.library.register_autocast(_op.name(), _device, torch.float32, lib=ops._library)
