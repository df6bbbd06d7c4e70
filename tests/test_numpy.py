"""treescan.numpy: the same numbers as in torch, and all of it where there is no torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import treescan.numpy as tn

DTYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64, np.float16, np.float32, np.float64, ">f4", ">i2"]


def picture(dtype, shape=(7, 5, 3), seed=0):
    values = np.random.default_rng(seed).integers(0, 120, shape)
    return values.astype(dtype)


def layouts(array):
    yield array
    yield np.asfortranarray(array)
    yield np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    yield np.repeat(array, 2, 1)[:, ::2]
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen
    records = np.zeros(array.shape, [("gap", "u1"), ("value", array.dtype)])  # steps that aren't whole numbers of elements
    records["value"] = array
    yield records["value"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1, 2), (7, 5), (7, 5, 3)], ids=str)
def test_the_same_in_every_layout_and_as_in_torch(dtype, shape):
    torch, treescan = pytest.importorskip("torch"), pytest.importorskip("treescan")
    image = picture(dtype, shape)
    channels_first = image[None, None] if image.ndim == 2 else image.transpose(2, 0, 1)[None]
    plain = torch.from_numpy(np.ascontiguousarray(channels_first.astype(channels_first.dtype.newbyteorder("=")), dtype=np.float64))
    for metric in ("l2", "l1"):
        for connectivity in (4, 8):
            graph = treescan.grid_graph(*shape[:2], connectivity)
            right = treescan.build_tree(plain, graph, metric=metric)
            cost = treescan.edge_weights(plain, graph, metric)
            for view in layouts(image):
                tree = tn.minimum_spanning_tree(view, metric=metric, connectivity=connectivity)
                assert all(np.array_equal(field, getattr(right, name)[0]) for name, field in tree._asdict().items())
                weights = tn.edge_weights(view, metric=metric, connectivity=connectivity)
                assert np.array_equal(weights.edges, graph.edge_index) and np.array_equal(weights.cost, cost[0])
    tree = tn.minimum_spanning_tree(image)
    decay = np.random.default_rng(1).random(shape[:2], dtype=np.float32)
    for direction in ("up", "down", "both"):
        right = treescan.tree_scan(plain, torch.from_numpy(decay)[None, None].double(), treescan.build_tree(plain, metric="l2"),
                                   direction=direction)
        for view in layouts(image):
            y = tn.tree_scan(view, decay, tree, direction)
            assert y.shape == image.shape
            assert np.allclose(y, right[0].movedim(0, -1).reshape(shape), rtol=1e-5)
            assert np.array_equal(tn.tree_scan(view, decay, tree.parent, direction), y)
    smooth = treescan.nn.TreeFilter2d(sigma=400.0)(plain)[0].movedim(0, -1).reshape(shape)
    for view in layouts(image):
        assert np.allclose(tn.tree_filter(view, 20), smooth, rtol=1e-5)


def test_result_dtypes():
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    for dtype, cost, filtered in ((np.uint8, single, single), (np.uint16, double, double), (np.int64, double, double),
                                  (np.float16, single, single), (np.float32, single, single), (np.float64, double, double)):
        image = picture(dtype)
        assert tn.edge_weights(image).cost.dtype == cost
        assert tn.tree_filter(image, 20).dtype == filtered
    half = picture(np.float16) / 128
    tree = tn.minimum_spanning_tree(half)
    assert tn.tree_scan(half, half, tree).dtype == np.float16
    assert tn.tree_scan(half, half.astype(np.float32), tree).dtype == np.float32
    assert tn.tree_scan(picture(np.uint8), half, tree).dtype == np.float32


def test_masked_pixels_matter_to_nobody():
    image = picture(np.float32)
    mask = np.random.default_rng(3).random((7, 5)) > 0.3
    right = tn.tree_filter(np.where(mask[..., None], image, 0), 20, mask=mask)
    for value in (np.nan, np.inf, -np.inf, 1e38):
        found = tn.tree_filter(np.where(mask[..., None], image, np.float32(value)), 20, mask=mask)
        assert np.array_equal(found, right)
    assert (right[~mask] == 0).all()
    tree = tn.minimum_spanning_tree(image, mask=mask)
    assert np.array_equal(tree.parent.reshape(7, 5) >= 0, mask)


def test_a_picture_filtered_by_another():
    guide = np.zeros((6, 8), np.uint8)
    guide[:, 4:] = 200
    image = np.random.default_rng(0).random((6, 8, 2))
    smooth = tn.tree_filter(image, 5, guide=guide)
    for half in (np.s_[:, :4], np.s_[:, 4:]):
        assert np.allclose(smooth[half], image[half].mean((0, 1)))


def test_trees_of_large_half_precision_pictures():
    assert (tn.tree_filter(np.full((300, 300), 0.5, np.float16), 1) == 0.5).all()


ERRORS = {
    "no picture": (lambda: tn.edge_weights(np.zeros(3)), ValueError, r"image must have shape \(H, W\) or .*, got \(3,\)"),
    "an empty one": (lambda: tn.edge_weights(np.zeros((0, 3))), ValueError, r"at least one pixel, got \(0, 3\)"),
    "bool": (lambda: tn.tree_filter(np.zeros((2, 2), bool), 1), TypeError, "image must have a floating dtype .*, got bool"),
    "complex": (lambda: tn.edge_weights(np.zeros((2, 2), complex)), TypeError, "got complex128"),
    "uint64": (lambda: tn.edge_weights(np.zeros((2, 2), np.uint64)), TypeError, "got uint64"),
    "text": (lambda: tn.edge_weights([["a", "b"]]), TypeError, "image must have a floating dtype"),
    "metric": (lambda: tn.edge_weights(np.zeros((2, 2)), metric="l3"), ValueError, "metric must be one of .*, got 'l3'"),
    "connectivity": (lambda: tn.edge_weights(np.zeros((2, 2)), connectivity=6), ValueError, "connectivity must be 4 or 8, got 6"),
    "root": (lambda: tn.minimum_spanning_tree(np.zeros((2, 2)), root=4), ValueError, r"root must be a vertex in \[0, 4\), got 4"),
    "mask": (lambda: tn.minimum_spanning_tree(np.zeros((2, 2)), mask=np.ones((2, 2))), TypeError, "mask must be a bool array"),
    "mask's shape": (lambda: tn.minimum_spanning_tree(np.zeros((2, 2)), mask=np.ones(4, bool)), ValueError, r"\(2, 2\), got \(4,\)"),
    "sigma": (lambda: tn.tree_filter(np.zeros((2, 2)), 0), ValueError, "sigma_color must be above 0 and finite, got 0"),
    "guide": (lambda: tn.tree_filter(np.zeros((2, 2)), 1, guide=np.zeros((2, 3))), ValueError, r"guide must have .*\(2, 2\), got \(2, 3\)"),
    "weights": (lambda: tn.tree_scan(np.zeros((2, 2)), np.zeros(3), [0, 0, 0, 0]), ValueError, "weights must broadcast"),
    "tree's size": (lambda: tn.tree_scan(np.zeros((2, 2)), 0.5, [0, 0, 0]), ValueError, r"each of x's 4 vertices, got shape \(3,\)"),
    "tree's dtype": (lambda: tn.tree_scan(np.zeros(2), 0.5, [0.0, 0.0]), TypeError, "integer array of parents, got float64"),
    "tree's range": (lambda: tn.tree_scan(np.zeros(2), 0.5, [0, 2**32]), ValueError, "got 4294967296 at vertex 1"),
    "a cycle": (lambda: tn.tree_scan(np.zeros(3), 0.5, [0, 2, 1]), ValueError, "parent: expected no cycle"),
    "direction": (lambda: tn.tree_scan(np.zeros(2), 0.5, [0, 0], "in"), ValueError, "direction must be one of .*, got 'in'"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors(what):
    call, kind, message = ERRORS[what]
    with pytest.raises(kind, match=message):
        call()


def test_all_of_this_without_torch(tmp_path):
    """Once more where torch can't be imported, and with the package's own threads."""
    pytest.importorskip("torch", reason="this is that run")
    command = ("import sys; sys.modules['torch'] = None; import pytest, treescan; assert treescan.get_num_threads() >= 1; "
               "treescan.set_num_threads(2); assert treescan.get_num_threads() == 2; treescan.set_num_threads(None); "
               f"sys.exit(pytest.main(['-q', '--noconftest', '-p', 'no:cacheprovider', {str(Path(__file__))!r}]))")
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "skipped" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
