"""The exported file runs in a process that knows treescan alone."""

import subprocess
import sys

import pytest
import torch
from training import ENVIRONMENT, TINY

import grootv
from grootv.export import export

READER = """
import sys, torch, treescan
pictures, wanted = torch.load(sys.argv[2])
model = torch.export.load(sys.argv[1]).module()
for count in (3, 1):
    torch.testing.assert_close(model(pictures[:count]), wanted[:count])
assert "grootv" not in sys.modules
"""


def test_runs_in_a_fresh_process(tmp_path):
    model = grootv.GrootV(TINY["channels"], TINY["depths"], num_classes=7).eval()
    export(model, tmp_path / "model.pt2", 40)
    pictures = torch.randn(3, 3, 40, 40)
    torch.save((pictures, model(pictures).detach()), tmp_path / "wanted.pt")
    ran = subprocess.run([sys.executable, "-c", READER, tmp_path / "model.pt2", tmp_path / "wanted.pt"],
                         env=ENVIRONMENT | {"PYTHONPATH": ""}, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_name_of_the_file(tmp_path):
    with pytest.raises(ValueError, match="file must end in .pt2, got .*model.onnx"):
        export(grootv.GrootV(8, (1,)), tmp_path / "model.onnx")
