"""Pixels in no tree, which a mask took out.

They are set to 0 before anything is computed of them. Left out afterwards, they would still reach gradients: as 0 times a
derivative that needn't be finite.
"""

from torch import Tensor

from ..tree import Tree


def in_no_tree(tree: Tree, batch: int, height: int, width: int) -> Tensor:
    """(B|1, H, W) bool; or a ValueError if the tree is one of another batch or size."""
    vertices = height * width
    if tree.parent.ndim != 2 or tree.parent.shape[0] not in (1, batch) or tree.parent.shape[1] != vertices:
        raise ValueError(
            f"tree's parent must have shape ({batch}, {vertices}) or (1, {vertices}) for {height} x {width} pixels, got "
            f"{tuple(tree.parent.shape)}"
        )
    return (tree.parent < 0).reshape(-1, height, width)
