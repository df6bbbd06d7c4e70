"""What lies under a mask reaches no value and no gradient: NaN, infinity, or a number whose square is one."""

import pytest
import torch
from torch.autograd import forward_ad

import treescan
from treescan import Tree, reference
from treescan.nn import TreeEnergyLoss, TreeFilter2d, TreeScan2d, TreeSSM, tree_scanning

DIRECTIONS = ("up", "down", "both")
FILLS = (float("nan"), float("inf"), -float("inf"), 1e38)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HEIGHT, WIDTH = 5, 6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random_mask(batch=2):
    mask = torch.rand(batch, HEIGHT, WIDTH) < 0.7
    mask[0, 0, 0], mask[-1, -1, -1] = True, False
    return mask


def filled_with(values, where, fill):
    """As masked_fill, which refuses what a half type rounds to infinity."""
    return torch.where(where, torch.tensor(fill, dtype=torch.float64).to(values.dtype), values)


def assert_equal(found, wanted):
    """The same numbers, to the last bit."""
    assert found.isfinite().all()
    assert torch.equal(found, wanted)


def check(function, inputs, outside):
    """function(**inputs), a tensor or several, and all first gradients are those of zeros under the mask.

    `outside` maps names of inputs to where they are masked: bool tensors of their shapes. Every one of those is filled in
    turn, and all at once, as is what comes in from behind, at the vertices of the result that are in no tree.
    """
    names, masked = list(inputs), [name for name in outside if name != "result"]
    of_result = outside.get("result")

    def run(fill, filled, behind):
        values = {name: tensor.clone() for name, tensor in inputs.items()}
        for name in masked:
            values[name] = filled_with(values[name], outside[name], fill if name in filled else 0)
        for tensor in values.values():
            tensor.requires_grad_()
        results = function(**values)
        results = results if isinstance(results, tuple) else (results,)
        generator = torch.Generator().manual_seed(1)
        incoming = [torch.randn(result.shape, generator=generator).to(result.dtype) for result in results]
        if of_result is not None:
            incoming[0] = filled_with(incoming[0], of_result, fill if behind else 0)
        gradients = torch.autograd.grad(results, list(values.values()), incoming, materialize_grads=True)
        return [result.detach() for result in results], dict(zip(names, gradients))

    wanted_results, wanted = run(0, (), False)
    if of_result is not None:
        assert (wanted_results[0][of_result.expand_as(wanted_results[0])] == 0).all()
    cases = [((name,), False) for name in masked] + [(masked, False)]
    if of_result is not None:
        cases += [((), True), (masked, True)]
    for fill in FILLS:
        for filled, behind in cases:
            found_results, found = run(fill, filled, behind)
            for result, right in zip(found_results, wanted_results, strict=True):
                assert_equal(result, right)
            for name in names:
                assert_equal(found[name], wanted[name])
                if name in outside:
                    assert (found[name][outside[name].expand_as(found[name])] == 0).all(), name
    # None of that would mean anything if nothing flowed at all.
    assert all(gradient.abs().sum() > 0 for gradient in wanted.values())


# ---- Scans ----


def roots(tree):
    return tree.parent == torch.arange(tree.num_vertices)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("channels", (1, 3, 19))
