"""Step mode: the selective scan token by token equals the scan of all tokens."""

import pytest
import torch

import treescan


def tokens(batch, channels, length, states, groups=1, features=5, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    computed = torch.float64 if dtype == torch.float64 else torch.float32
    shape = (batch, channels, length)
    factor = (batch, states, length) if groups == 1 else (batch, groups, states, length)
    by_token = dict(u=normal(*shape), delta=normal(*shape) - 1, B=normal(*factor), C=normal(*factor), z=normal(*shape))
    parameters = dict(A=-normal(channels, states, dtype=computed).abs(), D=normal(channels, dtype=computed),
                      delta_bias=normal(channels, dtype=computed))
    return by_token, parameters, normal(batch, features, length)


def nearest_parents(features, window):
    """(B, L): the parent of least cost among the tokens before, ties to the lower, straight from the definition."""
    batch, _, length = features.shape
    edges = [(p, t) for t in range(1, length) for p in range(max(0, t - window), t)]
    cost = treescan.edge_weights(features, treescan.edge_graph(torch.tensor(edges, dtype=torch.int32), length))
    parent = torch.zeros(batch, length, dtype=torch.int64)
    for item in range(batch):
        least = {}
        for (p, t), c in zip(edges, cost[item].tolist()):
            if t not in least or c < least[t]:
                least[t], parent[item, t] = c, p
    return parent


def run(by_token, parameters, state, features=None, lengths=None):
    """Steps through all tokens; sequence i ends after lengths[i] of them."""
    outputs = []
    for t in range(by_token["u"].shape[2]):
        token = {name: value[..., t] for name, value in by_token.items()}
        y, state = treescan.step(state, **token, **parameters, delta_softplus=True,
                                 features=None if features is None else features[..., t],
                                 active=None if lengths is None else t < lengths)
        outputs.append(y)
    return torch.stack(outputs, 2), state


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("groups", (1, 2))
def test_chains(dtype, limit, groups):
    by_token, parameters, _ = tokens(3, 6, 40, 4, groups, dtype=dtype)
    chain = treescan.Tree.from_parents((torch.arange(40)[None] - 1).clamp(min=0))
    expected, last = treescan.selective_tree_scan(**by_token, **parameters, tree=chain, delta_softplus=True, return_last_state=True)
    y, state = run(by_token, parameters, treescan.init_state(3, 6, 4, dtype=dtype))
    torch.testing.assert_close(y, expected, rtol=limit, atol=limit)
    torch.testing.assert_close(state.h[:, -1], last, rtol=limit, atol=limit)
    assert y.dtype == dtype and state.length.tolist() == [40] * 3


@pytest.mark.parametrize("window", (2, 3, 7))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16))
def test_causal_trees(window, dtype):
    by_token, parameters, features = tokens(2, 5, 50, 3, dtype=dtype)
    features[1] = features[1].sign()  # ties
    tree = treescan.Tree.from_parents(nearest_parents(features, window))
    expected = treescan.selective_tree_scan(**by_token, **parameters, tree=tree, delta_softplus=True)
    y, _ = run(by_token, parameters, treescan.init_state(2, 5, 3, window=window, num_features=5, dtype=dtype), features)
    limit = 1e-5 if dtype == torch.float32 else 4e-3
    torch.testing.assert_close(y, expected, rtol=limit, atol=limit)


def test_long_sequences_in_constant_memory():
    by_token, parameters, features = tokens(1, 8, 4096, 4)
    tree = treescan.Tree.from_parents(nearest_parents(features, 3))
    expected = treescan.selective_tree_scan(**by_token, **parameters, tree=tree, delta_softplus=True)
    state = treescan.init_state(1, 8, 4, window=3, num_features=5)

    def memory(state):
        return sum(field.untyped_storage().nbytes() for field in state)

    before = memory(state)
    y, state = run(by_token, parameters, state, features)
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert memory(state) == before


def test_sequences_that_end_at_different_times():
    lengths = torch.tensor([0, 1, 7, 12])
    by_token, parameters, features = tokens(4, 3, 12, 2)
    y, state = run(by_token, parameters, treescan.init_state(4, 3, 2, window=2, num_features=5), features, lengths)
    assert state.length.tolist() == lengths.tolist()
    for item, length in enumerate(lengths.tolist()):
        assert (y[item, :, length:] == 0).all()
        alone = {name: value[item:item + 1, ..., :length] for name, value in by_token.items()}
        if length == 0:
            assert all((field[item] == 0).all() for field in state)
            continue
        expected, its_state = run(alone, parameters, treescan.init_state(1, 3, 2, window=2, num_features=5),
                                  features[item:item + 1, :, :length])
        assert torch.equal(y[item:item + 1, :, :length], expected)
        assert all(torch.equal(field[item:item + 1], other) for field, other in zip(state, its_state))


