"""Pictures in and out, and what every command that takes one shares."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

# More is refused before it is unpacked: a small file can claim any size.
MAX_PIXELS = 100_000_000


class Problem(Exception):
    """What the user can do something about: shown as one line."""


def need(module: str) -> ModuleType:
    """An optional dependency, or how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Problem(f"this command needs {error.name}: python -m pip install 'treescan[cli]'") from None


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


positive.__name__ = "number above 0"


def read(path: str) -> Tensor:
    """A picture as (1, 3, H, W) float32 in [0, 1], upright and in RGB; transparent pixels are laid on white."""
    image_module, operations = need("PIL.Image"), need("PIL.ImageOps")
    numpy = need("numpy")
    if Path(path).is_dir():
        raise Problem(f"{path} is a folder, expected a picture")
    try:
        with image_module.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Problem(f"{path} has {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}")
            image = operations.exif_transpose(image)
            if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: scaled by their own largest value
                values = torch.from_numpy(numpy.asarray(image, dtype="float32").copy())
                values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
                return values.expand(1, 3, -1, -1).contiguous()
            rgba = image.convert("RGBA") if "A" in image.getbands() or "transparency" in image.info else None
            if rgba is not None:
                image = image_module.alpha_composite(image_module.new("RGBA", rgba.size, "white"), rgba)
            values = torch.from_numpy(numpy.asarray(image.convert("RGB")).copy())
    except Problem:
        raise
    except FileNotFoundError:
        raise Problem(f"{path} doesn't exist") from None
    except image_module.UnidentifiedImageError:
        raise Problem(f"{path} is not a picture that Pillow can read") from None
    except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
        raise Problem(f"{path} can't be read: {error}") from None
    return values.permute(2, 0, 1)[None].float() / 255


def shrink(image: Tensor, longest: int) -> Tensor:
    """The picture with its longer side at most `longest` pixels."""
    height, width = image.shape[2:]
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place once it is whole: whoever stops the writing leaves what was
    there."""
    target = Path(path).resolve()  # a link stays one
    replaced = target.is_file() or not target.exists()  # a device or a pipe can't be
    place = target.with_name(f".{os.getpid()}-{target.name}") if replaced else target
    try:
        yield place
        if replaced:
            os.replace(place, target)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Problem(f"{path} can't be written: {reason}") from None
    finally:
        if replaced:
            place.unlink(missing_ok=True)


def save(image: Tensor, path: str) -> None:
    """Writes (1, 3, H, W) in [0, 1]; the file's ending says the format."""
    image_module = need("PIL.Image")
    values = (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8)
    with whole_file(path) as place:
        image_module.fromarray(values.numpy()).save(place)


def figure(width: float, height: float) -> Figure:
    """A matplotlib figure that is drawn into a file, without a window."""
    need("matplotlib.backends.backend_agg")
    drawn: Figure = need("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    return drawn


def save_figure(drawn: Figure, path: str, dpi: int) -> None:
    with whole_file(path) as place:
        drawn.savefig(place, dpi=dpi)


class Progress:
    """Named stages with a bar on a terminal, and how long each took."""

    def __init__(self, *stages: str) -> None:
        self.stages = stages
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Progress:
        self.bar = need("tqdm").tqdm(total=len(self.stages), file=sys.stderr, disable=None, leave=False, delay=1,
                                     bar_format="{desc} {bar} {n_fmt}/{total_fmt} {elapsed}")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def run(self, stage: str, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        from time import perf_counter

        self.bar.set_description(stage)
        start = perf_counter()
        result = function(*arguments, **options)
        self.seconds[stage] = perf_counter() - start
        self.bar.update()
        return result


def edge_factors(image: Tensor, parent: Tensor, sigma: float) -> Tensor:
    """exp(-|difference of colours|² / sigma²) on the edge between each pixel and its parent: (1, 1, H, W)."""
    flat = image.flatten(2)
    difference = flat - flat[..., parent[0].long()]
    return torch.exp(-difference.square().sum(1, keepdim=True) / sigma**2).reshape(1, 1, *image.shape[2:])


def add_picture(command: argparse.ArgumentParser) -> None:
    command.add_argument("picture", help="a photograph: any format that Pillow reads")


def add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", required=True, help="the file to write; its ending says the format")


def add_sigma(command: argparse.ArgumentParser, default: float) -> None:
    command.add_argument("--sigma", type=positive, default=default,
                         help="the difference of colours, in [0, 1], at which an edge counts 1/e (default %(default)s)")
