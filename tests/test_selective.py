"""The selective scan against its reference, over dtypes, trees, directions, layouts and settings; what torch asks of its ops."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck

import treescan
from treescan import reference

pytestmark = pytest.mark.usefixtures("device")

DIRECTIONS = ("up", "down", "both")
LIMITS = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
OPS = torch.ops.treescan


def forest(batch, vertices):
    """Several roots, and vertices that are in no tree, the last one among them in the first item."""
    parent = torch.tensor([[v if v % 5 == 1 else max(1, v - 2 - v % 3) for v in range(vertices)]] * batch, dtype=torch.int32)
    parent[:, 0] = -1
    parent[0, -1] = -1
    order, depth = [], []
    for item in parent.tolist():
        level = {v: 0 for v, p in enumerate(item) if p == v}
        for v, p in enumerate(item):
            if p >= 0 and p != v:
                level[v] = level[p] + 1
        order.append([v for _, v in sorted((d, v) for v, d in level.items())] + [v for v, p in enumerate(item) if p < 0])
        depth.append([level.get(v, 0) for v in range(vertices)])
    order = torch.tensor(order, dtype=torch.int32)
    return treescan.Tree(parent, order, torch.tensor(depth, dtype=torch.int32), order[:, 0])


def tree_of(kind, batch, vertices, seed=0):
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    token = torch.arange(vertices)
    if kind == "forest":
        return forest(batch, vertices)
    if kind == "grid":
        height = next(h for h in range(int(vertices**0.5), 0, -1) if vertices % h == 0)
        return treescan.build_tree(torch.rand(batch, 3, height, vertices // height, generator=generator))
    parent = {
        "chain": (token - 1).clamp(min=0).expand(1, -1),
        "star": torch.zeros(1, vertices, dtype=torch.int64),
        "causal": (token - torch.randint(1, 4, (batch, vertices), generator=generator)).clamp(min=0),
        "prefix": ((token - 1) // 3).clamp(min=0).expand(1, -1),
        "random": (torch.rand(batch, vertices, generator=generator) * token).long(),
    }[kind]
    tree = treescan.Tree.from_parents(parent)
    return tree.reroot(torch.arange(batch) + 1) if kind == "random" and vertices > batch else tree


def inputs(batch=2, channels=3, vertices=9, states=2, groups=1, dtype=torch.float64, leave_out=(), seed=0):
    """All arguments by name but the tree. groups=0: B and C are the same for all vertices."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    computed = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def factor():
        if groups == 0:
            return normal(channels, states, dtype=computed)
        return normal(batch, states, vertices) if groups == 1 else normal(batch, groups, states, vertices)

    shape = (batch, channels, vertices)
    values = dict(u=normal(*shape), delta=0.5 * normal(*shape).abs(), A=-2 * normal(channels, states, dtype=computed).abs(), B=factor(),
                  C=factor(), D=normal(channels, dtype=computed), z=normal(*shape),
                  delta_bias=normal(channels, dtype=computed).abs())
    return {name: value.requires_grad_() for name, value in values.items() if name not in leave_out}


def assert_near(actual, expected, limit, name=""):
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    assert actual.shape == expected.shape, name
    assert (actual.double() - expected.double()).abs().max().item() <= limit * scale if expected.numel() else True, name


def compare(values, tree, direction="down", softplus=True, limit=None):
    dtype = values["u"].dtype
    options = dict(tree=tree, delta_softplus=softplus, direction=direction, return_last_state=True)
    outputs = treescan.selective_tree_scan(**values, **options)
    # The reference computes in float64 what the half types hold, so that only the operator's own errors count.
    exact = {name: value.detach().double().requires_grad_() for name, value in values.items()}
    expected = reference.selective_tree_scan(**exact, **options)
    for i in range(2):
        assert_near(outputs[i], expected[i], limit or LIMITS[dtype], f"output {i}")
    grads = [torch.randn(output.shape, generator=torch.Generator(torch.get_default_device()).manual_seed(1)).to(output.dtype) for output in outputs]
    actual = torch.autograd.grad(outputs, list(values.values()), grads)
    wanted = torch.autograd.grad(expected, list(exact.values()), [grad.double() for grad in grads],
                                 materialize_grads=True)
    for name, got, want in zip(values, actual, wanted):
        assert got.dtype == values[name].dtype
        assert_near(got, want, limit or LIMITS[dtype], name)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", ("chain", "causal", "prefix", "grid", "star", "random"))
