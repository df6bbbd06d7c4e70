"""The original extensions' functions: golden vectors, untouched inputs, and errors instead of crashes."""

from pathlib import Path

import numpy as np
import pytest
import torch

import treescan
from treescan.compat import MinimumSpanningTree, TreeFilter2D, tree_scan, tree_scan_lan

GOLDEN = Path(__file__).parent / "data" / "golden"


def load(path):
    arrays = np.load(path)
    return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind in "fiu"}


def files(*kinds):
    found = sorted(path for kind in kinds for path in GOLDEN.glob(f"{kind}_*.npz"))
    assert found
    return pytest.mark.parametrize("path", found, ids=lambda path: path.stem)


def unchanged(function, *arguments):
    """Calls a function on frozen copies, and on views that are not contiguous: same result, inputs as before."""
    before = [argument.clone() for argument in arguments if isinstance(argument, torch.Tensor)]
    result = function(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(before, (a for a in arguments if isinstance(a, torch.Tensor))))
    apart = [torch.stack((a, a), -1)[..., 0] if isinstance(a, torch.Tensor) else a for a in arguments]
    again = function(*apart)
    pairs = zip(result, again) if isinstance(result, tuple) else [(result, again)]
    assert all(torch.equal(a, b) for a, b in pairs)
    return result


@files("mst")
@pytest.mark.parametrize("module", [tree_scan, tree_scan_lan])
def test_mst_forward(path, module):
    v = load(path)
    batch = v["edge_weight"].shape[0]
    edges = unchanged(module.mst_forward, v["edge_index"].expand(batch, -1, -1), v["edge_weight"], int(v["num_vertices"]))
    assert edges.dtype == torch.int32
    pairs = [sorted(sorted(pair) for pair in item) for item in edges.tolist()]
    assert pairs == v["tree_pairs"].tolist()
    listed = {tuple(pair) for pair in v["edge_index"].tolist()}
    assert all(tuple(pair) in listed for item in edges.tolist() for pair in item)


@files("mst", "bfs")
def test_bfs_forward(path):
    v = load(path)
    found = unchanged(tree_scan.bfs_forward, v["tree"], v["sorted_child"].shape[2])
    for value, name in zip(found, ("sorted_index", "sorted_parent", "sorted_child"), strict=True):
        assert value.dtype == torch.int32
        assert torch.equal(value, v[name])
    four = tree_scan_lan.bfs_forward(v["tree"], v["sorted_child"].shape[2])
    assert len(four) == 4 and torch.equal(four[3], four[2])




