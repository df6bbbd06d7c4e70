"""Small runs of every task, each with the same network along trees, along a raster chain and without propagation.

    python -m grootv.demo [--data FOLDER] [--output FOLDER] [--full]

Fashion-MNIST's clothes are classified, and found and segmented on photographs, each from random weights; and labels are
propagated without training. OUTPUT/grootv/results.json gets the figures, OUTPUT/grootv.md is written from them, and
pictures are drawn beside.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from timm import create_model
from torchvision.transforms.functional import normalize, pil_to_tensor
from tqdm import tqdm

from . import composites, pictures, propagation, report
from .config import task_class
from .costs import count_macs, count_parameters, time_shares
from .engine import load_weights, train
from .images import MEAN, STD
from .model import VARIANTS, GrootV
from .segmentation import predict

ROWS = {  # what the runs differ in; their parameters have the same shapes
    "tree": dict(topology="tree", trees="block"),
    "tree per stage": dict(topology="tree", trees="stage"),
    "raster": dict(topology="raster"),
    "none": dict(topology="none"),
}
DENSE_ROWS = ("tree", "raster", "none")
DENSE_CLASSES = ("trouser", "ankle-boot")
TASKS = ("classification", "detection", "segmentation")
PIXEL = (30, 45)  # on the boot in front in the composite that is drawn
DOCS = Path(__file__).resolve().parents[3] / "docs"


@dataclass(frozen=True)
class Plan:
    """How much is run.

    network: arguments of `GrootV`.
    seeds: how many.
    pictures, epochs: of Fashion-MNIST for training, and how often each is seen.
    composites, detection, segmentation: for those two tasks: composites for training, and iterations.
    heads: channels of what stands on the backbone.
    evaluated: composites for validation, of each kind; five times as many of Fashion-MNIST.
    propagated: composites for label propagation, of each seed.
    """

    network: dict
    seeds: int
    pictures: int
    epochs: int
    composites: int
    detection: int
    segmentation: int
    heads: int
    evaluated: int
    propagated: int


QUICK = Plan(dict(channels=16, depths=[1, 2, 2, 1]), seeds=3, pictures=4000, epochs=3, composites=1000, detection=300,
             segmentation=400, heads=32, evaluated=100, propagated=300)
FULL = Plan(dict(channels=32, depths=[2, 2, 4, 2]), seeds=5, pictures=60000, epochs=20, composites=8000, detection=12000,
            segmentation=8000, heads=128, evaluated=1000, propagated=1000)


def write_data(folder: Path, plan: Plan, source: Path | None) -> None:
    """Fashion-MNIST as an ImageNet-style folder, and composites in COCO's and ADE20K's formats."""
    for split, count in (("train", plan.pictures), ("val", 5 * plan.evaluated)):
        pictures, labels = composites.fashion_mnist(source, split)
        for index, (picture, label) in enumerate(zip(pictures[:count], labels)):
            place = folder / "classification" / split / f"{label}-{composites.CLOTHES[label]}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{index:05}.png")
    shared = dict(source="fashion-mnist", classes=DENSE_CLASSES, most=2, scale=(0.4, 0.8), val_count=plan.evaluated, data=source)
    composites.write_coco(folder / "detection", plan.composites, **shared)
    composites.write_ade(folder / "segmentation", plan.composites, **shared)


def configuration(task: str, row: str, seed: int, plan: Plan, folder: Path):
    """One run's, as a YAML file would have it."""
    runs = folder / "runs"
    own = {
        "classification": dict(
            epochs=plan.epochs, batch_size=64, optimizer=dict(lr=2e-3), picture_size=32,
            augmentation=dict(auto_augment=None, scale=[0.7, 1.0], color_jitter=0.0, random_erasing=0.0, mixup=0.0,
                              cutmix=0.0, crop_pct=1.0)),
        "detection": dict(
            iterations=plan.detection, batch_size=4, optimizer=dict(lr=3e-3), classes=len(DENSE_CLASSES), shortest=[64], longest=64,
            anchor_scale=4, pyramid=plan.heads, hidden=4 * plan.heads,
            rcnn=dict(rpn_post_nms_top_n_train=100, rpn_post_nms_top_n_test=50, box_batch_size_per_image=32)),
        "segmentation": dict(
            iterations=plan.segmentation, batch_size=8, optimizer=dict(lr=5e-3), classes=1 + len(DENSE_CLASSES), shortest=64,
            longest=64, crop=64, factors=[0.8, 1.25], hidden=plan.heads, auxiliary=plan.heads // 2),
    }[task]
    length = own.get("epochs") or own["iterations"]
    own["optimizer"]["lr_batch_size"] = None
    shared = dict(
        task=task, data=str(folder / task), output=str(runs / f"{task}-{row}-{seed}"), seed=seed, workers=0, device="cpu",
        evaluate_every=length, checkpoint_every=length, schedule=dict(warmup=0.1 * length, warmup_lr=1e-5, min_lr=1e-5),
        model=dict(name="grootv_tiny", drop_path_rate=0.0, **plan.network, **ROWS[row]))
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(task_class(task).Config), shared, own))


