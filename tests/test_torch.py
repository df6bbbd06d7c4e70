"""What torch asks of an op: opcheck, derivatives in every mode, transforms, compilation, export, autocast, strides."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import treescan

pytestmark = pytest.mark.usefixtures("device")

DIRECTIONS = ("up", "down", "both")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
OPS = torch.ops.treescan


def tree_of(batch=2, vertices=6, seed=0):
    """Trees that differ in shape and in root."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    parent = torch.zeros(batch, vertices, dtype=torch.int64)
    for item in range(batch):
        for vertex in range(1, vertices):
            parent[item, vertex] = torch.randint(vertex, (), generator=generator)
    return treescan.Tree.from_parents(parent).reroot(torch.arange(batch) % vertices)


def inputs(*shape, dtype=torch.float64, seed=0, requires_grad=True):
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)
    weights = (torch.rand(shape, dtype=torch.float64, generator=generator) * 1.4 - 0.4).to(dtype)
    return x.requires_grad_(requires_grad), weights.requires_grad_(requires_grad)


def dense_scan(x, weights, tree, direction):
    """The definition, vertex by vertex, in operations that torch differentiates by itself."""
    shape, x, weights = x.shape, x.flatten(2), weights.flatten(2)
    items = []
    for item in range(shape[0]):
        parent = tree.parent[item % tree.batch_size].tolist()
        order = tree.order[item % tree.batch_size].tolist()
        up = list(x[item].unbind(-1))
        w = weights[item].unbind(-1)
        for v in reversed(order[1:]):
            up[parent[v]] = up[parent[v]] + w[v] * up[v]
        out = up if direction == "up" else list(x[item].unbind(-1)) if direction == "down" else list(up)
        for v in order[1:]:
            if direction == "down":
                out[v] = out[v] + w[v] * out[parent[v]]
            elif direction == "both":
                out[v] = up[v] + w[v] * (out[parent[v]] - w[v] * up[v])
        items.append(torch.stack(out, -1))
    return torch.stack(items).reshape(shape)


# ---- opcheck ----


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("requires_grad", (False, True))
@pytest.mark.parametrize("layout", ("contiguous", "channels_last", "expanded", "sliced", "3d"))
def test_opcheck_of_the_scans(direction, requires_grad, layout):
    x, weights = inputs(2, 3, 2, 3, dtype=torch.float32, requires_grad=False)
    if layout == "channels_last":
        x, weights = (t.to(memory_format=torch.channels_last) for t in (x, weights))
    elif layout == "expanded":
        weights = weights[:, :1].expand(2, 3, 2, 3)
    elif layout == "sliced":
        x, weights = (t.repeat(1, 1, 1, 2)[..., ::2] for t in (x, weights))
    elif layout == "3d":
        x, weights = x.flatten(2), weights.flatten(2)
    x, weights = x.requires_grad_(requires_grad), weights.requires_grad_(requires_grad)
    tree = tree_of()
    torch.library.opcheck(OPS.scan.default, (x, weights, tree.parent, tree.order, direction))
    grad = torch.randn_like(x)
    torch.library.opcheck(OPS.scan_backward.default, (grad, x, weights, tree.parent, tree.order, direction))


GRAPHS = {
    "grid": lambda: treescan.grid_graph(2, 3),
    "grid8": lambda: treescan.grid_graph(2, 3, connectivity=8),
    "tokens": lambda: treescan.token_graph(6, window=3),
    "contexts": lambda: treescan.token_graph(6, window=2, context_length=[2, 5]),
    "chain": lambda: treescan.chain_graph(6),
    "edges": lambda: treescan.edge_graph(torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0]]), 6),
    "lists": lambda: treescan.edge_graph(torch.tensor([[[0, 1], [1, 2], [2, 3], [3, 4], [5, 4]]] * 2), 6),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_opcheck_of_the_graph_ops(name):
    graph = GRAPHS[name]().arguments
    features = torch.randn(2, 3, 6, generator=torch.Generator(torch.get_default_device()).manual_seed(0))
    root = torch.tensor([1, 4], dtype=torch.int32)
    torch.library.opcheck(OPS.edge_weights.default, (features, *graph, "l2", False))
    cost = OPS.edge_weights(features, *graph, "l2", False)
    torch.library.opcheck(OPS.minimum_spanning_tree.default, (cost, *graph, True, root))
    torch.library.opcheck(OPS.random_spanning_tree.default, (cost, *graph, 7, root))


