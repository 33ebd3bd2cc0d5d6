"""Would the guard on CPU per call notice a call that costs twice as much, and nothing else?"""

import json
from typing import Any

import attrs
import pytest

from bench.smoke import CASES, GUARD, RULERS, Guard, Round, ratio, regressions, told

USUAL = Round(nginx=20.0, python=25.0, chat=300.0, stream=600.0)
EXPECTED = Guard(ruler="python", margin=1.5, ratios={"chat": 12.0, "stream": 24.0})


def rounds(*changes: dict[str, Any]) -> list[Round]:
    return [attrs.evolve(USUAL, **change) for change in changes]


def test_the_guard_lets_pass_what_is_expected() -> None:
    """Also when the whole machine is slower, and when a neighbour spoils all rounds but one, on either side."""
    assert regressions(rounds({}, {}, {}), EXPECTED) == []
    slow = Round(nginx=60.0, python=75.0, chat=900.0, stream=1_800.0)
    assert regressions([slow] * 3, EXPECTED) == []
    assert regressions(rounds({"chat": 9_000.0}, {}, {"chat": 9_000.0, "python": 60.0}), EXPECTED) == []


@pytest.mark.parametrize("case", CASES)
def test_the_guard_notices_a_call_that_costs_twice_as_much(case: str) -> None:
    """And says which, and what to do if it was meant."""
    twice = {case: getattr(USUAL, case) * 2}
    (problem,) = regressions(rounds(twice, twice, twice), EXPECTED)
    assert problem.startswith(f"{case} costs")
    assert "2.00 times the expected" in problem
    assert "--record" in problem


def test_the_guard_shows_both_rulers_and_which_one_judges() -> None:
    """Four lines, two with a bound."""
    lines = told(rounds({}, {}), EXPECTED).splitlines()
    assert len(lines) == len(CASES) * len(RULERS)
    assert lines[1] == "chat / python: 12.00, expected 12.00, at most 18.00"
    assert [line for line in lines if "expected" in line] == [line for line in lines if "/ python" in line]


def test_the_guard_that_is_written_down_can_notice_a_doubling() -> None:
    """A margin of two or more would let one pass."""
    guard = Guard(**json.loads(GUARD.read_text()))
    assert guard.ruler in RULERS
    assert 1.0 < guard.margin < 2.0
    assert set(guard.ratios) == set(CASES)
    assert ratio([USUAL], "chat", "nginx") == 15.0
