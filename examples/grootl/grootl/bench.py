"""Speed and memory against transformers' own Mamba without its CUDA kernels, side by side.

    python -m grootl.bench --output docs/grootl/speed.json    # all of: train memory forward scan generate
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
import treescan
from torch import nn
from transformers import MambaConfig, MambaForCausalLM
from transformers.models.mamba.modeling_mamba import mamba_selective_scan

from .configuration import MODES, GrootLConfig
from .mixer import Sequences
from .modeling import GrootLForCausalLM

SMALL = {"vocab_size": 512, "hidden_size": 64, "state_size": 16, "num_hidden_layers": 4, "eos_token_id": None}
MAMBA_130M = {"hidden_size": 768, "num_hidden_layers": 24, "eos_token_id": None}
MODELS = ("transformers", *MODES)


def make(name: str, **sizes) -> MambaForCausalLM | GrootLForCausalLM:
    """transformers' Mamba, or a GrootL model in the mode of that name, with random weights."""
    torch.manual_seed(0)
    if name == "transformers":
        return MambaForCausalLM(MambaConfig(**sizes))
    return GrootLForCausalLM(GrootLConfig(mode=name, **sizes))


def training_step(model: MambaForCausalLM, batch: int, length: int) -> Callable[[], None]:
    """Forward, backward and AdamW on rows whose first quarter is the prompt."""
    ids = torch.randint(0, model.config.vocab_size, (batch, length))
    labels = ids.masked_fill(torch.arange(length) < length // 4, -100)
    optimizer = torch.optim.AdamW(model.train().parameters())

    def step():
        model(ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict]:
    """How long each takes, in turns, by the clock and in processor time, which others on the machine change less.

    transformers' Mamba, by far the slowest, has one turn.
    """
    wall: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            if turn == 0 or name != "transformers":
                start = time.perf_counter(), time.process_time()
                run()
                wall[name].append(time.perf_counter() - start[0])
                processor[name].append(time.process_time() - start[1])
    return {"seconds": wall, "times_faster": _times_faster(wall), "processor_seconds": processor,
            "times_faster_by_processor": _times_faster(processor)}


def _times_faster(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: min(times["transformers"]) / min(times[name]) for name in times if name != "transformers"}


def train() -> dict:
    models = {name: make(name, **SMALL) for name in MODELS}
    for model in models.values():
        training_step(model, 1, 16)()
    times = measure({name: training_step(model, 4, 256) for name, model in models.items()}, 3)
    parameters = models["chain"].num_parameters()
    return {"what": f"forward, backward and AdamW, {parameters / 1e6:.2f} M parameters, 4 x 256 tokens", **times}


def memory(models: Sequence[str] = MODELS) -> dict:
    context = multiprocessing.get_context("spawn")
    megabytes: dict[str, dict[str, float]] = {name: {} for name in models}
    for name in models:
        for states in (16, 64):
            with context.Pool(1) as pool:
                megabytes[name][str(states)] = pool.apply(_peak_of_a_training_step, (name, states))
    return {"what": "peak resident memory of a training step beside model and optimizer, 2 x 256 tokens, one layer of "
                    "64 channels, by state size", "megabytes": megabytes}


def _peak_of_a_training_step(name: str, states: int) -> float:
    transformers.logging.set_verbosity_error()
    model = make(name, **SMALL | {"state_size": states, "num_hidden_layers": 1})
    training_step(model, 1, 8)()
    step = training_step(model, 2, 256)
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak
    before = _peak()
    step()
    return (_peak() - before) / 1024


def _peak() -> int:
    """The peak of resident memory in KiB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)


@torch.inference_mode()
def forward() -> dict:
    runs = {}
    for name in MODELS:
        model = make(name, **MAMBA_130M).eval()
        options = {} if name == "transformers" else {"context_length": 64}
        ids = torch.randint(0, model.config.vocab_size, (1, 256))
        model(ids[:, :64], use_cache=False, **options)
        runs[name] = partial(model, ids, use_cache=False, **options)
    runs["matrix products alone"] = _products(model, 256)
    return {"what": "forward of the Mamba-130M configuration with random weights, 1 x 256 tokens, 64 of them prompt; the "
                    "matrix products alone are what no scan, however fast, gets below", **measure(runs, 5)}


def _products(model: nn.Module, length: int) -> Callable[[], None]:
    """All linear layers of a model, on inputs of their sizes."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    inputs = [torch.randn(1, length, layer.in_features) for layer in layers]

    def products():
        for layer, x in zip(layers, inputs):
            layer(x)

    return products


@torch.inference_mode()
def generate() -> dict:
    runs, ids = {}, torch.randint(0, 50280, (1, 64))
    for name in MODELS:
        model = make(name, **MAMBA_130M).eval()
        for use_cache in (True, False):
            if use_cache or name != "transformers":
                runs[name if use_cache else f"{name} without cache"] = partial(
                    model.generate, ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False,
                    use_cache=use_cache)
    return {"what": "32 tokens behind a prompt of 64, Mamba-130M configuration with random weights",
            **measure(runs, 1)}


@torch.inference_mode()
def scan() -> dict:
    """What the modes replace: of a forward most is matrix products, which they share with transformers."""
    u, delta, z = torch.randn(3, 1, 1536, 256)
    B, C = torch.randn(2, 1, 16, 256)
    A, tree = -torch.rand(1536, 16), Sequences.of(256).chain
    return {"what": "the scan of one layer of the Mamba-130M configuration, 1 x 256 tokens", **measure({
        "transformers": lambda: mamba_selective_scan(u, delta, A, B, C, z=z, delta_softplus=True),
        "chain": lambda: treescan.selective_tree_scan(u, delta, A, B, C, tree, z=z, delta_softplus=True)}, 5)}


PARTS = {"train": train, "memory": memory, "forward": forward, "scan": scan, "generate": generate}


def table(part: dict) -> str:
    """A part's results as text."""
    lines = [part["what"]]
    for name, row in part.get("seconds", part.get("megabytes")).items():
        if "megabytes" in part:
            line = "".join(f"{peak:10.1f} MB for N = {states}" for states, peak in row.items())
        else:
            line = f"{min(row):10.3f} s, {min(part['processor_seconds'][name]):10.3f} s of processor time"
            if name in part["times_faster"]:
                line += (f": {part['times_faster'][name]:.1f} and {part['times_faster_by_processor'][name]:.1f} times "
                         "faster")
        lines.append(f"    {name:24}{line}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grootl.bench", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--output", type=Path, help="a JSON file, in which parts that weren't run stay as they are")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    transformers.logging.set_verbosity_error()
    results = json.loads(arguments.output.read_text()) if arguments.output and arguments.output.exists() else {}
    results["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                          "threads": torch.get_num_threads(), "torch": torch.__version__,
                          "transformers": transformers.__version__, "treescan": treescan.__version__}
    for name in arguments.parts or PARTS:
        results[name] = PARTS[name]()
        print(table(results[name]), flush=True)
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
