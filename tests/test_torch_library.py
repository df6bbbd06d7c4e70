"""The library of torch operations: what it needs, what it says where it can't be loaded, and programs without Python."""

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
LIBRARY = Path(treescan.get_torch_library())
EXAMPLE = ROOT / "examples" / "cpp"
TOOLS = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
linux = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("nm"), reason="reads an ELF file with nm and readelf")


def run(*command):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900, env=TOOLS)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@linux
def test_needs_the_stable_abi_only():
    undefined = [line.split()[-1].partition("@")[0] for line in run("nm", "-D", "--undefined-only", LIBRARY).splitlines()]
    of_torch = [name for name in undefined if "torch" in name]
    assert of_torch and all(re.match(r"(aoti_)?torch_\w+$", name) for name in of_torch)
    assert not [name for name in undefined if re.match(r"_?Py|_ZN?K?(2at|3c10|5torch|8pybind11)", name)]
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", LIBRARY).splitlines()}
    assert exported == {"treescan_torch_version", "treescan_torch_guard_calls"}
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", LIBRARY))
    assert "libtorch_cpu.so" in needed and not [name for name in needed if "python" in name]


@pytest.fixture
def package(tmp_path):
    """A copy of the installed package."""
    shutil.copytree(Path(treescan.__file__).parent, tmp_path / "treescan", ignore=shutil.ignore_patterns("__pycache__"))
    folder = LIBRARY.parent.parent
    if not (tmp_path / "treescan" / "lib").exists():  # an editable installation has it elsewhere
        shutil.copytree(folder / "lib", tmp_path / "treescan" / "lib")
        for module in folder.glob("_C.*"):
            shutil.copy(module, tmp_path / "treescan")
    return tmp_path


def outcome(package, before=""):
    """The last line of importing that copy."""
    paths = [str(package), str(Path(torch.__file__).parent.parent), *filter(None, sys.path)]
    code = f"import sys; sys.path[:0] = {paths!r}; import torch; {before}import treescan; print(treescan.__file__)"
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=package)
    return (result.stdout + result.stderr).strip().splitlines()[-1]


@linux
def test_a_library_that_cannot_be_loaded_is_one_line(package):
    file = package / "treescan" / "lib" / LIBRARY.name
    assert outcome(package) == str(package / "treescan" / "__init__.py")
    assert outcome(package, "torch.__version__ = '2.9.1'; ").startswith(
        "ImportError: treescan needs torch 2.10 or later, but 2.9.1 is installed")
    other = f"torch.ops.load_library({str(LIBRARY)!r}); "
    assert outcome(package, other).startswith("ImportError: another copy of treescan's torch operations is already")
    file.write_text("no library")
    assert re.match(r"ImportError: treescan's library of torch operations could not be loaded \(.*\): run", outcome(package))
    shutil.copy(package / "treescan" / "lib" / "libtreescan.so", file)
    assert re.match(r"ImportError: treescan's library of torch operations could not be loaded \(.*\): run", outcome(package))
    file.unlink()
    assert re.match(r"ImportError: treescan's library of torch operations isn't there \(.*\): run", outcome(package))


def test_strings_are_not_leaked():
    resource = pytest.importorskip("resource")
    x, parent, order = torch.rand(1, 1, 2), torch.zeros(1, 2, dtype=torch.int32), torch.arange(2, dtype=torch.int32)[None]
    word = "up" * 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        with pytest.raises(ValueError, match="direction must be one of 'up', 'down', 'both'"):
            torch.ops.treescan.scan(x, x, parent, order, word)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB; 100 MB would be leaked


# ---- A program without Python ----


class SelectiveScan(torch.nn.Module):
    """A scan along the tree of its own input."""

    def __init__(self):
        super().__init__()
        self.A = torch.nn.Parameter(-torch.rand(6, 4))
        self.D, self.bias = torch.nn.Parameter(torch.rand(6)), torch.nn.Parameter(torch.rand(6))

    def forward(self, u, delta, B, C):
        tree = treescan.build_tree(u.view(1, 6, 5, 4))
        return treescan.selective_tree_scan(u, delta, self.A, B, C, tree, D=self.D, delta_bias=self.bias, delta_softplus=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if not (shutil.which("cmake", path=TOOLS["PATH"]) and shutil.which("c++") and EXAMPLE.is_dir()):
        pytest.skip("needs cmake, a C++ compiler and the examples")
    if torch.version.cuda:
        pytest.skip("torch's CMake files ask for CUDA's toolkit")
    build = tmp_path_factory.mktemp("build")
    prefixes = f"{treescan.get_cmake_dir()};{torch.utils.cmake_prefix_path}"
    run("cmake", "-S", EXAMPLE, "-B", build, "-G", "Ninja", "-DWITH_TORCH=ON", f"-DCMAKE_PREFIX_PATH={prefixes}")
    run("cmake", "--build", build)
    return build / "run_model"


@pytest.mark.parametrize("kind", ["selective scan", "state space model"])
def test_exported_models_run_without_python(kind, program, tmp_path):
    torch.manual_seed(0)
    if kind == "selective scan":
        model = SelectiveScan()
        inputs = torch.rand(1, 6, 20), torch.rand(1, 6, 20), torch.rand(1, 1, 4, 20), torch.rand(1, 1, 4, 20)
    else:
        model, inputs = treescan.nn.TreeSSM(8), (torch.rand(2, 5, 7, 8),)
    model.eval()
    with torch.no_grad():
        expected = model(*inputs)
        exported = torch.export.export(model, inputs)
    torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "model.pt2"))
    torch.save(list(inputs), tmp_path / "inputs.pt")
    run(program, tmp_path / "model.pt2", tmp_path / "inputs.pt", tmp_path / "outputs.pt")
    (result,) = torch.load(tmp_path / "outputs.pt")
    torch.testing.assert_close(result, expected)
    if sys.platform == "linux":
        assert "libpython" not in run("ldd", program)
