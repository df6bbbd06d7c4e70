"""What the tests share: fixed seeds, and the devices that they run on."""

import hypothesis
import pytest
import torch

import treescan

# The same examples on every run, and no time limit per example: the machine is shared.
hypothesis.settings.register_profile("treescan", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("treescan")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


DEVICES = ["cpu"] + ["cuda"] * (torch.cuda.is_available() and "cuda" in treescan.build_info()["backends"])


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    """Runs a module's tests once for each device, which is torch's default one meanwhile."""
    if request.param == "cpu":  # as it is anyway; torch would make every call slower
        yield request.param
    else:
        with torch.device(request.param):
            yield request.param
