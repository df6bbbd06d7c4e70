"""Compiles kernels with nvcc for every architecture, warnings being errors, and holds ptxas to a recorded budget.

    nvcc_gate.py BUDGET SOURCE... [-I FOLDER...] [--record]

No kernel may spill a register, nor take more registers or static shared memory than BUDGET says for its architecture: a
JSON file, {kernel: {architecture: [registers, bytes of shared memory]}}. --record writes what there is into BUDGET,
spills excepted. Where there is no nvcc, that is said and nothing done.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v",
         "--threads", "2"]


def compile_kernels(nvcc, source, folders):
    """What ptxas says of one file."""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([nvcc, *FLAGS, *targets, *(f"-I{name}" for name in folders), "-c", str(source),
                               "-o", f"{folder}/kernels.o"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source}: nvcc fails\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def parse(text):
    """{kernel: {architecture: (registers, bytes of shared memory, bytes spilled)}} from what ptxas says."""
    report = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'.*?(\d+) bytes spill stores, "
                        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)", re.DOTALL)
    kernels = {}
    for kernel, arch, stores, loads, registers, rest in report.findall(text):
        shared = re.search(r"(\d+) bytes smem", rest)
        kernels.setdefault(kernel, {})[arch] = (int(registers), int(shared.group(1)) if shared else 0,
                                                int(stores) + int(loads))
    return kernels


def readable(kernels):
    """The same with names as in the source, without return types and parameters."""
    names = subprocess.run(["c++filt"], input="\n".join(kernels), capture_output=True, text=True, check=True).stdout
    return {re.sub(r"\([^()]*\)$", "", name).removeprefix("void "): found
            for name, found in zip(names.splitlines(), kernels.values(), strict=True)}


def complaints(kernels, budget):
    for kernel, found in kernels.items():
        for arch in (f"sm_{number}" for number in ARCHITECTURES):
            if arch not in found:
                yield f"{kernel}, {arch}: isn't compiled"
                continue
            registers, shared, spilled = found[arch]
            if spilled:
                yield f"{kernel}, {arch}: spills {spilled} bytes of registers"
            allowed = budget.get(kernel, {}).get(arch)
            if allowed is None:
                yield f"{kernel}, {arch}: has no budget; --record writes one"
                continue
            if registers > allowed[0]:
                yield f"{kernel}, {arch}: {registers} registers, of at most {allowed[0]}"
            if shared > allowed[1]:
                yield f"{kernel}, {arch}: {shared} bytes of shared memory, of at most {allowed[1]}"
    yield from (f"{kernel}: has a budget, but isn't there" for kernel in budget if kernel not in kernels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("budget", type=Path)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("-I", dest="folders", action="append", default=[])
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()

    nvcc = shutil.which("nvcc")
    if nvcc is None:
        print("nvcc gate: NOT RUN, there is no nvcc on this machine")
        return
    kernels = {}
    for source in options.sources:
        kernels.update(readable(parse(compile_kernels(nvcc, source, options.folders))))
    if options.record:
        lines = []
        for kernel, found in sorted(kernels.items()):
            budget = {arch: used[:2] for arch, used in sorted(found.items(), key=lambda item: int(item[0][3:]))}
            lines.append(f"  {json.dumps(kernel)}: {json.dumps(budget)}")
        options.budget.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    failures = list(complaints(kernels, json.loads(options.budget.read_text())))
    print(f"nvcc gate: {len(kernels)} kernels for {len(ARCHITECTURES)} architectures, {len(failures)} complaints")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
