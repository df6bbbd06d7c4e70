"""What the README shows runs: its Python, and the modules, configurations, keys and files that it names."""

import importlib.util
import re
from pathlib import Path

import pytest

from grootv.config import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    if "logits" in names:
        assert names["logits"].shape == (1, 1000) and [stage.shape[2:] for stage in names["stages"]] == [
            (16, 24), (8, 12), (4, 6), (2, 3)]


def test_commands():
    modules = set(re.findall(r"-m (grootv\.\w+)", README))
    assert {"grootv.train", "grootv.evaluate", "grootv.pictures", "grootv.demo"} <= modules
    for module in modules:
        assert importlib.util.find_spec(module), module


def test_configurations_and_keys():
    configurations = set(re.findall(r"configs/[\w/]+\.yaml", README))
    assert configurations
    assert all((ROOT / folder).is_dir() for folder in re.findall(r"configs/[a-z]+(?=[/`])", README))
    overrides = set(re.findall(r"(?<=[ `])[a-z][a-z_.]*=[\w./-]+", README.replace('"', ""))) - {"trees=stage", "topology=raster"}
    assert {"optimizer.lr=1e-3", "resume=true", "parallel=fsdp2"} <= overrides
    for configuration in configurations:
        load_config(ROOT / configuration, sorted(override for override in overrides if not override.endswith("_only=True")
                                                 and not override.startswith(("num_classes", "backbone_checkpoint"))))


def test_files_and_links():
    for name in re.findall(r"`(\w+\.py)`", README):
        assert (ROOT / "grootv" / name).exists(), name
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
