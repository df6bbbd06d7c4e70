"""Types, as a user's checker sees them from outside: through py.typed, by the signatures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import treescan

USER = """
import torch
import treescan

x = torch.rand(1, 2, 3, 4)
y: torch.Tensor = treescan.tree_scan(x, x, direction="up", metric="l2")
tree: treescan.Tree = treescan.build_tree(x, root=torch.tensor([2]))
depth: torch.Tensor = tree.depth
graph: treescan.Graph = treescan.edge_graph(torch.tensor([[0, 1]]), 2)
y = treescan.tree_scan(x, x, tree) + treescan.tree_scan(x, x, treescan.grid_graph(3, 4))

u, A = torch.rand(1, 2, 12), torch.rand(2, 5)
B = torch.rand(1, 5, 12)
y = treescan.selective_tree_scan(u, u, A, B, B, tree)
y, state = treescan.selective_tree_scan(u, u, A, B, B, tree, return_last_state=True)
y, kept = treescan.step(treescan.init_state(1, 2, 5), u[..., 0], u[..., 0], A, B[..., 0], B[..., 0])
length: torch.Tensor = kept.length
plain: torch.Tensor = treescan.reference.tree_scan(x, x, treescan.grid_graph(3, 4))

z: int = treescan.tree_scan(x, x)  # wrong
treescan.tree_scan(x)  # wrong
treescan.tree_scan(x, x, direction="sideways")  # wrong
treescan.build_tree(x, metric="cosin")  # wrong
tree.parents  # wrong
state = treescan.selective_tree_scan(u, u, A, B, B, tree, return_last_state=True)  # wrong
"""


def test_a_users_file_is_typed(tmp_path, pytestconfig):
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    # On the path like an installed package: without py.typed it would count as untyped.
    environment = {**os.environ, "PYTHONPATH": str(Path(treescan.__file__).parent.parent)}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", pytestconfig.cache.mkdir("mypy"), "user.py"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert not result.stderr
    found = {int(line) for line in re.findall(r"^user.py:(\d+): error", result.stdout, re.MULTILINE)}
    wrong = {number for number, line in enumerate(USER.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, result.stdout
