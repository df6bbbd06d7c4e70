"""Graphs: the light values that say which vertices are neighbours.

A graph holds sizes, not edges. The order of its edges is part of its meaning, since ties between edge weights go to the
edge with the lower index; `Graph.edge_index` lists them when somebody wants to see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.utils._pytree import GetAttrKey, register_pytree_node

from ._arguments import integer
from ._indices import Indices, are_indices, indices

_MAX_INDEX = 2**31 - 1  # vertices and edges are named by 32-bit indices


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A graph as `grid_graph`, `token_graph`, `chain_graph` and `edge_graph` make it. Unused fields are 0 or None."""

    kind: str  # "grid", "tokens", "chain" or "edges"
    height: int = 0
    width: int = 0
    connectivity: int = 0
    length: int = 0
    window: int = 0
    context_length: Sequence[int] | None = None  # one for all batch items, or one for each
    vertices: int = 0
    edges: Tensor | None = None

    @property
    def num_vertices(self) -> int:
        """V, the number of vertices."""
        if self.kind == "grid":
            return self.height * self.width
        return self.vertices if self.kind == "edges" else self.length

    @property
    def num_edges(self) -> int:
        """E, the number of edges; with a context per batch item, as for the longest one."""
        if self.edges is not None:
            return self.edges.shape[-2]
        if self.kind == "grid":
            height, width = self.height, self.width
            diagonals = 2 * (height - 1) * (width - 1) if self.connectivity == 8 else 0
            return (height - 1) * width + height * (width - 1) + diagonals
        if self.kind == "tokens":
            # Beside the chain, the m vertices of the context have m - k edges of every length k from 2 to the window.
            context = self._longest_context
            longest = min(self.window, context - 1)
            return self.length - 1 + max(longest - 1, 0) * (2 * context - 2 - longest) // 2
        return self.length - 1

    @property
    def edge_index(self) -> Tensor:
        """Both ends of every edge, an (E, 2) int32 tensor; (B, E, 2) if `edge_graph` was given one list per item.

        Grid: all (r,c)-(r+1,c) row by row, then all (r,c)-(r,c+1) row by row; 8-connected grids then list all
        (r,c)-(r+1,c+1) and all (r,c)-(r+1,c-1), row by row. Tokens: by lower vertex, then by higher one.
        """
        return self.edge_index_on(None)

    def edge_index_on(self, device: torch.device | str | None) -> Tensor:
        """`edge_index`, made on a device, or on torch's default device; a list that the graph was given stays where it is."""
        if self.edges is not None:
            return self.edges.to(torch.int32)
        vertex = torch.arange(self.num_vertices, dtype=torch.int32, device=device)
        if self.kind == "grid":
            vertex = vertex.view(self.height, self.width)
            pairs = [(vertex[:-1], vertex[1:]), (vertex[:, :-1], vertex[:, 1:])]
            if self.connectivity == 8:
                pairs += [(vertex[:-1, :-1], vertex[1:, 1:]), (vertex[:-1, 1:], vertex[1:, :-1])]
            return torch.cat([torch.stack((low.flatten(), high.flatten()), -1) for low, high in pairs])
        if self.kind == "chain":
            return torch.stack((vertex[:-1], vertex[1:]), -1)
        step = torch.arange(1, max(min(self.window, self.length - 1), 1) + 1, dtype=torch.int32, device=device)
        low, high = torch.broadcast_tensors(vertex[:, None], vertex[:, None] + step)
        linked = (high < self.length) & ((step == 1) | (low >= self.length - self._longest_context))
        return torch.stack((low[linked], high[linked]), -1)

    @property
    def _longest_context(self) -> int:
        return self.length if self.context_length is None else max(self.context_length, default=0)

    @property
    def arguments(self) -> tuple[str, list[int], Sequence[int] | None, Tensor | None]:
        """The graph as the custom ops take it; `Graph.from_arguments` is the way back."""
        sizes = [self.height, self.width, self.connectivity, self.length, self.window, self.vertices]
        return self.kind, sizes, self.context_length, self.edges

    @classmethod
    def from_arguments(cls, kind: str, sizes: Sequence[int], context_length: Sequence[int] | None,
                       edges: Tensor | None) -> Graph:
        height, width, connectivity, length, window, vertices = sizes
        return cls(kind, height, width, connectivity, length, window, context_length, vertices, edges)

    def __repr__(self) -> str:
        if self.kind == "grid":
            return f"grid_graph({self.height}, {self.width}, connectivity={self.connectivity})"
        if self.kind == "tokens":
            return f"token_graph({self.length}, window={self.window}, context_length={self.context_length})"
        if self.edges is not None:
            return f"edge_graph(<edge_index {tuple(self.edges.shape)}>, {self.vertices})"
        return f"chain_graph({self.length})"


def transpose(edges: Tensor) -> str:
    """What an error adds for edges that lie the other way round, as PyTorch Geometric's do."""
    return ": give its transpose, .T" if edges.ndim == 2 and edges.shape[0] == 2 else ""


