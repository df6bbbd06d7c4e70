"""Time on a GPU, on paper: `python -m bench.cuda_model` writes docs/cuda.md from bench/cuda.md.

No GPU has run the kernels. What is known is what they do: launches, barriers and sectors of memory, counted on the
emulated device (tests/cuda/counters.txt), and the trees, built here. The rest is assumed, in `H100`.
"""

import dataclasses
import re
from pathlib import Path

import numpy
import torch

import treescan

ROOT = Path(__file__).parents[1]
TEMPLATE, PAGE = ROOT / "bench" / "cuda.md", ROOT / "docs" / "cuda.md"
COUNTERS = ROOT / "tests" / "cuda" / "counters.txt"


@dataclasses.dataclass(frozen=True)
class Device:
    bytes_per_second: float   # of a copy on the device, reading and writing
    launch: float             # seconds of a launch
    barrier: float            # of a block's barrier, and of finding the next paths
    step_in_shared: float     # from one vertex of a path to the next: reads that wait for one another
    step_in_global: float     # the same where rows are in global memory; two vertices are fetched ahead
    multiprocessors: int
    shared: int               # bytes of each
    blocks: int               # resident on each, of a kernel whose registers allow no more


H100 = Device(bytes_per_second=3.0e12, launch=3e-6, barrier=0.2e-6, step_in_shared=0.1e-6, step_in_global=0.3e-6,
              multiprocessors=132, shared=227 * 1024, blocks=2)

