"""pytest-benchmark timings: `python -m pytest bench`. Ratios in one run: `python -m bench.ratios`."""

import pytest
import torch

from .cases import CASES

built = [make() for make in CASES]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("case", "who"), [(case, who) for case in built for who in ("treescan", *case.others)],
                         ids=lambda value: value if isinstance(value, str) else value.name)
def test_time(benchmark, case, who):
    benchmark.group = case.name
    benchmark(case.ours if who == "treescan" else case.others[who])