def test_tree_scan(direction, dtype, channels):
    mask = random_mask()
    tree = treescan.build_tree(torch.rand(2, 3, HEIGHT, WIDTH), mask=mask)
    out = (~mask)[:, None].expand(2, channels, HEIGHT, WIDTH)
    unused = out | roots(tree).view(2, 1, HEIGHT, WIDTH)  # a root has no edge
    shape = (2, channels, HEIGHT, WIDTH)
    inputs = dict(x=torch.randn(shape).to(dtype), weights=torch.rand(shape).to(dtype))
    for layout in (torch.contiguous_format, torch.channels_last):
        given = {name: tensor.contiguous(memory_format=layout) for name, tensor in inputs.items()}
        check(lambda x, weights: treescan.tree_scan(x, weights, tree, direction=direction), given,
              dict(x=out, weights=unused, result=out))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_trees_built_on_the_way(direction):
    mask = random_mask()
    out = (~mask)[:, None].expand(2, 3, HEIGHT, WIDTH)
    inputs = dict(x=torch.randn(2, 3, HEIGHT, WIDTH), weights=torch.rand(2, 3, HEIGHT, WIDTH))
    for metric in ("cosine", "l2", "l1"):
        check(lambda x, weights: treescan.tree_scan(x, weights, mask=mask, direction=direction, metric=metric), inputs,
              dict(x=out, weights=out, result=out))
        check(lambda x, weights: TreeScan2d(direction)(x, weights, tree=treescan.build_tree(x, metric=metric, mask=mask)),
              inputs, dict(x=out, weights=out, result=out))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_in_memory_given(direction):
    mask = random_mask()
    tree = treescan.build_tree(torch.rand(2, 3, HEIGHT, WIDTH), mask=mask)
    x, weights = torch.rand(2, 2, 3, HEIGHT, WIDTH).masked_fill(~mask[:, None], torch.nan)
    out = torch.full_like(x, torch.nan)
    treescan.tree_scan(x, weights, tree, direction=direction, out=out)
    assert_equal(out, treescan.tree_scan(x.nan_to_num(0), weights.nan_to_num(0), tree, direction=direction))


def forest_and_values(fill):
    """A forest with two trees and two vertices in none, and x, weights and two tangents or gradients beside it."""
    tree = Tree.from_parents(torch.tensor([[0, -1, 0, 3, 3, -1, 4]]), forest=True)
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(4, 1, 2, 7, dtype=torch.float64, generator=generator)
    values[..., [1, 5]] = fill
    values[1::2, ..., [0, 3]] = fill  # weights, and their tangents, of roots
    return tree, *values.unbind()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_derivatives_of_all_kinds(direction, fill):
    """Forward mode, second derivatives, and torch.func's transforms."""

    def derivatives(fill):
        tree, x, weights, dx, dw = forest_and_values(fill)
        scan = lambda x, weights: treescan.tree_scan(x, weights, tree, direction=direction)
        loss = lambda x, weights: scan(x, weights).square().sum()
        forward = torch.func.jvp(scan, (x, weights), (dx, dw))
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(scan(forward_ad.make_dual(x, dx), forward_ad.make_dual(weights, dw))).tangent
        inputs, incoming = [values.clone().requires_grad_() for values in (x, weights)], dx.clone().requires_grad_()
        first = torch.autograd.grad(scan(*inputs), inputs, incoming, create_graph=True)
        second = torch.autograd.grad(first, (*inputs, incoming), (dx, dw))
        mapped = torch.func.vmap(torch.func.grad(loss, (0, 1)))(torch.stack((x, 2 * x)), torch.stack((weights, weights / 2)))
        hessian = torch.func.hessian(loss, (0, 1))(x, weights)
        return [*forward, tangent, *(values.detach() for values in first), *second, *mapped, *sum(hessian, ())]

    for found, wanted in zip(derivatives(fill), derivatives(0), strict=True):
        assert_equal(found, wanted)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("scan", (reference.scan, reference.scan_by_paths))
def test_the_reference_scans(scan, direction):
    tree, x, weights, *_ = forest_and_values(0)
    out = (tree.parent < 0)[:, None].expand_as(x)
    check(lambda x, weights: scan(x, weights, tree, direction), dict(x=x, weights=weights),
          dict(x=out, weights=out | roots(tree)[:, None], result=out))


# ---- Selective scans ----