def test_reference_on_every_tree(kind, direction):
    for vertices, states in ((35, 5), (1, 1), (2, 16)):
        compare(inputs(2, 5, vertices, states, dtype=torch.float32), tree_of(kind, 2, vertices), direction)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", LIMITS)
def test_reference_in_every_dtype(dtype, direction):
    for channels, states, groups, left_out in ((1, 1, 1, ()), (17, 2, 1, ("z",)), (18, 16, 2, ("D",)), (33, 17, 0, ("delta_bias",)),
                                               (35, 5, 5, ("D", "z", "delta_bias"))):
        values = inputs(2, channels, 15, states, groups, dtype, left_out)
        compare(values, tree_of("random", 2, 15), direction, softplus=groups != 1)


def test_factors_of_two_kinds():
    values = inputs(2, 6, 9, 3, 2)
    for name in ("B", "C"):
        compare({**values, name: inputs(2, 6, 9, 3, 0)[name]}, tree_of("causal", 2, 9))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_forests(direction):
    """Every tree of a forest is scanned by itself, and vertices in none give zeros, and get them."""
    vertices, tree = 23, forest(2, 23)
    values = inputs(2, 5, vertices, 3)
    y, last = treescan.selective_tree_scan(**values, tree=tree, delta_softplus=True, direction=direction, return_last_state=True)
    grad = torch.randn_like(y)
    grads = dict(zip(values, torch.autograd.grad(y, list(values.values()), grad)))
    sums = {name: torch.zeros_like(value) for name, value in values.items()}
    for item in range(2):
        parent = tree.parent[item].tolist()
        top = [v if p < 0 or p == v else None for v, p in enumerate(parent)]
        for v in range(vertices):
            top[v] = v if top[v] is not None else top[parent[v]]
        for root in set(top):
            members = [v for v in range(vertices) if top[v] == root]
            if parent[root] < 0:
                assert (y[item, :, members] == 0).all() and (grads["z"][item, :, members] == 0).all()
                assert (grads["B"][item, :, members] == 0).all() and (grads["u"][item, :, members] == 0).all()
                continue
            alone = treescan.Tree.from_parents(torch.tensor([[members.index(parent[v]) for v in members]]))
            part = {name: value.detach()[item:item + 1, ..., members] if value.ndim == 3 else value.detach()
                    for name, value in values.items()}
            part = {name: value.requires_grad_() for name, value in part.items()}
            expected = reference.selective_tree_scan(**part, tree=alone, delta_softplus=True, direction=direction)
            torch.testing.assert_close(y[item:item + 1, :, members], expected)
            found = torch.autograd.grad(expected, list(part.values()), grad[item:item + 1, :, members],
                                        materialize_grads=True)
            for name, got in zip(part, found):
                if got.ndim == 3:
                    sums[name][item, :, members] += got[0]
                else:
                    sums[name] += got
    for name in values:
        torch.testing.assert_close(grads[name], sums[name])
    assert (last[0] == 0).all() and (last[1] != 0).any()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", ("chain", "causal", "prefix", "grid"))
def test_derivatives(kind, direction):
    tree = tree_of(kind, 2, 6)
    for groups in (0, 2):
        values = inputs(2, 2, 6, 2, groups)

        def scan(*tensors):
            return treescan.selective_tree_scan(**dict(zip(NAMES, tensors)), tree=tree, delta_softplus=True,
                                                direction=direction, return_last_state=True)

        assert gradcheck(scan, tuple(values.values()))


