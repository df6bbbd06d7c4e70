"""The page about what the demo measured, from its figures: `{{...}}` in report.md become tables and sentences."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev

TEMPLATE = Path(__file__).with_name("report.md")
NAMES = {
    "tree": "tree, one per block", "tree per stage": "tree, one per stage", "raster": "raster chain", "none": "none",
    "snake": "snake chain", "cross": "cross: chains along rows and columns", "nearest seed": "nearest marked pixel",
}
# Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model": their measurements, on their data and machines.
PAPER = {
    "top1": {"tree": 83.4, "raster": 82.6},
    "speed": {"tree": 281, "tree per stage": 392},
    "box/AP": {"tree": 47.0}, "mask/AP": {"tree": 42.7}, "mIoU": {"tree": 48.5},
    "parameters": {"grootv_tiny": "30 M", "grootv_small": "51 M", "grootv_base": "91 M"},
    "macs": {"grootv_tiny": "4.8 G", "grootv_small": "8.5 G", "grootv_base": "15.1 G"},
}


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(values: list[float], factor: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation over the seeds."""
    values = [factor * value for value in values]
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def _paper(measure: str, row: str) -> str:
    return str(PAPER[measure].get(row, "–"))


def values(figures: dict, task: str, measure: str) -> dict[str, list[float]]:
    """One task's measure for each row, by seed."""
    found = {}
    for one in figures["runs"]:
        if one["task"] == task:
            found.setdefault(one["row"], []).append(one["results"][measure])
    return found


def _training(figures: dict, task: str, measures: dict[str, str], paper: str) -> str:
    if task not in figures["tasks"]:
        return "Left out of this run."
    taken = {measure: values(figures, task, measure) for measure in measures}
    rows = next(iter(taken.values()))
    return _table(["propagation along", *(f"{name}, here" for name in measures.values()), paper], [
        [NAMES[row], *(_spread(taken[measure][row]) for measure in measures), _paper(next(iter(measures)), row)]
        for row in rows])


def classification(figures: dict) -> str:
    return _training(figures, "classification", {"top1": "top-1"}, "top-1 of the paper: GrootV-T, ImageNet")


def detection(figures: dict) -> str:
    return _training(figures, "detection", {"box/AP": "box AP", "box/AP50": "box AP50", "mask/AP": "mask AP"},
                     "box AP of the paper: GrootV-T, COCO, 1×")


def segmentation(figures: dict) -> str:
    return _training(figures, "segmentation", {"mIoU": "mIoU", "aAcc": "pixel accuracy"},
                     "mIoU of the paper: GrootV-T, ADE20K, single scale")


def _verdict(figures: dict, task: str, measure: str, name: str) -> str:
    """Whether these runs can tell the tree from the rest: the mean difference, seed by seed, against twice its error."""
    if task not in figures["tasks"]:
        return ""
    taken = values(figures, task, measure)
    parts, told = [], []
    for row in (row for row in taken if row != "tree"):
        differences = [100 * (ours - theirs) for ours, theirs in zip(taken["tree"], taken[row])]
        parts.append(f"{_spread(differences, 1)} against {NAMES[row]}")
        if len(differences) > 1:
            error = stdev(differences) / len(differences) ** 0.5
            told += [NAMES[row]] if abs(mean(differences)) > 2 * error else []
    seeds = len(taken["tree"])
    said = (f"The tree's {name} minus the others', seed by seed: {'; '.join(parts)} (mean ± standard deviation over {seeds} "
            f"seed{'s' if seeds > 1 else ''}). ")
    if seeds == 1:
        return said + "One seed says nothing about which is better."
    if not told:
        return said + "No mean is further from 0 than two standard errors: these runs tell no topology from another."
    return said + (f"More than two standard errors from 0: the difference to {', '.join(told)}. With so few seeds and so small "
                   "a network that is a hint, not a finding.")


def verdict_classification(figures: dict) -> str:
    return _verdict(figures, "classification", "top1", "accuracy")


def verdict_detection(figures: dict) -> str:
    return _verdict(figures, "detection", "box/AP", "box AP")


def verdict_segmentation(figures: dict) -> str:
    return _verdict(figures, "segmentation", "mIoU", "mIoU")


def pictures(figures: dict) -> str:
    """Links to what `demo.draw` drew."""
    drawn = {
        "detection": [("Found by the detector with trees, first seed", "objects")],
        "segmentation": [("Segmented by the segmenter with trees, first seed", "regions"),
                         ("How far one pixel's state reaches in that segmenter, along its trees and along the raster", "affinity"),
                         ("The trees of that segmenter, coloured by the number of edges to the pixel", "trees")]}
    return "\n\n".join(f"![{what}](grootv/{name}.png)\n{what}." for task in drawn if task in figures["tasks"]
                       for what, name in drawn[task]) or "Left out of this run."


