"""Pixels in no tree, which a mask took out.

They are set to 0 before anything is computed of them. Left out afterwards, they would still reach gradients: as 0 times a
derivative that needn't be finite.
"""

from torch import Tensor

from ..tree import Tree


def in_no_tree(tree: Tree, height: int, width: int) -> Tensor:
    """(B|1, H, W) bool, for a tree of so many pixels."""
    return (tree.parent < 0).reshape(-1, height, width)
