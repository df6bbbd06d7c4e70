"""Looks for instructions in the machine code of kernels.

    sass_gate.py EXPECTED [-I FOLDER...]

EXPECTED is a JSON file, {source: {kernel: [instruction, ...]}}, sources relative to the repository. A kernel is a
regular expression for names as nvcc_gate.py gives them; some kernel must match it, and each one that does must hold
each instruction: "LDG.E.128", a load of 16 bytes from global memory, is there as LDG.E.128.CONSTANT, too. Prints one
line of the code for each. Needs nvcc, and cuobjdump from CUDA or the package nvidia-cuda-cuobjdump; where they are
missing, that is said and nothing done.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import nvcc_gate

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = 90


def find_cuobjdump():
    installed = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/cuobjdump"))
    return shutil.which("cuobjdump") or (str(installed[-1]) if installed else None)


def disassemble(nvcc, cuobjdump, source, folders):
    flags = [flag for flag in nvcc_gate.FLAGS if flag not in ("-Xptxas", "-v")]
    with tempfile.TemporaryDirectory() as folder:
        code = f"{folder}/kernels.cubin"
        subprocess.run([nvcc, *flags, f"-arch=sm_{ARCHITECTURE}", *(f"-I{name}" for name in folders), "-cubin",
                        str(source), "-o", code], check=True)
        return subprocess.run([cuobjdump, "-sass", code], check=True, capture_output=True, text=True).stdout


def parse(text):
    """{kernel: [instruction with its operands, ...]} from what cuobjdump prints."""
    kernels = {}
    for line in text.splitlines():
        if match := re.match(r"\s*Function : (\w+)", line):
            instructions = kernels.setdefault(match.group(1), [])
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            instructions.append(match.group(1))
    return dict(zip(nvcc_gate.readable(kernels), kernels.values(), strict=True))


def look_for(expected, kernels):
    """What was found, and what is to complain about."""
    found, complaints = [], []
    for pattern, wanted in expected.items():
        matching = [kernel for kernel in kernels if re.fullmatch(pattern, kernel)]
        if not matching:
            complaints.append(f"{pattern}: there is no such kernel")
        for kernel in matching:
            for instruction in wanted:
                lines = [line for line in kernels[kernel] if re.search(rf"(?<![.\w]){re.escape(instruction)}\b", line)]
                if lines:
                    found.append(f"{kernel}: {len(lines)} {instruction}, as in {lines[0]}")
                else:
                    complaints.append(f"{kernel}: holds no {instruction}")
    return found, complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("expected", type=Path)
    parser.add_argument("-I", dest="folders", action="append", default=[])
    options = parser.parse_args()

    nvcc, cuobjdump = shutil.which("nvcc"), find_cuobjdump()
    for tool, path in (("nvcc", nvcc), ("cuobjdump", cuobjdump)):
        if path is None:
            print(f"SASS gate: NOT RUN, there is no {tool} on this machine")
            return
    complaints = []
    for source, expected in json.loads(options.expected.read_text()).items():
        found, missing = look_for(expected, parse(disassemble(nvcc, cuobjdump, ROOT / source, options.folders)))
        print("\n".join(f"{source} {line}" for line in found))
        complaints += [f"{source} {line}" for line in missing]
    print(f"SASS gate: sm_{ARCHITECTURE}, {len(complaints)} complaints")
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
