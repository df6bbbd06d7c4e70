"""The registry under pytest-benchmark: `python -m pytest bench --benchmark-only`. Each call is checked, then timed."""

import functools

import pytest

from .cases import CASES
from .machine import set_threads

# Those of one case are neighbours, so only the last case's inputs are kept.
_inputs = functools.lru_cache(maxsize=1)(lambda case_index: CASES[case_index].inputs())


@pytest.mark.parametrize(("index", "who"), [(index, who) for index, case in enumerate(CASES) for who in case.calls],
                         ids=lambda value: CASES[value].name if isinstance(value, int) else value)
def test_time(benchmark, index, who):
    case = CASES[index]
    set_threads(1)
    run = case.ready(who, _inputs(index))
    benchmark.group = case.name
    set_threads(case.calls[who].threads)
    try:
        benchmark(run)
    finally:
        set_threads(1)