def test_opcheck_of_the_tree_ops():
    tree = tree_of()
    root = torch.tensor([3], dtype=torch.int32)
    torch.library.opcheck(OPS.tree_from_edges.default, (tree.edges, root, True))
    torch.library.opcheck(OPS.tree_from_parents.default, (tree.parent, root))
    torch.library.opcheck(OPS.tree_from_parents.default, (tree.parent, None))


# ---- Derivatives ----


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shared", (False, True))
def test_derivatives_of_first_and_second_order(direction, shared):
    tree = tree_of(1 if shared else 2)

    def scan(x, weights):
        return treescan.tree_scan(x, weights, tree, direction=direction)

    arguments = inputs(2, 2, 2, 3)
    assert gradcheck(scan, arguments, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(scan, arguments, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_derivatives_of_third_order(direction):
    tree = tree_of(1, 4)
    x, weights = inputs(1, 1, 4)

    def gradient_norm(x, weights):
        y = treescan.tree_scan(x, weights, tree, direction=direction)
        grads = torch.autograd.grad((y**3).sum(), (x, weights), create_graph=True)
        return sum((grad**2).sum() for grad in grads)

    assert gradgradcheck(gradient_norm, (x, weights))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_values_and_gradients_follow_the_definition(direction, dtype):
    tree = tree_of(3, 20)
    x, weights = inputs(3, 5, 4, 5, dtype=dtype)
    out, expected = treescan.tree_scan(x, weights, tree, direction=direction), dense_scan(x, weights, tree, direction)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for actual, wanted in zip(torch.autograd.grad(out, (x, weights), grad),
                              torch.autograd.grad(expected, (x, weights), grad)):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("wanted", ("x", "weights"))
def test_gradient_of_one_input_alone(direction, wanted):
    tree = tree_of()
    x, weights = inputs(2, 3, 6)
    both = torch.autograd.grad(treescan.tree_scan(x, weights, tree, direction=direction).square().sum(), (x, weights))
    if wanted == "x":
        out = treescan.tree_scan(x, weights.detach(), tree, direction=direction)
        torch.testing.assert_close(torch.autograd.grad(out.square().sum(), x)[0], both[0])
    else:
        out = treescan.tree_scan(x.detach(), weights, tree, direction=direction)
        torch.testing.assert_close(torch.autograd.grad(out.square().sum(), weights)[0], both[1])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_roots_weight_has_no_part_even_if_it_is_nan(direction):
    tree = tree_of(1, 6)
    root = tree.root.item()
    x, weights = inputs(1, 2, 6)
    poisoned = weights.detach().clone()
    poisoned[..., root] = float("nan")
    poisoned.requires_grad_()

    def derivatives(weights):
        out = treescan.tree_scan(x, weights, tree, direction=direction)
        first = torch.autograd.grad(out.square().sum(), (x, weights), create_graph=True)
        second = torch.autograd.grad(sum(grad.square().sum() for grad in first), (x, weights))
        return out, *first, *second

    for actual, expected in zip(derivatives(poisoned), derivatives(weights)):
        torch.testing.assert_close(actual, expected)
    assert (derivatives(poisoned)[2][..., root] == 0).all()


def test_only_the_inputs_and_the_tree_are_saved():
    tree = tree_of()
    x, weights = inputs(2, 3, 6)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        treescan.tree_scan(x, weights, tree)
    assert {tensor.data_ptr() for tensor in saved} == {t.data_ptr() for t in (x, weights, tree.parent, tree.order)}


def test_no_gradient_flows_through_the_tree():
    x, weights = inputs(1, 3, 3, 3)
    guide = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    treescan.tree_scan(x, weights, guide=guide).sum().backward()
    assert guide.grad is None and x.grad is not None
    cost = treescan.edge_weights(guide, treescan.grid_graph(3, 3))
    assert not cost.requires_grad


# ---- Forward mode and torch.func ----


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("entry", ("function", "op"))
@pytest.mark.parametrize("tangents", ("x", "weights", "both"))
def test_forward_mode(direction, entry, tangents):
    tree = tree_of()
    x, weights = inputs(2, 3, 6, requires_grad=False)
    dx, dw = inputs(2, 3, 6, seed=1, requires_grad=False)
    dx = torch.zeros_like(x) if tangents == "weights" else dx
    dw = torch.zeros_like(x) if tangents == "x" else dw
    _, expected = torch.func.jvp(lambda a, b: dense_scan(a, b, tree, direction), (x, weights), (dx, dw))
    with forward_ad.dual_level():
        a = x if tangents == "weights" else forward_ad.make_dual(x, dx)
        b = weights if tangents == "x" else forward_ad.make_dual(weights, dw)
        if entry == "op":
            out = OPS.scan(a, b, tree.parent, tree.order, direction)
        else:
            out = treescan.tree_scan(a, b, tree, direction=direction)
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, expected)
    _, actual = torch.func.jvp(lambda a, b: treescan.tree_scan(a, b, tree, direction=direction), (x, weights), (dx, dw))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_forward_mode_of_the_backward_op(direction):
    tree = tree_of()
    (x, weights), (dx, dw), (grad, dgrad) = (inputs(2, 3, 6, seed=seed, requires_grad=False) for seed in range(3))

    def dense(grad, x, weights):
        return torch.func.vjp(lambda a, b: dense_scan(a, b, tree, direction), x, weights)[1](grad)

    _, expected = torch.func.jvp(dense, (grad, x, weights), (dgrad, dx, dw))
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in ((grad, dgrad), (x, dx), (weights, dw))]
        outputs = OPS.scan_backward(*duals, tree.parent, tree.order, direction)
        for output, wanted in zip(outputs, expected):
            torch.testing.assert_close(forward_ad.unpack_dual(output).tangent, wanted)


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(f, (0, 1)),
    "jacrev": lambda f: torch.func.jacrev(f, (0, 1)),
    "jacfwd": lambda f: torch.func.jacfwd(f, (0, 1)),
    "hessian": lambda f: torch.func.hessian(f, (0, 1)),
    "grad_of_grad": lambda f: torch.func.grad(lambda a, b: torch.func.grad(f)(a, b).square().sum(), (0, 1)),
    "jacfwd_of_jacfwd": lambda f: torch.func.jacfwd(torch.func.jacfwd(f), 1),
    "jacrev_of_jacfwd": lambda f: torch.func.jacrev(torch.func.jacfwd(f), 1),
    "linearize": lambda f: lambda a, b: torch.func.linearize(f, a, b)[1](b, a),
    "vmap_of_grad": lambda f: torch.func.vmap(torch.func.grad(f, (0, 1))),
    "grad_of_vmap": lambda f: torch.func.grad(lambda a, b: torch.func.vmap(f)(a, b).sum(), (0, 1)),
    "vmap_of_jvp": lambda f: torch.func.vmap(lambda a, b: torch.func.jvp(f, (a, b), (b, a))[1]),
    "vmap_of_hessian": lambda f: torch.func.vmap(torch.func.hessian(f, 1)),
    "vmap_of_vmap": lambda f: torch.func.vmap(torch.func.vmap(f)),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_of_torch_func(direction, transform):
    tree = tree_of(1, 4)
    extra = {"vmap_of_vmap": (2, 3)}.get(transform, (3,) if "vmap" in transform else ())
    x, weights = inputs(*extra, 1, 2, 4, requires_grad=False)

    def loss(scan):
        return lambda a, b: scan(a, b, tree, direction=direction).pow(3).sum()

    actual = TRANSFORMS[transform](loss(treescan.tree_scan))(x, weights)
    expected = TRANSFORMS[transform](loss(lambda a, b, tree, direction: dense_scan(a, b, tree, direction)))(x, weights)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("in_dims", ((0, 0), (0, None), (None, 0), (2, 1), (-1, 0)))
