"""What the tests share: fixed seeds, and torch on one thread unless a test says otherwise."""

import hypothesis
import pytest
import torch

# The same examples on every run, and no time limit per example: the machine is shared.
hypothesis.settings.register_profile("treescan", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("treescan")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
