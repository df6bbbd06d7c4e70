"""Pictures and label maps from files, as the transformations of torchvision take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import pil_to_tensor

from .files import read_picture
from .model import STRIDE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_image(path: str | Path) -> Tensor:
    """The picture in a file as a tv_tensors.Image (3, H, W) of uint8. Raises what `read_picture` raises."""
    return tv_tensors.Image(pil_to_tensor(read_picture(path)))


def read_labels(path: str | Path) -> Tensor:
    """The label map in a file, grey or with a palette, as a tv_tensors.Mask (H, W) of int64.

    Raises what `read_picture` raises, and ValueError for a picture of several channels.
    """
    labels = np.array(read_picture(path, mode=None))
    if labels.ndim != 2:
        raise ValueError(f"the label map {path} must have one channel, of class numbers; it has {labels.shape[2]}")
    return tv_tensors.Mask(torch.from_numpy(labels.astype(np.int64)))


def fitting_size(size: tuple[int, int], shortest: float, longest: float, name: str | Path) -> tuple[int, int]:
    """Height and width scaled until the shorter side is `shortest` or the longer one `longest`, whichever comes first.

    Raises ValueError, naming the picture, where a side would be shorter than GrootV's stride.
    """
    scale = min(shortest / min(size), longest / max(size))
    height, width = (max(1, round(scale * side)) for side in size)
    if min(height, width) < STRIDE:
        raise ValueError(f"{name} is too small: its {size[0]} x {size[1]} pixels (height x width) are scaled to "
                         f"{height} x {width}, and the network needs {STRIDE} on either side")
    return height, width
