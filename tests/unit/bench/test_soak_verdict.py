"""Would the verdict on a soak notice what it is for?"""

from typing import Any

import attrs
import pytest

from bench.soak.traffic import Heard
from bench.soak.verdict import Run, broken, fit, growth, quantile
from bench.soak.watch import Sample, Worker

REST = Sample(
    at=0.0, workers={1: Worker(100_000_000, 30), 2: Worker(90_000_000, 31)}, tasks=(15, 15), busy=0, idle=0,
    in_flight=0, holds=0, backlog=0,
)  # fmt: skip


def run(after: Sample = REST, seconds: float = 600.0, per_second: float = 0.0, **more: Any) -> Run:
    """A run in which worker 2 grows after an uneven first half."""
    during = []
    for second in range(int(seconds)):
        early = 5_000_000 if second < seconds / 2 else 0
        worker = Worker(int(90_000_000 - early + per_second * second + 4_096 * (second % 7)), 60)
        during.append(attrs.evolve(REST, at=float(second), workers={1: Worker(100_000_000, 50), 2: worker}, busy=9))
    whole: dict[str, Any] = {"heard": Heard(), "faults": {}, "problems": (), **more}
    return Run(seconds, REST, during, after, **whole)


def test_a_run_that_leaves_nothing_is_fine() -> None:
    """Also when it was in use in between, and grew in the first half."""
    assert list(broken(run())) == []


@pytest.mark.parametrize("name", ["busy", "in_flight", "holds", "backlog"])
def test_o4_one_that_is_left_is_noticed(name: str) -> None:
    """A slot, a call, a hold, an event."""
    left: dict[str, Any] = {name: 1}
    (problem,) = broken(run(attrs.evolve(REST, **left)))
    assert problem == f"{name}: 1 left"


@pytest.mark.parametrize("tasks", [(15, 16), (15,), (14, 15)])
def test_o4_another_number_of_tasks_is_noticed(tasks: tuple[int, ...]) -> None:
    """One more, or a worker less."""
    assert any("tasks" in problem for problem in broken(run(attrs.evolve(REST, tasks=tasks))))


def test_o4_a_descriptor_more_is_noticed_and_one_less_is_fine() -> None:
    """A store's connection may have been closed."""
    more = attrs.evolve(REST, workers={**REST.workers, 1: Worker(100_000_000, 31)})
    less = attrs.evolve(REST, workers={**REST.workers, 1: Worker(100_000_000, 29)})
    assert any("descriptors" in problem for problem in broken(run(more)))
    assert list(broken(run(less))) == []


def test_o4_a_worker_that_grows_is_noticed() -> None:
    """2 kB a second are 1.2 MB in ten minutes; 1.5 kB are 0.9."""
    assert any("memory of worker 2" in problem for problem in broken(run(per_second=2_000)))
    assert list(broken(run(per_second=1_500))) == []
    assert list(broken(run(per_second=2_000, seconds=60))) == []


def test_what_clients_heard_and_the_log_count_too() -> None:
    """Each in words."""
    assert list(broken(run(heard=Heard(wrong=["x"])))) == ["a wrong answer: x"]
    assert list(broken(run(problems=["a worker died"]))) == ["a worker died"]


def test_the_line_is_that_of_least_squares() -> None:
    """Through noise, and over the second half only."""
    assert fit([(0, 1), (1, 3), (2, 2), (3, 4)]).slope == pytest.approx(0.8)
    assert growth(run(per_second=1_000), 2) == pytest.approx(600_000, rel=0.01)
    assert growth(run(), 1) == 0


def test_quantiles_are_values_that_were_seen() -> None:
    """The one below which the share is."""
    assert (quantile([3, 1, 2], 0.5), quantile([1.0] * 99 + [9.0], 0.99), quantile([], 0.5)) == (2, 9, 0)
