"""The original extensions' functions under their own names, so that code written for them runs after a changed import.

`tree_scan` stands in for the vision extension, `tree_scan_lan` for the language one; `MinimumSpanningTree` and
`TreeFilter2D` are the layers that projects build on them. Unlike the originals, these leave their inputs alone, take any
strides, give the same result on every run and report what is wrong with an argument.
"""

from . import tree_scan, tree_scan_lan
from .layers import MinimumSpanningTree, TreeFilter2D

__all__ = ["MinimumSpanningTree", "TreeFilter2D", "tree_scan", "tree_scan_lan"]
