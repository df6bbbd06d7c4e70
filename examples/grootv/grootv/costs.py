"""What a model costs: parameters, multiply-adds, pictures per second, and the share of trees and scans in the time."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from math import prod

import timm
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from .model import TREES, VARIANTS, GrootV

# Multiply-adds per vertex and channel: leaves to root and root to leaves take one each; in "both" the second takes two.
_SCAN = {"up": 1, "down": 1, "both": 3}


def scan_macs(shape: tuple[int, ...], direction: str) -> int:
    """Multiply-adds of a scan of x of that shape: one for each vertex and channel "up" or "down", three for "both".

    >>> scan_macs((1, 160, 56, 56), "both")
    1505280
    """
    return _SCAN[direction] * prod(shape)


def edge_weight_macs(shape: tuple[int, ...], edges: int, metric: str) -> int:
    """Multiply-adds of the costs of a graph's edges: a channel of an edge is one, and a channel of a vertex's norm.

    >>> edge_weight_macs((1, 8, 2, 2), 4, "cosine")
    64
    """
    return shape[0] * shape[1] * edges + (prod(shape) if metric == "cosine" else 0)


# torch's counter counts an operation for each multiplication and each addition.
@register_flop_formula(torch.ops.treescan.scan)
def _scan_flops(x_shape, weights_shape, parent_shape, order_shape, direction, *_, **__):
    return 2 * scan_macs(x_shape, direction)


def _metric(arguments) -> str:
    return next(argument for argument in arguments if argument in ("cosine", "l2", "l1"))


@register_flop_formula(torch.ops.treescan.edge_weights)
def _edge_weight_flops(features_shape, *arguments, out_shape=None, **__):
    return 2 * edge_weight_macs(features_shape, out_shape[1], _metric(arguments))


def fvcore_handles() -> dict:
    """The same formulas for fvcore: `FlopCountAnalysis(model, x).set_op_handle(**fvcore_handles())`."""
    def shape(value):
        return value.type().sizes()

    def scan(inputs, outputs):
        return scan_macs(shape(inputs[0]), inputs[4].toIValue())

    def edge_weights(inputs, outputs):
        metric = _metric([value.toIValue() for value in inputs[1:]])
        return edge_weight_macs(shape(inputs[0]), shape(outputs[0])[1], metric)

    return {"treescan::scan": scan, "treescan::edge_weights": edge_weights}


def _batch_norm_flops(x_shape, *_, **__):
    return 2 * 2 * prod(x_shape)


# fvcore's rule, which the paper's numbers follow: five for each element of a LayerNorm, two of a BatchNorm. The counter
# takes what has an entry for its very overload as it is, and counts it by the entry for all of them.
_NORMS = {torch.ops.aten.native_layer_norm: lambda x_shape, *_, **__: 2 * 5 * prod(x_shape),
          torch.ops.aten.native_batch_norm: _batch_norm_flops,
          torch.ops.aten.native_batch_norm.default: _batch_norm_flops}


def count_macs(model: nn.Module, size: int | tuple[int, int] = 224) -> dict[str, int]:
    """Multiply-adds of a picture's forward pass, by operator, and their "total". Nothing is computed for it.

    The model takes pictures (B, 3, H, W), or of as many channels as its `in_chans` says.

    Products and convolutions count their multiply-adds, scans and trees those of `scan_macs` and `edge_weight_macs`,
    norms what fvcore counts; elementwise operations don't count.

    >>> count_macs(GrootV(16, (1, 1, 1, 1), num_classes=10), 32)["total"]
    1461248
    """
    height, width = (size, size) if isinstance(size, int) else size
    ghost = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    # Two pictures, as a BatchNorm in training wants.
    pictures = torch.empty(2, getattr(model, "in_chans", 3), height, width, device="meta")
    with FlopCounterMode(display=False, custom_mapping=_NORMS) as counter, torch.no_grad():
        torch.func.functional_call(model, ghost, (pictures,))
    counts = {str(op).removeprefix("aten."): flops // 4 for op, flops in counter.get_flop_counts()["Global"].items()}
    return counts | {"total": sum(counts.values())}


def count_parameters(model: GrootV) -> tuple[int, int]:
    """The number of parameters, with and without what only classification needs."""
    total = sum(parameter.numel() for parameter in model.parameters())
    head = sum(parameter.numel() for module in (model.conv_head, model.head) for parameter in module.parameters())
    return total, total - head


def time_shares(model: nn.Module, x: torch.Tensor) -> tuple[dict[str, float], str]:
    """The shares of "trees" and "scans" in the time of a forward pass, and the profiler's table of it."""
    with torch.inference_mode():
        model(x)
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            model(x)
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    scans = sum(event.self_cpu_time_total for event in events if event.key == "treescan::scan")
    ours = sum(event.self_cpu_time_total for event in events if event.key.startswith("treescan::"))
    shares = dict(trees=(ours - scans) / total, scans=scans / total)
    return shares, events.table(sort_by="self_cpu_time_total", row_limit=25)


def time_forward(models: dict[str, nn.Module], x: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Seconds of `repeats` forward passes of each model; they take turns, so that a busy machine is busy for all."""
    seconds = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for name, model in list(models.items())[::-1 if turn % 2 else 1]:
                start = time.perf_counter()
                model(x)
                if turn:  # the first is to warm up
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m grootv.costs", description=__doc__)
    parser.add_argument("model", choices=list(VARIANTS))
    parser.add_argument("--size", type=int, default=224, help="height and width of the picture")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--trees", nargs="+", choices=TREES, default=list(TREES), help="a tree per block, or per stage")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, help="torch's threads")
    parser.add_argument("--profile", action="store_true", help="print the profiler's tables")
    options = parser.parse_args(arguments)
    if options.size < 32 or options.batch < 1 or options.repeats < 1:
        parser.error("size must be at least 32, batch and repeats at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)

    torch.manual_seed(0)
    models = {}
    for trees in options.trees:
        models[trees] = timm.create_model(options.model, trees=trees).eval().to(memory_format=torch.channels_last)
        models[trees].load_state_dict(models[options.trees[0]].state_dict())
    first = models[options.trees[0]]
    with_head, without_head = count_parameters(first)
    macs = count_macs(first, options.size)
    threads = torch.get_num_threads()
    print(f"{options.model} at {options.size} x {options.size}, batch {options.batch}, {threads} threads")
    print(f"parameters           {with_head / 1e6:.3f} M, {without_head / 1e6:.3f} M without the head")
    print(f"multiply-adds        {macs['total'] / 1e9:.3f} G, of which scans {macs['treescan.scan'] / 1e9:.3f} G and "
          f"the costs of edges {macs['treescan.edge_weights'] / 1e9:.3f} G")
    x = torch.randn(options.batch, 3, options.size, options.size)
    seconds = time_forward(models, x, options.repeats)
    for trees, model in models.items():
        rate = options.batch / statistics.median(seconds[trees])
        ratio = statistics.median(first / this for first, this in zip(seconds[options.trees[0]], seconds[trees]))
        shares, table = time_shares(model, x)
        print(f"a tree per {trees:<10}{rate:.2f} images/s, {ratio:.3f} times the first; "
              f"trees {100 * shares['trees']:.1f} % of the time, scans {100 * shares['scans']:.1f} %")
        if options.profile:
            print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
