"""The modules: values against the reference, gradients, memory layouts, sharing a tree, states."""

import pytest
import torch

import treescan
from treescan import nn, reference


def test_tree_scan2d_is_tree_scan():
    x, weights, guide = (torch.rand(2, c, 4, 5) for c in (3, 3, 7))
    module = nn.TreeScan2d("down", metric="l1", maximum=True, root=3)
    expected = treescan.tree_scan(x, weights, direction="down", guide=guide, metric="l1", maximum=True, root=3)
    assert torch.equal(module(x, weights, guide), expected)
    tree = treescan.build_tree(guide, metric="l1", maximum=True, root=3)
    assert torch.equal(module(x, weights, tree=tree), expected)


def test_tree_filter_against_its_definition():
    torch.manual_seed(0)
    x, embedding = torch.rand(1, 4, 3, 4, dtype=torch.float64), torch.rand(1, 6, 3, 4, dtype=torch.float64)
    module = nn.TreeFilter2d(groups=2, sigma=0.3)
    y = module(x, embedding)
    tree = treescan.build_tree(embedding, metric="l2")
    flat = embedding.flatten(2)
    distance = (flat - flat[..., tree.parent[0].long()]).square().unflatten(1, (2, 3)).sum(2)
    weights = torch.exp(-distance / 0.3).repeat_interleave(2, 1)
    total = reference.scan_by_paths(torch.ones_like(weights), weights, tree)
    expected = reference.scan_by_paths(x.flatten(2), weights, tree) / total
    torch.testing.assert_close(y.flatten(2), expected)


@pytest.mark.parametrize("channels", [3, 12])
@pytest.mark.parametrize("groups", [1, 3])
def test_tree_filter_in_any_memory_layout(channels, groups):
    """The same bits, in memory laid out as x's: few channels, which take another way, and many."""
    x, embedding = torch.rand(2, channels, 5, 7), torch.rand(2, 48, 5, 7)
    module = nn.TreeFilter2d(groups, sigma=0.3)
    y = module(x, embedding)
    assert y.is_contiguous()
    last, apart = x.contiguous(memory_format=torch.channels_last), torch.stack((x, x), -1)[..., 0]
    assert torch.equal(module(apart, embedding), y)
    for item in (slice(None), slice(1)):
        found = module(last[item], embedding.contiguous(memory_format=torch.channels_last)[item])
        assert torch.equal(found, y[item]) and found.is_contiguous(memory_format=torch.channels_last)
        assert found.stride(1) == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_tree_filter_of_few_and_of_many_channels(groups):
    """A channel's result and gradients don't depend on how many others there are."""
    x, embedding, gradient = (torch.rand(2, c, 5, 6, dtype=torch.float64) for c in (4, 6, 4))
    tree = treescan.build_tree(torch.rand(2, 3, 5, 6))
    module = nn.TreeFilter2d(groups, sigma=0.3)

    def run(times):
        few, e = x.unflatten(1, (groups, -1)).clone().requires_grad_(), embedding.clone().requires_grad_()
        y = module(few.repeat(1, 1, times, 1, 1).flatten(1, 2), e, tree=tree)
        y = y.unflatten(1, (groups, -1))[:, :, :few.shape[2]].flatten(1, 2)
        return y, *torch.autograd.grad(y, (few, e), gradient)

    for few, many in zip(run(1), run(4)):
        torch.testing.assert_close(few, many, rtol=1e-12, atol=1e-14)
    assert torch.equal(run(1)[0], run(4)[0])


