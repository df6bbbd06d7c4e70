"""Trees by parents with -1 at the root, by edges, of a batch of samples; and parents under torch's transforms."""

import numpy as np
import pytest
import torch
import treescan
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, default_collate
from treescan import Tree, reference

COUNTS = (1, 2, 3, 7, 20, 101)


def random_parents(batch, vertices, seed=0):
    """Parent arrays whose vertices are numbered in any way, and (B,) their roots."""
    generator = torch.Generator().manual_seed(seed)
    grown = torch.stack([(torch.rand(batch, generator=generator) * max(v, 1)).long() for v in range(vertices)], 1)
    name = torch.rand(batch, vertices, generator=generator).argsort(1)
    return torch.empty_like(grown).scatter_(1, name, name.gather(1, grown)), name[:, 0]


def same(found, expected):
    for name, left, right in zip(Tree._fields, found, expected):
        assert left is right is None or torch.equal(left, right), name


# ---- Parents ----


@pytest.mark.parametrize("vertices", COUNTS)
@pytest.mark.parametrize("forest", (False, True))
def test_roots_of_minus_one(vertices, forest):
    parent, root = random_parents(4, vertices)
    marked = parent.scatter(1, root[:, None], -1)
    tree = Tree.from_parents(marked, root_parent=-1, forest=forest)
    tree.validate()
    same(tree, Tree.from_parents(parent, forest=forest))
    assert torch.equal(tree.root.long(), root)
    assert torch.equal(tree.parent.where(tree.depth > 0, -1).long(), marked)  # the way back that the docs name
    for field in reference.tree_from_parents(parent, forest=forest)[:1]:
        assert torch.equal(field, tree.parent)


def test_every_minus_one_of_a_forest_is_a_root():
    parent = torch.tensor([[-1, 0, 3, -1, 3]])
    tree = Tree.from_parents(parent, root_parent=-1, forest=True)
    assert tree.parent.tolist() == [[0, 0, 3, 3, 3]] and tree.order.tolist() == [[0, 3, 1, 2, 4]]
    # By "self" the same array says that 0 and 3 are in no tree, whose children then can't be either.
    with pytest.raises(ValueError, match="connected to a root"):
        Tree.from_parents(parent, forest=True)
    assert Tree.from_parents(torch.tensor([[0, -1]]), forest=True).depth.tolist() == [[0, -1]]


@pytest.mark.parametrize(("parent", "options", "message"), [
    ([[0, 0, 1, -1]], {}, r"parent\[0, 3\] is -1: expected a vertex in \[0, 4\).*root_parent=-1; .*forest=True"),
    ([[0, 0], [1, -1]], {}, r"parent\[1, 1\] is -1"),
    ([[-1, -1]], {}, r"parent\[0, 0\] is -1"),
    ([[-1, 1, 0]], {"root_parent": -1}, r"parent\[0, 1\] is 1, the vertex itself: .*-1 at a root"),
    ([[-1, 1, 0]], {"root_parent": -1, "forest": True}, r"parent\[0, 1\] is 1, the vertex itself"),
    ([[-1, -1, 0]], {"root_parent": -1}, r"one root.*0 and 1"),
    ([[1, 0]], {"root_parent": -1}, r"one root.*none"),
    ([[-1, -2]], {"root_parent": -1}, r"got -2 at vertex 1"),
    ([[0, 0]], {"root_parent": 0}, "root_parent must be 'self' or -1, got 0"),
    ([[0, 0]], {"root_parent": "none"}, "root_parent must be 'self' or -1, got 'none'"),
    ([0, 0], {}, r"parent must have shape \(B, V\), got \(2,\): parent\[None\] is a batch of one"),
    ([[0, 0, 1]], {"forest": 1}, "forest must be True or False, got int"),
])  # fmt: skip
def test_errors_of_parents(parent, options, message):
    for values in (torch.tensor(parent), torch.tensor(parent, dtype=torch.int32), np.array(parent)):
        with pytest.raises((ValueError, TypeError), match=message):
            Tree.from_parents(values, **options)


@given(st.integers(1, 30), st.integers(0, 2**20), st.sampled_from(["<i8", ">i8", "<i4", ">i2", "i1", "<u2"]),
       st.sampled_from(["C", "F", "reversed", "strided", "read-only"]))  # fmt: skip
