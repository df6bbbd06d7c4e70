"""Properties that hold for every graph, tree and tensor, odd ones first."""

import itertools
import os
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import treescan
from treescan import reference

pytestmark = pytest.mark.usefixtures("device")

DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
DIRECTIONS = ("up", "down", "both")


@st.composite
def graphs(draw):
    kind = draw(st.sampled_from(["grid", "tokens", "chain", "edges"]))
    if kind == "grid":
        height, width = draw(st.sampled_from([(1, 1), (1, 5), (5, 1), (2, 2), (3, 4), (5, 3), (6, 7)]))
        return treescan.grid_graph(height, width, draw(st.sampled_from([4, 8])))
    length = draw(st.integers(1, 12))
    if kind == "tokens":
        return treescan.token_graph(length, draw(st.integers(1, 5)), draw(st.none() | st.integers(0, length)))
    if kind == "chain":
        return treescan.chain_graph(length)
    # A random list that holds a spanning tree, with repeated edges and loops among the rest.
    tree = [(draw(st.integers(0, v - 1)), v) for v in range(1, length)]
    more = draw(st.lists(st.tuples(st.integers(0, length - 1), st.integers(0, length - 1)), max_size=10))
    listed = draw(st.permutations(tree + more))
    return treescan.edge_graph(torch.tensor(listed, dtype=torch.int32).reshape(-1, 2), length)


SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"))


def costs(graph, kind, seed):
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    shape = (2, graph.num_edges)
    if kind == "ties":
        return torch.randint(0, 3, shape, generator=generator).float()
    if kind == "special":
        return torch.tensor(SPECIAL)[torch.randint(0, len(SPECIAL), shape, generator=generator)]
    return torch.rand(shape, generator=generator)


@given(graphs(), st.sampled_from(["distinct", "ties", "special"]), st.booleans(), st.integers(0, 99))
def test_trees_equal_kruskal(graph, kind, maximum, seed):
    cost = costs(graph, kind, seed)
    root = torch.tensor([seed % graph.num_vertices, (3 * seed) % graph.num_vertices])
    tree = treescan.minimum_spanning_tree(graph, cost, maximum=maximum, root=root)
    expected = reference.minimum_spanning_tree(graph, cost, maximum=maximum, root=root)
    for name in ("parent", "order", "depth", "root", "edge"):
        assert torch.equal(getattr(tree, name), getattr(expected, name)), name
    tree.validate()
    if graph.kind != "edges":
        listed = treescan.minimum_spanning_tree(treescan.edge_graph(graph.edge_index, graph.num_vertices), cost,
                                                maximum=maximum, root=root)
        assert torch.equal(tree.parent, listed.parent)
    if not cost.isnan().any():
        assert torch.equal(tree.parent, treescan.minimum_spanning_tree(graph, -cost, maximum=not maximum, root=root).parent)


@pytest.mark.parametrize("shape", [(56, 56), (300, 200)])
def test_large_trees_are_minimal(shape):
    """Too large for the reference: every edge outside the tree closes a cycle on which none costs more."""
    graph = treescan.grid_graph(*shape)
    cost = torch.randint(0, 50, (1, graph.num_edges)).float()
    tree = treescan.minimum_spanning_tree(graph, cost)
    scipy = pytest.importorskip("scipy.sparse.csgraph")
    from scipy.sparse import csr_matrix

    edges, cost = graph.edge_index.numpy(force=True), cost.cpu()
    least = scipy.minimum_spanning_tree(csr_matrix((cost[0].numpy() + 1, (edges[:, 0], edges[:, 1])),
                                                   shape=(graph.num_vertices,) * 2)).sum()
    chosen = tree.edge[0][tree.edge[0] >= 0].long().cpu()
    assert (cost[0][chosen] + 1).sum().item() == least
    assert chosen.unique().numel() == graph.num_vertices - 1


