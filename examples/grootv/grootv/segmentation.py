"""Semantic segmentation: UperNet on GrootV's pyramid, ADE20K's format, evaluation at one scale and at several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import UperNetConfig, UperNetForSemanticSegmentation

from .backbone import GrootVConfig
from .images import MEAN, STD, drawing, fitting_size, read_image, read_labels
from .model import VARIANTS

IGNORED = 255
SPLITS = ("training", "validation")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def upernet(name: str = "grootv_tiny", classes: int = 150, *, hidden: int = 512, auxiliary: int = 256,
            auxiliary_weight: float = 0.4, pool_scales: Sequence[int] = (1, 2, 3, 6), **backbone
            ) -> UperNetForSemanticSegmentation:
    """UperNet on a GrootV, with an auxiliary convolutional head on the third stage.

    Arguments:
        name: of a variant, whose sizes are taken where `backbone` doesn't say otherwise.
        classes: how many there are.
        hidden: width of the decoder.
        auxiliary: width of the auxiliary head; 0 for none.
        auxiliary_weight: of its loss.
        pool_scales: the grids that the last stage is averaged over.
        backbone: arguments of `GrootVConfig`, e.g. `drop_path_rate=0.2`.

    `model(pictures, labels=labels)` takes (B, 3, H, W), normalised, and (B, H, W) int64 with 255 where nothing is to be
    learnt; what it returns has `loss` and `logits` (B, classes, H, W). `save_pretrained` and `from_pretrained` work.

    Source: Xiao et al., "Unified Perceptual Parsing for Scene Understanding"; the sizes are those of Xiao et al., "GrootVL:
    Tree Topology is All You Need in State Space Model", section 4.3.
    """
    if name not in VARIANTS:
        raise ValueError(f"name must be one of {', '.join(VARIANTS)}, got {name!r}")
    if not 1 <= classes <= IGNORED:
        raise ValueError(f"classes must lie in [1, {IGNORED}], got {classes}")
    sizes = GrootVConfig(**VARIANTS[name] | backbone, out_features=["stage1", "stage2", "stage3", "stage4"])
    return UperNetForSemanticSegmentation(UperNetConfig(
        backbone_config=sizes, num_labels=classes, hidden_size=hidden, pool_scales=list(pool_scales),
        use_auxiliary_head=auxiliary > 0, auxiliary_channels=auxiliary, auxiliary_loss_weight=auxiliary_weight,
        loss_ignore_index=IGNORED))


class AdePictures(Dataset):
    """Pictures and label maps from a folder like ADE20K's.

    `folder` has `images/training`, `images/validation` and the same under `annotations`; the label map of `x.jpg` is `x.png`,
    with 0 for pixels without a label and 1 to `classes` for the others.

    Item i is (picture (3, H, W) uint8, labels (H, W) int64 from 0 to classes - 1, or 255 without a label), both transformed.

    Arguments:
        folder: see above.
        split: "training" or "validation".
        classes: how many there are.
        transform: of torchvision.transforms.v2, on picture and labels together.
        seed: what `transform` draws depends on it, the epoch (`set_epoch`) and the index alone.

    Raises FileNotFoundError for folders and label maps that aren't there; ValueError for a corrupt picture, a label map of
    another size, or a label out of range, which are found when they are read.
    """

    def __init__(self, folder: str | Path, split: str, classes: int, transform=None, seed: int = 0):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        self.classes, self.transform, self.seed, self.epoch = classes, transform, seed, 0
        images, annotations = Path(folder) / "images" / split, Path(folder) / "annotations" / split
        for place in (images, annotations):
            if not place.is_dir():
                raise FileNotFoundError(f"no folder {place}: {folder} must have images/ and annotations/, each with training/ "
                                        "and validation/, as ADE20K has")
        self.images = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not self.images:
            raise FileNotFoundError(f"no pictures in {images}")
        self.annotations = [annotations / f"{path.stem}.png" for path in self.images]
        known = {path.name for path in annotations.iterdir()}
        for image, annotation in zip(self.images, self.annotations):
            if annotation.name not in known:
                raise FileNotFoundError(f"{image} has no label map {annotation}")

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = read_image(self.images[index]), read_labels(self.annotations[index])
        if labels.shape != image.shape[1:]:
            raise ValueError(f"{self.annotations[index]} has {labels.shape[0]} x {labels.shape[1]} pixels (height x width), but "
                             f"its picture {image.shape[1]} x {image.shape[2]}")
        if labels.min() < 0 or labels.max() > self.classes:
            raise ValueError(f"{self.annotations[index]} has labels from {int(labels.min())} to {int(labels.max())}; expected 0 "
                             f"(none) to {self.classes}")
        labels = tv_tensors.Mask(torch.where(labels == 0, IGNORED, labels - 1))
        if self.transform is None:
            return image, labels
        with drawing(self.seed, self.epoch, index):
            return self.transform(image, labels)


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

    mIoU is the mean over the classes that occur or are predicted, mAcc over those that occur; with neither they are NaN.
    """
    confusion = confusion.double()
    hit, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return {"mIoU": float((hit / (true + predicted - hit)).nanmean()), "mAcc": float((hit / true).nanmean()),
            "aAcc": float(hit.sum() / true.sum())}
