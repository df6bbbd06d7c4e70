"""Training in several processes: one for each GPU or share of a CPU, as torchrun starts them."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from .model import Block


@dataclass(frozen=True)
class Place:
    """Where this process stands among the others, and the device it computes on."""

    rank: int
    size: int
    device: torch.device


@contextmanager
def processes(device: str = "auto") -> Iterator[Place]:
    """Joins the processes that torchrun started, if it did; NCCL speaks for GPUs, Gloo for CPUs."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no GPU here")
    where = torch.device(device, int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else torch.device("cpu")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if "RANK" not in os.environ:
        yield Place(0, 1, where)
        return
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Place(dist.get_rank(), dist.get_world_size(), where)
    finally:
        dist.destroy_process_group()


def average(values: Tensor) -> Tensor:
    """Over the processes."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def gather(items: list) -> list:
    """The lists of all processes in one, in each of them."""
    if not dist.is_initialized():
        return items
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


class _Sum(torch.autograd.Function):
    """Over the processes; so is its gradient, since each process's loss depends on the sum."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Sum.apply(grad.contiguous())


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the pieces of a batch in all processes, on the CPU, where torch's own doesn't run.

    Pieces have equal sizes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        self.num_batches_tracked += 1
        wide = x.float()
        count = dist.get_world_size() * wide.numel() // wide.shape[1]
        mean = _Sum.apply(wide.sum((0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronise_batch_norm(model: nn.Module, place: Place) -> nn.Module:
    """Makes batch norms take their statistics over all processes, so that several equal one."""
    if place.size == 1:
        return model
    if place.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
    return model


def shard(model: nn.Module) -> None:
    """Leaves each process a piece of every parameter, in units of GrootV's blocks and the rest (FSDP2)."""
    for module in model.modules():
        if isinstance(module, Block):
            fully_shard(module)
    fully_shard(model)


def replicate(model: nn.Module, place: Place) -> nn.Module:
    """The model with gradients averaged over processes (DDP)."""
    return DistributedDataParallel(model, device_ids=[place.device] if place.device.type == "cuda" else None,
                                   gradient_as_bucket_view=True)


def accumulating(model: nn.Module, more: bool) -> AbstractContextManager:
    """Around the forward and backward pass of a piece of a batch: gradients wait for the last before they are averaged."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not more)
    return model.no_sync() if more and isinstance(model, DistributedDataParallel) else nullcontext()
