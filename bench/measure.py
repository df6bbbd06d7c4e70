"""Times the calls of a case in turns, so that what else the machine does hits all alike."""

from dataclasses import dataclass
from statistics import median
from time import perf_counter

from .case import Bar, Case
from .machine import set_threads

_SHORTEST = 100e-6  # what is timed in one piece, so that the clock's own cost doesn't count
_IN_A_ROW = 7  # pieces in a turn; their median is taken, so that each call finds its own data in the cache


class _Timer:
    def __init__(self, run, threads: int):
        self.run, self.threads, self.times = run, threads, 1
        set_threads(threads)
        run()
        once = self._piece()
        self.times = max(int(_SHORTEST / once), 1)
        # A long call fills the cache by itself.
        self.in_a_row = _IN_A_ROW if once < 0.02 else 3 if once < 0.1 else 1
        self.seconds_a_turn = once * self.times * self.in_a_row

    def _piece(self) -> float:
        run = self.run
        start = perf_counter()
        for _ in range(self.times):
            run()
        return (perf_counter() - start) / self.times

    def turn(self) -> float:
        set_threads(self.threads)
        if self.threads > 1:
            self.run()  # wakes them
        return median(self._piece() for _ in range(self.in_a_row))


def seconds(case: Case, who=None, budget: float = 2.0, most: int = 21) -> dict[str, float]:
    """The median time of each call, over as many turns as fit into `budget` seconds: 3 to `most`."""
    inputs = case.inputs()
    set_threads(1)
    timers = {name: _Timer(case.ready(name, inputs), case.calls[name].threads) for name in who or case.calls}
    a_round = sum(timer.seconds_a_turn for timer in timers.values())
    rounds = min(max(int(budget / a_round), 3), most)
    turns = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            turns[name].append(timer.turn())
    set_threads(1)
    return {name: median(taken) for name, taken in turns.items()}


@dataclass(frozen=True)
class Outcome:
    """One row of the table of bars."""

    work: str
    case: str
    bar: str
    value: float
    unit: str
    met: bool

    @classmethod
    def of(cls, case: Case, bar: Bar, taken: dict[str, float]) -> "Outcome":
        value = bar.measure(taken)
        return cls(bar.work, f"{case.name}, {bar.of}", bar.text, value, bar.unit, bar.met_by(value))
