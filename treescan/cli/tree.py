"""The spanning tree over the photograph."""

import argparse

import numpy
from torch import Tensor

from ..functional import build_tree
from .picture import add_output, add_picture, figure, need_drawing, read_frames, save_figure, say_frame, shrink
from .problem import need
from .progress import Progress

HELP = "draw the spanning tree over a photograph"
DESCRIPTION = "Draws the minimum spanning tree of colour differences, coloured by the distance from the root."
EXAMPLE = "treescan tree photo.jpg -o tree.png --size 96"


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_picture(command)
    add_output(command)
    command.add_argument("--size", type=int, default=96, choices=range(2, 513), metavar="PIXELS",
                         help="the longer side that the photograph is reduced to first, 2 to 512, so that single "
                              "edges can be seen (default %(default)s)")


def draw(image: Tensor, path: str) -> None:
    height, width = image.shape[2:]
    tree = build_tree(image, metric="l2", root=(height // 2) * width + width // 2)
    ends = tree.edges[0].numpy()
    points = numpy.stack((ends % width, ends // width), -1)
    depth = tree.depth[0].numpy()[ends[:, 1]]
    side = 10 / max(height, width)
    drawn = figure(max(width * side, 2), max(height * side, 2))
    axes = drawn.add_subplot()
    axes.imshow(image[0].permute(1, 2, 0).numpy(), alpha=0.55)
    lines = need("matplotlib.collections").LineCollection(points, array=depth, cmap="plasma",
                                                          linewidths=max(0.4, 200 * side / 6), capstyle="round")
    axes.add_collection(lines)
    axes.set_axis_off()
    save_figure(drawn, path, dpi=150)


def bytes_per_pixel(channels: int, deep: int, alpha: bool) -> float:
    """The peak, as the reference page of the command line promises it."""
    return (10.0 if alpha else 0.0) + (channels + alpha) * deep + 4 * (3 if channels >= 3 else 1)


def run(options: argparse.Namespace) -> None:
    need_drawing()
    with Progress("reading", "reducing", "drawing", verbose=options.verbose) as progress:
        pictures, count = progress.run("reading", read_frames, options.picture, options.frame, bytes_per_pixel)
        width, height = pictures[0].size
        progress.pixels = width * height
        small = progress.run("reducing", lambda: shrink(pictures.pop().shown(), options.size))
        progress.run("drawing", draw, small, options.output)
    say_frame(options.picture, options.frame, count)
    reduced = "" if small.shape[2:] == (height, width) else f" (reduced from {width} x {height})"
    print(f"{options.output}: the tree of {small.shape[3]} x {small.shape[2]} pixels{reduced}")
