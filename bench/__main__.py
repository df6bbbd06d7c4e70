"""Every case, the table, the plots and docs/performance.md: `python -m bench [--only TEXT] [--output FOLDER]`.

`make bench` builds what is native before. With `--only` the cases whose name holds the text are measured and the table is
printed; nothing is written.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from . import counts, gpu, growth, machine, memory, measure, plots, report
from .cases import CASES
from .measure import Outcome
from .peers.trees import TEXTBOOK

ROOT = Path(__file__).parents[1]
NATIVE = TEXTBOOK.with_name("treescan_bench.exe" if sys.platform == "win32" else "treescan_bench")


started = perf_counter()


def say(text: str) -> None:
    print(f"{perf_counter() - started:4.0f} s  {text}", file=sys.stderr, flush=True)


def run_cases(cases, budget: float) -> dict:
    results = {"cases": {}, "bars": [], "bytes moved": {}, "left out": []}
    for case in cases:
        say(case.name)
        taken = measure.seconds(case, budget=budget)
        results["cases"][case.name] = taken
        results["bars"] += [Outcome.of(case, bar, taken) for bar in case.bars]
        results["left out"] += [f"{case.name}, {who}: {why}" for who, why in case.absent.items()]
        if case.bytes_moved:
            results["bytes moved"][case.name] = case.bytes_moved
    return results


def run_native() -> tuple[list[dict], list[str]]:
    """The C++ program's figures, and a line if it isn't there."""
    if not NATIVE.exists():
        return [], [f"the C interface without Python: {NATIVE.name} isn't built, `make bench` builds it"]
    output = subprocess.run([NATIVE], check=True, capture_output=True, text=True, timeout=300).stdout
    return [json.loads(line) for line in output.splitlines()], []


def native_outcomes(rows: list[dict]) -> list[Outcome]:
    """The bar on trees alone, which Python always gets with their order, in the interface that can leave it out."""
    seconds = {(row["case"], row["who"]): row["seconds"] for row in rows}
    outcomes = []
    for side in (56, 224, 512) if rows else ():
        case = f"tree {side}x{side}"
        faster = seconds[case, "textbook Borůvka, edges alone"] / seconds[case, "treescan, parents alone"]
        outcomes.append(Outcome("tree against the textbook Borůvka", f"C interface, tree {side}×{side}, parents alone",
                                "≥ 4 × faster than textbook Borůvka, edges alone", faster, " ×", faster >= 4))
    return outcomes


def run_all(budget: float) -> dict:
    results = run_cases(CASES, budget)
    say("growth")
    results["growth"], outcomes = growth.measure()
    outcomes.append(growth.large_grid())
    say("memory")
    memory_outcomes, lines = memory.measure()
    results["left out"] += lines
    results["bars"] += outcomes + memory_outcomes
    say("streaming bandwidth")
    results["streaming"] = machine.streaming()
    say("the C interface")
    results["native"], lines = run_native()
    results["left out"] += lines
    results["bars"] += native_outcomes(results["native"])
    say("instructions and fetched memory")
    results["counts"], lines = counts.measure(NATIVE)
    results["left out"] += lines
    return results


def as_json(results: dict) -> dict:
    """Plain values, as they would come back from the file."""
    return json.loads(json.dumps({**results, "bars": [dataclasses.asdict(bar) for bar in results["bars"]]}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", help="measure these cases and print")
    parser.add_argument("--budget", type=float, default=1.5, help="seconds for the turns of one case (default 1.5)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder for performance.md and performance/")
    parser.add_argument("--write-again", action="store_true", help="the page and the plots from the last figures")
    options = parser.parse_args()
    figures = options.output / "performance" / "results.json"
    if options.only is not None:
        results = as_json(run_cases([case for case in CASES if options.only in case.name], options.budget))
        print(report.peers(results), report.bars(results), report.left_out(results), sep="\n\n")
        return
    if options.write_again:
        results = json.loads(figures.read_text())
    else:
        results = as_json({"machine": machine.describe(), **run_all(options.budget)})
        figures.parent.mkdir(parents=True, exist_ok=True)
        figures.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    plots.draw(results, figures.parent)
    on_gpu = figures.with_name(gpu.PAGE_FIGURES.name)
    results["gpu"] = json.loads(on_gpu.read_text()) if on_gpu.exists() else None
    (options.output / "performance.md").write_text(report.page(results))
    print(report.bars(results))


if __name__ == "__main__":
    main()