@pytest.mark.parametrize("metric", ["cosine", "l2", "l1"])
@pytest.mark.parametrize("dtype", DTYPES)
@given(graph=graphs(), channels=st.sampled_from([0, 1, 2, 3, 4, 5, 16, 37]))
def test_edge_weights_equal_the_reference(graph, channels, metric, dtype):
    features = torch.randn(2, channels, graph.num_vertices).to(dtype)
    expected = reference.edge_weights(features, graph, metric).float()
    cost = treescan.edge_weights(features, graph, metric)
    torch.testing.assert_close(cost, expected, rtol=1e-5, atol=1e-5)
    # Any strides, and a grid given as rows and columns: the same bits.
    apart = features.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(treescan.edge_weights(apart, graph, metric), cost)
    if graph.kind == "grid":
        image = features.unflatten(2, (graph.height, graph.width))
        padded = torch.nn.functional.pad(image.double(), (1, 2, 1, 0)).to(dtype)[:, :, 1:, 1:graph.width + 1]
        for view in (image, padded, image.contiguous(memory_format=torch.channels_last)):
            assert torch.equal(treescan.edge_weights(view, graph, metric), cost)


@given(graphs(), st.integers(0, 99))
def test_trees_from_edges_equal_the_reference(graph, seed):
    tree = treescan.minimum_spanning_tree(graph, costs(graph, "distinct", seed))
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    edges = tree.edges[:, torch.randperm(graph.num_vertices - 1, generator=generator)]
    edges = torch.where(torch.rand(edges[..., :1].shape, generator=generator) < 0.5, edges, edges.flip(2))
    root = torch.tensor([seed % graph.num_vertices, 0], dtype=torch.int32)
    found = torch.ops.treescan.tree_from_edges(edges, root, False)
    expected = reference.tree_from_edges(edges, root)
    for values, wanted in zip(found, (expected.parent, expected.order, expected.depth, expected.edge)):
        assert torch.equal(values, wanted)


def test_the_reference_takes_what_the_library_takes():
    x, weights = torch.rand(2, 1, 3, 4, 5, dtype=torch.float64).unbind()
    graph = treescan.grid_graph(4, 5)
    for options in ({}, {"guide": weights, "metric": "l2", "maximum": True, "root": 7, "direction": "up"}):
        torch.testing.assert_close(reference.tree_scan(x, weights, graph, **options),
                                   treescan.tree_scan(x, weights, graph, **options))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: reference.edge_weights(torch.zeros(1, 1, 2), treescan.chain_graph(2), "l3"), "metric must be 'cosine'.*'l3'"),
    (lambda: reference.tree_from_edges(torch.tensor([[[0, 1], [2, 3], [3, 2]]])), "edges must form a tree"),
    (lambda: reference.tree_from_parents(torch.tensor([[0, 1]])), "exactly one vertex that is its own parent"),
    (lambda: reference.minimum_spanning_tree(treescan.edge_graph(torch.tensor([[0, 1], [2, 3]]), 4), torch.zeros(1, 2)),
     "item 0 falls into 2 parts"),
])
def test_the_reference_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_trees_move_with_all_their_fields():
    tree = treescan.build_tree(torch.rand(2, 3, 4, 5))
    for moved in (tree.to("meta"), tree._replace(edge=None).to("meta")):
        assert all(field.is_meta for field in moved[:4])
    assert tree.to("meta").edge.is_meta and moved.edge is None
    assert all(torch.equal(*fields) for fields in zip(tree.to(tree.parent.device), tree))


def test_graphs_say_what_they_are():
    assert repr(treescan.grid_graph(2, 3, 8)) == "grid_graph(2, 3, connectivity=8)"
    assert repr(treescan.token_graph(5, 2, 3)) == "token_graph(5, window=2, context_length=(3,))"
    assert repr(treescan.chain_graph(4)) == "chain_graph(4)"
    assert repr(treescan.edge_graph(torch.tensor([[0, 1]]), 2)) == "edge_graph(<edge_index (1, 2)>, 2)"
    # Whatever counts as an integer is one.
    assert treescan.chain_graph(torch.tensor(4)).num_edges == 3


def test_a_batch_of_no_lists_of_edges():
    graph = treescan.edge_graph(torch.zeros(0, 3, 2, dtype=torch.int32), 4)
    assert graph.edge_index.shape == (0, 3, 2)
    for tree in (treescan.minimum_spanning_tree(graph, torch.zeros(0, 3)),
                 treescan.random_spanning_tree(graph, torch.zeros(0, 3), seed=0)):
        assert tree.parent.shape == tree.order.shape == (0, 4)


