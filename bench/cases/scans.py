"""Scans beside the operation that moves the same bytes, torch's own level by level, and Higra's accumulations."""

import functools
import itertools

import torch

import treescan

from ..case import Bar, Call, Case
from ..peers import absence, available
from ..peers.scans import HigraTree, Levels, by_levels, by_levels_in_rows, gradients_by_levels

ADDCMUL = "torch.addcmul"
IMAGES = ((160, 56, 56), (320, 28, 28), (640, 14, 14), (1280, 7, 7))  # the stages of a vision model
LARGE = ((64, 512, 512), (16, 1024, 1024))


class Inputs:
    """x, weights, an upstream gradient and the tree that x's own features give; the answers in float64."""

    def __init__(self, shape, memory_format=torch.channels_last, dtype=torch.float32, tree=None):
        generator = torch.Generator().manual_seed(0)
        self.x, self.weights, self.grad = (
            torch.rand(shape, generator=generator).to(dtype).to(memory_format=memory_format) for _ in range(3))
        self.y = torch.empty_like(self.x)
        self.tree = treescan.build_tree(self.x) if tree is None else tree
        self.scanned = {}  # the answers by direction, as they are wanted

    @functools.cached_property
    def levels(self) -> list[Levels]:
        return [Levels(self.tree, item) for item in range(self.tree.batch_size)]

    def rows(self, tensor, item=0):
        """A batch item as (V, C)."""
        return tensor[item].flatten(1).T

    def _near(self, result, item, expected):
        rows = self.rows(result, item).double()
        loose = {torch.float32: 5e-5, torch.bfloat16: 1e-2}[result.dtype]
        assert (rows - expected).abs().max() <= loose * expected.abs().max()

    def check_scan(self, result, direction="both"):
        assert result.shape == self.x.shape
        for item, expected in enumerate(self._scanned(direction)):
            self._near(result, item, expected)

    def _scanned(self, direction):
        if direction not in self.scanned:
            self.scanned[direction] = [
                by_levels_in_rows(self.rows(self.x, item).double(), self.rows(self.weights, item).double(), levels, direction)
                for item, levels in enumerate(self.levels)]
        return self.scanned[direction]

    def check_gradients(self, result):
        for item, levels in enumerate(self.levels):
            arguments = (self.rows(tensor, item).double() for tensor in (self.grad, self.x, self.weights))
            for tensor, expected in zip(result, gradients_by_levels(*arguments, levels)):
                self._near(tensor, item, expected)


def check_scan(inputs, result):
    inputs.check_scan(result)


def check_gradients(inputs, result):
    inputs.check_gradients(result)


def scan_into(i):
    x, weights, tree, y = i.x, i.weights, i.tree, i.y
    return lambda: treescan.tree_scan(x, weights, tree, out=y)


def scan_new(i):
    x, weights, tree = i.x, i.weights, i.tree
    return lambda: treescan.tree_scan(x, weights, tree)


def addcmul_into(i):
    x, weights, y = i.x, i.weights, i.y
    return lambda: torch.addcmul(x, x, weights, out=y)


def gather(i):
    """x's rows in the tree's order into rows one after the other: a scan goes to rows in that order five times, those of x,
    weights and y on the way up, of weights and y on the way down."""
    rows, order, gathered = i.rows(i.x), i.tree.order[0], torch.empty_like(i.rows(i.y))
    return lambda: torch.index_select(rows, 0, order, out=gathered)


def gradients_of(function):
    """Forward and backward in torch's autograd, with the same upstream gradient for all."""

    def prepare(i):
        x, weights = (tensor.detach().requires_grad_() for tensor in (i.x, i.weights))
        tree, grad = i.tree, i.grad
        return lambda: torch.autograd.grad(function(x, weights, tree), (x, weights), grad)

    return prepare


def check_addcmul(i, result):
    torch.testing.assert_close(result, i.x + i.x * i.weights)


def check_gather(i, result):
    assert result.equal(i.rows(i.x)[i.tree.order[0].long()])


def check_addcmul_gradients(i, result):
    torch.testing.assert_close(result, (i.grad * (1 + i.weights), i.grad * i.x))


INTO, NEW = "treescan, out=", "treescan, new memory"
FORWARD = {
    INTO: Call(scan_into, check_scan),
    NEW: Call(scan_new, check_scan),
    ADDCMUL: Call(addcmul_into, check_addcmul),
}
GATHER = {"torch.index_select in the tree's order": Call(gather, check_gather)}
BACKWARD = {
    "treescan": Call(gradients_of(treescan.tree_scan), check_gradients),
    ADDCMUL: Call(gradients_of(lambda x, weights, tree: torch.addcmul(x, x, weights)), check_addcmul_gradients),
}
FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def shape_name(shape) -> str:
    return "×".join(map(str, shape))


def forward_case(image, layout, bar) -> Case:
    shape = (1, *image)
    calls = FORWARD | GATHER if image in LARGE and layout == "channels-last" else FORWARD
    return Case(f"scan {shape_name(shape)} {layout}", lambda: Inputs(shape, FORMATS[layout]), calls, (bar,),
                guarded=image == IMAGES[0], bytes_moved=12 * image[0] * image[1] * image[2])


