"""Multiply-adds against the published figures and fvcore, and the time that trees and scans take."""

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch.utils.flop_counter import FlopCounterMode

from grootv import VARIANTS, GrootV, costs
from treescan import build_tree, tree_scan


@pytest.mark.parametrize("name, giga", [("grootv_tiny", 4.778), ("grootv_small", 8.521), ("grootv_base", 15.089)])
def test_published_multiply_adds(name, giga):
    with torch.device("meta"):
        model = GrootV(**VARIANTS[name]).eval()
    counts = costs.count_macs(model, 224)
    assert counts["total"] / 1e9 == pytest.approx(giga, rel=0.01)
    levels = [(2 * info["num_chs"], 224 // info["reduction"], depth)
              for info, depth in zip(model.feature_info, VARIANTS[name]["depths"])]
    assert counts["treescan.scan"] == sum(3 * channels * side**2 * depth for channels, side, depth in levels)
    edges = [2 * side * (side - 1) for _, side, _ in levels]
    assert counts["treescan.edge_weights"] == sum(
        channels * (side**2 + n) * depth for (channels, side, depth), n in zip(levels, edges))


@pytest.mark.parametrize("options", [dict(metric="cosine"), dict(metric="l1", trees="stage"), dict(topology="raster")])
def test_fvcore_counts_the_same(options):
    model = GrootV(8, (1, 2), num_classes=5, **options).eval()
    analysis = FlopCountAnalysis(model, torch.randn(1, 3, 33, 40)).set_op_handle(**costs.fvcore_handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counts = costs.count_macs(model, (33, 40))
    assert counts["total"] == analysis.total()
    assert counts["treescan.scan"] == analysis.by_operator()["scan"]
    assert next(model.parameters()).device.type == "cpu"


def test_directions_and_metrics():
    x = torch.randn(2, 3, 4, 5)
    tree = build_tree(x)
    for direction, each in (("up", 1), ("down", 1), ("both", 3)):
        with FlopCounterMode(display=False) as counter:
            tree_scan(x, torch.rand_like(x), tree, direction=direction)
        assert counter.get_total_flops() == 2 * each * x.numel() == 2 * costs.scan_macs(x.shape, direction)
    for metric, vertices in (("cosine", 20), ("l2", 0), ("l1", 0)):
        with FlopCounterMode(display=False) as counter:
            build_tree(x, metric=metric)
        assert counter.get_total_flops() == 2 * 2 * 3 * (31 + vertices)


def test_trees_and_scans_take_little_of_a_forward_pass():
    model, x = GrootV(**VARIANTS["grootv_tiny"]).eval(), torch.randn(1, 3, 224, 224)
    tries = (costs.time_shares(model, x) for _ in range(3))  # another process may take the processor within a scan
    shares, table = next((found for found in tries if sum(found[0].values()) <= 0.15), (None, None))
    assert shares is not None and shares["trees"] > 0 and shares["scans"] > 0
    assert "treescan::scan" in table


def test_command(capsys):
    assert costs.main(["grootv_tiny", "--size", "64", "--batch", "2", "--repeats", "1", "--profile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["parameters", "29.959", "M,", "28.381", "M", "without", "the", "head"]
    assert any(line.startswith("a tree per block") and "images/s" in line for line in lines)
    assert any(line.startswith("a tree per stage") for line in lines)
    assert any("treescan::scan" in line for line in lines)
    for wrong in (["grootv_huge"], ["grootv_tiny", "--size", "31"], ["grootv_tiny", "--batch", "0"]):
        with pytest.raises(SystemExit) as stop:
            costs.main(wrong)
        assert stop.value.code == 2
        assert "error:" in capsys.readouterr().err