@pytest.mark.parametrize("channels_last", [False, True])
def test_rows_may_be_one_row_many_times(channels_last):
    """Expanded along the height, which is no row that goes on: neither in place nor in blocks of vertices."""
    row = torch.rand(2, 1, 7, 24).permute(0, 3, 1, 2) if channels_last else torch.rand(2, 24, 1, 7)
    for height in (5, 300):
        x = row.expand(2, 24, height, 7)
        assert torch.equal(*(treescan.edge_weights(f, treescan.grid_graph(height, 7)) for f in (x, x.contiguous())))
        tree = treescan.build_tree(torch.rand(2, 3, height, 7))
        for direction in DIRECTIONS:
            inputs = [(values.detach().requires_grad_(), values.detach().requires_grad_()) for values in (x, x.contiguous())]
            found, wanted = (treescan.tree_scan(*pair, tree, direction=direction) for pair in inputs)
            assert torch.equal(found, wanted)
            grad = row.flip(0).expand_as(x)
            for got, want in zip(torch.autograd.grad(found, inputs[0], grad), torch.autograd.grad(wanted, inputs[1], grad.contiguous())):
                assert torch.equal(got, want)


def test_contexts_of_a_batch_are_those_of_its_items():
    lengths = (0, 2, 5, 9)
    features = torch.randn(4, 6, 9)
    together = treescan.build_tree(features, treescan.token_graph(9, 3, lengths))
    for item, length in enumerate(lengths):
        alone = treescan.build_tree(features[item:item + 1], treescan.token_graph(9, 3, length))
        assert torch.equal(together.parent[item], alone.parent[0])


@given(graphs(), st.integers(0, 99))
def test_random_trees(graph, seed):
    cost = costs(graph, "distinct", seed)
    tree = treescan.random_spanning_tree(graph, cost, seed=seed)
    tree.validate()
    edges = graph.edge_index.tolist()
    for parents, chosen in zip(tree.parent.tolist(), tree.edge.tolist()):
        for v, (p, e) in enumerate(zip(parents, chosen)):
            assert (v == p and e == -1) or sorted(edges[e]) == sorted((v, p))
    assert torch.equal(tree.parent, treescan.random_spanning_tree(graph, cost, seed=seed).parent)


def test_random_trees_have_the_right_frequencies():
    """A triangle loses one edge: the last drawn. Edges are drawn with probability in proportion to exp(-cost)."""
    cost = torch.tensor([[0.0, 1.0, 2.0]])
    graph = treescan.edge_graph(torch.tensor([[0, 1], [1, 2], [0, 2]]), 3)
    share = torch.exp(-cost[0].double())
    expected = torch.zeros(3)
    for first, second, last in itertools.permutations(range(3)):
        expected[last] += share[first] / share.sum() * share[second] / (share.sum() - share[first])
    draws = 4000
    trees = treescan.random_spanning_tree(graph, cost.expand(draws, -1), seed=5)
    left_out = 3 - trees.edge.sum(1) - 1  # the three indices sum to 3, the root's is -1
    found = torch.bincount(left_out, minlength=3) / draws
    assert (found - expected).abs().max() < 4 * (0.25 / draws) ** 0.5


def layouts(x):
    """The same values in other strides."""
    yield "contiguous", x.contiguous()
    yield "channels last", x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    yield "every other", torch.stack((x, x), -1)[..., 0]
    yield "cropped", torch.nn.functional.pad(x.double(), (2, 1, 1, 1)).to(x.dtype)[:, :, 1:-1, 2:-1]
    yield "backwards", x.flip(1).contiguous().flip(1)
    yield "batch last", x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "channels", "height", "width"), [
    (0, 3, 2, 2), (2, 0, 2, 2), (1, 1, 1, 1), (2, 3, 1, 6), (2, 5, 7, 1), (1, 16, 3, 3), (2, 17, 4, 5), (3, 33, 2, 3),
    (1, 64, 5, 5)])
