"""The original's numbers (tests/data): the whole network, and its core."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import treescan
from grootv import GrootV
from treescan.nn import TreeSSM, tree_scanning

DATA = Path(__file__).parent / "data"


def files(kind):
    found = sorted(DATA.glob(f"{kind}_*.npz"))
    assert found, f"no golden files of {kind}"
    return pytest.mark.parametrize("path", found, ids=lambda path: path.stem)


class Vectors:
    def __init__(self, path):
        self.arrays = np.load(path)

    def __getitem__(self, key):
        return torch.from_numpy(self.arrays[key])

    def keys(self, prefix):
        return [key for key in self.arrays.files if key.startswith(prefix)]

    def under(self, prefix):
        return {key[len(prefix):]: self[key] for key in self.keys(prefix)}


def assert_close(value, golden, limit, floor=0.0):
    """The limits are relative to the largest value."""
    assert value.shape == golden.shape
    assert (value - golden).abs().max() <= max(limit * golden.abs().max(), floor)


def pairs_of(tree):
    return [sorted(sorted(pair) for pair in item) for item in tree.edges.tolist()]


@files("grootv")
def test_network(path):
    vectors = Vectors(path)
    config = json.loads(str(vectors.arrays["config"]))
    training = "train" in path.stem
    model = GrootV(**config).train(training)
    state = {key: value.float() if value.is_floating_point() else value
             for key, value in vectors.under("param/").items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in state.items()}
    model.load_state_dict(state)

    trees = []
    for level in model.levels:
        for block in level.blocks:
            block.TreeSSM.register_forward_hook(lambda module, arguments, output: trees.append(output[1]))
    x = vectors["x"].float().requires_grad_()
    logits = model(x)
    assert [pairs_of(tree) for tree in trees] == [vectors[f"tree_pairs/{k}"].tolist() for k in range(len(trees))]
    assert_close(logits, vectors["logits"], 5e-6)
    logits.backward(vectors["grad_logits"])
    norms, gradients = vectors.under("gradnorm/"), vectors.under("grad/")
    assert set(norms) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad.double().norm().item() == pytest.approx(norms[name].item(), rel=1e-3, abs=1e-6), name
        if name in gradients:
            assert_close(parameter.grad, gradients[name], 1e-3, floor=1e-6)
    if training:
        for key, value in vectors.under("after/").items():
            assert_close(model.state_dict()[key].double(), value.double(), 5e-6)
        return
    assert_close(x.grad, vectors["grad_x"], 1e-3, floor=1e-6)
    with torch.no_grad():
        stages = model.forward_stages(x)
        for i, stage in enumerate(stages):
            assert_close(stage.permute(0, 2, 3, 1), vectors[f"seq_out/{i}"], 5e-6)
        assert_close(model.forward_head(stages[-1], pre_logits=True), vectors["features"], 5e-6)


@files("tree_ssm")
def test_core(path):
    """The module that is in the network's blocks, by itself."""
    vectors = Vectors(path)
    module = TreeSSM(**json.loads(str(vectors.arrays["config"])))
    module.load_state_dict(vectors.under("param/"))
    x = vectors["x"].requires_grad_()
    y, tree = module(x, return_tree=True)
    assert pairs_of(tree) == vectors["tree_pairs/0"].tolist()
    assert_close(y, vectors["y"], 1e-5)
    y.backward(vectors["grad_y"])
    assert_close(x.grad, vectors["grad_x"], 1e-4)
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, vectors[f"grad/{name}"], 1e-4)


@files("tree_scanning")
def test_scanning(path):
    vectors = Vectors(path)
    inputs = {name: vectors[name].requires_grad_()
              for name in ("x", "x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")}
    norms = {name: torch.nn.LayerNorm(vectors["x"].shape[1]) for name in ("out_norm", "h_norm")}
    for name, norm in norms.items():
        for part in ("weight", "bias"):
            key, = (key for key in (f"{name}.{part}", f"{name}_{part}") if key in vectors.arrays)
            getattr(norm, part).data = vectors[key]
            inputs[key] = getattr(norm, part)
    assert pairs_of(treescan.build_tree(vectors["x"])) == vectors["tree_pairs/0"].tolist()
    y = tree_scanning(**{name: value for name, value in inputs.items() if "norm" not in name}, **norms)
    assert_close(y, vectors["y"], 1e-5)
    y.backward(vectors["grad_y"])
    for name, value in inputs.items():
        assert_close(value.grad, vectors[f"grad/{name}"], 1e-4)
