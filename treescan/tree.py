"""Rooted spanning trees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import ops


def _int32(name: str, values: Tensor) -> Tensor:
    """Integer `values` as int32, or an error where they don't fit: a cast alone would wrap them around."""
    if values.dtype == torch.int32:
        return values
    if values.dtype != torch.int64:
        raise TypeError(f"{name} must be an int32 or int64 tensor, got {values.dtype}")
    narrow = values.to(torch.int32)
    if not torch.compiler.is_compiling() and not torch.equal(narrow.to(torch.int64), values):
        raise ValueError(f"{name} must hold 32-bit indices, got a value of {values.abs().max().item()}")
    return narrow


def root_tensor(root: int | Tensor, batch: int, device: torch.device) -> Tensor:
    """The argument `root` as the ops take it: int32, one for the whole batch or one for each item."""
    if isinstance(root, Tensor):
        root = _int32("root", root)
        if root.ndim != 1 or (root.shape[0] != 1 and root.shape[0] != batch):
            raise ValueError(f"root must be an int or a tensor of shape ({batch},), got shape {tuple(root.shape)}")
        return root.to(device)
    if not isinstance(root, (int, torch.SymInt)):
        raise TypeError(f"root must be an int or a tensor, got {type(root).__name__}")
    if not -(2**31) <= root < 2**31:
        raise ValueError(f"root must be a 32-bit index, got {root}")
    return torch.full((1,), root, dtype=torch.int32, device=device)


class Tree(NamedTuple):
    """A batch of rooted spanning trees: five int32 tensors. A tuple, so torch's transforms and exports know it.

    Fields:
        parent: (B, V), the parent of each vertex; a root is its own parent.
        order: (B, V), the vertex at each position, parents before their children. Trees made here have the canonical
            order: breadth-first from the root, children of a vertex by ascending index.
        depth: (B, V), the number of edges between each vertex and its root.
        root: (B,).
        edge: (B, V), the index in the graph of the edge between each vertex and its parent, -1 at the root; None if the
            tree came from parents.

    B is 1 for a tree that a whole batch shares.

    >>> tree = Tree.from_parents(torch.tensor([[0, 0, 1, 1]]))
    >>> tree.order.tolist(), tree.depth.tolist(), tree.root.tolist()
    ([[0, 1, 2, 3]], [[0, 1, 2, 2]], [0])
    """

    parent: Tensor
    order: Tensor
    depth: Tensor
    root: Tensor
    edge: Tensor | None = None

    @property
    def num_vertices(self) -> int:
        """V, the number of vertices."""
        return self.parent.shape[1]

    @property
    def batch_size(self) -> int:
        """B, the number of trees."""
        return self.parent.shape[0]

    @property
    def edges(self) -> Tensor:
        """The tree's edges, (B, V-1, 2) int32: (parent, child) for the child at position 1, 2, ... V-1."""
        child = self.order[:, 1:]
        return torch.stack((self.parent.gather(1, child.long()), child), -1)

    @classmethod
    def from_parents(cls, parent: Tensor) -> Tree:
        """The tree that a parent array describes, in canonical order.

        Arguments:
            parent: (B, V) int32 or int64, the parent of each vertex, the root its own.

        Raises ValueError if an item isn't one tree (a cycle, no root or several, an index out of range), TypeError for
        another dtype. O(B V) in time and memory.

        >>> Tree.from_parents(torch.tensor([[1, 1, 1]])).root.tolist()
        [1]
        """
        if parent.ndim != 2:
            raise ValueError(f"parent must have shape (B, V), got {tuple(parent.shape)}")
        parent, order, depth = ops.call(ops.tree_from_parents, _int32("parent", parent), None)
        return cls(parent, order, depth, order[:, 0])

    def reroot(self, root: int | Tensor) -> Tree:
        """The same trees with other roots, in canonical order.

        Arguments:
            root: one vertex for all, or a (B,) integer tensor.

        Raises ValueError for a root out of range or a tensor of another shape. O(B V) in time and memory.

        >>> Tree.from_parents(torch.tensor([[0, 0, 1]])).reroot(2).parent.tolist()
        [[1, 2, 2]]
        """
        root = root_tensor(root, self.parent.shape[0], self.parent.device)
        parent, order, depth = ops.call(ops.tree_from_parents, self.parent, root)
        edge = self.edge
        if edge is not None:
            # A vertex whose new parent was its child had their edge listed at that child.
            vertex = torch.arange(parent.shape[1], dtype=torch.int32, device=parent.device)
            was_child = self.parent.gather(1, parent.long()) == vertex
            edge = edge.gather(1, torch.where(was_child, parent, vertex).long()).masked_fill(parent == vertex, -1)
        return Tree(parent, order, depth, order[:, 0], edge)

    def to(self, device: torch.device | str) -> Tree:
        """The same trees on another device; itself if it is there already."""
        return Tree(*(None if field is None else field.to(device) for field in self))

    def validate(self) -> None:
        """Raises ValueError unless this is what `Tree` promises: trees, an order with parents first, depths, roots.

        Any order with parents first passes, not the canonical one alone. O(B V log V) in time, O(B V) in memory.
        """
        expected = Tree.from_parents(self.parent)
        for name in ("order", "depth", "root", "edge"):
            values, like = getattr(self, name), expected.root if name == "root" else expected.parent
            if values is None and name == "edge":
                continue
            if values.dtype != torch.int32 or values.shape != like.shape:
                raise ValueError(f"{name} must be an int32 tensor of shape {tuple(like.shape)}, "
                                 f"got {values.dtype} of shape {tuple(values.shape)}")
        vertex = torch.arange(self.num_vertices, dtype=torch.int32, device=self.parent.device).expand_as(self.parent)
        if not torch.equal(self.order.sort(1).values, vertex):
            raise ValueError("order must hold every vertex exactly once")
        position = torch.empty_like(self.order).scatter_(1, self.order.long(), vertex)
        late = (position.gather(1, self.parent.long()) > position).nonzero()
        if late.numel():
            item, child = late[0].tolist()
            raise ValueError(f"order must put parents first, but in item {item} vertex {child} stands at position "
                             f"{position[item, child].item()} and its parent {self.parent[item, child].item()} at "
                             f"{position[item, self.parent[item, child]].item()}")
        for name in ("depth", "root"):
            values, right = getattr(self, name), getattr(expected, name)
            wrong = (values != right).nonzero()
            if wrong.numel():
                at = tuple(wrong[0].tolist())
                place = ", ".join(map(str, at))
                raise ValueError(f"{name}[{place}] must be {right[at].item()}, got {values[at].item()}")
        if self.edge is not None and not torch.equal(self.edge < 0, self.parent == vertex):
            raise ValueError("edge must be -1 at the root and the index of an edge everywhere else")
