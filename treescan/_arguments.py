"""Which Python, NumPy and torch values an argument may be: one rule for all functions, with torch or without.

    an integer     int, a NumPy integer, a 0-d tensor or array of an integer type; a bool is none
    a number       int, float, or one of NumPy's; a bool or a tensor is none
    yes or no      bool, of Python's or NumPy's
    indices        a tensor or a NumPy array of any integer type, whatever its strides and byte order (`_indices`)

Anything else is a TypeError that names the argument, what it may be and what came.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from typing import Any, SupportsIndex


def kind(value: object) -> str:
    """What an error calls a value: its type, and the dtype and shape of tensors and arrays."""
    name = type(value).__name__
    if not (hasattr(value, "dtype") and hasattr(value, "shape") and hasattr(value, "__len__")):
        return name
    dtype = str(value.dtype)
    return f"{dtype if dtype.startswith('torch.') else f'{name}, {dtype}'} of shape {tuple(value.shape)}"


def integer(name: str, value: SupportsIndex, least: int | None = None) -> int:
    """`value` as an int, at least `least`; symbolic integers stay what they are."""
    whole: Any = value
    if type(whole) is not int:
        dimensions = getattr(whole, "ndim", None)
        whole = whole.item() if dimensions == 0 else whole
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(whole, torch.SymInt):
            try:
                if isinstance(whole, bool) or dimensions:
                    raise TypeError
                whole = operator.index(whole)
            except TypeError:
                raise TypeError(f"{name} must be an integer, got {kind(value)}") from None
    if least is not None and whole < least:
        raise ValueError(f"{name} must be at least {least}, got {whole}")
    number: int = whole
    return number


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
