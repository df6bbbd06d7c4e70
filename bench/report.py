"""`docs/performance.md` from the text in `bench/performance.md`, whose {{...}} become tables and figures."""

import re
from pathlib import Path

TEMPLATE = Path(__file__).with_name("performance.md")


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


BLOCKS = {block.__name__: block for block in (bars, peers, native, growth, streaming, machine, left_out, gpu)}


def _value(name: str, results: dict) -> str:
    """{{bars}} and so on, {{met}}, {{time: CASE | WHO}} and {{bar: CASE | BAR}}: prose needs no numbers of its own."""
    if name in BLOCKS:
        return BLOCKS[name](results)
    if name == "met":
        return f"{sum(row['met'] for row in results['bars'])} of {len(results['bars'])}"
    kind, _, key = name.partition(":")
    first, _, second = (part.strip() for part in key.partition("|"))
    if kind == "time":
        return _time(results["cases"][first][second])
    if kind == "bar":
        return next(_figure(row["value"]) + row["unit"] for row in results["bars"]
                    if (row["case"], row["bar"]) == (first, second))
    raise KeyError(f"{TEMPLATE.name} asks for {{{{{name}}}}}, which isn't known")


def page(results: dict) -> str:
    text = re.sub(r"\{\{\s*(.+?)\s*\}\}", lambda found: _value(found[1], results), TEMPLATE.read_text())
    return f"<!-- Written by `make bench` from bench/{TEMPLATE.name}: change that one. -->\n{text}"
