"""Brings torch and the native code together: torch's threads for `_C`, and the library of torch operations."""

from __future__ import annotations

import ctypes
import os
from typing import SupportsIndex

import torch

from . import __version__
from ._arguments import integer
from ._installation import BUILD, get_torch_library
from ._library import _C


def _load_operations() -> None:
    """Loads libtreescan_torch, and lends `_C` torch's thread pool, which both then share."""
    if torch.torch_version.TorchVersion(torch.__version__) < "2.10":
        raise ImportError(f"treescan needs torch 2.10 or later, but {torch.__version__} is installed: run "
                          "`python -m pip install --upgrade torch`")
    path = os.path.realpath(get_torch_library())
    if hasattr(torch.ops.treescan, "scan") and path not in torch.ops.loaded_libraries:
        raise ImportError(f"another copy of treescan's torch operations is already in this process, so {path} can't be loaded")
    if not os.path.isfile(path):
        raise ImportError(f"treescan's library of torch operations isn't there ({path}): {BUILD}")
    try:
        torch.ops.load_library(path)
        library = ctypes.CDLL(path)
        version = library.treescan_torch_version()
    except (OSError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ImportError(f"treescan's library of torch operations could not be loaded ({reason}): {BUILD}") from None
    if version != _C.HEADER_VERSION:
        raise ImportError(f"treescan {__version__} needs a library of torch operations of its own version, but {path} was "
                          f"compiled with the header of {version // 10000}.{version // 100 % 100}.{version % 100}: {BUILD}")
    # Of torch's stable C interface, and found through the library that needs them.
    pool = library.torch_parallel_for, library.torch_get_num_threads
    _C.lend_torch_pool(*(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in pool))
    library.treescan_torch_guard_calls(*map(ctypes.c_void_p, _C.call_guard()))


_load_operations()


def synchronize(device: torch.device | str | SupportsIndex | None = None) -> None:
    """Waits for a CUDA device's current stream, and raises what treescan's calls there found wrong with values.

    Calls on a GPU return before their work is done. What is wrong with shapes, dtypes and options they raise at once; an
    index out of range, a graph in parts or parents that are no tree are found on the device. The next call there then
    raises, or this one does.

    Arguments:
        device: a CUDA device or its number; None for the current one. On the CPU there is nothing to wait for.

    Raises ValueError for such values, or where there is no such device or the build has no CUDA backend. Not to be called
    while a CUDA graph is captured.

    >>> synchronize("cpu")
    """
    if device is None:
        device = torch.device("cuda")
    elif not isinstance(device, torch.device):
        device = torch.device(device if isinstance(device, str) else f"cuda:{integer('device', device, 0)}")
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise ValueError(f"device must be the CPU or a CUDA device, got {device}")
    if not torch.cuda.is_available():
        return _C.synchronize(device.index or 0, 0)  # which says what is missing
    stream = torch.cuda.current_stream(device)
    _C.synchronize(stream.device_index, stream.cuda_stream)


def set_cuda_strategy(*, trees: str | None = None, scans: str | None = None) -> None:
    """Sets how trees are built and scans are made on CUDA devices, for all calls from now on. Results don't depend on it.

    Arguments:
        trees: "block", one block of threads for each tree; "grid", all of them for one tree after the other; "auto" by size.
        scans: "levels", one depth after the other; "paths", heavy paths in parallel; "auto" by depth.

    What is None stays as it is. Raises ValueError for another name or in a build without the CUDA backend.

    >>> if "cuda" in build_info()["backends"]:
    ...     set_cuda_strategy(trees="auto", scans="auto")
    """
    if trees is not None:
        _C.set_cuda_trees(trees)
    if scans is not None:
        _C.set_cuda_scans(scans)


def build_info() -> dict[str, str]:
    """What this build is: versions, backends and instruction sets. Backends are "cpu" or, with the GPUs it was compiled
    for, "cpu, cuda (75 80 86 89 90 100 120)".

    >>> sorted(build_info())
    ['backends', 'instruction_set', 'library', 'native_module', 'torch', 'version']
    """
    library = _C.build_info()
    return {
        "version": __version__,
        "library": library,
        "backends": library.partition("backends: ")[2].partition(";")[0],
        "instruction_set": _C.get_instruction_set(),
        "native_module": _C.__file__,
        "torch": torch.__version__,
    }