@pytest.mark.parametrize("trees", ("shared", "mapped", "mapped_and_batch_of_one"))
def test_vmap(in_dims, trees):
    size, shape = 3, (2, 4, 6)
    tree = tree_of(2, 6)
    made = [tree_of(1 if trees == "mapped_and_batch_of_one" else 2, 6, seed) for seed in range(size)]
    stacked = treescan.Tree(*(torch.stack(fields) for fields in list(zip(*made))[:4]))
    tensors = []
    for at, dim in enumerate(in_dims):
        full = inputs(size, *shape, seed=at, requires_grad=False)[at]
        tensors.append(full[0] if dim is None else full.movedim(0, dim))
    pick = [(lambda i, t=t, d=d: t if d is None else t.select(d, i)) for t, d in zip(tensors, in_dims)]
    mapped = trees != "shared"
    for direction in DIRECTIONS:
        scan = torch.func.vmap(lambda a, b, t: treescan.tree_scan(a, b, t, direction=direction),
                               in_dims=(*in_dims, treescan.Tree(0, 0, 0, 0) if mapped else None))
        actual = scan(*tensors, stacked if mapped else tree)
        expected = torch.stack([treescan.tree_scan(pick[0](i), pick[1](i), made[i] if mapped else tree,
                                                   direction=direction) for i in range(size)])
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_vmap_builds_the_same_trees(name):
    graph = GRAPHS[name]()
    features = torch.randn(3, 2, 4, 6, generator=torch.Generator(torch.get_default_device()).manual_seed(0))
    build = lambda item: treescan.build_tree(item, graph, root=2)[:3]  # noqa: E731
    for actual, expected in zip(torch.func.vmap(build)(features), zip(*map(build, features))):
        assert torch.equal(actual, torch.stack(expected))
    x, weights = inputs(3, 2, 4, 6, requires_grad=False)
    scan = lambda a, b: treescan.tree_scan(a, b, graph)  # noqa: E731
    expected = torch.stack([scan(*pair) for pair in zip(x, weights)])
    torch.testing.assert_close(torch.func.vmap(scan)(x, weights), expected)


