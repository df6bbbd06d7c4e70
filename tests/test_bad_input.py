"""Bad input of every kind that reaches Python: an error that names the argument, what was expected and what came."""

import re

import pytest
import torch

import treescan
from treescan import Tree, build_tree, edge_graph, edge_weights, grid_graph, minimum_spanning_tree, token_graph, tree_scan

X = torch.zeros(2, 3, 4, 5)
GRID = grid_graph(4, 5)
COST = torch.zeros(2, GRID.num_edges)
TREE = build_tree(X)
PARENT = TREE.parent


def broken(**fields):
    return TREE._replace(**{name: value.to(torch.int32) for name, value in fields.items()})


CASES = {
    "rank of x alone": (lambda: tree_scan(X[0, 0], X[0, 0]), ValueError, "x must have shape (B, C, H, W) or (B, C, L), got (4, 5)"),
    "rank of x": (lambda: tree_scan(X[0], X[0]), ValueError, "x must have shape.*(3, 4, 5)"),
    "x is no tensor": (lambda: tree_scan([1.0], X), TypeError, "x must be a tensor, got list"),
    "dtype of x": (lambda: tree_scan(X.int(), X.int()), TypeError, "x must be float32.*torch.int32"),
    "complex x": (lambda: tree_scan(X.to(torch.complex64), X), TypeError, "x must be .*complex64"),
    "dtypes differ": (lambda: tree_scan(X, X.double()), TypeError, "weights must have x's dtype torch.float32, got torch.float64"),
    "weights are no tensor": (lambda: tree_scan(X, 0.5), TypeError, "weights must be a tensor, got float"),
    "device of weights": (lambda: tree_scan(X, X.to("meta")), ValueError, "weights must be on x's device cpu, got meta"),
    "sizes of weights": (lambda: tree_scan(X, X[..., :4]), ValueError, "weights must broadcast.*(2, 3, 4, 5).*(2, 3, 4, 4)"),
    "direction": (lambda: tree_scan(X, X, direction="sideways"), ValueError, "direction must be one of 'up'.*'sideways'"),
    "graph": (lambda: tree_scan(X, X, "net"), ValueError, "graph must be 'grid'.*'net'"),
    "metric": (lambda: tree_scan(X, X, metric="l3"), ValueError, "metric must be one of 'cosine'.*'l3'"),
    "sequence as grid": (lambda: tree_scan(X[0], X[0], "grid"), ValueError, "(B, C, H, W)"),
    "guide's size": (lambda: tree_scan(X, X, guide=X[:, :, :3]), ValueError, "guide must have x's batch size"),
    "tree's size": (lambda: tree_scan(X, X, Tree.from_parents(torch.zeros(2, 7, dtype=torch.int32))), ValueError,
                    r"parent must have shape \(2, 20\).*\(2, 7\)"),
    "tree's batch": (lambda: tree_scan(X[:1].expand(3, -1, -1, -1), X[:1], TREE), ValueError, r"\(3, 20\).*\(2, 20\)"),
    "out is no tensor": (lambda: tree_scan(X, X, TREE, out=[]), TypeError, "out must be a tensor, got list"),
    "out's dtype": (lambda: tree_scan(X, X, TREE, out=X.double()), ValueError, "out must be like x.*got torch.float64"),
    "out where a gradient is wanted": (lambda: tree_scan(X, X.clone().requires_grad_(), TREE, out=X.clone()), RuntimeError,
                                       "out can't be given where a derivative is wanted"),
    "out in x's memory": (lambda: tree_scan(X, X.clone(), TREE, out=X), ValueError, "out must have memory of its own"),
    "order not a permutation": (lambda: tree_scan(X, X, broken(order=torch.zeros_like(PARENT))), ValueError, "order: .*once"),
    "order backwards": (lambda: tree_scan(X, X, broken(order=TREE.order.flip(1))), ValueError, "order: .*parents before"),
    "order out of range": (lambda: tree_scan(X, X, broken(order=TREE.order + 20)), ValueError, r"order: .*\[0, 20\)"),
    "parent out of range": (lambda: tree_scan(X, X, broken(parent=torch.full_like(PARENT, 99))), ValueError, "parent: .*99"),
    "negative parent": (lambda: tree_scan(X, X, broken(parent=PARENT - 5)), ValueError, "parent: .*-"),
    "cycle": (lambda: Tree.from_parents(torch.tensor([[0, 2, 1]])), ValueError, "cycle"),
    "no root": (lambda: Tree.from_parents(torch.tensor([[1, 0, 0]])), ValueError, "one root.*none"),
    "two roots": (lambda: Tree.from_parents(torch.tensor([[0, 1, 0]])), ValueError, "one root.*0 and 1"),
    "parents out of range": (lambda: Tree.from_parents(torch.tensor([[0, 3, 0]])), ValueError, r"\[0, 3\) or -1, got 3"),
    "parents past 2^31": (lambda: Tree.from_parents(torch.tensor([[0, 2**32, 0]])), ValueError, "32-bit"),
    "parents as floats": (lambda: Tree.from_parents(torch.zeros(1, 3)), TypeError, "float32"),
    "parents' rank": (lambda: Tree.from_parents(torch.zeros(3, dtype=torch.int32)), ValueError, r"\(B, V\), got \(3,\)"),
    "root out of range": (lambda: build_tree(X, root=20), ValueError, r"root: .*\[0, 20\), got 20"),
    "negative root": (lambda: TREE.reroot(-1), ValueError, "root: .*-1"),
    "root past 2^31": (lambda: build_tree(X, root=2**31), ValueError, "root must be a 32-bit index, got 2147483648"),
    "roots' number": (lambda: build_tree(X, root=torch.tensor([0, 1, 2])), ValueError, r"\(2,\), got shape \(3,\)"),
    "root as a float": (lambda: build_tree(X, root=1.5), TypeError, "root must be .*float"),
    "grid's size": (lambda: grid_graph(0, 5), ValueError, "height must be at least 1, got 0"),
    "length as a float": (lambda: treescan.chain_graph(2.5), TypeError, "length must be an integer, got float"),
    "grid too large": (lambda: grid_graph(2**16, 2**16), ValueError, "at most 2147483647"),
    "connectivity": (lambda: grid_graph(2, 2, 6), ValueError, "connectivity must be .*4.*8.*6"),
    "context too long": (lambda: token_graph(5, 3, 9), ValueError, "context_length .*9"),
    "contexts as floats": (lambda: token_graph(5, 3, torch.ones(2)), TypeError,
                           r"context_length must be a tensor or a NumPy array of integers, got torch.float32 of shape \(2,\)"),
    "window": (lambda: token_graph(5, 0), ValueError, "window must be at least 1, got 0"),
    "edge out of range": (lambda: minimum_spanning_tree(edge_graph(torch.tensor([[0, 1], [1, 7]]), 3), torch.zeros(1, 2)),
                          ValueError, "7"),
    "edges as floats": (lambda: edge_graph(torch.zeros(4, 2), 3), TypeError, "edge_index must be a tensor or a NumPy array of integers, got torch.float32"),
    "edges' shape": (lambda: edge_graph(torch.zeros(4, 3, dtype=torch.int32), 3), ValueError, r"edge_index .*\(4, 3\)"),
    "disconnected": (lambda: minimum_spanning_tree(edge_graph(torch.tensor([[0, 1], [2, 3]]), 4), torch.zeros(1, 2)),
                     ValueError, "connected graph.*2 parts"),
    "cost's size": (lambda: minimum_spanning_tree(GRID, COST[:, 1:]), ValueError, r"cost must have shape \(B, 31\).*\(2, 30\)"),
    "graph by name": (lambda: minimum_spanning_tree("grid", COST), TypeError, "graph must be a Graph"),
    "features beside a name": (lambda: edge_weights(X, "grid"), TypeError, "graph must be a Graph .*got str"),
    "features' rank": (lambda: edge_weights(X[0, 0], GRID), ValueError, "features must have shape (B, C, V) .*got (4, 5)"),
    "features' vertices": (lambda: edge_weights(X[:, :, 0], GRID), ValueError,
                           r"20 vertices, but features has shape \(2, 3, 5\) with 5"),
    "features' size": (lambda: edge_weights(X[:, :, 1:], GRID), ValueError, "features has shape.*(2, 3, 3, 5)"),
    "exp too large": (lambda: edge_weights(torch.tensor([[[0.0, 99.0]]]), treescan.chain_graph(2), "l2", exp=True),
                      ValueError, r"exp\(9801\)"),
    "no trees": (lambda: Tree.pack([]), ValueError, "trees must hold at least one Tree, got none"),
    "too many trees": (lambda: Tree.pack([Tree(*[PARENT[:1, :1].expand(2, 2**30)] * 4)]), ValueError,
                       "trees must have fewer than 2147483648 vertices in all, got 2147483648"),
    "seed as a float": (lambda: treescan.random_spanning_tree(GRID, COST, seed=1.0), TypeError, "seed must be .*float"),
    "seed": (lambda: treescan.random_spanning_tree(GRID, COST, seed=-1), ValueError, "seed must be .*-1"),
    "threads": (lambda: treescan.set_num_threads(0), ValueError, "num_threads must be between 1 and 1024, got 0"),
}