def selective_inputs(dtype, groups=None):
    """u, delta, A, B, C, D, z, delta_bias of a random forest of 12 vertices, the last of which is in no tree."""
    parent = torch.tensor([[0, 0, -1, 1, 1, 5, 5, 6, 4, -1, 8, -1], [2, -1, 2, 3, 3, 4, 4, -1, 6, 6, 9, -1]])
    tree = Tree.from_parents(parent, forest=True)
    length = parent.shape[1]
    by_vertex = (2, 3, length) if groups is None else (2, groups, 3, length)
    inputs = dict(u=torch.randn(2, 4, length), delta=torch.rand(2, 4, length), A=-torch.rand(4, 3),
                  B=torch.randn(by_vertex), C=torch.randn(by_vertex), D=torch.randn(4), z=torch.randn(2, 4, length),
                  delta_bias=torch.randn(4))
    inputs = {name: values if name in ("A", "D", "delta_bias") else values.to(dtype) for name, values in inputs.items()}
    if dtype == torch.float64:
        inputs = {name: values.double() for name, values in inputs.items()}
    out = (parent < 0)[:, None]
    outside = {name: out.expand_as(inputs[name]) for name in ("u", "delta", "z")}
    for name in ("B", "C"):
        outside[name] = out.expand_as(inputs[name]) if groups is None else out[:, None].expand_as(inputs[name])
    return tree, inputs, {**outside, "result": out.expand(2, 4, length)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("groups", (None, 2))
def test_selective_tree_scan(direction, dtype, groups):
    tree, inputs, outside = selective_inputs(dtype, groups)
    for softplus in (True, False):
        check(lambda **given: treescan.selective_tree_scan(**given, tree=tree, delta_softplus=softplus, direction=direction,
                                                           return_last_state=True), inputs, outside)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_reference_selective_scan(direction):
    tree, inputs, outside = selective_inputs(torch.float32)
    check(lambda **given: reference.selective_tree_scan(**given, tree=tree, delta_softplus=True, direction=direction),
          inputs, outside)


@pytest.mark.parametrize("fill", FILLS)
def test_steps_of_sequences_that_wait(fill):
    """What is given to `step` for a sequence that isn't active, and what its state holds."""
    active = torch.tensor([True, False, True])
    generator = torch.Generator().manual_seed(3)
    sizes = dict(u=4, delta=4, B=2, C=2, z=4, features=5)
    token = {name: torch.randn(3, size, generator=generator) for name, size in sizes.items()}
    parameters = dict(A=-torch.rand(4, 2, generator=generator), D=torch.rand(4, generator=generator),
                      delta_bias=torch.rand(4, generator=generator))
    start = treescan.init_state(3, 4, 2, window=2, num_features=5)
    _, before = treescan.step(start, **token, **parameters, delta_softplus=True)

    def run(fill):
        filled = {name: values.masked_fill(~active[:, None], fill) for name, values in token.items()}
        features = filled.pop("features")
        given = {name: values.clone().requires_grad_() for name, values in {**filled, **parameters}.items()}
        h = before.h.masked_fill(~active[:, None, None, None], fill)
        y, after = treescan.step(before._replace(h=h), **given, features=features, active=active, delta_softplus=True)
        loss = y.sum() + after.h[active].square().sum()
        return y.detach(), after.h[active].detach(), *torch.autograd.grad(loss, list(given.values()))

    for found, wanted in zip(run(fill), run(0), strict=True):
        assert_equal(found, wanted)


# ---- Filters and losses ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", ("l2", "l1"))
@pytest.mark.parametrize(("channels", "groups"), [(2, 1), (4, 2), (12, 1), (12, 3)])
def test_tree_filter(dtype, distance, channels, groups):
    mask = random_mask()
    out = (~mask)[:, None].expand(2, 12, HEIGHT, WIDTH)
    module = TreeFilter2d(groups, sigma=2.0, distance=distance)
    inputs = dict(x=torch.randn(2, channels, HEIGHT, WIDTH).to(dtype), embedding=torch.randn(2, 6, HEIGHT, WIDTH).to(dtype))
    outside = dict(x=out[:, :channels], embedding=out[:, :6], result=out[:, :channels])

    def filtered(x, embedding):
        return module(x, embedding, tree=treescan.build_tree(embedding, metric="l2", mask=mask))

    check(filtered, inputs, outside)
    check(lambda x: filtered(x, x), dict(x=inputs["x"]), dict(x=outside["x"], result=outside["result"]))


def test_tree_filter_twice():
    """Second derivatives."""
    mask = random_mask(1)
    features = torch.randn(1, 2, HEIGHT, WIDTH, dtype=torch.float64)
    module = TreeFilter2d(sigma=2.0)

    def derivatives(fill):
        x = features.masked_fill(~mask[:, None], fill).requires_grad_()
        y = module(x, tree=treescan.build_tree(x, metric="l2", mask=mask))
        first, = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return first.detach(), *torch.autograd.grad(first.square().sum(), x)

    for fill in FILLS:
        for found, wanted in zip(derivatives(fill), derivatives(0)):
            assert_equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", (1, 2))
@pytest.mark.parametrize("high", (True, False))
def test_tree_energy_loss(dtype, scale, high):
    """Pixels that don't take part are in no tree and not in the loss."""
    mask = random_mask()
    image = torch.rand(2, 3, HEIGHT, WIDTH).repeat_interleave(scale, 2).repeat_interleave(scale, 3).to(dtype)
    at_image = mask.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    out = (~mask)[:, None]
    inputs = dict(preds=torch.randn(2, 4, HEIGHT, WIDTH).to(dtype))
    if high:
        inputs["high_feats"] = torch.randn(2, 5, HEIGHT, WIDTH).to(dtype)
    outside = {name: out.expand_as(values) for name, values in inputs.items()}
    rois = torch.rand(2, HEIGHT * scale, WIDTH * scale) < 0.8
    for fill in FILLS:
        low_feats = filled_with(image, ~at_image[:, None], fill)

        def loss(preds, high_feats=None):
            return TreeEnergyLoss(0.5)(preds, low_feats, high_feats, rois, mask=at_image)

        check(loss, inputs, outside)
        value = loss(**inputs)
        assert value.dtype == (dtype if dtype == torch.float64 else torch.float32)
        assert_equal(value, TreeEnergyLoss(0.5)(inputs["preds"], image, inputs.get("high_feats"), rois, mask=at_image))


def test_a_mask_of_everything_is_none():
    preds, image, high = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 8, 10), torch.rand(2, 6, 4, 5)
    rois = torch.rand(2, 8, 10) < 0.5
    everything = torch.ones(1, 8, 10, dtype=torch.bool)
    masked, whole = (TreeEnergyLoss()(preds, image, high, rois, mask=mask) for mask in (everything, None))
    assert torch.equal(masked, whole)


