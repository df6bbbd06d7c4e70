"""The demo's runs at a fraction of their size, and the page from figures."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grootv import demo, pictures, report
from grootv.composites import CLOTHES, Composites

PLAN = demo.Plan(dict(channels=8, depths=[1, 1, 1, 1]), seeds=1, pictures=64, epochs=1, composites=8, detection=1,
                 segmentation=1, heads=8, evaluated=2, propagated=4)
DOCS = demo.DOCS / "grootv" / "results.json"


def _write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A folder like Fashion-MNIST's, of digits."""
    folder = tmp_path_factory.mktemp("clothes")
    for prefix, split, count in (("train", "train", 100), ("t10k", "val", 20)):
        items = Composites(count, (28, 28), split=split, most=1, seed=1)
        images = np.stack([255 * items[index].masks[0].astype(np.uint8) for index in range(count)])
        _write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % len(CLOTHES))
    return folder


def test_one_chain_of_runs(clothes, tmp_path):
    demo.write_data(tmp_path, PLAN, clothes)
    assert 0.1 < demo.background_miou(tmp_path) < 1 / 3
    finished = demo.run("tree", 0, PLAN, demo.TASKS, tmp_path)
    assert [(one["task"], one["row"], one["seed"]) for one in finished] == [
        (task, "tree", 0) for task in ("classification", "detection", "segmentation")]
    assert all(0 <= one["results"][measure] <= 1 for one, measure in zip(finished, ("top1", "box/AP50", "mIoU")))
    photograph = next((tmp_path / "detection" / "val2017").iterdir())
    for task in ("classification", "detection", "segmentation"):
        run = tmp_path / "runs" / f"{task}-tree-0"
        pictures.main([str(photograph), "--config", str(run / "config.yaml"), "--checkpoint", str(run / "checkpoint.pt"),
                       "-o", str(tmp_path / task / "drawn")])
        assert {path.name for path in (tmp_path / task / "drawn").iterdir()} == {"affinity.png", "trees.png", "prediction.png"}
    with pytest.raises(SystemExit) as stopped:  # of one task, a checkpoint of another
        pictures.main([str(photograph), "--config", str(run / "config.yaml"), "--checkpoint",
                       str(tmp_path / "runs" / "detection-tree-0" / "checkpoint.pt")])
    assert "is of a detection run, but the task here is segmentation" in str(stopped.value)
    demo.draw(PLAN, demo.TASKS, tmp_path, tmp_path / "drawn")
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"objects.png", "regions.png", "affinity.png", "trees.png"}


def test_rows_differ_in_what_they_say_alone():
    for task in ("classification", "detection", "segmentation"):
        tree, raster = (demo.configuration(task, row, 3, PLAN, Path("x")) for row in ("tree", "raster"))
        assert tree.model.pop("topology") == "tree" and raster.model.pop("topology") == "raster"
        assert tree.model.pop("trees") == "block"
        for name in ("output", "backbone_checkpoint"):
            if hasattr(tree, name):
                setattr(raster, name, getattr(tree, name))
        assert tree == raster


def _figures(seeds=3):
    random = np.random.default_rng(0)
    runs = [{"task": task, "row": row, "seed": seed, "results": dict.fromkeys(names, 0.5 + 0.1 * random.random())}
            for task, names in (("classification", ["top1"]), ("detection", ["box/AP", "box/AP50", "mask/AP"]),
                                ("segmentation", ["mIoU", "aAcc"]))
            for row in (demo.ROWS if task == "classification" else demo.DENSE_ROWS) for seed in range(seeds)]
    rows = {name: {"sigma": 0.1, "miou": [0.5 + 0.1 * i] * seeds} for i, name in enumerate(["cross", "snake", "raster", "tree"])}
    return {"runs": runs, "tasks": list(demo.TASKS), "plan": dict(vars(PLAN), tested=10, classes=demo.DENSE_CLASSES), "small_parameters": 10, "machine": {"processor": "slow"},
            "majority": 0.2, "propagation": {"rows": rows, "count": 4, "size": 64, "seeds": list(range(seeds))},
            "costs": {"grootv_tiny": {"parameters": 29959000, "backbone": 28381000, "macs": 4778000000}},
            "speeds": {name: dict(zip(demo.ROWS, (2.0, 3.0, 4.0, 5.0))) for name in ("small", "grootv_tiny")},
            "shares": {"trees": 0.02, "scans": 0.03}, "seconds": 125.0, "command": "python -m grootv.demo"}


