"""Tensors and NumPy arrays of indices, as int32 tensors: the part of `_arguments` that needs torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import torch
from torch import Tensor

from ._arguments import kind

if TYPE_CHECKING:
    import numpy

# For annotations: what is taken as indices.
Indices: TypeAlias = "Tensor | numpy.ndarray[Any, numpy.dtype[numpy.integer[Any]]]"

_LIMIT = 2**31  # vertices and edges are named by 32-bit indices
_NARROW = (torch.int8, torch.uint8, torch.int16)
_WIDE = (torch.int64, torch.uint16, torch.uint32, torch.uint64)


def _is_array(value: object) -> TypeGuard[numpy.ndarray[Any, numpy.dtype[Any]]]:
    # NumPy isn't imported for this: without it, nobody has an array of it.
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def are_indices(value: object) -> TypeGuard[Indices]:
    """Whether `value` is what `indices` takes, if its dtype is right."""
    return isinstance(value, Tensor) or _is_array(value)


def can_look(values: Tensor) -> bool:
    """Whether values can be read here and now: not while torch compiles, traces or maps, and not without waiting for a GPU."""
    return values.is_cpu and not (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack()
    )


def indices(name: str, values: Indices) -> Tensor:
    """Indices as an int32 tensor. What doesn't fit 32 bits is an error, and where nobody can look at values, the nearest
    number that does, which is out of any range."""
    if isinstance(values, Tensor):
        if values.dtype == torch.int32:
            return values
        if values.dtype in _NARROW:
            return values.to(torch.int32)
    if _is_array(values) and values.dtype.kind in "iu":
        # Copied, since torch takes no strides below zero, no foreign byte order and nothing read-only.
        values = torch.from_numpy(values.astype("uint64" if values.dtype.kind == "u" else "int64", order="C"))
    if not isinstance(values, Tensor) or values.dtype not in _WIDE:
        raise TypeError(f"{name} must be a tensor or a NumPy array of integers, got {kind(values)}")
    wide = values.to(torch.int64)
    if values.dtype == torch.uint64:
        wide = wide.masked_fill(wide < 0, _LIMIT)  # they wrapped around
    if not can_look(wide):
        return wide.clamp(-_LIMIT, _LIMIT - 1).to(torch.int32)
    narrow = wide.to(torch.int32)
    if not torch.equal(narrow.to(torch.int64), wide):
        raise ValueError(f"{name} must hold 32-bit indices, got a value of {wide[wide != narrow][0].item()}")
    return narrow