def test_vmap_of_edge_lists():
    """A list for each call: beside features that have batches of their own, it is one list for all items."""
    lists = torch.stack([treescan.grid_graph(4, 6).edge_index, treescan.grid_graph(6, 4).edge_index])
    features = torch.randn(2, 3, 4, 24, generator=torch.Generator(torch.get_default_device()).manual_seed(0))
    build = lambda edges, item: treescan.build_tree(item, treescan.edge_graph(edges, 24))[:3]  # noqa: E731
    for dims, edges in ((0, lists), (2, lists.movedim(0, 2))):
        found = torch.func.vmap(build, in_dims=(dims, 0))(edges, features)
        for actual, expected in zip(found, zip(*map(build, lists, features))):
            assert torch.equal(actual, torch.stack(expected))
    each = torch.stack([lists[:1].expand(3, -1, -1), lists[1:].expand(3, -1, -1)])
    for actual, expected in zip(torch.func.vmap(build)(each, features), zip(*map(build, lists, features))):
        assert torch.equal(actual, torch.stack(expected))


# ---- Compilation and export ----


def call_grid(x, weights):
    return treescan.tree_scan(x, weights, graph="grid")


def call_all_kinds(x, weights):
    tokens = treescan.tree_scan(x.flatten(2), weights.flatten(2), graph="tokens", window=2, context_length=(3, 5))
    chain = treescan.tree_scan(x.flatten(2), weights.flatten(2), graph="chain", direction="down")
    tree = treescan.build_tree(x, metric="l1", maximum=True, root=1)
    return tokens + chain + treescan.tree_scan(x, weights, tree, direction="up").flatten(2)


@pytest.mark.parametrize("function", (call_grid, call_all_kinds))
@pytest.mark.parametrize("dynamic", (False, True))
def test_compile_without_a_graph_break(function, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in (3, 4):
        x, weights = inputs(2, 3, size, size + 1, dtype=torch.float32)
        actual, expected = compiled(x, weights), function(x, weights)
        assert torch.equal(actual, expected)
        grad = torch.randn_like(expected)
        for a, b in zip(*(torch.autograd.grad(out, (x, weights), grad) for out in (actual, expected))):
            torch.testing.assert_close(a, b)


def test_compile_with_inductor():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, w: call_grid(x * 2, w.sigmoid()) + 1, fullgraph=True)
    x, weights = inputs(2, 3, 3, 4, dtype=torch.float32, requires_grad=False)
    x = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(compiled(x, weights), call_grid(x * 2, weights.sigmoid()) + 1)


