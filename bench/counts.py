"""What one call of the C interface takes, as valgrind counts it: instructions, and the memory that caches have to fetch.

Counts don't depend on what else the machine does. valgrind runs a program as if on a processor without AVX-512, so they are
of the kernels for AVX2 at most; its two caches are of sizes given here, whatever the machine's are, and fetch nothing ahead.
"""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHES = {"32 KiB": 32 * 2**10, "1 MiB": 2**20}  # the first and the second
_FIRST, _SECOND = CACHES.values()
_LINE = 64
_OPTIONS = ("--tool=callgrind", "--toggle-collect=measured", "--dump-after=measured", "--cache-sim=yes",
            f"--I1={_FIRST},8,{_LINE}", f"--D1={_FIRST},8,{_LINE}", f"--LL={_SECOND},16,{_LINE}")


def totals(dump: str) -> dict[str, int]:
    """All that callgrind counted until it wrote this dump, by its names: Ir, D1mr and so on. It leaves trailing zeros out."""
    names, numbers = (re.search(rf"^{line}: (.*)$", dump, re.MULTILINE)[1].split() for line in ("events", "totals"))
    return dict.fromkeys(names, 0) | dict(zip(names, map(int, numbers)))


def _row(call: dict, found: dict[str, int]) -> dict:
    """Instructions and bytes for each of the numbers or edges that the call works on."""
    first, second = (_LINE * (found[f"{cache}mr"] + found[f"{cache}mw"]) / call["size"] for cache in ("D1", "DL"))
    return {"case": call["case"], "who": call["who"], "instructions": found["Ir"] / call["size"], "bytes": [first, second]}


def measure(program: Path) -> tuple[dict | None, list[str]]:
    """The instruction set and rows, or None, with a line that says why."""
    valgrind = shutil.which("valgrind")
    if not valgrind or not program.exists():
        missing = f"{program.name} isn't built, `make bench` builds it" if valgrind else "valgrind isn't installed here"
        return None, [f"instructions and fetched memory: {missing}"]
    with tempfile.TemporaryDirectory() as folder:
        dumps = Path(folder) / "dump"
        run = subprocess.run([valgrind, *_OPTIONS, f"--callgrind-out-file={dumps}", program, "--count"], capture_output=True,
                             text=True, timeout=600)
        if run.returncode:
            return None, [f"instructions and fetched memory: valgrind ended with {run.returncode}, "
                          f"{(run.stderr.splitlines() or ['silently'])[-1]}"]
        system, *calls = map(json.loads, run.stdout.splitlines())
        assert len(list(dumps.parent.glob("dump.*"))) == len(calls), "a dump for each call"
        rows = [_row(call, totals(dumps.with_suffix(f".{index}").read_text())) for index, call in enumerate(calls, 1)]
    return {"instruction set": system["instruction set"], "rows": rows}, []
