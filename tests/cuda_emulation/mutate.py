"""Deletes each barrier, fence and atomic of a file of kernels in turn, and expects the tests to fail every time.

    mutate.py BUILD TARGET SOURCE REDUNDANT

BUILD is a folder configured with Ninja and built, TARGET the test program in it, SOURCE a file of kernels that it
links. REDUNDANT lists the deletions that may pass, `function operation number: reason` a line; each must be there and
must pass. An atomic isn't deleted but done plainly, and a grid barrier is also replaced by a block's.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

OPERATION = re.compile(r"(?:\b\w+::)*\b(__syncthreads(?:_or|_and|_count)?|__syncwarp|__threadfence|grid_sync"
                       r"|atomic(?:Add|Min|Max|Exch|CAS|Or|And|_load|_store))\s*\(")
FUNCTION = re.compile(r"^(?!\s|#|namespace\b|using\b).*?\b(\w+)\(", re.MULTILINE)


def without_comments(text):
    """The same text with blanks for comments, so that positions stay."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda match: re.sub(r"[^\n]", " ", match.group()), text, flags=re.DOTALL)


def closing(text, opening):
    depth = 0
    for position in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError("a parenthesis isn't closed")


def mutants(text):
    """Pairs of a name and the source with one operation gone."""
    code = without_comments(text)
    functions = [(match.start(), match.group(1)) for match in FUNCTION.finditer(code)]
    seen = Counter()
    for match in OPERATION.finditer(code):
        operation, begin, opening = match.group(1), match.start(), match.end() - 1
        end = closing(code, opening) + 1
        arguments = text[opening:end]
        function = [name for start, name in functions if start < begin][-1]
        seen[function, operation] += 1
        name = f"{function} {operation} {seen[function, operation]}"
        if operation.startswith("atomic"):
            changes = {name: f"plain::{operation}{arguments}"}
        elif operation.startswith("__syncthreads_"):
            changes = {name: arguments}  # each thread decides by itself
        else:
            changes = {name: "(void)0"}
        if operation == "grid_sync":
            changes[name + " by a block's"] = "__syncthreads()"
        for label, change in changes.items():
            yield label, text[:begin] + change + text[end:]


def commands(build, target, source):
    """How the build compiles the source and links the target."""
    lines = subprocess.run(["ninja", "-C", build, "-t", "commands", target], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    compiling = [line for line in lines if f"-c {source}" in line]
    if len(compiling) != 1:
        sys.exit(f"{build}: no command compiles {source} for {target}")
    return compiling[0], lines[-1]


def verdict(build, compiling, linking, source, mutant):
    """What the tests say to a mutant: the kinds of faults in their output, or None if they pass."""
    with tempfile.TemporaryDirectory() as folder:
        # Under the original's name, so that messages stay as they are.
        changed = Path(folder) / source.name
        changed.write_text(mutant)
        built = re.search(r" -o (\S+)", compiling).group(1)
        program = re.search(r" -o (\S+)", linking).group(1)
        new_object, new_program = f"{folder}/kernels.o", f"{folder}/program"
        for command in (re.sub(r" -MF \S+| -MT \S+| -MD\b", "", compiling).replace(str(source), str(changed)), linking):
            command = command.replace(f"-o {program}", f"-o {new_program}").replace(built, new_object)
            done = subprocess.run(command, shell=True, cwd=build, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"the mutant doesn't build:\n{done.stderr}{done.stdout}")
        try:
            done = subprocess.run([new_program], capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return ["doesn't end"]
        if done.returncode == 0:
            return None
        faults = "race|uninitialised read|out of bounds|divergence|deadlock|no grid barrier"
        return sorted(set(re.findall(rf"({faults}) in ", done.stderr))) or ["wrong result"]


def main(build, target, source, redundant):
    source = Path(source).resolve()
    allowed = dict(re.match(r"(.*?): (.+)", line).groups() for line in Path(redundant).read_text().splitlines()
                   if line.strip() and not line.startswith("#"))
    compiling, linking = commands(build, target, source)
    failures, names = [], set()
    for name, mutant in mutants(source.read_text()):
        names.add(name)
        faults = verdict(build, compiling, linking, source, mutant)
        if faults is None:
            print(f"{name}: passes. {allowed.get(name, 'NOT LISTED')}", flush=True)
        else:
            print(f"{name}: {', '.join(faults)}", flush=True)
        if (faults is None) != (name in allowed):
            failures.append(f"{name}: " + ("passes, and isn't listed as redundant" if faults is None else
                                           "is listed as redundant, but the tests fail without it"))
    failures += [f"{name}: is listed as redundant, but isn't there" for name in allowed if name not in names]
    print(f"{len(names)} deletions, {len(allowed)} listed as redundant, {len(failures)} unexplained")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
