"""Forests: several trees in one item, vertices in none, and the masks and packed sequences that they come from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import treescan
from treescan import Tree, reference

DIRECTIONS = ("up", "down", "both")
OPS = torch.ops.treescan


def random_parents(batch, vertices, seed, roots=0.25, outside=0.2):
    """Forests whose vertices are numbered at random, so that parents may be larger than their children."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(batch):
        name = torch.randperm(vertices, generator=generator).tolist()
        parent, planted = [-1] * vertices, []
        for v in name:
            kind = torch.rand((), generator=generator)
            if kind < outside:
                continue
            at = int(torch.randint(len(planted), (), generator=generator)) if planted and kind > outside + roots else None
            parent[v] = v if at is None else planted[at]
            planted.append(v)
        rows.append(parent)
    return torch.tensor(rows)


def forests(batch=2, vertices=7, seed=0, **shares):
    return Tree.from_parents(random_parents(batch, vertices, seed, **shares), forest=True)


def assert_same(tree, expected, fields=("parent", "order", "depth", "root")):
    for name in fields:
        assert torch.equal(getattr(tree, name), getattr(expected, name)), name


@given(st.integers(1, 12), st.integers(0, 99), st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0.0, 0.3, 1.0]))
def test_forests_from_parents(vertices, seed, roots, outside):
    parent = random_parents(3, vertices, seed, roots, outside)
    tree = Tree.from_parents(parent, forest=True)
    assert_same(tree, reference.tree_from_parents(parent, forest=True))
    assert torch.equal(tree.parent, parent.int())
    tree.validate()


def test_a_tree_is_a_forest_of_one():
    tree = treescan.build_tree(torch.rand(2, 3, 4, 5), root=7)
    assert_same(Tree.from_parents(tree.parent, forest=True), tree)


ERRORS = {
    "a cycle": (lambda: Tree.from_parents(torch.tensor([[0, 2, 1, -1]]), forest=True), "cycle.* 1 of 3"),
    "below -1": (lambda: Tree.from_parents(torch.tensor([[0, -2]]), forest=True), r"\[0, 2\) or -1, got -2 at vertex 1"),
    "past the end": (lambda: Tree.from_parents(torch.tensor([[0, 2]]), forest=True), r"\[0, 2\) or -1, got 2"),
    "strict, no parent": (lambda: Tree.from_parents(torch.tensor([[0, -1]])), r"parent\[0, 1\] is -1: .*root_parent=-1"),
    "another root": (lambda: forests(1, 7, roots=1.0, outside=0.0).reroot(3), "one root.*0 and 1"),
    "nothing to pack": (lambda: Tree.pack([]), "trees must hold at least one"),
    "roots late": (lambda: forests(1, 4, roots=1.0, outside=0.0)._replace(
        parent=torch.tensor([[0, 0, 2, 2]], dtype=torch.int32), order=torch.tensor([[0, 1, 2, 3]], dtype=torch.int32),
        depth=torch.tensor([[0, 1, 0, 1]], dtype=torch.int32)).validate(), "order must put roots first"),
    "mask's dtype": (lambda: treescan.build_tree(torch.rand(1, 2, 3, 4), mask=torch.ones(1, 3, 4)), "mask must be a bool"),
    "mask's shape": (lambda: treescan.build_tree(torch.rand(2, 2, 3, 4), mask=torch.ones(2, 4, 3, dtype=torch.bool)),
                     r"mask must have shape \(2, 3, 4\).*got \(2, 4, 3\)"),
    "mask beside a tree": (lambda: treescan.tree_scan(torch.rand(2, 2, 7), torch.rand(2, 2, 7), forests(),
                                                      mask=torch.ones(2, 7, dtype=torch.bool)), "mask can't be given"),
    "root": (lambda: treescan.build_tree(torch.rand(1, 2, 3, 4), root=12, mask=torch.ones(1, 3, 4, dtype=torch.bool)),
             r"root: .*\[0, 12\), got 12"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


# ---- Scans ----


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16))
@pytest.mark.parametrize(("batch", "channels", "vertices"), [(1, 1, 1), (2, 3, 7), (3, 17, 40), (1, 70, 300)])
def test_scans_equal_the_reference(batch, channels, vertices, dtype, direction):
    tree = forests(batch, vertices, seed=vertices)
    x, grad = torch.randn(2, batch, channels, vertices).to(dtype).unbind()
    weights = (torch.rand(batch, channels, vertices) * 1.4 - 0.4).to(dtype)
    exact = [values.double().requires_grad_() for values in (x, weights)]
    wanted = reference.scan(*exact, tree, direction)
    wanted = wanted, *torch.autograd.grad(wanted, exact, grad.double(), materialize_grads=True)
    limit = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for layout in (lambda t: t, lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)):
        inputs = [layout(values).detach().requires_grad_() for values in (x, weights)]
        y = treescan.tree_scan(*inputs, tree, direction=direction)
        for value, right in zip((y, *torch.autograd.grad(y, inputs, layout(grad))), wanted):
            assert (value.double() - right).abs().max() <= limit * (1 + right.abs().max())
    outside = (tree.parent < 0)[:, None].expand_as(x)
    assert (y[outside] == 0).all()
    if vertices < 10:
        torch.testing.assert_close(wanted[0], reference.scan_by_paths(*exact, tree, direction))


