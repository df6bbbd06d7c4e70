"""Other people's builds: the installed C interface through CMake and pkg-config, from a prefix and from the Python package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
  if (treescan_check_version(TREESCAN_VERSION) != TREESCAN_OK ||
      treescan_scan(TREESCAN_DOWN, &tree, &sorted, &in, &by, &out, NULL, NULL) != TREESCAN_OK) {
    puts(treescan_last_error());
    return 1;
  }
  printf("%g %g %g\\n", y[0], y[1], y[2]);
  return 0;
}
"""
PRINTED = "1 2.5 5.25\n"
LISTS = """
cmake_minimum_required(VERSION 3.20)
project(outside C)
find_package(treescan {wanted} CONFIG REQUIRED)
add_executable(program program.c)
target_link_libraries(program PRIVATE {library})
"""
TOOLS = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
needs_pkg_config = pytest.mark.skipif(not shutil.which("pkg-config"), reason="pkg-config is not installed")


def attempt(*command, **variables):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600,
                          env={**TOOLS, **{key: str(value) for key, value in variables.items()}})


def run(*command, **variables):
    result = attempt(*command, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def cmake(source, build, *options):
    run("cmake", "-S", source, "-B", build, "-G", "Ninja", *options)
    run("cmake", "--build", build)


def libraries_of(program):
    return run("ldd", program) if sys.platform == "linux" else ""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the library's sources, beside its build folder."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("cpp", "cmake"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "CMakeLists.txt", folder)
    return folder


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory):
    """Two prefixes, "both" and "static", moved away from where they were installed; "both" got its libraries one by one."""
    folder = tmp_path_factory.mktemp("installed")
    for kind, prefix, libdir in ("SHARED", "both", "lib"), ("STATIC", "both", "lib"), ("STATIC", "static", "lib/some-linux"):
        cmake(source, source / "build", "-DTREESCAN_VECTOR_KERNELS=OFF", f"-DCMAKE_INSTALL_LIBDIR={libdir}",
              *(f"-DTREESCAN_{each}={'ON' if each == kind else 'OFF'}" for each in ("SHARED", "STATIC")))
        run("cmake", "--install", source / "build", "--prefix", folder / "before" / prefix)
    (folder / "before").rename(folder / "after")
    return folder / "after"


@pytest.fixture(params=["shared", "static", "static alone", "wheel"])
def place(request, installed):
    """Where a library lies and what it is linked as: (CMAKE_PREFIX_PATH, PKG_CONFIG_PATH, CMake target)."""
    if request.param == "wheel":
        return treescan.get_cmake_dir(), treescan.get_pkgconfig_dir(), "treescan::treescan"
    if request.param == "static alone":  # in a folder where CMake doesn't look by itself
        folder = installed / "static/lib/some-linux"
        return folder / "cmake/treescan", folder / "pkgconfig", "treescan::treescan"
    target = "treescan::treescan_static" if request.param == "static" else "treescan::treescan"
    return installed / "both", installed / "both/lib/pkgconfig", target


def is_static(place):
    return place[2] == "treescan::treescan_static" or "some-linux" in str(place[0])


def write_project(folder, **words):
    (folder / "program.c").write_text(PROGRAM)
    (folder / "CMakeLists.txt").write_text(LISTS.format(**{"wanted": "0.1", "library": "treescan::treescan", **words}))


