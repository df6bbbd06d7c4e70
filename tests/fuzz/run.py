"""Runs the fuzz targets: `run.py fuzz SECONDS` all of them for so long in all, each from its corpus; `run.py runs COUNT` each for
so many inputs (ten times as many where arguments are judged and nothing is done), from the same seed; `run.py minimise` leaves
in each corpus what others don't reach; `run.py coverage SUFFIX` the corpora alone, with the programs of clang that end in
SUFFIX, for the lines of the validation code that they reach. All say what they found out."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "fuzz"
TARGETS = ("library", "graphs", "spanning_trees", "parents", "scans", "selective_scans")
# The same targets once more, whose calls end when their arguments are judged.
VALIDATION_TARGETS = tuple(f"valid_{target}" for target in TARGETS[1:])
# Where arguments are checked: views, options and shapes, graphs, the words for wrong values, and which device they are for.
# What computes finds wrong values on the way; that is not among them.
VALIDATION = ("abi.cpp", "backend.cpp", "graph.cpp", "status.cpp", "validate.cpp", "value_faults.cpp")
LEAST_COVERED = 95


def run(target, *arguments, profile):
    # Leaks are looked for at the end; memory that can't be had is the targets' own business (memory.cpp).
    environment = {**os.environ, "LLVM_PROFILE_FILE": profile}
    command = [BUILD / f"fuzz_{target}", "-max_len=512", "-entropic=0", "-timeout=60", "-rss_limit_mb=3000", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=BUILD, env=environment)


def core_seconds():
    """How long the targets have kept a core busy: what else the machine does is not theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def corpus(target):
    return HERE / "corpus" / target.removeprefix("valid_")


def minimise():
    """Keeps the inputs of every corpus that reach what no other does."""
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as kept:
            result = run(target, "-merge=1", kept, corpus(target), profile=os.devnull)
            if result.returncode != 0:
                sys.exit(f"{result.stderr[-8000:]}\nfuzz_{target} failed on its corpus")
            before = len(list(corpus(target).iterdir()))
            shutil.rmtree(corpus(target))
            shutil.copytree(kept, corpus(target))
            print(f"{target:16} {before} inputs, {len(list(corpus(target).iterdir()))} kept")


def fuzz(limits):
    """With these options of libFuzzer's, by target."""
    executions, begin = 0, core_seconds()
    for target, limit in limits.items():
        with tempfile.TemporaryDirectory() as found:  # new inputs don't go to the corpus by themselves
            start = core_seconds()
            result = run(target, *limit, "-print_final_stats=1", f"-artifact_prefix={BUILD}/", found,
                         corpus(target), profile=os.devnull)  # fmt: skip
            seconds = core_seconds() - start
            news = len(list(Path(found).iterdir()))
        if result.returncode != 0:
            sys.exit(f"{result.stderr[-8000:]}\nfuzz_{target} failed; the input is in {BUILD}")
        count = int(re.search(r"stat::number_of_executed_units: (\d+)", result.stderr)[1])
        edges = re.findall(r"cov: (\d+)", result.stderr)[-1]
        executions += count
        rate = f"{round(count / seconds):7,} a second of a core"
        print(f"{target:21} {count:11,} executions, {rate}, {edges} edges, {news} new inputs", flush=True)
    minutes = (core_seconds() - begin) / 60
    print(f"{executions:,} executions in {minutes:.1f} minutes of a core without a finding")


def coverage(suffix):
    profiles = []
    for target in TARGETS:
        profiles.append(BUILD / f"{target}.profraw")
        result = run(target, "-runs=0", HERE / "corpus" / target, profile=profiles[-1])
        if result.returncode != 0:
            sys.exit(f"{result.stderr[-8000:]}\nfuzz_{target} failed on its corpus")
    merged = BUILD / "corpus.profdata"
    subprocess.run([f"llvm-profdata{suffix}", "merge", "-sparse", *profiles, "-o", merged], check=True)
    binaries = [word for target in TARGETS for word in ("-object", BUILD / f"fuzz_{target}")][1:]
    files = [ROOT / "cpp" / "src" / name for name in VALIDATION]
    command = [f"llvm-cov{suffix}", "export", "-format=lcov", f"-instr-profile={merged}", *binaries, *files]
    lines = {}
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        if line.startswith("SF:"):
            name = Path(line[3:]).name
            lines[name] = {}
        elif line.startswith("DA:"):
            number, count = map(int, line[3:].split(",")[:2])
            lines[name][number] = max(count, lines[name].get(number, 0))
    covered = total = 0
    for name in VALIDATION:
        missed = [number for number, count in sorted(lines[name].items()) if not count]
        covered, total = covered + len(lines[name]) - len(missed), total + len(lines[name])
        print(f"{name:18} {len(lines[name]) - len(missed):4} of {len(lines[name]):4} lines", *(["not:"] * bool(missed)), *missed)
    percent = 100 * covered / total
    print(f"{'in all':18} {covered:4} of {total:4} lines, {percent:.1f} %; at least {LEAST_COVERED} % are expected")
    if percent < LEAST_COVERED:
        sys.exit(1)


if __name__ == "__main__":
    what, argument = [*sys.argv[1:], None][:2]
    if what == "fuzz":
        # The library's few options are soon through; a third for judging arguments, the rest for what is done with them.
        shares = {"library": 0.03} | dict.fromkeys(VALIDATION_TARGETS, 0.32 / len(VALIDATION_TARGETS))
        shares |= dict.fromkeys(TARGETS[1:], 0.65 / (len(TARGETS) - 1))
        fuzz({target: [f"-max_total_time={max(1, round(share * float(argument)))}"] for target, share in shares.items()})
    elif what == "runs":
        fuzz({target: [f"-runs={argument}", "-seed=1"] for target in TARGETS}
             | {target: [f"-runs={10 * int(argument)}", "-seed=1"] for target in VALIDATION_TARGETS})  # fmt: skip
    elif what == "minimise":
        minimise()
    else:
        coverage(argument)