def run(row: str, seed: int, plan: Plan, tasks: Sequence[str], folder: Path) -> list[dict]:
    """All tasks of one row and seed; in a process of its own."""
    torch.set_num_threads(1)
    finished = []
    for task in tasks:
        if task != "classification" and row not in DENSE_ROWS:
            continue
        config = configuration(task, row, seed, plan, folder)
        started = perf_counter()
        with open(folder / f"{task}-{row}-{seed}.txt", "w") as said, redirect_stdout(said), redirect_stderr(said):
            results = train(task_class(task)(config), config)
        finished.append({"task": task, "row": row, "seed": seed, "results": results, "seconds": perf_counter() - started})
    return finished


def run_all(plan: Plan, tasks: Sequence[str], folder: Path, jobs: int) -> list[dict]:
    """Every row and seed, `jobs` at a time."""
    finished = []
    if not tasks:
        return finished
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        chains = [pool.submit(run, row, seed, plan, tasks, folder) for seed in range(plan.seeds) for row in ROWS]
        try:
            for chain in _progress(as_completed(chains), "training", len(chains)):
                finished += chain.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(finished, key=lambda one: (one["task"], list(ROWS).index(one["row"]), one["seed"]))


def _progress(things, what: str, total: int):
    return tqdm(things, what, total, unit="", dynamic_ncols=True, leave=False)


@torch.inference_mode()
def speeds(plan: Plan) -> dict[str, dict[str, float]]:
    """Pictures that a core's second suffices for, with a tree per block and per stage, of this demo's network and of GrootV-T.

    One thread, and the time that it computed instead of the time that passed: others may use the machine meanwhile.
    """
    def pictures_per_second(side: int, batch: int, rounds: int, **options) -> dict[str, float]:
        models = {row: create_model("grootv_tiny", **options, **ROWS[row]).eval() for row in ("tree", "tree per stage")}
        x = torch.randn(batch, 3, side, side)
        taken = {row: [] for row in models}
        for _ in range(1 + rounds):  # they take turns; the first is to warm up
            for row, model in models.items():
                started = process_time()
                model(x)
                taken[row].append(process_time() - started)
        return {row: batch / median(seconds[1:]) for row, seconds in taken.items()}

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {"small": pictures_per_second(32, 64, 30, num_classes=10, **plan.network),
                "grootv_tiny": pictures_per_second(224, 1, 15)}
    finally:
        torch.set_num_threads(threads)


def network_costs() -> dict[str, dict[str, int]]:
    found = {}
    for name in VARIANTS:
        with torch.device("meta"):  # shapes are all that counting needs
            model = create_model(name)
        parameters, backbone = count_parameters(model)
        found[name] = {"parameters": parameters, "backbone": backbone, "macs": count_macs(model, 224)["total"]}
    return found


def background_miou(folder: Path) -> float:
    """The mean IoU of a segmenter that says "background" everywhere."""
    labels = np.stack([np.asarray(Image.open(path)) for path in (folder / "segmentation/annotations/validation").iterdir()])
    return float((labels == 1).mean() / (1 + len(DENSE_CLASSES)))


