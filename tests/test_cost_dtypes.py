"""Trees are decided by costs and features as they are: against Kruskal's algorithm on exact numbers, and against scipy."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array, csgraph

import treescan

pytestmark = pytest.mark.usefixtures("device")

INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.int64)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def kruskal(edges, costs, vertices, maximum=False, has=lambda v: True):
    """The edges of the minimum spanning forest, by Python's own numbers: NaN last, ties by index."""

    def key(e):
        cost = costs[e]
        if isinstance(cost, float) and not math.isfinite(cost):
            rank, cost = (2 if math.isnan(cost) else 1 if (cost > 0) != maximum else -1), 0
        else:
            rank, cost = 0, -Fraction(cost) if maximum else Fraction(cost)
        return rank, cost, e

    part = list(range(vertices))
    kept = []
    for e in sorted(range(len(edges)), key=key):
        a, b = (part[v] for v in edges[e])
        if a != b and all(map(has, edges[e])):
            part = [a if p == b else p for p in part]
            kept.append(e)
    return sorted(kept)


def edges_of(tree):
    return [sorted(e for e in item if e >= 0) for item in tree.edge.tolist()]


def draw(dtype, count, seed):
    """Costs of which many are close, equal, or at the ends of their type."""
    generator = np.random.default_rng(seed)
    if dtype in INTEGERS:
        low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
        near = [low, low + 1, high, high - 1, (low + high) // 2, (low + high) // 2 + 1, 0, 1, 2, 3]
        return torch.tensor([int(near[i]) for i in generator.integers(len(near), size=count)], dtype=dtype)
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1 + 1e-9, 1 + 2e-9, 1 + 3e-9, 1e-310, -1e-310, 1e300, 2e300, 1.0]
    return torch.tensor([special[i] for i in generator.integers(len(special), size=count)], dtype=torch.float64).to(dtype)


GRAPHS = {
    "grid": treescan.grid_graph(5, 7),
    "grid8": treescan.grid_graph(4, 3, 8),
    "row": treescan.grid_graph(1, 9),
    "tokens": treescan.token_graph(9, 3),
    "list": treescan.edge_graph(torch.tensor([[0, 1], [2, 1], [3, 2], [3, 0], [0, 2], [4, 4], [4, 0], [1, 4]]), 5),
}


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS, ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_trees_of_every_cost_type(name, dtype):
    graph = GRAPHS[name]
    edges = graph.edge_index.tolist()
    for seed in range(6):
        cost = torch.stack([draw(dtype, graph.num_edges, 2 * seed + item) for item in (0, 1)])
        exact = cost.double().tolist() if dtype.is_floating_point else [[int(c) for c in item] for item in cost.tolist()]
        mask = torch.rand(2, graph.num_vertices, generator=torch.Generator("cpu").manual_seed(seed), device="cpu") > 0.3
        for maximum in (False, True):
            tree = treescan.minimum_spanning_tree(graph, cost, maximum=maximum, root=2)
            assert edges_of(tree) == [kruskal(edges, item, graph.num_vertices, maximum) for item in exact]
            tree.validate()
            forest = treescan.minimum_spanning_tree(graph, cost, maximum=maximum, mask=mask.to(cost.device))
            assert edges_of(forest) == [kruskal(edges, item, graph.num_vertices, maximum, there.__getitem__)
                                        for item, there in zip(exact, mask.tolist())]
            # A view is read as it lies.
            strided = torch.stack((cost, cost), 2)[..., 1]
            assert torch.equal(treescan.minimum_spanning_tree(graph, strided, maximum=maximum, root=2).parent, tree.parent)


def test_costs_that_float32_takes_for_equal():
    triangle = treescan.edge_graph(torch.tensor([[0, 1], [0, 2], [1, 2]]), 3)
    close = torch.tensor([[1 + 3e-9, 1 + 1e-9, 1 + 2e-9]], dtype=torch.float64)
    large = torch.tensor([[2**53 + 1, 2**53, 2**53 - 1]])
    assert edges_of(treescan.minimum_spanning_tree(triangle, close)) == [[1, 2]]
    assert edges_of(treescan.minimum_spanning_tree(triangle, large)) == [[1, 2]]
    assert edges_of(treescan.minimum_spanning_tree(triangle, large, maximum=True)) == [[0, 1]]
    # The originals narrow their weights.
    listed = triangle.edge_index[None]
    assert treescan.compat.tree_scan.mst_forward(listed, close, 3).tolist() == [[[0, 1], [0, 2]]]


def test_unsigned_integers_of_64_bits_and_other_types_are_refused():
    graph = GRAPHS["row"]
    for dtype in (torch.uint64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"cost must be .*, got {dtype}"):
            treescan.minimum_spanning_tree(graph, torch.zeros(1, 8, dtype=dtype))
    with pytest.raises(TypeError, match=r"features must be .*, got torch.bool"):
        treescan.build_tree(torch.zeros(1, 1, 2, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match="dtype must be torch.float32 or torch.float64, got torch.float16"):
        treescan.edge_weights(torch.zeros(1, 1, 9), graph, dtype=torch.float16)


def exact_metric(values, edges, metric):
    """Costs as Python's integers."""
    power = 2 if metric == "l2" else 1
    return [sum(abs(int(p) - int(q)) ** power for p, q in zip(values[:, a].tolist(), values[:, b].tolist())) for a, b in edges]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32], ids=str)
