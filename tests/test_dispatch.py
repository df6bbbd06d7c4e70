"""Tensors that aren't plain memory, and whoever looks on: every function does for each of its tensors what torch's own do."""

import warnings

import pytest
import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import treescan
from treescan import nn
from treescan.compat import tree_scan as compat

OPS = torch.ops.treescan


def inputs():
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    chain = torch.tensor([[0, 0, 1, 2, 0, 4, 4, 6, 1, 3, 9, 2]])
    tree = treescan.Tree.from_parents(chain)
    edges = treescan.grid_graph(3, 4).edge_index
    return dict(x=rand(1, 2, 3, 4), weights=rand(1, 2, 3, 4), parent=tree.parent, order=tree.order, depth=tree.depth,
                root=tree.root, u=rand(1, 2, 12), delta=rand(1, 2, 12), A=-rand(2, 3), B=rand(1, 3, 12), C=rand(1, 3, 12),
                D=rand(2), z=rand(1, 2, 12), bias=rand(2), cost=rand(1, 17), features=rand(1, 3, 12), edges=edges,
                bounds=torch.tensor([0, 5, 12]), one_root=torch.tensor([2]), context=torch.tensor([7]))


def tree_of(t):
    return treescan.Tree(t["parent"], t["order"], t["depth"], t["root"])


GRID, TOKENS = treescan.grid_graph(3, 4), treescan.token_graph(12, 3)
CALLS = {
    "tree_scan": ("x weights parent order", lambda t: treescan.tree_scan(t["x"], t["weights"], tree_of(t))),
    "tree_scan of a grid": ("x weights", lambda t: treescan.tree_scan(t["x"], t["weights"], guide=t["x"], metric="l2")),
    "its gradients": ("x weights parent order", lambda t: torch.func.vjp(
        lambda x, w: treescan.tree_scan(x, w, tree_of(t)), t["x"], t["weights"])[1](torch.ones(1, 2, 3, 4))),
    "selective_tree_scan": ("u delta A B C D z bias parent order", lambda t: treescan.selective_tree_scan(
        t["u"], t["delta"], t["A"], t["B"], t["C"], tree_of(t), t["D"], t["z"], t["bias"], delta_softplus=True)),
    "step": ("u delta A B C D z bias", lambda t: treescan.step(
        treescan.init_state(1, 2, 3), *(t[k][..., 0] for k in ("u", "delta")), t["A"], t["B"][..., 0], t["C"][..., 0], t["D"],
        t["z"][..., 0], t["bias"])[0]),
    "edge_weights": ("features", lambda t: treescan.edge_weights(t["features"], TOKENS)),
    "edge_weights of a list": ("features edges", lambda t: treescan.edge_weights(
        t["features"], treescan.edge_graph(t["edges"], 12), "l1")),
    "build_tree": ("features one_root", lambda t: treescan.build_tree(t["features"], "tokens", root=t["one_root"])),
    "minimum_spanning_tree": ("cost one_root", lambda t: treescan.minimum_spanning_tree(GRID, t["cost"], root=t["one_root"])),
    "random_spanning_tree": ("cost", lambda t: treescan.random_spanning_tree(GRID, t["cost"], seed=3)),
    "from_parents": ("parent", lambda t: treescan.Tree.from_parents(t["parent"])),
    "reroot": ("parent order one_root", lambda t: tree_of(t).reroot(t["one_root"])),
    "packed_tree": ("features bounds", lambda t: treescan.packed_tree(t["features"], t["bounds"])),
    "causal_tree": ("features context", lambda t: treescan.causal_tree(t["features"], context_length=t["context"])),
    "flipped_token_tree": ("features", lambda t: treescan.flipped_token_tree(t["features"])),
    "TreeFilter2d": ("x weights", lambda t: nn.TreeFilter2d()(t["x"], t["weights"])),
    "TreeSSM": ("x", lambda t: nn.TreeSSM(3, ssm_ratio=1.0)(t["x"].flatten(2).new_ones(1, 3, 4, 3) * t["x"][:, :1, :, :, None][:, 0])),
    "TreeEnergyLoss": ("x weights", lambda t: nn.TreeEnergyLoss()(t["x"], t["weights"], None, torch.ones(1, 3, 4))),
    "compat": ("edges cost", lambda t: compat.mst_forward(t["edges"][None], t["cost"], 12)),
}
ARGUMENTS = [(name, argument) for name, (arguments, _) in CALLS.items() for argument in arguments.split()]


