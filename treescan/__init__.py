"""Spanning trees of image grids and token graphs, and linear-time scans along them.

    y = treescan.tree_scan(x, weights, graph="grid")

`treescan.functional` holds the functions, `treescan.nn` modules made of them, `treescan.compat` the original
extensions' function names, `treescan.reference` the same mathematics written plainly in torch.

Without torch the package can be imported, for `treescan.numpy`, the same on NumPy arrays, and to find the C library that it
holds; what needs torch then says so.
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._installation import get_cmake_dir, get_include_dir, get_pkgconfig_dir, get_torch_library

__all__ = [
    "Graph", "SelectiveState", "Tree", "build_info", "build_tree", "causal_tree", "chain_graph", "compat", "edge_graph",
    "edge_weights", "flipped_token_tree", "get_cmake_dir", "get_include_dir", "get_num_threads", "get_pkgconfig_dir",
    "get_torch_library", "grid_graph", "init_state", "minimum_spanning_tree", "nn", "packed_tree", "random_spanning_tree", "reference",
    "selective_tree_scan", "set_cuda_strategy", "set_num_threads", "step", "synchronize", "token_graph", "tree_scan",
]

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    _lacking = f"needs torch 2.10 or later ({error}): run `python -m pip install torch`"
    if not _TYPE_CHECKING:

        def __getattr__(name: str) -> object:
            if name in ("get_num_threads", "set_num_threads"):
                from . import _library

                return getattr(_library, name)
            if name in __all__:
                raise ImportError(f"treescan.{name} {_lacking}")
            raise AttributeError(f"module 'treescan' has no attribute '{name}'")

else:
    from . import compat, nn, reference
    from ._library import get_num_threads, set_num_threads
    from ._native import build_info, set_cuda_strategy, synchronize
    from .functional import build_tree, edge_weights, minimum_spanning_tree, random_spanning_tree, tree_scan
    from .graph import Graph, chain_graph, edge_graph, grid_graph, token_graph
    from .packed import packed_tree
    from .selective import selective_tree_scan
    from .selective_state import SelectiveState, init_state, step
    from .token_trees import causal_tree, flipped_token_tree
    from .tree import Tree
