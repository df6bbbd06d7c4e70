"""Models in bfloat16 and float16, and under autocast: against the same numbers in float64."""

import math

import pytest
import torch

import treescan
from treescan.compat import MinimumSpanningTree, TreeFilter2D, tree_scan, tree_scan_lan
from treescan.nn import TreeEnergyLoss, TreeFilter2d, TreeSSM, tree_scanning

HALVES = (torch.bfloat16, torch.float16)
MODES = [(dtype, autocast) for dtype in HALVES for autocast in (False, True)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def relative(found, wanted):
    """The largest error, measured against the largest number."""
    return ((found.double() - wanted).abs().max() / wanted.abs().max()).item()


def rounded(module, dtype):
    """Sets a module's parameters to numbers that the half type has, so that rounding them is nobody's error."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.to(dtype))
    return module


# ---- Steps and decays ----


@pytest.mark.parametrize("step", (1e-3, 1e-2, 1e-1))
@pytest.mark.parametrize(("dtype", "autocast"), MODES)
def test_long_rows_decay(dtype, autocast, step):
    """Ones along a row of 2048 pixels, whose sums are geometric series."""
    channels, length = 4, 2048
    # A bias that the half type has, and the step that it stands for.
    bias = torch.full((1, channels), math.log(math.expm1(step))).to(dtype)
    step = math.log1p(math.exp(bias[0, 0].item()))
    x = torch.ones(1, channels, 1, length)
    x_proj = torch.zeros(1, 3, channels)
    x_proj[:, 1:] = 1 / channels  # B = C = 1, and nothing for the step
    parameters = x_proj, torch.zeros(1, channels, 1), bias.float(), torch.zeros(channels, 1), torch.zeros(channels)
    i, decay = torch.arange(length, dtype=torch.float64), math.exp(-step)
    wanted = step * ((1 - decay ** (i + 1)) + (1 - decay ** (length - i))) / (1 - decay) - step

    def run(dtype):
        return tree_scanning(x.to(dtype), *(values.to(dtype) for values in parameters), lambda y: y, lambda h: h)

    with torch.autocast("cpu", dtype, enabled=autocast):
        y = run(torch.float32 if autocast else dtype)
    assert y.dtype == (torch.float32 if autocast else dtype)
    assert ((y[0, 0].double() - wanted[:, None]) / wanted[:, None]).abs().max() < 5e-3


@pytest.mark.parametrize("states", (1, 3))
@pytest.mark.parametrize(("dtype", "autocast"), MODES)
def test_tree_scanning_and_its_gradients(dtype, autocast, states):
    """With numbers that the half type has: what is left is the rounding of projections, of the result and of gradients."""
    channels, rank = 8, 2
    inputs = dict(x=torch.rand(1, channels, 1, 512) + 0.5, x_proj_weight=torch.randn(1, rank + 2 * states, channels) / 8,
                  dt_projs_weight=torch.randn(1, channels, rank) / 4, dt_projs_bias=torch.linspace(-7, -2, channels)[None],
                  A_logs=torch.rand(channels, states), Ds=torch.randn(channels))
    inputs = {name: values.to(dtype) for name, values in inputs.items()}
    tree = treescan.build_tree(torch.rand(1, 1, 512), "chain")
    incoming = torch.randn(1, 1, 512, channels).to(dtype)

    def run(computed, **context):
        given = {name: values.to(computed).requires_grad_() for name, values in inputs.items()}
        norm = torch.nn.LayerNorm(channels).to(computed)
        with torch.autocast("cpu", dtype, enabled=bool(context)):
            y = tree_scanning(**given, out_norm=norm, h_norm=norm, tree=tree)
        return y, *torch.autograd.grad(y, list(given.values()), incoming.to(y.dtype))

    computed = torch.float32 if autocast else dtype
    found = run(computed, autocast=True) if autocast else run(computed)
    for values, wanted, name in zip(found, run(torch.float64), ("y", *inputs), strict=True):
        assert values.dtype == computed
        assert relative(values, wanted) < 0.02, name


@pytest.mark.parametrize(("dtype", "autocast"), MODES)
def test_tree_ssm(dtype, autocast):
    module = rounded(TreeSSM(16, d_state=2), dtype)
    x = torch.randn(1, 1, 1024, 16).to(dtype)
    tree = treescan.build_tree(torch.rand(1, 1, 1024), "chain")
    names = [name for name, _ in module.named_parameters()]

    def run(computed, half):
        model = TreeSSM(16, d_state=2).to(computed)
        model.load_state_dict(module.state_dict())
        given = x.to(computed).requires_grad_()
        with torch.autocast("cpu", dtype, enabled=half and autocast):
            y = model(given, tree)
        return y, *torch.autograd.grad(y.float().square().sum(), (given, *model.parameters()))

    found = run(torch.float32 if autocast else dtype, True)
    assert found[0].dtype == dtype  # the last layer's
    for values, wanted, name in zip(found, run(torch.float64, False), ("y", "x", *names), strict=True):
        assert relative(values, wanted) < (0.02 if name == "y" else 0.05), name


def test_float64_is_computed_in_float64():
    module = TreeSSM(8, d_state=2).double()
    x = torch.randn(1, 3, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        module.A_logs += 1e-9
        changed = module(x)
        module.A_logs -= 1e-9
    assert not torch.equal(changed, module(x))


def test_sums_beyond_float16():
    """States pass 65,504 on the way to a norm that brings them back."""
    module = TreeSSM(4).half()
    with torch.no_grad():
        module.A_logs.fill_(-20)  # next to no decay
        module.dt_projs_bias.fill_(5)
    y = module(torch.full((1, 150, 150, 4), 3.0, dtype=torch.float16))
    assert y.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_a_half_model_compiles(dtype):
    module, x = TreeSSM(8).to(dtype), torch.randn(1, 4, 5, 8, dtype=dtype, requires_grad=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, wanted = ((y, *torch.autograd.grad(y.float().sum(), x)) for y in (compiled(x), module(x)))
    torch.testing.assert_close(found, wanted)
    with torch.autocast("cpu", dtype):
        module, x = module.float(), x.detach().float()
        torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


# ---- Weighted means ----


@pytest.mark.parametrize("dtype", (*HALVES, torch.float32, torch.float64))
@pytest.mark.parametrize("channels", (1, 12))
@pytest.mark.parametrize("side", (300, 257))
def test_a_constant_stays_itself(dtype, channels, side):
    x = torch.full((1, channels, side, side), 0.5, dtype=dtype)
    y = TreeFilter2d()(x)
    assert y.dtype == dtype and (y == 0.5).all()
    edges = MinimumSpanningTree(lambda a, b: (a - b).square().sum(1))(x)
    y = TreeFilter2D()(x, x, edges)
    assert y.dtype == dtype and (y == 0.5).all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("channels", (2, 12))
@pytest.mark.parametrize("scale", (1.0, 1e-3, 300.0))
def test_filters_against_float64(dtype, channels, scale):
    """Also where squared distances pass float16's range, or vanish in it; with gradients."""
    x, embedding = (torch.randn(1, channels, 40, 50) / 2).to(dtype), (torch.randn(1, 4, 40, 50) * scale).to(dtype)
    incoming = torch.randn(1, channels, 40, 50).to(dtype)
    edges = MinimumSpanningTree(lambda a, b: (a - b).square().sum(1))(embedding)
    assert torch.equal(edges, MinimumSpanningTree(lambda a, b: (a - b).square().sum(1))(embedding.float()))
    tree = treescan.build_tree(embedding, metric="l2")
    sigma = 2 * scale**2
    filters = [lambda x, e: TreeFilter2d(sigma=sigma)(x, e, tree=tree), lambda x, e: TreeFilter2D(sigma=sigma)(x, e, edges)]
    for apply in filters:
        def run(computed):
            given = [values.to(computed).requires_grad_() for values in (x, embedding)]
            y = apply(*given)
            return y, *torch.autograd.grad(y, given, incoming.to(computed))

        for found, wanted in zip(run(dtype), run(torch.float64)):
            assert found.dtype == dtype and relative(found, wanted) < 0.01
        with torch.autocast("cpu", dtype):
            assert relative(apply(x, embedding), run(torch.float64)[0]) < 0.01


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("autocast", (False, True))
def test_loss_of_half_logits(dtype, autocast):
    preds, high = torch.randn(1, 3, 60, 70).to(dtype), (torch.randn(1, 5, 60, 70) / 2).to(dtype)
    image, rois = torch.rand(1, 3, 120, 140).to(dtype), torch.rand(1, 120, 140) < 0.9

    def run(computed):
        given = [values.to(computed).requires_grad_() for values in (preds, high)]
        loss = TreeEnergyLoss(0.02)(given[0], image.to(computed), given[1], rois)
        return loss, *torch.autograd.grad(loss * 1000, given)

    wanted = run(torch.float64)
    with torch.autocast("cpu", dtype, enabled=autocast):
        found = run(dtype)
    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    for values, right in zip(found, wanted):
        assert relative(values, right) < 0.01
    flat = torch.zeros(1, 2, 300, 300, dtype=dtype)
    constant = torch.full((1, 3, 300, 300), 0.5, dtype=dtype)
    assert TreeEnergyLoss()(flat, constant, None, torch.ones(1, 300, 300)).abs() < 1e-6


@pytest.mark.parametrize("dtype", HALVES)
def test_the_originals_scans(dtype):
    """Coefficients times weights, and gradients, are formed in float32."""
    graph = treescan.grid_graph(9, 10)
    edges = treescan.minimum_spanning_tree(graph, torch.rand(1, graph.num_edges)).edges
    sorted_tree = tree_scan.bfs_forward(edges, 4)
    feature, grad = (torch.randn(1, 3, 90).to(dtype) for _ in range(2))
    weight, coefficient = (0.9 + torch.rand(1, 3, 90) / 10).to(dtype), 0.99 + torch.rand(1, 90, dtype=torch.float64) / 100
    coefficient = coefficient.float()

    def run(computed):
        values = [tensor.to(computed) for tensor in (feature, weight, grad)]
        feature_, weight_, grad_ = values
        k = coefficient.double() if computed == torch.float64 else coefficient
        forward = tree_scan.tree_scan_refine_forward(feature_, weight_, *sorted_tree, k)
        arguments = feature_, weight_, *sorted_tree, *forward, grad_, k
        states = tree_scan_lan.tree_scan_refine_forward(feature_, weight_, *sorted_tree)
        return [*forward, tree_scan.tree_scan_refine_backward_feature(*arguments),
                tree_scan.tree_scan_refine_backward_edge_weight(*arguments), states,
                *tree_scan_lan.tree_scan_refine_backward_feature(states, weight_, *sorted_tree, grad_)]

    for found, wanted in zip(run(dtype), run(torch.float64), strict=True):
        assert found.dtype == dtype and relative(found, wanted) < (0.01 if dtype == torch.bfloat16 else 0.001)


def test_what_the_root_has_is_not_used():
    edges = torch.tensor([[[0, 1], [1, 2], [1, 3]]])
    tree = tree_scan.bfs_forward(edges, 3)
    feature, grad = torch.randn(2, 1, 2, 4).unbind()

    def run(fill):
        weight, coefficient = torch.full((1, 2, 4), 0.5), torch.full((1, 4), 0.7)
        weight[..., 0] = coefficient[..., 0] = fill
        inputs = feature.clone().requires_grad_(), weight.requires_grad_(), coefficient.requires_grad_()
        out, up = tree_scan.tree_scan_refine_forward(*inputs[:2], *tree, inputs[2])
        arguments = *inputs[:2], *tree, out, up, grad, inputs[2]
        gradients = (tree_scan.tree_scan_refine_backward_edge_weight(*arguments),
                     *torch.autograd.grad((out * grad + up).sum(), inputs))
        return [values.detach() for values in (out, up, *gradients)]

    for found, wanted in zip(run(float("nan")), run(0.0)):
        assert torch.equal(found, wanted)


# ---- Scans differentiated more than once ----


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("direction", ("up", "down", "both"))
def test_gradients_that_can_be_differentiated(dtype, direction):
    """As accurate as those that can't."""
    tree = treescan.build_tree(torch.rand(1, 2, 50, 60))
    x, grad = torch.randn(2, 1, 3, 50, 60).to(dtype)
    weights = (1 - torch.rand(1, 3, 50, 60) / 8).to(dtype)

    def run(computed, again):
        given = [values.to(computed).requires_grad_() for values in (x, weights)]
        y = treescan.tree_scan(*given, tree, direction=direction)
        return torch.autograd.grad(y, given, grad.to(computed), create_graph=again)

    for plain, again, wanted in zip(run(dtype, False), run(dtype, True), run(torch.float64, False)):
        assert plain.dtype == again.dtype == dtype
        assert relative(again, wanted) <= 1.5 * relative(plain, wanted) + 1e-6
    tangents = [torch.randn_like(x) / 8, torch.randn_like(x) / 64]

    def tangent(computed):
        scan = lambda x, weights: treescan.tree_scan(x, weights, tree, direction=direction)
        return torch.func.jvp(scan, (x.to(computed), weights.to(computed)), tuple(t.to(computed) for t in tangents))[1]

    assert relative(tangent(dtype), tangent(torch.float64)) < (0.004 if dtype == torch.bfloat16 else 0.0005)