def test_gradients_flow_from_token_to_token():
    by_token, parameters, _ = tokens(2, 3, 6, 2, dtype=torch.float64)
    everything = {**by_token, **parameters}
    for value in everything.values():
        value.requires_grad_()
    chain = treescan.Tree.from_parents((torch.arange(6)[None] - 1).clamp(min=0))
    expected = treescan.selective_tree_scan(**by_token, **parameters, tree=chain, delta_softplus=True)
    y, _ = run(by_token, parameters, treescan.init_state(2, 3, 2, dtype=torch.float64))
    grad = torch.randn_like(y)
    for got, want in zip(torch.autograd.grad(y, list(everything.values()), grad),
                         torch.autograd.grad(expected, list(everything.values()), grad)):
        torch.testing.assert_close(got, want)


def test_the_same_factor_for_all_tokens():
    by_token, parameters, _ = tokens(2, 3, 6, 2)
    B = torch.randn(3, 2)
    chain = treescan.Tree.from_parents((torch.arange(6)[None] - 1).clamp(min=0))
    expected = treescan.selective_tree_scan(**{**by_token, "B": B}, **parameters, tree=chain, delta_softplus=True)
    steps = {**by_token, "B": B[None, ..., None].expand(1, 3, 2, 6)}
    y, _ = run(steps, parameters, treescan.init_state(2, 3, 2))
    torch.testing.assert_close(y, expected)


def test_compile():
    by_token, parameters, features = tokens(2, 3, 4, 2)
    expected, _ = run(by_token, parameters, treescan.init_state(2, 3, 2, window=2, num_features=5), features)
    compiled = torch.compile(treescan.step, fullgraph=True, backend="aot_eager")
    state = treescan.init_state(2, 3, 2, window=2, num_features=5)
    for t in range(4):
        y, state = compiled(state, **{name: value[..., t] for name, value in by_token.items()}, **parameters,
                            delta_softplus=True, features=features[..., t])
        torch.testing.assert_close(y, expected[..., t])


@pytest.mark.parametrize(("change", "error", "message"), [
    (dict(state=None), TypeError, "state must be a SelectiveState, got NoneType"),
    (dict(u=torch.ones(2, 4)), ValueError, r"u must have shape \(B, D\) = \(2, 3\) .*got \(2, 4\)"),
    (dict(u=torch.ones(2, 3).double(), delta=torch.ones(2, 3).double(), z=None), TypeError, "u must be float32 or a half type"),
    (dict(B=torch.ones(2, 5)), ValueError, r"B must have shape .*N = 2.*got"),
    (dict(A=torch.ones(3, 3)), ValueError, r"A must have shape \(D, N\) = \(3, 2\)"),
    (dict(features=None), ValueError, "features must be given, the state has a window of 2"),
    (dict(features=torch.ones(2, 4)), ValueError, r"features must be torch.float32 of shape \(B, F\) = \(2, 5\)"),
    (dict(active=torch.ones(2)), ValueError, r"active must be a bool tensor of shape \(B,\) = \(2,\)"),
])
def test_errors_name_the_argument(change, error, message):
    by_token, parameters, features = tokens(2, 3, 1, 2)
    arguments = {name: value[..., 0] for name, value in by_token.items()}
    arguments.update(parameters, features=features[..., 0], state=treescan.init_state(2, 3, 2, window=2, num_features=5))
    with pytest.raises(error, match=message):
        treescan.step(**{**arguments, **change})


@pytest.mark.parametrize(("sizes", "message"), [
    (dict(batch_size=0), "batch_size must be at least 1, got 0"), (dict(window=0), "window must be at least 1, got 0"),
    (dict(window=2), "num_features must be at least 1, got 0"), (dict(num_features=-1), "num_features must be at least 0, got -1"),
])
def test_errors_of_init_state(sizes, message):
    with pytest.raises(ValueError, match=message):
        treescan.init_state(**{**dict(batch_size=1, channels=1, states=1), **sizes})
    with pytest.raises(TypeError, match="dtype must be float32"):
        treescan.init_state(1, 1, 1, dtype=torch.int32)