def trees(figures: dict) -> str:
    accuracy = values(figures, "classification", "top1")
    rows = []
    for row in ("tree", "tree per stage"):
        speeds = [figures["speeds"][name][row] for name in ("small", "grootv_tiny")]
        firsts = [figures["speeds"][name]["tree"] for name in ("small", "grootv_tiny")]
        rows.append([NAMES[row], _spread(accuracy[row]) if row in accuracy else "left out",
                     *(f"{speed:.3g} ({speed / first:.2f} ×)" for speed, first in zip(speeds, firsts)),
                     f"{_paper('speed', row)} ({PAPER['speed'][row] / PAPER['speed']['tree']:.2f} ×)"])
    return _table(["", "top-1, here", "this network, 32², images/s", "GrootV-T, 224², images/s",
                   "images/s of the paper: GrootV-T, 224², V100"], rows)


def propagation(figures: dict) -> str:
    rows = figures["propagation"]["rows"]
    return _table(["labels travel along", "mean IoU, here", "σ"], [
        [NAMES[name] if name != "tree" else "tree", _spread(row["miou"], 1, 3), f"{row['sigma']:g}" if row["sigma"] else "–"]
        for name, row in rows.items()])


def propagation_ratio(figures: dict) -> str:
    means = {name: mean(row["miou"]) for name, row in figures["propagation"]["rows"].items()}
    best = max(("raster", "snake", "cross"), key=means.get)
    return f"{means['tree'] / means[best]:.2f} × the {best}'s, the best of raster, snake and cross"


def costs(figures: dict) -> str:
    return _table(["", "parameters", "without the head", "multiply-adds, 224²", "parameters of the paper", "of the paper, FLOPs"], [
        [name, f"{one['parameters'] / 1e6:.3f} M", f"{one['backbone'] / 1e6:.3f} M", f"{one['macs'] / 1e9:.3f} G",
         _paper("parameters", name), _paper("macs", name)] for name, one in figures["costs"].items()])


def shares(figures: dict) -> str:
    one = figures["shares"]
    return f"trees {100 * one['trees']:.1f} %, scans {100 * one['scans']:.1f} %, together {100 * (one['trees'] + one['scans']):.1f} %"


def machine(figures: dict) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in figures["machine"].items())


def plan(figures: dict) -> str:
    one = figures["plan"]
    network = ", ".join(f"{name} {value}" for name, value in one["network"].items())
    return (f"{one['seeds']} seeds; the network has {network} and {figures['small_parameters'] / 1e6:.2f} M parameters; "
            f"{one['pictures']} pictures of Fashion-MNIST at 32 × 32 pixels, seen {one['epochs']} times; {one['composites']} "
            f"composites of 64 × 64 pixels with one or two clothes ({' and '.join(one['classes'])}), {one['detection']} iterations "
            f"of 4 for detection and {one['segmentation']} of 8 for segmentation; evaluated on {one['tested']} pictures and "
            f"{one['evaluated']} composites")


def seconds(figures: dict) -> str:
    return f"{figures['seconds'] / 60:.0f} minutes"


def reproduce(figures: dict) -> str:
    return figures["command"]


def majority(figures: dict) -> str:
    return f"{100 * figures['majority']:.1f}"


def propagation_setting(figures: dict) -> str:
    one = figures["propagation"]
    return (f"{one['count']} composites of {one['size']} × {one['size']} pixels with up to three clothes of ten classes for each of "
            f"{len(one['seeds'])} seeds, which change the composites and the marked pixels; mean IoU over the classes ± standard "
            "deviation over the seeds")


BLOCKS = {block.__name__: block for block in (
    classification, detection, segmentation, pictures, verdict_classification, verdict_detection, verdict_segmentation, trees, propagation,
    propagation_ratio, propagation_setting, majority, costs, shares, machine, plan, seconds, reproduce)}


def page(figures: dict) -> str:
    """The page for these figures. Raises ValueError for a placeholder that isn't known."""
    def fill(match: re.Match) -> str:
        if match[1] not in BLOCKS:
            raise ValueError(f"{TEMPLATE.name} asks for {{{{{match[1]}}}}}; known are {', '.join(BLOCKS)}")
        return BLOCKS[match[1]](figures)

    return re.sub(r"\{\{(\w+)\}\}", fill, TEMPLATE.read_text(encoding="utf-8"))


def write(figures: dict, output: Path) -> None:
    """`output/grootv.md` and `output/grootv/results.json`."""
    folder = output / "grootv"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / "grootv.md").write_text(page(figures), encoding="utf-8")
