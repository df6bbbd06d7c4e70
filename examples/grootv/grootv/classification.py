"""Classification of pictures in an ImageNet-style folder: data/train/CLASS/*.jpg and data/val/CLASS/*.jpg."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import timm
import torch
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import ImageFolder

from .batches import evaluation_batches
from .config import Config
from .files import read_picture


@dataclass
class Augmentation:
    """Of timm's transforms and mixup. `crop_pct` is the part of a resized picture that evaluation sees."""

    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    flip: float = 0.5
    color_jitter: float = 0.4
    random_erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1
    interpolation: str = "bicubic"
    crop_pct: float = 0.875


@dataclass
class ClassificationConfig(Config):
    """picture_size: the sides of the network's input, in pixels."""

    picture_size: int = 224
    augmentation: Augmentation = field(default_factory=Augmentation)


def image_folder(data: str | None, split: str, transform) -> ImageFolder:
    """The pictures of `data/split`, a folder for each class.

    Raises FileNotFoundError where there is no such folder, ValueError where it holds no class, or a class no picture.
    """
    if data is None:
        raise ValueError("data is missing: give data=/path/to/a/folder with train/CLASS/*.jpg and val/CLASS/*.jpg")
    folder = Path(data, split)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: expected {data}/train/CLASS/*.jpg and {data}/val/CLASS/*.jpg")
    if not any(path.is_dir() for path in folder.iterdir()):
        raise ValueError(f"{folder} has no class folders: expected {folder}/CLASS/*.jpg")
    try:
        return ImageFolder(folder, transform, loader=read_picture)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: {str(error).splitlines()[0]}") from error


class Classification:
    """The task of the engine: cross-entropy to mixed-up, smoothed labels; top-1 and top-5 accuracy."""

    Config = ClassificationConfig

    def __init__(self, config: ClassificationConfig):
        self.config = config

    def _transform(self, training: bool):
        size, augmentation = self.config.picture_size, self.config.augmentation
        shared = dict(input_size=size, interpolation=augmentation.interpolation)
        if not training:
            return create_transform(**shared, crop_pct=augmentation.crop_pct)
        return create_transform(**shared, is_training=True, auto_augment=augmentation.auto_augment, hflip=augmentation.flip,
                                scale=tuple(augmentation.scale), color_jitter=augmentation.color_jitter,
                                re_prob=augmentation.random_erasing, re_mode="pixel")

    @cached_property
    def _train(self) -> ImageFolder:
        data = image_folder(self.config.data, "train", self._transform(training=True))
        if data.classes != self._validation.classes:
            missing = set(data.classes) ^ set(self._validation.classes)
            raise ValueError(f"train and val of {self.config.data} must have the same class folders, but only one of them has "
                             f"{min(missing)!r}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""))
        return data

    @cached_property
    def _validation(self) -> ImageFolder:
        return image_folder(self.config.data, "val", self._transform(training=False))

    @cached_property
    def num_classes(self) -> int:
        """As the data have it; without data, as configured."""
        configured = self.config.model.get("num_classes")
        if self.config.data is None and configured is not None:
            return configured
        found = len(self._validation.classes)
        if configured not in (None, found):
            raise ValueError(f"model.num_classes is {configured}, but {self.config.data} has {found} class folders")
        return found

    def model(self) -> nn.Module:
        options = {key: value for key, value in self.config.model.items() if key not in ("name", "num_classes")}
        try:
            return timm.create_model(self.config.model["name"], num_classes=self.num_classes, **options)
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"cannot make the model {self.config.model}: {error}") from error

    def train_data(self) -> Dataset:
        return self._train

    def collate(self, items: list) -> list[Tensor]:
        return default_collate(items)

    @cached_property
    def _mixup(self) -> Mixup | None:
        """Of a whole batch alike, drawn from NumPy: so that it doesn't depend on the number of processes."""
        augmentation = self.config.augmentation
        if augmentation.mixup == 0 and augmentation.cutmix == 0:
            return None
        return Mixup(augmentation.mixup, augmentation.cutmix, label_smoothing=augmentation.label_smoothing,
                     num_classes=self.num_classes)

    def loss(self, model: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        pictures, labels = batch
        if self._mixup is None:
            smoothing = self.config.augmentation.label_smoothing
            return {"cross_entropy": nn.functional.cross_entropy(model(pictures), labels, label_smoothing=smoothing)}
        if len(pictures) % 2:
            raise ValueError("mixup pairs pictures, so batch_size / (processes x accumulate) must be even, got "
                             f"{len(pictures)}")
        pictures, targets = self._mixup(pictures, labels)
        return {"cross_entropy": SoftTargetCrossEntropy()(model(pictures), targets)}

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        metrics = MetricCollection({f"top{k}": MulticlassAccuracy(self.num_classes, top_k=k, average="micro")
                                    for k in (1, 5) if k <= self.num_classes}).to(device)
        for (pictures, labels), counted in evaluation_batches(self._validation, self.config, self.collate):
            logits = model(pictures.to(device, non_blocking=True)).float()
            if counted:
                metrics.update(logits[:counted], labels[:counted].to(device))
        return {name: value.item() for name, value in metrics.compute().items()}