def backward_case(image, layout, bar) -> Case:
    shape = (1, *image)
    # x, weights and the gradient are read, y and two gradients are written.
    return Case(f"scan and gradients {shape_name(shape)} {layout}", lambda: Inputs(shape, FORMATS[layout]), BACKWARD,
                (bar,), guarded=image == IMAGES[0], bytes_moved=24 * image[0] * image[1] * image[2])


def bfloat16_case(image) -> Case:
    shape = (1, *image)

    def inputs():
        both = {dtype: Inputs(shape, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
        both[torch.bfloat16].tree = both[torch.float32].tree
        return both

    def call(dtype):
        return Call(lambda both: scan_into(both[dtype]), lambda both, result: both[dtype].check_scan(result))

    return Case(f"bfloat16 scan {shape_name(shape)} channels-last", inputs,
                {"treescan, bfloat16": call(torch.bfloat16), "treescan, float32": call(torch.float32)},
                (Bar("bfloat16 forward", "treescan, bfloat16", "treescan, float32", 1),), guarded=image == IMAGES[0])


def planes(i):
    x, weights, levels = i.x.flatten(2).contiguous(), i.weights.flatten(2).contiguous(), i.levels[0]
    return lambda: by_levels(x, weights, levels)


def rows(i):
    x, weights, levels = i.rows(i.x).contiguous(), i.rows(i.weights).contiguous(), i.levels[0]
    return lambda: by_levels_in_rows(x, weights, levels)


def compiled_rows(i):
    x, weights, levels = i.rows(i.x).contiguous(), i.rows(i.weights).contiguous(), i.levels[0]
    compiled = torch.compile(lambda x, weights: by_levels_in_rows(x, weights, levels), fullgraph=True, dynamic=False)
    return lambda: compiled(x, weights)


def check_planes(i, result):
    i.check_scan(result.unflatten(2, i.x.shape[2:]))


def check_rows(i, result):
    i.check_scan(result.T.unflatten(1, i.x.shape[2:])[None])


PLANES, ROWS, COMPILED = ("torch, level by level, (B, C, V)", "torch, level by level, (V, C)",
                          "torch.compile, level by level, (V, C)")


def levels_case() -> Case:
    calls = {NEW: FORWARD[NEW], PLANES: Call(planes, check_planes), ROWS: Call(rows, check_rows)}
    work = "scan against the level-by-level torch composition"
    return Case("scan 1×160×56×56 beside torch's operations", lambda: Inputs((1, 160, 56, 56)), calls,
                (Bar(work, NEW, PLANES, 60, faster=True),
                 Bar(work, NEW, ROWS, 60, faster=True, guarded=False)),  # about half of it is what there is
                guarded=True)


def compiled_case() -> Case:
    # Levels unroll into the graph, and compiling takes minutes for a larger image.
    calls = {NEW: FORWARD[NEW], ROWS: Call(rows, check_rows), COMPILED: Call(compiled_rows, check_rows)}
    return Case("scan 1×160×8×8 beside torch.compile", lambda: Inputs((1, 160, 8, 8)), calls)


class UnitWeights(Inputs):
    """Higra adds along a tree but doesn't multiply, so this is what both can do."""

    def __init__(self, shape):
        super().__init__(shape)
        self.weights = torch.ones_like(self.weights)


def higra_case(direction) -> Case:
    def ours(i):
        x, weights, tree, y = i.x, i.weights, i.tree, i.y
        return lambda: treescan.tree_scan(x, weights, tree, direction=direction, out=y)

    def theirs(i):
        tree = HigraTree(i.tree)
        values = i.rows(i.x).double().numpy()[tree.vertex]
        run = getattr(tree, direction)
        return lambda: run(values)

    def check_theirs(i, result):
        tree = HigraTree(i.tree)
        values = torch.empty(result.shape, dtype=torch.float64)
        values[torch.from_numpy(tree.vertex)] = torch.from_numpy(result)
        i.check_scan(values.float().T.unflatten(1, i.x.shape[2:])[None], direction)

    calls = {"treescan, out=": Call(ours, lambda i, result: i.check_scan(result, direction))}
    absent = {}
    if available("higra"):
        calls["Higra"] = Call(theirs, check_theirs)
    else:
        absent["Higra"] = absence("higra")
    return Case(f"{direction} with weights of 1, 1×160×56×56", lambda: UnitWeights((1, 160, 56, 56)), calls, absent=absent)


CASES = (
    *(forward_case(image, "channels-last", Bar("scan, channels-last", INTO, ADDCMUL, 3, aim=2)) for image in IMAGES),
    *(forward_case(image, "contiguous", Bar("scan, contiguous", INTO, ADDCMUL, 5)) for image in IMAGES),
    *(backward_case(image, layout, Bar("scan, forward + backward", "treescan", ADDCMUL, 4))
      for layout, image in itertools.product(FORMATS, IMAGES)),
    *(forward_case(image, layout, Bar("scan of large images", INTO, ADDCMUL, 5))
      for layout, image in itertools.product(FORMATS, LARGE)),
    *(bfloat16_case(image) for image in IMAGES),
    levels_case(),
    compiled_case(),
    *(higra_case(direction) for direction in ("up", "down")),
)
