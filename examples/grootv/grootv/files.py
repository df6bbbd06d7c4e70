"""Reading and writing files so that what goes wrong has a name."""

import os
from pathlib import Path

import torch
from PIL import Image


def read_picture(path: str | os.PathLike, mode: str | None = "RGB") -> Image.Image:
    """The picture in a file, decoded, in Pillow's colour `mode`; None for the file's own.

    Raises ValueError that names the file where it is no picture or a broken one, FileNotFoundError where there is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        with Image.open(path) as picture:
            return picture.convert(mode) if mode else picture.copy()
    except Exception as error:  # Pillow's decoders raise whatever they come across
        reason = "it is not in a known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise ValueError(f"cannot read the picture {path}: {reason}") from error


def write_atomically(path: str | os.PathLike, state: object) -> None:
    """`torch.save` that is killed at any moment and leaves either the old file or the new one."""
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    with open(beside, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def read_state(path: str | os.PathLike) -> dict:
    """What `torch.save` wrote, on the CPU; FileNotFoundError without the file, ValueError if it is something else."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, and with long advice
        raise ValueError(f"cannot read the checkpoint {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint: it holds a {type(state).__name__}, not a dict")
    return state
