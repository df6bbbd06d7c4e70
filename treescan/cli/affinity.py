"""How far one pixel's state reaches."""

import argparse

import torch
from torch import Tensor

from ..functional import build_tree, tree_scan
from ..graph import chain_graph
from .picture import Problem, Progress, add_output, add_picture, add_sigma, edge_factors, figure, read, save_figure

HELP = "show how far one pixel's state reaches"
DESCRIPTION = ("Draws the response of the scan to a single pixel: along the tree, and along the raster order that a "
               "sequence model would use, with the same rule for the weights.")
EXAMPLE = "treescan affinity photo.jpg --at 40,30 -o map.png"


def position(text: str) -> tuple[int, int]:
    """X,Y for argparse."""
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"expected X,Y, got {text!r}")
    try:
        return int(parts[0]), int(parts[1])
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected two whole numbers X,Y, got {text!r}") from None


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_picture(command)
    add_output(command)
    command.add_argument("--at", type=position, required=True, metavar="X,Y", help="the pixel, from the top left corner")
    add_sigma(command, 0.2)


def responses(image: Tensor, at: tuple[int, int], sigma: float) -> list[Tensor]:
    """The scan's answer to 1 at one pixel and 0 elsewhere: along the tree, and along the rows."""
    height, width = image.shape[2:]
    impulse = torch.zeros(1, 1, height, width)
    impulse[0, 0, at[1], at[0]] = 1
    tree = build_tree(image, metric="l2")
    rows = build_tree(image.flatten(2), chain_graph(height * width))
    return [tree_scan(impulse, edge_factors(image, topology.parent, sigma), topology)[0, 0] for topology in (tree, rows)]


def draw(image: Tensor, at: tuple[int, int], maps: list[Tensor], path: str) -> None:
    height, width = image.shape[2:]
    drawn = figure(12, max(2.0, 4.4 * height / width))
    for index, (title, shown) in enumerate(zip(("photograph", "along the tree", "along the rows"), (None, *maps))):
        axes = drawn.add_subplot(1, 3, index + 1)
        axes.imshow(image[0].permute(1, 2, 0).numpy())
        if shown is not None:
            axes.imshow(torch.ones_like(shown).numpy(), cmap="gray", vmin=0, vmax=1, alpha=0.35)
            strength = axes.imshow(shown.numpy(), cmap="inferno", vmin=0, vmax=1, alpha=0.85)
        axes.plot(*at, marker="o", markersize=7, markerfacecolor="none", markeredgecolor="cyan", markeredgewidth=2)
        axes.set_title(title)
        axes.set_axis_off()
    drawn.colorbar(strength, ax=drawn.axes, shrink=0.8, label="share of the pixel's state that arrives")
    save_figure(drawn, path, dpi=120)


def run(options: argparse.Namespace) -> None:
    with Progress("reading", "scanning", "drawing") as progress:
        image = progress.run("reading", read, options.picture)
        height, width = image.shape[2:]
        x, y = options.at
        if not (0 <= x < width and 0 <= y < height):
            raise Problem(f"--at must lie inside the picture's {width} x {height} pixels, got {x},{y}")
        maps = progress.run("scanning", responses, image, options.at, options.sigma)
        progress.run("drawing", draw, image, options.at, maps, options.output)
    reached = [int((shown > 0.5).sum()) for shown in maps]
    print(f"{options.output}: more than half of the state at {x},{y} reaches {reached[0]} pixels along the tree, "
          f"{reached[1]} along the rows")