def test_page():
    figures = _figures()
    page = report.page(figures)
    assert "{{" not in page and "They took 2 minutes." in page
    accuracy = [100 * one["results"]["top1"] for one in figures["runs"] if one["task"] == "classification" and one["row"] == "tree"]
    assert f"| tree, one per block | {np.mean(accuracy):.1f} ± {np.std(accuracy, ddof=1):.1f} | 83.4 |" in page
    assert "| tree, one per stage |" in page and "3.00 (1.50 ×) | 3.00 (1.50 ×) | 392 (1.40 ×) |" in page
    assert "trees 2.0 %, scans 3.0 %, together 5.0 %" in page
    assert "The tree's is 1.14 × the raster's" in page


def test_command_line(clothes, tmp_path, monkeypatch):
    """All that `main` does, with what takes long replaced by figures."""
    figures = _figures()
    asked = []
    monkeypatch.setattr(demo, "QUICK", PLAN)
    monkeypatch.setattr(demo, "run_all", lambda plan, tasks, folder, jobs: asked.append((plan, tasks, jobs)) or figures["runs"])
    monkeypatch.setattr(demo, "draw", lambda *arguments: None)
    monkeypatch.setattr(demo, "speeds", lambda plan: figures["speeds"])
    monkeypatch.setattr(demo, "network_costs", lambda: figures["costs"])
    monkeypatch.setattr(demo, "time_shares", lambda model, x: (figures["shares"], ""))
    monkeypatch.setattr(demo.propagation, "study", lambda *arguments, **options: figures["propagation"])
    demo.main(["--data", str(clothes), "--output", str(tmp_path), "--seeds", "2", "--jobs", "1", "--tasks", "segmentation",
               "--note", "A test."])
    assert asked == [(replace(PLAN, seeds=2), ["segmentation"], 1)]
    page = (tmp_path / "grootv.md").read_text(encoding="utf-8")
    assert "A test." in page and "    python -m grootv.demo --seeds 2 --tasks segmentation\n" in page
    (tmp_path / "grootv.md").unlink()
    demo.main(["--output", str(tmp_path), "--write-again"])
    assert (tmp_path / "grootv.md").read_text(encoding="utf-8") == page


def test_page_of_some_tasks():
    figures = _figures()
    figures["tasks"] = ["classification"]
    page = report.page(figures)
    assert page.count("Left out of this run.") == 3 and ".png" not in page
    page = report.page(figures | {"tasks": [], "runs": []})
    assert page.count("Left out of this run.") == 4 and "| tree, one per stage | left out |" in page


def test_verdict_claims_no_more_than_the_table():
    figures = _figures()
    for one in figures["runs"]:
        if one["task"] == "detection":
            one["results"]["box/AP"] = {"tree": 0.3, "raster": 0.28 + 0.02 * one["seed"], "none": 0.2}[one["row"]]
    told = report.verdict_detection(figures)
    assert "0.0 ± 2.0 against raster chain; 10.0 ± 0.0 against none" in told and "the difference to none." in told
    assert "One seed says nothing" in report.verdict_detection(_figures(1))
    noisy = _figures()
    for one in noisy["runs"]:
        one["results"]["mIoU"] = 0.5 + 0.1 * (one["row"] == "tree") * (one["seed"] - 1)
    assert "tell no topology from another" in report.verdict_segmentation(noisy)


def test_unknown_placeholder(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "TEMPLATE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("{{weather}}")
    with pytest.raises(ValueError, match="page.md asks for {{weather}}"):
        report.page({})


def test_without_fashion_mnist(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        demo.main(["--data", str(tmp_path), "--output", str(tmp_path)])
    assert "error: no Fashion-MNIST in" in str(stopped.value) and "apt-get install dataset-fashion-mnist" in str(stopped.value)


def test_bad_numbers(capsys):
    with pytest.raises(SystemExit):
        demo.main(["--seeds", "0"])
    assert "--seeds and --jobs must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        demo.main(["--tasks", "sorting"])
    assert "--tasks must be of classification, detection, segmentation, got sorting" in capsys.readouterr().err
    assert replace(demo.QUICK, seeds=1).network == demo.QUICK.network


@pytest.mark.skipif(not DOCS.exists(), reason="outside of the repository")
def test_the_page_in_docs_is_written_from_its_figures():
    assert report.page(json.loads(DOCS.read_text(encoding="utf-8"))) == (demo.DOCS / "grootv.md").read_text(encoding="utf-8")
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", (demo.DOCS / "grootv.md").read_text(encoding="utf-8")):
        assert (demo.DOCS / picture).exists(), picture
