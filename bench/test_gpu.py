"""The GPU's benchmark on the CPU, with shapes of a few pixels: what it compares is right, and its figures get a table."""

import json

import pytest

from . import gpu, report


def test_every_call_is_right_and_gets_a_row():
    shapes = (gpu.Shape("5×4, 3 channels", 2, 3, 5, 4), gpu.Shape("chain of 9", 2, 2, 1, 9))
    results = json.loads(json.dumps(gpu.measure("cpu", shapes, budget=0.001, copied=2**16)))
    table = report.gpu({"gpu": results})
    assert table.count("\n| ") >= len(results["rows"]) == 18
    assert {row["who"] for row in results["rows"]} >= {gpu.OURS, gpu.COMPOSED, gpu.ORIGINAL}


def test_wrong_results_are_not_timed():
    work = gpu.Work(gpu.Shape("4×4", 1, 2, 4, 4), "cpu")
    work.check_scan(work.expected.float())
    with pytest.raises(AssertionError):
        work.check_scan(work.expected.float() + 0.01)
    with pytest.raises(AssertionError):
        work.check_cost(work.cost + 1e-3)
    with pytest.raises(AssertionError):
        work.check_tree(work.tree.reroot(3))


def test_without_a_gpu_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "missing", lambda: "there is no GPU")
    monkeypatch.setattr("sys.argv", ["bench.gpu", "--output", str(tmp_path / "gpu.json")])
    assert gpu.main() == gpu.NO_GPU and not list(tmp_path.iterdir())
    assert capsys.readouterr().err == "bench.gpu: there is no GPU, so nothing was measured\n"
    assert "has run" in report.gpu({"gpu": None})
