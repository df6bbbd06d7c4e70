"""How far one pixel's state reaches."""

import argparse

import torch
from torch import Tensor

from ..functional import build_tree, tree_scan
from ..graph import chain_graph
from ..tree import Tree
from .picture import (Picture, add_output, add_picture, add_sigma, edge_factors, figure, need_drawing, read_frames,
                      save_figure, say_frame, shrink)
from .problem import Problem
from .progress import Progress

HELP = "show how far one pixel's state reaches"
DESCRIPTION = ("Draws the response of the scan to a single pixel: along the tree, and along the raster order that a "
               "sequence model would use, with the same rule for the weights.")
EXAMPLE = "treescan affinity photo.jpg --at 40,30 -o map.png"
LONGEST = 1200  # pixels: more than the drawing has


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


def bytes_per_pixel(channels: int, deep: int, alpha: bool) -> float:
    """The peak, as the reference page of the command line promises it."""
    return (134 if alpha else 104) + (channels + alpha) * deep + channels * (4 if deep == 1 else 8)


def responses(picture: Picture, at: tuple[int, int], sigma: float) -> list[Tensor]:
    """The scan's answer to 1 at one pixel and 0 elsewhere: along the tree, and along the rows."""
    width, height = picture.size
    valid = picture.valid()
    mask = picture.mask(valid)
    impulse = torch.zeros(1, 1, height, width)
    impulse[0, 0, at[1], at[0]] = 1

    def along_tree() -> Tree:
        return build_tree(picture.features(valid), metric="l2", mask=mask)

    def along_rows() -> Tree:
        return build_tree(picture.features(valid).flatten(2), chain_graph(height * width),
                          mask=None if mask is None else mask.flatten(1))

    found = []
    for build in (along_tree, along_rows):
        topology = build()
        found.append(tree_scan(impulse, edge_factors(picture, valid, topology.parent, sigma).float(), topology)[0, 0])
        del topology  # before the next is built
    return found


def draw(picture: Picture, at: tuple[int, int], maps: list[Tensor], path: str) -> None:
    width, height = picture.size
    scale = min(1, LONGEST / max(height, width))
    image = shrink(picture.shown(), LONGEST)
    maps = [shrink(shown[None, None], LONGEST)[0, 0] for shown in maps]
    drawn = figure(12, max(2.0, 4.4 * height / width))
    for index, (title, shown) in enumerate(zip(("photograph", "along the tree", "along the rows"), (None, *maps))):
        axes = drawn.add_subplot(1, 3, index + 1)
        axes.imshow(image[0].permute(1, 2, 0).numpy().clip(0, 1))
        if shown is not None:
            axes.imshow(torch.ones_like(shown).numpy(), cmap="gray", vmin=0, vmax=1, alpha=0.35)
            strength = axes.imshow(shown.numpy(), cmap="inferno", vmin=0, vmax=1, alpha=0.85)
        axes.plot(at[0] * scale, at[1] * scale, marker="o", markersize=7, markerfacecolor="none", markeredgecolor="cyan",
                  markeredgewidth=2)
        axes.set_title(title)
        axes.set_axis_off()
    drawn.colorbar(strength, ax=drawn.axes, shrink=0.8, label="share of the pixel's state that arrives")
    save_figure(drawn, path, dpi=120)


def run(options: argparse.Namespace) -> None:
    need_drawing()
    with Progress("reading", "scanning", "drawing", verbose=options.verbose) as progress:
        pictures, count = progress.run("reading", read_frames, options.picture, options.frame, bytes_per_pixel)
        picture = pictures[0]
        width, height = picture.size
        progress.pixels = width * height
        x, y = options.at
        if not (0 <= x < width and 0 <= y < height):
            raise Problem(f"--at must lie inside the picture's {width} x {height} pixels, got {x},{y}")
        valid = picture.valid()
        if valid is not None and not valid[y, x]:
            raise Problem(f"--at must name a pixel that has a colour, {x},{y} is transparent or not a number")
        maps = progress.run("scanning", responses, picture, options.at, options.sigma)
        progress.run("drawing", draw, picture, options.at, maps, options.output)
    say_frame(options.picture, options.frame, count)
    reached = [int((shown > 0.5).sum()) for shown in maps]
    print(f"{options.output}: more than half of the state at {x},{y} reaches {reached[0]} pixels along the tree, "
          f"{reached[1]} along the rows")
