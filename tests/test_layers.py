"""Who may include and import what (docs/design.md)."""

import ast
import re
from pathlib import Path

import pytest

import treescan

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "treescan"


def includes(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def sources(folder, *patterns):
    found = [path for pattern in patterns for path in (ROOT / folder).rglob(pattern)]
    assert found
    return found


def imports(path):
    """Absolute names of all modules that a file of the package imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_c_header_is_alone():
    assert includes(ROOT / "cpp/include/treescan/treescan.h") == ["stdint.h"]


def test_no_framework_below_the_package():
    for path in sources("cpp", "*.h", "*.hpp", "*.cpp") + sources("python", "*.cpp"):
        for name in includes(path):
            assert not re.match(r"(torch|ATen|c10|cuda)", name), f"{path}: {name}"
            if "cpp" in path.relative_to(ROOT).parts:
                assert not re.match(r"(Python\.h|pybind11)", name), f"{path}: {name}"


def test_torch_operations_see_the_c_interface_and_the_stable_abi_only():
    for path in sources("torch_ops", "*.cpp"):
        for name in includes(path):
            assert "/" not in name or name == "treescan/treescan.h" or re.match(r"torch/(csrc/stable|headeronly)/", name), name


# Names that torch promises nothing about, by file. They may only get fewer. Public ones, register_autograd and the like, have no
# forward mode, and no derivative of a derivative under torch.func.
PRIVATE_TORCH = {
    "ops.py": {
        "torch._C.DispatchKeySet", "torch._C._AutoDispatchBelowADInplaceOrView", "torch._C._AutoDispatchBelowAutograd",
        "torch._C._after_ADInplaceOrView_keyset", "torch._C._are_functorch_transforms_active",
        "torch._functorch.autograd_function.VmapInfo", "torch._functorch.utils.enable_single_level_autograd_function",
        "torch._ops.OpOverload", "torch.autograd.function._SingleLevelFunction",
    },
    "ops_selective.py": {
        "torch._C._AutoDispatchBelowAutograd", "torch._functorch.utils.enable_single_level_autograd_function",
        "torch._ops.OpOverload", "torch.autograd.forward_ad._set_fwd_grad_enabled", "torch.autograd.function._SingleLevelFunction",
    },
}


@pytest.mark.parametrize("file", PRIVATE_TORCH)
def test_private_names_of_torch_only_get_fewer(file):
    path = PACKAGE / file
    attributes = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    names = {name for name in attributes | set(imports(path)) if re.match(r"torch\.(.*\.)?_", name)}
    longest = {name for name in names if not any(other.startswith(f"{name}.") for other in names)}
    assert longest == PRIVATE_TORCH[file], f"used: {sorted(longest)}"


def test_binding_sees_the_c_interface_only():
    for path in sources("python", "*.cpp"):
        assert {name for name in includes(path) if "/" in name or name.endswith(".h")} <= {
            "treescan/treescan.h", "pybind11/pybind11.h", "pybind11/stl.h", "pthread.h"}


def test_shared_sources_do_not_know_a_backend():
    for path in sources("cpp/src", "*.h", "*.cpp"):
        if path.parent.name != "cpu" and path.name not in ("abi.cpp", "backend.cpp"):
            assert not [name for name in includes(path) if name.startswith("cpu/")], path


def test_kernels_see_cuda_through_one_header():
    """What cuda/ includes is its own, the shared part of cpp/src and the standard library; device.h alone has CUDA's."""
    shared = {path.relative_to(ROOT / "cpp/src").as_posix() for path in sources("cpp/src", "*.h")}
    known = {path.name for path in sources("cuda", "*.h")} | {name for name in shared if not name.startswith("cpu/")}
    for path in sources("cuda", "*.h", "*.cu"):
        foreign = {name for name in includes(path) if "." in name and name not in known and name != "treescan/treescan.h"}
        if path.name == "device.h":
            assert foreign == {"cooperative_groups.h", "cuda_bf16.h", "cuda_fp16.h", "cuda_runtime.h", "emulation.h"}
        else:
            assert not foreign, path


def test_the_core_does_not_know_cuda():
    """Nothing in cpp/ includes CUDA's headers or cuda/'s."""
    kernels = {path.name for path in sources("cuda", "*.h")} - {path.name for path in sources("cpp", "*.h")}
    for path in sources("cpp", "*.h", "*.hpp", "*.cpp"):
        for name in includes(path):
            assert name not in kernels and not re.match(r"(\.\./|cuda|cooperative_groups|cub/|thrust/|cu\w+\.h$)", name), (
                f"{path}: {name}")


@pytest.mark.parametrize(("files", "forbidden"), [
    (["graph.py"], ["_native", "ops", "tree", "functional", "nn", "compat", "cli", "reference"]),
    (["ops.py", "ops_selective.py"], ["tree", "functional", "selective", "nn", "compat", "cli", "reference"]),
    (["tree.py"], ["functional", "selective", "nn", "compat", "cli", "reference"]),
    (["packed.py", "token_trees.py", "distributed.py"], ["nn", "compat", "cli", "reference"]),
    (["functional.py", "selective.py", "selective_state.py"], ["nn", "compat", "cli", "reference"]),
    (["nn/*.py"], ["compat", "cli", "reference"]),
    (["compat/*.py"], ["nn", "cli", "reference"]),
    (["reference/*.py"], ["_native", "ops", "tree", "functional", "nn", "compat", "cli"]),
])
def test_layers_of_the_package(files, forbidden):
    for pattern in files:
        paths = list(PACKAGE.glob(pattern))
        assert paths
        for path in paths:
            for name in imports(path):
                assert not any(name == f"treescan.{layer}" or name.startswith(f"treescan.{layer}.") for layer in forbidden), (
                    f"{path.relative_to(ROOT)} imports {name}")


def test_one_module_loads_the_native_code():
    for path in PACKAGE.rglob("*.py"):
        if any(name.endswith("._C") and not name.startswith("torch") for name in imports(path)):
            assert path.name in ("_library.py", "_native.py", "ops.py", "ops_selective.py", "numpy.py"), path
    for folder in ("tests", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(re.search(r"treescan\.(_native|_C)", name) for name in imports(path)), path


def test_examples_are_users():
    """They take from treescan what it offers to everyone."""
    for path in sources("examples", "*.py"):
        if ".venv" in path.parts:
            continue
        for name in imports(path):
            if name.startswith("treescan."):
                offered = name.split(".")[1]
                assert offered in (*treescan.__all__, "distributed"), f"{path.relative_to(ROOT)} imports {name}"
