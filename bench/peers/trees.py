"""Spanning trees without treescan. Each function makes the form that its library likes, and a call that works on it."""

import ctypes
import sys
from pathlib import Path

import numpy
import scipy.sparse
from scipy.sparse import csgraph


def scipy_tree(edges, cost, vertices: int):
    """A minimum spanning tree and its breadth-first order. scipy takes 0 for "no edge", so costs must be positive."""
    matrix = scipy.sparse.csr_matrix((cost.astype(numpy.float64), (edges[:, 0], edges[:, 1])), shape=(vertices,) * 2)

    def run():
        tree = csgraph.minimum_spanning_tree(matrix)
        return tree, *csgraph.breadth_first_order(tree, 0, directed=False)

    return run


def higra_tree(edges, cost, vertices: int):
    """Higra's binary partition tree by altitude, which holds the minimum spanning tree; neither rooted nor ordered."""
    import higra

    graph = higra.UndirectedGraph(vertices)
    graph.add_edges(edges[:, 0], edges[:, 1])
    return lambda: higra.bpt_canonical(graph, cost)


def higra_edges(result):
    import higra

    return higra.get_attribute(result[0], "mst_edge_map")


def networkx_tree(edges, cost, vertices: int):
    import networkx

    graph = networkx.Graph()
    graph.add_weighted_edges_from(zip(edges[:, 0].tolist(), edges[:, 1].tolist(), cost.tolist()))

    def run():
        tree = networkx.minimum_spanning_tree(graph)
        return tree, list(networkx.bfs_edges(tree, 0))

    return run


def rustworkx_tree(edges, cost, vertices: int):
    import rustworkx

    graph = rustworkx.PyGraph()
    graph.add_nodes_from(range(vertices))
    graph.add_edges_from(list(zip(edges[:, 0].tolist(), edges[:, 1].tolist(), cost.tolist())))

    class Recorder(rustworkx.visit.BFSVisitor):
        def __init__(self):
            self.pairs = []

        def tree_edge(self, edge):
            self.pairs.append(edge[:2])

    def run():
        tree = rustworkx.minimum_spanning_tree(graph, weight_fn=float)
        recorder = Recorder()
        rustworkx.bfs_search(tree, [0], recorder)
        return tree, recorder.pairs

    return run


def pairs_of(result):
    """What the last two give: (parent, child) of every edge, in breadth-first order."""
    return numpy.array(result[1])


_SUFFIX = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
TEXTBOOK = Path(__file__).parents[2] / "build" / "bench" / f"libtextbook.{_SUFFIX}"


def textbook_tree(edges, cost, vertices: int):
    """Borůvka's algorithm as a textbook has it (bench/native/boruvka.h); edges only, neither rooted nor ordered."""
    library = ctypes.CDLL(str(TEXTBOOK))
    library.textbook_boruvka.restype = ctypes.c_int64
    edges = numpy.ascontiguousarray(edges, dtype=numpy.int32)
    cost = numpy.ascontiguousarray(cost, dtype=numpy.float32)
    chosen = numpy.empty(vertices - 1, dtype=numpy.int32)
    arguments = (ctypes.c_void_p(edges.ctypes.data), ctypes.c_void_p(cost.ctypes.data), ctypes.c_int64(len(edges)),
                 ctypes.c_int64(vertices), ctypes.c_void_p(chosen.ctypes.data))

    def run():
        found = library.textbook_boruvka(*arguments)
        return chosen[:found], edges, cost  # the latter two must live as long as the call

    return run
