"""treescan beside itself: with two threads, on chains and stars, and on an input so small that only calling costs."""

import dataclasses
import itertools

import torch

import treescan

from ..case import Bar, Call, Case
from ..machine import processors
from . import scans, trees


def with_threads(call: Call, threads: int) -> Call:
    return dataclasses.replace(call, threads=threads)


def threads_case(name, inputs, calls: dict[str, Call], work=None, limit=None) -> Case:
    """Every call with one thread and with two; the bar, if there is one, is on the first."""
    both = {f"{who}, {count} thread{'s' * (count > 1)}": with_threads(call, count)
            for who, call in calls.items() for count in (2, 1)}
    first, second = itertools.islice(both, 2)
    if processors() < 2:
        return Case(name, inputs, {second: both[second]}, absent={first: "this machine has one processor"})
    return Case(name, inputs, both, (Bar(work, first, second, limit, faster=True),) if work else ())


def check_product(matrix, result):
    torch.testing.assert_close(result, matrix.sum(0).expand_as(matrix))


# Needs nearly no memory, so it shows whether two processors were free at all.
PRODUCT = {"torch": Call(lambda matrix: lambda: torch.ones_like(matrix) @ matrix, check_product)}


TREE = {"treescan": Call(trees.ours, trees.check_ours)}
SCAN = {"treescan": scans.FORWARD[scans.INTO], scans.ADDCMUL: scans.FORWARD[scans.ADDCMUL]}
GRADIENTS = {"treescan": scans.BACKWARD["treescan"], scans.ADDCMUL: scans.BACKWARD[scans.ADDCMUL]}

THREADS = (
    threads_case("threads: matrix product 768×768", lambda: torch.rand(768, 768), PRODUCT),
    threads_case("threads: trees of 2 images 224×224", lambda: trees.Inputs(224, 224, batch=2), TREE, "two threads, trees", 1.8),
    threads_case("threads: tree of one image 512×512", lambda: trees.Inputs(512, 512), TREE, "two threads, trees", 1.8),
    threads_case("threads: tree of one image 1024×1024", lambda: trees.Inputs(1024, 1024), TREE, "two threads, trees", 1.8),
    threads_case("threads: scan 2×160×56×56", lambda: scans.Inputs((2, 160, 56, 56)), SCAN, "two threads, scans", 1.7),
    threads_case("threads: scan 1×64×512×512", lambda: scans.Inputs((1, 64, 512, 512)), SCAN, "two threads, scans", 1.7),
    threads_case("threads: scan and gradients 2×160×56×56", lambda: scans.Inputs((2, 160, 56, 56)), GRADIENTS,
                 "two threads, scans", 1.7),
)


class Shapes:
    """The same channels on trees of one size but of every depth."""

    def __init__(self, side=512, channels=16):
        vertices = side * side
        index = torch.arange(vertices)
        grid = treescan.build_tree(torch.rand(1, 4, side, side, generator=torch.Generator().manual_seed(0)))
        chain = treescan.Tree.from_parents((index - 1).clamp(min=0)[None])
        star = treescan.Tree.from_parents(torch.zeros_like(index)[None])
        shape = (1, channels, side, side)
        self.of = {name: scans.Inputs(shape, tree=tree) for name, tree in (("grid", grid), ("chain", chain), ("star", star))}


def shape_calls(prepare, check):
    return {f"treescan, {name}": Call(lambda i, name=name: prepare(i.of[name]),
                                      lambda i, result, name=name: check(i.of[name], result))
            for name in ("chain", "star", "grid")}


def chain_by_doubling(x, weights):
    """`both` on the chain 0 - 1 - ... for (V, C) tensors, in log V steps: d[v] = x[v] + w[v] d[v-1] and back."""

    def recurrence(a, b):
        step = 1
        while step < len(b):
            b = torch.cat([b[:step], b[step:] + a[step:] * b[:-step]])
            a = torch.cat([a[:step], a[step:] * a[:-step]])
            step *= 2
        return b

    nothing = torch.zeros_like(weights[:1])
    down = recurrence(torch.cat([nothing, weights[1:]]), x)
    up = recurrence(torch.cat([nothing, weights[1:].flip(0)]), x.flip(0)).flip(0)
    return down + up - x  # both hold x itself


def check_shape(i, result):
    """Chains by doubling, since level by level they would take minutes; the others level by level."""
    if int(i.tree.depth.max()) == i.tree.num_vertices - 1:
        x, weights = (i.rows(tensor).double() for tensor in (i.x, i.weights))
        expected = chain_by_doubling(x, weights)
        assert (i.rows(result) - expected).abs().max() <= 1e-5 * expected.abs().max()
    else:
        i.check_scan(result)


SHAPES = Case("scan of trees of 512×512 vertices, 16 channels", Shapes, shape_calls(scans.scan_into, check_shape),
              tuple(Bar("chains and stars", f"treescan, {name}", "treescan, grid", 2) for name in ("chain", "star")))

SMALL = (1, 8, 4, 4)
OVERHEAD = Case("scan 1×8×4×4", lambda: scans.Inputs(SMALL, torch.contiguous_format), scans.FORWARD,
                tuple(Bar("Python overhead", who, against, limit)
                      for who in (scans.NEW, scans.INTO) for against, limit in ((None, 15), (scans.ADDCMUL, 10))),
                guarded=True)

CASES = (*THREADS, SHAPES, OVERHEAD)
