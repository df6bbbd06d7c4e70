"""Deletes each barrier, fence and atomic of kernels in turn, and expects their tests to fail every time.

    mutate.py BUILD REDUNDANT FILE=TARGET[,TARGET...]...

BUILD is a folder configured with Ninja and built. FILE is a file of kernels or a header that they include, and TARGETs
are the test programs in BUILD that show what it does. What they are made of is compiled again from a copy of FILE's
folder, with one operation gone. REDUNDANT lists the deletions that may pass, `file function operation number: reason` a
line; each must be there and must pass. An atomic isn't deleted but done plainly, a grid barrier is also replaced by a
block's, and where threads vote each decides by itself.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OPERATION = re.compile(r"(?:\b\w+::)*\b(__syncthreads(?:_or|_and|_count)?|__syncwarp|__threadfence(?:_system)?"
                       r"|grid_sync|atomic(?:Add|Min|Max|Exch|CAS|Or|And|_load|_store))\s*\("
                       r"|\b\w+(?:\.|->)(sync|any)\s*\(")  # a team's
SECONDS = 300  # for one test program


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


def opened_by(head):
    """What a brace belongs to, by the text before it: a class, a function, or nothing that has a name."""
    head = re.sub(r"^\s*#.*$|\btemplate\s*<.*?>(?=\s*\w)", "", head, flags=re.MULTILINE)
    if match := re.match(r"\s*(?:class|struct)\s+(\w+)", head):
        return match.group(1)
    if bounds := re.search(r"__launch_bounds__\s*\(", head):
        head = head[closing(head, bounds.end() - 1) + 1:]
    match = re.search(r"(\w+)\s*\(", head)
    return match.group(1) if match and match.group(1) not in ("if", "for", "while", "switch") else None


def functions(code):
    """For each position that a brace opens: where it closes and what it belongs to."""
    begin, open_braces = 0, []
    for match in re.finditer(r"[{};]|\b(?:public|private|protected):", code):
        if match.group() == "{":
            open_braces.append((match.start(), opened_by(code[begin:match.start()])))
        elif match.group() == "}" and open_braces:
            start, name = open_braces.pop()
            yield start, match.start(), name
        begin = match.end()


def mutants(text):
    """Pairs of a name and the source with one operation gone."""
    code = without_comments(text)
    scopes = sorted((start, end, name) for start, end, name in functions(code) if name)
    seen = Counter()
    for match in OPERATION.finditer(code):
        begin, opening = match.start(), match.end() - 1
        operation = match.group(1) or match.group(2)
        end = closing(code, opening) + 1
        arguments = text[opening:end]
        around = [name for start, stop, name in scopes if start < begin < stop]
        if not around:
            continue  # a declaration
        function = "::".join(around[:2] if re.search(rf"\b(?:class|struct)\s+{around[0]}\b", code) else around[:1])
        seen[function, operation] += 1
        name = f"{function} {operation} {seen[function, operation]}"
        if operation.startswith("atomic"):
            changes = {name: f"plain::{operation}{arguments}"}
        elif operation.startswith("__syncthreads_") or operation == "any":
            changes = {name: arguments}
        else:
            changes = {name: "(void)0"}
        if operation == "grid_sync":
            changes[name + " by a block's"] = "__syncthreads()"
        for label, change in changes.items():
            yield label, text[:begin] + change + text[end:]


class Rebuild:
    """How a build makes test programs again when one file changes."""

    def __init__(self, build, file, targets):
        self.build, self.file, self.targets = build, file, targets
        made = {output: line for line in self.ninja("commands", *targets).splitlines() if (output := self.output(line))}
        objects = [name for name in self.dependents() if name in made and name.endswith(".cu.o")]
        # A program with kernels of its own shows by them what a header does; the library can stay as it is.
        own = [name for name in objects if any(f" {name} " in made[target] for target in targets)]
        self.compiling = {name: made[name] for name in own or objects}
        if not self.compiling:
            sys.exit(f"{file}: {', '.join(targets)} in {build} is not made of it")
        self.linking = {output: line for output, line in made.items()
                        if output not in objects and any(f" {name} " in line for name in self.compiling)}

    def ninja(self, tool, *arguments):
        return subprocess.run(["ninja", "-C", self.build, "-t", tool, *arguments], check=True, capture_output=True,
                              text=True).stdout

    @staticmethod
    def output(command):
        match = re.search(r" -o (\S+)", command)
        return match and match.group(1)

    def dependents(self):
        """The objects that the file is part of."""
        for block in self.ninja("deps").split("\n\n"):
            name, *files = block.split("\n")
            if any((Path(self.build) / line.strip()).resolve() == self.file for line in files if line.strip()):
                yield name.partition(":")[0]

    def run(self, command, folder, replaced):
        """One command, with its inputs and output in the folder where they are others than the build's."""
        command = re.sub(r" -MF \S+| -MT \S+| -MD\b", "", command)
        sources = re.escape(str(self.file.parent))
        command = re.sub(rf"(?<=\s|I){sources}(?=[/\s]|$)", f"{folder}/sources", command)
        for old, new in replaced.items():
            command = re.sub(rf"(?<=\s){re.escape(old)}(?=\s|$)", new, command)
        done = subprocess.run(command, shell=True, cwd=self.build, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the mutant doesn't build:\n{done.stderr}{done.stdout}")

    def verdict(self, mutant):
        """What the tests say to a mutant: the kinds of faults in their output, or None if they pass."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(self.file.parent, f"{folder}/sources", ignore=shutil.ignore_patterns("__pycache__"))
            Path(folder, "sources", self.file.name).write_text(mutant)
            replaced = {}
            for number, (output, command) in enumerate([*self.compiling.items(), *self.linking.items()]):
                soname = re.search(r"-Wl,-soname,(\S+)", command)
                replaced[output] = f"{folder}/{soname.group(1) if soname else number}"
                self.run(command, folder, replaced)
            for target in self.targets:
                if faults := self.test(replaced.get(target, f"./{target}"), folder):
                    return faults
        return None

    def test(self, program, libraries):
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "TREESCAN_TESTS_STOP_EARLY": "1"}
        try:
            done = subprocess.run([program], cwd=self.build, env=environment, capture_output=True, text=True,
                                  timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return ["doesn't end"]
        if done.returncode == 0:
            return None
        faults = "race|uninitialised read|out of bounds|divergence|deadlock|no grid barrier"
        return sorted(set(re.findall(rf"({faults}) in ", done.stderr))) or ["wrong result"]


def mutate(build, file, targets, allowed, pool):
    """The names of a file's deletions, and what is to complain about."""
    rebuild = Rebuild(build, file.resolve(), targets)
    for target in targets:
        if faults := rebuild.test(f"./{target}", build):
            sys.exit(f"{target}: fails as it is: {', '.join(faults)}")
    found = {f"{file.name} {name}": mutant for name, mutant in mutants(file.read_text())}
    failures = [f"{name}: is listed as redundant, but isn't there"
                for name in allowed if name.split()[0] == file.name and name not in found]
    for name, faults in zip(found, pool.map(rebuild.verdict, found.values()), strict=True):
        if faults is None:
            print(f"{name}: passes. {allowed.get(name, 'NOT LISTED')}", flush=True)
        else:
            print(f"{name}: {', '.join(faults)}", flush=True)
        if (faults is None) != (name in allowed):
            failures.append(f"{name}: " + ("passes, and isn't listed as redundant" if faults is None else
                                           "is listed as redundant, but the tests fail without it"))
    return list(found), failures


def main(build, redundant, *pairs):
    allowed = dict(re.match(r"(.*?\d.*?): (.+)", line).groups() for line in Path(redundant).read_text().splitlines()
                   if line.strip() and not line.startswith("#"))
    names, failures = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pair in pairs:
            file, _, targets = pair.partition("=")
            found, complaints = mutate(str(Path(build).resolve()), Path(file), targets.split(","), allowed, pool)
            names += found
            failures += complaints
    print(f"{len(names)} deletions, {sum(name in allowed for name in names)} listed as redundant, "
          f"{len(failures)} unexplained")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