def _checked(graph: Graph) -> Graph:
    for name, count in (("vertices", graph.num_vertices), ("edges", graph.num_edges)):
        if count > _MAX_INDEX:
            raise ValueError(f"a graph must have at most {_MAX_INDEX} {name}, got {count} in {graph}")
    return graph


def grid_graph(height: SupportsIndex, width: SupportsIndex, connectivity: SupportsIndex = 4) -> Graph:
    """The grid of height × width pixels, vertex `r * width + c`, linked to their 4 or 8 neighbours.

    Raises ValueError for a size below 1, another connectivity, or more vertices or edges than a 32-bit index can name.
    O(1) in time and memory.

    >>> graph = grid_graph(2, 2)
    >>> graph.num_vertices, graph.num_edges
    (4, 4)
    >>> graph.edge_index.tolist()
    [[0, 2], [1, 3], [0, 1], [2, 3]]

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2 (4 neighbours).
    """
    connectivity = integer("connectivity", connectivity)
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    return _checked(Graph("grid", height=integer("height", height, 1), width=integer("width", width, 1),
                          connectivity=connectivity))


def token_graph(length: SupportsIndex, window: SupportsIndex = 3,
                context_length: SupportsIndex | Sequence[SupportsIndex] | Indices | None = None) -> Graph:
    """A sequence of `length` tokens: a chain, in which the context sees `window` tokens ahead.

    Vertex i is linked to i+1 everywhere, and to i+2 ... i+window inside the context, which is the last
    `context_length` vertices.

    Arguments:
        length: the number of tokens, at least 1.
        window: at least 1; 1 makes a chain.
        context_length: an int for all batch items, or B of them (sequence or (B,) indices), each in
            [0, length]; None for all of it. Edges are numbered as for the longest context; those that an item lacks
            cost +inf and take part in nothing. A tensor is read at once: inside `torch.compile`, and where nothing should
            wait for a GPU, give ints.

    Raises ValueError for a size out of range and TypeError for one that isn't an integer. O(1) in time and memory.

    >>> token_graph(5, window=2, context_length=3).edge_index.tolist()
    [[0, 1], [1, 2], [2, 3], [2, 4], [3, 4]]

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.3.
    """
    length, window = integer("length", length, 1), integer("window", window, 1)
    if context_length is None:
        return _checked(Graph("tokens", length=length, window=window))
    if are_indices(context_length):
        tensor = indices("context_length", context_length)
        if tensor.ndim > 1:
            raise ValueError(f"context_length must be an integer or have shape (B,), got shape {tuple(tensor.shape)}")
        context_length = tensor.tolist()
    listed = context_length if isinstance(context_length, Sequence) else (context_length,)
    contexts = tuple(integer("context_length", item, 0) for item in listed)
    for item in contexts:
        if item > length:
            raise ValueError(f"context_length must be at most length = {length}, got {item}")
    return _checked(Graph("tokens", length=length, window=window, context_length=contexts))


def chain_graph(length: SupportsIndex) -> Graph:
    """The chain 0 - 1 - ... - (length-1), whose only spanning tree makes a scan the ordinary recurrence.

    Raises ValueError for a length below 1 or past what a 32-bit index can name. O(1) in time and memory.

    >>> chain_graph(3).edge_index.tolist()
    [[0, 1], [1, 2]]
    """
    return _checked(Graph("chain", length=integer("length", length, 1)))


def edge_graph(edge_index: Indices, num_vertices: SupportsIndex) -> Graph:
    """Any graph, from the list of its edges.

    Arguments:
        edge_index: (E, 2), or (B, E, 2) for one list per batch item: a tensor or a NumPy array of any integer type. An
            int32 or int64 tensor is kept and not copied.
        num_vertices: V; every index must be in [0, V), which is checked where a tree is built. The list must be on the
            device of the features or costs that come with it.

    Raises TypeError for another dtype, ValueError for another shape. O(1) in time and memory.

    >>> edge_graph(torch.tensor([[0, 1], [2, 1]]), 3).num_edges
    2
    """
    if isinstance(edge_index, Tensor) and edge_index.dtype == torch.int64:
        edges = edge_index
    else:
        edges = indices("edge_index", edge_index)
    if edges.ndim not in (2, 3) or edges.shape[-1] != 2:
        raise ValueError(f"edge_index must have shape (E, 2) or (B, E, 2), got {tuple(edges.shape)}{transpose(edges)}")
    return _checked(Graph("edges", vertices=integer("num_vertices", num_vertices, 1), edges=edges))


# What torch has to be told, to save exported programs that take or return a Graph, and to load Graphs with weights_only. Its
# kind is part of the structure: a saved program can't return a string, as `torch.export.register_dataclass` would have it.
_FIELDS = [field.name for field in fields(Graph)][1:]
register_pytree_node(
    Graph,
    lambda graph: ([getattr(graph, name) for name in _FIELDS], graph.kind),
    lambda values, kind: Graph(kind, *values),
    serialized_type_name="treescan.Graph",
    flatten_with_keys_fn=lambda graph: ([(GetAttrKey(name), getattr(graph, name)) for name in _FIELDS], graph.kind),
)
torch.serialization.add_safe_globals([Graph])
