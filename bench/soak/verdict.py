"""
Did a gateway grow, or keep something that it should have given back?

Rule 1: after the traffic everything is as it was before: nothing busy, nothing held, as many tasks and descriptors.
Rule 2: memory may grow by 1 MB in ten minutes. Measured is the slope of a line (least squares) through the resident
memory of each worker over the second half, once caches and pools have filled; in a run of less than five
minutes it is told but not judged, because a line through one minute of steps says nothing.
"""

from collections.abc import Iterator, Sequence

import attrs

from bench.soak.traffic import Heard
from bench.soak.watch import Sample

MOST_GROWTH = 1_000_000
"""Bytes in ten minutes."""
TEN_MINUTES = 600.0
LEAST_SECONDS = 300.0


@attrs.frozen
class Line:
    """A straight line through measurements."""

    slope: float
    level: float


@attrs.frozen
class Run:
    """``before`` is idle after a short warm-up, ``during`` one sample a second, ``after`` idle again."""

    seconds: float
    before: Sample
    during: Sequence[Sample]
    after: Sample
    heard: Heard
    faults: dict[str, int]
    """The provider's journal."""
    problems: Sequence[str]
    """What was wrong beside leaks: workers that were replaced, errors in the log, money still held."""


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """Least squares."""
    if len(points) < 2:
        return Line(0.0, points[0][1] if points else 0.0)
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / spread
    return Line(slope, y_mean - slope * x_mean)


def growth(run: Run, pid: int) -> float:
    """Bytes in ten minutes by which a worker grew over the second half."""
    late = [(sample.at, sample.workers[pid].rss) for sample in run.during if sample.at >= run.seconds / 2]
    return fit(late).slope * TEN_MINUTES


def broken(run: Run) -> Iterator[str]:
    """Each bound that does not hold, in words."""
    yield from run.problems
    yield from (f"a wrong answer: {wrong}" for wrong in run.heard.wrong[:5])
    before, after = run.before, run.after
    for name in ("busy", "in_flight", "holds", "backlog"):
        if getattr(after, name):
            yield f"{name}: {getattr(after, name)} left"
    if after.tasks != before.tasks:
        yield f"tasks: {after.tasks}, before {before.tasks}"
    if after.files() > before.files():
        yield f"descriptors: {after.files()}, before {before.files()}"
    if run.seconds >= LEAST_SECONDS:
        for pid in after.workers:
            if growth(run, pid) > MOST_GROWTH:
                yield f"memory of worker {pid} grows by {growth(run, pid) / 1e6:.2f} MB in ten minutes"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them is."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