def test_numpy_parents(vertices, seed, dtype, layout):
    """In any type, byte order and layout, and left as they were."""
    parent, _ = random_parents(3, vertices, seed)
    array = parent.numpy().astype(dtype)
    if layout == "F":
        array = np.asfortranarray(array)
    if layout == "reversed":
        array = array[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "strided":
        array = np.repeat(array, 2, axis=1)[:, ::2]
    array.flags.writeable = layout != "read-only"
    before = array.copy()
    same(Tree.from_parents(array), Tree.from_parents(parent))
    assert np.array_equal(array, before)


def test_a_tree_does_not_share_memory_with_an_array():
    parent = np.array([[0, 0, 1]], dtype=np.int32)
    tree = Tree.from_parents(parent)
    parent[:] = 2
    assert tree.parent.tolist() == [[0, 0, 1]]


# ---- Under transforms ----


@pytest.mark.parametrize("dtype", (torch.int16, torch.int32, torch.int64))
@pytest.mark.parametrize("options", ({}, {"root_parent": -1}, {"forest": True}, {"root_parent": -1, "forest": True}))
def test_parents_under_vmap(dtype, options):
    parent, root = random_parents(6, 9)
    if "root_parent" in options:
        parent = parent.scatter(1, root[:, None], -1)
    parent = parent.view(3, 2, 9).to(dtype)

    def build(parent):
        return tuple(Tree.from_parents(parent, **options)[:4])

    for found, each in zip(torch.vmap(build)(parent), zip(*map(build, parent))):
        assert torch.equal(found, torch.stack(each))
    for found, each in zip(torch.vmap(build, in_dims=2)(parent.movedim(0, 2)), zip(*map(build, parent))):
        assert torch.equal(found, torch.stack(each))


@pytest.mark.filterwarnings("error")  # torch warns of ops without a batching rule
def test_trees_and_scans_under_vmap():
    parent, _ = random_parents(6, 9)
    x, root = torch.rand(3, 2, 4, 9), torch.tensor([5, 0, 8])

    def scan(parent, x, root):
        tree = Tree.from_parents(parent).reroot(root)
        again = Tree.from_edges(tree.edges, root=root)
        return treescan.tree_scan(x, x, tree), treescan.tree_scan(x, x, again)

    given = parent.view(3, 2, 9), x, root
    for found, each in zip(torch.vmap(scan)(*given), zip(*map(scan, *given))):
        torch.testing.assert_close(found, torch.stack(each), rtol=0, atol=0)


def test_int64_parents_of_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        parent = torch.zeros(2, 5, dtype=torch.int64)
        assert Tree.from_parents(parent).order.shape == (2, 5)
        assert Tree.from_parents(parent, root_parent=-1, forest=True).order.shape == (2, 5)


def test_indices_past_32_bits_stay_errors_under_vmap():
    parent = torch.zeros(2, 1, 3, dtype=torch.int64)
    parent[1, 0, 2] = 2**32
    with pytest.raises(ValueError, match=r"expected vertices in \[0, 3\)"):
        torch.vmap(lambda parent: Tree.from_parents(parent).order)(parent)


@pytest.mark.parametrize("dynamic", (False, True))
def test_integers_and_indices_compile(dynamic):
    """NumPy's and torch's integers, and 64-bit indices, without a break in the graph."""
    seven, two = np.int64(7), torch.tensor(2)

    def build(x, parent, edges, starts):
        tree = treescan.build_tree(x, "tokens", root=two, window=seven, maximum=True)
        marked = Tree.from_parents(parent, root_parent=-1)
        listed = Tree.from_edges(edges, root=two)
        packed = treescan.packed_tree(x[:1], starts, window=3)
        return tuple(tree), tuple(marked)[:4], tuple(listed), tuple(packed)

    parent, root = random_parents(2, 9)
    edges = Tree.from_parents(parent).edges.long()
    given = torch.rand(2, 3, 9), parent.scatter(1, root[:, None], -1), edges, torch.tensor([0, 4, 9])
    compiled = torch.compile(build, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for left, right in zip(compiled(*given), build(*given)):
        assert all(map(torch.equal, left, right))


# ---- Edges ----


@pytest.mark.parametrize("vertices", COUNTS)
def test_trees_from_edges(vertices):
    """In any order and direction, they make the tree that they came from; `edge` is their number in the list."""
    parent, root = random_parents(3, vertices)
    tree = Tree.from_parents(parent)
    shuffled = torch.rand(3, vertices - 1).argsort(1)
    edges = tree.edges.gather(1, shuffled[:, :, None].expand(-1, -1, 2))
    edges = torch.where(torch.rand(3, vertices - 1, 1) < 0.5, edges, edges.flip(2)).long()
    found = Tree.from_edges(edges, root=root)
    found.validate()
    same(found[:4], tree[:4])
    same(found, reference.tree_from_edges(edges, root))
    ends = edges.gather(1, found.edge.clamp(min=0).long()[:, :, None].expand(-1, -1, 2)) if vertices > 1 else None
    for item in range(3):
        for vertex in range(vertices):
            if vertex != root[item]:
                assert set(ends[item, vertex].tolist()) == {vertex, found.parent[item, vertex].item()}
    same(Tree.from_edges(edges[0], root=int(root[0])), Tree(*(field[:1] for field in found)))


@pytest.mark.parametrize(("edges", "options", "message"), [
    ([[0, 1], [1, 0]], {}, "hold a cycle"),
    ([[0, 1], [2, 2]], {}, "edges: "),
    ([[0, 1], [1, 3]], {}, r"expected vertices in \[0, 3\), got 3"),
    ([[0, 1], [1, 2]], {"root": 3}, r"root: .*\[0, 3\), got 3"),
    ([[0, 1], [1, 2]], {"root": torch.tensor([0, 1])}, r"root must be an integer or have shape \(1,\), got shape \(2,\)"),
    ([[0, 1, 2], [1, 2, 3]], {}, r"edges must have shape \(V-1, 2\).*got \(2, 3\): give its transpose"),
    ([0, 1], {}, r"edges must have shape .*got \(2,\)"),
])  # fmt: skip
def test_errors_of_edges(edges, options, message):
    with pytest.raises(ValueError, match=message):
        Tree.from_edges(torch.tensor(edges), **options)


def test_edges_the_other_way_round_are_told():
    with pytest.raises(ValueError, match=r"edge_index must have shape \(E, 2\).*got \(2, 5\): give its transpose, .T"):
        treescan.edge_graph(torch.zeros(2, 5, dtype=torch.int64), 3)
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    tree = treescan.minimum_spanning_tree(treescan.edge_graph(edge_index.T, 3), torch.tensor([[1.0, 2.0, 3.0]]))
    assert tree.edge.tolist() == [[-1, 0, 1]]


# ---- Batches of samples ----


class Samples(Dataset):
    """Images with their tree, and with one that came from parents."""

    def __init__(self, root=False):
        self.images = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, item):
        tree = treescan.build_tree(self.images[item : item + 1])
        return {"image": self.images[item], "trees": [tree, tree._replace(edge=None)], "label": item}


@pytest.mark.parametrize("workers", (0, 2))
def test_a_loader_puts_trees_side_by_side(workers):
    samples = Samples()
    sizes = []
    context = "fork" if workers else None
    for batch in DataLoader(samples, batch_size=2, num_workers=workers, multiprocessing_context=context):
        images, (tree, plain) = batch["image"], batch["trees"]
        assert type(tree) is Tree and plain.edge is None
        tree.validate()
        same(tree, treescan.build_tree(images))
        expected = treescan.tree_scan(images, images)
        assert torch.equal(treescan.tree_scan(images, images, tree), expected)
        assert torch.equal(treescan.tree_scan(images, images, plain), expected)
        sizes.append(tree.batch_size)
    assert sizes == [2, 2, 1]


def test_collating():
    x = torch.rand(5, 3, 4, 6)
    together = treescan.build_tree(x)
    parts = [treescan.build_tree(x[:2]), treescan.build_tree(x[2:])]
    same(Tree.collate(parts), together)
    same(default_collate(parts), together)
    same(default_collate([(1, parts[0]), (2, parts[1])])[1], together)
    masked = [treescan.build_tree(part, mask=torch.rand(1, 4, 6) < 0.7) for part in x.split(1)]
    forests = Tree.collate(masked)
    forests.validate()
    for item, tree in enumerate(masked):
        same(Tree(*(field[item : item + 1] for field in forests)), tree)


def test_errors_of_collating():
    tree = Tree.from_parents(torch.tensor([[0, 0, 1]]))
    edged = Tree.from_edges(tree.edges)
    with pytest.raises(ValueError, match=r"trees must have one number of vertices, got \[3, 2\]: Tree.pack"):
        Tree.collate([tree, Tree.from_parents(torch.tensor([[0, 0]]))])
    with pytest.raises(ValueError, match="trees must all have edge, or none of them, got 1 of 2"):
        Tree.collate([tree, edged])
    with pytest.raises(TypeError, match="trees must hold Trees, got tuple"):
        Tree.collate([tuple(tree)])
    with pytest.raises(ValueError, match="at least one Tree"):
        Tree.collate([])


STACKED = Tree(*(torch.stack((field, field)) for field in Tree.from_edges(torch.tensor([[0, 1]]))))
X = torch.rand(2, 1, 2)


@pytest.mark.parametrize("use", [
    lambda tree: tree.num_vertices, lambda tree: tree.batch_size, lambda tree: tree.edges, lambda tree: tree.reroot(0),
    lambda tree: tree.validate(), lambda tree: Tree.pack([tree]), lambda tree: Tree.collate([tree]),
    lambda tree: treescan.tree_scan(X, X, tree),
    lambda tree: treescan.selective_tree_scan(X, X, X[0, :, :1], X, X, tree),
    lambda tree: treescan.nn.TreeFilter2d()(X[..., None], tree=tree),
    lambda tree: treescan.nn.TreeScan2d()(X[..., None], X[..., None], tree=tree),
    lambda tree: treescan.nn.TreeSSM(2)(X[..., None, :], tree=tree),
])  # fmt: skip
def test_stacked_fields_are_refused(use):
    with pytest.raises(ValueError, match=r"parent must have shape .*got \(2, 1, 2\)"):
        use(STACKED)
