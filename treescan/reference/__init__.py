"""The library's functions once more, written plainly in torch from their definitions: what the tests compare with.

Slow and obvious. Scans are differentiable by autograd, edge weights too; nothing here touches the native code.
"""

from .graphs import edge_weights
from .scans import scan, scan_by_paths, tree_scan
from .selective import selective_tree_scan
from .trees import Tree, minimum_spanning_tree, tree_from_edges, tree_from_parents

__all__ = ["Tree", "edge_weights", "minimum_spanning_tree", "scan", "scan_by_paths",
           "selective_tree_scan", "tree_from_edges", "tree_from_parents", "tree_scan"]