def test_outside_nothing_is_read():
    tree = Tree.from_parents(torch.tensor([[0, -1, 0, 3]]), forest=True)
    x, weights = torch.randn(1, 2, 4), torch.rand(1, 2, 4)
    wanted = [treescan.tree_scan(x, weights, tree, direction=direction) for direction in DIRECTIONS]
    x[..., 1] = weights[..., 1] = float("nan")
    weights[..., 3] = float("nan")  # a root's
    x.requires_grad_(), weights.requires_grad_()
    for direction, right in zip(DIRECTIONS, wanted):
        y = treescan.tree_scan(x, weights, tree, direction=direction)
        assert torch.equal(y, right)
        gradients = torch.autograd.grad(y.square().sum(), (x, weights), create_graph=True)
        assert all(gradient.isfinite().all() and (gradient[..., 1] == 0).all() for gradient in gradients)
        again = torch.autograd.grad(sum(gradient.sum() for gradient in gradients), (x, weights))
        assert all(gradient.isfinite().all() for gradient in again)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_any_order_gives_the_same_bits(direction):
    tree = forests(1, 60, seed=5)
    x, weights = torch.randn(1, 19, 60), torch.rand(1, 19, 60)
    inputs = x.requires_grad_(), weights.requires_grad_()

    def results(along):
        y = treescan.tree_scan(*inputs, along, direction=direction)
        return y, *torch.autograd.grad(y.square().sum(), inputs)

    wanted = results(tree)
    for _ in range(5):
        # Deeper vertices later, anything else at random.
        key = torch.where(tree.depth < 0, 1000, tree.depth) + torch.rand(1, 60)
        other = tree._replace(order=key.argsort(1).int())
        other = other._replace(root=Tree.of_forest(*other[:3]).root)
        other.validate()
        assert all(torch.equal(a, b) for a, b in zip(results(other), wanted))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("batch", (1, 2))
def test_derivatives(direction, batch):
    tree = forests(batch, 6, seed=3)
    assert (tree.parent < 0).any() and ((tree.depth == 0).sum(1) > 1).any()
    x, weights = (values.requires_grad_() for values in torch.rand(2, 2, 2, 6, dtype=torch.float64).unbind())

    def scan(x, weights):
        return treescan.tree_scan(x, weights, tree, direction=direction)

    assert gradcheck(scan, (x, weights), check_forward_ad=True)
    assert gradgradcheck(scan, (x, weights), check_fwd_over_rev=True)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(value.detach(), torch.ones_like(value)) for value in (x, weights)]
        tangent = forward_ad.unpack_dual(scan(*duals)).tangent
        wanted = forward_ad.unpack_dual(reference.scan(*duals, tree, direction)).tangent
    torch.testing.assert_close(tangent, wanted)


# ---- Masks ----


@st.composite
def masked_graphs(draw):
    kind = draw(st.sampled_from(["grid", "tokens", "chain", "edges"]))
    if kind == "grid":
        return treescan.grid_graph(draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.sampled_from([4, 8])))
    length = draw(st.integers(1, 12))
    if kind == "tokens":
        return treescan.token_graph(length, draw(st.integers(1, 4)), draw(st.none() | st.integers(0, length)))
    if kind == "chain":
        return treescan.chain_graph(length)
    pairs = draw(st.lists(st.tuples(st.integers(0, length - 1), st.integers(0, length - 1)), max_size=15))
    return treescan.edge_graph(torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2), length)