@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 300)], ids=str)
def test_trees_of_integer_images(dtype, metric, shape):
    """As for the real numbers: 300 channels of 8 bits, and differences of 16 bits squared, don't fit float32."""
    channels, (height, width) = shape[1], (6, 5)
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    if dtype == torch.int32:
        low, high = -(2**22), 2**22  # beyond, squares don't fit float64 either
    values = np.random.default_rng(channels).integers(low, high, size=(shape[0], channels, height, width), endpoint=True)
    values[..., ::2] = np.clip(values[..., ::2], high - 3, high)  # close to each other
    image = torch.tensor(values.tolist(), dtype=torch.int64).to(dtype)
    graph = treescan.grid_graph(height, width)
    trees = treescan.build_tree(image, metric=metric)
    edges = graph.edge_index.tolist()
    expected = [exact_metric(item.reshape(channels, -1), edges, metric) for item in values]
    assert edges_of(trees) == [kruskal(edges, cost, height * width) for cost in expected]
    channels_last = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(treescan.build_tree(channels_last, metric=metric).parent, trees.parent)
    costs = treescan.edge_weights(image, graph, metric, dtype=torch.float64)
    assert costs.tolist() == [[float(c) for c in item] for item in expected]
    assert torch.equal(treescan.edge_weights(image, graph, metric), costs.float())


@pytest.mark.parametrize("metric", ["cosine", "l2", "l1"])
def test_trees_of_float64_features_are_decided_in_float64(metric):
    """A total cost as scipy's, where the differences between the features are lost in float32."""
    generator = np.random.default_rng(0)
    values = 1 + generator.random((1, 3, 8, 9)) * 1e-7
    features = torch.tensor(values)
    graph = treescan.grid_graph(8, 9)
    cost = treescan.edge_weights(features, graph, metric, dtype=torch.float64)
    right = treescan.reference.edge_weights(features, graph, metric)
    torch.testing.assert_close(cost, right, rtol=1e-7 if metric != "cosine" else 0, atol=0 if metric != "cosine" else 1e-15)
    a, b = graph.edge_index.T.cpu().numpy()
    shifted = right[0].cpu().numpy() + 2  # scipy takes 0 for no edge
    total = csgraph.minimum_spanning_tree(coo_array((shifted, (a, b)), shape=(72, 72))).sum()
    for tree in (treescan.build_tree(features, metric=metric), treescan.minimum_spanning_tree(graph, cost)):
        kept = tree.edge[0][tree.edge[0] >= 0].long().cpu()
        assert math.isclose(shifted[kept].sum(), total, rel_tol=1e-14)
    narrow = treescan.minimum_spanning_tree(graph, treescan.edge_weights(features, graph, metric))
    if metric == "cosine":  # all costs are -1 in float32
        assert not torch.equal(narrow.parent, treescan.build_tree(features, metric=metric).parent)


def test_scans_and_sequences_take_the_same_costs():
    """Every function that builds a tree of features does so in their own precision."""
    generator = torch.Generator("cpu").manual_seed(0)
    features = 1 + 1e-9 * torch.rand(1, 2, 24, generator=generator, dtype=torch.float64, device="cpu")
    features = features.to(torch.get_default_device())
    shifted = (features - 1) * 1e9  # the same differences, where float32 sees them
    for build in (lambda x: treescan.build_tree(x, "tokens", metric="l2"),
                  lambda x: treescan.causal_tree(x, metric="l2"),
                  lambda x: treescan.flipped_token_tree(x, metric="l2"),
                  lambda x: treescan.packed_tree(x, torch.tensor([0, 9, 24]), metric="l2"),
                  lambda x: treescan.packed_tree(x, graph="grid", sizes=[(2, 5), (7, 2)], metric="l2"),
                  lambda x: treescan.build_tree(x.unflatten(2, (4, 6)), metric="l2")):
        assert torch.equal(build(features).parent, build(shifted).parent)
        whole = (shifted * 1e4).round().long()
        assert torch.equal(build(whole + 2**40).parent, build(whole).parent)
    x, weights = torch.rand(2, 1, 2, 4, 6).unbind()
    image = torch.randint(0, 255, (1, 3, 4, 6), dtype=torch.uint8)
    assert torch.equal(treescan.tree_scan(x, weights, guide=image, metric="l2"),
                       treescan.tree_scan(x, weights, treescan.build_tree(image.float(), metric="l2")))


