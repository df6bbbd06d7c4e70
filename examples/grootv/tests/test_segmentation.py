"""Segmentation: sizes and costs of models, ADE20K's format and its pitfalls, measures by hand, a short training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from transformers import UperNetForSemanticSegmentation

from grootv.composites import write_ade
from grootv.config import load_config
from grootv.costs import count_macs
from grootv.engine import train
from grootv.segmentation import (AdePictures, RandomScale, RandomVariedCrop, Segmentation, measures, predict,
                                 training_transform, upernet)

from training import losses, run

CONFIGS = Path(__file__).parents[1] / "configs" / "segmentation"
BACKBONE = dict(channels=16, depths=(1, 1, 1, 1), drop_path_rate=0.0)
SMALL = ["model.channels=16", "model.depths=[1,1,1,1]", "model.drop_path_rate=0", "shortest=64", "longest=128",
         "crop=64", "factors=[0.8,1.25]", "hidden=32", "auxiliary=16", "workers=0", "device=cpu"]


@pytest.mark.parametrize("name, parameters, gmacs, paper", [
    ("grootv_tiny", 59_745_676, 946, 941), ("grootv_small", 81_712_748, 1026, 1019),
    ("grootv_base", 122_018_860, None, None)])
def test_parameters_and_multiply_adds_with_150_classes(name, parameters, gmacs, paper):
    with torch.device("meta"):
        model = upernet(name).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if gmacs:
        counted = count_macs(model, (512, 2048))["total"] / 1e9
        assert counted == pytest.approx(gmacs, rel=0.01) and counted == pytest.approx(paper, rel=0.01)


def test_save_and_load(tmp_path):
    model = upernet(classes=5, hidden=16, auxiliary=8, trees="stage", **BACKBONE).eval()
    model.save_pretrained(tmp_path)
    loaded = UperNetForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert loaded.backbone.grootv.levels[0].trees == "stage"
    x = torch.randn(1, 3, 45, 70)
    with torch.no_grad():
        assert torch.equal(model(x).logits, loaded(x).logits)


def test_checkpointed_gradients_are_the_same():
    kept, anew = (upernet(classes=3, hidden=16, auxiliary=8, grad_checkpointing=checkpointing, **BACKBONE)
                  for checkpointing in (False, True))
    anew.load_state_dict(kept.state_dict())
    x, labels = torch.randn(2, 3, 40, 33), torch.randint(3, (2, 40, 33))
    for model in (kept, anew):
        model(x, labels=labels).loss.backward()
    assert anew.backbone.grootv.levels[0].grad_checkpointing
    for one, other in zip(kept.parameters(), anew.parameters()):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("options, match", [
    (dict(name="resnet18"), "name must be one of grootv_tiny.*, got 'resnet18'"),
    (dict(classes=256), r"classes must lie in \[1, 255\]"),
    (dict(chanels=16), "arguments are channels, d_state.*, got chanels"),
    (dict(num_classes=16), "got num_classes"), (dict(topology="cross"), "topology must be one of")])
def test_models_that_cannot_be(options, match):
    with pytest.raises(ValueError, match=match):
        upernet(**options)


# Data.


@pytest.fixture
def ade(tmp_path):
    """One picture of 40 x 60 in each split with three classes, of which some pixels have none."""
    labels = np.zeros((40, 60), np.uint8)
    labels[10:], labels[30:] = 1, 3
    for split in ("training", "validation"):
        save(tmp_path, np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8), labels, split)
    return tmp_path


def save(folder, picture, labels, split="validation"):
    for kind, name, pixels in (("images", "x.jpg", picture), ("annotations", "x.png", labels)):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / split / name)


def test_label_0_is_ignored_and_the_others_move_down(ade):
    image, labels, path = AdePictures(ade, "validation", 3)[0]
    assert image.shape == (3, 40, 60) and image.dtype == torch.uint8 and path.endswith("x.jpg")
    assert labels.dtype == torch.int64
    assert labels[:, 0].tolist() == [255] * 10 + [0] * 20 + [2] * 10


def test_a_label_map_with_a_palette(ade):
    path = ade / "annotations" / "validation" / "x.png"
    with Image.open(path) as grey:
        palette = Image.fromarray(np.array(grey))
    palette.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 9, 9, 9])
    assert palette.mode == "P"
    palette.save(path)
    assert AdePictures(ade, "validation", 3)[0][1][:, 0].tolist() == [255] * 10 + [0] * 20 + [2] * 10


def test_what_is_wrong_with_the_data_has_a_message(ade):
    with pytest.raises(ValueError, match="split must be one of .*, got 'val'"):
        AdePictures(ade, "val", 3)
    with pytest.raises(ValueError, match="has labels from 0 to 3; expected 0 .none. to 2"):
        AdePictures(ade, "validation", 2)[0]
    picture, labels = np.zeros((40, 60, 3), np.uint8), np.ones((40, 60), np.uint8)
    save(ade, picture, labels[:30])
    with pytest.raises(ValueError, match=r"x.png has 30 x 60 pixels \(height x width\), but its picture 40 x 60"):
        AdePictures(ade, "validation", 3)[0]
    save(ade, picture, picture)
    with pytest.raises(ValueError, match="x.png must have one channel, of class numbers; it has 3"):
        AdePictures(ade, "validation", 3)[0]
    (ade / "images" / "validation" / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot read the picture .*x.jpg"):
        AdePictures(ade, "validation", 3)[0]
    (ade / "annotations" / "validation" / "x.png").unlink()
    with pytest.raises(FileNotFoundError, match="x.jpg has no label map .*x.png"):
        AdePictures(ade, "validation", 3)
    (ade / "images" / "validation" / "x.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        AdePictures(ade, "validation", 3)
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        AdePictures(ade / "nowhere", "training", 3)


def test_training_sees_crops_of_one_size(ade):
    image, labels, _ = AdePictures(ade, "training", 3, training_transform(64, 48, 200, (0.5, 2.0)))[0]
    assert image.shape == (3, 64, 64) and image.dtype == torch.float32 and labels.shape == (64, 64)
    assert set(labels.unique().tolist()) <= {0, 2, 255}


def test_random_scale_keeps_the_shape_and_its_range():
    image = tv_tensors.Image(torch.zeros(3, 41, 60, dtype=torch.uint8))
    labels = tv_tensors.Mask(torch.zeros(41, 60, dtype=torch.int64))
    heights = []
    for _ in range(50):
        scaled, scaled_labels = RandomScale(32, 1000, (0.5, 2.0))(image, labels)
        assert scaled.shape[1:] == scaled_labels.shape
        assert scaled.shape[2] == pytest.approx(scaled.shape[1] * 60 / 41, abs=1.5)
        heights.append(scaled.shape[1])
    assert min(heights) < 24 and max(heights) > 50 and 16 <= min(heights) and max(heights) <= 64


def test_crops_avoid_one_class_alone_and_pad_what_is_small():
    labels = torch.zeros(40, 80, dtype=torch.int64)
    labels[:, 40:] = 1
    image = tv_tensors.Image(labels.expand(3, 40, 80).to(torch.uint8))
    shares = []
    for _ in range(20):
        cropped, mask = RandomVariedCrop(32)(image, tv_tensors.Mask(labels))
        assert torch.equal(cropped[0], mask)
        shares.append(float((mask == 1).float().mean()))
    # One crop in three is varied enough; ten draws miss them all once in 60 crops.
    assert np.mean([0.25 <= share <= 0.75 for share in shares]) > 0.8
    cropped, mask = RandomVariedCrop(64)(image, tv_tensors.Mask(labels))
    assert cropped.shape == (3, 64, 64) and (mask == 255).sum() == 24 * 64
    assert cropped[:, mask == 255].unique(dim=1).T.tolist() == [[124, 116, 104]]


# The loss and the measures.


def task(*overrides):
    return Segmentation(load_config(CONFIGS / "upernet_grootv_tiny.yaml", [*SMALL, "classes=3", *overrides]))


def test_the_loss_is_the_mean_over_pieces_of_the_batch():
    model = task().model().eval()
    pictures, labels = torch.randn(3, 3, 40, 40), torch.randint(3, (3, 40, 40))
    labels[0, :30], labels[2, 5:] = 255, 255
    whole = task().loss(model, [pictures, labels])["cross_entropy"]
    pieces = [task().loss(model, [pictures[i:i + 1], labels[i:i + 1]])["cross_entropy"] for i in range(3)]
    torch.testing.assert_close(whole, sum(pieces) / 3)


def test_a_batch_without_labels_teaches_nothing():
    model = task().model()
    loss = task().loss(model, [torch.randn(2, 3, 40, 40), torch.full((2, 40, 40), 255)])["cross_entropy"]
    loss.backward()
    assert loss == 0 and all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_measures_by_hand():
    # Class 2 neither occurs nor is predicted; class 3 is predicted but doesn't occur.
    confusion = torch.tensor([[6, 2, 0, 2], [1, 9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = measures(confusion)
    assert found["mIoU"] == pytest.approx((6 / 11 + 9 / 12 + 0) / 3)
    assert found["mAcc"] == pytest.approx((6 / 10 + 9 / 10) / 2)
    assert found["aAcc"] == pytest.approx(15 / 20)


class Reddest(torch.nn.Module):
    """Says class 1 where the picture is red, class 0 elsewhere, at a quarter of the resolution; remembers sizes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, pixels):
        self.sizes.append(tuple(pixels.shape[2:]))
        red = torch.nn.functional.avg_pool2d(pixels[:, :1], 4, ceil_mode=True)
        logits = torch.nn.functional.interpolate(torch.cat([-red, red], 1), pixels.shape[2:], mode="bilinear")
        return SimpleNamespace(logits=logits)


