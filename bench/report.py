"""`docs/performance.md` from the text in `bench/performance.md`, whose {{...}} become tables and figures."""

import re
from pathlib import Path

from .counts import CACHES
from .growth import slope

TEMPLATE = Path(__file__).with_name("performance.md")
PRODUCT = "threads: matrix product 768×768"
NOT_MEASURED = "not measured"


def _figure(value: float) -> str:
    """Three digits, without an exponent."""
    if value == 0:
        return "0"
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 2
    return f"{value:.{max(digits, 0)}f}"


def _time(seconds: float) -> str:
    return f"{_figure(1e6 * seconds)} µs" if seconds < 1e-3 else f"{_figure(1e3 * seconds)} ms"


def _table(header, alignment: str, rows) -> str:
    marks = {"l": "---", "r": "---:"}
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(marks[side] for side in alignment)}|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def bars(results: dict) -> str:
    return _table(("work", "case", "bar", "measured", "met"), "lllrl", (
        (row["work"], row["case"], row["bar"], _figure(row["value"]) + row["unit"], "yes" if row["met"] else "**no**")
        for row in results["bars"]))


def peers(results: dict) -> str:
    def rows():
        for case, taken in results["cases"].items():
            ours = next(iter(taken.values()))
            for who, seconds in taken.items():
                yield case, who, _time(seconds), _figure(seconds / ours)

    return _table(("case", "", "time", "times the first row's"), "llrr", rows())


def native(results: dict) -> str:
    return _table(("case", "", "time"), "llr", ((row["case"], row["who"], _time(row["seconds"])) for row in results["native"]))


def growth(results: dict) -> str:
    works = results["growth"]
    vertices = list(next(iter(works.values())))
    return _table(("vertices", *works), "r" + "r" * len(works), (
        (f"{int(count):,}", *(_time(points[count]) for points in works.values())) for count in vertices))


def streaming(results: dict) -> str:
    return _table(("bytes", "GB/s"), "rr", ((f"{row['bytes']:,}", _figure(row["bytes per second"] / 1e9))
                                             for row in results["streaming"]))


def streaming_slope(results: dict) -> str:
    """How streaming's time grows with bytes, from as many as the smallest scan of the growth moves."""
    times = {row["bytes"]: row["bytes"] / row["bytes per second"] for row in results["streaming"]}
    return _figure(slope({size: seconds for size, seconds in times.items() if size >= 2**20}))


def counts(results: dict) -> str:
    found = results["counts"]
    if found is None:
        return f"{NOT_MEASURED.capitalize()}: “Left out” below says why."
    fetched = (f"bytes into a cache of {size}" for size in CACHES)
    table = _table(("case", "", "instructions", *fetched), "llrrr", (
        (row["case"], row["who"], *map(_figure, (row["instructions"], *row["bytes"]))) for row in found["rows"]))
    return f"By the kernels for {found['instruction set']}.\n\n{table}"


def contiguous(results: dict) -> str:
    """What the copies of a contiguous scan move, beside the time that it takes more than a channels-last one."""
    def rows():
        for case, moved in results["bytes moved"].items():
            shape, _, layout = case.rpartition(" ")
            if not case.startswith("scan 1×") or layout != "contiguous":
                continue
            without, with_copies = (next(iter(results["cases"][name].values())) for name in (f"{shape} channels-last", case))
            copied, extra = 2 * moved, with_copies - without  # each of x, weights and y is read and written once more
            yield (shape, _time(without), _time(with_copies), f"{_figure(copied / 2**20)} MiB",
                   f"{_figure(copied / extra / 1e9)} GB/s" if extra > 0 else "")

    return _table(("case", "channels-last", "contiguous", "moved by copies", "in the time between"), "lrrrr", rows())