def test_compile_takes_and_returns_trees():
    torch._dynamo.reset()

    def function(x, weights, tree):
        rerooted = tree.reroot(2)
        return treescan.tree_scan(x, weights, rerooted), rerooted, tree.num_vertices + tree.batch_size

    x, weights = inputs(2, 3, 6, requires_grad=False)
    tree = tree_of()
    out, rerooted, count = torch.compile(function, fullgraph=True, backend="aot_eager")(x, weights, tree)
    assert torch.equal(out, treescan.tree_scan(x, weights, tree.reroot(2)))
    assert isinstance(rerooted, treescan.Tree) and torch.equal(rerooted.parent, tree.reroot(2).parent) and count == 8


@pytest.mark.parametrize("transform", ("grad", "jacfwd", "grad_of_grad", "vmap_of_grad", "vmap_of_jvp"))
def test_compile_of_transforms(transform):
    if transform == "jacfwd" and torch.get_default_device().type != "cpu":
        pytest.skip("torch.compile can't trace jacfwd where there is a default device")
    torch._dynamo.reset()
    tree = tree_of(1, 4)
    function = TRANSFORMS[transform](lambda a, b: treescan.tree_scan(a, b, tree).pow(3).sum())
    arguments = inputs(*((3,) if "vmap" in transform else ()), 1, 2, 4, requires_grad=False)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), function(*arguments))


@pytest.mark.parametrize("strict", (False, True))
@pytest.mark.parametrize("function", (call_grid, call_all_kinds))
def test_export(function, strict):
    class Model(torch.nn.Module):
        def forward(self, x, weights):
            return function(x, weights)

    x, weights = inputs(2, 3, 3, 4, dtype=torch.float32, requires_grad=False)
    program = torch.export.export(Model(), (x, weights), strict=strict)
    assert torch.equal(program.module()(x, weights), function(x, weights))


def test_export_of_any_size_with_a_tree_as_input():
    class Model(torch.nn.Module):
        def forward(self, x, weights, tree):
            return treescan.tree_scan(x, weights, tree)

    length = torch.export.Dim("length", min=2)
    dynamic = ({2: length}, {2: length}, treescan.Tree({1: length}, {1: length}, {1: length}, None, {1: length}))
    arguments = (*inputs(2, 3, 6, requires_grad=False), treescan.build_tree(torch.rand(2, 1, 6), "chain"))
    program = torch.export.export(Model(), arguments, dynamic_shapes=dynamic)
    other = (*inputs(2, 3, 9, requires_grad=False), treescan.build_tree(torch.rand(2, 1, 9), "tokens"))
    assert torch.equal(program.module()(*other), treescan.tree_scan(*other))


def test_make_fx_sees_one_op():
    tree = tree_of()
    x, weights = inputs(2, 3, 6, requires_grad=False)
    traced = torch.fx.experimental.proxy_tensor.make_fx(lambda a, b: treescan.tree_scan(a, b, tree))(x, weights)
    assert OPS.scan.default in {node.target for node in traced.graph.nodes}


# ---- Autocast, dtypes, strides, devices ----


