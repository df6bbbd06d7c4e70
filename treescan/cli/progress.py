"""What a command says while it runs and when it is done: stages, their seconds and the memory they took."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import ParamSpec, TypeVar

from .problem import Problem, need

P = ParamSpec("P")
T = TypeVar("T")


def _kilobytes(file: str, name: str) -> int | None:
    """A line such as `VmRSS:  1234 kB` of one of Linux's files, in bytes."""
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(name + ":"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def available_memory() -> int | None:
    """Bytes that can still be had, or None where the system doesn't say."""
    found = [_kilobytes("/proc/meminfo", "MemAvailable")]
    try:  # a container's limit
        folder = Path("/sys/fs/cgroup")
        found.append(int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    if found[0] is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((value for value in found if value is not None), default=None)


def check_memory(what: str, needed: float) -> None:
    """Says that a picture is too large before the system does."""
    available = available_memory()
    if available is not None and needed > available:
        raise Problem(f"{what} needs about {needed / 1e9:.1f} GB of memory, {max(available, 0) / 1e9:.1f} GB are available: "
                      f"reduce it first")


class Peak:
    """The largest resident memory since it was made, beyond what was resident then."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        except OSError:
            pass
        self.start = self._peak(now=True)

    def _peak(self, now: bool = False) -> int | None:
        linux = _kilobytes("/proc/self/status", "VmRSS" if now else "VmHWM")
        if linux is not None or sys.platform == "win32":
            return linux
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)

    def bytes(self) -> int | None:
        peak = self._peak()
        return None if peak is None or self.start is None else max(peak - self.start, 0)


class Progress:
    """Named stages with a bar on a terminal, how long each took and, with `verbose`, what they took in all."""

    def __init__(self, *stages: str, verbose: bool = False) -> None:
        self.stages, self.verbose = stages, verbose
        self.seconds: dict[str, float] = {}
        self.pixels = 0  # set by whoever knows

    def __enter__(self) -> Progress:
        size = shutil.get_terminal_size()  # tqdm shows nothing on a terminal that says it has 0 rows
        self.bar = need("tqdm").tqdm(total=len(self.stages), file=sys.stderr, disable=not sys.stderr.isatty(), leave=False,
                                     ncols=size.columns, nrows=size.lines,
                                     bar_format="{desc} {bar} {n_fmt}/{total_fmt} {elapsed}")
        self.peak = Peak()
        self.done = threading.Event()
        # One stage of a large picture takes many seconds, during which nobody else would move the clock.
        self.clock = threading.Thread(target=self._tick, daemon=True)
        if not self.bar.disable:
            self.clock.start()
        return self

    def _tick(self) -> None:
        while not self.done.wait(0.5):
            self.bar.refresh()

    def __exit__(self, kind: object, *_: object) -> None:
        self.done.set()
        if self.clock.is_alive():
            self.clock.join()
        self.bar.close()
        if self.verbose and kind is None:
            self._report()

    def _report(self) -> None:
        for stage, seconds in self.seconds.items():
            print(f"{stage:14}{seconds:9.3f} s")
        peak = self.peak.bytes()
        if peak is None:
            print("peak memory   unknown on this system")
        else:
            each = f", {peak / self.pixels:.0f} bytes per pixel" if self.pixels else ""
            print(f"peak memory   {peak / 1e6:9.1f} MB{each}")

    def run(self, stage: str, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        self.bar.set_description(stage)
        start = perf_counter()
        result = function(*arguments, **options)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start
        self.bar.update()
        return result
