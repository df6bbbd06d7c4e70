"""What `make` says on a machine that lacks something, before it downloads anything."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

PREFLIGHT = Path(__file__).parent.parent / "tools" / "preflight.py"


def preflight(**environment):
    return subprocess.run([sys.executable, PREFLIGHT], capture_output=True, text=True, timeout=60,
                          env={**{k: v for k, v in os.environ.items() if k != "CXX"}, **environment})


def tool(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_this_machine_is_fine():
    result = preflight()
    assert (result.returncode, result.stderr) == (0, "")


def test_no_compiler(tmp_path):
    result = preflight(PATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith("treescan: no C++ compiler found") and len(result.stderr.splitlines()) == 1


def test_compiler_of_the_environment_is_missing():
    assert "isn't there" in preflight(CXX="no-such-compiler").stderr


def test_old_compiler(tmp_path):
    tool(tmp_path, "old", "echo 'error: unrecognized option -std=c++17' >&2; exit 1")
    result = preflight(CXX=str(tmp_path / "old"))
    assert result.returncode == 1 and "C++17 compiler is needed" in result.stderr and "unrecognized option" in result.stderr


@pytest.mark.parametrize(("version", "code"), [("3.18.4", 1), ("2.8", 1), ("nonsense", 1), ("3.20.0", 0), ("4.1.2", 0)])
def test_cmake(version, code, tmp_path):
    tool(tmp_path, "cmake", f"echo cmake version {version}")
    result = preflight(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert result.returncode == code
    assert ("CMake 3.20 or later is needed" in result.stderr) == bool(code)
