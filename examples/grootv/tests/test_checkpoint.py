"""The original's checkpoints: every form they come in, and one clear message for what doesn't fit."""

import sys
import types

import numpy as np
import pytest
import timm
import torch

from grootv import GrootV, load_original

SMALL = dict(channels=8, depths=(1, 2, 1, 1), num_classes=5)


def small(seed=0, **options):
    torch.manual_seed(seed)
    return GrootV(**SMALL | options).eval()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def save(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "checkpoint.pth")
        return tmp_path / "checkpoint.pth"
    return write


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"model": state},
    lambda state: {"state_dict": {"module." + key: value for key, value in state.items()}, "epoch": 3},
    lambda state: {"model": state, "model_ema": {}, "max_accuracy": np.float64(83.4), "lr_scheduler": {"step": 3}},
])
def test_containers(save, wrap):
    state = small().state_dict()
    path = save(wrap(state))
    model = load_original(str(path))
    assert same(model.state_dict(), state) and not model.training
    other = small(seed=1).train()
    assert load_original(path, other) is other and other.training
    assert same(other.state_dict(), state)


def test_averaged_weights(save):
    plain, averaged = small().state_dict(), small(seed=1).state_dict()
    path = save({"model": plain, "model_ema": averaged})
    assert same(load_original(path).state_dict(), plain)
    assert same(load_original(path, entry="model_ema").state_dict(), averaged)
    assert same(load_original(save({"epoch": 1, "model_ema": averaged})).state_dict(), averaged)
    with pytest.raises(ValueError, match="has no entry 'ema', only 'epoch', 'model_ema'"):
        load_original(path, entry="ema")


def test_nothing_in_the_file_is_executed(save, tmp_path, monkeypatch):
    """A trainer's configuration object is skipped, whether its class can be imported or not; so is a trap."""
    module = types.ModuleType("trainer_config")
    exec("class Node(dict):\n    pass\n"
         "class Trap:\n    def __reduce__(self):\n        return open, (TARGET, 'w')\n", module.__dict__)
    module.TARGET = str(tmp_path / "executed")
    for name in ("Node", "Trap"):
        getattr(module, name).__module__ = "trainer_config"
    monkeypatch.setitem(sys.modules, "trainer_config", module)
    config = module.Node(model=module.Node(depths=[2, 2]))
    config.frozen = True
    state = small().state_dict()
    path = save({"model": state, "config": config, "trap": module.Trap()})
    monkeypatch.delitem(sys.modules, "trainer_config")
    assert same(load_original(path).state_dict(), state)
    assert not (tmp_path / "executed").exists()


def test_what_the_model_was_made_with_is_found(save):
    options = dict(layer_scale=0.5, mlp_ratio=3.0, d_state=2, in_chans=1)
    wanted = small(**options)
    found = load_original(save({"model": wanted.state_dict()}))
    x = torch.randn(1, 1, 40, 33)
    assert torch.equal(found(x), wanted(x))

def test_detectors(save):
    backbone = small()
    x = torch.randn(1, 3, 40, 33)
    wanted = backbone.forward_features(x)
    backbone.drop_head()
    state = {"backbone." + key: value for key, value in backbone.state_dict().items()}
    path = save({"state_dict": state | {"neck.lateral.weight": torch.zeros(2), "roi_head.fc.weight": torch.zeros(2)}})
    model = load_original(path)
    assert model.num_classes == 0 and torch.equal(model.forward_features(x), wanted)
    with pytest.raises(ValueError, match="classifies 0 classes, the model 5"):
        load_original(path, small(seed=1))


def test_a_backbone_takes_a_classifier_without_its_head(save):
    whole = small()
    path = save({"model": whole.state_dict()})
    features = timm.create_model("grootv_tiny", features_only=True, **SMALL).eval()
    load_original(path, features)
    x = torch.randn(1, 3, 40, 33)
    assert all(torch.equal(a, b) for a, b in zip(features(x), whole.forward_stages(x), strict=True))
    pooled = small(seed=1, num_classes=0)
    load_original(path, pooled)
    assert torch.equal(whole.head(pooled(x)), whole(x))


@pytest.mark.parametrize("options, message", [
    (dict(channels=16), r"is of a GrootV with channels=8, the model has channels=16$"),
    (dict(depths=(1, 1, 1, 1)), r"with depths=\(1, 2, 1, 1\), the model has depths=\(1, 1, 1, 1\)"),
    (dict(in_chans=4), "with in_chans=3, the model has in_chans=4"),
    (dict(d_state=2), "with d_state=1, the model has d_state=2"),
    (dict(layer_scale=1.0), "with layer_scale=False, the model has layer_scale=True"),
    (dict(num_classes=7), r"classifies 5 classes, the model 7: load it into one with num_classes=5, then call its "
                          r"reset_classifier\(7\)"),
    (dict(mlp_ratio=2.0), r"has levels.0.blocks.0.mlp.fc1.weight of shape \(32, 8\), the model \(16, 8\)"),
])
def test_other_sizes(save, options, message):
    before = (model := small(**options)).state_dict()
    before = {key: value.clone() for key, value in before.items()}
    with pytest.raises(ValueError, match=message):
        load_original(save(small(seed=1).state_dict()), model)
    assert same(model.state_dict(), before)


def test_the_message_names_the_published_model(save):
    with torch.device("meta"):
        state = timm.create_model("grootv_base").state_dict()
    state = {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}
    with torch.device("meta"):
        tiny = timm.create_model("grootv_tiny")
    with pytest.raises(ValueError, match="with channels=128, the model has channels=80: the file is a grootv_base"):
        load_original(save(state), tiny)


@pytest.mark.parametrize("content, message", [
    (timm.create_model("resnet18").state_dict(), "holds another model than GrootV: its weights are conv1.weight"),
    ([1, 2], "must hold a state dict, got list"),
    ({"optimizer": {"lr": 1}, "epoch": 3},
     "must hold a state dict, or one under model, .*; it has the entries 'optimizer', 'epoch'"),
    ({}, "must hold a state dict"),
    ({0: torch.zeros(1)}, "must hold a state dict"),
    ({"patch_embed.conv1.weight": torch.zeros(8, 3, 3, 3)}, "holds another model than GrootV"),
])
def test_other_contents(save, content, message):
    with pytest.raises(ValueError, match=message):
        load_original(save(content))


def test_missing_and_spoilt_weights(save):
    state = small().state_dict()
    lacking = {key: value for key, value in state.items() if "levels.2.norm" not in key}
    with pytest.raises(ValueError, match="it lacks levels.2.norm.0.bias, .* and it has besides extra"):
        load_original(save(lacking | {"extra.weight": torch.zeros(1)}))
    state["levels.0.norm.0.weight"][2] = float("nan")
    with pytest.raises(ValueError, match="values in levels.0.norm.0.weight that aren't finite"):
        load_original(save(state))


def test_files(save, tmp_path):
    path = save(small().state_dict())
    whole = path.read_bytes()
    for part in (whole[:len(whole) // 2], b"", b"<html>404</html>", b"\x80\x02}q\x00."):
        path.write_bytes(part)
        with pytest.raises(ValueError, match="pth (isn't a checkpoint that torch can read|must hold a state dict)"):
            load_original(path)
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere.pth"):
        load_original(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="path must be a file, got the folder"):
        load_original(tmp_path)
    with pytest.raises(ValueError, match="model must be a GrootV or hold one, got Linear with 0"):
        load_original(save(small().state_dict()), torch.nn.Linear(2, 2))


def test_old_file_format(tmp_path):
    state = small().state_dict()
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_original(tmp_path / "old.pth").state_dict(), state)
