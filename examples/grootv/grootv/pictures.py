"""What a model's trees look like on a picture, how far one pixel's state reaches, and what the model says.

    python -m grootv.pictures photo.png --model grootv_tiny --checkpoint grootv_t.pth --pixel 120 80 -o pictures
    python -m grootv.pictures photo.png --config runs/tiny/config.yaml --checkpoint runs/tiny/checkpoint.pt -o pictures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from timm import create_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.functional import normalize, pil_to_tensor, to_pil_image, to_tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks
from treescan import Tree, tree_scan

from .checkpoint import load_original
from .config import Config, load_config, task_class
from .engine import load_weights
from .files import read_picture
from .images import MEAN, STD, fitting_size
from .model import VARIANTS, GrootV, fixed_tree
from .segmentation import predict


class Scan(NamedTuple):
    """What one block's scan worked with.

    Fields:
        decay: (B, C, H, W), the factor between each pixel and its parent.
        tree: the Tree of H·W pixels.
    """

    decay: Tensor
    tree: Tree


class _Recorder(TorchDispatchMode):
    """Keeps what the scans are called with: the decays that the model computed, not a second version of their formula."""

    def __init__(self):
        super().__init__()
        self.scans: list[Scan] = []

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        if operator is torch.ops.treescan.scan.default:
            _, decay, parent, *_ = arguments
            self.scans.append(Scan(decay, Tree.from_parents(parent, forest=True)))
        return operator(*arguments, **(keywords or {}))


@torch.no_grad()
def record_scans(model: GrootV, x: Tensor, block: int = -1) -> list[Scan]:
    """The scan of one block of each stage while `model` looks at `x`.

    Arguments:
        model: a GrootV. It is run as it stands, in training or evaluation mode.
        x: (B, 3, H, W), normalised as the model wants it.
        block: which block of each stage, from 0, or from the end if negative.

    Returns one Scan for each stage. Raises ValueError if a stage has no such block.
    """
    with _Recorder() as recorder:
        model.forward_stages(x)
    chosen, scans = [], iter(recorder.scans)
    for stage, level in enumerate(model.levels):
        those = [next(scans) for _ in level.blocks]
        if not -len(those) <= block < len(those):
            raise ValueError(f"block must be one of the {len(those)} of stage {stage + 1}, got {block}")
        chosen.append(those[block])
    return chosen


def affinity(scan: Scan, row: int, column: int, tree: Tree | None = None) -> Tensor:
    """How much of one pixel's state arrives at each other.

        both(δ; decay), averaged over the channels, where δ is 1 at the pixel and 0 elsewhere

    Arguments:
        scan: of a batch of 1.
        row, column: the pixel, on the stage's own grid.
        tree: another topology to run along, with the same decays.

    Returns (H, W), 1 at the pixel. Raises ValueError for a pixel outside.

    >>> decay = torch.full((1, 2, 1, 3), 0.5)
    >>> affinity(Scan(decay, Tree.from_parents(torch.tensor([[0, 0, 1]]))), 0, 0)
    tensor([[1.0000, 0.5000, 0.2500]])

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", the figures of affinity maps.
    """
    height, width = scan.decay.shape[2:]
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"the pixel must lie inside {height} rows and {width} columns, got row {row}, column {column}")
    impulse = torch.zeros_like(scan.decay)
    impulse[:, :, row, column] = 1
    return tree_scan(impulse, scan.decay, scan.tree if tree is None else tree)[0].mean(0)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _show(axes, picture: Tensor, title: str, faded: bool = False) -> None:
    shown = picture.permute(1, 2, 0)
    if faded:
        shown = 0.35 * shown.mean(-1, keepdim=True).expand_as(shown) + 0.65
    axes.imshow(shown.numpy())
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def _mark(axes, row: float, column: float, colour: str) -> None:
    axes.plot(column, row, marker="o", markersize=8, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=2)


def _stage_pixel(scan: Scan, picture: Tensor, row: int, column: int) -> tuple[int, int]:
    return tuple(place * small // large for place, small, large in
                 zip((row, column), scan.decay.shape[2:], picture.shape[1:]))


def draw_affinity(picture: Tensor, scans: list[Scan], row: int, column: int, path: str | Path) -> None:
    """The affinity maps of every stage: above along its tree, below with the same decays along the raster.

    Arguments:
        picture: (3, H, W) float in [0, 1].
        scans: as `record_scans` returns them, for a batch of this picture alone.
        row, column: a pixel of the picture.
        path: the file to write; its ending says the format.
    """
    height, width = picture.shape[1:]
    side = 2.6 * height / width
    figure = _figure(2.6 * (1 + len(scans)) + 0.8, 2 * side + 0.5)
    grid = figure.add_gridspec(2, 1 + len(scans))
    axes = figure.add_subplot(grid[:, 0])
    _show(axes, picture, "picture and pixel")
    _mark(axes, row, column, "cyan")
    panels = []
    for number, scan in enumerate(scans):
        rows, columns = scan.decay.shape[2:]
        for line, (topology, tree) in enumerate((("tree", None), ("raster", fixed_tree("raster", rows, columns)))):
            panels.append(figure.add_subplot(grid[line, 1 + number]))
            _show(panels[-1], picture, f"stage {number + 1} ({rows} × {columns}), {topology}", faded=True)
            reached = affinity(scan, *_stage_pixel(scan, picture, row, column), tree)
            strength = panels[-1].imshow(reached.numpy(), cmap="inferno", vmin=0, vmax=1, alpha=0.8, interpolation="nearest",
                                         extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            _mark(panels[-1], row, column, "cyan")
    figure.colorbar(strength, ax=panels, shrink=0.8, pad=0.01, label="share of the pixel's state that arrives")
    figure.savefig(path, dpi=110)


def draw_trees(picture: Tensor, scans: list[Scan], row: int, column: int, path: str | Path) -> None:
    """The tree of every stage over the picture, coloured by the number of edges to a pixel: dark is near.

    Arguments as for `draw_affinity`.
    """
    from matplotlib.collections import LineCollection

    height, width = picture.shape[1:]
    figure = _figure(3.6 * len(scans), 3.6 * height / width + 0.3)
    for number, scan in enumerate(scans):
        rows, columns = scan.decay.shape[2:]
        across, down = width / columns, height / rows
        pixel = _stage_pixel(scan, picture, row, column)
        tree = scan.tree.reroot(pixel[0] * columns + pixel[1])
        ends = tree.edges[0]
        points = torch.stack(((ends % columns + 0.5) * across - 0.5, (ends // columns + 0.5) * down - 0.5), -1)
        depth = tree.depth[0][ends[:, 1].long()]
        axes = figure.add_subplot(1, len(scans), 1 + number)
        _show(axes, picture, f"stage {number + 1} ({rows} × {columns})", faded=True)
        axes.add_collection(LineCollection(points.numpy(), array=depth.numpy(), cmap="plasma", capstyle="round",
                                           linewidths=min(3.0, 75 / max(rows, columns))))
        _mark(axes, (pixel[0] + 0.5) * down - 0.5, (pixel[1] + 0.5) * across - 0.5, "black")
    figure.savefig(path, dpi=120)


def _enlarged(picture: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """uint8, and everything enlarged by a whole factor until labels can be read on it."""
    factor = max(1, round(480 / max(picture.shape[1:])))
    return factor, *(torch.repeat_interleave(torch.repeat_interleave(one, factor, -2), factor, -1)
                     for one in ((255 * picture).to(torch.uint8), *others))


def _colours(count: int) -> list[tuple[int, int, int]]:
    from matplotlib import colormaps

    table = colormaps["tab10" if count <= 10 else "tab20" if count <= 20 else "gist_ncar"]
    return [tuple(int(255 * part) for part in table(i if table.N <= 20 else i / count)[:3]) for i in range(count)]


def draw_classes(picture: Tensor, probabilities: Tensor, names: Sequence[str], path: str | Path) -> None:
    """The picture and beside it the five most probable classes.

    Arguments:
        picture: (3, H, W) float in [0, 1].
        probabilities: (K,), summing to 1.
        names: of the K classes.
        path: the file to write.
    """
    best, which = probabilities.topk(min(5, len(probabilities)))
    figure = _figure(7, 3)
    left, right = figure.subplots(1, 2)
    _show(left, picture, "")
    right.barh([names[i] for i in which], best.tolist(), color="#4477aa")
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.set_xlabel("probability")
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def draw_objects(picture: Tensor, found: dict[str, Tensor], names: Sequence[str], path: str | Path,
                 threshold: float = 0.5) -> None:
    """Boxes, masks, classes and scores over the picture.

    Arguments:
        picture: (3, H, W) float in [0, 1].
        found: what Mask R-CNN returns for one picture: boxes (N, 4), labels (N,) from 1, scores (N,), masks (N, 1, H, W).
        names: of the classes, that of label 1 first.
        path: the file to write.
        threshold: objects of lower scores are left out.
    """
    from matplotlib.font_manager import findfont

    kept = found["scores"] >= threshold
    boxes, labels, scores, masks = (found[name][kept] for name in ("boxes", "labels", "scores", "masks"))
    factor, image, masks = _enlarged(picture, masks[:, 0] > 0.5)
    colours = [_colours(len(names))[label - 1] for label in labels]
    if len(boxes):
        image = draw_segmentation_masks(image, masks, alpha=0.45, colors=colours)
        texts = [f"{names[label - 1]} {score:.2f}" for label, score in zip(labels, scores)]
        image = draw_bounding_boxes(image, factor * boxes, texts, colours, width=2, font=findfont("DejaVu Sans"), font_size=14,
                                    label_colors="white", label_background_colors=colours, fill_labels=True)
    to_pil_image(image).save(path)


def draw_regions(picture: Tensor, labels: Tensor, names: Sequence[str], path: str | Path) -> None:
    """The class of every pixel over the picture, with a legend of the classes in it.

    Arguments:
        picture: (3, H, W) float in [0, 1].
        labels: (H, W) integers, indices of names.
        names: of the classes.
        path: the file to write.
    """
    from matplotlib.patches import Patch

    present, colours = labels.unique().tolist(), _colours(len(names))
    _, image, labels = _enlarged(picture, labels)
    image = draw_segmentation_masks(image, torch.stack([labels == one for one in present]), alpha=0.6,
                                    colors=[colours[one] for one in present])
    figure = _figure(8, 3.4 * picture.shape[1] / picture.shape[2])
    left, right = figure.subplots(1, 2)
    _show(left, picture, "")
    _show(right, image, "")
    right.legend(handles=[Patch(color=[part / 255 for part in colours[one]], label=names[one]) for one in present],
                 loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    figure.savefig(path, dpi=110)


def predict_and_draw(task: str, model: nn.Module, image: Image.Image, small: Tensor, config, names: list[str] | None,
                     path: str | Path) -> None:
    """What a task's model says about a picture, drawn.

    Arguments:
        task: "classification", "detection" or "segmentation".
        model: that task's, in evaluation mode.
        image: the picture.
        small: (3, H, W) float in [0, 1], the picture in the size for classification.
        config: the task's configuration; not needed for classification.
        names: of the classes; numbers unless given.
        path: the file to write.
    """
    def name(count: int, first: int = 0) -> list[str]:
        if names is not None and len(names) != count:
            raise ValueError(f"there must be a name for each of the model's {count} classes, got {len(names)}")
        return names or [f"class {first + i}" for i in range(count)]

    picture = to_tensor(image)
    if task == "classification":
        probabilities = model(normalize(small, MEAN, STD)[None]).softmax(1)[0]
        draw_classes(small, probabilities, name(len(probabilities)), path)
    elif task == "detection":
        draw_objects(picture, model([picture])[0], name(config.classes, 1), path)
    else:
        probabilities = predict(model, pil_to_tensor(image), config.shortest, config.longest)
        draw_regions(picture, probabilities.argmax(0), name(len(probabilities)), path)


def _load(options: argparse.Namespace) -> tuple[str, nn.Module, Config | None, int]:
    """Task, model, configuration, and the length of the shorter side that the model is used with."""
    if options.config is None:
        if options.checkpoint is None:
            torch.manual_seed(0)
            return "classification", create_model(options.model or "grootv_tiny"), None, 224
        model = load_original(options.checkpoint)
        if options.model is not None:  # whatever the file holds, it must be that model
            load_original(options.checkpoint, create_model(options.model, num_classes=model.num_classes))
        return "classification", model, None, 224
    config = load_config(options.config, [f"checkpoint={options.checkpoint}"])
    model = task_class(config.task)(config).model()
    load_weights(model, config)
    size = config.picture_size if config.task == "classification" else config.shortest
    return config.task, model, config, size if isinstance(size, int) else max(size)


@torch.inference_mode()
def _draw_all(options: argparse.Namespace) -> None:
    image = read_picture(options.picture)
    names = None if options.names is None else Path(options.names).read_text(encoding="utf-8").splitlines()
    task, model, config, size = _load(options)
    model.eval()
    height, width = fitting_size((image.height, image.width), options.size or size, float("inf"), options.picture)
    small = to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))
    row, column = options.pixel or (image.height // 2, image.width // 2)
    if not (0 <= row < image.height and 0 <= column < image.width):
        raise ValueError(f"--pixel must lie inside the picture's {image.height} rows and {image.width} columns, got row {row}, "
                         f"column {column}")
    row, column = row * height // image.height, column * width // image.width
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    backbone = next(module for module in model.modules() if isinstance(module, GrootV))
    scans = record_scans(backbone, normalize(small, MEAN, STD)[None], options.block)
    draw_affinity(small, scans, row, column, folder / "affinity.png")
    draw_trees(small, scans, row, column, folder / "trees.png")
    if options.checkpoint is None:
        print(f"{folder}/affinity.png and trees.png are of random weights: name a --checkpoint for a trained network's and for "
              "what it predicts")
        return
    predict_and_draw(task, model, image, small, config, names, folder / "prediction.png")
    print(f"{folder}/affinity.png, trees.png and prediction.png")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m grootv.pictures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", choices=list(VARIANTS), help="a published classifier (default: the checkpoint's)")
    which.add_argument("--config", help="a training run's config.yaml, of any task")
    parser.add_argument("--checkpoint", help="the original's or a run's; without it the weights are random")
    parser.add_argument("--names", help="a file with the name of a class in each line")
    parser.add_argument("--pixel", type=int, nargs=2, metavar=("ROW", "COLUMN"), help="of the picture (default: its middle)")
    parser.add_argument("--size", type=int, help="the shorter side that the picture is scaled to for the trees and the classifier")
    parser.add_argument("--block", type=int, default=-1, help="which block of each stage, from 0 (default: the last)")
    parser.add_argument("-o", "--output", default="pictures", help="the folder to write to (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.config is not None and options.checkpoint is None:
        parser.error("--config needs a --checkpoint")
    try:
        _draw_all(options)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