@torch.inference_mode()
def draw(plan: Plan, tasks: Sequence[str], folder: Path, output: Path) -> None:
    """Pictures of what the first seed's networks along trees make of one composite, for detection and segmentation."""
    output.mkdir(parents=True, exist_ok=True)
    path = sorted((folder / "detection" / "val2017").iterdir())[1]
    image = pil_to_tensor(Image.open(path))
    picture = image.float() / 255
    for task in tasks:
        if task == "classification":
            continue
        config = configuration(task, "tree", 0, plan, folder)
        config.checkpoint = str(Path(config.output) / "checkpoint.pt")
        network = task_class(task)(config).model().eval()
        load_weights(network, config)
        if task == "detection":
            pictures.draw_objects(picture, network([picture])[0], DENSE_CLASSES, output / "objects.png")
            continue
        labels = predict(network, image, 64, 64).argmax(0)
        pictures.draw_regions(picture, labels, ("background", *DENSE_CLASSES), output / "regions.png")
        backbone = next(module for module in network.modules() if isinstance(module, GrootV))
        scans = pictures.record_scans(backbone, normalize(picture, MEAN, STD)[None])
        pictures.draw_affinity(picture, scans, *PIXEL, output / "affinity.png")
        pictures.draw_trees(picture, scans, *PIXEL, output / "trees.png")


def machine() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return {
        "processor": f"{processor}, {cores()} in use",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("treescan", "torch", "torchvision", "timm", "transformers",
                                                                     "torchmetrics", "pycocotools")),
    }


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(plan: Plan, tasks: Sequence[str], source: Path | None, folder: Path, jobs: int) -> dict:
    """All figures of the page."""
    started = perf_counter()
    write_data(folder, plan, source)
    figures = {"machine": machine(), "majority": background_miou(folder), "tasks": list(tasks),
               "runs": run_all(plan, tasks, folder, jobs)}
    figures["plan"] = asdict(plan) | {"tested": 5 * plan.evaluated, "classes": DENSE_CLASSES}
    figures["small_parameters"] = count_parameters(create_model("grootv_tiny", num_classes=10, **plan.network))[0]
    figures["propagation"] = propagation.study(plan.propagated, tuple(range(plan.seeds)), source="fashion-mnist", data=source,
                                               progress=lambda line: print(line, file=sys.stderr))
    figures["costs"] = network_costs()
    figures["speeds"] = speeds(plan)
    figures["shares"], _ = time_shares(create_model("grootv_tiny").eval(), torch.randn(1, 3, 224, 224))
    figures["seconds"] = perf_counter() - started
    return figures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m grootv.demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"where Fashion-MNIST's files are (default {composites.FASHION_MNIST_FOLDER})")
    parser.add_argument("--output", type=Path, default=DOCS if DOCS.is_dir() else Path("docs"),
                        help="the folder for grootv.md and grootv/ (default %(default)s)")
    parser.add_argument("--full", action="store_true", help="a larger network and much more of everything: a night")
    parser.add_argument("--seeds", type=int, help=f"how many (default {QUICK.seeds}, with --full {FULL.seeds})")
    parser.add_argument("--jobs", type=int, default=cores(), help="runs at a time, one thread each (default %(default)s)")
    parser.add_argument("--write-again", action="store_true", help="only write the page again from OUTPUT/grootv/results.json")
    parser.add_argument("--tasks", nargs="*", default=TASKS, metavar="TASK", help=f"what to train, of {', '.join(TASKS)} (default "
                        "all of them)")
    parser.add_argument("--note", default="", help="a sentence for the page")
    options = parser.parse_args(arguments)
    if not set(options.tasks) <= set(TASKS):
        parser.error(f"--tasks must be of {', '.join(TASKS)}, got {' '.join(options.tasks)}")
    tasks = [task for task in TASKS if task in options.tasks]
    plan = FULL if options.full else QUICK
    if options.seeds is not None:
        plan = replace(plan, seeds=options.seeds)
    if plan.seeds < 1 or options.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    try:
        if options.write_again:
            figures = json.loads((options.output / "grootv" / "results.json").read_text(encoding="utf-8"))
        else:
            composites.fashion_mnist(options.data)  # before anything takes time
            with tempfile.TemporaryDirectory(prefix="grootv-demo-") as folder:
                figures = measure(plan, tasks, options.data, Path(folder), options.jobs)
                draw(plan, tasks, Path(folder), options.output / "grootv")
            figures["note"] = options.note
            figures["command"] = " ".join(["python -m grootv.demo", *(["--full"] if options.full else []),
                                           *([f"--seeds {options.seeds}"] if options.seeds is not None else []),
                                           *(["--tasks", *options.tasks] if len(tasks) < len(TASKS) else [])])
        report.write(figures, options.output)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{report.classification(figures)}\n\n{report.detection(figures)}\n\n{report.segmentation(figures)}\n\n"
          f"{report.trees(figures)}\n\n{report.propagation(figures)}\n\nThe page is {options.output / 'grootv.md'}")


if __name__ == "__main__":
    main()
