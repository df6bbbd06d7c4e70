"""Other people's builds: the installed C interface through CMake and pkg-config, and from the Python package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import treescan

ROOT = Path(__file__).parent.parent
PROGRAM = """
#include <stdio.h>
#include <treescan/treescan.h>

int main(void) {
  int32_t parent[3] = {0, 0, 1}, order[3] = {0, 1, 2};
  float x[3] = {1, 2, 4}, w[3] = {0, 0.5f, 0.5f}, y[3] = {0, 0, 0};
  treescan_tensor tree = {parent, TREESCAN_INT32, TREESCAN_CPU, 0, 2, {1, 3}, {3, 1}}, sorted = tree;
  treescan_tensor in = {x, TREESCAN_FLOAT32, TREESCAN_CPU, 0, 3, {1, 1, 3}, {3, 3, 1}}, by = in, out = in;
  sorted.data = order;
  by.data = w;
  out.data = y;
  if (treescan_version() != TREESCAN_VERSION) return 1;
  if (treescan_scan(TREESCAN_DOWN, &tree, &sorted, &in, &by, &out, NULL, NULL) != TREESCAN_OK) {
    puts(treescan_last_error());
    return 1;
  }
  printf("%g %g %g\\n", y[0], y[1], y[2]);
  return 0;
}
"""
LISTS = """
cmake_minimum_required(VERSION 3.20)
project(outside C)
find_package(treescan 0.1 CONFIG REQUIRED)
add_executable(program program.c)
target_link_libraries(program PRIVATE treescan::treescan)
"""
TOOLS = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(*command, **options):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=TOOLS, timeout=300, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    run("cmake", "-S", ROOT, "-B", folder / "build", "-G", "Ninja", "-DCMAKE_INSTALL_LIBDIR=lib")
    run("cmake", "--build", folder / "build")
    run("cmake", "--install", folder / "build", "--prefix", folder / "prefix")
    return folder / "prefix"


def build_outside(folder, prefix_path):
    (folder / "program.c").write_text(PROGRAM)
    (folder / "CMakeLists.txt").write_text(LISTS)
    run("cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix_path}")
    run("cmake", "--build", folder / "build")
    return run(folder / "build" / "program")


def test_find_package(prefix, tmp_path):
    assert build_outside(tmp_path, prefix) == "1 2.5 5.25\n"


def test_find_package_from_the_python_package(tmp_path):
    assert build_outside(tmp_path, treescan.get_cmake_dir()) == "1 2.5 5.25\n"
    assert (Path(treescan.get_include_dir()) / "treescan" / "treescan.h").is_file()


def test_pkg_config(prefix, tmp_path):
    if not shutil.which("pkg-config"):
        pytest.skip("pkg-config is not installed")
    (tmp_path / "program.c").write_text(PROGRAM)
    TOOLS["PKG_CONFIG_PATH"] = str(prefix / "lib" / "pkgconfig")
    flags = run("pkg-config", "--cflags", "--libs", "treescan").split()
    run("cc", tmp_path / "program.c", *flags, f"-Wl,-rpath,{prefix / 'lib'}", "-o", tmp_path / "program")
    assert run(tmp_path / "program") == "1 2.5 5.25\n"


def test_nothing_else_is_exported(prefix):
    if not shutil.which("nm") or sys.platform != "linux":
        pytest.skip("needs nm on Linux")
    names = run("nm", "-D", "--defined-only", prefix / "lib" / "libtreescan.so").split()[2::3]
    header = (ROOT / "cpp/include/treescan/treescan.h").read_text()
    ours = {name for name in names if name.startswith("treescan_")}
    assert len(ours) > 15 and all(f"{name}(" in header for name in ours)
    # The rest is the standard library's: instantiations that every program shares.
    assert not [name for name in names if "8treescan" in name]


def test_folder_without_a_build_says_what_to_do(tmp_path):
    """The package's folder without its native module, as in a fresh clone."""
    shutil.copytree(ROOT / "treescan", tmp_path / "treescan", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    # -S keeps an editable installation from stepping in; torch is put on the path by hand.
    import torch

    command = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(Path(torch.__file__).parent.parent)!r}]; import treescan"
    result = subprocess.run([sys.executable, "-S", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and last.startswith("ImportError: ") and "make build" in last


def test_no_torch_says_what_to_do(tmp_path):
    """The package can be imported, for those who want the C library only; what needs torch says so in a line."""
    def last_line(statement):
        result = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}"],
                                capture_output=True, text=True, cwd=tmp_path)
        return result.returncode, (result.stdout + result.stderr).strip().splitlines()[-1]

    assert last_line("import treescan; print(treescan.__version__)") == (0, treescan.__version__)
    for statement in ("import treescan; treescan.tree_scan", "from treescan import Tree"):
        code, line = last_line(statement)
        assert code != 0 and line.startswith("ImportError: treescan.") and "needs torch" in line and "pip install torch" in line
    assert last_line("import treescan; treescan.nothing")[1].startswith("AttributeError: ")


def test_kernels_share_no_code(tmp_path):
    """Objects built for one instruction set hold no weak symbols, of which the linker might keep the wrong copy."""
    if not shutil.which("nm"):
        pytest.skip("nm is not installed")
    for name in ("scan_kernels", "edge_kernels"):
        run("c++", "-std=c++17", "-O3", "-fPIC", "-DTREESCAN_KERNELS=avx2", "-I", ROOT / "cpp/include", "-I", ROOT / "cpp/src",
            "-c", ROOT / f"cpp/src/cpu/{name}.cpp", "-o", tmp_path / "kernels.o", "-w")
        symbols = run("nm", "-C", tmp_path / "kernels.o")
        assert not [line for line in symbols.splitlines() if " W " in line or " V " in line or " u " in line]