def serial(results: dict) -> str:
    """The share of the time with one thread that would have to be serial for two to gain no more: Amdahl's law, for two
    processors and for as much of them as the matrix product got, if that was more than one."""
    def share(faster, processors) -> str:
        if processors < 1.2:
            return ""
        return f"{100 * min(max((1 / faster - 1 / processors) / (1 - 1 / processors), 0), 1):.0f} %"

    def rows():
        given = _quotient(results, f"{PRODUCT} | torch, 1 thread", f"{PRODUCT} | torch, 2 threads")
        for case, taken in results["cases"].items():
            for who, seconds in taken.items():
                alone = taken.get(who.replace("2 threads", "1 thread"))
                if case.startswith("threads: ") and who.endswith("2 threads"):
                    faster = alone / seconds
                    yield (case.removeprefix("threads: "), who.removesuffix(", 2 threads"), _time(alone), _time(seconds),
                           _figure(faster), share(faster, 2), share(faster, given))

    return _table(("case", "", "one thread", "two threads", "times as fast", "serial share", "beside the matrix product"),
                  "llrrrrr", rows())


def machine(results: dict) -> str:
    return "\n".join(f"- {what}: {text}" for what, text in results["machine"].items())


def left_out(results: dict) -> str:
    return "\n".join(f"- {line}" for line in results["left out"]) or "Nothing was left out."


def gpu(results: dict) -> str:
    """What `make gpu-bench` measured, if it ever did."""
    found = results["gpu"]
    if found is None:
        return "No GPU has run the CUDA backend yet. `make gpu-bench`, on a machine with one, puts its figures here."
    copied = found["copied bytes per second"]
    ours = {(row["case"], row["work"]): row["seconds"] for row in reversed(found["rows"])}  # the first row is treescan's
    table = _table(("case", "work", "", "time", "times the first row's", "of a copy's bandwidth"), "lllrrr", (
        (row["case"], row["work"], row["who"], _time(row["seconds"]),
         _figure(row["seconds"] / ours[row["case"], row["work"]]),
         f"{100 * row['bytes'] / row['seconds'] / copied:.0f} %" if row["bytes"] else "")
        for row in found["rows"]))
    return (f"On one {found['device']} with torch {found['torch']} and {found['treescan']}; a copy moves "
            f"{_figure(copied / 1e9)} GB/s there.\n\n{table}")


BLOCKS = {block.__name__: block for block in (bars, peers, native, growth, streaming, streaming_slope, machine, left_out, gpu,
                                              counts, contiguous, serial)}


def _seconds(results: dict, call: str) -> float | None:
    """The time of "CASE | WHO", through Python or of the C interface alone; None if it is one of those left out."""
    case, _, who = (part.strip() for part in call.partition("|"))
    native = {(row["case"], row["who"]): row["seconds"] for row in results["native"]}
    return results["cases"].get(case, {}).get(who, native.get((case, who)))


def _quotient(results: dict, of: str, by: str) -> float | None:
    above, below = _seconds(results, of), _seconds(results, by)
    return None if above is None or below is None else above / below


def _value(name: str, results: dict) -> str:
    """{{bars}} and so on and {{met}}; of calls, each CASE | WHO, {{time: CALL}}, {{times: CALL / CALL}}, which is how many
    times the second's time the first takes, {{beyond: CALL / CALL}}, the share of the first's time that the second would leave,
    and what valgrind counts, {{count: CALL}}, instructions, and {{fetched: CALL}}, bytes into the second cache. So prose needs no
    numbers of its own."""
    if name in BLOCKS:
        return BLOCKS[name](results)
    if name == "met":
        return f"{sum(row['met'] for row in results['bars'])} of {len(results['bars'])}"
    kind, _, key = name.partition(":")
    if kind == "time":
        value, shown = _seconds(results, key), _time
    elif kind in ("count", "fetched"):
        wanted = [part.strip() for part in key.split("|")]
        rows = results["counts"]["rows"] if results["counts"] else ()
        found = (row["instructions"] if kind == "count" else row["bytes"][1] for row in rows
                 if [row["case"], row["who"]] == wanted)
        value, shown = next(found, None), _figure
    elif kind in ("times", "beyond"):
        value = _quotient(results, *key.split(" / "))
        shown = _figure if kind == "times" else lambda times: f"{100 * (1 - 1 / times):.0f} %"
    else:
        raise KeyError(f"{TEMPLATE.name} asks for {{{{{name}}}}}, which isn't known")
    return NOT_MEASURED if value is None else shown(value)


def page(results: dict) -> str:
    text = re.sub(r"\{\{\s*(.+?)\s*\}\}", lambda found: _value(found[1], results), TEMPLATE.read_text())
    return f"<!-- Written by `make bench` from bench/{TEMPLATE.name}: change that one. -->\n{text}"
