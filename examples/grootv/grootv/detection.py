"""Object detection and instance segmentation: Mask R-CNN on GrootV's pyramid, COCO's format and COCO's measures."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timm import create_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.transforms import v2

from .batches import evaluation_batches
from .checkpoint import load_original
from .config import Config
from .distributed import gather
from .images import MEAN, STD, read_image
from .model import STRIDE

MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
STRIDES = (4, 8, 16, 32, 64)
TO_FLOAT = (v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), v2.ToPureTensor())


@dataclass
class DetectionConfig(Config):
    """What detection adds.

    classes: how many categories there are; COCO has 80.
    shortest: what the shorter side may be scaled to in training, drawn for each picture; evaluation takes the largest.
    longest: what the longer side is not to exceed, which comes first.
    anchor_scale, pyramid, hidden, rcnn: as for `mask_rcnn`.
    keep_empty: whether training keeps pictures without objects; the usual recipes leave them out.
    backbone_checkpoint: a classifier's checkpoint, the original's or of a run here, for the backbone to start from.
    train_images, train_annotations, val_images, val_annotations: where they are in `data`.
    """

    evaluation_batch_size: int = 1
    classes: int = 80
    shortest: list[int] = field(default_factory=lambda: [800])
    longest: int = 1333
    anchor_scale: float = 8
    pyramid: int = 256
    hidden: int = 1024
    rcnn: dict[str, Any] = field(default_factory=dict)
    keep_empty: bool = False
    backbone_checkpoint: Optional[str] = None
    train_images: str = "train2017"
    train_annotations: str = "annotations/instances_train2017.json"
    val_images: str = "val2017"
    val_annotations: str = "annotations/instances_val2017.json"

    def __post_init__(self):
        super().__post_init__()
        if not self.shortest or min(self.shortest) < STRIDE or self.longest < max(self.shortest):
            raise ValueError(f"shortest must be one or more sizes of at least {STRIDE} and longest no less than any of "
                             f"them, got {self.shortest} and {self.longest}")


class Pyramid(nn.Module):
    """A backbone's stages of strides 4 to 32, and above them a feature pyramid of five levels with `channels` each.

    `body(x)` returns the stages, whose widths are `body.feature_info.channels()`: a timm model made with
    `features_only=True`.
    """

    def __init__(self, body: nn.Module, channels: int):
        super().__init__()
        self.body, self.out_channels = body, channels
        self.fpn = FeaturePyramidNetwork(body.feature_info.channels(), channels, extra_blocks=LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(level): stage for level, stage in enumerate(self.body(x))})


def mask_rcnn(name: str = "grootv_tiny", num_classes: int = 91, *, shortest: int = 800, longest: int = 1333,
              anchor_scale: float = 8, pyramid: int = 256, hidden: int = 1024, rcnn: dict[str, Any] | None = None,
              **backbone) -> MaskRCNN:
    """Mask R-CNN with a feature pyramid on a GrootV.

    Arguments:
        name: of a model in timm's registry that has stages of strides 4, 8, 16 and 32.
        num_classes: with the background, which is class 0.
        shortest, longest: pictures are scaled for evaluation until the shorter side has `shortest` pixels or the longer
            one `longest`. In training they are taken as they are.
        anchor_scale: the side of an anchor in strides of its level; the published 8 gives 32 to 512 pixels.
        pyramid: channels of the feature pyramid and of the heads that convolve.
        hidden: width of the box head's two layers.
        rcnn: more arguments of torchvision's MaskRCNN, e.g. `{"box_batch_size_per_image": 64}`.
        backbone: more arguments of the backbone, e.g. `drop_path_rate=0.2`.

    In training `model(images, targets)` takes lists of (3, H, W) in [0, 1] and of dicts with "boxes" (N, 4), "labels"
    (N,) int64 and "masks" (N, H, W) uint8, and returns a dict of losses. In evaluation `model(images)` returns dicts of
    "boxes", "labels", "scores" and "masks" (N, 1, H, W), probabilities.

    Raises ValueError for a backbone with other strides or unknown arguments in `rcnn`, and what timm raises for a model
    that it doesn't know.

    >>> model = mask_rcnn(num_classes=3, shortest=64, channels=8, depths=(1, 1, 1, 1), pyramid=16, hidden=8).eval()
    >>> sorted(model([torch.zeros(3, 64, 80)])[0])
    ['boxes', 'labels', 'masks', 'scores']

    Source: He et al., "Mask R-CNN"; Lin et al., "Feature Pyramid Networks for Object Detection"; the sizes are those of
    Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 4.
    """
    body = create_model(name, features_only=True, **backbone)
    strides = body.feature_info.reduction()
    if strides != list(STRIDES[:4]):
        raise ValueError(f"name must be of a model with strides 4, 8, 16 and 32, got {name!r} with {strides}")
    unknown = (rcnn or {}).keys() - inspect.signature(MaskRCNN).parameters.keys()
    if unknown:
        raise ValueError(f"rcnn must hold arguments of torchvision's MaskRCNN, got {', '.join(sorted(unknown))}")
    anchors = AnchorGenerator(tuple((anchor_scale * stride,) for stride in STRIDES), ((0.5, 1.0, 2.0),) * len(STRIDES))
    return MaskRCNN(
        Pyramid(body, pyramid), min_size=shortest, max_size=longest, image_mean=MEAN, image_std=STD, _skip_resize=True,
        rpn_anchor_generator=anchors,
        box_head=TwoMLPHead(pyramid * 7 * 7, hidden), box_predictor=FastRCNNPredictor(hidden, num_classes),
        mask_head=MaskRCNNHeads(pyramid, (pyramid,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(pyramid, pyramid, num_classes), **rcnn or {})


class CocoInstances(Dataset):
    """Pictures and their objects from a folder and an annotation file in COCO's format.

    Arguments:
        images: the folder of pictures.
        annotations: the JSON file: "images", "categories", and "annotations" with boxes and masks, be they polygons or
            run lengths.
        transform: of torchvision.transforms.v2, on the picture and the target together.
        keep_empty: whether to keep pictures without objects.

    Item i is (picture (3, H, W) uint8, target), transformed. The target has "boxes" (N, 4) as left, top, right, bottom;
    "labels" (N,) int64, from 1 in the order of the categories' identifiers, whatever these are; "masks" (N, H, W)
    uint8; and "image_id". Crowds, and boxes under a pixel, are no targets; evaluation reads them from `coco`.

    Raises FileNotFoundError for what isn't there; ValueError for a file in another format, and, when a picture is read,
    if it is corrupt or its size isn't the annotated one.
    """

    def __init__(self, images: str | Path, annotations: str | Path, transform=None, keep_empty: bool = True):
        self.folder, self.annotations, self.transform = Path(images), annotations, transform
        self.coco = _read_annotations(Path(annotations))
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {self.folder} for the pictures of {annotations}")
        for picture in self.coco.imgs.values():
            if not (self.folder / picture["file_name"]).is_file():
                raise FileNotFoundError(f"{annotations} lists {picture['file_name']}, which is not in {self.folder}")
        self.categories = sorted(self.coco.cats)
        self.image_ids = [i for i in sorted(self.coco.imgs) if keep_empty or self._objects(i)]
        if not self.image_ids:
            raise ValueError(f"{annotations} lists no picture" + ("" if keep_empty else " with objects"))

    def _objects(self, image_id: int) -> list[dict]:
        return [a for a in self.coco.imgToAnns[image_id] if not a.get("iscrowd") and min(a["bbox"][2:]) >= 1]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        image_id = self.image_ids[index]
        picture, objects = self.coco.imgs[image_id], self._objects(image_id)
        image = read_image(self.folder / picture["file_name"])
        size = image.shape[1:]
        if size != (picture["height"], picture["width"]):
            raise ValueError(f"{self.folder / picture['file_name']} has {size[0]} x {size[1]} pixels (height x width), "
                             f"but {self.annotations} says {picture['height']} x {picture['width']}")
        boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = np.zeros((len(objects), *size), np.uint8)
        for mask, annotation in zip(masks, objects):
            mask[:] = self.coco.annToMask(annotation)
        target = {
            "image_id": image_id,
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "labels": torch.tensor([1 + self.categories.index(a["category_id"]) for a in objects], dtype=torch.int64),
            "masks": tv_tensors.Mask(torch.from_numpy(masks)),
        }
        return (image, target) if self.transform is None else self.transform(image, target)


def _read_annotations(path: Path) -> COCO:
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}")
    try:
        content = json.loads(path.read_text())
        parts = {name: content[name] for name in ("images", "annotations", "categories")}
        pictures = {picture["id"] for picture in parts["images"]
                    if picture["file_name"] and picture["height"] > 0 and picture["width"] > 0}
        categories = {category["id"] for category in parts["categories"]}
        for annotation in parts["annotations"]:
            if annotation["image_id"] not in pictures or annotation["category_id"] not in categories:
                raise ValueError(f"annotation {annotation['id']} is of an image or a category that isn't listed")
            if len(annotation["bbox"]) != 4 or not annotation["segmentation"] or annotation["area"] < 0:
                raise ValueError(f"annotation {annotation['id']} lacks a box or a mask")
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not in COCO's format for instances: {reason}") from None
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def as_results(image_id: int, output: dict[str, Tensor], categories: list[int]) -> list[dict[str, Any]]:
    """What the model found in one picture, in COCO's format for results: boxes as left, top, width and height, masks,
    cut at probability 0.5, as run lengths."""
    boxes = torch.cat([output["boxes"][:, :2], output["boxes"][:, 2:] - output["boxes"][:, :2]], 1).tolist()
    masks = (output["masks"][:, 0] > 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    encoded = coco_mask.encode(np.asfortranarray(masks))
    return [{"image_id": image_id, "category_id": categories[label - 1], "bbox": box, "score": score,
             "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()}}
            for box, label, score, mask in zip(boxes, output["labels"].tolist(), output["scores"].tolist(), encoded)]


def coco_measures(coco: COCO, results: list[dict[str, Any]], image_ids: list[int]) -> dict[str, float]:
    """COCO's twelve numbers for boxes and for masks, named "box/AP", "box/AP50", ..., "mask/ARl".

    Arguments:
        coco: the annotations.
        results: see `as_results`; the order of those with equal scores matters, as in every evaluation of this kind.
        image_ids: the pictures that were looked at.

    A number for which there is nothing to find, such as APl without large objects, is -1, as pycocotools has it.
    """
    measures = {}
    for kind, iou, left_out in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox")):
        # The size of a result, by which small ones are told from large ones, is that of what is evaluated.
        found = [{key: value for key, value in result.items() if key != left_out} for result in results]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, coco.loadRes(found) if found else _no_results(coco), iou)
            evaluation.params.imgIds = sorted(image_ids)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        measures |= {f"{kind}/{name}": float(value) for name, value in zip(MEASURES, evaluation.stats, strict=True)}
    return measures


def _no_results(coco: COCO) -> COCO:
    nothing = COCO()
    nothing.dataset = coco.dataset | {"annotations": []}
    nothing.createIndex()
    return nothing


class Detection:
    """The task of the engine: Mask R-CNN's losses; COCO's measures for boxes and masks."""

    Config = DetectionConfig

    def __init__(self, config: DetectionConfig):
        self.config = config

    def model(self) -> MaskRCNN:
        config = self.config
        try:
            model = mask_rcnn(num_classes=1 + config.classes, shortest=max(config.shortest), longest=config.longest,
                              anchor_scale=config.anchor_scale, pyramid=config.pyramid, hidden=config.hidden,
                              rcnn=config.rcnn, **config.model)
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"cannot make the model {config.model} with rcnn {config.rcnn}: {error}") from error
        if config.backbone_checkpoint is not None:
            load_original(config.backbone_checkpoint, model)
        return model

    def train_data(self) -> CocoInstances:
        transform = v2.Compose([v2.RandomShortestSize(list(self.config.shortest), self.config.longest, antialias=False),
                                v2.RandomHorizontalFlip(), *TO_FLOAT])
        return self._data("train", transform, self.config.keep_empty)

    @cached_property
    def _validation(self) -> CocoInstances:
        return self._data("val", v2.Compose(TO_FLOAT), True)

    def _data(self, split: str, transform: v2.Transform, keep_empty: bool) -> CocoInstances:
        config = self.config
        if config.data is None:
            raise ValueError("data is missing: give data=/path/to/a/folder with train2017, val2017 and annotations")
        images, annotations = (Path(config.data) / getattr(config, f"{split}_{part}")
                               for part in ("images", "annotations"))
        data = CocoInstances(images, annotations, transform, keep_empty)
        if len(data.categories) != config.classes:
            raise ValueError(f"classes must be the number of categories in {data.annotations}, which is "
                             f"{len(data.categories)}, got {config.classes}")
        return data

    def collate(self, items: list) -> tuple[list[Tensor], list[dict]]:
        images, targets = zip(*items)
        return list(images), list(targets)

    def loss(self, model: nn.Module, batch: tuple[list[Tensor], list[dict]]) -> dict[str, Tensor]:
        return model(*batch)

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """COCO's measures, of all processes' shares of the validation pictures."""
        data, results = self._validation, []
        for (images, targets), counted in evaluation_batches(data, self.config, self.collate):
            outputs = model([image.to(device, non_blocking=True) for image in images])
            for output, target in list(zip(outputs, targets))[:counted]:
                results += as_results(target["image_id"], output, data.categories)
        return coco_measures(data.coco, gather(results), data.image_ids)