def test_steps_choose_as_causal_trees_do():
    generator = torch.Generator("cpu").manual_seed(1)
    turn = 1e-5 * torch.rand(1, 12, generator=generator, dtype=torch.float64, device="cpu")
    turn = turn.to(torch.get_default_device())
    features = torch.stack((turn.cos(), turn.sin()), 1)  # cosines differ by less than float32 can tell
    tree = treescan.causal_tree(features, window=4)
    state = treescan.init_state(1, 1, 1, window=4, num_features=2, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    depth = []
    for t in range(12):
        # With neither decay nor further input than 1, the state counts the tokens on the way to the root.
        y, state = treescan.step(state, one, one, 0 * one, one, one, features=features[:, :, t])
        depth.append(round(y.item()) - 1)
    assert depth == tree.depth[0].tolist()


def test_random_trees_of_float64():
    """Costs that float32 can't tell apart change nothing but the order of what is almost equal; large ones decide."""
    graph = treescan.grid_graph(6, 7)
    cost = torch.rand(3, graph.num_edges, dtype=torch.float64)
    tree = treescan.random_spanning_tree(graph, cost, seed=5)
    tree.validate()
    assert torch.equal(tree.parent, treescan.random_spanning_tree(graph, cost.float(), seed=5).parent)
    far = torch.where(torch.arange(graph.num_edges) % 3 == 0, 0.0, 1e6).double().expand(3, -1)
    for dtype in (torch.float64, torch.int32, torch.int64, torch.uint8):
        steep = (far if dtype != torch.uint8 else far.clamp(max=200)).to(dtype)
        assert torch.equal(treescan.random_spanning_tree(graph, steep, seed=1).parent,
                           treescan.random_spanning_tree(graph, steep.double(), seed=1).parent)


LENGTHS = {torch.float32: (1e18, 1e20, 1e37, 1e-12, 1e-25, 1e-37), torch.bfloat16: (1e20, 1e38, 1e-25, 1e-37),
           torch.float16: (3e4, 1e-4), torch.float64: (1e20, 1e200, 1e307, 1e-25, 1e-200, 1e-300)}


@pytest.mark.parametrize("dtype", LENGTHS, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 8, 17])
def test_cosines_of_vectors_of_any_length(dtype, channels):
    """As Python's exact arithmetic has them, in planes and in rows, alone and beside ordinary vectors."""
    generator = torch.Generator("cpu").manual_seed(0)
    ordinary = torch.randn(1, channels, 4, 5, generator=generator, dtype=torch.float64, device="cpu")
    graph = treescan.grid_graph(4, 5, 8)
    for scale in LENGTHS[dtype]:
        mixed = torch.full((4, 5), scale, dtype=torch.float64, device="cpu")
        mixed[:, ::3], mixed[2, 3] = 1, 0
        for factor in (torch.full((4, 5), scale, dtype=torch.float64, device="cpu"), mixed):
            features = (ordinary * factor).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
            features = features.to(torch.get_default_device())
            exact = features.double().flatten(2)[0].T.tolist()
            right = [float(cosine(exact[a], exact[b])) for a, b in graph.edge_index.tolist()]
            for view in (features, features.contiguous(memory_format=torch.channels_last)):
                for wanted, limit in ((torch.float32, 2e-6), (torch.float64, 1e-14)):
                    found = treescan.edge_weights(view, graph, dtype=wanted)[0].tolist()
                    absolute = limit * min(1.0, max(map(abs, right))) + torch.finfo(wanted).smallest_normal
                    assert all(math.isclose(a, b, rel_tol=2 * limit * channels, abs_tol=absolute)
                               for a, b in zip(found, right)), (scale, wanted)
            reference = treescan.reference.edge_weights(features.double(), graph)[0].tolist()
            assert all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-14) for a, b in zip(reference, right))


def cosine(f, g):
    """-f·g / (|f| |g|), with square roots of fractions to hundreds of digits."""
    f, g = [Fraction(v) for v in f], [Fraction(v) for v in g]

    def norm(vector):
        square = sum(v * v for v in vector)
        shift = 4**1200  # so that the integer root has digits enough
        return Fraction(math.isqrt(square.numerator * shift // square.denominator), 2**1200)

    if not any(f) or not any(g):
        return 0
    return -sum(p * q for p, q in zip(f, g)) / (norm(f) * norm(g))


def test_trees_of_long_vectors_are_those_of_short_ones():
    features = torch.randn(2, 8, 6, 7, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    features = features.to(torch.get_default_device())
    right = treescan.build_tree(features).parent
    for exponent in (-100, -40, -20, 62, 64, 120):
        assert torch.equal(treescan.build_tree(features * 2.0**exponent).parent, right)
        assert torch.equal(treescan.build_tree(features.double() * 2.0 ** (7 * exponent)).parent,
                           treescan.build_tree(features.double()).parent)
    tokens = features.flatten(2)
    assert torch.equal(treescan.causal_tree((tokens * 2.0**100, tokens)).parent, treescan.causal_tree((tokens, tokens)).parent)
    # No finite feature makes NaN, by any metric.
    vast = torch.where(features > 0, torch.finfo().max, -torch.finfo().max)
    for metric in ("cosine", "l2", "l1"):
        assert not treescan.edge_weights(vast, treescan.grid_graph(6, 7), metric).isnan().any()
