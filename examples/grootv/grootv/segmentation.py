"""Semantic segmentation: UperNet on GrootV's pyramid, ADE20K's format, evaluation at one scale and at several."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import UperNetConfig, UperNetForSemanticSegmentation

from .backbone import GrootVConfig
from .batches import evaluation_batches
from .checkpoint import load_original
from .config import Config
from .images import MEAN, STD, fitting_size, read_image, read_labels
from .model import STRIDE, VARIANTS, GrootV

IGNORED = 255
SPLITS = ("training", "validation")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass
class SegmentationConfig(Config):
    """What segmentation adds.

    classes: how many there are; ADE20K has 150.
    shortest, longest: pictures are scaled until the shorter or the longer side has so many pixels, which comes first.
    factors: what both are multiplied with in training: a number between these two, drawn for each picture.
    crop: the sides of what training sees.
    scales, flip: of evaluation; see `predict`.
    hidden, auxiliary: as for `upernet`.
    backbone_checkpoint: a classifier's checkpoint, the original's or of a run here, for the backbone to start from.
    """

    evaluation_batch_size: int = 1
    classes: int = 150
    shortest: int = 512
    longest: int = 2048
    factors: list[float] = field(default_factory=lambda: [0.5, 2.0])
    crop: int = 512
    scales: list[float] = field(default_factory=lambda: [1.0])
    flip: bool = False
    hidden: int = 512
    auxiliary: int = 256
    backbone_checkpoint: Optional[str] = None

    def __post_init__(self):
        super().__post_init__()
        if not STRIDE <= self.shortest <= self.longest or self.crop < STRIDE:
            raise ValueError(f"shortest, longest and crop must be at least {STRIDE} and longest no less than shortest, "
                             f"got {self.shortest}, {self.longest} and {self.crop}")
        if len(self.factors) != 2 or not 0 < self.factors[0] <= self.factors[1]:
            raise ValueError(f"factors must be two positive numbers, the smaller one first, got {self.factors}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales must be one or more positive numbers, got {self.scales}")


def upernet(name: str = "grootv_tiny", classes: int = 150, *, hidden: int = 512, auxiliary: int = 256,
            auxiliary_weight: float = 0.4, pool_scales: Sequence[int] = (1, 2, 3, 6),
            grad_checkpointing: bool = False, **backbone) -> UperNetForSemanticSegmentation:
    """UperNet on a GrootV, with an auxiliary convolutional head on the third stage.

    Arguments:
        name: of a variant, whose sizes are taken where `backbone` doesn't say otherwise.
        classes: how many there are.
        hidden: width of the decoder.
        auxiliary: width of the auxiliary head; 0 for none.
        auxiliary_weight: of its loss.
        pool_scales: the grids that the last stage is averaged over.
        grad_checkpointing: whether to compute the backbone's blocks anew in the backward pass, to save memory.
        backbone: arguments of `GrootV`, e.g. `drop_path_rate=0.2`.

    `model(pictures, labels=labels)` takes (B, 3, H, W), normalised, and (B, H, W) int64 with 255 where nothing is to be
    learnt; what it returns has `loss` and `logits` (B, classes, H, W). `save_pretrained` and `from_pretrained` work.

    Raises ValueError for another name, argument or number of classes.

    >>> model = upernet(classes=4, hidden=16, auxiliary=8, channels=8, depths=(1, 1, 1, 1)).eval()
    >>> model(torch.zeros(1, 3, 40, 70)).logits.shape
    torch.Size([1, 4, 40, 70])

    Source: Xiao et al., "Unified Perceptual Parsing for Scene Understanding"; the sizes are those of Xiao et al.,
    "GrootVL: Tree Topology is All You Need in State Space Model", section 4.
    """
    if name not in VARIANTS:
        raise ValueError(f"name must be one of {', '.join(VARIANTS)}, got {name!r}")
    options = inspect.signature(GrootV).parameters.keys() - {"num_classes", "grad_checkpointing"}
    if not backbone.keys() <= options:
        raise ValueError(f"the backbone's arguments are {', '.join(sorted(options))}, got "
                         f"{', '.join(backbone.keys() - options)}")
    if not 1 <= classes <= IGNORED:
        raise ValueError(f"classes must lie in [1, {IGNORED}], got {classes}")
    sizes = GrootVConfig(**VARIANTS[name] | backbone, out_features=["stage1", "stage2", "stage3", "stage4"])
    model = UperNetForSemanticSegmentation(UperNetConfig(
        backbone_config=sizes, num_labels=classes, hidden_size=hidden, pool_scales=list(pool_scales),
        use_auxiliary_head=auxiliary > 0, auxiliary_channels=auxiliary, auxiliary_loss_weight=auxiliary_weight,
        loss_ignore_index=IGNORED))
    if grad_checkpointing:
        model.backbone.gradient_checkpointing_enable()
    return model


class AdePictures(Dataset):
    """Pictures and label maps from a folder like ADE20K's.

    `folder` has `images/training`, `images/validation` and the same under `annotations`; the label map of `x.jpg` is
    `x.png`, with 0 for pixels without a label and 1 to `classes` for the others.

    Item i is the picture (3, H, W) uint8 and its labels (H, W) int64, from 0 to classes - 1 or 255 without a label,
    both transformed; and the picture's path.

    Arguments:
        folder: see above.
        split: "training" or "validation".
        classes: how many there are.
        transform: of torchvision.transforms.v2, on picture and labels together.

    Raises FileNotFoundError for folders and label maps that aren't there; ValueError, when a picture is read, if it is
    corrupt, its label map of another size, or a label out of range.
    """

    def __init__(self, folder: str | Path, split: str, classes: int, transform=None):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        self.classes, self.transform = classes, transform
        images, annotations = Path(folder) / "images" / split, Path(folder) / "annotations" / split
        for place in (images, annotations):
            if not place.is_dir():
                raise FileNotFoundError(f"no folder {place}: {folder} must have images/ and annotations/, each with "
                                        "training/ and validation/, as ADE20K has")
        self.images = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not self.images:
            raise FileNotFoundError(f"no pictures in {images}")
        self.annotations = [annotations / f"{path.stem}.png" for path in self.images]
        known = {path.name for path in annotations.iterdir()}
        for image, annotation in zip(self.images, self.annotations):
            if annotation.name not in known:
                raise FileNotFoundError(f"{image} has no label map {annotation}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        image, labels = read_image(self.images[index]), read_labels(self.annotations[index])
        if labels.shape != image.shape[1:]:
            raise ValueError(f"{self.annotations[index]} has {labels.shape[0]} x {labels.shape[1]} pixels (height x "
                             f"width), but its picture {image.shape[1]} x {image.shape[2]}")
        if labels.min() < 0 or labels.max() > self.classes:
            raise ValueError(f"{self.annotations[index]} has labels from {int(labels.min())} to {int(labels.max())}; "
                             f"expected 0 (none) to {self.classes}")
        labels = tv_tensors.Mask(torch.where(labels == 0, IGNORED, labels - 1))
        if self.transform is not None:
            image, labels = self.transform(image, labels)
        return image, labels, str(self.images[index])


class RandomScale(nn.Module):
    """Scales the picture to fit `shortest` and `longest`, both times a factor drawn uniformly from `factors`."""

    def __init__(self, shortest: int, longest: int, factors: tuple[float, float]):
        super().__init__()
        self.shortest, self.longest, self.factors = shortest, longest, factors

    def forward(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        factor = float(torch.empty(()).uniform_(*self.factors))
        scale = factor * min(self.shortest / min(labels.shape), self.longest / max(labels.shape))
        size = [max(1, round(scale * side)) for side in labels.shape]
        return v2.functional.resize(image, size, antialias=False), v2.functional.resize(labels, size)


class RandomVariedCrop(nn.Module):
    """A random crop, drawn up to ten times until no class has more than `most` of its labelled pixels.

    A smaller picture is padded: with the mean colour, and labels to be ignored.
    """

    def __init__(self, size: int, most: float = 0.75):
        super().__init__()
        fill = {tv_tensors.Image: [round(255 * mean) for mean in MEAN], tv_tensors.Mask: IGNORED}
        self.crop, self.most = v2.RandomCrop(size, pad_if_needed=True, fill=fill), most

    def forward(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(10):
            picture, cropped = self.crop(image, labels)
            counts = torch.bincount(cropped[cropped != IGNORED])
            if counts.sum() > 0 and counts.max() <= self.most * counts.sum():
                break
        return picture, cropped


def _sometimes(**jitter) -> v2.Transform:
    return v2.RandomApply([v2.ColorJitter(**jitter)], p=0.5)


def training_transform(crop: int, shortest: int, longest: int, factors: tuple[float, float]) -> v2.Transform:
    """What the published recipe does to a picture: scale, crop, flip, distort colours, normalise."""
    return v2.Compose([
        RandomScale(shortest, longest, factors), RandomVariedCrop(crop), v2.RandomHorizontalFlip(),
        _sometimes(brightness=0.125), _sometimes(contrast=0.5), _sometimes(saturation=0.5), _sometimes(hue=0.1),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), v2.Normalize(MEAN, STD)])


def predict(model: nn.Module, image: Tensor, shortest: int = 512, longest: int = 2048, scales: Sequence[float] = (1.0,),
            flip: bool = False, name: str | Path = "image") -> Tensor:
    """Probabilities of the classes in a whole picture, averaged over scales and mirror images.

    Arguments:
        model: an UperNet in evaluation mode.
        image: (3, H, W) uint8, on the model's device.
        shortest, longest: for a scale s, the picture is resized to fit s · shortest and s · longest.
        scales, flip: (1.0,) without flip is the single-scale evaluation; 0.5 to 1.75 in steps of 0.25 with it the
            multi-scale one.
        name: of the picture, for errors.

    Returns (classes, H, W) float32. Raises ValueError for a picture that gets smaller than 32 pixels on a side.
    """
    height, width = image.shape[1:]
    total = 0
    for scale in scales:
        size = fitting_size((height, width), scale * shortest, scale * longest, name)
        resized = v2.functional.resize(image, size, antialias=False)
        pixels = v2.functional.normalize(v2.functional.to_dtype(resized, torch.float32, scale=True), MEAN, STD)[None]
        for mirrored in (False, True) if flip else (False,):
            logits = model(pixels.flip(3) if mirrored else pixels).logits.float()
            logits = F.interpolate(logits, (height, width), mode="bilinear")
            probabilities = logits.softmax(1)[0]
            total = total + (probabilities.flip(2) if mirrored else probabilities)
    return total / (len(scales) * (1 + flip))


def measures(confusion: Tensor) -> dict[str, float]:
    """mIoU, mAcc and aAcc of a confusion matrix whose rows are the true classes and columns the predicted ones.

        IoU_c = C_cc / (Σ_j C_cj + Σ_j C_jc - C_cc),  Acc_c = C_cc / Σ_j C_cj,  aAcc = Σ_c C_cc / Σ C

    mIoU is the mean over the classes that occur or are predicted, mAcc over those that occur; NaN if there is none.
    """
    confusion = confusion.double()
    hit, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return {"mIoU": float((hit / (true + predicted - hit)).nanmean()), "mAcc": float((hit / true).nanmean()),
            "aAcc": float(hit.sum() / true.sum())}


class Segmentation:
    """The task of the engine: cross-entropy over pixels; mIoU, mAcc and aAcc of whole pictures."""

    Config = SegmentationConfig

    def __init__(self, config: SegmentationConfig):
        self.config = config

    def model(self) -> UperNetForSemanticSegmentation:
        config = self.config
        try:
            model = upernet(classes=config.classes, hidden=config.hidden, auxiliary=config.auxiliary, **config.model)
        except TypeError as error:
            raise ValueError(f"cannot make the model {config.model}: {error}") from error
        if config.backbone_checkpoint is not None:
            load_original(config.backbone_checkpoint, model)
        return model

    def _data(self, split: str, transform=None) -> AdePictures:
        if self.config.data is None:
            raise ValueError("data is missing: give data=/path/to/a/folder with images/ and annotations/")
        return AdePictures(self.config.data, split, self.config.classes, transform)

    def train_data(self) -> AdePictures:
        config = self.config
        transform = training_transform(config.crop, config.shortest, config.longest, tuple(config.factors))
        return self._data("training", transform)

    @cached_property
    def _validation(self) -> AdePictures:
        return self._data("validation")

    def collate(self, items: list) -> list[Tensor]:
        return default_collate([(image, labels) for image, labels, _ in items])

    def loss(self, model: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        pictures, labels = batch
        loss, labelled = model(pictures, labels=labels).loss, (labels != IGNORED).float().mean()
        # The mean over all pixels, also those without a label: then a batch's loss is the mean over its pieces.
        return {"cross_entropy": torch.where(labelled > 0, loss * labelled, 0)}

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        config = self.config
        confusion = MulticlassConfusionMatrix(config.classes, ignore_index=IGNORED).to(device)
        for items, counted in evaluation_batches(self._validation, config, list):
            for position, (image, labels, path) in enumerate(items):
                probabilities = predict(model, image.to(device), config.shortest, config.longest, config.scales,
                                        config.flip, path)
                if position < counted:
                    confusion.update(probabilities.argmax(0).flatten(), labels.to(device).flatten())
        return measures(confusion.compute())