def test_errors_of_the_loss():
    arguments = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 8, 10), None, torch.rand(2, 8, 10)
    with pytest.raises(TypeError, match="mask must be a bool tensor, got torch.float32"):
        TreeEnergyLoss()(*arguments, mask=torch.ones(2, 8, 10))
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 8, 10\) as low_feats has.*got \(2, 4, 5\)"):
        TreeEnergyLoss()(*arguments, mask=torch.ones(2, 4, 5, dtype=torch.bool))
    with pytest.raises(TypeError, match="low_feats must be float32.*got torch.uint8"):
        TreeEnergyLoss()(arguments[0], torch.zeros(2, 3, 8, 10, dtype=torch.uint8), *arguments[2:])


# ---- Modules ----


def pixels_outside(mask, channels):
    return (~mask)[..., None].expand(*mask.shape, channels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("states", (1, 2))
@pytest.mark.parametrize("bias", (True, False))
def test_tree_ssm(dtype, states, bias):
    """With all parameters' gradients, which are sums over pixels."""
    mask = random_mask()
    module = TreeSSM(8, states, bias=bias, conv_bias=bias).to(dtype)
    tree = treescan.build_tree(torch.rand(2, 3, HEIGHT, WIDTH), mask=mask)
    parameters = dict(module.named_parameters())
    out = pixels_outside(mask, 8)

    def run(x, **given):
        names = {name.replace("_dot_", "."): values for name, values in given.items()}
        return torch.func.functional_call(module, names, (x, tree))

    inputs = dict(x=torch.randn(2, HEIGHT, WIDTH, 8).to(dtype),
                  **{name.replace(".", "_dot_"): values.detach() for name, values in parameters.items()})
    check(run, inputs, dict(x=out, result=out))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tree_scanning(dtype):
    mask = random_mask()
    tree = treescan.build_tree(torch.rand(2, 3, HEIGHT, WIDTH), mask=mask)
    out = (~mask)[:, None].expand(2, 4, HEIGHT, WIDTH)
    inputs = dict(x=torch.randn(2, 4, HEIGHT, WIDTH), x_proj_weight=torch.randn(1, 3 + 4, 4),
                  dt_projs_weight=torch.randn(1, 4, 3), dt_projs_bias=torch.randn(1, 4), A_logs=torch.rand(4, 2),
                  Ds=torch.randn(4))
    norm = torch.nn.LayerNorm(4).to(dtype)
    check(lambda **given: tree_scanning(**given, out_norm=norm, h_norm=norm, tree=tree),
          {name: values.to(dtype) for name, values in inputs.items()}, dict(x=out, result=pixels_outside(mask, 4)))


# ---- Costs and trees ----


@pytest.mark.parametrize("metric", ("cosine", "l2", "l1"))
@pytest.mark.parametrize("exp", (False, True))
@pytest.mark.parametrize("fill", FILLS)
def test_costs_of_edges_that_nobody_uses(metric, exp, fill):
    """The differentiable edge weights: a tree's edges, used as a scan's weights, while others have masked ends."""
    mask = random_mask()
    graph = treescan.grid_graph(HEIGHT, WIDTH)
    features = torch.randn(2, 3, HEIGHT, WIDTH)

    def run(fill):
        given = features.masked_fill(~mask[:, None], fill).requires_grad_()
        tree = treescan.build_tree(given, graph, metric=metric, mask=mask)
        cost = reference.edge_weights(given, graph, metric, exp=exp)
        weights = cost.gather(1, tree.edge.long().clamp(min=0))[:, None].unflatten(2, (HEIGHT, WIDTH))
        y = treescan.tree_scan(torch.ones_like(weights), weights, tree)
        return y.detach(), *torch.autograd.grad(y.sum(), given)

    for found, wanted in zip(run(fill), run(0), strict=True):
        assert_equal(found, wanted)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_features_decide_nothing(fill, dtype):
    features = torch.randn(2, 3, 20).to(dtype)
    mask = torch.rand(2, 20) < 0.7
    other = filled_with(features, ~mask[:, None], fill)
    for build in (treescan.causal_tree, treescan.flipped_token_tree,
                  lambda values, mask: treescan.build_tree(values, "tokens", mask=mask),
                  lambda values, mask: treescan.causal_tree((values, values.flip(1)), mask=mask)):
        for found, wanted in zip(build(other, mask=mask), build(features, mask=mask)):
            assert found is wanted is None or torch.equal(found, wanted)


@pytest.mark.parametrize("fill", FILLS)
def test_packed_trees_keep_to_themselves(fill):
    """NaN in one sequence or image reaches none of the others."""
    features = torch.randn(1, 3, 12)
    x, weights = torch.randn(2, 1, 2, 12).unbind()
    spoilt = torch.zeros(1, 1, 12, dtype=torch.bool)
    spoilt[..., 4:8] = True
    for options in (dict(cu_seqlens=torch.tensor([0, 4, 8, 12])), dict(graph="grid", sizes=[(2, 2)] * 3)):
        def run(fill):
            tree = treescan.packed_tree(features.masked_fill(spoilt, fill), **options)
            inputs = [values.masked_fill(spoilt, fill).requires_grad_() for values in (x, weights)]
            y = treescan.tree_scan(*inputs, tree)
            gradients = torch.autograd.grad(y[~spoilt.expand_as(y)].sum(), inputs)
            return [values[~spoilt.expand_as(values)] for values in (y.detach(), *gradients)]

        for found, wanted in zip(run(fill), run(0), strict=True):
            assert_equal(found, wanted)


@pytest.mark.parametrize("call", [
    lambda tree: TreeSSM(4)(torch.rand(2, 4, 5, 4), tree),
    lambda tree: TreeFilter2d()(torch.rand(2, 3, 4, 5), tree=tree)])
@pytest.mark.parametrize("size", [(3, 4, 5), (2, 4, 4)])
def test_trees_of_something_else(call, size):
    tree = treescan.build_tree(torch.rand(size[0], 1, *size[1:]))
    with pytest.raises(ValueError, match=r"tree's parent must have shape \(2, 20\) or \(1, 20\) for x of shape .*, got"):
        call(tree)
