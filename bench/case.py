"""What a comparison is: inputs, the calls that work on them, and the bar that one of them has to meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Call:
    """One way to do the work.

    `prepare(inputs)` brings the inputs into the form that this way likes best, which isn't timed, and returns a function
    without arguments, which is. `check(inputs, result)` raises AssertionError if the result is wrong; it runs before
    anything is timed, and no call goes without.
    """

    prepare: Callable[[object], Callable[[], object]]
    check: Callable[[object, object], None]
    threads: int = 1


@dataclass(frozen=True)
class Bar:
    """What a case must show. `limit` bounds the time of the call `of` as a multiple of the time of `against`, or, with
    `faster`, is how many times faster it must be at least. Without `against` it is a time in microseconds."""

    work: str  # the row of the table
    of: str
    against: str | None
    limit: float
    faster: bool = False
    aim: float | None = None  # what would be better still
    guarded: bool = True  # whether `make test` holds half of it, in the cases that it looks at

    def measure(self, seconds: dict[str, float]) -> float:
        if self.against is None:
            return 1e6 * seconds[self.of]
        ours, theirs = seconds[self.of], seconds[self.against]
        return theirs / ours if self.faster else ours / theirs

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.faster else value <= self.limit

    @property
    def text(self) -> str:
        if self.against is None:
            return f"≤ {self.limit:g} µs"
        return f"≥ {self.limit:g} × faster than {self.against}" if self.faster else f"≤ {self.limit:g} × {self.against}"

    @property
    def unit(self) -> str:
        return " µs" if self.against is None else " ×"


@dataclass(frozen=True)
class Case:
    """One piece of work on one input, done in several ways. The first of `calls` is treescan's."""

    name: str
    inputs: Callable[[], object]
    calls: dict[str, Call]
    bars: tuple[Bar, ...] = ()
    guarded: bool = False  # whether `make test` looks at it, with half the bar
    bytes_moved: int = 0  # that the work must read and write at least, where memory is the limit
    absent: dict[str, str] = field(default_factory=dict)  # peers that can't be measured here, and why

    def ready(self, who: str, inputs: object) -> Callable[[], object]:
        """The call `who`, prepared and found right."""
        call = self.calls[who]
        run = call.prepare(inputs)
        call.check(inputs, run())
        return run
