"""Rooted spanning trees and forests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import _register_namedtuple
from torch.utils.data._utils.collate import default_collate_fn_map

from . import ops
from ._arguments import flag, integer, kind
from ._indices import Indices, are_indices, can_look, indices
from .graph import transpose


# One vertex, or one for each item.
Root: TypeAlias = "SupportsIndex | Indices"


def root_tensor(root: Root, batch: int, like: Tensor) -> Tensor:
    """The argument `root` as the ops take it beside `like`: int32, one for the whole batch or one for each item."""
    if type(root) is not int and are_indices(root):
        roots = indices("root", root)
        if roots.ndim == 0:
            roots = roots.reshape(1)
        if roots.ndim != 1 or (roots.shape[0] != 1 and roots.shape[0] != batch):
            raise ValueError(f"root must be an integer or have shape ({batch},), got shape {tuple(roots.shape)}")
        return roots.to(like.device)
    vertex = integer("root", root)
    if not -(2**31) <= vertex < 2**31:
        raise ValueError(f"root must be a 32-bit index, got {vertex}")
    return like.new_full((1,), vertex, dtype=torch.int32)


def _several(trees: Sequence[Tree]) -> list[Tree]:
    for tree in trees:
        if not isinstance(tree, Tree):
            raise TypeError(f"trees must hold Trees, got {kind(tree)}")
    if not trees:
        raise ValueError("trees must hold at least one Tree, got none")
    return list(trees)


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
        return self._sizes()[1]

    @property
    def batch_size(self) -> int:
        """B, the number of trees."""
        return self._sizes()[0]

    def _sizes(self) -> tuple[int, int]:
        """(B, V), of fields that have these two dimensions: a stack of trees has one more, and would be misread."""
        if self.parent.ndim != 2:
            raise ValueError(f"a Tree's parent must have shape (B, V), got {tuple(self.parent.shape)}: Tree.collate puts trees "
                             "side by side in the batch")
        batch, vertices = self.parent.shape
        return batch, vertices

    @property
    def edges(self) -> Tensor:
        """The tree's edges, (B, V-1, 2) int32: (parent, child) for the child at position 1, 2, ... V-1.

        In a forest that includes (v, v) for a further root v, and (-1, v) for a vertex in no tree.
        """
        self._sizes()
        child = self.order[:, 1:]
        return torch.stack((self.parent.gather(1, ops.as_index(child)), child), -1)

    @classmethod
    def from_parents(cls, parent: Indices, *, root_parent: Literal["self", -1] = "self", forest: bool = False) -> Tree:
        """The tree that a parent array describes, in canonical order, however its vertices are numbered.

        Arguments:
            parent: (B, V), the parent of each vertex: a tensor or a NumPy array of any integer type and strides. It is
                copied, unless it is an int32 tensor.
            root_parent: what stands at a root: "self", the root itself, or -1. With -1 no vertex may be its own parent.
            forest: whether an item may have any number of roots. With root_parent="self" it may also have vertices in no
                tree, whose parent is -1; with root_parent=-1 every -1 is a root.

        Raises ValueError if an item isn't one tree (a cycle, no root or several, an index out of range) or, with
        `forest`, has a cycle or an index out of range; TypeError for another dtype. O(B V) in time and memory.

        The way back is `tree.parent`, where roots are their own parents, or `tree.parent.where(tree.depth > 0, -1)`.

        A prefix tree of token sequences, as speculative decoding drafts them, costs its nodes and not its paths:

        >>> tokens = Tree.from_parents(torch.tensor([[0, 0, 1, 1, 3]]))  # the paths 0-1-2 and 0-1-3-4
        >>> from treescan import tree_scan
        >>> x = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
        >>> tree_scan(x, torch.full_like(x, 0.5), tokens, direction="down")
        tensor([[[1.0000, 2.5000, 4.2500, 5.2500, 7.6250]]])
        >>> Tree.from_parents(torch.tensor([[1, -1, 0, 1]]), root_parent=-1).order.tolist()
        [[1, 0, 3, 2]]
        >>> Tree.from_parents(torch.tensor([[1, 1, -1, 3]]), forest=True).order.tolist()
        [[1, 3, 0, 2]]
        """
        values = indices("parent", parent)
        if values.ndim != 2:
            one = ": parent[None] is a batch of one" if values.ndim == 1 else ""
            raise ValueError(f"parent must have shape (B, V), got {tuple(values.shape)}{one}")
        if not isinstance(root_parent, str) and integer("root_parent", root_parent) == -1:
            vertex = ops.vertex_numbers(values).to(torch.int32)
            own = values == vertex
            if can_look(own) and own.any():
                item, at = own.nonzero()[0].tolist()
                raise ValueError(f"parent[{item}, {at}] is {at}, the vertex itself: expected another vertex, or -1 at a root, "
                                 "as root_parent=-1 says")
            # What is its own parent stays an error where nobody looks.
            values = torch.where(values == -1, vertex, values.masked_fill(own, -2))
        elif root_parent != "self":
            raise ValueError(f"root_parent must be 'self' or -1, got {root_parent!r}")
        if flag("forest", forest):
            return cls.of_forest(*ops.forest_from_parents(values))
        try:
            above, order, depth = ops.tree_from_parents(values, None)
        except ValueError:
            if root_parent != "self" or not can_look(values) or not (values == -1).any():
                raise
            item, at = (values == -1).nonzero()[0].tolist()
            raise ValueError(f"parent[{item}, {at}] is -1: expected a vertex in [0, {values.shape[1]}), a root its own parent. "
                             "If -1 stands for a root, pass root_parent=-1; if it stands for a vertex in no tree, "
                             "forest=True") from None
        return cls(above, order, depth, order[:, 0])

    @classmethod
    def from_edges(cls, edges: Indices, *, root: Root = 0) -> Tree:
        """The tree that its edges make up, in canonical order; `edge` is their number in the list.

        Arguments:
            edges: (V-1, 2), or (B, V-1, 2) for a batch: both ends of every edge, in any order and direction. A tensor or a
                NumPy array of any integer type and strides.
            root: one vertex for all, or (B,) with one for each item.

        Raises ValueError if the edges are no tree on the vertices 0 ... V-1 (a cycle, so that not all are connected, or an
        index out of range), or for another shape or root; TypeError for another dtype. O(B V) in time and memory.

        `edge_graph` is for edges of which a tree is still to be chosen, or that make up several.

        >>> tree = Tree.from_edges(torch.tensor([[2, 1], [0, 2], [1, 3]]))
        >>> tree.parent.tolist(), tree.edge.tolist()
        ([[0, 2, 0, 1]], [[-1, 0, 1, 2]])
        """
        values = indices("edges", edges)
        if values.ndim not in (2, 3) or values.shape[-1] != 2:
            raise ValueError(f"edges must have shape (V-1, 2) or (B, V-1, 2), got {tuple(values.shape)}{transpose(values)}")
        values = values.unsqueeze(0) if values.ndim == 2 else values
        parent, order, depth, edge = ops.tree_from_edges(values, root_tensor(root, values.shape[0], values), False)
        return cls(parent, order, depth, order[:, 0], edge)

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
        trees = _several(trees)
        total = sum(tree.batch_size * tree.num_vertices for tree in trees)
        if total >= 2**31:
            raise ValueError(f"trees must have fewer than {2**31} vertices in all, got {total}")
        parents, first = [], 0
        for tree in trees:
            batch, vertices = tree._sizes()
            start = first + vertices * torch.arange(batch, dtype=torch.int32, device=tree.parent.device)[:, None]
            parents.append(torch.where(tree.parent < 0, -1, tree.parent + start).flatten())
            first += batch * vertices
        return cls.from_parents(torch.cat(parents)[None], forest=True)

    @classmethod
    def collate(cls, trees: Sequence[Tree]) -> Tree:
        """The items of several trees as one batch: what a DataLoader makes of samples that hold a Tree each.

        Importing treescan tells `torch.utils.data.default_collate` so. (It would stack the fields of any other named tuple,
        into a dimension that no tree has.)

        Arguments:
            trees: Trees of any batch sizes and of one number of vertices, at least one. `pack` takes different numbers.

        Returns a Tree with batch size Σ B. Its `edge` is None if theirs is. Raises ValueError for no trees, other numbers of
        vertices, or an `edge` that some have and some haven't; TypeError for what is no Tree. O(B V) in time and memory.

        >>> one, other = Tree.from_parents(torch.tensor([[0, 0]])), Tree.from_parents(torch.tensor([[1, 1]]))
        >>> Tree.collate([one, other]).parent.tolist()
        [[0, 0], [1, 1]]
        """
        trees = _several(trees)
        vertices = [tree.num_vertices for tree in trees]
        if len(set(vertices)) > 1:
            raise ValueError(f"trees must have one number of vertices, got {vertices}: Tree.pack takes trees of any")
        edges = [tree.edge for tree in trees if tree.edge is not None]
        if edges and len(edges) < len(trees):
            raise ValueError(f"trees must all have edge, or none of them, got {len(edges)} of {len(trees)} that do")
        parent, order, depth, root = (torch.cat(fields) for fields in zip(*(tree[:4] for tree in trees)))
        return cls(parent, order, depth, root, torch.cat(edges) if edges else None)

    def reroot(self, root: Root) -> Tree:
        """The same trees with other roots, in canonical order.

        Arguments:
            root: one vertex for all, or (B,) with one for each item.

        Raises ValueError for a root out of range, a tensor of another shape or a forest. O(B V) in time and memory.

        >>> Tree.from_parents(torch.tensor([[0, 0, 1]])).reroot(2).parent.tolist()
        [[1, 2, 2]]
        """
        roots = root_tensor(root, self.batch_size, self.parent)
        parent, order, depth = ops.tree_from_parents(self.parent, roots)
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
        self._sizes()
        if self.parent.dtype != torch.int32:
            raise ValueError(f"parent must be an int32 tensor, got {kind(self.parent)}")
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


def _collate(trees: Sequence[Tree], *, collate_fn_map: Any = None) -> Tree:
    return Tree.collate(trees)


# What torch has to be told, to save exported programs that take or return a Tree, to load Trees with weights_only, and to
# collate them.
_register_namedtuple(Tree, serialized_type_name="treescan.Tree")
torch.serialization.add_safe_globals([Tree])
default_collate_fn_map[Tree] = _collate
