"""Where this installation keeps the C library: found without loading it, and without torch."""

import sys
from importlib.util import find_spec
from pathlib import Path

BUILD = "run `python -m pip install -e . --no-build-isolation` (or `make build`) in treescan's source folder"


def _folder() -> Path:
    # Of the compiled module: in an editable installation the package's own folder is elsewhere.
    module = find_spec("treescan._C")
    if module is None or module.origin is None:
        raise ImportError(f"treescan's native module isn't there: {BUILD}")
    return Path(module.origin).parent


def get_include_dir() -> str:
    """The folder that holds `treescan/treescan.h`, for C and C++ programs that use the installed library."""
    return str(_folder() / "include")


def get_cmake_dir() -> str:
    """The folder to put into CMAKE_PREFIX_PATH, so that CMake's `find_package(treescan CONFIG)` finds the library."""
    return str(_folder() / "lib" / "cmake" / "treescan")


def get_pkgconfig_dir() -> str:
    """The folder to put into PKG_CONFIG_PATH, so that `pkg-config --cflags --libs treescan` finds the library."""
    return str(_folder() / "lib" / "pkgconfig")


def get_torch_library() -> str:
    """The library of torch operations, for C++ programs and exported programs: `torch.ops.load_library`, dlopen, or
    treescan::treescan_torch of the CMake package. The package loads it by itself."""
    names = {"win32": "treescan_torch.dll", "darwin": "lib/libtreescan_torch.dylib"}
    return str(_folder() / names.get(sys.platform, "lib/libtreescan_torch.so"))
