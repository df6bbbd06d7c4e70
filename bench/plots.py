"""The pictures of docs/performance.md."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "treescan"  # the same figures make the same file

from matplotlib import pyplot  # noqa: E402


def _save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def growth(results: dict, path: Path) -> None:
    """Time against vertices, beside lines of slope 1."""
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for (work, points), color in zip(results["growth"].items(), ("tab:blue", "tab:orange")):
        vertices = [int(count) for count in points]
        times = list(points.values())
        slope = next(row["value"] for row in results["bars"] if row["work"] == "growth" and row["case"].startswith(work))
        axes.loglog(vertices, times, "o-", color=color, label=f"{work}: slope {slope:.2f}")
        axes.loglog(vertices, [times[-1] * count / vertices[-1] for count in vertices], ":", color=color)
    axes.set(xlabel="vertices", ylabel="seconds, one thread", title="Time against vertices (dotted: slope 1)")
    axes.legend()
    _save(figure, path)


def threads(results: dict, path: Path) -> None:
    """How much faster two threads are than one."""
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for case, taken in results["cases"].items():
        if not case.startswith("threads: "):
            continue
        for who in sorted({name.rpartition(", ")[0] for name in taken}):
            times = {int(name.rpartition(", ")[2].split()[0]): seconds for name, seconds in taken.items()
                     if name.rpartition(", ")[0] == who}
            counts = sorted(times)
            axes.plot(counts, [times[1] / times[count] for count in counts], {"treescan": "o-", "torch": "k+-"}.get(who, "x:"),
                      label=f"{case.removeprefix('threads: ')}, {who}")
            axes.set_xticks(counts)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="lightgray", zorder=0)
    axes.set(xlim=(low, high), xlabel="threads", ylabel="times as fast as one thread", title="Speed-up against threads")
    axes.legend(fontsize=7)
    _save(figure, path)


def bandwidth(results: dict, path: Path) -> None:
    """The bytes that the work must move, a second, beside the machine's streaming."""
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    stream = results["streaming"]
    axes.semilogx([row["bytes"] for row in stream], [row["bytes per second"] / 1e9 for row in stream], "-", color="gray",
                  label="streaming, c = a + 2 b")
    series = {}
    for case, moved in results["bytes moved"].items():
        ours = next(iter(results["cases"][case].values()))
        kind = f"{case.partition(' 1×')[0]}, {case.rpartition(' ')[2]}"
        series.setdefault(kind, []).append((moved, moved / ours / 1e9))
    for (kind, points), marker in zip(series.items(), "osv^Dx"):
        axes.semilogx(*zip(*points), marker, label=kind)
    axes.set(xlabel="bytes moved by one call", ylabel="GB/s, one thread", title="Bytes moved against streaming bandwidth")
    axes.legend()
    _save(figure, path)


def draw(results: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for plot in (growth, threads, bandwidth):
        plot(results, folder / f"{plot.__name__}.svg")