class Wrapper(torch.Tensor):
    """Says that it was asked, and goes on with what it wraps."""

    @staticmethod
    def __new__(cls, plain):
        return torch.Tensor._make_wrapper_subclass(cls, plain.shape, dtype=plain.dtype, strides=plain.stride(), device=plain.device)

    def __init__(self, plain):
        self.plain = plain

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        unwrap = lambda tensor: tensor.plain  # noqa: E731
        return function(*tree_map_only(cls, unwrap, arguments), **tree_map_only(cls, unwrap, keywords or {}))


def in_inference_mode(tensor):
    with torch.inference_mode():
        return tensor.clone()


KINDS = {
    "negated when read": lambda tensor: torch._neg_view(-tensor),
    "an imaginary part": lambda tensor: torch.complex(tensor, -tensor).conj().imag,
    "of inference mode": in_inference_mode,
    "a subclass": lambda tensor: Wrapper(tensor.clone()),
    "a parameter": lambda tensor: torch.nn.Parameter(tensor.clone(), requires_grad=False),
    "expanded": lambda tensor: torch.stack((tensor, tensor))[:1].squeeze(0),
}


def same(found, wanted):
    for a, b in zip(torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(wanted), strict=True):
        if b is None:
            assert a is None
            continue
        a = a.plain if isinstance(a, Wrapper) else a
        torch.testing.assert_close(a.resolve_neg(), b, rtol=0, atol=0, equal_nan=True)


INDICES = ("parent", "order", "edges", "bounds", "one_root", "context")  # of which there are no imaginary parts


@pytest.mark.parametrize(("name", "argument", "kind"), [
    (name, argument, kind) for name, argument in ARGUMENTS for kind in KINDS
    if kind != "an imaginary part" or argument not in INDICES])
def test_tensors_of_every_kind(name, argument, kind):
    given = inputs()
    torch.manual_seed(0)
    wanted = CALLS[name][1](given)
    tensor = KINDS[kind](given[argument])
    assert torch.equal(getattr(tensor, "plain", tensor), given[argument])
    torch.manual_seed(0)
    same(CALLS[name][1](given | {argument: tensor}), wanted)


def test_zeros_without_memory():
    given = inputs()
    zeros = torch._efficientzerotensor(1, 2, 3, 4)
    plain = torch.zeros(1, 2, 3, 4)
    for argument in ("x", "weights"):
        same(CALLS["tree_scan"][1](given | {argument: zeros}), CALLS["tree_scan"][1](given | {argument: plain}))
    flat = torch._efficientzerotensor(1, 2, 12)
    for argument in ("u", "delta", "z"):
        same(CALLS["selective_tree_scan"][1](given | {argument: flat}),
             CALLS["selective_tree_scan"][1](given | {argument: plain.flatten(2)}))


def test_tensors_wrapped_for_functionalisation():
    given = inputs()
    x = torch._to_functional_tensor(given["x"])
    torch._enable_functionalization(reapply_views=True)
    try:
        y = treescan.tree_scan(x, torch._to_functional_tensor(given["weights"]), tree_of(given))
    finally:
        torch._disable_functionalization()
    same(torch._from_functional_tensor(y), CALLS["tree_scan"][1](given))