def test_predictions_at_several_scales_and_mirrored():
    image = torch.zeros(3, 48, 75, dtype=torch.uint8)
    image[0, :, :25] = 255
    model = Reddest()
    single = predict(model, image, 48, 100)
    several = predict(model, image, 48, 100, scales=(0.75, 1.0, 2.0), flip=True)
    assert model.sizes == [(48, 75), *[(36, 56)] * 2, *[(48, 75)] * 2, *[(96, 150)] * 2]
    for probabilities in (single, several):
        assert probabilities.shape == (2, 48, 75) and torch.allclose(probabilities.sum(0), torch.ones(48, 75))
        assert probabilities[1, :, :22].min() > 0.5 > probabilities[1, :, 29:].max()
    mirrored = predict(model, image.flip(2), 48, 100, flip=True).flip(2)
    torch.testing.assert_close(predict(model, image, 48, 100, flip=True), mirrored)


def test_the_longer_side_has_its_limit_and_small_pictures_a_message():
    model = Reddest()
    predict(model, torch.zeros(3, 30, 90, dtype=torch.uint8), 64, 96)
    assert model.sizes == [(32, 96)]
    with pytest.raises(ValueError, match=r"x.jpg is too small: its 20 x 90 pixels .* are scaled to 21 x 96"):
        predict(model, torch.zeros(3, 20, 90, dtype=torch.uint8), 64, 96, name="x.jpg")


