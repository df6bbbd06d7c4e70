"""Two processes under torchrun compute what one does: DDP, FSDP2, and DTensors sharded along batch and channels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import treescan


def model():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), Scanned(), treescan.nn.TreeFilter2d(),
                               torch.nn.Conv2d(8, 2, 1))


class Scanned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.decay = torch.nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return treescan.tree_scan(x, self.decay(x).sigmoid())


def gradients_of_one_process():
    alone = model()
    x = images()
    # The gradient of each half's mean, averaged, as data parallel processes have it.
    (sum(alone(half).square().mean() for half in x.chunk(2)) / 2).backward()
    return {name: parameter.grad for name, parameter in alone.named_parameters()}


def images():
    return torch.randn(4, 3, 6, 7, generator=torch.Generator().manual_seed(1))


def check_ddp(rank):
    parallel = torch.nn.parallel.DistributedDataParallel(model())
    parallel(images().chunk(2)[rank]).square().mean().backward()
    for name, wanted in gradients_of_one_process().items():
        torch.testing.assert_close(parallel.module.get_parameter(name).grad, wanted)


def check_fsdp(rank):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.device_mesh import init_device_mesh

    sharded = model()
    mesh = init_device_mesh("cpu", (2,))
    for part in (sharded[1], sharded):
        fully_shard(part, mesh=mesh)
    sharded(images().chunk(2)[rank]).square().mean().backward()
    for name, wanted in gradients_of_one_process().items():
        torch.testing.assert_close(sharded.get_parameter(name).grad.full_tensor(), wanted)


def check_dtensors(rank):
    import treescan.distributed  # noqa: F401
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.debug import CommDebugMode

    mesh = init_device_mesh("cpu", (2,))
    generator = torch.Generator().manual_seed(5)
    x, weights, grad = torch.rand(3, 4, 6, 3, 5, generator=generator).unbind()
    tree, shared, masked = (treescan.build_tree(x), treescan.build_tree(x[:1], root=3),
                            treescan.build_tree(x, mask=x[:, 0] > 0.2))

    def equal(value, wanted, placement):
        assert value.placements == (placement,), value.placements
        assert torch.equal(value.full_tensor(), wanted)

    for placement in (Shard(0), Shard(1), Replicate()):
        split = [distribute_tensor(values, mesh, [placement]) for values in (x, weights, grad)]
        for along, per_item in ((tree, True), (shared, False), (masked, True)):
            beside = Shard(0) if placement == Shard(0) and per_item else Replicate()
            trees = treescan.Tree(*(distribute_tensor(field, mesh, [beside]) for field in along))
            for direction in ("up", "down", "both"):
                local = [values.clone().requires_grad_() for values in (x, weights)]
                y = treescan.tree_scan(*local, along, direction=direction)
                wanted = y, *torch.autograd.grad(y, local, grad)
                inputs = [values.detach().requires_grad_() for values in split[:2]]
                with CommDebugMode() as communication:
                    y = treescan.tree_scan(*inputs, trees, direction=direction)
                    found = y, *torch.autograd.grad(y, inputs, split[2])
                assert communication.get_total_counts() == 0
                for value, right in zip(found, wanted):
                    equal(value.detach(), right.detach(), placement)

    # Trees from features: where the batch is split nothing is sent, and a tree is the same wherever it is built.
    split = distribute_tensor(x, mesh, [Shard(0)])
    with CommDebugMode() as communication:
        built = treescan.build_tree(split)
        y = treescan.tree_scan(split, distribute_tensor(weights, mesh, [Shard(0)]), root=2)
    assert communication.get_total_counts() <= 1  # distribute_tensor's own scatter
    for field, wanted in zip(built, tree):
        equal(field, wanted, Shard(0))
    equal(y, treescan.tree_scan(x, weights, root=2), Shard(0))
    for field, wanted in zip(built.reroot(4), tree.reroot(4)):
        equal(field, wanted, Shard(0))
    embedding = torch.rand(4, 2, 3, 5, generator=generator)
    local = [values.clone().requires_grad_() for values in (x, embedding)]
    inputs = [distribute_tensor(values, mesh, [Shard(0)]).requires_grad_() for values in (x, embedding)]
    filtered = [treescan.nn.TreeFilter2d()(*values) for values in (local, inputs)]
    torch.testing.assert_close(filtered[1].full_tensor(), filtered[0])
    wanted, found = (torch.autograd.grad(y.square().sum(), values) for y, values in zip(filtered, (local, inputs)))
    for value, right in zip(found, wanted):
        torch.testing.assert_close(value.full_tensor(), right)
    along_channels = treescan.build_tree(distribute_tensor(x, mesh, [Shard(1)]))
    assert torch.equal(along_channels.parent.full_tensor(), tree.parent)
    # Graphs with as many edges but other vertices are not mistaken for one another.
    cost = torch.rand(2, 12, generator=generator)
    for graph in (treescan.grid_graph(3, 3), treescan.chain_graph(13)):
        found = treescan.minimum_spanning_tree(graph, distribute_tensor(cost, mesh, [Shard(0)]))
        equal(found.parent, treescan.minimum_spanning_tree(graph, cost).parent, Shard(0))
    # What depends on an item's place in the batch is computed of the whole batch.
    found = treescan.random_spanning_tree(graph, distribute_tensor(cost, mesh, [Shard(0)]), seed=1)
    equal(found.parent, treescan.random_spanning_tree(graph, cost, seed=1).parent, Replicate())
    tokens, features = treescan.token_graph(9, 3, (2, 7)), torch.rand(2, 4, 9, generator=generator)
    found = treescan.build_tree(distribute_tensor(features, mesh, [Shard(0)]), tokens)
    equal(found.parent, treescan.build_tree(features, tokens).parent, Replicate())


def check_selective(rank):
    import treescan.distributed  # noqa: F401
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.debug import CommDebugMode

    mesh = init_device_mesh("cpu", (2,))
    generator = torch.Generator().manual_seed(6)
    u, delta, z, grad = torch.randn(4, 4, 6, 9, generator=generator).unbind()
    B, C = torch.randn(2, 4, 1, 3, 9, generator=generator).unbind()
    A, D, bias = -torch.rand(6, 3, generator=generator), *torch.randn(2, 6, generator=generator).unbind()
    tree = treescan.causal_tree(u)
    values = (u, delta, A, B, C, D, z, bias)

    def run(values, tree, grad):
        values = [value.detach().requires_grad_() for value in values]
        u, delta, A, B, C, D, z, bias = values
        y = treescan.selective_tree_scan(u, delta, A, B, C, tree, D, z, bias, True)
        return y.detach(), *torch.autograd.grad(y, values, grad)

    wanted = run(values, tree, grad)
    own, shared = Shard(0), Replicate()
    for along, placements, beside in (
            (Shard(0), (Shard(0), Shard(0), shared, Shard(0), Shard(0), shared, Shard(0), shared), Shard(0)),
            (Shard(1), (Shard(1), Shard(1), own, shared, shared, own, Shard(1), own), shared)):
        split = [distribute_tensor(value, mesh, [placement]) for value, placement in zip(values, placements)]
        trees = treescan.Tree(*(None if field is None else distribute_tensor(field, mesh, [beside]) for field in tree))
        upstream = distribute_tensor(grad, mesh, [along])
        with CommDebugMode() as communication:
            found = run(split, trees, upstream)
        assert communication.get_total_counts() == 0
        for value, right in zip(found, wanted):
            torch.testing.assert_close(value.full_tensor(), right)


CHECKS = {"ddp": check_ddp, "selective": check_selective, "fsdp": check_fsdp, "dtensors": check_dtensors}


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_equal_one():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parent.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(result.stdout.split()) == sorted(2 * list(CHECKS)), result.stdout + result.stderr


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    for name, check in CHECKS.items():
        check(torch.distributed.get_rank())
        print(name + "\n", end="", flush=True)
    torch.distributed.destroy_process_group()
    # Without Python's shutdown: a thread of Gloo that still holds a tensor then would ask for the interpreter and abort the process.
    os._exit(0)