@files("refine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_refine(path, dtype):
    v = load(path)
    suffix, limit = ("", 3e-6) if dtype == torch.float32 else ("64", 1e-12)
    if "out" + suffix not in v:
        return  # the large files hold float32 alone
    tree = [v["sorted_index"], v["sorted_parent"], v["sorted_child"]]
    feature, weight, grad = (v[name].to(dtype) for name in ("feature", "edge_weight", "grad_out"))

    def check(value, name):
        golden = v[name + suffix]
        assert value.shape == golden.shape and value.dtype == dtype
        assert (value - golden).abs().max() <= limit * golden.abs().max()

    if "vision" in path.name:
        coef = v["edge_coef"].to(dtype)
        out, aggr_up = unchanged(tree_scan.tree_scan_refine_forward, feature, weight, *tree, coef)
        check(out, "out")
        check(aggr_up, "aggr_up")
        arguments = (feature, weight, *tree, out, aggr_up, grad, coef)
        check(unchanged(tree_scan.tree_scan_refine_backward_feature, *arguments), "grad_feature")
        check(unchanged(tree_scan.tree_scan_refine_backward_edge_weight, *arguments), "grad_edge_weight")
    else:
        out = unchanged(tree_scan_lan.tree_scan_refine_forward, feature, weight, *tree)
        check(out, "out")
        grads = unchanged(tree_scan_lan.tree_scan_refine_backward_feature, out, weight, *tree, grad)
        check(grads[0], "grad_feature")
        check(grads[1], "grad_edge_weight")


@files("mst_grid_7x7", "mst_token_L8")
def test_any_order_with_parents_first(path):
    """The GPU's order differed from run to run; a scan along any of them is the same."""
    v = load(path)
    if "alt_sorted_index" not in v:
        pytest.fail("expected a second order in this file")
    generator = torch.Generator().manual_seed(1)
    batch, vertices = v["sorted_index"].shape
    x, w = torch.rand(2, batch, 3, vertices, generator=generator).unbind()
    results = []
    for prefix in ("sorted", "alt_sorted"):
        index, above, child = (v[f"{prefix}_{part}"] for part in ("index", "parent", "child"))
        by_position = w.gather(2, index.long()[:, None].expand_as(w))
        results.append(tree_scan_lan.tree_scan_refine_forward(x, by_position, index, above, child))
    assert torch.equal(*results)


def test_random_spanning_tree_repeats_with_the_seed():
    graph = treescan.grid_graph(6, 7)
    cost = torch.rand(2, graph.num_edges)
    edge_index = graph.edge_index.expand(2, -1, -1)
    torch.manual_seed(3)
    first, second = (tree_scan.rst_forward(edge_index, cost, 42) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(first, tree_scan.rst_forward(edge_index, cost, 42))
    assert not torch.equal(first, second)
    tree_scan.bfs_forward(first, 4)  # fails unless it is a tree


@pytest.mark.parametrize(("change", "message"), [
    (dict(sorted_index=torch.tensor([[0, 1, 9]], dtype=torch.int32)), "sorted_index must hold numbers in"),
    (dict(sorted_index=torch.tensor([[0, 1, 1]], dtype=torch.int32)), "once|before"),
    (dict(sorted_parent=torch.tensor([[0, 2, 1]], dtype=torch.int32)), "before|tree"),
    (dict(sorted_parent=torch.zeros(1, 2, dtype=torch.int32)), "sorted_parent must have shape"),
    (dict(edge_weight=torch.rand(1, 2, 4)), "edge_weight must have feature's shape"),
    (dict(feature=torch.rand(2, 3)), "feature must have shape"),
])
def test_bad_orders_are_reported(change, message):
    arguments = dict(feature=torch.rand(1, 2, 3), edge_weight=torch.rand(1, 2, 3),
                     sorted_index=torch.tensor([[0, 1, 2]], dtype=torch.int32),
                     sorted_parent=torch.tensor([[0, 0, 1]], dtype=torch.int32), sorted_child=None)
    with pytest.raises(ValueError, match=message):
        tree_scan_lan.tree_scan_refine_forward(**{**arguments, **change})


def test_bad_trees_are_reported():
    with pytest.raises(ValueError, match="max_adj must be at least the largest degree, 3, got 2"):
        tree_scan.bfs_forward(torch.tensor([[[0, 1], [0, 2], [0, 3]]]), 2)
    with pytest.raises(ValueError, match="cycle"):
        tree_scan.bfs_forward(torch.tensor([[[0, 1], [2, 3], [3, 2]]]), 4)
    with pytest.raises(ValueError, match="edges"):
        tree_scan.bfs_forward(torch.tensor([[[0, 1], [0, 7]]]), 4)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: tree_scan.bfs_forward(torch.zeros(2, 3, dtype=torch.int64), 2), ValueError, r"edges must have shape \(B, V-1, 2\), got \(2, 3\)"),
    (lambda: tree_scan.tree_scan_refine_forward(torch.rand(1, 2, 3), torch.rand(1, 2, 3), torch.zeros(1, 3), torch.zeros(1, 3),
                                                None, torch.ones(1, 3)), TypeError, "sorted_index must be .*integers, got torch.float32"),
    (lambda: tree_scan.tree_scan_refine_forward(torch.rand(1, 2, 3), torch.rand(1, 2, 3), torch.tensor([[0, 1, 2]]),
                                                torch.tensor([[0, 0, 1]]), None, torch.ones(1, 2)),
     ValueError, r"edge_coef must have shape \(1, 3\), got \(1, 2\)"),
    (lambda: MinimumSpanningTree(squared_distance)(torch.rand(2, 3, 5)), ValueError,
     r"guide_in must have shape \(B, C, H, W\), got \(2, 3, 5\)"),
    (lambda: TreeFilter2D(groups=2)(torch.rand(1, 4, 2, 2), torch.rand(1, 3, 2, 2), None), ValueError,
     r"embed_in must have shape .* a multiple of 2 channels, got \(1, 3, 2, 2\)"),
])
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def squared_distance(a, b):
    return (a - b).square().sum(1)


def test_layers_agree_with_the_library():
    generator = torch.Generator().manual_seed(0)
    guide, x = torch.rand(2, 3, 5, 6, generator=generator), torch.rand(2, 4, 5, 6, generator=generator)
    embedding = torch.rand(2, 6, 5, 6, generator=generator, requires_grad=True)
    edges = MinimumSpanningTree(squared_distance, torch.exp)(guide)
    tree = treescan.build_tree(guide, metric="l2")
    assert torch.equal(tree_scan.bfs_forward(edges, 4)[0].sort(1).values, tree.order.sort(1).values)
    expected = treescan.nn.TreeFilter2d(groups=2, sigma=0.5)(x, embedding, tree=tree)
    torch.testing.assert_close(TreeFilter2D(groups=2, sigma=0.5)(x, embedding, edges), expected)
    plain = TreeFilter2D(groups=2, sigma=0.5, normalize=False)(x, embedding, edges, low_tree=False)
    plain.sum().backward()
    assert embedding.grad.abs().sum() > 0
