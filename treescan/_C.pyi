"""The native module, python/bind.cpp: the C interface (treescan.h) with torch tensors in place of views.

Private: use the package. Outputs are allocated by the caller; an argument that may be left out is None. Sizes are height, width,
connectivity, length, window and number of vertices.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

class Tensor(Protocol):
    """One of torch's, or what treescan.numpy makes of an array."""

    def data_ptr(self) -> int: ...

HEADER_VERSION: int
DIRECTIONS: dict[str, int]
METRICS: dict[str, int]
GRAPH_KINDS: dict[str, int]

def version() -> int: ...
def build_info() -> str: ...
def get_instruction_set() -> str: ...
def set_instruction_set(name: str, /) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(num_threads: int | None, /) -> None: ...
def lend_torch_pool(parallel_for: int, num_threads: int, /) -> None: ...
def call_guard() -> tuple[int, int]: ...
def set_dtypes(library: object, /) -> None: ...
def synchronize(device_index: int, stream: int, /) -> None: ...
def set_cuda_trees(team: str, /) -> None: ...
def set_cuda_scans(strategy: str, /) -> None: ...
def scan(direction: int, parent: Tensor, order: Tensor, x: Tensor, weights: Tensor, y: Tensor, /) -> None: ...
def scan_backward(
    direction: int,
    parent: Tensor,
    order: Tensor,
    x: Tensor,
    weights: Tensor,
    grad: Tensor,
    grad_x: Tensor,
    grad_weights: Tensor,
    /,
) -> None: ...

# The eight tensors of a selective scan, and their gradients: u, delta, A, B, C, D, z, delta_bias.
def selective_scan(
    direction: int,
    parent: Tensor,
    order: Tensor,
    inputs: Sequence[Tensor | None],
    delta_softplus: bool,
    y: Tensor,
    last_state: Tensor | None,
    /,
) -> None: ...
def selective_scan_backward(
    direction: int,
    parent: Tensor,
    order: Tensor,
    inputs: Sequence[Tensor | None],
    delta_softplus: bool,
    grad_y: Tensor,
    grad_last_state: Tensor | None,
    gradients: Sequence[Tensor | None],
    /,
) -> None: ...
def edge_weights(
    kind: int,
    sizes: Sequence[int],
    context_length: Sequence[int] | None,
    edges: Tensor | None,
    features: Tensor,
    metric: int,
    exponential: bool,
    cost: Tensor,
    /,
) -> None: ...
def minimum_spanning_tree(
    kind: int,
    sizes: Sequence[int],
    context_length: Sequence[int] | None,
    edges: Tensor | None,
    cost: Tensor,
    maximum: bool,
    root: Tensor,
    segments: Tensor | None,
    parent: Tensor,
    order: Tensor | None,
    depth: Tensor | None,
    edge: Tensor | None,
    /,
) -> None: ...
def random_spanning_tree(
    kind: int,
    sizes: Sequence[int],
    context_length: Sequence[int] | None,
    edges: Tensor | None,
    cost: Tensor,
    seed: int,
    root: Tensor,
    parent: Tensor,
    order: Tensor | None,
    depth: Tensor | None,
    edge: Tensor | None,
    /,
) -> None: ...
def tree_from_edges(
    edges: Tensor,
    root: Tensor,
    by_edge: bool,
    parent: Tensor,
    order: Tensor | None,
    depth: Tensor | None,
    edge: Tensor | None,
    /,
) -> None: ...
def tree_from_parents(
    parent: Tensor,
    root: Tensor | None,
    parent_out: Tensor,
    order: Tensor | None,
    depth: Tensor | None,
    /,
) -> None: ...
def forest_from_parents(
    parent: Tensor,
    parent_out: Tensor,
    order: Tensor | None,
    depth: Tensor | None,
    /,
) -> None: ...