@pytest.mark.parametrize("name", CASES)
def test_error(name):
    call, kind, message = CASES[name]
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    pattern = message if "\\" in message else re.sub(r"([()])", r"\\\1", message)
    assert re.search(pattern, text), text
    assert len(text.splitlines()) <= 2 or not isinstance(caught.value, (ValueError, TypeError))


ORDER = TREE.order.clone()
ORDER[0, [1, -1]] = ORDER[0, [-1, 1]]


@pytest.mark.parametrize(("fields", "message"), [
    ({"order": TREE.order[:, 1:]}, r"order must be an int32 tensor of shape \(2, 20\), got torch.int32 of shape \(2, 19\)"),
    ({"depth": TREE.depth.long()}, r"depth must be an int32 tensor of shape \(2, 20\), got torch.int64"),
    ({"order": torch.zeros_like(PARENT)}, "order must hold every vertex exactly once"),
    ({"order": ORDER}, r"order must put parents first, but in item 0 vertex \d+ stands at position \d+ and its parent \d+ at"),
    ({"depth": TREE.depth + 1}, r"depth\[0, 0\] must be 0, got 1"),
    ({"root": TREE.root + 1}, r"root\[0\] must be 0, got 1"),
    ({"edge": torch.zeros_like(PARENT)}, "edge must be -1 at the root"),
    ({"parent": PARENT + 20}, r"parent: .*\[0, 20\)"),
])
def test_validate_finds(fields, message):
    TREE.validate()
    with pytest.raises(ValueError, match=message):
        TREE._replace(**fields).validate()


def test_outputs_stay_untouched_by_errors():
    """A failed call leaves the library ready for the next."""
    for name in ("cycle", "disconnected", "order backwards"):
        with pytest.raises(ValueError):
            CASES[name][0]()
    assert torch.equal(tree_scan(X + 1, X, TREE), X + 1)


def test_nan_costs_have_a_documented_place():
    """NaN is as if it cost more than infinity: taken only where nothing else connects."""
    cost = torch.full((1, 4), float("inf"))
    cost[0, 0] = float("nan")
    tree = minimum_spanning_tree(grid_graph(2, 2), cost)
    assert 0 not in tree.edge[0].tolist()
    assert minimum_spanning_tree(treescan.chain_graph(2), torch.full((1, 1), float("nan"))).parent.tolist() == [[0, 0]]


def test_nan_and_infinity_pass_through_scans():
    x = torch.zeros(1, 1, 3)
    x[..., 1] = float("nan")
    chain = Tree.from_parents(torch.tensor([[0, 0, 1]]))
    y = tree_scan(x, torch.ones(1, 1, 3), chain, direction="down")
    assert y[0, 0, 0] == 0 and y[0, 0, 1:].isnan().all()