def other_layouts(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield "sparse", tensor.to_sparse()
        yield "nested", torch.nested.nested_tensor(list(tensor.flatten(0, -2)))
        if tensor.dtype == torch.float32:
            yield "mkldnn", tensor.to_mkldnn()
            yield "quantised", torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
            yield "complex", torch.complex(tensor, tensor).conj()


@pytest.mark.parametrize(("name", "argument"), [
    (name, argument) for name, argument in ARGUMENTS
    if argument in ("x", "weights", "u", "delta", "A", "B", "z", "features", "cost") and name not in ("TreeFilter2d", "TreeSSM", "TreeEnergyLoss", "compat", "its gradients", "step")])
def test_other_layouts_are_refused_by_name(name, argument):
    given = inputs()
    for kind, tensor in other_layouts(given[argument]):
        with pytest.raises((TypeError, ValueError), match=r"^[\w' ]+ must "):
            CALLS[name][1](given | {argument: tensor})
            raise AssertionError(kind)


# ---- Onlookers ----


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.seen.append(str(function))
        return function(*arguments, **(keywords or {}))


class Functions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        self.seen.append(str(function))
        return function(*arguments, **(keywords or {}))


def test_modes_see_the_ops():
    given = inputs()
    for mode in (Calls(), Functions()):
        with mode:
            CALLS["tree_scan"][1](given)
            CALLS["build_tree"][1](given)
        for name in ("scan", "edge_weights", "minimum_spanning_tree"):
            assert f"treescan.{name}.default" in mode.seen


def test_profilers_and_traces_see_the_ops():
    given = inputs()
    with torch.profiler.profile() as profiler:
        CALLS["tree_scan"][1](given)
    assert "treescan::scan" in {event.key for event in profiler.key_averages()}
    traced = torch.jit.trace(lambda x, w: treescan.tree_scan(x, w, tree_of(given)), (given["x"], given["weights"]))
    assert "treescan::scan" in str(traced.graph)
    same(traced(given["x"] + 1, given["weights"]), treescan.tree_scan(given["x"] + 1, given["weights"], tree_of(given)))
    with torch._subclasses.FakeTensorMode() as fake:
        y = treescan.tree_scan(*(fake.from_tensor(given[k]) for k in ("x", "weights")),
                               treescan.Tree(*(fake.from_tensor(f) for f in tree_of(given)[:4])))
        assert isinstance(y, torch._subclasses.FakeTensor) and y.shape == (1, 2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert treescan.tree_scan(given["x"].bfloat16(), given["weights"], tree_of(given)).dtype == torch.float32


def test_a_kernel_that_a_user_puts_in_place_is_called():
    given = inputs()
    library = torch.library.Library("treescan", "IMPL", "AutogradCPU")
    seen = []
    wanted = CALLS["random_spanning_tree"][1](given)

    def spy(*arguments):
        seen.append(arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return OPS.random_spanning_tree(*arguments)

    try:
        library.impl("random_spanning_tree", spy)
        same(CALLS["random_spanning_tree"][1](given), wanted)
    finally:
        library._destroy()
    assert len(seen) == 1


# ---- Writing into given memory ----

WRITES = {
    "tree_scan": lambda t, out: treescan.tree_scan(t["x"], t["weights"], tree_of(t), out=out),
    "the op": lambda t, out: OPS.scan_out(t["x"], t["weights"], t["parent"], t["order"], "both", out=out),
}


def profiled(write):
    def call(t, out):
        with torch.profiler.profile():
            write(t, out)
    return call


WRITES |= {f"{name}, profiled": profiled(write) for name, write in WRITES.items()}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("view", [False, True])
def test_out_counts_as_a_write(name, view):
    """What autograd has saved of the memory is noticed to have changed, through views too, as for torch's own functions."""
    given = inputs()
    base = torch.zeros(2, 2, 3, 4)
    buffer = base[:1] if view else base[:1].clone()
    scale = torch.ones_like(buffer, requires_grad=True)
    loss = (buffer * scale).sum()
    version = buffer._version
    WRITES[name](given, buffer)
    assert buffer._version > version and (base._version > 0) == view
    same(buffer, CALLS["tree_scan"][1](given))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_out_that_is_negated_when_read():
    given = inputs()
    out = torch.complex(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)).conj().imag
    assert out.is_neg()
    treescan.tree_scan(given["x"], given["weights"], tree_of(given), out=out)
    same(out.resolve_neg(), CALLS["tree_scan"][1](given))


def test_out_and_inference_mode():
    given = inputs()
    out = in_inference_mode(given["x"])
    with pytest.raises(RuntimeError, match="out was made in torch.inference_mode"):
        treescan.tree_scan(given["x"], given["weights"], tree_of(given), out=out)
    with torch.inference_mode():
        same(treescan.tree_scan(given["x"], given["weights"], tree_of(given), out=out).clone(), CALLS["tree_scan"][1](given))
        plain = given["x"].clone()
    ordinary = torch.empty(1, 2, 3, 4)
    with torch.inference_mode():
        treescan.tree_scan(plain, given["weights"], tree_of(given), out=ordinary)
    assert ordinary._version > 0


def test_out_has_no_derivative():
    given = inputs()
    out = torch.empty(1, 2, 3, 4)
    for argument in ("x", "weights"):
        wanted = given | {argument: given[argument].clone().requires_grad_()}
        with pytest.raises(RuntimeError, match="out can't be given where a derivative is wanted"):
            WRITES["tree_scan"](wanted, out)
        with torch.no_grad():
            WRITES["tree_scan"](wanted, out)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(given["x"], torch.ones_like(out))
        with pytest.raises(RuntimeError, match="out can't be given where a derivative is wanted"):
            WRITES["tree_scan"](given | {"x": dual}, out)
    with pytest.raises(RuntimeError, match="out can't be given where a derivative is wanted"):
        torch.func.grad(lambda x: WRITES["tree_scan"](given | {"x": x}, out).sum())(given["x"])
    with pytest.raises(RuntimeError):
        torch.vmap(lambda x: treescan.tree_scan(x, given["weights"], tree_of(given), out=out))(torch.rand(3, 1, 2, 3, 4))
    for overlapping in (torch.empty(1, 1, 3, 4).expand(1, 2, 3, 4), given["x"], given["weights"]):
        with pytest.raises(ValueError, match="out|y"):
            WRITES["tree_scan"](given, overlapping)


def test_out_in_compiled_code():
    torch._dynamo.reset()
    given = inputs()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def function(x, weights, out):
        treescan.tree_scan(x, weights, tree_of(given), out=out)
        return out * 2

    out = torch.zeros(1, 2, 3, 4)
    version = out._version
    y = function(given["x"], given["weights"], out)
    same(out, CALLS["tree_scan"][1](given))
    same(y, 2 * out)
    assert out._version > version
    torch.library.opcheck(OPS.scan_out.default, (*(given[k] for k in ("x", "weights", "parent", "order")), "both"),
                          {"out": torch.empty(1, 2, 3, 4)})


# ---- Trees made in inference mode ----


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_trees_of_inference_mode_serve_training(direction):
    given = inputs()
    features = torch.rand(1, 2, 3, 4)
    with torch.inference_mode():
        made = treescan.build_tree(features)
        edges = treescan.edge_graph(GRID.edge_index, 12)
    plain = treescan.build_tree(features)
    assert made.parent.is_inference()

    def everything(tree, graph):
        x, w = (given[k].clone().requires_grad_() for k in ("x", "weights"))
        y = treescan.tree_scan(x, w, tree, direction=direction)
        first = torch.autograd.grad(y.square().sum(), (x, w), create_graph=True)
        second = torch.autograd.grad(first[0].sum() + first[1].sum(), (x, w))
        z = treescan.selective_tree_scan(x, w, given["A"], given["B"].unflatten(2, (3, 4)), given["C"].unflatten(2, (3, 4)), tree,
                                         direction=direction)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(given["x"], torch.ones_like(given["x"]))
            tangent = forward_ad.unpack_dual(treescan.tree_scan(dual, given["weights"], tree, direction=direction)).tangent
        return (y, *first, *second, *torch.autograd.grad(z.sum(), (x, w)), tangent.clone(),
                *torch.autograd.grad(nn.TreeFilter2d()(x, tree=tree).sum(), x),
                *torch.autograd.grad(nn.TreeSSM(2, ssm_ratio=1.0)(x.permute(0, 2, 3, 1), tree=tree).sum(), x),
                treescan.tree_scan(x.flatten(2), w.flatten(2), graph).detach(), tree.reroot(3).parent)

    torch.manual_seed(0)
    wanted = everything(plain, GRID)
    torch.manual_seed(0)
    same(everything(made, edges), wanted)
