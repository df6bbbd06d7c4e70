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

from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
from torch.distributed.tensor.experimental import register_sharding

from . import ops, ops_selective


def _with_batch(tensor):
    """The placement beside a batch that is split, of what has an entry for each item or one for all."""
    return None if tensor is None else Shard(0) if tensor.shape[0] > 1 else Replicate()


def _replicated(tensor):
    return None if tensor is None else Replicate()


def _register(op):
    """As `register_sharding`, for functions that give one placement for an op's outputs where they are all alike."""

    def decorate(function):
        outputs = len(op._schema.returns)

        def placements(*arguments):
            return [(output if isinstance(output, list) else [output] * outputs, inputs)
                    for output, inputs in function(*arguments)]

        register_sharding(op)(placements)
        # Sizes of outputs follow from the arguments behind the first tensor; without this, calls would share them.
        DTensor._op_dispatcher.sharding_propagator.op_to_schema_info[op] = RuntimeSchemaInfo(1, needs_pytree=True)
        return function

    return decorate


def _scan_placements(*arguments):
    *values, parent, order, _ = arguments
    return [(placement, [placement] * len(values) + [tree(parent), tree(order), None])
            for placement, tree in ((Replicate(), _replicated), (Shard(0), _with_batch), (Shard(1), _replicated))]


_register(ops.scan)(_scan_placements)
_register(ops.scan_backward)(_scan_placements)


def _selective_placements(tensors, parent, order):
    """For inputs and their gradients, by way of splitting: placements of the eight tensors, of their gradients and of the
    tree."""

    def present(placements):
        return [None if tensor is None else placement for tensor, placement in zip(tensors, placements)]

    def factor(tensor, per_vertex, per_channel):
        return per_vertex if tensor.ndim == 4 else per_channel

    _, _, _, B, C, *_ = tensors
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
def _selective_scan_placements(*arguments):
    *tensors, parent, order, _, _ = arguments
    return [(result, [*inputs, *tree, None, None])
            for inputs, _, tree, result in _selective_placements(tensors, parent, order)]


@_register(ops_selective.selective_scan_backward)
def _selective_scan_backward_placements(grad_y, grad_last_state, *arguments):
    *tensors, parent, order, _, _ = arguments
    # (An input that isn't there has an empty gradient.)
    return [([placement or Replicate() for placement in gradients],
             [result, None if grad_last_state is None else result, *inputs, *tree, None, None])
            for inputs, gradients, tree, result in _selective_placements(tensors, parent, order)]


def _graph_placements(first, kind, sizes, context_length, edge_index, *options):
    """Of the ops on a batch and a graph, whose options are tensors with an entry for each item, or anything else."""
    tensors = [option if hasattr(option, "placements") else None for option in options]
    whole = [Replicate(), None, None, None, _replicated(edge_index), *map(_replicated, tensors)]
    split = [Shard(0), None, None, None, edge_index and (Replicate() if edge_index.ndim == 2 else _with_batch(edge_index)),
             *map(_with_batch, tensors)]
    own_contexts = context_length is not None and len(context_length) > 1
    return [(Replicate(), whole)] + [(Shard(0), split)] * (not own_contexts)


_register(ops.edge_weights)(_graph_placements)
_register(ops.minimum_spanning_tree)(_graph_placements)


@_register(ops.random_spanning_tree)
def _random_placements(*arguments):
    return _graph_placements(*arguments)[:1]


def _tree_placements(first, *options):
    tensors = [option if hasattr(option, "placements") else None for option in options]
    return [(Replicate(), [Replicate(), *map(_replicated, tensors)]), (Shard(0), [Shard(0), *map(_with_batch, tensors)])]


for _op in (ops.tree_from_edges, ops.tree_from_parents, ops.forest_from_parents):
    _register(_op)(_tree_placements)
