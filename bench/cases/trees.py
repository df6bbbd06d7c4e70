"""Spanning trees with their order, from given edge costs, beside everything that builds one."""

import functools

import numpy
import torch

import treescan

from ..case import Bar, Call, Case
from ..peers import absence, available
from ..peers import trees as peers

WORK = "tree and order"


class Inputs:
    """A grid and costs that are all different, so that every right answer is the same."""

    def __init__(self, height, width, batch=1, seed=0):
        self.graph = treescan.grid_graph(height, width)
        generator = torch.Generator().manual_seed(seed)
        # 1 + k/2^23 is a different float32 for every k below 2^23; past that there are ties, which fall to the index.
        ranks = torch.stack([torch.randperm(self.graph.num_edges, generator=generator) for _ in range(batch)])
        self.cost = 1 + ranks / max(2**23, self.graph.num_edges)
        self.batch, self.vertices = batch, height * width

    @functools.cached_property
    def edges(self):
        return self.graph.edge_index.numpy()

    @functools.cached_property
    def expected(self):
        """scipy's tree of the first item: its total cost and the parents of all vertices."""
        tree, _, above = peers.scipy_tree(self.edges, self.cost[0].numpy(), self.vertices)()
        return tree.sum(), above

    def check_total(self, cost):
        assert numpy.isclose(cost.astype(numpy.float64).sum(), self.expected[0], rtol=1e-12)

    def check_parents(self, parents):
        assert (parents[1:] == self.expected[1][1:]).all()


def ours(i):
    graph, cost = i.graph, i.cost
    return lambda: treescan.minimum_spanning_tree(graph, cost)


def check_ours(i, tree):
    tree.validate()
    edge = tree.edge[0]
    i.check_total(i.cost[0][edge[edge >= 0].long()].numpy())
    i.check_parents(tree.parent[0].numpy())
    for item in range(1, i.batch):  # the others as if they were alone
        alone = treescan.minimum_spanning_tree(i.graph, i.cost[item:item + 1])
        assert torch.equal(alone.parent[0], tree.parent[item])


def theirs(build):
    return lambda i: build(i.edges, i.cost[0].numpy(), i.vertices)


def check_scipy(i, result):
    i.check_total(result[0].data)
    i.check_parents(result[2])


def check_higra(i, result):
    i.check_total(i.cost[0].numpy()[peers.higra_edges(result)])


def check_textbook(i, result):
    i.check_total(i.cost[0].numpy()[result[0]])


def check_pairs(i, result):
    parents = numpy.zeros(i.vertices, dtype=numpy.int64)
    pairs = peers.pairs_of(result)
    assert len(pairs) == i.vertices - 1
    parents[pairs[:, 1]] = pairs[:, 0]
    i.check_parents(parents)


HIGRA, TEXTBOOK = "Higra bpt_canonical", "textbook Borůvka, edges alone"


def tree_case(side: int) -> Case:
    calls = {"treescan": Call(ours, check_ours), "scipy": Call(theirs(peers.scipy_tree), check_scipy)}
    bars, absent = [], {}
    if side in (56, 224, 1024):
        bars.append(Bar(f"{WORK} against scipy", "treescan", "scipy", 8, faster=True, aim=12))
    if available("higra"):
        calls[HIGRA] = Call(theirs(peers.higra_tree), check_higra)
        if side >= 224:
            bars.append(Bar(f"{WORK} against Higra", "treescan", HIGRA, 15, faster=True, aim=25))
    else:
        absent[HIGRA] = absence("higra")
    if peers.TEXTBOOK.exists():
        calls[TEXTBOOK] = Call(theirs(peers.textbook_tree), check_textbook)
        if side <= 512:
            bars.append(Bar("tree against the textbook Borůvka", "treescan", TEXTBOOK, 4, faster=True, aim=6))
    else:
        absent[TEXTBOOK] = "not built: `make bench` builds it"
    if side <= 224:  # they take seconds for more
        for module, build in (("rustworkx", peers.rustworkx_tree), ("networkx", peers.networkx_tree)):
            if not available(module):
                absent[module] = absence(module)
            elif side <= 56 or module == "rustworkx":
                calls[module] = Call(theirs(build), check_pairs)
    return Case(f"{WORK} {side}×{side}", lambda: Inputs(side, side), calls, tuple(bars), guarded=side == 224,
                absent=absent)


CASES = tuple(tree_case(side) for side in (56, 224, 512, 1024))
