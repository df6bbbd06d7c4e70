"""Writes `grootl.md`, with tables and a plot of what was measured, from the template beside this file.

    python -m grootl.page --docs ../../docs      # from docs/grootl/demo.json and, where it is, docs/grootl/speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t

from .command_line import run
from .configuration import MODES

TEMPLATE = Path(__file__).with_name("page.md")
SCORES = {  # name in the results: header, digits
    "response_perplexity": ("perplexity of held-out responses", 1),
    "word_perplexity": ("perplexity per word, held-out text", 0),
    "bits_per_byte": ("bits per byte", 3),
    "choice": ("choice, %", 1),
    "instructed_choice": ("choice as an instruction, %", 1),
    "last_word": ("last word, %", 1),
    "last_word_perplexity": ("last word's perplexity", 0),
}
_PLOTTED = ("response_perplexity", "bits_per_byte", "choice", "last_word")


def write_page(folder: str | os.PathLike) -> Path:
    """Writes `grootl.md` and `grootl/demo.svg` in a folder with `grootl/demo.json`, which `python -m grootl.demo` made.

    `grootl/speed.json`, which `python -m grootl.bench` made, is shown too if it is there. Every number of the page that
    was measured comes from these files. Returns the page's path. Raises FileNotFoundError without `grootl/demo.json`,
    and ValueError where one of them is of another kind.
    """
    folder = Path(folder)
    results = _read(folder / "grootl" / "demo.json", "rows", "python -m grootl.demo")
    speed = folder / "grootl" / "speed.json"
    blocks = {"scores": scores_table(results), "differences": differences(results), "generation": _generation(results),
              "answers": _answers(results), "run": _run(results), "speed": _speed(speed)}
    _plot(results, folder / "grootl" / "demo.svg")
    page = folder / "grootl.md"
    page.write_text(re.sub(r"\{\{(\w+)\}\}", lambda match: blocks[match[1]], TEMPLATE.read_text()))
    return page


def _read(path: Path, key: str, command: str) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing, `{command}` makes it")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: isn't JSON: {error}") from None
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"{path}: isn't what `{command}` makes, it has no {key!r}")
    return content


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean ± standard deviation; of one value, that alone."""
    text = f"{mean(values):{sign},.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):,.{digits}f}"


def _of(results: dict, mode: str, trained: bool) -> list[dict]:
    return [row for row in results["rows"] if row["mode"] == mode and row["trained"] == trained]


def scores_table(results: dict) -> str:
    """The rows' scores, for each mode the mean ± deviation over its seeds, below those of the model without a change."""
    kinds = [("no change", "chain", False), *((f"{mode}, not trained", mode, False) for mode in MODES[1:]),
             *((f"LoRA, {mode}", mode, True) for mode in MODES)]
    lines = []
    for name, mode, trained in kinds:
        rows = _of(results, mode, trained)
        line = [name, *(_spread([row["scores"][score] for row in rows], digits)
                        for score, (_, digits) in SCORES.items())]
        lines.append([*line, _spread([row["tokens_per_second"] for row in rows], 0) if trained else ""])
    return _table(["", *(header for header, _ in SCORES.values()), "training, tokens/s"], lines)


def differences(results: dict) -> str:
    """What trees add to LoRA on the chain, seed by seed, and how many of these differences stand out."""
    chain = {row["seed"]: row["scores"] for row in _of(results, "chain", True)}
    lines, standing_out = [], []
    for mode in MODES[1:]:
        line = [f"{mode} − chain"]
        for score, (header, digits) in SCORES.items():
            values = [row["scores"][score] - chain[row["seed"]][score] for row in _of(results, mode, True)]
            line.append(_spread(values, digits, "+"))
            seeds = len(values)
            if seeds > 1 and abs(mean(values)) > t.ppf(0.975, seeds - 1) * stdev(values) / seeds ** 0.5:
                standing_out.append(f"{mode}'s {header.removesuffix(', %')} ({_spread(values, digits, '+')})")
        lines.append(line)
    count = len(lines) * len(SCORES)
    said = (f"{len(standing_out)} of these {count} differences stand out of the noise of the seeds (Student's t, "
            f"two-sided, 5%), where {0.05 * count:.1f} would by chance"
            + (f": {'; '.join(standing_out)}." if standing_out else "."))
    if len(chain) == 1:
        said = "There is one seed, so nothing can be said about what stands out."
    return _table(["", *(header for header, _ in SCORES.values())], lines) + f"\n\n{said}"


def _generation(results: dict) -> str:
    speeds = {(row["mode"], row["cached"]): row["tokens_per_second"] for row in results["generation"]}
    return _table(["", "with the cache, tokens/s", "without, tokens/s"],
                  [[mode, *(f"{speeds[mode, cached]:,.0f}" for cached in (True, False))] for mode in MODES])


