"""Compiles kernels with nvcc for every architecture, warnings being errors, and holds ptxas to a recorded budget.

    nvcc_gate.py BUDGET SOURCE... [-I FOLDER...] [--record]

No kernel may spill a register, nor take more registers, static shared memory or local memory than BUDGET says for its
architecture: a JSON file, {kernel: {architecture: [registers, bytes of shared memory, bytes of local memory]}}.
--record writes what there is into BUDGET, spills excepted; other files' kernels stay as they are. Where there is no nvcc,
that is said and nothing done.
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
         "--threads", "2", "-DTREESCAN_WITH_CUDA"]


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
    """{kernel: {architecture: (registers, bytes of shared memory, of local memory, bytes spilled)}} from what ptxas
    says."""
    report = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill "
                        r"stores, (\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)", re.DOTALL)
    kernels = {}
    for kernel, arch, local, stores, loads, registers, rest in report.findall(text):
        shared = re.search(r"(\d+) bytes smem", rest)
        kernels.setdefault(kernel, {})[arch] = (int(registers), int(shared.group(1)) if shared else 0, int(local),
                                                int(stores) + int(loads))
    return kernels


def readable(names):
    """Names as in the source: without return types, parameters and the namespaces of the library."""
    lines = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [without_parameters(re.sub(r"treescan::cuda::|\(anonymous namespace\)::", "", line)).removeprefix("void ")
            for line in lines.splitlines()]


def without_parameters(name):
    depth = 0
    for position in reversed(range(len(name) if name.endswith(")") else 0)):
        depth += {")": 1, "(": -1}.get(name[position], 0)
        if depth == 0:
            return name[:position]
    return name


def complaints(kernels, budget):
    limits = ("registers", "bytes of shared memory", "bytes of local memory")
    for kernel, found in kernels.items():
        for arch in (f"sm_{number}" for number in ARCHITECTURES):
            if arch not in found:
                yield f"{kernel}, {arch}: isn't compiled"
                continue
            *used, spilled = found[arch]
            if spilled:
                yield f"{kernel}, {arch}: spills {spilled} bytes of registers"
            allowed = budget.get(kernel, {}).get(arch)
            if allowed is None:
                yield f"{kernel}, {arch}: has no budget; --record writes one"
                continue
            yield from (f"{kernel}, {arch}: {amount} {what}, of at most {most}"
                        for amount, what, most in zip(used, limits, allowed, strict=True) if amount > most)
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
        found = parse(compile_kernels(nvcc, source, options.folders))
        kernels.update((f"{source.name} {name}", used)
                       for name, used in zip(readable(found), found.values(), strict=True))
    files = {source.name for source in options.sources}
    budget = json.loads(options.budget.read_text())
    if options.record:
        budget = {kernel: used for kernel, used in budget.items() if kernel.split(" ")[0] not in files}
        budget |= {kernel: {arch: used[:3] for arch, used in sorted(found.items(), key=lambda item: int(item[0][3:]))}
                   for kernel, found in kernels.items()}
        lines = [f"  {json.dumps(kernel)}: {json.dumps(used)}" for kernel, used in sorted(budget.items())]
        options.budget.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    failures = list(complaints(kernels, {kernel: used for kernel, used in budget.items() if kernel.split(" ")[0] in files}))
    print(f"nvcc gate: {len(kernels)} kernels for {len(ARCHITECTURES)} architectures, {len(failures)} complaints")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