def test_every_gradient_by_itself():
    values, tree = inputs(), tree_of("causal", 2, 9)
    y = treescan.selective_tree_scan(**values, tree=tree)
    together = torch.autograd.grad(y.square().sum(), list(values.values()))
    for name, expected in zip(values, together):
        one = {other: value.detach().requires_grad_(other == name) for other, value in values.items()}
        y = treescan.selective_tree_scan(**one, tree=tree)
        assert torch.equal(torch.autograd.grad(y.square().sum(), one[name])[0], expected)


LAYOUTS = {
    "channels last": lambda t: t.transpose(1, -1).contiguous().transpose(1, -1),
    "every other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "backwards in memory": lambda t: t.flip(-1).contiguous().flip(-1),
    "of one item": lambda t: t[:1].expand_as(t),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_strides(layout, dtype):
    values = {name: value.detach() for name, value in inputs(2, 17, 11, 3, 1, dtype).items()}
    moved = {name: LAYOUTS[layout](value) if value.ndim == 3 else value.mT.contiguous().mT if value.ndim == 2 else value
             for name, value in values.items()}
    results = []
    for given in (moved, {name: value.clone(memory_format=torch.contiguous_format) for name, value in moved.items()}):
        given = {name: value.requires_grad_() for name, value in given.items()}
        y = treescan.selective_tree_scan(**given, tree=tree_of("random", 2, 11), direction="both")
        results.append((y, *torch.autograd.grad(y, list(given.values()), torch.ones_like(y))))
    for moved_result, result in zip(*results):
        assert torch.equal(moved_result, result)


def test_grids_take_images():
    values = inputs(2, 5, 12, 3)
    images = {name: value.unflatten(2, (3, 4)) if value.ndim == 3 else value for name, value in values.items()}
    grouped = {**images, "B": images["B"][:, None], "C": images["C"][:, None]}
    tree = tree_of("grid", 2, 12)
    flat = treescan.selective_tree_scan(**values, tree=tree, direction="both")
    for given in (images, grouped):
        assert torch.equal(treescan.selective_tree_scan(**given, tree=tree, direction="both"), flat.unflatten(2, (3, 4)))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16))
def test_bits_do_not_depend_on_threads(dtype, direction):
    tree = tree_of("random", 3, 301)
    values = inputs(3, 83, 301, 5, 1, dtype)

    def bits():
        y, last = treescan.selective_tree_scan(**values, tree=tree, delta_softplus=True, direction=direction,
                                               return_last_state=True)
        return (y, last, *torch.autograd.grad((y, last), list(values.values()), (torch.ones_like(y), torch.ones_like(last))))

    first = bits()
    try:
        for threads in (1, 2, 7):
            treescan.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(first, bits())), threads
    finally:
        treescan.set_num_threads(None)


