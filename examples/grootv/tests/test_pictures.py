"""Affinity maps are what the model's own scans do to an impulse; the pictures are drawn, and the command line draws them."""

import numpy as np
import pytest
import torch
from PIL import Image
from treescan import Tree, tree_scan

from grootv import GrootV, fixed_tree, pictures
from grootv.composites import Composites
from grootv.pictures import Scan, affinity, record_scans

SIZE = (40, 67)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GrootV(8, (1, 2, 1, 1), num_classes=10).eval()


@pytest.fixture(scope="module")
def composite():
    return Composites(1, SIZE)[0]


def _picture(composite):
    return torch.from_numpy(composite.image).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("block", [0, -1])
def test_scans_are_the_models_own(model, composite, block):
    x = _picture(composite)[None]
    wanted = []

    def keep(mixer, inputs, outputs):
        u = torch.nn.functional.silu(mixer.conv2d(mixer.in_proj(inputs[0]).chunk(2, -1)[0].permute(0, 3, 1, 2)))
        rank = mixer.dt_projs_weight.shape[2]
        r = (u.permute(0, 2, 3, 1) @ mixer.x_proj_weight[0].T)[..., :rank]
        step = torch.nn.functional.softplus(r @ mixer.dt_projs_weight[0].T + mixer.dt_projs_bias[0])
        wanted.append((torch.exp(-step * mixer.A_logs[:, 0].exp()).permute(0, 3, 1, 2), outputs[1]))

    hooks = [level.blocks[block].TreeSSM.register_forward_hook(keep) for level in model.levels]
    scans = record_scans(model, x, block)
    for hook in hooks:
        hook.remove()
    assert len(scans) == 4 and [scan.decay.shape[2:] for scan in scans] == [(10, 17), (5, 9), (3, 5), (2, 3)]
    for scan, (decay, tree) in zip(scans, wanted):
        torch.testing.assert_close(scan.decay, decay)
        assert torch.equal(scan.tree.parent, tree.parent)


def test_no_such_block(model, composite):
    with pytest.raises(ValueError, match="block must be one of the 1 of stage 1, got 1"):
        record_scans(model, _picture(composite)[None], 1)


def test_affinity_is_the_product_along_the_path():
    decay = torch.rand(1, 3, 4, 5)
    tree = fixed_tree("snake", 4, 5)
    scan = Scan(decay, tree)
    found = affinity(scan, 2, 1)
    parent = tree.parent[0].tolist()
    flat = decay[0].flatten(1)

    def up(vertex):
        path = [vertex]
        while parent[path[-1]] != path[-1]:
            path.append(parent[path[-1]])
        return path

    start = up(11)
    for vertex in range(20):
        edges = set(start) ^ set(up(vertex))
        expected = torch.stack([flat[:, edge] for edge in edges]).prod(0).mean() if edges else torch.ones(())
        torch.testing.assert_close(found.flatten()[vertex], expected)
    raster, impulse = fixed_tree("raster", 4, 5), torch.zeros(1, 3, 4, 5)
    impulse[..., 2, 1] = 1
    torch.testing.assert_close(affinity(scan, 2, 1, raster), tree_scan(impulse, decay, raster)[0].mean(0))
    with pytest.raises(ValueError, match="inside 4 rows and 5 columns, got row 4, column 0"):
        affinity(scan, 4, 0)


def _drawn(path):
    """The picture in a file, which isn't of one colour."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.std() > 5
    return pixels


def test_affinity_and_trees_are_drawn(model, composite, tmp_path):
    picture = _picture(composite)
    scans = record_scans(model, picture[None])
    pictures.draw_affinity(picture, scans, 39, 66, tmp_path / "affinity.png")
    pictures.draw_trees(picture, scans, 39, 66, tmp_path / "trees.png")
    assert _drawn(tmp_path / "affinity.png").shape[1] > 1000 and _drawn(tmp_path / "trees.png").shape[1] > 1000
    pictures.draw_affinity(picture, record_scans(GrootV(8, (1, 1, 1, 1), topology="none").eval(), picture[None]), 0, 0,
                           tmp_path / "none.png")
    _drawn(tmp_path / "none.png")


def test_predictions_are_drawn(composite, tmp_path):
    picture, names = _picture(composite), [f"digit {i}" for i in range(10)]
    pictures.draw_classes(picture, torch.rand(10).softmax(0), names, tmp_path / "classes.png")
    pictures.draw_classes(picture, torch.rand(3).softmax(0), names[:3], tmp_path / "three.png")
    _drawn(tmp_path / "classes.png")
    pictures.draw_regions(picture, torch.from_numpy(composite.semantic), ["background", *names], tmp_path / "regions.png")
    _drawn(tmp_path / "regions.png")
    found = {"boxes": torch.from_numpy(composite.boxes), "labels": 1 + torch.from_numpy(composite.labels),
             "scores": torch.full((len(composite.labels),), 0.7), "masks": torch.from_numpy(composite.masks[:, None]).float()}
    plain = {}
    for threshold in (0.5, 0.9):
        pictures.draw_objects(picture, found, names, tmp_path / "objects.png", threshold)
        plain[threshold] = _drawn(tmp_path / "objects.png")
    factor = plain[0.9].shape[0] // SIZE[0]
    untouched = np.repeat(np.repeat(composite.image, factor, 0), factor, 1)
    assert np.array_equal(plain[0.9], untouched)
    inside = np.repeat(np.repeat(composite.masks.any(0), factor, 0), factor, 1)
    assert (plain[0.5] != untouched).any(2)[inside].mean() > 0.9


def test_command_line(composite, tmp_path, capsys):
    Image.fromarray(composite.image).save(tmp_path / "photo.png")
    torch.save({"model": GrootV(8, (1, 1, 1, 1), num_classes=3).state_dict()}, tmp_path / "small.pth")
    (tmp_path / "names.txt").write_text("cup\nspoon\nplate\n")
    shared = [str(tmp_path / "photo.png"), "--checkpoint", str(tmp_path / "small.pth"), "-o", str(tmp_path / "out")]
    pictures.main([*shared, "--size", "64", "--names", str(tmp_path / "names.txt"), "--pixel", "39", "66"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"affinity.png", "trees.png", "prediction.png"}
    for arguments, said in (
        ([*shared, "--pixel", "40", "0"], "error: --pixel must lie inside the picture's 40 rows and 67 columns, got row 40, column 0"),
        ([*shared, "--names", str(tmp_path / "photo.png")], "error: "),
        ([*shared, "--size", "16"], "photo.png is too small"),
        ([*shared, "--model", "grootv_tiny"], "small.pth"),
        ([str(tmp_path / "missing.png")], "error: there is no picture"),
    ):
        with pytest.raises(SystemExit) as stopped:
            pictures.main(arguments)
        assert said in str(stopped.value), stopped.value


def test_a_tree_of_two_pixels_is_enough():
    assert affinity(Scan(torch.full((1, 1, 1, 2), 0.25), Tree.from_parents(torch.tensor([[0, 0]]))), 0, 1).tolist() == [[0.25, 1.0]]
