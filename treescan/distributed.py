"""How treescan's ops shard: import this module, and they run on DTensors.

    import treescan.distributed

Batches and channels split without communication; vertices don't, so a tensor that is sharded along them is gathered
first. It is a module of its own since torch.distributed.tensor takes longer to load than all the rest.

| op | splits along |
|---|---|
| scan, scan_backward | batch; channels, with the trees replicated |
| selective_scan, selective_scan_backward | batch; channels, with the trees replicated, unless B or C come in groups |
| edge_weights | batch |
| minimum_spanning_tree, tree_from_edges, tree_from_parents, forest_from_parents | batch |
| random_spanning_tree | nothing: an item's random numbers depend on its place in the batch |

The gradients of what is shared by all items or all channels (A and D, B and C) are partial sums until somebody needs them.

A tree or a root with a batch of 1 serves all items, and is replicated where they are split. A graph's edge list, if it has
one, must be a DTensor where the features are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from torch._ops import OpOverload
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec
from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
from torch.distributed.tensor.experimental import register_sharding

from . import ops, ops_selective

# Of several tensors; None for one that isn't there, or an argument that is none.
_Each: TypeAlias = list[Placement | None]
# Of an op's outputs, or of one where they are all alike, and of its arguments.
_Placements: TypeAlias = tuple[Placement | list[Placement], _Each]


def _with_batch(tensor: DTensorSpec | None) -> Placement | None:
    """The placement beside a batch that is split, of what has an entry for each item or one for all."""
    return None if tensor is None else Shard(0) if tensor.shape[0] > 1 else Replicate()


def _replicated(tensor: DTensorSpec | None) -> Placement | None:
    return None if tensor is None else Replicate()


def _register(op: OpOverload[..., Any]) -> Callable[[Callable[..., list[_Placements]]], Callable[..., list[_Placements]]]:
    """As `register_sharding`, for functions that give one placement for an op's outputs where they are all alike."""

    def decorate(function: Callable[..., list[_Placements]]) -> Callable[..., list[_Placements]]:
        outputs = len(op._schema.returns)

        def placements(*arguments: Any) -> list[tuple[list[Placement], _Each]]:
            return [(output if isinstance(output, list) else [output] * outputs, inputs)
                    for output, inputs in function(*arguments)]

        register_sharding(op)(placements)
        # Sizes of outputs follow from the arguments behind the first tensor; without this, calls would share them.
        DTensor._op_dispatcher.sharding_propagator.op_to_schema_info[op] = RuntimeSchemaInfo(1, needs_pytree=True)
        return function

    return decorate


def _scan_placements(*arguments: Any) -> list[_Placements]:
    *values, parent, order, _ = arguments
    return [(placement, [placement] * len(values) + [tree(parent), tree(order), None])
            for placement, tree in ((Replicate(), _replicated), (Shard(0), _with_batch), (Shard(1), _replicated))]


_register(ops.scan)(_scan_placements)
_register(ops.scan_backward)(_scan_placements)


def _selective_placements(u: DTensorSpec, delta: DTensorSpec, A: DTensorSpec, B: DTensorSpec, C: DTensorSpec,
                          D: DTensorSpec | None, z: DTensorSpec | None, delta_bias: DTensorSpec | None, parent: DTensorSpec,
                          order: DTensorSpec, *options: object) -> Iterator[tuple[_Each, _Each, _Each, Placement]]:
    """For inputs and their gradients, by way of splitting: placements of the eight tensors, of their gradients and of the
    tree."""

    def present(placements: Sequence[Placement]) -> _Each:
        return [None if tensor is None else placement
                for tensor, placement in zip((u, delta, A, B, C, D, z, delta_bias), placements)]

    def factor(tensor: DTensorSpec, per_vertex: Placement, per_channel: Placement) -> Placement:
        return per_vertex if tensor.ndim == 4 else per_channel

    whole = present([Replicate()] * 8)
    yield whole, whole, [Replicate(), Replicate()], Replicate()
    batch, shared = Shard(0), Replicate()
    inputs = present([batch, batch, shared, factor(B, batch, shared), factor(C, batch, shared), shared, batch, shared])
    yield inputs, [Partial() if placement == shared else placement for placement in inputs], [
        _with_batch(parent), _with_batch(order)], batch
    if all(tensor.ndim != 4 or tensor.shape[1] == 1 for tensor in (B, C)):
        channels, own = Shard(1), Shard(0)
        inputs = present([channels, channels, own, factor(B, shared, own), factor(C, shared, own), own, channels, own])
        yield inputs, [Partial() if placement == shared else placement for placement in inputs], [shared, shared], channels


@_register(ops_selective.selective_scan)
def _selective_scan_placements(*arguments: Any) -> list[_Placements]:
    return [(result, [*inputs, *tree, None, None])
            for inputs, _, tree, result in _selective_placements(*arguments)]


@_register(ops_selective.selective_scan_backward)
def _selective_scan_backward_placements(grad_y: DTensorSpec, grad_last_state: DTensorSpec | None,
                                        *arguments: Any) -> list[_Placements]:
    # (An input that isn't there has an empty gradient.)
    return [([placement or Replicate() for placement in gradients],
             [result, None if grad_last_state is None else result, *inputs, *tree, None, None])
            for inputs, gradients, tree, result in _selective_placements(*arguments)]


def _graph_placements(first: DTensorSpec, kind: str, sizes: Sequence[int], context_length: Sequence[int] | None,
                      edge_index: DTensorSpec | None, *options: Any) -> list[_Placements]:
    """Of the ops on a batch and a graph, whose options are tensors with an entry for each item, or anything else."""
    tensors = [option if hasattr(option, "placements") else None for option in options]
    whole = [Replicate(), None, None, None, _replicated(edge_index), *map(_replicated, tensors)]
    if context_length is not None and len(context_length) > 1:
        return [(Replicate(), whole)]
    beside = _replicated(edge_index) if edge_index is None or edge_index.ndim == 2 else _with_batch(edge_index)
    return [(Replicate(), whole), (Shard(0), [Shard(0), None, None, None, beside, *map(_with_batch, tensors)])]


_register(ops.edge_weights)(_graph_placements)
_register(ops.minimum_spanning_tree)(_graph_placements)


@_register(ops.random_spanning_tree)
def _random_placements(*arguments: Any) -> list[_Placements]:
    return _graph_placements(*arguments)[:1]


def _tree_placements(first: DTensorSpec, *options: Any) -> list[_Placements]:
    tensors = [option if hasattr(option, "placements") else None for option in options]
    return [(Replicate(), [Replicate(), *map(_replicated, tensors)]), (Shard(0), [Shard(0), *map(_with_batch, tensors)])]


for _op in (ops.tree_from_edges, ops.tree_from_parents, ops.forest_from_parents):
    _register(_op)(_tree_placements)