# Configurations.


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_the_rows_of_the_papers_table(name):
    config = load_config(CONFIGS / f"upernet_grootv_{name}.yaml")
    assert (config.iterations, config.batch_size, config.crop, config.classes) == (160_000, 16, 512, 150)
    assert (config.optimizer.lr, config.optimizer.lr_batch_size) == (6e-5, None)
    assert (config.schedule.name, config.schedule.warmup) == ("poly", 1500)
    with torch.device("meta"):
        assert Segmentation(config).model().config.num_labels == 150


def test_several_scales_are_asked_for_on_the_command_line():
    config = load_config(CONFIGS / "upernet_grootv_tiny.yaml", ["scales=[0.5,0.75,1.0,1.25,1.5,1.75]", "flip=true"])
    assert config.scales == [0.5, 0.75, 1, 1.25, 1.5, 1.75] and config.flip


@pytest.mark.parametrize("override, match", [
    ("crop=31", "crop must be at least 32"), ("longest=100", "longest no less than shortest, got 512, 100"),
    ("factors=[2,1]", "the smaller one first, got"), ("scales=[]", "scales must be")])
def test_sizes_that_cannot_be(override, match):
    with pytest.raises(ValueError, match=match):
        load_config(CONFIGS / "upernet_grootv_tiny.yaml", [override])


# A short training, as a user would start it.


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    write_ade(folder / "ade", 300, val_count=21, classes=("0", "1"))
    return folder


@pytest.fixture(scope="module")
def trained(digits):
    config = load_config(CONFIGS / "upernet_grootv_tiny.yaml", [
        *SMALL, f"data={digits}/ade", f"output={digits}/run", "classes=3", "iterations=200", "batch_size=8",
        "optimizer.lr=5e-3", "optimizer.clip_grad=5", "schedule.name=cosine", "schedule.warmup=20",
        "evaluate_every=1000", "checkpoint_every=1000", "scales=[1.0,1.5]", "flip=true"])
    return config, train(Segmentation(config), config)


def test_it_learns_more_than_the_majority_class(trained):
    config, results = trained
    labels = torch.cat([labels.flatten() for _, labels, _ in AdePictures(config.data, "validation", 3)])
    majority = torch.zeros(3, 3)
    majority[:, 0] = torch.bincount(labels, minlength=3)
    assert results["mIoU"] > measures(majority)["mIoU"] + 0.03


def test_a_checkpoint_evaluates_alike_in_one_process_and_in_two(trained):
    config, results = trained
    expected = [f"{name} {value:.4f}" for name, value in results.items()]
    folder = Path(config.output)
    for processes in (0, 2):
        ran = run("evaluate", folder / "config.yaml", f"checkpoint={folder}/checkpoint.pt", processes=processes,
                  timeout=500)
        assert [" ".join(line.split()) for line in ran.stdout.splitlines()] == expected, ran.stderr


def test_two_processes_train_as_one(digits, tmp_path):
    found = []
    for processes in (0, 2):
        output = tmp_path / str(processes)
        ran = run("train", CONFIGS / "upernet_grootv_tiny.yaml", *SMALL, f"data={digits}/ade", f"output={output}",
                  "classes=3", "iterations=3", "batch_size=4", "optimizer.lr=1e-3", "schedule.warmup=1", "log_every=1",
                  processes=processes, timeout=500)
        assert ran.returncode == 0, ran.stderr
        found.append(losses(output))
    assert len(found[0]) == 3 and found[0] == pytest.approx(found[1], rel=1e-4)