# (name, batch, channels of the scan, rows, columns); a sequence has one row.
STAGES = [(f"GrootV-T stage {i + 1}", 128, 160 * 2**i, 56 // 2**i, 56 // 2**i) for i in range(4)]
STAGES.append(("GrootL, 2,048 tokens", 1, 1536, 1, 2048))


def counters() -> dict[str, float]:
    return {name: float(value) for name, value in (line.split() for line in COUNTERS.read_text().splitlines())}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What scans along a tree depend on."""

    levels: int
    layers: int       # of heavy paths
    steps: int        # the longest path of each layer, added up


def shape(parent: numpy.ndarray, order: numpy.ndarray) -> Shape:
    """Cuts a tree into heavy paths: a path goes on to the child with the most descendants."""
    size = numpy.ones(len(parent), dtype=numpy.int64)
    for v in order[:0:-1]:
        size[parent[v]] += size[v]
    heavy = numpy.full(len(parent), -1)
    for v in order[1:]:
        best = heavy[parent[v]]
        if best < 0 or size[v] > size[best]:
            heavy[parent[v]] = v
    depth, layer, along = (numpy.zeros(len(parent), dtype=numpy.int64) for _ in range(3))
    for v in order[1:]:
        p = parent[v]
        depth[v] = depth[p] + 1
        light = heavy[p] != v
        layer[v] = layer[p] + light
        along[v] = 0 if light else along[p] + 1
    longest = numpy.zeros(layer.max() + 1, dtype=numpy.int64)
    numpy.maximum.at(longest, layer, along + 1)
    return Shape(int(depth.max()) + 1, len(longest), int(longest.sum()))


def example(channels: int, rows: int, columns: int) -> Shape:
    """The tree of random features: a picture's, smoothed, or a sequence's."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, channels, rows, columns, generator=generator)
    if rows == 1:
        tree = treescan.build_tree(features[:, :, 0], treescan.token_graph(columns, 3), root=columns - 1)
    else:
        tree = treescan.build_tree(torch.nn.functional.avg_pool2d(features, 3, 1, 1))
    return shape(tree.parent[0].numpy(), tree.order[0].numpy())


def rounds_and_step(device: Device, tasks_of: int, channels: int, vertices: int) -> tuple[int, float]:
    """How often the device fills with blocks, and a step's time: tiles as cuda/scan.cu cuts them for a forward scan."""
    most, least = 8, 2  # vectors of 16 bytes: a line of 128 bytes, a sector of 32
    of_a_vector = 2 * 16 * vertices
    fitting = min(most, device.shared // 2 // of_a_vector)
    in_shared = fitting >= least
    vectors = fitting // least * least if in_shared else most
    blocks = device.shared // (vectors * of_a_vector) if in_shared else device.blocks
    tasks = tasks_of * -(-channels // (4 * vectors))
    rounds = -(-tasks // (device.multiprocessors * max(1, min(8, blocks))))
    return rounds, device.step_in_shared if in_shared else device.step_in_global


def scan_times(device: Device, found: Shape, batch: int, channels: int, vertices: int, counted: dict, kind: str) -> dict:
    """Seconds of a scan by what could limit it: memory, and the steps and barriers that wait for one another."""
    tensor = 4 * batch * channels * vertices
    rounds, step = rounds_and_step(device, batch, channels, vertices)
    place = "" if step == device.step_in_shared else "_large"
    name = f"{kind}_both_channels_last{place}_paths"
    memory = counted[f"{name}_touched"] * tensor / device.bytes_per_second
    waiting = {"paths": rounds * 2 * (found.steps * step + found.layers * device.barrier),
               "levels": rounds * 2 * found.levels * (step + device.barrier)}
    launches = counted[f"{name}_launches"] * device.launch
    return {"memory": memory, **waiting, "total": launches + max(memory, min(waiting.values()))}


def table(device: Device = H100) -> str:
    counted = counters()
    lines = ["| scan | tensor | levels | layers, steps | memory, forward | waiting, by levels | by paths | forward "
             "| backward |", "|---|---|---|---|---|---|---|---|---|"]
    for name, batch, channels, rows, columns in STAGES:
        found = example(channels, rows, columns)
        times = {kind: scan_times(device, found, batch, channels, rows * columns, counted, kind)
                 for kind in ("forward", "backward")}
        size = f"{batch}×{channels}×{rows}×{columns}" if rows > 1 else f"{batch}×{channels}×{columns}"
        forward = times["forward"]
        cells = [f"{1e3 * forward[what]:.2f} ms" for what in ("memory", "levels", "paths", "total")]
        lines.append(f"| {name} | {size} | {found.levels} | {found.layers}, {found.steps} | " + " | ".join(cells)
                     + f" | {1e3 * times['backward']['total']:.2f} ms |")
    return "\n".join(lines)


def assumptions(device: Device = H100) -> str:
    return (f"{device.bytes_per_second / 1e12:.1f} TB/s, {1e6 * device.launch:.0f} µs a launch, {1e6 * device.barrier:.1f} µs\na "
            f"barrier, {1e6 * device.step_in_shared:.1f} µs a step in shared memory and {1e6 * device.step_in_global:.1f} µs in "
            f"global, {device.multiprocessors} multiprocessors, as many\nblocks on each as shared memory and registers allow")


def counted_table() -> str:
    """The scans' numbers in rows of their own, then what else there is."""
    found = counters()
    kinds = ("touched", "requested", "barriers", "launches")
    scans = sorted({name.rsplit("_", 1)[0] for name in found if name.endswith("_touched")})
    lines = ["| scan, 28×28 tree, 32 channels | touched | requested | barriers of a block, plan included | launches |",
             "|---|---|---|---|---|"]
    lines += [f"| {scan.replace('_', ' ')} | " + " | ".join(f"{found[f'{scan}_{kind}']:.3g}" for kind in kinds) + " |"
              for scan in scans]
    rest = {name: value for name, value in found.items() if not any(name.startswith(scan + "_") for scan in scans)}
    lines += ["", "| else | counted |", "|---|---|"]
    return "\n".join(lines + [f"| {name.replace('_', ' ')} | {value:.3g} |" for name, value in rest.items()])


BLOCKS = {"model": table, "assumptions": assumptions, "counters": counted_table}


def page() -> str:
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: BLOCKS[found[1]](), TEMPLATE.read_text())
    return f"<!-- Written by `python -m bench.cuda_model` from bench/{TEMPLATE.name}: change that one. -->\n{text}"


if __name__ == "__main__":
    PAGE.write_text(page())
