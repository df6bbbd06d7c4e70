"""The page names only what is measured, its estimates are right, and what wasn't measured is said to be so."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from . import counts, report
from .cases import CASES

NATIVE_SOURCE = (Path(__file__).parent / "native" / "main.cpp").read_text()


def calls_on_the_page() -> list[tuple[str, str]]:
    keys = re.findall(r"\{\{(?:time|times|beyond|count|fetched): *(.+?) *\}\}", report.TEMPLATE.read_text())
    return [tuple(part.strip() for part in call.split("|")) for key in keys for call in key.split(" / ")]


def results(native=(), counted=None) -> dict:
    bars = [{"work": "growth", "case": "scan", "bar": "slope", "value": 1.0, "unit": "", "met": True}]
    return {
        "machine": {"processor": "one"}, "bars": bars,
        "cases": {case.name: dict.fromkeys(case.calls, 0.002) for case in CASES},
        "bytes moved": {case.name: case.bytes_moved for case in CASES if case.bytes_moved}, "native": list(native),
        "counts": counted, "growth": {"scan": {4096: 0.001}}, "left out": [], "gpu": None,
        "streaming": [{"bytes": 2**power, "bytes per second": 1e9} for power in (18, 20, 24)],
    }


def test_every_call_on_the_page_is_measured():
    for module in ("cv2", "skimage"):
        pytest.importorskip(module)
    in_python = {(case.name, who) for case in CASES for who in case.calls}
    others = set(calls_on_the_page()) - in_python
    for case, who in others:
        assert re.fullmatch(r"(scan|tree) [0-9x]+", case) and f'"{who}"' in NATIVE_SOURCE, f"{case} | {who}"
    native = [{"case": case, "who": who, "seconds": 0.001} for case, who in others]
    rows = [{"case": case, "who": who, "instructions": 3.0, "bytes": [2.0, 1.0]} for case, who in others]
    page = report.page(results(native, {"instruction set": "avx2", "rows": rows}))
    assert report.NOT_MEASURED not in page and "{{" not in page
    assert "a cache of 1 MiB\n  fetches 1.00 bytes" in page and "instead of 3.00" in page


def test_what_was_not_measured_is_said_to_be_so():
    page = report.page(results())
    assert f"it takes {report.NOT_MEASURED}" in page and report.NOT_MEASURED.capitalize() in page
    with pytest.raises(KeyError, match="isn't known"):
        report._value("guess: scan", results())


def test_serial_shares():
    taken = {report.PRODUCT: {"torch, 2 threads": 2.0, "torch, 1 thread": 3.2},
             "threads: tree": {"treescan, 2 threads": 0.75, "treescan, 1 thread": 1.0},
             "threads: scan": {"treescan, 2 threads": 0.5, "treescan, 1 thread": 1.0}}
    product, tree, scan = report.serial({"cases": taken, "native": []}).splitlines()[2:]
    assert product.endswith("| 1.60 | 25 % | 0 % |")
    assert tree.endswith("| 1.33 | 50 % | 33 % |")  # half, then 0.75 = 1/3 + 2/3 / 1.6
    assert scan.endswith("| 2.00 | 0 % | 0 % |")
    taken["threads: scan"]["treescan, 2 threads"] = 1.5
    taken[report.PRODUCT]["torch, 2 threads"] = 3.2  # one processor was all that there was
    assert report.serial({"cases": taken, "native": []}).endswith("| 0.67 | 100 % |  |")


def test_what_contiguous_memory_costs():
    taken = {"scan 1×2 channels-last": {"ours": 0.001}, "scan 1×2 contiguous": {"ours": 0.003},
             "scan and gradients 1×2 contiguous": {"ours": 1.0}}
    table = report.contiguous({"cases": taken, "bytes moved": dict.fromkeys(taken, 2**20)}).splitlines()
    assert table[2:] == ["| scan 1×2 | 1.00 ms | 3.00 ms | 2.00 MiB | 1.05 GB/s |"]


def test_shares_and_multiples():
    timed = results([{"case": "scan 1x8", "who": "forward", "seconds": 0.0005}])
    slow = next(iter(timed["cases"])), next(iter(CASES[0].calls))
    assert report._value(f"times: {' | '.join(slow)} / scan 1x8 | forward", timed) == "4.00"
    assert report._value(f"beyond: {' | '.join(slow)} / scan 1x8 | forward", timed) == "75 %"
    assert report.streaming_slope(timed) == "1.00"


def test_counts_of_a_dump():
    dump = "version: 1\nevents: Ir D1mr D1mw DLmr DLmw\nfn=(1)\n3 1200 8 4\ntotals: 1200 8 4\n"
    assert counts.totals(dump) == {"Ir": 1200, "D1mr": 8, "D1mw": 4, "DLmr": 0, "DLmw": 0}
    call = {"case": "scan", "who": "grid", "size": 64}
    assert counts._row(call, counts.totals(dump)) == {
        "case": "scan", "who": "grid", "instructions": 18.75, "bytes": [12.0, 0.0]}


def test_without_valgrind_or_where_it_fails_nothing_is_counted(monkeypatch):
    present = Path(sys.executable)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert counts.measure(present) == (None, ["instructions and fetched memory: valgrind isn't installed here"])
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)  # refuses valgrind's options
    found, (line,) = counts.measure(present)
    assert found is None and "valgrind ended with 2" in line
    found, (line,) = counts.measure(present.with_name("treescan_bench"))
    assert found is None and "isn't built" in line