def test_find_package(place, tmp_path):
    write_project(tmp_path, library=place[2])
    cmake(tmp_path, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={place[0]}")
    assert run(tmp_path / "build/program") == PRINTED
    assert ("libtreescan" in libraries_of(tmp_path / "build/program")) != is_static(place)


@pytest.mark.parametrize(("wanted", "message"), [
    ("0.1 COMPONENTS shared static", r"there is no shared library in .*; components are shared, static and torch"),
    ("0.1 COMPONENTS dynamic", r"there is no dynamic library in .*; components are shared, static and torch"),
    ("0.1.1", r"version: 0\.1\.0 .*not compatible"),
    ("0.2", r"version: 0\.1\.0 .*not compatible"),
    ("1.0", r"version: 0\.1\.0 .*not compatible"),
])
def test_find_package_says_what_is_missing(wanted, message, installed, tmp_path):
    write_project(tmp_path, wanted=wanted)
    result = attempt("cmake", "-S", tmp_path, "-B", tmp_path / "build", "-G", "Ninja",
                     f"-DCMAKE_PREFIX_PATH={installed / 'static/lib/some-linux/cmake/treescan'}")
    assert result.returncode != 0 and re.search(message, " ".join(result.stderr.split())), result.stderr


@needs_pkg_config
def test_pkg_config(place, tmp_path):
    (tmp_path / "program.c").write_text(PROGRAM)
    asked = ["--static"] if is_static(place) else []
    flags = run("pkg-config", *asked, "--cflags", "--libs", "treescan", PKG_CONFIG_PATH=place[1]).split()
    place_of_library = run("pkg-config", "--variable=libdir", "treescan", PKG_CONFIG_PATH=place[1]).strip()
    how = ["-static"] if is_static(place) else [f"-Wl,-rpath,{place_of_library}"]
    run("cc", tmp_path / "program.c", *flags, *how, "-o", tmp_path / "program")
    assert run(tmp_path / "program") == PRINTED
    assert run("pkg-config", "--modversion", "treescan", PKG_CONFIG_PATH=place[1]).strip() == treescan.__version__
    assert (Path(run("pkg-config", "--variable=prefix", "treescan", PKG_CONFIG_PATH=place[1]).strip()) / "include").is_dir()


def test_folders_of_the_python_package():
    assert (Path(treescan.get_include_dir()) / "treescan" / "treescan.h").is_file()
    assert (Path(treescan.get_cmake_dir()) / "treescan-config.cmake").is_file()
    assert (Path(treescan.get_pkgconfig_dir()) / "treescan.pc").is_file()


# ---- The examples, as outside projects ----


def picture(channels):
    """A picture with flat areas, edges and noise, (C, H, W), and its PPM or PGM file, with a comment as some programs write."""
    height, width = 37, 53
    generator = torch.Generator().manual_seed(channels)
    image = torch.randint(0, 30, (channels, height, width), generator=generator)
    image[:, 10:25, 20:] += 170
    image[:, :, 30:34] += 50
    header = f"P{6 if channels == 3 else 5}\n# a comment\n{width} {height}\n255\n".encode()
    return image, header + image.permute(1, 2, 0).to(torch.uint8).numpy().tobytes()


def smoothed(image, softness):
    """What the examples do, in Python: the PPM or PGM file that they write."""
    channels, height, width = image.shape
    x = image[None].float()
    graph = treescan.grid_graph(height, width)
    cost = treescan.edge_weights(x, graph, "l1")
    tree = treescan.minimum_spanning_tree(graph, cost)
    weights = softness / (softness + cost.gather(1, tree.edge.clamp(min=0).long()))
    values = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    sums = treescan.tree_scan(values, weights.view(1, 1, height, width).expand_as(values), tree)
    result = (sums[0, :-1] / sums[0, -1:] + 0.5).to(torch.uint8)
    return f"P{6 if channels == 3 else 5}\n{width} {height}\n255\n".encode() + result.permute(1, 2, 0).numpy().tobytes()


def check_example(program, folder):
    for channels, softness in (3, 8.0), (1, 2.5):
        image, file = picture(channels)
        (folder / "in.ppm").write_bytes(file)
        run(program, folder / "in.ppm", folder / "out.ppm", softness)
        assert (folder / "out.ppm").read_bytes() == smoothed(image, softness)
    (folder / "short.ppm").write_bytes(file[:-1])
    for arguments, message in [
        ([], "usage"),
        ([folder / "short.ppm", folder / "out.ppm"], "ends early"),
        ([folder / "none.ppm", folder / "out.ppm"], "can't be read"),
        ([program, folder / "out.ppm"], "expected a PPM or PGM"),
        ([folder / "in.ppm", folder / "none" / "out.ppm"], "can't be written"),
        ([folder / "in.ppm", folder / "out.ppm", "-1"], "SOFTNESS"),
    ]:
        result = attempt(program, *arguments)
        assert result.returncode == 1 and message in result.stderr, result.stderr


@pytest.mark.parametrize("language", ["c", "cpp"])
def test_examples_with_cmake(language, place, tmp_path):
    cmake(ROOT / "examples" / language, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={place[0]}",
          f"-DTREESCAN_LIBRARY={place[2]}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
    check_example(tmp_path / "build/tree_filter", tmp_path)
    assert ("libtreescan" in libraries_of(tmp_path / "build/tree_filter")) != is_static(place)


@needs_pkg_config
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_example_with_make(place, tmp_path):
    shutil.copytree(ROOT / "examples/c", tmp_path / "c", ignore=shutil.ignore_patterns("build", "tree_filter"))
    run("make", "-C", tmp_path / "c", *(["STATIC=1"] if is_static(place) else []), PKG_CONFIG_PATH=place[1])
    check_example(tmp_path / "c/tree_filter", tmp_path)


# ---- The headers, and libraries that don't fit them ----

COMPILERS = [name for name in ("g++", "clang++", "clang++-16") if shutil.which(name)]
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror", "-I", ROOT / "cpp/include"]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_headers_have_no_warnings(compiler, tmp_path):
    (tmp_path / "c.c").write_text("#include <treescan/treescan.h>\nint main(void) { return treescan_version() == 0; }\n")
    run(compiler.replace("clang++", "clang").replace("g++", "gcc"), "-std=c99", "-pedantic", "-Wstrict-prototypes", *STRICT,
        "-fsyntax-only", tmp_path / "c.c")
    (tmp_path / "cpp.cpp").write_text("""
        #include <treescan/treescan.hpp>
        int main() {
          const double values[2] = {};
          treescan::workspace scratch([](treescan_workspace *workspace) { workspace->size = 64; });
          return treescan::tensor_view(values, {2}).ndim + (scratch.data == nullptr);
        }
    """)
    for standard in "c++17", "c++20":
        run(compiler, f"-std={standard}", "-Wpedantic", *STRICT, "-fsyntax-only", tmp_path / "cpp.cpp",
            ROOT / "examples/cpp/tree_filter.cpp")


@pytest.fixture(scope="module")
def older(source, installed):
    """A prefix with the library as version 0.0.9. Only abi.cpp knows the number, so only that is compiled again."""
    header, lists = source / "cpp/include/treescan/treescan.h", source / "CMakeLists.txt"
    before = header.stat()
    for part, number in (("MAJOR", 0), ("MINOR", 0), ("PATCH", 9)):
        header.write_text(re.sub(rf"(define TREESCAN_VERSION_{part}) \d+", rf"\1 {number}", header.read_text()))
    os.utime(header, ns=(before.st_atime_ns, before.st_mtime_ns))
    (source / "cpp/src/abi.cpp").touch()
    lists.write_text(lists.read_text().replace(f"VERSION {treescan.__version__}", "VERSION 0.0.9"))
    cmake(source, source / "build", "-DTREESCAN_SHARED=ON", "-DCMAKE_INSTALL_LIBDIR=lib")
    run("cmake", "--install", source / "build", "--prefix", installed.parent / "older")
    return installed.parent / "older"


@pytest.mark.parametrize("language", ["c", "cpp"])
def test_older_library_is_refused(language, older, tmp_path):
    """Programs compiled with this version's header and linked with an older version's library."""
    source = tmp_path / f"program.{language}"
    source.write_text(PROGRAM if language == "c" else """
        #include <cstdio>
        #include <treescan/treescan.hpp>
        int main() try {
          std::printf("%d\\n", static_cast<int>(treescan::grid(2, 2).num_edges()));
        } catch (const treescan::error &error) {
          std::printf("%s: %s\\n", treescan::status_name(error.status()).c_str(), error.what());
        }
    """)
    run({"c": "cc", "cpp": "c++"}[language], *(["-std=c++17"] if language == "cpp" else []), source, "-I", ROOT / "cpp/include",
        "-L", older / "lib", "-ltreescan", f"-Wl,-rpath,{older / 'lib'}", "-o", tmp_path / "program")
    message = attempt(tmp_path / "program").stdout
    assert message.removeprefix("TREESCAN_INCOMPATIBLE: ") == (
        "treescan's library is older than the header that the program was compiled with: "
        f"library 0.0.9, header {treescan.__version__}\n")
    assert message.startswith("TREESCAN_INCOMPATIBLE") == (language == "cpp")


def test_older_library_is_refused_by_python(older):
    if sys.platform != "linux":
        pytest.skip("puts another library in front by LD_LIBRARY_PATH")
    result = attempt(sys.executable, "-c", "import treescan", LD_LIBRARY_PATH=older / "lib")
    last = result.stderr.strip().splitlines()[-1]
    version = treescan.__version__
    assert last.startswith(f"ImportError: treescan {version} needs a native module and a library of its own version, but the "
                           f"module was compiled with the header of {version} and found library 0.0.9: "), last


# ---- What a folder lacks ----


def test_folder_without_a_build_says_what_to_do(tmp_path):
    """The package's folder without its native module, as in a fresh clone."""
    shutil.copytree(ROOT / "treescan", tmp_path / "treescan", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    # -S keeps an editable installation from stepping in; torch is put on the path by hand.
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


@pytest.mark.parametrize(("module", "message"), [
    ("None", "native module could not be loaded"),
    ("types.SimpleNamespace(version=lambda: 90807, HEADER_VERSION=90807)", "found library 9.8.7"),
])
def test_another_native_module_says_what_to_do(module, message):
    command = f"import sys, types; sys.modules['treescan._C'] = {module}; import treescan"
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and last.startswith("ImportError: treescan") and message in last and "make build" in last


def test_kernels_share_no_code(tmp_path):
    """Objects built for one instruction set hold no weak symbols, of which the linker might keep the wrong copy."""
    if not shutil.which("nm"):
        pytest.skip("nm is not installed")
    for name in ("scan_kernels", "edge_kernels"):
        run("c++", "-std=c++17", "-O3", "-fPIC", "-DTREESCAN_KERNELS=avx2", "-I", ROOT / "cpp/include", "-I", ROOT / "cpp/src",
            "-c", ROOT / f"cpp/src/cpu/{name}.cpp", "-o", tmp_path / "kernels.o", "-w")
        symbols = run("nm", "-C", tmp_path / "kernels.o")
        assert not [line for line in symbols.splitlines() if " W " in line or " V " in line or " u " in line]
