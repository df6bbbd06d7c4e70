"""Pictures with known boxes, masks and labels: small objects pasted on crops of photographs.

The objects are scikit-learn's digits or Fashion-MNIST's clothes, the photographs come with scikit-image and
scikit-learn. Nothing is downloaded. What is pasted has crisp edges and a colour of its own: easier than real pictures,
and kind to anything that follows edges.
"""

from __future__ import annotations

import gzip
import importlib
import json
import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SPLITS = ("train", "val")
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
SOURCES = {"digits": tuple("0123456789"), "fashion-mnist": CLOTHES}


class Composite(NamedTuple):
    """One picture and what is in it. Masks and boxes cover the pixels that can be seen.

    Fields:
        image: (H, W, 3) uint8.
        labels: (N,) int64, the class of each object from 0.
        masks: (N, H, W) bool, disjoint.
        boxes: (N, 4) float32: left, top, right, bottom in pixels, the right and bottom ones exclusive.
        semantic: (H, W) uint8, 0 for the background, 1 + class elsewhere.
    """

    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    semantic: np.ndarray


def fashion_mnist(folder: str | Path | None = None, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST from its files `*-ubyte.gz`.

    Arguments:
        folder: where the files are, or what torchvision's FashionMNIST was given as `root`; default: Debian's place.
        split: "train" (60,000 pictures) or "val" (10,000).

    Returns pictures (N, 28, 28) uint8 and classes (N,) int64. Raises FileNotFoundError where there are no files, ValueError
    for broken ones or an unknown split.

    Source: Xiao et al., "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms".
    """
    _check_choice("split", split, SPLITS)
    given = FASHION_MNIST_FOLDER if folder is None else Path(folder)
    prefix = "train" if split == "train" else "t10k"
    for place in (given, given / "FashionMNIST" / "raw"):
        images, labels = place / f"{prefix}-images-idx3-ubyte.gz", place / f"{prefix}-labels-idx1-ubyte.gz"
        if images.exists() and labels.exists():
            return _read_idx(images), _read_idx(labels).astype(np.int64)
    raise FileNotFoundError(
        f"no Fashion-MNIST in {given} (missing: {prefix}-images-idx3-ubyte.gz). `apt-get install dataset-fashion-mnist` puts "
        f"it into {FASHION_MNIST_FOLDER}; elsewhere run torchvision.datasets.FashionMNIST('FOLDER', download=True) and name FOLDER")


def _read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the format of MNIST: two zeros, the type 8, the number of sizes, the sizes, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
        ndim = content[3]
        shape = np.frombuffer(content, ">u4", ndim, offset=4)
        if content[:3] != b"\0\0\x08":
            raise ValueError("wrong magic number")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (ValueError, IndexError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole file in MNIST's format ({error}): get it again") from None


@lru_cache(maxsize=4)
def _objects(source: str, split: str, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures (N, 28, 28) uint8, black outside the object, and their classes."""
    if source == "fashion-mnist":
        return fashion_mnist(folder, split)
    digits = _need("sklearn.datasets").load_digits()
    large = np.stack([np.asarray(Image.fromarray((15 * picture).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC))
                      for picture in digits.images])
    # The last ones were written by other people than the first.
    part = slice(None, 1400) if split == "train" else slice(1400, None)
    return large[part], digits.target[part].astype(np.int64)


@lru_cache(maxsize=1)
def _photographs() -> tuple[Image.Image, ...]:
    skimage, sklearn = _need("skimage.data"), _need("sklearn.datasets")
    pictures = [getattr(skimage, name)() for name in ("astronaut", "chelsea", "coffee", "rocket", "brick", "grass", "gravel")]
    pictures += [skimage.stereo_motorcycle()[0], sklearn.load_sample_image("china.jpg"), sklearn.load_sample_image("flower.jpg")]
    return tuple(Image.fromarray(np.ascontiguousarray(picture)).convert("RGB") for picture in pictures)


def _need(module: str):
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ModuleNotFoundError(f"composites need {module}: pip install 'grootv[demo]'") from None


def _check_choice(name: str, value, choices) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


class Composites:
    """A data set of composites: item i depends on the arguments and i alone.

    Each picture is a crop of a photograph on which 1 to `most` objects are pasted, each in one random colour shaded
    by its grey values. An object that would hide more than half of another one is left out. The two splits share neither
    objects nor pixels of photographs.

    Arguments:
        count: how many.
        size: (H, W), each at least 16.
        source: "digits" or "fashion-mnist".
        split: "train" or "val".
        most: objects in a picture, at most; the first is always there.
        scale: the least and the greatest side of an object, in shorter sides of the picture; at most 1.
        classes: names of the classes to draw from, which are numbered in this order; all of the source's unless given.
        seed: any integer from 0.
        data: where Fashion-MNIST's files are (see `fashion_mnist`).

    Raises ValueError for an argument out of range, and what `fashion_mnist` raises.

    >>> composites = Composites(3, (48, 64))
    >>> composites[0].image.shape, composites[2].masks.shape[1:]
    ((48, 64, 3), (48, 64))
    """

    def __init__(self, count: int, size: tuple[int, int] = (64, 64), *, source: str = "digits", split: str = "train",
                 most: int = 3, scale: tuple[float, float] = (0.3, 0.6), classes: Sequence[str] | None = None, seed: int = 0,
                 data: str | Path | None = None):
        _check_choice("source", source, SOURCES)
        _check_choice("split", split, SPLITS)
        if min(size) < 16:
            raise ValueError(f"size must be at least (16, 16), got {tuple(size)}")
        for name, value, least in (("count", count, 1), ("most", most, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0.1 <= scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be two numbers from 0.1 to 1, the lesser first, got {tuple(scale)}")
        self.scale = scale
        self.count, self.size, self.source, self.split, self.most, self.seed = count, tuple(size), source, split, most, seed
        self.classes = SOURCES[source] if classes is None else tuple(classes)
        for name in self.classes:
            _check_choice("classes", name, SOURCES[source])
        pictures, labels = _objects(source, split, None if data is None else Path(data))
        number = np.array([self.classes.index(name) if name in self.classes else -1 for name in SOURCES[source]])[labels]
        self._pool = pictures[number >= 0], number[number >= 0]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Composite:
        if not 0 <= index < self.count:
            raise IndexError(f"index must lie in [0, {self.count}), got {index}")
        random = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        image = self._background(random)
        owner = np.full(self.size, -1)
        labels = []
        for _ in range(random.integers(1, self.most + 1)):
            label, shape, colours, (top, left) = self._draw_object(random)
            height, width = shape.shape
            window = owner[top:top + height, left:left + width]
            seen, hidden = np.bincount(owner[owner >= 0]), np.bincount(window[shape & (window >= 0)])
            if (2 * hidden > seen[:len(hidden)]).any():
                continue
            window[shape] = len(labels)
            image[top:top + height, left:left + width][shape] = colours[shape]
            labels.append(label)
        labels = np.array(labels)
        masks = owner == np.arange(len(labels))[:, None, None]
        semantic = np.where(owner < 0, 0, 1 + labels[owner]).astype(np.uint8)
        return Composite(image, labels, masks, np.array([_box(mask) for mask in masks], np.float32), semantic)

    def _background(self, random) -> np.ndarray:
        height, width = self.size
        photographs = _photographs()
        photograph = photographs[random.integers(len(photographs))]
        # The left of each photograph is for training, the right for validation.
        border = 0.7 * photograph.width
        start, end = (0, border) if self.split == "train" else (border, photograph.width)
        largest = min((end - start) / width, photograph.height / height)
        scale = random.uniform(min(1, largest), min(2, largest))
        left = random.uniform(start, end - scale * width)
        top = random.uniform(0, photograph.height - scale * height)
        crop = photograph.resize((width, height), Image.Resampling.BICUBIC,
                                 box=(left, top, left + scale * width, top + scale * height))
        return np.array(crop)

    def _draw_object(self, random):
        pictures, classes = self._pool
        which = random.integers(len(pictures))
        side = round(random.uniform(*self.scale) * min(self.size))
        grey = np.asarray(Image.fromarray(pictures[which]).resize((side, side), Image.Resampling.BILINEAR))
        shape = grey > 0.2 * grey.max()
        colours = random.uniform(0, 255, 3) * (0.6 + 0.4 * grey[..., None] / 255)
        corner = tuple(random.integers(0, extent - side + 1) for extent in self.size)
        return int(classes[which]), shape, colours.astype(np.uint8), corner


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _both_splits(count: int, val_count: int | None, **options):
    """The data sets to write: `count` composites for training and a quarter of that, unless told, for validation."""
    for split, number in (("train", count), ("val", math.ceil(count / 4) if val_count is None else val_count)):
        yield split, Composites(number, split=split, **options)


def _save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Chroma at full resolution, which matters for objects of a few pixels; png has no such options and ignores them.
    Image.fromarray(array).save(path, quality=95, subsampling=0)


def write_imagefolder(folder: str | Path, count: int, seed: int = 0, source: str = "digits", *, val_count: int | None = None,
                      **options) -> None:
    """An ImageNet-style folder of pictures with one object each: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`.

    Arguments:
        folder: where to write.
        count, val_count: pictures for training and for validation, by default a quarter of that.
        seed, source, options: of `Composites`.

    The classes have the same number of pictures, or one more. Raises what `Composites` raises, and ValueError for fewer
    pictures than classes.
    """
    for split, composites in _both_splits(count, val_count, seed=seed, source=source, most=1, **options):
        number, classes = len(composites), composites.classes
        if number < len(classes):
            raise ValueError(f"count must be at least the number of classes, {len(classes)}, in {split} too, got {number}")
        missing = [(number + len(classes) - 1 - label) // len(classes) for label in range(len(classes))]
        composites.count = 1000 * number  # as many as it takes until every class has its share
        for index in range(composites.count):
            composite = composites[index]
            label = composite.labels[0]
            if missing[label]:
                missing[label] -= 1
                _save(composite.image, Path(folder) / split / f"{label}-{classes[label]}" / f"{index:08}.jpg")
            if not any(missing):
                break


def write_coco(folder: str | Path, count: int, seed: int = 0, source: str = "digits", *, val_count: int | None = None,
               **options) -> None:
    """A folder like COCO's: `train2017/`, `val2017/` and `annotations/instances_{train,val}2017.json`.

    Category identifiers are 1 + class. Masks are run-length encoded. Arguments as for `write_imagefolder`.
    """
    from pycocotools import mask as coco_mask

    for split, composites in _both_splits(count, val_count, seed=seed, source=source, **options):
        images, annotations = [], []
        for index in range(len(composites)):
            composite, name = composites[index], f"{index + 1:012}.jpg"
            _save(composite.image, Path(folder) / f"{split}2017" / name)
            images.append({"id": index + 1, "file_name": name, "height": composites.size[0], "width": composites.size[1]})
            for label, mask, (left, top, right, bottom) in zip(composite.labels, composite.masks, composite.boxes.tolist()):
                encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
                annotations.append({
                    "id": len(annotations) + 1, "image_id": index + 1, "category_id": int(label) + 1, "iscrowd": 0,
                    "bbox": [left, top, right - left, bottom - top], "area": int(mask.sum()),
                    "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()}})
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(composites.classes)]
        path = Path(folder) / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_ade(folder: str | Path, count: int, seed: int = 0, source: str = "digits", *, val_count: int | None = None,
              **options) -> None:
    """A folder like ADE20K's: `images/{training,validation}/*.jpg` and `annotations/{training,validation}/*.png`.

    In the annotations 1 is the background and 2 + class the objects, since 0 stands for pixels without a label, which
    composites lack. Arguments as for `write_imagefolder`.
    """
    for split, composites in _both_splits(count, val_count, seed=seed, source=source, **options):
        long = "training" if split == "train" else "validation"
        for index in range(len(composites)):
            composite, name = composites[index], f"ADE_{split}_{index + 1:08}"
            _save(composite.image, Path(folder) / "images" / long / f"{name}.jpg")
            _save(composite.semantic + 1, Path(folder) / "annotations" / long / f"{name}.png")
