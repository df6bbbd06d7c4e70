"""Pictures and label maps read from files, and random transformations that depend on seed, epoch and index alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import pil_to_tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _open(path: Path, mode: str | None) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert(mode) if mode else picture.copy()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable picture: {error}") from None


def read_image(path: str | Path) -> Tensor:
    """The picture in a file as a tv_tensors.Image (3, H, W) of uint8, whatever its mode.

    Raises FileNotFoundError, or ValueError for a file that isn't a whole picture.
    """
    return tv_tensors.Image(pil_to_tensor(_open(Path(path), "RGB")))


def read_labels(path: str | Path) -> Tensor:
    """The label map in a file, a picture of one channel (grey or with a palette), as a tv_tensors.Mask (H, W) of int64.

    Raises FileNotFoundError, or ValueError for a file that isn't a whole picture or has several channels.
    """
    labels = np.array(_open(Path(path), None))
    if labels.ndim != 2:
        raise ValueError(f"{path} must have one channel of class numbers, got {labels.shape[2]}: is it a coloured picture?")
    return tv_tensors.Mask(torch.from_numpy(labels.astype(np.int64)))


@contextmanager
def drawing(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Inside, torch's generator of the CPU depends on the arguments only; afterwards it is where it was."""
    before = torch.get_rng_state()
    try:
        state = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)
        torch.default_generator.manual_seed(int(state[0]))
        yield
    finally:
        torch.set_rng_state(before)


def fitting_size(size: tuple[int, int], shortest: float, longest: float, name: str | Path) -> tuple[int, int]:
    """Height and width scaled until the shorter side is `shortest` or the longer one `longest`, whichever comes first.

    Raises ValueError where a side would be shorter than GrootV's stride of 32.
    """
    scale = min(shortest / min(size), longest / max(size))
    height, width = (max(1, round(scale * side)) for side in size)
    if min(height, width) < 32:
        raise ValueError(f"{name}: {size[0]} x {size[1]} pixels (height x width) become {height} x {width}, but GrootV "
                         "needs 32 on either side")
    return height, width
