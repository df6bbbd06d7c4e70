"""Rooted spanning trees and forests."""

from __future__ import annotations

from collections.abc import Sequence
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
    if torch.compiler.is_compiling() or not values.is_cpu:
        # Nobody looks at values here; what doesn't fit must not turn into an index that does.
        return values.clamp(-(2**31), 2**31 - 1).to(torch.int32)
    narrow = values.to(torch.int32)
    if not torch.equal(narrow.to(torch.int64), values):
        raise ValueError(f"{name} must hold 32-bit indices, got a value of {values.abs().max().item()}")
    return narrow


def root_tensor(root: int | Tensor, batch: int, like: Tensor) -> Tensor:
    """The argument `root` as the ops take it beside `like`: int32, one for the whole batch or one for each item."""
    if isinstance(root, Tensor):
        root = _int32("root", root)
        if root.ndim != 1 or (root.shape[0] != 1 and root.shape[0] != batch):
            raise ValueError(f"root must be an int or a tensor of shape ({batch},), got shape {tuple(root.shape)}")
        return root.to(like.device)
    if not isinstance(root, (int, torch.SymInt)):
        raise TypeError(f"root must be an int or a tensor, got {type(root).__name__}")
    if not -(2**31) <= root < 2**31:
        raise ValueError(f"root must be a 32-bit index, got {root}")
    return like.new_full((1,), root, dtype=torch.int32)


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

    An item may also be a forest, where a mask took vertices out, sequences were packed, or `from_parents` was asked for
    one. It has several roots, which stand first in `order`, by ascending vertex; `root` holds the first of them. Vertices
    in no tree come last; their parent, depth and edge are -1, as is `root` where there is no tree at all. Nothing flows
    between trees, and a scan leaves zeros at vertices in none.

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
        """The tree's edges, (B, V-1, 2) int32: (parent, child) for the child at position 1, 2, ... V-1.

        In a forest that includes (v, v) for a further root v, and (-1, v) for a vertex in no tree.
        """
        child = self.order[:, 1:]
        return torch.stack((self.parent.gather(1, ops.as_index(child)), child), -1)

    @classmethod
    def from_parents(cls, parent: Tensor, *, forest: bool = False) -> Tree:
        """The tree that a parent array describes, in canonical order.

        Arguments:
            parent: (B, V) int32 or int64, the parent of each vertex, the root its own.
            forest: whether an item may have any number of roots, and vertices in no tree, whose parent is -1.

        Raises ValueError if an item isn't one tree (a cycle, no root or several, an index out of range) or, with
        `forest`, has a cycle or an index out of range; TypeError for another dtype. O(B V) in time and memory.

        A prefix tree of token sequences, as speculative decoding drafts them, costs its nodes and not its paths:

        >>> tokens = Tree.from_parents(torch.tensor([[0, 0, 1, 1, 3]]))  # the paths 0-1-2 and 0-1-3-4
        >>> from treescan import tree_scan
        >>> x = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
        >>> tree_scan(x, torch.full_like(x, 0.5), tokens, direction="down")
        tensor([[[1.0000, 2.5000, 4.2500, 5.2500, 7.6250]]])
        >>> Tree.from_parents(torch.tensor([[1, 1, -1, 3]]), forest=True).order.tolist()
        [[1, 3, 0, 2]]
        """
        if parent.ndim != 2:
            raise ValueError(f"parent must have shape (B, V), got {tuple(parent.shape)}")
        parent = _int32("parent", parent)
        if forest:
            return cls.of_forest(*ops.forest_from_parents(parent))
        parent, order, depth = ops.tree_from_parents(parent, None)
        return cls(parent, order, depth, order[:, 0])

    @classmethod
    def of_forest(cls, parent: Tensor, order: Tensor, depth: Tensor, edge: Tensor | None = None) -> Tree:
        """The forest that these fields make up, with its first roots: what stands first in `order` is one, or has none."""
        return cls(parent, order, depth, parent.gather(1, ops.as_index(order[:, :1]))[:, 0], edge)

    @classmethod
    def pack(cls, trees: Sequence[Tree]) -> Tree:
        """All items of several trees side by side, as one forest: a batch of 1 over Σ B·V vertices.

        A scan along it of what belongs to the trees, put one behind the other, gives what scans along each alone give, bit
        for bit. Images and sequences of different sizes so need one call.

        Arguments:
            trees: Trees of any batch and vertex numbers, at least one.

        Raises ValueError for no trees, or more vertices in all than 32 bits can name. O(V) in time and memory for V
        vertices in all. `edge` is None, since there is no common graph.

        >>> Tree.pack([Tree.from_parents(torch.tensor([[0, 0]])), Tree.from_parents(torch.tensor([[1, 1, 1]]))]).parent
        tensor([[0, 0, 3, 3, 3]], dtype=torch.int32)
        """
        if not trees:
            raise ValueError("trees must hold at least one Tree, got none")
        total = sum(tree.parent.numel() for tree in trees)
        if total >= 2**31:
            raise ValueError(f"trees must have fewer than {2**31} vertices in all, got {total}")
        parents, first = [], 0
        for tree in trees:
            batch, vertices = tree.parent.shape
            start = first + vertices * torch.arange(batch, dtype=torch.int32, device=tree.parent.device)[:, None]
            parents.append(torch.where(tree.parent < 0, -1, tree.parent + start).flatten())
            first += batch * vertices
        return cls.from_parents(torch.cat(parents)[None], forest=True)

    def reroot(self, root: int | Tensor) -> Tree:
        """The same trees with other roots, in canonical order.

        Arguments:
            root: one vertex for all, or a (B,) integer tensor.

        Raises ValueError for a root out of range, a tensor of another shape or a forest. O(B V) in time and memory.

        >>> Tree.from_parents(torch.tensor([[0, 0, 1]])).reroot(2).parent.tolist()
        [[1, 2, 2]]
        """
        root = root_tensor(root, self.parent.shape[0], self.parent)
        parent, order, depth = ops.tree_from_parents(self.parent, root)
        edge = self.edge
        if edge is not None:
            # A vertex whose new parent was its child had their edge listed at that child.
            vertex = ops.vertex_numbers(parent).to(torch.int32)
            was_child = self.parent.gather(1, ops.as_index(parent)) == vertex
            edge = edge.gather(1, ops.as_index(torch.where(was_child, parent, vertex))).masked_fill(parent == vertex, -1)
        return Tree(parent, order, depth, order[:, 0], edge)

    def to(self, device: torch.device | str) -> Tree:
        """The same trees on another device; itself if it is there already."""
        parent, order, depth, root = (field.to(device) for field in self[:4])
        return Tree(parent, order, depth, root, None if self.edge is None else self.edge.to(device))

    def validate(self) -> None:
        """Raises ValueError unless this is what `Tree` promises: trees or forests, an order with parents first, depths, roots.

        Any order passes that has roots first, parents before their children and vertices in no tree last, not the canonical
        one alone. O(B V log V) in time, O(B V) in memory.
        """
        expected = Tree.from_parents(self.parent, forest=True)
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
        outside, is_root = self.parent < 0, self.parent == vertex
        place = (outside.int() - is_root.int()).gather(1, self.order.long())
        if (place.diff() < 0).any():
            raise ValueError("order must put roots first and vertices in no tree last")
        position = torch.empty_like(self.order).scatter_(1, self.order.long(), vertex)
        late = (position.gather(1, torch.where(outside, vertex, self.parent).long()) > position).nonzero()
        if late.numel():
            item, child = late[0].tolist()
            raise ValueError(f"order must put parents first, but in item {item} vertex {child} stands at position "
                             f"{position[item, child].item()} and its parent {self.parent[item, child].item()} at "
                             f"{position[item, self.parent[item, child]].item()}")
        # Roots come first in any order, but which of several does is open.
        root = Tree.of_forest(self.parent, self.order, self.depth).root
        for name, right in (("depth", expected.depth), ("root", root)):
            values = getattr(self, name)
            wrong = (values != right).nonzero()
            if wrong.numel():
                at = tuple(wrong[0].tolist())
                where = ", ".join(map(str, at))
                raise ValueError(f"{name}[{where}] must be {right[at].item()}, got {values[at].item()}")
        if self.edge is not None and not torch.equal(self.edge < 0, is_root | outside):
            raise ValueError("edge must be -1 at the root, outside all trees, and the index of an edge everywhere else")
