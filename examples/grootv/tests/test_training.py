"""The engine and classification: above chance, every picture counted once, and one clear message for what is wrong."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from training import PACKAGE, TINY, configuration, losses, run, write_digits

from grootv.batches import BatchKeys, SeededItems
from grootv.classification import Augmentation, Classification
from grootv.config import Optimizer, Schedule, load_config
from grootv.engine import evaluate, make_optimizer, train


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), 8, 3)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A run of two iterations, for what only needs its checkpoint."""
    config = configuration(digits, tmp_path_factory.mktemp("runs") / "run", epochs=None, iterations=2)
    train(Classification(config), config)
    return config


def test_learns_digits(tmp_path):
    """Far above the chance of 0.1; the same task at its start is at chance."""
    data = write_digits(tmp_path / "digits", 60, 20)
    config = configuration(data, tmp_path / "run", epochs=4, batch_size=40, optimizer=Optimizer(lr=6e-3, lr_batch_size=None))
    assert train(Classification(config), config)["top1"] > 0.75
    found = losses(tmp_path / "run")
    assert abs(found[0] - math.log(10)) < 0.1 and found[-1] < 1


# Batches.

def keys_of_steps(count: int, start: int = 0) -> list[list[list[tuple[int, int]]]]:
    """The keys of the pieces of each step, for 23 items in batches of 10: two steps in an epoch."""
    pieces = [list(BatchKeys(23, 10, range(piece, piece + 1), count, 3, start, 6)) for piece in range(count)]
    return [list(step) for step in zip(*pieces)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_item_at_most_once_per_epoch_in_however_many_pieces(count):
    whole = [step[0] for step in keys_of_steps(1)]
    for step, batch in zip(keys_of_steps(count), whole):
        assert sorted(sum(step, [])) == sorted(batch)
        # Mixup's pairs are the same, of pieces that have pairs.
        assert count == 2 or {frozenset(pair) for piece in step for pair in zip(piece, reversed(piece))} == {
            frozenset(pair) for pair in zip(batch, reversed(batch))}
    for epoch in range(3):
        keys = whole[2 * epoch] + whole[2 * epoch + 1]
        assert {key[0] for key in keys} == {epoch} and len(set(keys)) == 20
    assert [index for _, index in whole[0]] != [index for _, index in whole[2]]
    assert keys_of_steps(count, start=3) == keys_of_steps(count)[3:]


def test_items_depend_on_seed_epoch_and_index_only():
    class Noise(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return index, np.random.rand(), torch.rand(1).item()

    torch.manual_seed(5)
    wanted = torch.rand(2)
    torch.manual_seed(5)
    keys = ((0, 0, 1), (0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2))
    items = [SeededItems(Noise(), seed)[epoch, index] for seed, epoch, index in keys]
    assert items[0] == items[1] and len(set(items)) == 4
    assert torch.equal(torch.rand(2), wanted)


# Evaluation.

def test_every_picture_counts_once(digits, trained, tmp_path):
    """30 pictures over two processes in batches of 4, where both have as many; and 29, where one repeats its last."""
    data = tmp_path / "digits"
    (data / "train").parent.mkdir()
    (data / "train").symlink_to(digits / "train")
    (data / "val").mkdir()
    for folder in (digits / "val").iterdir():
        (data / "val" / folder.name).mkdir()
        for picture in sorted(folder.iterdir())[:2 if folder.name == "digit9" else 3]:
            (data / "val" / folder.name / picture.name).symlink_to(picture)
    checkpoint = str(Path(trained.output, "checkpoint.pt"))
    config = replace(trained, data=str(data), checkpoint=checkpoint, evaluation_batch_size=4)
    wanted = evaluate(Classification(config), config)
    assert {round(29 * value, 4) % 1 for value in wanted.values()} == {0}  # so many 29ths
    file = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.structured(config), file)
    shared = run("evaluate", file, processes=2)
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout.split() == [text for name, value in wanted.items() for text in (name, f"{value:.4f}")]


def test_a_start_from_a_checkpoint_keeps_all_but_a_classifier_of_other_classes(trained, tmp_path):
    checkpoint = str(Path(trained.output, "checkpoint.pt"))
    data = write_digits(tmp_path / "digits", 8, 3, classes=6)
    config = configuration(data, tmp_path / "run", epochs=None, iterations=1, checkpoint=checkpoint, weights="model",
                           optimizer=Optimizer(lr=0.0), schedule=Schedule(warmup_lr=0.0, min_lr=0.0))
    train(Classification(config), config)
    before, after = (torch.load(Path(output, "checkpoint.pt"))["model"] for output in (trained.output, config.output))
    assert after["head.weight"].shape[0] == 6
    assert all(torch.equal(after[name], value) for name, value in before.items()
               if not name.startswith("head.") and "running" not in name and "tracked" not in name)


def test_original_checkpoints_are_evaluated(trained, tmp_path):
    weights = torch.load(Path(trained.output, "checkpoint.pt"))["model"]
    torch.save({"model": weights, "config": replace}, tmp_path / "original.pth")  # beside weights, things to be left alone
    ours, original = (replace(trained, checkpoint=str(path), weights="model")
                      for path in (Path(trained.output, "checkpoint.pt"), tmp_path / "original.pth"))
    assert evaluate(Classification(original), original) == evaluate(Classification(ours), ours)


# Configurations.

def test_no_decay_for_norms_biases_and_state_space(trained):
    model = Classification(trained).model()
    optimizer = make_optimizer(model, trained)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    plain = {names[id(parameter)] for group in optimizer.param_groups if group["weight_decay"] == 0
             for parameter in group["params"]}
    assert all(name in plain for name in names.values() if name.endswith(("bias", "A_logs", "Ds")) or "norm" in name)
    assert not any(name.endswith(("proj.weight", "proj_weight", "conv2d.weight", "head.weight")) for name in plain)


RECIPES = sorted(path for path in (PACKAGE / "configs" / "classification").glob("grootv_*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_the_published_ones(path):
    config = load_config(path, ["data=/d", "output=/o"])
    assert config.model["name"] == path.stem
    assert (config.epochs, config.schedule.warmup, config.schedule.name) == (300, 20, "cosine") or "large" in path.stem
    assert config.optimizer.lr * config.batch_size / config.optimizer.lr_batch_size == pytest.approx(1e-3)
    assert (config.optimizer.weight_decay, config.optimizer.clip_grad, config.ema) == (0.05, 5.0, 0.9999)
    augmentation = config.augmentation
    assert (augmentation.mixup, augmentation.cutmix) == (0.8, 1.0)
    assert (augmentation.label_smoothing, augmentation.random_erasing) == (0.1, 0.25)
    drop_path = {"grootv_tiny": 0.1, "grootv_small": 0.3, "grootv_base": 0.5, "grootv_large": 0.5}
    assert config.model["drop_path_rate"] == drop_path[path.stem]


def test_a_configuration_is_files_over_defaults_and_strings_over_both(tmp_path):
    (tmp_path / "base.yaml").write_text("task: classification\nbatch_size: 4\nmodel: {name: grootv_small, d_state: 2}\n")
    (tmp_path / "own.yaml").write_text("base: base.yaml\nmodel: {name: grootv_base}\n")
    config = load_config(tmp_path / "own.yaml", ["optimizer.lr=0.5", "model.depths=[1,2]"])
    assert (config.batch_size, config.optimizer.lr, config.seed) == (4, 0.5, 0)
    assert config.model == {"name": "grootv_base", "d_state": 2, "depths": [1, 2]}


@pytest.mark.parametrize("text, overrides, message", [
    ("task: classification", ["learning_rate=1"], "learning_rate: unknown key; the keys here are task, model,"),
    ("task: classification", ["optimizer.rate=1"], "optimizer.rate: unknown key; the keys here are name, lr,"),
    ("task: classification", ["batch_size=many"], "batch_size: Value 'many'"),
    ("task: classification", ["batch_size"], "expected key=value, got 'batch_size'"),
    ("task: classification", ["batch_size=0"], "batch_size must be at least 1, got 0"),
    ("task: classification", ["amp=half"], "amp must be one of none, float16, bfloat16, got 'half'"),
    ("task: classification", ["model={name: null}"], "model.name is missing"),
    ("task: colouring", [], "task must be one of classification, detection, segmentation, got 'colouring'"),
    ("epochs: 3", [], "has no key task"),
    ("- 3", [], "must be a mapping of keys to values"),
    ("task: {", [], "is not YAML"),
    ("base: nowhere.yaml", [], "there is no configuration .*nowhere.yaml"),
])
def test_wrong_configurations(tmp_path, text, overrides, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_config(tmp_path / "config.yaml", overrides)


# What goes wrong.

def remove(*names):
    return lambda data: [path.unlink() for name in names for path in data.glob(name)]


def spoil(content: bytes):
    return lambda data: (data / "train" / "digit3" / "002.png").write_bytes(content)


@pytest.mark.parametrize("spoiling, message", [
    (lambda data: (data / "train").rename(data / "training"), "there is no folder .*train: expected .*train/CLASS"),
    (lambda data: (data / "val").rename(data / "test"), "there is no folder .*val: expected"),
    (lambda data: [path.rename(data / "train" / f"{path.parent.name}{path.name}") for path in (data / "train").glob("*/*")]
     and [path.rmdir() for path in (data / "train").iterdir() if path.is_dir()], "train has no class folders: expected"),
    (remove("train/digit4/*"), "train: Found no valid file for the classes digit4"),
    (lambda data: (data / "val" / "digit4").rename(data / "val" / "four"),
     "train and val of .* must have the same class folders, but only one of them has 'digit4' and 1 more"),
    (spoil(b"no picture"), "cannot read the picture .*digit3/002.png: it is not in a known format"),
    (spoil(b""), "cannot read the picture .*digit3/002.png: it is not in a known format"),
])
def test_wrong_data(tmp_path, spoiling, message):
    data = write_digits(tmp_path / "digits", 4, 1)
    spoiling(data)
    config = configuration(data, tmp_path / "run", epochs=1, batch_size=20)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(Classification(config), config)


def test_a_broken_picture_in_a_worker_stops_the_command_with_one_line(tmp_path):
    data = write_digits(tmp_path / "digits", 4, 1)
    broken = data / "train" / "digit3" / "002.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(broken)
    broken.write_bytes(broken.read_bytes()[:9000])
    config = configuration(data, tmp_path / "run", epochs=1, batch_size=20, workers=1)
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    ran = run("train", tmp_path / "config.yaml")
    assert ran.returncode == 1
    lines = ran.stderr.strip().splitlines()
    assert lines[-1].startswith(f"error: cannot read the picture {broken}: ") and "Traceback" not in ran.stderr


@pytest.mark.parametrize("changes, message", [
    (dict(data=None), "data is missing: give data="),
    (dict(data="/nowhere"), "there is no folder /nowhere/train"),
    (dict(output=None), "output is missing"),
    (dict(epochs=None), "either epochs or iterations, got epochs None and iterations None"),
    (dict(iterations=3), "either epochs or iterations, got epochs 2 and iterations 3"),
    (dict(batch_size=100), "the training data have 80 items, fewer than one batch of 100"),
    (dict(batch_size=10, accumulate=4), "multiple of processes times accumulate, 1 x 4, got 10"),
    (dict(batch_size=3, augmentation=Augmentation(auto_augment=None)), "mixup pairs pictures, so .* must be even, got 3"),
    (dict(model=TINY | {"num_classes": 7}), "model.num_classes is 7, but .* has 10 class folders"),
    (dict(model={"name": "groot_tiny"}), "cannot make the model .*groot_tiny"),
    (dict(model=TINY | {"width": 7}), "cannot make the model .*width"),
    (dict(optimizer=Optimizer(lr=1e30)), "the loss is not finite before iteration"),
    (dict(optimizer=Optimizer(name="adamax2")), "cannot make the optimizer 'adamax2'"),
    (dict(schedule=Schedule(name="cosinus")), "cosinus"),
    (dict(picture_size=16), "at least 32 pixels"),
    (dict(checkpoint="/nowhere.pt"), "there is no checkpoint /nowhere.pt"),
])
def test_wrong_settings(digits, tmp_path, changes, message):
    config = replace(configuration(digits, tmp_path / "run"), **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(Classification(config), config)


def test_a_folder_of_another_run(trained):
    with pytest.raises(ValueError, match="output .* holds another run already: resume=true goes on with it"):
        train(Classification(trained), trained)


@pytest.mark.parametrize("changes, message", [
    (dict(batch_size=8), "cannot resume .*: batch_size was 16 and is 8 now"),
    (dict(iterations=5), "cannot resume .*: iterations was 2 and is 5 now"),
    (dict(model=TINY | {"channels": 16}), "cannot resume .*: model was"),
    (dict(seed=1), "cannot resume .*: seed was 0 and is 1 now"),
])
def test_a_run_goes_on_as_it_began(trained, changes, message):
    config = replace(trained, resume=True, **changes)
    with pytest.raises(ValueError, match=message):
        train(Classification(config), config)


def test_a_run_goes_on_with_the_same_data(trained, tmp_path):
    config = replace(trained, resume=True, data=str(write_digits(tmp_path, 9, 3)))
    with pytest.raises(ValueError, match="the training data had 80 items and have 90 now"):
        train(Classification(config), config)


def test_checkpoints_of_something_else(trained, tmp_path):
    own = Path(trained.output, "checkpoint.pt")
    state = torch.load(own)
    detector = state | {"config": state["config"] | {"task": "detection"}}
    files = {"broken": own.read_bytes()[:5000], "text": b"hello"}
    for name, content in files.items():
        (tmp_path / f"{name}.pt").write_bytes(content)
    for name, content in {"detector": detector, "tensor": torch.zeros(3), "empty": {}}.items():
        torch.save(content, tmp_path / f"{name}.pt")
    for name, message in {"broken": "broken.pt isn't a checkpoint", "text": "text.pt isn't a checkpoint",
                          "detector": "is of a detection run, but the task here is classification",
                          "tensor": "tensor.pt must hold a state dict", "empty": "empty.pt must hold a state dict"}.items():
        config = replace(trained, checkpoint=str(tmp_path / f"{name}.pt"))
        with pytest.raises(ValueError, match=message):
            evaluate(Classification(config), config)
    config = replace(trained, checkpoint=str(own), model=TINY | {"depths": [1, 1, 2, 1]})
    with pytest.raises(ValueError, match=r"holds the weights of another model: .*\[1, 1, 1, 1\].*\[1, 1, 2, 1\].* Missing key"):
        evaluate(Classification(config), config)


def test_commands_end_with_one_line(digits, tmp_path):
    (tmp_path / "config.yaml").write_text("task: classification\nepochs: 1\n")
    ran = run("train", tmp_path / "config.yaml", "data=/nowhere", f"output={tmp_path / 'run'}", "device=cpu")
    assert (ran.returncode, ran.stderr.strip().splitlines()[-1]) == (1, "error: there is no folder /nowhere/train: expected "
                                                                     "/nowhere/train/CLASS/*.jpg and /nowhere/val/CLASS/*.jpg")
    assert "Traceback" not in ran.stderr and not (tmp_path / "run").exists()


# What only needs to run.

@pytest.mark.parametrize("changes", [
    dict(amp="bfloat16"), dict(amp="float16"), dict(ema=None),
    pytest.param(dict(compile=True), marks=pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")),
], ids=lambda changes: "-".join(f"{key}-{value}" for key, value in changes.items()))
def test_options_train(digits, tmp_path, changes):
    config = configuration(digits, tmp_path / "run", epochs=None, iterations=3, **changes)
    train(Classification(config), config)
    plain = configuration(digits, tmp_path / "plain", epochs=None, iterations=3)
    train(Classification(plain), plain)
    torch.testing.assert_close(losses(tmp_path / "run"), losses(tmp_path / "plain"), atol=0.05, rtol=0)
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert row["items_per_second"] > 0 and list((tmp_path / "run").glob("events*"))