def test_autocast_computes_in_float32():
    tree = tree_of()
    x, weights = inputs(2, 3, 6, dtype=torch.float32)
    with torch.autocast(torch.get_default_device().type, dtype=torch.bfloat16):
        out = treescan.tree_scan(x.bfloat16(), weights, tree)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, treescan.tree_scan(x.bfloat16().float(), weights, tree))
        model = torch.nn.Conv2d(3, 3, 1)
        features = model(torch.randn(1, 3, 3, 4))
        assert features.dtype == torch.bfloat16
        treescan.tree_scan(features, features.sigmoid()).sum().backward()
    assert model.weight.grad.abs().sum() > 0
    out.sum().backward()
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_half_types_are_accumulated_in_float32(dtype, direction):
    tree = tree_of(2, 200)
    x, weights = inputs(2, 3, 200, dtype=dtype)
    wide_x, wide_weights = (tensor.detach().float().requires_grad_() for tensor in (x, weights))
    out = treescan.tree_scan(x, weights, tree, direction=direction)
    wide = treescan.tree_scan(wide_x, wide_weights, tree, direction=direction)
    assert out.dtype == dtype and torch.equal(out, wide.to(dtype))
    grad = torch.randn_like(wide).to(dtype)
    narrow_grads = torch.autograd.grad(out, (x, weights), grad)
    wide_grads = torch.autograd.grad(wide, (wide_x, wide_weights), grad.float())
    for actual, expected in zip(narrow_grads, wide_grads):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.float(), expected.to(dtype).float(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_make_no_difference(direction, dtype):
    tree = tree_of(2, 20)
    x, weights = inputs(2, 3, 4, 5, dtype=dtype, requires_grad=False)
    expected = treescan.tree_scan(x, weights, tree, direction=direction)
    last = [t.to(memory_format=torch.channels_last) for t in (x, weights)]
    out = treescan.tree_scan(*last, tree, direction=direction)
    assert torch.equal(out, expected) and out.stride() == last[0].stride()
    views = (
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: t.repeat_interleave(2, 1).repeat_interleave(3, 3)[:, ::2, :, ::3],
        lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    )
    for view in views:
        assert torch.equal(view(x), x) and view(x).stride() != x.stride()
        assert torch.equal(treescan.tree_scan(view(x), view(weights), tree, direction=direction), expected)
    shared = x[:1, :1].expand_as(x)
    assert torch.equal(treescan.tree_scan(shared, shared, tree, direction=direction),
                       treescan.tree_scan(shared.contiguous(), shared.contiguous(), tree, direction=direction))


def test_weights_broadcast_and_their_gradient_is_summed():
    tree = tree_of(1, 12)
    x, _ = inputs(2, 3, 3, 4)
    weights = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    full = weights.detach().repeat(1, 3, 1, 1).requires_grad_()
    out = treescan.tree_scan(x, weights, tree)
    assert torch.equal(out, treescan.tree_scan(x, full, tree))
    out.square().sum().backward()
    treescan.tree_scan(x, full, tree).square().sum().backward()
    torch.testing.assert_close(weights.grad, full.grad.sum(1, keepdim=True))


@pytest.mark.parametrize("shape", ((0, 3, 2, 2), (2, 0, 2, 2), (1, 1, 1, 1), (2, 3, 1, 5), (2, 3, 5, 1)))
def test_small_and_empty_shapes(shape):
    x, weights = inputs(*shape)
    for direction in DIRECTIONS:
        out = treescan.tree_scan(x, weights, direction=direction)
        torch.testing.assert_close(out, dense_scan(x, weights, treescan.build_tree(x), direction) if x.numel() else x)
        grads = torch.autograd.grad(out.square().sum(), (x, weights), create_graph=True)
        second = torch.autograd.grad(sum(grad.square().sum() for grad in grads), (x, weights))
        assert all(grad.shape == shape and grad.isfinite().all() for grad in (*grads, *second))


def test_another_device_is_an_error_and_never_a_copy():
    x = torch.rand(1, 2, 3, 3)
    out = treescan.tree_scan(x.to("meta"), x.to("meta"))
    assert out.device.type == "meta" and out.shape == x.shape
    with pytest.raises(ValueError, match="weights.*device"):
        treescan.tree_scan(x, x.to("meta"))


def test_trees_are_values_that_torch_knows():
    tree = treescan.build_tree(torch.rand(2, 3, 3, 3))
    leaves, spec = torch.utils._pytree.tree_flatten(tree)
    assert len(leaves) == 5 and isinstance(torch.utils._pytree.tree_unflatten(leaves, spec), treescan.Tree)


# ---- Threads ----


def test_threads_follow_torch_until_told_otherwise():
    before = torch.get_num_threads()
    x, weights = inputs(2, 40, 8, 8, dtype=torch.float32)
    try:
        torch.set_num_threads(2)
        assert treescan.get_num_threads() == 2
        expected = treescan.tree_scan(x, weights)
        treescan.set_num_threads(3)
        assert treescan.get_num_threads() == 3
        assert torch.equal(treescan.tree_scan(x, weights), expected)
        torch.set_num_threads(1)
        assert treescan.get_num_threads() == 3
        treescan.set_num_threads(None)
        assert treescan.get_num_threads() == 1
        assert torch.equal(treescan.tree_scan(x, weights), expected)
    finally:
        treescan.set_num_threads(None)
        torch.set_num_threads(before)


@pytest.mark.parametrize("count, error", ((0, ValueError), (-1, ValueError), (1025, ValueError), (1.5, TypeError),
                                          (True, TypeError)))
def test_set_num_threads_refuses(count, error):
    with pytest.raises(error, match="num_threads"):
        treescan.set_num_threads(count)
