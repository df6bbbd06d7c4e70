"""Trees of pictures and scans along them on NumPy arrays, without torch.

    tree = treescan.numpy.minimum_spanning_tree(picture)
    smooth = treescan.numpy.tree_filter(picture, sigma_color=20)

Pictures are (H, W) or (H, W, C) arrays as scikit-image has them, of any floating or integer dtype and any strides; pixel
(r, c) is vertex r * W + c. Results are new arrays. Nothing is scaled: what is measured in values of the picture is in its own.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import flag, integer, number
from ._library import _C

__all__ = ["EdgeWeights", "Tree", "edge_weights", "minimum_spanning_tree", "tree_filter", "tree_scan"]

Direction = Literal["up", "down", "both"]
Metric = Literal["cosine", "l2", "l1"]

_C.set_dtypes(np)


class _View:
    """An array with the attributes by which the native module knows tensors."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.dtype, self.shape = array, array.dtype.type, array.shape

    def stride(self) -> tuple[int, ...]:
        return tuple(step // self.array.itemsize for step in self.array.strides)

    def data_ptr(self) -> int:
        return self.array.ctypes.data


class EdgeWeights(NamedTuple):
    """The edges of a picture's grid and what they cost: arrays (E, 2) int32 and (E,) float32 or float64."""

    edges: NDArray[np.int32]
    cost: NDArray[Any]


class Tree(NamedTuple):
    """A rooted spanning tree, or a forest: int32 arrays (V,) as `treescan.Tree` has them in rows.

    Fields:
        parent: of each vertex; a root is its own parent, and a vertex in no tree has -1.
        order: the vertex at each position, parents before their children, vertices in no tree last.
        depth: the number of edges to the root; -1 in no tree.
        edge: the index of the edge to the parent; -1 at roots and in no tree.
    """

    parent: NDArray[np.int32]
    order: NDArray[np.int32]
    depth: NDArray[np.int32]
    edge: NDArray[np.int32]


def _choice(name: str, value: str, choices: dict[str, int]) -> int:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return choices[value]


def _numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """An array of a dtype that can be computed with, aligned and in the machine's byte order: the caller's own if it is."""
    array: NDArray[Any] = np.asarray(values)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size <= 8:
        wanted = array.dtype.newbyteorder("=")
    elif kind in "iu" and array.dtype != np.uint64:
        # Float32 holds 16 bits and the sums of some squares of 8 bits; float64 holds 32.
        wanted = np.dtype(np.float32 if size == 1 else np.float64)
    else:
        raise TypeError(f"{name} must have a floating dtype of at most 64 bits or an integer one other than uint64, "
                        f"got {array.dtype}")
    array = array.astype(wanted, copy=False)
    whole_steps = all(step % array.itemsize == 0 for step in array.strides)
    return array if whole_steps and array.flags.aligned else array.copy()


def _picture(name: str, values: ArrayLike) -> NDArray[Any]:
    """A picture as (1, C, H, W), a view of what `_numbers` gives."""
    array = np.asarray(values)
    if array.ndim not in (2, 3) or 0 in array.shape[:2]:
        raise ValueError(f"{name} must have shape (H, W) or (H, W, C) with at least one pixel, got {array.shape}")
    if array.ndim == 3 and array.dtype.kind in "iu" and array.dtype.itemsize == 1 and array.shape[2] > 256:
        array = array.astype(np.float64)
    array = _numbers(name, array)
    rows = array[..., None] if array.ndim == 2 else array
    planes: NDArray[Any] = rows.transpose(2, 0, 1)[None]
    return planes


def _neighbours(connectivity: SupportsIndex) -> int:
    neighbours = integer("connectivity", connectivity)
    if neighbours not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {neighbours}")
    return neighbours


def _grid(height: int, width: int, connectivity: int) -> tuple[int, list[int], None, None]:
    return _C.GRAPH_KINDS["grid"], [height, width, connectivity, 0, 0, 0], None, None


def _edges(height: int, width: int, connectivity: int) -> NDArray[np.int32]:
    vertex = np.arange(height * width, dtype=np.int32).reshape(height, width)
    pairs = [(vertex[:-1], vertex[1:]), (vertex[:, :-1], vertex[:, 1:])]
    if connectivity == 8:
        pairs += [(vertex[:-1, :-1], vertex[1:, 1:]), (vertex[:-1, 1:], vertex[1:, :-1])]
    return np.concatenate([np.stack((a.ravel(), b.ravel()), 1) for a, b in pairs])


def _cost(picture: NDArray[Any], metric: str, connectivity: int) -> NDArray[Any]:
    """(1, E), in the precision of the picture."""
    height, width = picture.shape[2:]
    diagonals = 2 * (height - 1) * (width - 1) if connectivity == 8 else 0
    edges = (height - 1) * width + height * (width - 1) + diagonals
    cost = np.empty((1, edges), np.float64 if picture.dtype == np.float64 else np.float32)
    _C.edge_weights(*_grid(height, width, connectivity), _View(picture), _choice("metric", metric, _C.METRICS), False, _View(cost))
    return cost


def edge_weights(image: ArrayLike, *, metric: Metric = "l2", connectivity: SupportsIndex = 4) -> EdgeWeights:
    """What the edges of a picture's grid cost, from the values f at their ends.

        "cosine"  -f[a]·f[b] / (|f[a]| |f[b]|), 0 if either is 0
        "l2"      Σ_c (f[a] - f[b])²
        "l1"      Σ_c |f[a] - f[b]|

    Arguments:
        image: (H, W) or (H, W, C).
        metric: "l2", "l1" or "cosine".
        connectivity: 4 or 8 neighbours.

    Returns (edges, cost): pixels (E, 2) int32, and costs (E,), float64 where the picture is that or of integers of more than
    8 bits, else float32. Vertical edges come first, row by row, then horizontal ones, then both kinds of diagonals.

    Raises ValueError for another shape, metric or connectivity, TypeError for another dtype. O(E C) in time; the same bits
    for any number of threads.

    >>> import numpy as np
    >>> edges, cost = edge_weights(np.array([[0, 1, 3]], dtype=np.uint8))
    >>> edges.tolist(), cost.tolist()
    ([[0, 1], [1, 2]], [1.0, 4.0])

    Source: as for `treescan.edge_weights`.
    """
    picture = _picture("image", image)
    height, width = picture.shape[2:]
    neighbours = _neighbours(connectivity)
    return EdgeWeights(_edges(height, width, neighbours), _cost(picture, metric, neighbours)[0])


def minimum_spanning_tree(image: ArrayLike, *, metric: Metric = "l2", connectivity: SupportsIndex = 4, maximum: bool = False,
                          root: SupportsIndex = 0, mask: ArrayLike | None = None) -> Tree:
    """The spanning tree of a picture's grid of least total cost, unique under the order (cost, edge index).

    Arguments:
        image, metric, connectivity: as for `edge_weights`.
        maximum: the tree of greatest cost instead.
        root: a vertex.
        mask: (H, W) bool, True for pixels that take part; the result is then a forest, each tree rooted at `root` if that lies
            in it, else at its lowest pixel.

    Raises ValueError for a root out of range or another shape of the mask, TypeError for a mask that isn't bool, and what
    `edge_weights` raises. O(E C) expected time; the same tree for any number of threads.

    >>> import numpy as np
    >>> minimum_spanning_tree(np.array([[0.0, 5.0], [1.0, 2.0]])).parent
    array([0, 3, 0, 2], dtype=int32)

    Source: as for `treescan.minimum_spanning_tree`.
    """
    return _tree(_picture("image", image), metric, connectivity, maximum, root, mask)


def _tree(picture: NDArray[Any], metric: str, connectivity: SupportsIndex, maximum: bool, root: SupportsIndex,
          mask: ArrayLike | None) -> Tree:
    height, width = picture.shape[2:]
    segments = None
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise TypeError(f"mask must be a bool array, got {mask.dtype}")
        if mask.shape != (height, width):
            raise ValueError(f"mask must have the picture's shape {(height, width)}, got {mask.shape}")
        segments = _View(mask.reshape(1, -1).astype(np.int32) - 1)
    vertex = integer("root", root)
    if not 0 <= vertex < height * width:
        raise ValueError(f"root must be a vertex in [0, {height * width}), got {vertex}")
    neighbours, maximum = _neighbours(connectivity), flag("maximum", maximum)
    cost = _cost(picture, metric, neighbours)
    tree = [np.empty((1, height * width), np.int32) for _ in range(4)]
    _C.minimum_spanning_tree(*_grid(height, width, neighbours), _View(cost), maximum,
                             _View(np.full(1, vertex, np.int32)), segments, *map(_View, tree))
    return Tree(*(field[0] for field in tree))


def tree_scan(x: ArrayLike, weights: ArrayLike, tree: Tree | ArrayLike, direction: Direction = "both") -> NDArray[Any]:
    """State propagation along a tree, in time linear in its vertices.

    With p the parent map of the tree and r its root:

        "up"    u[v] = x[v] + Σ_{c: p(c)=v} w[c]·u[c]
        "down"  d[r] = x[r];  d[v] = x[v] + w[v]·d[p(v)]
        "both"  y[i] = Σ_j (Π_{e on the path i..j} w_e)·x[j]

    Arguments:
        x: (H, W), (H, W, C) or (V,) values for the tree's V vertices.
        weights: w, of a shape that broadcasts to x's, an (H, W) array for all channels as well; w[v] belongs to the edge
            between v and its parent.
        tree: a Tree, or an array (V,) of parents, a root its own and -1 for vertices in no tree.
        direction: "up" (leaves to root), "down" (root to leaves) or "both".

    Returns y of x's shape, in float64 where x or the weights are that or integers of more than 8 bits, else in float32; float16
    stays if both are. 0 at vertices in no tree. Raises ValueError for shapes that don't fit, another direction or what isn't a
    tree, TypeError for another dtype. O(C V); the same bits for any number of threads.

    >>> import numpy as np
    >>> x = np.ones((2, 2))
    >>> tree_scan(x, 0.5 * x, minimum_spanning_tree(x))
    array([[2.25 , 2.25 ],
           [1.875, 1.875]])

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.2, equations 5 to 7.
    """
    values, factors = _numbers("x", x), _numbers("weights", weights)
    dtype = np.result_type(values, factors)
    values, factors = values.astype(dtype, copy=False), factors.astype(dtype, copy=False)
    if values.ndim not in (1, 2, 3):
        raise ValueError(f"x must have shape (V,), (H, W) or (H, W, C), got {values.shape}")
    if values.ndim == 3 and factors.shape == values.shape[:2]:
        factors = factors[..., None]
    try:
        factors = np.broadcast_to(factors, values.shape)
    except ValueError:
        raise ValueError(f"weights must broadcast to x's shape {values.shape}, got {factors.shape}") from None
    result = np.empty_like(values)
    views = []
    for array in (values, factors, result):
        plane = array[None] if array.ndim == 1 else array  # a sequence is a picture of one row
        views.append(_View((plane[..., None] if plane.ndim == 2 else plane).transpose(2, 0, 1)[None]))
    parent, order = _parent_and_order(tree, views[0].shape[2] * views[0].shape[3])
    _C.scan(_choice("direction", direction, _C.DIRECTIONS), _View(parent[None]), _View(order[None]), *views)
    return result


def _parent_and_order(tree: Tree | ArrayLike, vertices: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    given = np.asarray(tree.parent if isinstance(tree, Tree) else tree)
    if given.dtype.kind not in "iu":
        raise TypeError(f"tree must be a Tree or an integer array of parents, got {given.dtype}")
    if given.shape != (vertices,):
        raise ValueError(f"tree must have a parent for each of x's {vertices} vertices, got shape {given.shape}")
    if isinstance(tree, Tree):
        return np.ascontiguousarray(given, np.int32), np.ascontiguousarray(tree.order, np.int32)
    if vertices and not (-1 <= given.min() and given.max() < vertices):
        wrong = int(np.flatnonzero((given < -1) | (given >= vertices))[0])
        raise ValueError(f"tree must hold vertices in [0, {vertices}) or -1, got {given[wrong]} at vertex {wrong}")
    parent, order, depth = (np.empty((1, vertices), np.int32) for _ in range(3))
    _C.forest_from_parents(_View(np.ascontiguousarray(given, np.int32)[None]), *map(_View, (parent, order, depth)))
    return parent[0], order[0]


def tree_filter(image: ArrayLike, sigma_color: float, *, guide: ArrayLike | None = None, connectivity: SupportsIndex = 4,
                mask: ArrayLike | None = None) -> NDArray[Any]:
    """Edge-preserving smoothing: every pixel becomes a mean of all, weighted along the minimum spanning tree.

        y[i] = Σ_j S(i, j)·x[j] / Σ_j S(i, j),    S(i, j) = exp(-Σ_{e on the path i..j} |f[a] - f[b]|² / sigma_color²)

    with f the guide's values at the ends a, b of a tree edge.

    Arguments:
        image: x, (H, W) or (H, W, C).
        sigma_color: > 0, the difference of values at which an edge counts 1/e: 20 or so for pictures of 0 to 255.
        guide: (H, W) or (H, W, any C), what the tree and its distances are taken from; default the image.
        connectivity: 4 or 8 neighbours.
        mask: (H, W) bool, False for pixels to leave out: they are 0 in the result and matter to no other.

    Returns floats of the image's shape: float64 where it is that or of integers of more than 8 bits, else float32. Raises
    ValueError for sizes that don't fit or a sigma that isn't above 0, TypeError for another dtype. O(C H W); the same bits for
    any number of threads.

    >>> import numpy as np
    >>> tree_filter(np.array([[10, 10, 200]], dtype=np.uint8), sigma_color=5)
    array([[ 10.,  10., 200.]], dtype=float32)

    Source: Song et al., "Learnable Tree Filter for Structure-preserving Feature Transform" (NeurIPS 2019), section 3.1.
    """
    sigma = number("sigma_color", sigma_color)
    if not 0 < sigma < np.inf:
        raise ValueError(f"sigma_color must be above 0 and finite, got {sigma_color!r}")
    picture = _picture("image", image)
    values = picture[0].transpose(1, 2, 0)
    features = picture if guide is None else _picture("guide", guide)
    if features.shape[2:] != picture.shape[2:]:
        raise ValueError(f"guide must have the image's height and width {picture.shape[2:]}, got {features.shape[2:]}")
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # a half type can't count pixels
    tree = _tree(features, "l2", connectivity, False, 0, mask)
    inside = tree.parent >= 0
    flat = features[0].reshape(features.shape[1], -1)
    flat = flat.astype(np.result_type(flat, np.float32), copy=False)
    if mask is not None:
        flat = np.where(inside, flat, 0)
    distance = np.square(flat - flat[:, np.where(inside, tree.parent, 0)]).sum(0).reshape(values.shape[:2])
    weights = np.exp(-distance / sigma**2).astype(values.dtype)
    beside = np.concatenate((values, np.ones_like(values[..., :1])), 2)
    sums = tree_scan(beside, weights, tree)
    # In a tree every pixel has at least its own weight, 1.
    result: NDArray[Any] = sums[..., :-1] / np.maximum(sums[..., -1:], 1)
    return result.reshape(np.shape(image))
