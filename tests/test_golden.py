"""The golden vectors (tests/data/golden/README.md) through the public API."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import treescan
from treescan import nn

pytestmark = pytest.mark.usefixtures("device")

GOLDEN = Path(__file__).parent / "data" / "golden"


def files(*kinds):
    found = sorted(path for kind in kinds for path in GOLDEN.glob(f"{kind}_*.npz"))
    assert found, f"no golden files of {kinds}"
    return pytest.mark.parametrize("path", found, ids=lambda path: path.stem)


class Vectors:
    def __init__(self, path):
        self.arrays = np.load(path)

    def __contains__(self, key):
        return key in self.arrays

    def __getitem__(self, key):
        return torch.tensor(self.arrays[key])


def assert_close(value, golden, limit):
    """The limits are relative to the largest value."""
    assert value.shape == golden.shape
    assert (value - golden).abs().max() <= limit * golden.abs().max()


def graph_of(vectors):
    if "L" in vectors:
        return treescan.token_graph(int(vectors["L"]), 3, int(vectors["prompt_len"]))
    return treescan.grid_graph(int(vectors["H"]), int(vectors["W"]))


@files("mst")
def test_spanning_tree(path):
    vectors = Vectors(path)
    graph = graph_of(vectors)
    assert torch.equal(graph.edge_index, vectors["edge_index"])
    listed = treescan.edge_graph(vectors["edge_index"], int(vectors["num_vertices"]))
    cost = vectors["edge_weight"].float()  # as the original narrows float64
    for candidate in (graph, listed):
        tree = treescan.minimum_spanning_tree(candidate, cost)
        pairs = [sorted(sorted(pair) for pair in item) for item in tree.edges.tolist()]
        assert pairs == vectors["tree_pairs"].tolist()
        assert torch.equal(tree.parent, vectors["parent_vertex"])
        assert torch.equal(tree.depth, vectors["depth"])
        tree.validate()


@files("mst_feat", "mst_token")
def test_tree_from_features(path):
    vectors = Vectors(path)
    if "feature" not in vectors:
        return  # a token file with weights of its own
    graph = graph_of(vectors)
    metric = "l2" if "norm2" in path.name else "cosine"
    maximum = "cosmax" in path.name
    if "norm2raw" in path.name:
        assert_close(treescan.edge_weights(vectors["feature"], graph, metric), vectors["edge_weight"], 1e-6)
    elif not maximum:
        assert_close(treescan.edge_weights(vectors["feature"], graph, metric, exp=True), vectors["edge_weight"], 1e-5)
    tree = treescan.build_tree(vectors["feature"], graph, metric=metric, maximum=maximum)
    assert torch.equal(tree.parent, vectors["parent_vertex"])


@files("bfs")
def test_order(path):
    vectors = Vectors(path)
    index, above = vectors["sorted_index"].long(), vectors["sorted_parent"].long()
    parent = torch.zeros_like(index).scatter(1, index, index.gather(1, above))
    tree = treescan.Tree.from_parents(parent)
    assert torch.equal(tree.parent, parent.int())
    assert (tree.depth.gather(1, tree.order.long()).diff() >= 0).all()
    tree.validate()


@files("refine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scan(path, dtype):
    vectors = Vectors(path)
    suffix, limit = ("", 3e-6) if dtype == torch.float32 else ("64", 1e-12)
    if "out" + suffix not in vectors:
        return  # the large files hold float32 alone
    index, above = vectors["sorted_index"].long(), vectors["sorted_parent"].long()
    parent = torch.zeros_like(index).scatter(1, index, index.gather(1, above))
    tree = treescan.Tree.from_parents(parent)
    coefficient = vectors["edge_coef"].to(dtype)[:, None] if "edge_coef" in vectors else torch.ones((), dtype=dtype)

    x = vectors["feature"].to(dtype).requires_grad_()
    by_position = vectors["edge_weight"].to(dtype).requires_grad_()
    scattered = index[:, None].expand_as(by_position)
    weights = torch.zeros_like(by_position).scatter(2, scattered, by_position * coefficient)
    direction = "both" if "vision" in path.name else "up"
    y = treescan.tree_scan(x, weights, tree, direction=direction)
    y.backward(vectors["grad_out"].to(dtype))
    assert_close(y.detach(), vectors["out" + suffix], limit)
    assert_close(x.grad, vectors["grad_feature" + suffix], limit)
    assert_close(by_position.grad, vectors["grad_edge_weight" + suffix], limit)
    if "aggr_up" in vectors:
        up = treescan.tree_scan(x.detach(), weights.detach(), tree, direction="up")
        assert_close(up.gather(2, scattered), vectors["aggr_up" + suffix], limit)


@files("tree_scanning")
def test_tree_scanning(path):
    vectors = Vectors(path)
    names = ("x", "x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
    norms = {name: torch.nn.LayerNorm(vectors["x"].shape[1]) for name in ("out_norm", "h_norm")}
    inputs = {name: vectors[name].requires_grad_() for name in names}
    for name, norm in norms.items():
        for part in ("weight", "bias"):
            key = f"{name}.{part}" if f"{name}.{part}" in vectors else f"{name}_{part}"
            getattr(norm, part).data = vectors[key]
            inputs[key] = getattr(norm, part)
    tree = treescan.build_tree(vectors["x"])
    pairs = [sorted(sorted(pair) for pair in item) for item in tree.edges.tolist()]
    assert pairs == vectors["tree_pairs/0"].tolist()
    y = nn.tree_scanning(*(inputs[name] for name in names), norms["out_norm"], norms["h_norm"])
    assert_close(y.detach(), vectors["y"], 1e-5)
    y.backward(vectors["grad_y"])
    for name, value in inputs.items():
        assert_close(value.grad, vectors[f"grad/{name}"], 1e-4)


@files("tree_ssm")
def test_tree_ssm(path):
    vectors = Vectors(path)
    config = json.loads(str(vectors.arrays["config"]))
    module = nn.TreeSSM(**config)
    state = {key[len("param/"):]: vectors[key] for key in vectors.arrays.files if key.startswith("param/")}
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in state.items()}
    module.load_state_dict(state)
    x = vectors["x"].requires_grad_()
    y = module(x)
    assert_close(y.detach(), vectors["y"], 1e-5)
    y.backward(vectors["grad_y"])
    assert_close(x.grad, vectors["grad_x"], 1e-4)
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, vectors[f"grad/{name}"], 1e-4)
