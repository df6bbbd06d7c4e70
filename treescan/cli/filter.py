"""Edge-preserving smoothing."""

import argparse

import torch
from torch import Tensor

from ..functional import edge_weights, minimum_spanning_tree, tree_scan
from ..graph import grid_graph
from .picture import Progress, add_output, add_picture, add_sigma, edge_factors, read, save

HELP = "smooth a photograph and keep its edges"
DESCRIPTION = ("Every pixel becomes a mean of all pixels, weighted along the minimum spanning tree of colour "
               "differences: what a path of small steps reaches counts, what lies behind an edge does not.")
EXAMPLE = "treescan filter photo.jpg -o out.png --sigma 0.1"
STAGES = ("edge weights", "tree", "scan")


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_picture(command)
    add_output(command)
    add_sigma(command, 0.1)
    command.add_argument("--connectivity", type=int, choices=(4, 8), default=4,
                         help="neighbours of a pixel (default %(default)s)")


def smooth(image: Tensor, sigma: float, connectivity: int, progress: Progress) -> Tensor:
    graph = grid_graph(image.shape[2], image.shape[3], connectivity)
    cost = progress.run("edge weights", edge_weights, image, graph, "l2")
    tree = progress.run("tree", minimum_spanning_tree, graph, cost)

    def scan() -> Tensor:
        # The sum and what it is divided by are one scan over four channels.
        values = torch.cat([image, torch.ones_like(image[:, :1])], 1)
        sums = tree_scan(values, edge_factors(image, tree.parent, sigma), tree)
        return sums[:, :3] / sums[:, 3:]

    return progress.run("scan", scan)


def run(options: argparse.Namespace) -> None:
    with Progress("reading", *STAGES, "writing") as progress:
        image = progress.run("reading", read, options.picture)
        result = smooth(image, options.sigma, options.connectivity, progress)
        progress.run("writing", save, result, options.output)
    print(f"{options.output}: {image.shape[3]} x {image.shape[2]} pixels filtered along their tree, sigma {options.sigma:g}")
