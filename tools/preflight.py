"""Says what this machine lacks for a build, before anything is downloaded. Needs nothing but a Python 3."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

MINIMUM_PYTHON = (3, 10)
MINIMUM_CMAKE = (3, 20)
PROGRAM = """
#include <cstdint>
#include <optional>
#include <thread>
int main() {
  if constexpr (sizeof(void *) >= 4) { std::optional<int> zero = 0; return *zero; }
}
"""


def dotted(version):
    return ".".join(str(part) for part in version)


def lacking_python():
    if sys.version_info[:2] < MINIMUM_PYTHON:
        return "Python %s or later is needed, but %s is %s: put a newer one first, e.g. `make test PYTHON=python3.11`" % (
            dotted(MINIMUM_PYTHON), sys.executable, dotted(sys.version_info[:3]))
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        return "Python's %s module is missing: install your system's package for it (Debian, Ubuntu: python3-venv)" % error.name


def lacking_compiler():
    command = shlex.split(os.environ.get("CXX", "")) or next(
        ([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if not command:
        return "no C++ compiler found (c++, g++, clang++ or $CXX): install one (Debian, Ubuntu: g++)"
    if not shutil.which(command[0]):
        return "the C++ compiler in $CXX, %s, isn't there" % command[0]
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "program.cpp")
        with open(source, "w") as file:
            file.write(PROGRAM)
        build = subprocess.run(command + ["-std=c++17", source, "-o", os.path.join(folder, "program")],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if build.returncode != 0:
        lines = build.stdout.decode(errors="replace").strip().splitlines() or ["no message"]
        return "a C++17 compiler is needed, but %s can't build a small program: %s" % (command[0], lines[0])


def lacking_cmake():
    # None at all is fine: pip brings one. But one that is there would be taken, and fail late.
    path = shutil.which("cmake")
    if not path:
        return None
    text = subprocess.run([path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode(errors="replace")
    match = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", text)
    if not match or tuple(int(part) for part in match.groups()[:2]) < MINIMUM_CMAKE:
        found = dotted(part for part in match.groups() if part) if match else "unknown"
        return "CMake %s or later is needed, but %s is version %s: upgrade it, or take it off PATH and pip brings one" % (
            dotted(MINIMUM_CMAKE), path, found)


def main():
    problems = [problem for problem in (lacking_python(), lacking_compiler(), lacking_cmake()) if problem]
    for problem in problems:
        print("treescan: " + problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
