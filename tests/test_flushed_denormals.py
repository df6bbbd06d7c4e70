"""torch.set_flush_denormal(True), which training scripts set: trees don't change, and what does is the same for all threads."""

import math
from fractions import Fraction

import pytest
import torch

import treescan
from treescan.compat._sorted import narrowed

if not torch.set_flush_denormal(False):
    pytest.skip("this processor can't flush denormal numbers", allow_module_level=True)


@pytest.fixture
def flushed():
    """Turns the mode on and off, and leaves it off."""
    yield torch.set_flush_denormal
    torch.set_flush_denormal(False)


def kruskal(edges, keys, vertices):
    part = list(range(vertices))
    kept = []
    for e in sorted(range(len(edges)), key=lambda e: (keys[e], e)):
        a, b = (part[v] for v in edges[e])
        if a != b:
            part = [a if p == b else p for p in part]
            kept.append(e)
    return sorted(kept)


GRAPHS = {"triangle": treescan.edge_graph(torch.tensor([[0, 1], [0, 2], [1, 2]]), 3), "grid": treescan.grid_graph(5, 6),
          "grid8": treescan.grid_graph(4, 4, 8), "large": treescan.grid_graph(260, 260), "tokens": treescan.token_graph(9, 4)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_trees_of_tiny_costs(flushed, name, dtype):
    graph = GRAPHS[name]
    tiny = torch.finfo(dtype).smallest_normal
    generator = torch.Generator().manual_seed(0)
    cost = (torch.randint(-40, 40, (2, graph.num_edges), generator=generator).double() / 8 * tiny).to(dtype)
    cost[:, ::7] = 0.0
    cost[:, 3::7] = -0.0
    mask = torch.rand(2, graph.num_vertices, generator=generator) > 0.2
    exact = [[Fraction(c) for c in item] for item in cost.double().tolist()]
    calls = {"minimum": lambda: treescan.minimum_spanning_tree(graph, cost),
             "maximum": lambda: treescan.minimum_spanning_tree(graph, cost, maximum=True),
             "forest": lambda: treescan.minimum_spanning_tree(graph, cost, mask=mask)}
    if name != "large":
        calls["reference"] = lambda: treescan.reference.minimum_spanning_tree(graph, cost)
        calls["greatest by the reference"] = lambda: treescan.reference.minimum_spanning_tree(graph, cost, maximum=True)
    plain = {what: call() for what, call in calls.items()}
    if name != "large":
        for what, sign in (("minimum", 1), ("maximum", -1)):
            found = [sorted(e for e in item if e >= 0) for item in plain[what].edge.tolist()]
            keys = [[sign * c for c in item] for item in exact]
            assert found == [kruskal(graph.edge_index.tolist(), item, graph.num_vertices) for item in keys]
    try:
        for threads in (1, 2):
            treescan.set_num_threads(threads)
            flushed(True)
            for what, call in calls.items():
                assert torch.equal(call().edge, plain[what].edge), what
            flushed(False)
    finally:
        treescan.set_num_threads(None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_compat_trees_of_tiny_costs(flushed, dtype):
    """Of float64 too where float32 has no normal numbers any more."""
    edges = torch.tensor([[[0, 1], [0, 2], [1, 2]]])
    step = max(2.0**-140, torch.finfo(dtype).smallest_normal / 4)
    cost = (torch.tensor([[3, 1, 2]], dtype=torch.float64) * step).to(dtype)
    flushed(True)
    assert treescan.compat.tree_scan.mst_forward(edges, cost, 3).tolist() == [[[0, 2], [1, 2]]]


def test_compat_narrows_as_the_processor_does(flushed):
    """To the nearest float32, ties to even, whether it may be denormal or not."""
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-160, 130, (4000,), generator=generator).double()
    costs = torch.randn(4000, generator=generator, dtype=torch.float64) * 2**exponents
    halves = torch.arange(-40, 40, dtype=torch.float64) * 2.0**-150  # between two neighbours
    ends = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 2.0**-126, 2.0**-126 - 2.0**-150, 5e-324], dtype=torch.float64)
    costs = torch.cat((costs, halves, ends, -ends))
    right = costs.float().view(torch.int32)
    for mode in (False, True):
        flushed(mode)
        found = narrowed(costs).view(torch.int32)
        flushed(False)
        assert torch.equal(found, right)


def test_causal_trees_of_tiny_differences(flushed):
    """Whose costs are of tiny numbers too."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(1, 1, 40, generator=generator) * 1e-38  # differences are denormal
    plain = treescan.causal_tree(features.double(), metric="l1")
    wide = features.double()  # made before anything is flushed
    flushed(True)
    assert torch.equal(treescan.causal_tree(wide, metric="l1").parent, plain.parent)
    vast = torch.rand(1, 1, 40, generator=generator, dtype=torch.float64) * 1e-310
    keys = treescan.functional.cost_keys(vast)
    flushed(False)
    assert torch.equal(keys[0, 0].argsort(), vast[0, 0].argsort())


def test_scans_are_the_same_for_all_threads(flushed):
    """Sums that end in denormal numbers: with the mode, 0 there, whichever thread computes them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(3, 40, 1, 500)
    x[..., 0] = 1
    x[..., 250] = torch.rand(3, 40, 1, generator=generator) * 1e-39
    chain = treescan.build_tree(x.flatten(2), "chain")
    weights = torch.full_like(x, 0.7)
    grad = torch.rand(3, 40, 1, 500, generator=generator)
    B = torch.ones(3, 1, 500)

    def everything():
        a, w = x.clone().requires_grad_(), weights.clone().requires_grad_()
        y = treescan.tree_scan(a, w, chain)
        z = treescan.selective_tree_scan(a.flatten(2), w.flatten(2), -torch.ones(40, 1), B, B, chain)
        return y.detach(), z.detach(), *torch.autograd.grad((y * grad).sum() + z.sum(), (a, w))

    treescan.set_num_threads(1)
    try:
        plain = everything()
        flushed(True)
        alone = everything()
        for threads in (2, 3):
            treescan.set_num_threads(threads)
            assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(everything(), alone))
        treescan.set_num_threads(None)  # torch's threads, which were started without the mode
        assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(everything(), alone))
    finally:
        flushed(False)
        treescan.set_num_threads(None)
    assert not torch.equal(plain[0], alone[0])  # the mode does something here
    assert not ((alone[0] != 0) & (alone[0].abs() < torch.finfo().smallest_normal)).any()
    assert all(torch.equal(a, b) for a, b in zip(everything(), plain))  # and nobody's threads keep it
