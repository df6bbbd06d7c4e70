"""A whole photograph through an edge-preserving filter: the tree filter with its tree, and OpenCV's.

Each is a filter of its own, so that their results can't be equal. What is compared is what all of them promise: a mean
with weights that sum to one (a constant picture stays as it is, the overall mean stays close; no value leaves the
picture's range, but for a little overshoot that a guided filter has), and less variation between neighbours than before.
"""

import functools

import numpy
import torch

import treescan

from ..case import Bar, Call, Case
from ..peers import absence, available, photos


class Photograph:
    def __init__(self):
        from skimage import data

        self.image = numpy.ascontiguousarray(data.astronaut(), dtype=numpy.float32) / 255


def variation(image) -> float:
    return sum(numpy.abs(numpy.diff(image, axis=axis)).mean() for axis in (0, 1))


def check(function):
    def run(i, result):
        flat = numpy.full_like(i.image, 0.25)
        assert numpy.allclose(function(flat), flat, atol=1e-3)
        assert result.shape == i.image.shape and result.min() >= -0.05 and result.max() <= 1.05
        assert abs(result.mean() - i.image.mean()) < 0.02
        assert variation(result) < 0.9 * variation(i.image)

    return run


@functools.cache
def tree_filter():
    return treescan.nn.TreeFilter2d(sigma=0.02).eval()


@torch.no_grad()
def ours(image):
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    return tree_filter()(x)[0].permute(1, 2, 0).numpy()


def tree_alone(i):
    x = torch.from_numpy(i.image).permute(2, 0, 1)[None]
    return lambda: treescan.build_tree(x, metric="l2")


def call(function) -> Call:
    return Call(lambda i: functools.partial(function, i.image), check(function))


def photo_case() -> Case:
    calls = {"treescan.nn.TreeFilter2d": call(ours),
             "treescan.nn.TreeFilter2d, its tree alone": Call(tree_alone, lambda i, tree: tree.validate())}
    absent, bars = {}, ()
    if available("cv2"):
        calls |= {name: call(function) for name, function in photos.filters().items()}
        bars = tuple(Bar("photograph 512×512, ahead of OpenCV", "treescan.nn.TreeFilter2d", name, 1)
                     for name in photos.filters())
    else:
        absent["OpenCV"] = absence("cv2")
    return Case("edge-preserving filter, photograph 512×512", Photograph, calls, bars, absent=absent)


CASES = (photo_case(),) if available("skimage") else ()