def test_long_trees_are_swept_a_few_states_at_a_time():
    """Trees so long that not all states wait in the scratch memory at once, and rings so wide that they don't fit."""
    for kind, vertices in (("causal", 9001), ("star", 5000)):
        tree = tree_of(kind, 1, vertices)
        values = inputs(1, 3, vertices, 7)
        for direction in DIRECTIONS:
            step = torch.nn.functional.softplus(values["delta"] + values["delta_bias"][:, None])
            h = treescan.tree_scan(((step * values["u"])[:, :, None] * values["B"][:, None]).flatten(1, 2),
                                   torch.exp(step[:, :, None] * values["A"][:, :, None]).flatten(1, 2), tree, direction=direction)
            expected = (h.unflatten(1, (3, 7)) * values["C"][:, None]).sum(2)
            expected = (expected + values["D"][:, None] * values["u"]) * torch.nn.functional.silu(values["z"])
            y = treescan.selective_tree_scan(**values, tree=tree, delta_softplus=True, direction=direction)
            torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
            grad = torch.randn_like(y)
            for got, want in zip(torch.autograd.grad(y, list(values.values()), grad),
                                 torch.autograd.grad(expected, list(values.values()), grad)):
                torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_elementary_functions(dtype):
    """exp, softplus and silu by themselves: a state handed down once, a step, a gate."""
    x = torch.cat((torch.linspace(-110, 88, 40001, dtype=torch.float64), torch.linspace(-1, 1, 20001, dtype=torch.float64),
                   torch.tensor([-1e4, -745.0, 0.0, -0.0, 95.0, 1e4, float("inf"), float("-inf"), float("nan")]))).to(dtype)
    count = x.numel()
    one = torch.ones(1, count, 2, dtype=dtype)
    chain = tree_of("chain", 1, 2)

    def scanned(u, delta, **more):
        single = torch.ones(1, 1, dtype=dtype).expand(count, 1)
        return treescan.selective_tree_scan(u, delta, more.pop("A", single), single, single, chain, **more)[0]

    resolution = torch.finfo(dtype).eps
    # The root's state is 1, and its child has no input of its own.
    u = one * torch.tensor([1.0, 0.0], dtype=dtype)
    handed = scanned(u, one, A=x[:, None])[:, 1]
    exact = x.double().exp()
    assert torch.equal(handed.isnan(), x.isnan())
    normal = (exact < torch.finfo(dtype).max) & (exact > torch.finfo(dtype).tiny)
    assert ((handed.double() - exact).abs() <= 1.5 * resolution * exact)[normal].all()
    assert (handed[exact > torch.finfo(dtype).max] == float("inf")).all() and (handed[x < -746] == 0).all()
    # The root gives its step, times u.
    step = scanned(one, x[None, :, None].expand(1, -1, 2), delta_softplus=True)[:, 0]
    exact = torch.nn.functional.softplus(x.double(), threshold=1000)
    assert torch.equal(step.isnan(), x.isnan())
    normal = exact.isfinite() & (exact > torch.finfo(dtype).tiny)
    assert ((step.double() - exact).abs() <= 4 * resolution * exact)[normal].all()
    gated = scanned(one, one, z=x[None, :, None].expand(1, -1, 2).contiguous())[:, 0]
    exact = torch.nn.functional.silu(x.double())
    finite = exact.isfinite() & (exact.abs() > torch.finfo(dtype).tiny) & (x.double().exp() > torch.finfo(dtype).tiny)
    assert ((gated.double() - exact).abs() <= 4 * resolution * exact.abs())[finite].all()


# ---- torch ----


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("requires_grad", (False, True))
def test_opcheck(direction, requires_grad):
    tree = tree_of("causal", 2, 9)
    for groups, left_out in ((0, ()), (1, ("D", "z", "delta_bias"))):
        values = inputs(2, 3, 9, 2, groups, torch.float32, left_out)
        tensors = [values[name].detach().requires_grad_(requires_grad) if name in values else None for name in NAMES]
        for at in (3, 4):
            if tensors[at].ndim == 3:
                tensors[at] = tensors[at].detach()[:, None].requires_grad_(requires_grad)
        arguments = (*tensors, tree.parent, tree.order, True, direction)
        torch.library.opcheck(OPS.selective_scan.default, arguments)
        y, last = OPS.selective_scan(*arguments)
        detached = [None if tensor is None else tensor.detach() for tensor in tensors]
        torch.library.opcheck(OPS.selective_scan_backward.default,
                              (torch.randn_like(y), None, *detached, tree.parent, tree.order, True, direction))


