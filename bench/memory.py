"""Peak memory of forward and backward beyond inputs, outputs, gradients and tree: `python -m bench.memory LAYOUT`.

A process of its own, since a peak stays with its process. Prints the bytes.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import treescan

from .cases.scans import FORMATS
from .measure import Outcome

SHAPE = (1, 64, 512, 512)
LIMIT = 32 * 2**20


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def _scan(x, weights, grad, tree):
    y = treescan.tree_scan(x, weights, tree)
    return y, *torch.autograd.grad(y, (x, weights), grad)


def _inputs(shape, memory_format):
    x, weights, grad = (torch.empty(shape, memory_format=memory_format).uniform_() for _ in range(3))
    # In a thread of its own, whose scratch memory goes with it.
    with ThreadPoolExecutor(1) as other:
        tree = other.submit(treescan.build_tree, x).result()
    return x.requires_grad_(), weights.requires_grad_(), grad, tree


def _bytes(tensors) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def extra(memory_format) -> int:
    torch.set_num_threads(1)
    _scan(*_inputs((1, 64, 4, 4), memory_format))  # what is loaded and allocated once
    before = _status("VmRSS")
    *tensors, tree = _inputs(SHAPE, memory_format)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    results = _scan(*tensors, tree)
    peak = _status("VmHWM")
    for result in results:
        assert result.isfinite().all()
    # The root of a Tree that was built is a view of its order.
    return peak - before - _bytes((*tensors, *results, tree.parent, tree.order, tree.depth, tree.edge))


def measure() -> tuple[list[Outcome], list[str]]:
    """The bars, and a line for what can't be measured here."""
    if not Path("/proc/self/clear_refs").exists():
        return [], ["peak memory: this system doesn't tell (Linux does)"]
    outcomes = []
    for layout in FORMATS:
        run = subprocess.run([sys.executable, "-m", "bench.memory", layout], check=True, capture_output=True, text=True,
                             timeout=120, cwd=Path(__file__).parents[1])
        taken = int(run.stdout)
        outcomes.append(Outcome("memory", f"scan and gradients {'×'.join(map(str, SHAPE))} {layout}",
                                f"< {LIMIT // 2**20} MiB extra", taken / 2**20, " MiB", taken < LIMIT))
    return outcomes, []


if __name__ == "__main__":
    print(extra(FORMATS[sys.argv[1]]))
