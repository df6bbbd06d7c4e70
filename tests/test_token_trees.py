"""Causal trees, the originals' flipped trees, prefix trees, and packed sequences and images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import treescan
from treescan import Tree, causal_tree, packed_tree, reference

DIRECTIONS = ("up", "down", "both")
GOLDEN = Path(__file__).parent / "data" / "golden"


def bits(value):
    return value.detach().contiguous().flatten().view(torch.uint8)


def same(*pairs):
    return all(torch.equal(bits(a), bits(b)) for a, b in zip(*pairs, strict=True))


# ---- Causal trees ----


def naive_causal_parents(features, window, metric):
    """By definition, from costs as the library has them, so that ties and NaN are decided alike."""
    length = features.shape[2]
    graph = treescan.token_graph(length, window)
    rows = []
    for costs in treescan.edge_weights(features, graph, metric).tolist():
        candidates = [[] for _ in range(length)]
        for (lower, upper), cost in zip(graph.edge_index.tolist(), costs):
            candidates[upper].append((cost != cost, 0 if cost != cost else cost, lower))
        rows.append([0] + [min(found)[2] for found in candidates[1:]])
    return torch.tensor(rows, dtype=torch.int32)


@pytest.mark.parametrize("metric", ("cosine", "l2", "l1"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16))
@pytest.mark.parametrize(("length", "window"), [(1, 3), (2, 1), (5, 7), (40, 1), (40, 4), (9, 8)])
def test_causal_trees_follow_the_definition(length, window, dtype, metric):
    distinct = torch.randn(2, 3, length).to(dtype)
    ties = torch.randint(0, 2, (2, 2, length)).to(dtype)
    special = distinct * torch.tensor([1.0, 0.0, float("inf"), float("nan")]).to(dtype)[torch.randint(0, 4, (2, 3, length))]
    for features in (distinct, ties, special):
        tree = causal_tree(features, window, metric)
        assert torch.equal(tree.parent, naive_causal_parents(features, window, metric))
        tree.validate()
        apart = features.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(causal_tree(apart, window, metric).parent, tree.parent)


def test_infinite_costs_come_before_nan():
    features = torch.tensor([[[float("nan"), 0.0, 3e38]]])
    assert causal_tree(features, 2, "l2").parent.tolist() == [[0, 0, 1]]  # (3e38)^2 overflows, the other is NaN
    assert causal_tree(torch.zeros(1, 1, 3), 2, "l2").parent.tolist() == [[0, 0, 0]]  # the earliest of equals


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 99), st.data())
def test_no_later_token_changes_an_earlier_output(length, window, seed, data):
    generator = torch.Generator().manual_seed(seed)
    features, x, weights = torch.randn(3, 1, 5, length, generator=generator).unbind()
    at = data.draw(st.integers(1, length - 1))

    def run(features, x, weights):
        tree = causal_tree(features, window)
        return tree.parent[None], tree.depth[None], treescan.tree_scan(x, weights, tree, direction="down")

    before = run(features, x, weights)
    features, x, weights = (values.clone() for values in (features, x, weights))
    for values in (features, x, weights):
        values[..., at:] = torch.randn(values[..., at:].shape, generator=generator) * 100
    after = run(features, x, weights)
    assert same([values[..., :at] for values in before], [values[..., :at] for values in after])


def rows_of(length, contexts, paddings):
    """A mask with that many tokens missing on the left of each row, and the contexts as a tensor."""
    return torch.arange(length) >= torch.tensor(paddings)[:, None], torch.tensor(contexts)


@pytest.mark.parametrize("window", (1, 3, 20))
def test_contexts_and_left_padding_equal_rows_alone(window):
    """Each row has the tree that its own tokens have, those behind its context hanging on the token before them."""
    length, paddings, contexts = 11, [0, 4, 9, 10, 11], [11, 3, 2, 0, 0]
    features = torch.randn(5, 4, length)
    mask, context = rows_of(length, contexts, paddings)
    tree = causal_tree(features, window, context_length=context, mask=mask)
    tree.validate()
    for row, (padding, kept) in enumerate(zip(paddings, contexts)):
        assert (tree.parent[row, :padding] == -1).all()
        if padding < length:
            alone = causal_tree(features[row:row + 1, :, padding:], window).parent[0]
            behind = torch.arange(length - padding) >= max(kept, 1)
            alone = torch.where(behind, torch.arange(length - padding) - 1, alone) + padding
            assert torch.equal(tree.parent[row, padding:], alone.int())
    for option in ({"context_length": 3}, {"context_length": [3] * 5}):
        everywhere = causal_tree(features, window, **option).parent
        assert torch.equal(everywhere, causal_tree(features, window, context_length=torch.full((5,), 3)).parent)
        assert torch.equal(everywhere[:, 3:], torch.arange(2, length - 1).int().expand(5, -1))
    assert torch.equal(causal_tree(features, window, context_length=length).parent, causal_tree(features, window).parent)


def test_a_hole_in_the_mask_is_nobodys_parent():
    mask = torch.tensor([[False, True, True, False, True, False, False, False, True]])
    tree = causal_tree(torch.randn(2, 3, 9), 2, mask=mask)
    tree.validate()
    assert tree.parent[:, [0, 3, 5, 6, 7]].eq(-1).all() and tree.parent[:, [1, 2, 4]].tolist() == [[1, 1, 2]] * 2
    assert tree.parent[:, 8].eq(8).all()  # nobody in its window
    assert causal_tree(torch.randn(1, 3, 1), mask=torch.tensor([[False]])).parent.tolist() == [[-1]]


@pytest.mark.parametrize("shapes", [(3,), (3, 1), (4, 5), (2, 3, 4)])
def test_factors_stand_for_their_outer_product(shapes):
    length = 40
    factors = [torch.randn(2, channels, length) for channels in shapes]
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, :, None] * factor[:, None]).flatten(1, 2)
    assert torch.equal(causal_tree(factors, 4).parent, causal_tree(product, 4).parent)
    mask, context = rows_of(length, [33, 20], [0, 5])
    for options in ({}, {"context_length": context}, {"context_length": 7, "mask": mask}):
        flipped = treescan.flipped_token_tree(factors, **options)
        flipped.validate()
        assert torch.equal(flipped.parent, treescan.flipped_token_tree(product, **options).parent)


def test_a_masked_flipped_tree_equals_the_row_alone():
    features, padding, context = torch.randn(1, 4, 12), 5, 4
    mask, _ = rows_of(12, [0], [padding])
    tree = treescan.flipped_token_tree(features, padding + context, mask=mask)
    alone = treescan.flipped_token_tree(features[..., padding:], context)
    assert torch.equal(tree.parent[:, :-padding], alone.parent) and (tree.parent[:, -padding:] == -1).all()


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"context_length": 5}, ValueError, r"context_length must be in \[0, 4\].*got 5"),
    ({"context_length": [1, -1]}, ValueError, r"context_length must be in \[0, 4\].*\[1, -1\]"),
    ({"context_length": [1, 2, 3]}, ValueError, r"context_length must be an integer or have shape \(B,\) = \(2,\).*\(3,\)"),
    ({"context_length": 1.5}, TypeError, "context_length must be an integer, got float"),
    ({"mask": torch.ones(2, 4)}, TypeError, "mask must be a bool tensor.*float32"),
    ({"mask": torch.ones(2, 3, dtype=torch.bool)}, ValueError, r"mask must have shape \(B, L\) = \(2, 4\).*\(2, 3\)"),
    ({"cu_seqlens": torch.tensor([0, 4]), "context_length": 2}, ValueError, "cu_seqlens can't be given beside"),
    ({"features": [torch.rand(2, 3, 4), torch.rand(2, 3, 5)]}, ValueError, r"same B and L.*\(2, 3, 4\), \(2, 3, 5\)"),
    ({"features": []}, ValueError, "got none"),
    ({"features": [torch.rand(2, 3, 4)] * 2, "metric": "l2"}, ValueError, "metric must be 'cosine'.*'l2'")])
def test_errors_of_contexts_masks_and_factors(options, error, message):
    with pytest.raises(error, match=message):
        causal_tree(**{"features": torch.rand(2, 3, 4), **options})


@pytest.mark.parametrize("call", [
    lambda: causal_tree(torch.rand(2, 3)), lambda: causal_tree(torch.rand(2, 3, 4, 5)),
    lambda: causal_tree(torch.rand(2, 3, 4), 0), lambda: causal_tree(torch.rand(2, 3, 4), metric="l3"),
    lambda: causal_tree(torch.rand(2, 3, 4), cu_seqlens=torch.tensor([0, 4])),
    lambda: treescan.flipped_token_tree(torch.rand(2, 3, 4, 5))])
def test_errors_of_causal_trees(call):
    with pytest.raises(ValueError, match="features must|window must|metric must"):
        call()


# ---- The originals' trees of tokens ----


# (Others have weights of their own.)
WITH_FEATURES = [path for path in sorted(GOLDEN.glob("mst_token_*.npz")) if "feature" in np.load(path)]


@pytest.mark.parametrize("path", WITH_FEATURES, ids=lambda path: path.stem)
def test_flipped_trees_equal_the_golden_ones(path):
    arrays = np.load(path)
    in_time = torch.from_numpy(arrays["feature"]).flip(2)
    tree = treescan.flipped_token_tree(in_time, int(arrays["prompt_len"]))
    assert torch.equal(tree.parent, torch.from_numpy(arrays["parent_vertex"]))


def test_what_the_docstring_says_of_flipped_trees():
    """Not causal: with another last token, an earlier one hangs elsewhere."""
    before, after = torch.tensor([[[0.0, 5.0, 1.0, 4.0]]]), torch.tensor([[[0.0, 5.0, 1.0, -9.0]]])
    flipped = [treescan.flipped_token_tree(values, metric="l2").parent for values in (before, after)]
    assert not torch.equal(flipped[0][:, 1:], flipped[1][:, 1:])
    causal = [causal_tree(values, metric="l2").parent for values in (before, after)]
    assert torch.equal(causal[0][:, :3], causal[1][:, :3])


# ---- Prefix trees ----


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 3, 2), (5, 1, 4, 2)])
def test_a_prefix_tree_equals_each_of_its_paths(shape):
    """`shape`: the children of each node, level by level, below a root."""
    parent, level = [0], [0]
    for children in shape:
        level = [len(parent) + i for i, node in enumerate(node for node in level for _ in range(children))
                 if parent.append(node) is None or True]
        first = len(parent) - len(level)
        level = list(range(first, len(parent)))
    tree = Tree.from_parents(torch.tensor([parent]))
    paths = []
    for leaf in set(range(len(parent))) - set(parent) or {0}:
        path = [leaf]
        while path[0]:
            path.insert(0, parent[path[0]])
        paths.append(path)
    x, weights = torch.randn(1, 3, len(parent), requires_grad=True), torch.rand(1, 3, len(parent), requires_grad=True)
    y = treescan.tree_scan(x, weights, tree, direction="down")
    alone = [treescan.tree_scan(x[..., path], weights[..., path], "chain", direction="down") for path in paths]
    for path, along in zip(paths, alone):
        assert torch.equal(y[..., path], along)
    # The gradient of a node that several paths share is the sum over them.
    share = [torch.randn_like(along) for along in alone]
    expected = torch.autograd.grad(sum((along * g).sum() for along, g in zip(alone, share)), (x, weights))
    grad = torch.zeros_like(y)
    for path, g in zip(paths, share):
        grad[..., path] += g
    for got, right in zip(torch.autograd.grad(y, (x, weights), grad), expected):
        torch.testing.assert_close(got, right)


# ---- Packed sequences and images ----

LENGTHS = ((1,), (4, 1, 7), (3, 0, 9, 2))


def packed(lengths, channels=5):
    total = sum(lengths)
    features, x, weights = torch.randn(1, 4, total), torch.randn(1, channels, total), torch.rand(1, channels, total)
    return features, x.requires_grad_(), weights.requires_grad_(), torch.tensor([0, *lengths]).cumsum(0).int()


def results(x, weights, tree, direction):
    y = treescan.tree_scan(x, weights, tree, direction=direction)
    return y, *torch.autograd.grad(y.square().sum(), (x, weights))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", ("tokens", "chain", "causal"))
def test_packed_sequences_equal_one_call_each(lengths, kind):
    features, x, weights, starts = packed(lengths)
    for options in ({}, {"window": 2}, {"metric": "l1"}):
        if kind == "causal":
            tree, build = causal_tree(features, cu_seqlens=starts, **options), causal_tree
        else:
            tree = packed_tree(features, starts, kind, **options)
            build = lambda part, **options: treescan.build_tree(part, kind, **options)  # noqa: E731
        tree.validate()
        parts = [slice(a, b) for a, b in zip(starts.tolist(), starts[1:].tolist()) if a < b]
        trees = [build(features[..., part], **options) for part in parts]
        assert torch.equal(tree.parent, Tree.pack(trees).parent) and torch.equal(tree.order, Tree.pack(trees).order)
        for direction in DIRECTIONS:
            together = results(x, weights, tree, direction)
            for part, own in zip(parts, trees):
                values = [t[..., part].detach().requires_grad_() for t in (x, weights)]
                assert same(results(*values, own, direction), [t[..., part] for t in together])


@pytest.mark.parametrize("sizes", [[(1, 1)], [(3, 4), (1, 5), (6, 2)]])
@pytest.mark.parametrize("maximum", (False, True))
def test_packed_images_equal_one_call_each(sizes, maximum):
    lengths = [height * width for height, width in sizes]
    features, x, weights, starts = packed(lengths)
    tree = packed_tree(features, graph="grid", sizes=sizes, metric="l2", maximum=maximum)
    tree.validate()
    for direction in DIRECTIONS:
        together = results(x, weights, tree, direction)
        for first, size in zip(starts.tolist(), sizes):
            part = slice(first, first + size[0] * size[1])
            own = treescan.build_tree(features[..., part].unflatten(2, size), metric="l2", maximum=maximum)
            values = [t[..., part].detach().unflatten(2, size).requires_grad_() for t in (x, weights)]
            alone = results(*values, own, direction)
            assert same([t.flatten(2) for t in alone], [t[..., part] for t in together])


def test_packing_batches_and_forests():
    images = treescan.build_tree(torch.rand(2, 3, 3, 4), root=5)
    masked = treescan.build_tree(torch.rand(1, 3, 2, 3), mask=torch.tensor([[[True, False, True], [True, False, True]]]))
    forest = Tree.pack([images, masked])
    assert forest.parent[0, :12].equal(images.parent[0]) and forest.parent[0, 12:24].equal(images.parent[1] + 12)
    assert forest.parent[0, 24:].equal(torch.where(masked.parent[0] < 0, -1, masked.parent[0] + 24))
    assert forest.batch_size == 1 and forest.edge is None
    forest.validate()
    assert torch.equal(forest.parent, reference.tree_from_parents(forest.parent, forest=True).parent)


FEATURES = torch.rand(1, 3, 6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: packed_tree(torch.rand(2, 3, 6), torch.tensor([0, 6])), r"\(1, C, T\).*\(2, 3, 6\)"),
    (lambda: packed_tree(FEATURES, torch.tensor([0, 5])), r"ascend from 0 to 6.*\[0, 5\]"),
    (lambda: packed_tree(FEATURES, torch.tensor([1, 6])), r"ascend from 0 to 6.*\[1, 6\]"),
    (lambda: packed_tree(FEATURES, torch.tensor([0, 4, 2, 6])), "ascend"),
    (lambda: packed_tree(FEATURES, torch.tensor([0])), r"\(S\+1,\).*\(1,\)"),
    (lambda: packed_tree(FEATURES, torch.tensor([0.0, 6.0])), "integers, got torch.float32"),
    (lambda: packed_tree(FEATURES), "takes cu_seqlens"),
    (lambda: packed_tree(FEATURES, torch.tensor([0, 6]), "ring"), "graph must be 'tokens'.*'ring'"),
    (lambda: packed_tree(FEATURES, graph="grid"), "takes sizes"),
    (lambda: packed_tree(FEATURES, graph="grid", sizes=[(2, 2)]), r"add up to 6 .*got 4"),
])
def test_errors_of_packed_trees(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
