"""treescan on a GPU: `python -m bench.gpu` writes docs/performance/gpu.json, and `python -m bench --write-again` brings that
onto docs/performance.md. `make gpu-bench` does both.

Without a GPU, or with a treescan without the CUDA backend, it says so and ends with status 77; nothing is written then.

Times are CUDA events' around several calls. Beside each stand two others: torch's own operations level by level, all images
of a batch at once, with the levels made before; and the original's way, re-expressed: costs to the host, trees there, levels
back on the device, a few operations for each. Trees on the host are treescan's own, which flatters it.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

import treescan

from .peers.scans import Levels, by_levels_in_rows, gradients_by_levels

NO_GPU = 77
PAGE_FIGURES = Path(__file__).parents[1] / "docs" / "performance" / "gpu.json"

OURS, COMPOSED, ORIGINAL = "treescan", "torch, level by level", "the original's way"


@dataclass(frozen=True)
class Shape:
    name: str
    batch: int
    channels: int
    height: int
    width: int  # a sequence has a height of 1


SHAPES = (Shape("56×56, 80 channels", 128, 80, 56, 56), Shape("28×28, 160 channels", 128, 160, 28, 28),
          Shape("14×14, 320 channels", 128, 320, 14, 14), Shape("7×7, 640 channels", 128, 640, 7, 7),
          Shape("chain of 2,048 tokens, 1,536 channels", 8, 1536, 1, 2048))


def _seconds_of(times: int, run, device: str) -> float:
    if device == "cpu":
        start = perf_counter()
        for _ in range(times):
            run()
        return perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def seconds(run, device: str, budget: float) -> float:
    """The median time of a call, over turns of several calls each."""
    for _ in range(3):
        once = _seconds_of(1, run, device)
    times = min(max(int(2e-3 / once), 1), 100)
    turns = min(max(int(budget / (once * times)), 5), 50)
    return median(_seconds_of(times, run, device) / times for _ in range(turns))


def copied_bytes_per_second(device: str, budget: float, size: int = 2**28) -> float:
    """What a copy on the device moves, by the bytes that it reads and writes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, budget)


def _near(value, expected) -> None:
    assert (value - expected).abs().max() <= 5e-5 * expected.abs().max(), "a wrong result isn't timed"


class Work:
    """Inputs of one shape, and what is done to them: `rows()` times it all."""

    def __init__(self, shape: Shape, device: str):
        self.shape, self.device = shape, device
        sizes = shape.batch, shape.channels, shape.height, shape.width
        generator = torch.Generator().manual_seed(0)
        self.x, self.weights, self.grad = (
            torch.rand(sizes, generator=generator).to(device).to(memory_format=torch.channels_last) for _ in range(3))
        self.graph = treescan.grid_graph(shape.height, shape.width)
        self.cost = treescan.edge_weights(self.x, self.graph)
        self.tree = treescan.minimum_spanning_tree(self.graph, self.cost)
        self.levels = Levels(treescan.Tree.pack([self.tree]))
        exact = [self._as_rows(tensor).double() for tensor in (self.grad, self.x, self.weights)]
        self.expected = by_levels_in_rows(*exact[1:], self.levels)
        self.gradients = gradients_by_levels(*exact, self.levels)

    def _as_rows(self, tensor):
        return tensor.permute(0, 2, 3, 1).flatten(0, 2)

    def check_tree(self, tree) -> None:
        expected = treescan.minimum_spanning_tree(self.graph, self.cost.cpu())
        assert all(torch.equal(got.cpu(), wanted) for got, wanted in zip(tree, expected))

    def check_cost(self, cost) -> None:
        assert torch.equal(cost[:1].cpu(), treescan.edge_weights(self.x[:1].cpu(), self.graph))

    def check_scan(self, y) -> None:
        _near(y if y.ndim == 2 else self._as_rows(y), self.expected)

    def check_gradients(self, results) -> None:
        for value, expected in zip(results, (self.expected, *self.gradients)):
            _near(value if value.ndim == 2 else self._as_rows(value), expected)

    def calls(self):
        """(what is done, by whom, a call, its check, tensors of x's size that it reads and writes at least)."""
        x, weights, grad, tree, levels = self.x, self.weights, self.grad, self.tree, self.levels
        rows = [self._as_rows(tensor).contiguous() for tensor in (x, weights, grad)]
        leaves = [tensor.detach().requires_grad_() for tensor in (x, weights)]
        contiguous = [tensor.contiguous() for tensor in (x, weights)]

        def both_ways():
            y = treescan.tree_scan(*leaves, tree)
            return y.detach(), *torch.autograd.grad(y, leaves, grad)

        def both_ways_by_levels():
            return by_levels_in_rows(*rows[:2], levels), *gradients_by_levels(rows[2], *rows[:2], levels)

        def as_the_original():
            cost = treescan.edge_weights(x, self.graph)
            on_host = treescan.Tree.pack([treescan.minimum_spanning_tree(self.graph, cost.cpu())])
            return by_levels_in_rows(*rows[:2], Levels(on_host.to(self.device)))

        yield "edge weights", OURS, lambda: treescan.edge_weights(x, self.graph), self.check_cost, 1
        yield "tree and order", OURS, lambda: treescan.minimum_spanning_tree(self.graph, self.cost), self.check_tree, 0
        yield "scan", OURS, lambda: treescan.tree_scan(x, weights, tree), self.check_scan, 3
        yield "scan", f"{OURS}, contiguous", lambda: treescan.tree_scan(*contiguous, tree), self.check_scan, 3
        yield "scan", COMPOSED, lambda: by_levels_in_rows(*rows[:2], levels), self.check_scan, 3
        yield "scan and gradients", OURS, both_ways, self.check_gradients, 7
        yield "scan and gradients", COMPOSED, both_ways_by_levels, self.check_gradients, 7
        yield "features to output", OURS, lambda: treescan.tree_scan(x, weights), self.check_scan, 3
        yield "features to output", ORIGINAL, as_the_original, self.check_scan, 3

    def rows(self, budget: float) -> list[dict]:
        found = []
        for work, who, run, check, tensors in self.calls():
            check(run())
            found.append({"case": self.shape.name, "work": work, "who": who, "seconds": seconds(run, self.device, budget),
                          "bytes": tensors * self.x.nbytes})
        if self.device != "cpu":
            treescan.synchronize(self.device)
        return found


def measure(device: str, shapes=SHAPES, budget: float = 0.5, copied: int = 2**28) -> dict:
    results = {"torch": torch.__version__, "treescan": treescan.build_info()["library"],
               "device": "CPU" if device == "cpu" else torch.cuda.get_device_name(),
               "copied bytes per second": copied_bytes_per_second(device, budget, copied), "rows": []}
    for shape in shapes:
        print(shape.name, file=sys.stderr)
        results["rows"] += Work(shape, device).rows(budget)
    return results


def missing() -> str | None:
    """Why nothing can be measured here."""
    if not torch.cuda.is_available():
        return "torch finds no GPU here"
    if "cuda" not in treescan.build_info()["backends"]:
        return "this treescan has no CUDA backend (TREESCAN_CUDA=ON builds one)"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PAGE_FIGURES, help="the JSON file (default %(default)s)")
    options = parser.parse_args()
    if missing():
        print(f"bench.gpu: {missing()}, so nothing was measured", file=sys.stderr)
        return NO_GPU
    options.output.write_text(json.dumps(measure("cuda"), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
