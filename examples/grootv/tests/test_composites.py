"""Composites say truly what is in them, depend on (seed, index) alone, and are written in the three formats."""

import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CocoDetection, ImageFolder

from grootv import composites
from grootv.composites import Composites


@pytest.mark.parametrize("split", composites.SPLITS)
def test_annotations_agree(split):
    for item in Composites(40, (41, 67), split=split, most=4, seed=3):
        count = len(item.labels)
        assert item.image.shape == (41, 67, 3) and item.image.dtype == np.uint8 and 1 <= count <= 4
        assert item.masks.shape == (count, 41, 67) and item.masks.any((1, 2)).all() and item.masks.sum(0).max() == 1
        assert np.array_equal(item.semantic, (item.masks * (1 + item.labels[:, None, None])).sum(0))
        for mask, (left, top, right, bottom) in zip(item.masks, item.boxes.astype(int)):
            inside = mask[top:bottom, left:right]
            assert inside.sum() == mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_item_depends_on_seed_and_index_alone():
    first, second = Composites(5, seed=1), Composites(9, seed=1)
    second[7]
    for one, other in zip(first[4], second[4]):
        assert np.array_equal(one, other)
    images = [Composites(9, seed=seed, split=split)[index].image
              for seed, split, index in ((1, "train", 4), (2, "train", 4), (1, "val", 4), (1, "train", 5))]
    assert all(not np.array_equal(images[0], other) for other in images[1:])


def test_every_class_occurs():
    labels = np.concatenate([item.labels for item in Composites(100)])
    assert set(labels) == set(range(10))


def test_some_classes():
    composites = Composites(30, classes=("4", "1"), seed=2)
    assert composites.classes == ("4", "1")
    labels = np.concatenate([item.labels for item in composites])
    assert set(labels) == {0, 1}
    ones = [item.boxes[0] for item in composites if item.labels.tolist() == [1]]
    fours = [item.boxes[0] for item in composites if item.labels.tolist() == [0]]
    aspect = [np.mean([(right - left) / (bottom - top) for left, top, right, bottom in boxes]) for boxes in (ones, fours)]
    assert aspect[0] < aspect[1]


@pytest.mark.parametrize("arguments, said", [
    (dict(classes=["4", "boot"]), "classes must be one of '0', '1', .*got 'boot'"),
    (dict(source="cats"), "source must be one of 'digits', 'fashion-mnist', got 'cats'"),
    (dict(split="test"), "split must be one of 'train', 'val', got 'test'"),
    (dict(size=(15, 64)), r"size must be at least \(16, 16\), got \(15, 64\)"),
    (dict(scale=(0.5, 0.4)), r"scale must be two numbers from 0.1 to 1, the lesser first, got \(0.5, 0.4\)"),
    (dict(count=0), "count must be at least 1, got 0"), (dict(seed=-1), "seed must be at least 0, got -1"),
])
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        Composites(**{"count": 3, **arguments})


def _write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_fashion_mnist(tmp_path):
    with pytest.raises(FileNotFoundError, match="no Fashion-MNIST in .*`apt-get install dataset-fashion-mnist"):
        composites.fashion_mnist(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
    raw = tmp_path / "FashionMNIST" / "raw"  # where torchvision puts them
    raw.mkdir(parents=True)
    _write_idx(raw / "t10k-images-idx3-ubyte.gz", images)
    _write_idx(raw / "t10k-labels-idx1-ubyte.gz", np.arange(7, dtype=np.uint8))
    for folder in (tmp_path, raw):
        read, labels = composites.fashion_mnist(folder, "val")
        assert np.array_equal(read, images) and labels.tolist() == list(range(7))
    assert len(Composites(2, source="fashion-mnist", split="val", data=tmp_path)[1].labels)
    whole = (raw / "t10k-images-idx3-ubyte.gz").read_bytes()
    for broken in (whole[:200], b"not gzip", gzip.compress(b"\0\0\x08"), gzip.compress(gzip.decompress(whole)[:-5])):
        (raw / "t10k-images-idx3-ubyte.gz").write_bytes(broken)
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz is not a whole file"):
            composites.fashion_mnist(tmp_path, "val")


def test_imagefolder(tmp_path):
    composites.write_imagefolder(tmp_path, 23, seed=5, size=(33, 40), val_count=10)
    train, val = (ImageFolder(tmp_path / split) for split in ("train", "val"))
    assert train.classes == val.classes and len(train.classes) == 10 and train[0][0].size == (40, 33)
    assert np.bincount(train.targets).tolist() == [3] * 3 + [2] * 7 and np.bincount(val.targets).tolist() == [1] * 10
    source = Composites(1000, (33, 40), most=1, seed=5)
    for path, label in train.samples:
        item = source[int(path[-12:-4])]
        assert item.labels.tolist() == [label]
        assert np.abs(np.asarray(Image.open(path)).astype(int) - item.image).mean() < 8  # jpeg
    with pytest.raises(ValueError, match="count must be at least the number of classes, 10, in val too, got 3"):
        composites.write_imagefolder(tmp_path / "small", 12)


def test_coco(tmp_path):
    composites.write_coco(tmp_path, 6, seed=5, size=(33, 40))
    data = CocoDetection(tmp_path / "train2017", tmp_path / "annotations" / "instances_train2017.json")
    assert len(data) == 6
    for index, item in enumerate(Composites(6, (33, 40), seed=5)):
        image, objects = data[index]
        assert np.abs(np.asarray(image).astype(int) - item.image).mean() < 8  # jpeg
        assert [one["category_id"] - 1 for one in objects] == item.labels.tolist()
        assert np.array_equal(np.stack([data.coco.annToMask(one) for one in objects]).astype(bool), item.masks)
        left, top, width, height = np.array([one["bbox"] for one in objects]).T
        assert np.array_equal(np.stack([left, top, left + width, top + height], 1), item.boxes)
    val = json.loads((tmp_path / "annotations" / "instances_val2017.json").read_text())
    assert len(val["images"]) == 2 and len(val["categories"]) == 10


def test_ade(tmp_path):
    composites.write_ade(tmp_path, 3, seed=5, size=(33, 40), val_count=2)
    for long, split, count in (("training", "train", 3), ("validation", "val", 2)):
        names = sorted(path.stem for path in (tmp_path / "images" / long).iterdir())
        assert names == sorted(path.stem for path in (tmp_path / "annotations" / long).iterdir()) and len(names) == count
        for name, item in zip(names, Composites(count, (33, 40), seed=5, split=split)):
            written = np.asarray(Image.open(tmp_path / "annotations" / long / f"{name}.png"))
            assert np.array_equal(written, item.semantic + 1)


def test_works_in_a_data_loader():
    loader = torch.utils.data.DataLoader(Composites(4), batch_size=None, num_workers=2)
    assert [item.image.shape for item in loader] == [(64, 64, 3)] * 4
