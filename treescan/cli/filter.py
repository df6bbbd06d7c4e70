"""Edge-preserving smoothing."""

import argparse
from dataclasses import replace

import numpy
import torch

from ..functional import edge_weights, minimum_spanning_tree, tree_scan
from ..graph import grid_graph
from .picture import (Array, Cost, Picture, add_output, add_picture, add_sigma, edge_factors, eight_bits, nearest,
                      read_frames, say_frame)
from .problem import Problem
from .progress import Progress
from .writing import check_output, write

HELP = "smooth a photograph and keep its edges"
DESCRIPTION = ("Every pixel becomes a mean of all pixels, weighted along the minimum spanning tree of colour "
               "differences: what a path of small steps reaches counts, what lies behind an edge does not. The "
               "picture stays what it is: mode, depth, alpha, colour profile and resolution.")
EXAMPLE = "treescan filter photo.jpg -o out.png --sigma 0.1"
STAGES = ("edge weights", "tree", "scan")


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_picture(command)
    add_output(command)
    add_sigma(command, 0.1)
    command.add_argument("--connectivity", type=int, choices=(4, 8), default=4,
                         help="neighbours of a pixel (default %(default)s)")
    command.add_argument("--all-frames", action="store_true",
                         help="filter every page or frame of a file that has several, each by itself")
    command.add_argument("--depth", type=int, choices=(8,),
                         help="write 8 bits a channel instead of the picture's own depth: the whole range of its type "
                              "becomes 0 to 255")


def bytes_per_pixel(connectivity: int) -> Cost:
    """The peak, as the reference page of the command line promises it."""
    def cost(channels: int, deep: int, alpha: bool) -> float:
        if alpha:
            return (128 if connectivity == 4 else 184) + (channels + 1) * deep
        return 90 + 2 * channels * deep

    return cost


def smooth(picture: Picture, sigma: float, connectivity: int, progress: Progress) -> Picture:
    """The picture with every valid pixel's colour filtered; the others, and alpha, stay."""
    width, height = picture.size
    valid = picture.valid()
    mask = picture.mask(valid)
    graph = grid_graph(height, width, connectivity)
    cost = progress.run("edge weights", lambda: edge_weights(picture.features(valid), graph, "l2"))
    tree = progress.run("tree", minimum_spanning_tree, graph, cost, mask=mask)
    del cost

    def scan() -> Array:
        # float64 throughout: a sum over all pixels of a large picture is more than float32 can add to.
        factors = edge_factors(picture, valid, tree.parent, sigma)
        weight = picture.weight(valid)
        ones = torch.ones(1, 1, height, width, dtype=torch.float64) if weight is None else weight
        total = tree_scan(ones, factors, tree)
        moved = (total != ones)[0, 0].numpy()  # others keep their bits; those in no tree are among them
        del ones
        colours: Array = picture.colours.copy()
        for index in range(colours.shape[2]):
            plane = picture.channel(index, valid)[None, None]
            if weight is not None:
                plane.mul_(weight)
            sums = tree_scan(plane, factors, tree).div_(total)
            del plane  # before the next is made; the same below
            found = sums[0, 0].mul_(picture.full).numpy()
            if colours.dtype.kind == "b":
                found = found >= 0.5
            elif colours.dtype.kind in "iu":
                numpy.rint(found, out=found)
                numpy.clip(found, numpy.iinfo(colours.dtype).min, numpy.iinfo(colours.dtype).max, out=found)
            numpy.copyto(colours[..., index], found, casting="unsafe", where=moved)
            del sums, found
        return colours

    colours = progress.run("scan", scan)
    if picture.space == "P":
        return nearest(picture, colours)
    key = picture.information.get("transparency")
    if key is not None and picture.alpha is not None:  # a colour that stands for transparency is nobody else's
        taken = (colours == numpy.array(key, colours.dtype)).all(-1) & (picture.alpha > 0)
        colours[taken, 0] ^= 1
    return replace(picture, colours=colours)


def run(options: argparse.Namespace) -> None:
    if options.all_frames and options.frame:
        raise Problem("--frame and --all-frames exclude each other")
    check_output(options.output)
    with Progress("reading", *STAGES, "writing", verbose=options.verbose) as progress:
        frame = None if options.all_frames else options.frame
        pictures, count = progress.run("reading", read_frames, options.picture, frame, bytes_per_pixel(options.connectivity))
        width, height = pictures[0].size
        progress.pixels = width * height
        check_output(options.output, len(pictures) > 1)
        results = []
        for picture in pictures:
            result = smooth(picture, options.sigma, options.connectivity, progress)
            results.append(in_eight_bits(result) if options.depth else result)
        progress.run("writing", write, results, options.output)
    if options.all_frames:
        print(f"{options.output}: {count} frames filtered along their trees, sigma {options.sigma:g}")
    else:
        say_frame(options.picture, options.frame, count)
        print(f"{options.output}: {width} x {height} pixels filtered along their tree, sigma {options.sigma:g}")


def in_eight_bits(picture: Picture) -> Picture:
    if picture.colours.itemsize == 1 and picture.colours.dtype.kind in "bu":
        return picture
    picture.information.pop("transparency", None)
    return replace(picture, colours=eight_bits(picture.colours),
                   alpha=None if picture.alpha is None else eight_bits(picture.alpha))
