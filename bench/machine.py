"""The machine: what it is, its threads, and how fast its memory streams."""

import os
import platform
from time import perf_counter

import torch

import treescan

from .peers import available


def set_threads(count: int) -> None:
    """One setting for all that take part: torch, with treescan, and OpenCV."""
    torch.set_num_threads(count)
    if available("cv2"):
        import cv2

        cv2.setNumThreads(count)


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _caches() -> str:
    """The data caches of the first processor, where Linux lists them."""
    sizes = []
    for index in range(8):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        try:
            level, kind, size = (open(f"{folder}/{name}").read().strip() for name in ("level", "type", "size"))
        except OSError:
            break
        if kind != "Instruction":
            sizes.append(f"L{level} {size.replace('K', ' KiB')}")
    return ", ".join(sizes)


def describe() -> dict[str, str]:
    build = treescan.build_info()
    return {
        "processor": f"{_processor_name()}, {processors()} in use",
        "caches": _caches(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "torch": torch.__version__,
        "treescan": f"{build['library']}, kernels for {build['instruction_set']}",
    }


def streaming(sizes=tuple(2**power for power in range(16, 29, 2))) -> list[dict]:
    """Bytes per second of c = a + 2 b on one thread, for arrays that are together `sizes` bytes large."""
    set_threads(1)
    rows = []
    for size in sizes:
        a, b, c = (torch.ones(size // 12) for _ in range(3))
        times = max(2**26 // size, 1)
        best = float("inf")
        for _ in range(7):
            start = perf_counter()
            for _ in range(times):
                torch.add(a, b, alpha=2, out=c)
            best = min(best, (perf_counter() - start) / times)
        assert c[0] == 3 and c[-1] == 3
        rows.append({"bytes": size, "bytes per second": size / best})
    return rows