@pytest.mark.parametrize("channels", [2, 12])
def test_tree_filter_compiles(channels):
    x, embedding = torch.rand(1, channels, 4, 5, requires_grad=True), torch.rand(1, 3, 4, 5, requires_grad=True)
    module = nn.TreeFilter2d(sigma=0.3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for run in (lambda f: f(x), lambda f: f(x, embedding)):
        found, wanted = ((y, *torch.autograd.grad(y.square().sum(), x)) for y in (run(compiled), run(module)))
        torch.testing.assert_close(found, wanted)


def test_tree_filter_keeps_masked_pixels_to_themselves():
    """Whatever is in them: their mean is zero, and no gradient comes from them."""
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    mask = torch.rand(1, 4, 5) < 0.7
    clean = torch.where(mask[:, None], x, 0.0)
    tree = treescan.build_tree(clean, metric="l2", mask=mask)
    wrong = torch.where(mask[:, None], x, torch.nan).requires_grad_()
    clean.requires_grad_()
    module = nn.TreeFilter2d(sigma=0.3)
    inside = mask[:, None].expand_as(x)
    results = []
    for values in (clean, wrong):
        y = module(values, tree=tree)
        results.append((y, torch.autograd.grad(y[inside].square().sum(), values)[0][inside]))
    assert torch.equal(results[0][0], results[1][0]) and (results[0][0][~inside] == 0).all()
    torch.testing.assert_close(results[0][1], results[1][1])


def test_tree_filter_gradients():
    x, embedding = (torch.rand(1, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    tree = treescan.build_tree(embedding.detach(), metric="l2")
    module = nn.TreeFilter2d(groups=2)
    assert torch.autograd.gradcheck(lambda x, e: module(x, e, tree=tree), (x, embedding))


@pytest.mark.parametrize("states", [1, 3])
def test_tree_ssm_gradients(states):
    torch.manual_seed(0)
    module = nn.TreeSSM(4, d_state=states).double()
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    tree = treescan.build_tree(torch.rand(1, 3, 2, 3))
    assert torch.autograd.gradcheck(lambda x: module(x, tree), (x,))


def test_states_add_up():
    """Two equal states are one state with twice the read-out."""
    torch.manual_seed(0)
    one, two = nn.TreeSSM(8), nn.TreeSSM(8, d_state=2)
    state = one.state_dict()
    rank = state["dt_projs_weight"].shape[2]
    r, b, c = state["x_proj_weight"].split([rank, 1, 1], 1)
    two.load_state_dict({**state, "A_logs": state["A_logs"].repeat(1, 2),
                         "x_proj_weight": torch.cat([r, b, b, c / 2, c / 2], 1)})
    x = torch.rand(1, 4, 5, 8)
    torch.testing.assert_close(one(x), two(x))


def test_tree_ssm_returns_its_tree():
    torch.manual_seed(0)
    module, x = nn.TreeSSM(8), torch.rand(2, 5, 6, 8)
    y, tree = module(x, return_tree=True)
    again, same = module(x, tree, return_tree=True)
    assert same is tree and torch.equal(again, y) and torch.equal(module(x), y)
    other = treescan.build_tree(torch.rand(2, 3, 5, 6))
    assert not torch.equal(tree.parent, other.parent) and not torch.equal(module(x, other), y)


def test_tree_ssm_scans_channels_last(monkeypatch):
    """No scan in the block transposes: what it is given has channels next to each other."""
    strides = []
    original = nn.tree_ssm.tree_scan

    def spy(x, weights, *arguments, **options):
        strides.append((x.stride(1), weights.stride(1)))
        return original(x, weights, *arguments, **options)

    monkeypatch.setattr(nn.tree_ssm, "tree_scan", spy)
    nn.TreeSSM(8, d_state=2)(torch.rand(1, 4, 5, 8))
    assert strides == [(1, 1)]


@pytest.mark.parametrize(("build", "message"), [
    (lambda: nn.TreeSSM(0), "d_model must be at least 1, got 0"),
    (lambda: nn.TreeSSM(4, d_conv=2), "d_conv must be odd, got 2"),
    (lambda: nn.TreeSSM(4)(torch.zeros(1, 2, 3, 5)), r"x must have shape \(B, H, W, 4\), got \(1, 2, 3, 5\)"),
    (lambda: nn.TreeFilter2d(sigma=0), "sigma must be > 0, got 0"),
    (lambda: nn.TreeFilter2d(groups=0), "groups must be at least 1, got 0"),
    (lambda: nn.TreeFilter2d(distance="cosine"), "distance must be one of 'l2', 'l1', got 'cosine'"),
    (lambda: nn.TreeFilter2d()(torch.zeros(4, 2, 2)), r"x must have shape \(B, C, H, W\), got \(4, 2, 2\)"),
    (lambda: nn.TreeFilter2d(groups=3)(torch.zeros(1, 4, 2, 2)), "multiple of 3 channels, got 4"),
    (lambda: nn.TreeFilter2d()(torch.zeros(2, 3, 2, 2), torch.zeros(2, 1, 2, 3)),
     r"embedding must have x's batch size, height and width, x has shape \(2, 3, 2, 2\), embedding \(2, 1, 2, 3\)"),
])
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_modules_show_their_options():
    assert repr(nn.TreeScan2d("up", root=3)) == "TreeScan2d(direction='up', metric='cosine', maximum=False, root=3)"
    assert repr(nn.TreeFilter2d(2, 0.5)) == "TreeFilter2d(groups=2, sigma=0.5, distance='l2', metric='l2')"
    assert repr(nn.TreeEnergyLoss(0.1)).startswith("TreeEnergyLoss(\n  sigma=0.1\n")
