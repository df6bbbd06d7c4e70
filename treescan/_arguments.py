"""Which Python, NumPy and torch values an argument may be, one rule for all functions.

    an integer     int, a NumPy integer, a 0-d tensor or array of an integer type; a bool is none
    a number       int, float, or one of NumPy's; a bool or a tensor is none
    yes or no      bool, of Python's or NumPy's
    indices        a tensor or a NumPy array of any integer type, whatever its strides and byte order

Anything else is a TypeError that names the argument, what it may be and what came.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy

# For annotations: what is taken as indices. An integer is a SupportsIndex.
Indices: TypeAlias = "Tensor | numpy.ndarray[Any, numpy.dtype[numpy.integer[Any]]]"

_LIMIT = 2**31  # vertices and edges are named by 32-bit indices
_NARROW = (torch.int8, torch.uint8, torch.int16)
_WIDE = (torch.int64, torch.uint16, torch.uint32, torch.uint64)
INTEGERS = (torch.int32, *_NARROW, *_WIDE)


def kind(value: object) -> str:
    """What an error calls a value: the dtype and shape of tensors and arrays, the type of everything else."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if is_array(value):
        return f"a NumPy array of {value.dtype} and shape {value.shape}"
    return type(value).__name__


def is_array(value: object) -> TypeGuard[numpy.ndarray[Any, numpy.dtype[Any]]]:
    # NumPy isn't imported for this: without it, nobody has an array of it.
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def are_indices(value: object) -> TypeGuard[Indices]:
    """Whether `value` is what `indices` takes, if its type is right."""
    return isinstance(value, Tensor) or is_array(value)


def integer(name: str, value: SupportsIndex, least: int | None = None) -> int:
    """`value` as an int, at least `least`; symbolic integers stay what they are."""
    whole: int
    if type(value) is int or isinstance(value, torch.SymInt):
        whole = value  # type: ignore[assignment]  # to users a SymInt is an int
    else:
        try:
            if isinstance(value, bool) or isinstance(value, Tensor) and (value.ndim or value.dtype not in INTEGERS):
                raise TypeError
            whole = value.item() if isinstance(value, Tensor) else operator.index(value)  # type: ignore[assignment]
        except TypeError:
            raise TypeError(f"{name} must be an integer, got {kind(value)}") from None
    if least is not None and whole < least:
        raise ValueError(f"{name} must be at least {least}, got {whole}")
    return whole


def number(name: str, value: float) -> float:
    """`value` as a float that isn't NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {kind(value)}")
    value = float(value)
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, got NaN")
    return value


def flag(name: str, value: bool) -> bool:
    """`value` as a bool."""
    if value is True or value is False:
        return value
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.bool_):
        raise TypeError(f"{name} must be True or False, got {kind(value)}")
    return bool(value)


def can_look(values: Tensor) -> bool:
    """Whether values can be read here and now: not inside torch.compile and torch.vmap, and not without waiting for a GPU."""
    return values.is_cpu and not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def indices(name: str, values: Indices) -> Tensor:
    """Indices as an int32 tensor. What doesn't fit 32 bits is an error, and where nobody can look at values, inside
    `torch.compile` and `torch.vmap` and on a GPU, the nearest number that does, which is out of any range."""
    if isinstance(values, Tensor):
        if values.dtype == torch.int32:
            return values
        if values.dtype in _NARROW:
            return values.to(torch.int32)
    if is_array(values) and values.dtype.kind in "iu":
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