@given(masked_graphs(), st.sampled_from([0.0, 0.5, 0.8, 1.0]), st.booleans(), st.integers(0, 99))
def test_masked_graphs_have_spanning_forests(graph, share, maximum, seed):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.randint(0, 5, (3, graph.num_edges), generator=generator).float()
    mask = torch.rand(3, graph.num_vertices, generator=generator) < share
    root = torch.randint(graph.num_vertices, (3,), generator=generator)
    tree = treescan.minimum_spanning_tree(graph, cost, maximum=maximum, root=root, mask=mask)
    expected = reference.minimum_spanning_tree(graph, cost, maximum=maximum, root=root, mask=mask)
    assert_same(tree, expected, ("parent", "order", "depth", "root", "edge"))
    assert torch.equal(tree.parent >= 0, mask)
    tree.validate()
    assert_same(tree, Tree.from_parents(tree.parent, forest=True))
    shared = treescan.minimum_spanning_tree(graph, cost, maximum=maximum, root=root, mask=mask[:1])
    assert_same(shared, treescan.minimum_spanning_tree(graph, cost, maximum=maximum, root=root, mask=mask[:1].expand(3, -1)))


def test_a_mask_of_everything_changes_nothing():
    features, everything = torch.rand(2, 3, 9, 7), torch.ones(1, 9, 7, dtype=torch.bool)
    for maximum in (False, True):
        tree = treescan.build_tree(features, maximum=maximum, root=20)
        assert_same(treescan.build_tree(features, maximum=maximum, root=20, mask=everything), tree, Tree._fields)


@pytest.mark.parametrize("graph", ("grid", "tokens", "chain"))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_scans_with_a_mask(graph, direction):
    shape = (5, 6) if graph == "grid" else (30,)
    x, weights = torch.randn(2, 3, *shape).requires_grad_(), torch.rand(2, 3, *shape).requires_grad_()
    mask = torch.rand(2, *shape) < 0.7
    y = treescan.tree_scan(x, weights, graph, direction=direction, mask=mask)
    gradients = torch.autograd.grad(y.square().sum(), (x, weights))
    for values in (y, *gradients):
        assert (values.transpose(0, 1)[:, ~mask] == 0).all() and values.abs().sum() > 0
    tree = treescan.build_tree(x, graph, mask=mask)
    assert torch.equal(y, treescan.tree_scan(x, weights, tree, direction=direction))
    # What a masked vertex holds reaches nobody, not even through the tree.
    other = torch.where(mask[:, None], x, torch.randn_like(x))
    assert torch.equal(y, treescan.tree_scan(other, weights, graph, direction=direction, mask=mask))


def test_a_cropped_image_is_a_masked_one():
    x, weights = torch.randn(1, 4, 9, 8), torch.rand(1, 4, 9, 8)
    mask = torch.zeros(1, 9, 8, dtype=torch.bool)
    mask[:, 2:7, 1:6] = True
    inside = treescan.tree_scan(x[:, :, 2:7, 1:6], weights[:, :, 2:7, 1:6])
    assert torch.equal(treescan.tree_scan(x, weights, mask=mask)[:, :, 2:7, 1:6], inside)


def test_a_filter_with_a_mask_leaves_zeros_outside():
    mask = torch.rand(2, 5, 6) < 0.6
    x = torch.rand(2, 4, 5, 6, requires_grad=True)
    y = treescan.nn.TreeFilter2d(groups=2)(x, tree=treescan.build_tree(x, metric="l2", mask=mask))
    y.sum().backward()
    assert (y.transpose(0, 1)[:, ~mask] == 0).all() and x.grad.isfinite().all()
    assert y.transpose(0, 1)[:, mask].min() > 0


# ---- torch's own checks ----


def test_opcheck():
    tree = forests()
    torch.library.opcheck(OPS.forest_from_parents.default, (tree.parent,))
    graph, mask = treescan.grid_graph(3, 4), torch.rand(2, 3, 4) < 0.5
    segments = mask.flatten(1).int() - 1
    root = torch.tensor([1], dtype=torch.int32)
    cost = torch.rand(2, graph.num_edges)
    torch.library.opcheck(OPS.minimum_spanning_tree.default, (cost, *graph.arguments, True, root, segments))
    x = torch.randn(2, 3, 7, requires_grad=True)
    torch.library.opcheck(OPS.scan.default, (x, torch.rand_like(x), tree.parent, tree.order, "both"))


def test_vmap_of_masks():
    features, mask = torch.rand(3, 2, 4, 5, 6), torch.rand(3, 2, 5, 6) < 0.7
    build = lambda values, taken: treescan.build_tree(values, mask=taken)[:4]  # noqa: E731
    for actual, expected in zip(torch.func.vmap(build)(features, mask), zip(*map(build, features, mask))):
        assert torch.equal(actual, torch.stack(expected))