def _answers(results: dict) -> str:
    """What the models said, those of the first seed."""
    shown = [("no change", _of(results, "chain", False)[0])]
    shown += [(f"LoRA, {mode}", _of(results, mode, True)[0]) for mode in MODES]
    asked = [request.partition("### Instruction:\n")[2].partition("\n")[0] for request in results["requests"]]
    lines = [[name, *(" ".join(said.replace("|", "/").split()) or "(nothing)" for said in row["said"])]
             for name, row in shown]
    return _table(["", *asked], lines).replace("---:", "---")


def _run(results: dict) -> str:
    size, pretraining, text = results["size"], results["pretraining"], results["text"]
    shape, no_change = size["pretraining"], _of(results, "chain", False)[0]["scores"]
    seeds = f"{size['seeds']} seed" + ("" if size["seeds"] == 1 else "s")
    return "\n".join((
        f"- machine: {results['machine']}; the whole run took {results['minutes']:.0f} minutes, at the end of which "
        f"the machine's load average over 15 minutes was {results['load']:.1f} on {results['cores']} cores: where it is "
        "higher than the cores, others ran as well, and all speeds here are too low and uneven",
        "- versions: " + ", ".join(f"{name} {number}" for name, number in results["versions"].items()),
        f"- text: WordNet, {text['pretraining']:,} synsets to pretrain on, {text['instructions']:,} to fine-tune on, "
        f"{text['held_out']:,} held out",
        f"- model: {pretraining['parameters']:,} parameters ({shape['num_hidden_layers']} layers of "
        f"{shape['hidden_size']}, {shape['state_size']} states, {shape['vocab_size']} tokens), trained from scratch for "
        f"{shape['steps']:,} steps of {shape['batch_size']} × {shape['length']} tokens at "
        f"{pretraining['tokens_per_second']:,.0f} tokens/s, to a loss of {pretraining['loss']:.2f}",
        f"- LoRA: rank {size['rank']}, learning rate {size['learning_rate']:g}, one pass over {size['instructions']:,} "
        f"instructions and {size['texts']:,} pieces of text, batches of {size['batch_size']}, {seeds} for each mode",
        f"- evaluation: {size['questions']:,} questions and last words, {size['held_out_texts']:,} texts; by their "
        f"number alone, the choice of the model without a change has a standard error of {no_change['choice_error']:.1f}, "
        f"its last words of {no_change['last_word_error']:.1f}",
    ))


def _speed(path: Path) -> str:
    if not path.is_file():
        return "`python -m grootl.bench` was not run here."
    results = _read(path, "machine", "python -m grootl.bench")
    blocks = []
    for part in (part for name, part in results.items() if name != "machine"):
        if "megabytes" in part:
            sizes = list(next(iter(part["megabytes"].values())))
            lines = [[name, *(f"{row[size]:,.1f}" for size in sizes)] for name, row in part["megabytes"].items()]
            table = _table(["", *(f"MB, state size {size}" for size in sizes)], lines)
        else:
            columns = {"seconds": {name: f"{min(times):,.3f}" for name, times in part["seconds"].items()},
                       "processor's seconds": {name: f"{min(times):,.3f}"
                                               for name, times in part["processor_seconds"].items()}}
            for key, header in (("times_faster", "times faster"),
                                ("times_faster_by_processor", "by processor's seconds")):
                columns[header] = {name: f"{times:,.1f}" for name, times in part[key].items()}
            table = _table(["", *columns], [[name, *(column.get(name, "") for column in columns.values())]
                                            for name in part["seconds"]])
        blocks.append(f"{part['what'][0].upper()}{part['what'][1:]}:\n\n{table}")
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    return "\n\n".join([*blocks, f"Measured on: {machine}."])


def _plot(results: dict, path: Path) -> None:
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # The same results give the same file.
    with plt.rc_context({"svg.hashsalt": "grootl", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = plt.subplots(1, len(_PLOTTED), figsize=(9, 2.4), layout="constrained")
        for axis, score in zip(axes, _PLOTTED):
            before = _of(results, "chain", False)[0]["scores"][score]
            axis.axhline(before, color="grey", linestyle="--", linewidth=1, label="no change")
            for position, mode in enumerate(MODES):
                values = [row["scores"][score] for row in _of(results, mode, True)]
                axis.plot([position] * len(values), values, "o", markersize=4, alpha=0.7)
                axis.plot([position - 0.25, position + 0.25], [mean(values)] * 2, color="black", linewidth=1)
            axis.set_xticks(range(len(MODES)), MODES)
            axis.set_xlim(-0.5, len(MODES) - 0.5)
            axis.set_title(SCORES[score][0], fontsize=8)
        axes[0].legend(fontsize=7)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grootl.page", description=__doc__.split("\n")[0])
    parser.add_argument("--docs", required=True, help="the folder of the page, with grootl/demo.json")
    print(write_page(parser.parse_args().docs))


if __name__ == "__main__":
    run(main)
