"""The golden vectors of whole mixers, with the selective scan in the place of the scan of materialised states."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import treescan

pytestmark = pytest.mark.usefixtures("device")

GOLDEN = Path(__file__).parent / "data" / "golden"


def load(path):
    arrays = np.load(path)
    return {key: torch.tensor(arrays[key]) for key in arrays.files if arrays[key].dtype.kind in "fi"}


def files(prefix):
    return pytest.mark.parametrize("path", sorted(GOLDEN.glob(f"{prefix}_*.npz")), ids=lambda path: path.stem)


def assert_close(value, expected, limit):
    assert (value - expected).abs().max() <= limit * expected.abs().max()


@files("tree_scanning")
def test_vision(path):
    vectors = load(path)
    names = ("x", "x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds", "out_norm_weight", "out_norm_bias",
             "h_norm_weight", "h_norm_bias")
    named = {name: vectors[name if name in vectors else name.replace("_norm_", "_norm.")].requires_grad_() for name in names}
    x, rank = named["x"], named["dt_projs_weight"].shape[2]
    batch, channels, height, width = x.shape
    r, b, c = torch.einsum("rd,bdhw->brhw", named["x_proj_weight"][0], x).split([rank, 1, 1], 1)
    delta = torch.einsum("dr,brhw->bdhw", named["dt_projs_weight"][0], r)
    h = treescan.selective_tree_scan(x.flatten(2), delta.flatten(2), -named["A_logs"].exp(), b.flatten(2),
                                     torch.ones(channels, 1), treescan.build_tree(x.detach()),
                                     delta_bias=named["dt_projs_bias"][0], delta_softplus=True, direction="both")
    h = F.layer_norm(h.mT, (channels,), named["h_norm_weight"], named["h_norm_bias"])
    y = h * c.flatten(2).mT + named["Ds"] * x.flatten(2).mT
    y = F.layer_norm(y, (channels,), named["out_norm_weight"], named["out_norm_bias"]).unflatten(1, (height, width))
    assert_close(y, vectors["y"], 1e-5)
    y.backward(vectors["grad_y"])
    for name, value in named.items():
        key = f"grad/{name}" if f"grad/{name}" in vectors else f"grad/{name.replace('_norm_', '_norm.')}"
        assert_close(value.grad, vectors[key], 1e-4)


@files("grootl")
def test_language(path):
    """The golden README's section 5. Its decays are those of the next position, so the input is scaled by the two steps'
    ratio."""
    vectors = load(path)
    p = {key[len("param/"):]: value.requires_grad_() for key, value in vectors.items() if key.startswith("param/")}
    x = vectors["x"].requires_grad_()
    length, inner = x.shape[1], p["A_log"].shape[0]

    def linear(name, values):
        return F.linear(values, p[f"{name}.weight"], p.get(f"{name}.bias"))

    u, gate = linear("in_proj", x).chunk(2, -1)
    kernel = p["conv1d.weight"]
    u = F.silu(F.conv1d(u.mT, kernel, p.get("conv1d.bias"), padding=kernel.shape[2] - 1, groups=inner)[..., :length])
    states = p["A_log"].shape[1]
    r, b, c = linear("x_proj", u.mT).split([p["dt_proj.weight"].shape[1], states, states], -1)
    step = F.softplus(linear("dt_proj", r)).mT
    drive = ((step * u)[:, :, None] * b.mT[:, None]).flatten(1, 2)
    flipped_step = step.flip(2)
    delta = flipped_step.roll(1, 2)
    arguments = (u.flip(2) * flipped_step / delta, delta, -p["A_log"].exp(), b.mT.flip(2), c.mT.flip(2))
    chain = treescan.Tree.from_parents((torch.arange(length)[None] - 1).clamp(min=0))
    along_the_chain = treescan.selective_tree_scan(*arguments, chain, direction="up")
    other, context = along_the_chain, int(vectors["contex_len"].min())
    if context > 2:
        tree = treescan.flipped_token_tree(drive.detach(), context)
        assert [sorted(sorted(pair) for pair in item) for item in tree.edges.tolist()] == vectors["tree_pairs/0"].tolist()
        other = treescan.selective_tree_scan(*arguments, tree, direction="up")
    y = (along_the_chain + 0.3 * other).flip(2).mT + p["D"] * u.mT
    y = linear("out_proj", y * F.silu(gate))
    assert_close(y, vectors["y"], 1e-5)
    y.backward(vectors["grad_y"])
    for name, value in {"grad_x": x, **{f"grad/{name}": value for name, value in p.items()}}.items():
        assert_close(value.grad, vectors[name], 1e-4)
