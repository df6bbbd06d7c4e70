"""The commands on a photograph that comes with scikit-image."""

import argparse
from pathlib import Path
from time import perf_counter

from . import affinity, filter, tree
from .picture import Picture, add_verbose, shrink
from .problem import Problem, need
from .progress import Progress
from .writing import write

HELP = "run the commands on a photograph and time the stages"
DESCRIPTION = "Filters a photograph that comes with scikit-image, draws its tree and one pixel's reach, and times it all."
EXAMPLE = "treescan demo -o demo"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", default="demo", help="the folder for the pictures (default %(default)s)")
    add_verbose(command)


def run(options: argparse.Namespace) -> None:
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"{folder} can't be made: {error}") from None
    # NASA's portrait of the astronaut Eileen Collins, in the public domain.
    photograph = Picture(need("skimage.data").astronaut(), "RGB")
    width, height = photograph.size
    write([photograph], str(folder / "photograph.png"))
    with Progress(*filter.STAGES, "affinity", "pictures", verbose=options.verbose) as progress:
        progress.pixels = width * height
        start = perf_counter()
        smooth = filter.smooth(photograph, 0.1, 4, progress)
        at = (width // 3, height // 4)
        maps = progress.run("affinity", affinity.responses, photograph, at, 0.2)

        def draw() -> None:
            write([smooth], str(folder / "filtered.png"))
            tree.draw(shrink(photograph.shown(), 96), str(folder / "tree.png"))
            affinity.draw(photograph, at, maps, str(folder / "affinity.png"))

        progress.run("pictures", draw)
        total = perf_counter() - start
    print(f"A photograph of {width} x {height} pixels, its minimum spanning tree and scans along it:\n")
    for stage, seconds in progress.seconds.items():
        print(f"  {stage:14}{1000 * seconds:9.1f} ms")
    print(f"  {'in all':14}{1000 * total:9.1f} ms\n")
    print(f"{folder / 'photograph.png'}  what went in\n{folder / 'filtered.png'}    smoothed along the tree, edges kept\n"
          f"{folder / 'tree.png'}        the tree of the photograph reduced to 96 pixels\n"
          f"{folder / 'affinity.png'}    how far the state of one pixel reaches, along the tree and along the rows")
