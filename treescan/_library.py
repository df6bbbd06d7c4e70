"""The one module that loads the compiled `_C`, and what can be asked of it without torch."""

from __future__ import annotations

from typing import SupportsIndex

from . import __version__
from ._arguments import integer
from ._installation import BUILD

try:
    from . import _C as _C  # once more by name: others take it from here
except ImportError as error:
    raise ImportError(f"treescan's native module could not be loaded ({error}): {BUILD}") from None

_compiled, _loaded = (f"{number // 10000}.{number // 100 % 100}.{number % 100}" for number in (_C.HEADER_VERSION, _C.version()))
if not __version__ == _compiled == _loaded:
    raise ImportError(f"treescan {__version__} needs a native module and a library of its own version, but the module was "
                      f"compiled with the header of {_compiled} and found library {_loaded}: {BUILD}")


def set_num_threads(num_threads: SupportsIndex | None) -> None:
    """Sets how many threads treescan works with: `num_threads` of its own, or None for as many as torch, and torch's.

    None is the default: `torch.set_num_threads` then holds for treescan as well. Without torch it stands for one thread for
    each processor. Results don't depend on the number. Raises ValueError unless 1 <= num_threads <= 1024, TypeError for
    anything but an integer or None. Waits for running calls to end.

    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    >>> set_num_threads(None)
    """
    count = None if num_threads is None else integer("num_threads", num_threads)
    if count is not None and not 1 <= count <= 1024:
        raise ValueError(f"num_threads must be between 1 and 1024, got {count}")
    _C.set_num_threads(count)


def get_num_threads() -> int:
    """The number of threads that treescan would use now: torch's, or what `set_num_threads` was given."""
    return _C.get_num_threads()
