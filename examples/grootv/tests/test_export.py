"""A trained classifier's exported file runs in a process that knows treescan alone."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from training import ENVIRONMENT, configuration, write_digits

import grootv
from grootv.classification import Classification
from grootv.engine import load_weights, train
from grootv.export import export, main

READER = """
import sys, torch, treescan
pictures, wanted = torch.load(sys.argv[2])
model = torch.export.load(sys.argv[1]).module()
for count in (3, 1):
    torch.testing.assert_close(model(pictures[:count]), wanted[:count])
assert "grootv" not in sys.modules
"""


def test_runs_in_a_fresh_process(tmp_path):
    config = configuration(write_digits(tmp_path / "digits", 4, 1), tmp_path / "run", epochs=None, iterations=1)
    train(Classification(config), config)
    config = replace(config, checkpoint=str(tmp_path / "run" / "checkpoint.pt"), output=str(tmp_path / "exported"))
    main(replace(config, data=None))  # the checkpoint tells the number of classes
    model = Classification(config).model().eval()
    load_weights(model, config)
    pictures = torch.randn(3, 3, 32, 32)
    torch.save((pictures, model(pictures).detach()), tmp_path / "wanted.pt")
    ran = subprocess.run([sys.executable, "-c", READER, tmp_path / "exported" / "model.pt2", tmp_path / "wanted.pt"],
                         env=ENVIRONMENT | {"PYTHONPATH": ""}, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("changes, message", [(dict(checkpoint=None), "checkpoint is missing"),
                                              (dict(checkpoint="/nowhere.pt"), "there is no checkpoint /nowhere.pt"),
                                              (dict(task="detection"), "only classification is exported, got task detection")])
def test_what_cannot_be_exported(tmp_path, changes, message):
    config = configuration(write_digits(tmp_path / "digits", 1, 1), tmp_path / "exported", **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main(config)


def test_name_of_the_file(tmp_path):
    with pytest.raises(ValueError, match="file must end in .pt2, got .*model.onnx"):
        export(grootv.GrootV(8, (1,)), tmp_path / "model.onnx")
