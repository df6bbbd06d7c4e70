"""Examples are run: the README's Python, its make targets, and every docstring's."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import treescan
import treescan.numpy  # which the README names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_readme_python(code):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["x"].grad.isfinite().all() and names["decay"].grad.abs().sum() > 0


def test_readme_make_targets():
    rules = re.findall(r"^([a-z-]+(?: [a-z-]+)*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_readme_links():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_readme_names():
    for name in re.findall(r"`treescan\.([A-Za-z0-9_.]+)", README):
        value = treescan
        for part in name.split("."):
            value = getattr(value, part)


MODULES = sorted(module.name for module in pkgutil.walk_packages(treescan.__path__, "treescan.")
                 if "__main__" not in module.name and not module.name.endswith("._C"))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    # A module's own names come first: treescan.numpy has functions of the same names.
    public = {"torch": torch, **vars(treescan), **vars(module)}
    outcome = doctest.testmod(module, extraglobs=public, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.failed == 0


def test_every_public_function_has_an_example_or_a_source():
    for name in treescan.__all__:
        value = getattr(treescan, name)
        if callable(value):
            assert value.__doc__ and len(value.__doc__) > 60, name
    for name in ("tree_scan", "edge_weights", "minimum_spanning_tree", "random_spanning_tree", "build_tree"):
        text = getattr(treescan, name).__doc__
        assert ">>>" in text and "Source:" in text and "Raises" in text and "O(B" in text, name