def test_scans_equal_the_reference(batch, channels, height, width, dtype, direction):
    weights = torch.rand(batch, channels, height, width, dtype=torch.float64) * 1.5 - 0.5
    x, grad = torch.randn(2, batch, channels, height, width, dtype=torch.float64).to(dtype).unbind()
    weights = torch.where(torch.rand_like(weights) < 0.1, 0, weights).to(dtype)
    tree = treescan.build_tree(torch.rand(max(batch, 1), 3, height, width), root=height * width // 2)
    tree = treescan.Tree(*(field[:batch] for field in tree))

    exact = [values.double().requires_grad_() for values in (x, weights)]
    expected = reference.tree_scan(*exact, tree, direction=direction)
    gradients = exact
    if batch and channels:  # one vertex has no edge, so nothing depends on its weight
        gradients = torch.autograd.grad(expected, exact, grad.double(), materialize_grads=True)

    first = None
    for (name, x_view), (_, w_view), (_, g_view) in zip(layouts(x), layouts(weights), layouts(grad)):
        inputs = [values.detach().requires_grad_() for values in (x_view, w_view)]
        y = treescan.tree_scan(*inputs, tree, direction=direction)
        results = (y, *torch.autograd.grad(y, inputs, g_view))
        for value, right in zip(results, (expected, *gradients)):
            assert value.dtype == dtype and value.shape == x.shape
            if value.numel():
                assert (value.double() - right).abs().max() <= DTYPES[dtype] * (1 + right.abs().max()), name
        if first is not None:
            assert all(torch.equal(a, b) for a, b in zip(first, results)), name
        first = results


@given(st.integers(1, 9), st.integers(0, 99), st.sampled_from(DIRECTIONS))
def test_recurrences_equal_sums_over_paths(vertices, seed, direction):
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    parent = torch.tensor([[0] + [int(torch.randint(0, v, (), generator=generator)) for v in range(1, vertices)]])
    tree = treescan.Tree.from_parents(parent)
    x, weights = torch.randn(2, 1, 2, vertices, generator=generator, dtype=torch.float64).unbind()
    expected = reference.scan_by_paths(x, weights, tree, direction)
    torch.testing.assert_close(treescan.tree_scan(x, weights, tree, direction=direction), expected)


@given(st.integers(2, 30), st.integers(0, 99))
def test_both_does_not_depend_on_the_root(vertices, seed):
    """Weights belong to edges: where a vertex and its parent change places, so does their weight."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    parent = torch.tensor([[0] + [int(torch.randint(0, v, (), generator=generator)) for v in range(1, vertices)]])
    tree = treescan.Tree.from_parents(parent)
    other = tree.reroot(seed % vertices)
    x, weights = torch.rand(2, 1, 3, vertices, generator=generator, dtype=torch.float64).unbind()
    moved = weights.clone()
    for v, p in enumerate(other.parent[0].tolist()):
        if tree.parent[0, p] == v and p != v:
            moved[..., v] = weights[..., p]
    torch.testing.assert_close(treescan.tree_scan(x, weights, tree), treescan.tree_scan(x, moved, other))


@given(graphs(), st.integers(0, 99))
def test_rerooting(graph, seed):
    tree = treescan.minimum_spanning_tree(graph, costs(graph, "distinct", seed))
    root = seed % graph.num_vertices
    moved = tree.reroot(root)
    again = treescan.minimum_spanning_tree(graph, costs(graph, "distinct", seed), root=root)
    assert all(torch.equal(a, b) for a, b in zip(moved, again))


def test_a_shared_tree_is_the_same_for_every_item():
    x, weights = torch.randn(3, 5, 4, 4), torch.rand(3, 5, 4, 4)
    tree = treescan.build_tree(x[:1])
    expanded = treescan.Tree(*(field.expand(3, *field.shape[1:]) for field in tree))
    shared = treescan.tree_scan(x, weights, tree)
    assert torch.equal(shared, treescan.tree_scan(x, weights, expanded))
    assert torch.equal(shared[2:], treescan.tree_scan(x[2:], weights[2:], tree))


def test_expanded_tensors():
    x, weights = torch.randn(2, 1, 4, 5).expand(2, 6, 4, 5), torch.rand(1, 1, 4, 1)
    tree = treescan.build_tree(x)
    expected = treescan.tree_scan(x.contiguous(), weights.expand_as(x).contiguous(), tree)
    assert torch.equal(treescan.tree_scan(x, weights, tree), expected)
    assert torch.equal(treescan.tree_scan(x, weights.expand_as(x), tree), expected)


def test_the_roots_weight_has_no_effect():
    x, weights = torch.randn(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    tree = treescan.build_tree(x, root=5)
    expected = [treescan.tree_scan(x, weights, tree, direction=direction) for direction in DIRECTIONS]
    weights.flatten(2)[..., 5] = float("nan")
    inputs = x.requires_grad_(), weights.requires_grad_()
    for direction, right in zip(DIRECTIONS, expected):
        y = treescan.tree_scan(*inputs, tree, direction=direction)
        assert torch.equal(y, right)
        grad_x, grad_weights = torch.autograd.grad(y.sum(), inputs)
        assert grad_x.isfinite().all() and (grad_weights.flatten(2)[..., 5] == 0).all() and grad_weights.isfinite().all()


@pytest.mark.parametrize("length", [1, 2, 5000])
def test_deep_and_flat_trees(length):
    x, weights = torch.randn(1, 3, length, dtype=torch.float64), torch.rand(1, 3, length, dtype=torch.float64)
    chain = treescan.Tree.from_parents(torch.arange(-1, length - 1).clamp(min=0)[None])
    state, expected = torch.zeros(1, 3, dtype=torch.float64), []
    for t in range(length):
        state = x[..., t] + (weights[..., t] * state if t else 0)
        expected.append(state)
    torch.testing.assert_close(treescan.tree_scan(x, weights, chain, direction="down"), torch.stack(expected, -1))
    star = treescan.Tree.from_parents(torch.zeros(1, length, dtype=torch.int32))
    up = treescan.tree_scan(x, weights, star, direction="up")
    torch.testing.assert_close(up[..., 0], x[..., 0] + (weights * x)[..., 1:].sum(-1))
    assert torch.equal(up[..., 1:], x[..., 1:])


def everything(x, weights):
    """A run through the whole library, as one list of tensors."""
    graph = treescan.grid_graph(*x.shape[2:])
    cost = treescan.edge_weights(x, graph)
    tree = treescan.minimum_spanning_tree(graph, cost)
    random = treescan.random_spanning_tree(graph, cost, seed=3)
    found = [cost, *tree, *random]
    for dtype in DTYPES:
        for direction in DIRECTIONS:
            inputs = [values.to(dtype).requires_grad_() for values in (x, weights)]
            y = treescan.tree_scan(*inputs, tree, direction=direction)
            found += [y, *torch.autograd.grad(y.square().sum(), inputs)]
    return found


def bits(value):
    return value.detach().flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8)


def same_bits(first, second):
    return all(torch.equal(bits(a), bits(b)) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(3, 19, 17, 23), (1, 40, 31, 9)])
def test_same_bits_on_any_number_of_threads_and_every_run(shape):
    x, weights = torch.randn(shape), torch.rand(shape)
    try:
        treescan.set_num_threads(1)
        expected = everything(x, weights)
        for threads in (1, 2, 7, None):
            treescan.set_num_threads(threads)
            assert same_bits(expected, everything(x, weights)), threads
    finally:
        treescan.set_num_threads(None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_calls_after_a_fork():
    """A child has none of its parent's threads; the library's own pool starts anew there."""
    if torch.get_default_device().type != "cpu":
        pytest.skip("a GPU can't be used on both sides of a fork")
    x, weights = torch.randn(3, 40, 9, 8), torch.rand(3, 40, 9, 8)
    try:
        treescan.set_num_threads(3)
        tree = treescan.build_tree(x)
        expected = treescan.tree_scan(x, weights, tree)
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                same = torch.equal(treescan.tree_scan(x, weights, tree), expected)
                os._exit(0 if same else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert torch.equal(treescan.tree_scan(x, weights, tree), expected)
    finally:
        treescan.set_num_threads(None)
