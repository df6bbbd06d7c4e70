"""What goes wrong on the command line, and what it needs beside the library."""

from __future__ import annotations

import importlib
from types import ModuleType


class Problem(Exception):
    """What the user can do something about: shown as one line."""


def need(module: str) -> ModuleType:
    """An optional dependency, or how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Problem(f"this command needs {error.name}: python -m pip install 'treescan[cli]'") from None
