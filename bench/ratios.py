"""How many times faster than others, side by side in one run: `python -m bench.ratios [--json FILE] [--markdown FILE]`.

They take turns of a few calls, and each figure is the median over the turns, so what else the machine does hits all
alike.
"""

import argparse
import json
import platform
from statistics import median
from time import perf_counter

import torch

import treescan

from .cases import CASES


def seconds(call, times: int = 7) -> float:
    """The median of a few calls in a row, so that each finds its own data in the cache and not the others'."""
    taken = []
    for _ in range(times):
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return median(taken)


def measure(case, rounds: int) -> list[dict]:
    calls = {"treescan": case.ours, **case.others}
    times = {who: [] for who in calls}
    for round in range(rounds + 1):
        for who, call in calls.items():
            elapsed = seconds(call)
            if round:  # the first warms up
                times[who].append(elapsed)
    ours = median(times["treescan"])
    return [{"case": case.name, "who": who, "ms": 1000 * median(taken), "times ours": median(taken) / ours}
            for who, taken in times.items()]


def table(rows: list[dict]) -> str:
    lines = ["| case | | ms | times treescan's |", "|---|---|---:|---:|"]
    lines += [f"| {row['case']} | {row['who']} | {row['ms']:.3f} | {row['times ours']:.2f} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--markdown", help="write the table to this file, below a line on how it was made")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for make in CASES for row in measure(make(), options.rounds)]
    print(table(rows))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": platform.processor() or platform.machine(), **treescan.build_info(), "rows": rows}, file, indent=2)
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write("# Performance\n\nOne thread, medians over turns of a few calls each, written by `make bench` "
                       f"(torch {torch.__version__}, {treescan.build_info()['instruction_set']} kernels). Each call's "
                       "answer is compared before it is timed.\n\n" + table(rows) + "\n\n`torch.addcmul(x, x, w, out=y)` moves the bytes that a "
                       "scan must move at least: it stands for the limit that memory sets.\n")


if __name__ == "__main__":
    main()