def test_what_has_no_derivative_raises():
    values, tree = inputs(), tree_of("causal", 2, 9)
    y = treescan.selective_tree_scan(**values, tree=tree)
    (grad,) = torch.autograd.grad(y.square().sum(), values["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(grad.sum(), values["u"])
    for name in NAMES:
        detached = {other: value.detach() for other, value in values.items()}
        with forward_ad.dual_level():
            detached[name] = forward_ad.make_dual(detached[name], torch.ones_like(detached[name]))
            with pytest.raises(RuntimeError, match="no forward-mode derivative"):
                treescan.selective_tree_scan(**detached, tree=tree)
    plain = {name: value.detach() for name, value in values.items() if name != "u"}
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(lambda u: treescan.selective_tree_scan(u, **plain, tree=tree), (values["u"].detach(),),
                       (torch.ones_like(values["u"]),))


def test_torch_func_and_vmap():
    values, tree = inputs(), tree_of("causal", 1, 9)
    plain = {name: value.detach() for name, value in values.items() if name != "u"}

    def loss(u):
        return treescan.selective_tree_scan(u, **plain, tree=tree).square().sum()

    u = values["u"]
    (expected,) = torch.autograd.grad(loss(u), u)
    torch.testing.assert_close(torch.func.grad(loss)(u.detach()), expected)
    several = torch.randn(3, *u.shape, dtype=u.dtype)
    mapped = torch.vmap(lambda u: treescan.selective_tree_scan(u, **plain, tree=tree))(several)
    torch.testing.assert_close(mapped, torch.stack([treescan.selective_tree_scan(u, **plain, tree=tree) for u in several]))


def test_autocast():
    tree = tree_of("chain", 1, 9)
    values = {name: value.detach() for name, value in inputs(dtype=torch.float32).items()}
    mixed = {**values, "u": values["u"].bfloat16(), "delta": values["delta"].bfloat16()}
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        y = treescan.selective_tree_scan(**mixed, tree=tree)
    assert y.dtype == torch.float32
    mixed = {name: value.float() for name, value in mixed.items()}
    assert torch.equal(y, treescan.selective_tree_scan(**mixed, tree=tree))


class Model(torch.nn.Module):
    def forward(self, u, delta, A, B, C, D, z, delta_bias, parent):
        tree = treescan.Tree.from_parents(parent)
        return treescan.selective_tree_scan(u, delta, A, B, C, tree, D, z, delta_bias, True, "both")


def test_compile_and_export():
    model = Model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for batch, vertices in ((2, 9), (3, 14)):
        values = inputs(batch, 3, vertices, 2, dtype=torch.float32)
        parent = tree_of("causal", batch, vertices).parent
        y, expected = compiled(*values.values(), parent), model(*values.values(), parent)
        torch.testing.assert_close(y, expected)
        for got, want in zip(torch.autograd.grad(y.sum(), list(values.values())),
                             torch.autograd.grad(expected.sum(), list(values.values()))):
            torch.testing.assert_close(got, want)
    arguments = (*(value.detach() for value in values.values()), parent)
    exported = torch.export.export(model, arguments)
    torch.testing.assert_close(exported.module()(*arguments), expected)


def test_checkpointing():
    values, tree = inputs(), tree_of("causal", 2, 9)

    def scan(*tensors):
        return treescan.selective_tree_scan(**dict(zip(NAMES, tensors)), tree=tree)

    direct = torch.autograd.grad(scan(*values.values()).square().sum(), list(values.values()))
    y = torch.utils.checkpoint.checkpoint(scan, *values.values(), use_reentrant=False)
    for got, want in zip(torch.autograd.grad(y.square().sum(), list(values.values())), direct):
        assert torch.equal(got, want)


def test_empty_batches():
    values = inputs(0, 3, 9, 2)
    y = treescan.selective_tree_scan(**values, tree=tree_of("chain", 1, 9))
    assert y.shape == (0, 3, 9)
    for name, grad in zip(values, torch.autograd.grad(y.sum(), list(values.values()))):
        assert grad.shape == values[name].shape and (grad == 0).all()


# ---- Errors ----


@pytest.mark.parametrize(("name", "value", "error", "message"), [
    ("u", torch.ones(2, 3), ValueError, r"u must have shape"),
    ("u", 1.0, TypeError, r"u must be a tensor, got float"),
    ("delta", None, TypeError, r"delta must be a tensor, got NoneType"),
    ("z", torch.ones(2, 3, 9, device="meta"), ValueError, r"z must be on u's device .*, got meta"),
    ("delta", torch.ones(2, 3, 8), ValueError, r"delta must have u's shape \(2, 3, 9\), got \(2, 3, 8\)"),
    ("delta", torch.ones(2, 3, 9).double(), TypeError, r"delta must have u's dtype torch.float32, got torch.float64"),
    ("A", torch.ones(3, 2, dtype=torch.complex64), TypeError, r"A must be real"),
    ("A", torch.ones(2, 3), ValueError, r"A must have shape \(D, N\) = \(3, N\).*got \(2, 3\)"),
    ("A", torch.ones(3, 0), ValueError, r"A must have at least one state"),
    ("B", torch.ones(2, 3, 9), ValueError, r"B must have shape .* N = 2.*got \(2, 3, 9\)"),
    ("B", torch.ones(2, 2, 2, 9), ValueError, r"B must have shape .*divisor.*got \(2, 2, 2, 9\)"),
    ("C", torch.ones(2, 3, 2, 9), ValueError, r"C must have as many groups as B, 1, got 3"),
    ("C", torch.ones(3, 1), ValueError, r"C must have shape \(D, N\) = \(3, 2\)"),
    ("D", torch.ones(2), ValueError, r"D must have shape \(D,\) = \(3,\)"),
    ("D", torch.ones(3, dtype=torch.int32), TypeError, r"D must be float32.*got torch.int32"),
    ("z", torch.ones(2, 3, 1), ValueError, r"z must have u's shape"),
    ("delta_bias", torch.ones(3, 1), ValueError, r"delta_bias must have shape"),
    ("tree", "grid", TypeError, r"tree must be a Tree, got str"),
    ("tree", tree_of("chain", 1, 8), ValueError, r"tree's parent must have shape \(2, 9\) or \(1, 9\).*got \(1, 8\)"),
    ("direction", "sideways", ValueError, r"direction must be one of 'up', 'down', 'both', got 'sideways'"),
])
def test_errors_name_the_argument(name, value, error, message):
    if isinstance(value, torch.Tensor) and not value.is_meta:
        value = value.to(torch.get_default_device())
    values = {**inputs(dtype=torch.float32), "tree": tree_of("chain", 1, 9), name: value}
    with pytest.raises(error, match=message):
        treescan.selective_tree_scan(**values)


def test_equals_mamba_along_a_chain():
    """transformers' Mamba mixer in plain torch, with the scan between its projections taken from here: outputs and
    gradients."""
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    torch.manual_seed(0)
    mixer = MambaMixer(MambaConfig(hidden_size=12, state_size=5), layer_idx=0)
    x = torch.randn(2, 33, 12, requires_grad=True)
    tree = treescan.Tree.from_parents((torch.arange(33)[None] - 1).clamp(min=0))

    def ours(x):
        u, z = mixer.in_proj(x).transpose(1, 2).chunk(2, 1)
        u = mixer.act(mixer.conv1d(u)[..., :33])
        sizes = [mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size]
        delta, B, C = mixer.x_proj(u.transpose(1, 2)).split(sizes, -1)
        y = treescan.selective_tree_scan(u, mixer.dt_proj.weight @ delta.transpose(1, 2), -mixer.A_log.exp(),
                                         B.transpose(1, 2), C.transpose(1, 2), tree, mixer.D, z, mixer.dt_proj.bias, True)
        return mixer.out_proj(y.transpose(1, 2))

    inputs = [x, *mixer.parameters()]
    results = []
    for run in (ours, mixer):
        y = run(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for mine, theirs in zip(*results):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
