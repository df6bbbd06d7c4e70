"""The benchmark measures what it says."""

import json
import time

import pytest
from grootl import bench


def test_ratios_and_the_table():
    runs = {"transformers": lambda: time.sleep(0.2), "chain": lambda: time.sleep(0.01)}
    part = {"what": "sleep", **bench.measure(runs, 3)}
    assert [len(times) for times in part["seconds"].values()] == [1, 3]
    assert part["times_faster"]["chain"] > 2
    assert "times faster" in bench.table(part).splitlines()[2]


def test_training_memory_hardly_grows_with_the_state_size():
    part = bench.memory(("causal",))
    assert "N = 64" in bench.table(part)
    for peaks in part["megabytes"].values():
        assert 1 < peaks["64"] < 2 * peaks["16"]  # where states in memory would take 4 times as much


def test_parts_are_kept(tmp_path, monkeypatch, capsys):
    output = tmp_path / "folder" / "speed.json"
    parts = {name: lambda name=name: {"what": name, "megabytes": {}} for name in ("one", "two")}
    monkeypatch.setattr(bench, "PARTS", parts)
    for parts in (["one"], ["two"]):
        monkeypatch.setattr("sys.argv", ["bench", *parts, "--output", str(output)])
        bench.main()
    assert list(json.loads(output.read_text())) == ["machine", "one", "two"] and capsys.readouterr().out == "one\ntwo\n"
    monkeypatch.setattr("sys.argv", ["bench", "three"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "unknown part three; there are one, two" in capsys.readouterr().err
