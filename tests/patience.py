"""
How long may something take in a test, on a machine that has other things to do?

A test that waits for something waits for `PATIENCE`: where it comes about that costs nothing, and two busy cores may
take ten times as long as two quiet ones. Where a promise names a time (back within 5 s), the product has to keep it,
and a machine can only make it look slower: so `best` measures a few times, and one that is kept is enough. A machine
that takes ten times as long for everything would never keep it: where a time was missed, `slowness` says what a second
is worth there.
"""

import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

PATIENCE = 30.0
ROUNDS = 4
_WORK, _QUIET_SECONDS = 3_000_000, 0.2
"""Squares that are added up, and how long that takes on two quiet cores of the machine that the figures are from."""


def best(promised: float, measure: Callable[[], float], rounds: int = ROUNDS) -> None:
    """``measure``, which returns seconds, is repeated until it kept what was promised, at most ``rounds`` times."""
    judge = _Judge(promised, rounds)
    while judge.goes_on():
        judge.took(measure())
    judge.decide()


async def best_of(promised: float, measure: Callable[[], Awaitable[float]], rounds: int = ROUNDS) -> None:
    """The same in an event loop."""
    judge = _Judge(promised, rounds)
    while judge.goes_on():
        judge.took(await measure())
    judge.decide()


class _Judge:
    """What was measured, each in seconds of a quiet machine, if it was too long in those of this one."""

    def __init__(self, promised: float, rounds: int) -> None:
        self._promised, self._rounds = promised, rounds
        self._seen: list[tuple[float, float]] = []

    def goes_on(self) -> bool:
        return len(self._seen) < self._rounds and self._least() > self._promised

    def took(self, seconds: float) -> None:
        self._seen.append((seconds, 1.0 if seconds <= self._promised else slowness()))

    def decide(self) -> None:
        print(f"promised: {self._promised} s, measured, and how slow it is here:", self._seen)
        assert self._least() <= self._promised, self._seen

    def _least(self) -> float:
        return min((seconds / slower for seconds, slower in self._seen), default=math.inf)


def slowness() -> float:
    """How many times as long as on a quiet machine does work take here and now? At least 1."""
    began = time.perf_counter()
    sum(number * number for number in range(_WORK))
    return max(1.0, (time.perf_counter() - began) / _QUIET_SECONDS)


def waited_for_cpu() -> float:
    """Seconds since its start in which something on this machine waited for a core; 0 where no kernel tells."""
    try:
        return int(Path("/proc/pressure/cpu").read_text().partition("total=")[2].split()[0]) / 1e6
    except OSError:
        return 0.0
