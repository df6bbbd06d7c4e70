"""The native module, python/bind.cpp: the C interface (treescan.h) with arrays in place of views.

Private: use the package. Outputs are allocated by the caller; an argument that may be left out is None. Sizes are height, width,
connectivity, length, window and number of vertices.
"""

from collections.abc import Sequence
from typing import Protocol

class Tensor(Protocol):
    """What treescan.numpy makes of an array."""

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
def forest_from_parents(
    parent: Tensor,
    parent_out: Tensor,
    order: Tensor | None,
    depth: Tensor | None,
    /,
) -> None: ...
