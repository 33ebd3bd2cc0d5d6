"""Does the table of the benchmark say what was measured, and would a bad run be noticed?"""

from typing import Any

import attrs
import pytest

from bench.load import Measured
from bench.subjects import DIRECT, NGINX, PERPETUO
from bench.table import Line, added, cpu, once, ratios, spread, table, times_nginx, wrong

MANY = Measured(1_000, 2.0, 0, 5.0, 9.0)
ONE = Measured(500, 1.0, 0, 1.0, 2.0)


def line(who: str, case: str, cpu_us: float, **more: Any) -> Line:
    return Line(who, case, cpu_us, **{"measured": MANY, "one": ONE, "answers": 1_500, **more})


RUN = [
    line(DIRECT, "chat", 0.0, measured=Measured(9_000, 2.0, 0, 1.0, 2.0), one=Measured(9_000, 1.0, 0, 0.1, 0.5)),
    line(NGINX, "chat", 10.0),
    line(PERPETUO, "chat", 300.0, started=1.2345, rows=1_500, rss=104.4),
    line(PERPETUO, "replay", 150.0, rows=1),
    line("LiteLLM, master key (1.109.1)", "chat", 12_000.0),
    line("LiteLLM, rpm and tpm limits in Redis (1.109.1)", "chat", 99_000.0),
    line(NGINX, "chat", 20.0, one=None),
]


def test_nginx_counts_with_the_mean_of_its_runs() -> None:
    """Before and after; also for a case that only a gateway has."""
    assert cpu(RUN, NGINX, "chat") == 15.0
    assert times_nginx(RUN, RUN[2]) == 20.0
    assert times_nginx(RUN, RUN[3]) == 10.0
    assert times_nginx([line(PERPETUO, "chat", 300.0)], RUN[2]) is None
    assert spread(RUN) == "nginx's runs before and after, µs: chat 10.0 and 20.0."


def test_a_delay_is_what_the_direct_call_did_not_take() -> None:
    """Over one connection and over 64, where as many were used."""
    assert added(RUN, RUN[2], True) == "0.90 / 1.50"
    assert added(RUN, RUN[2], False) == "4.00 / 7.00"
    assert added(RUN, attrs.evolve(RUN[2], connections=4), False) == "–"
    assert added(RUN, attrs.evolve(RUN[2], case="stream"), True) == "–"


def test_the_table_has_each_subject_and_case_once() -> None:
    """And not the provider itself."""
    assert [(row.who, row.case) for row in once(RUN)].count((NGINX, "chat")) == 1
    rows = table(RUN).splitlines()
    assert len(rows) == 2 + 5
    assert rows[3] == (
        f"| {PERPETUO} | chat | 300 | 20.0 | 500 | 0.90 / 1.50 | 4.00 / 7.00 | 104 | 1.23 | 1,500 |"
    )  # fmt: skip


def test_a_ratio_is_judged_for_those_that_ran() -> None:
    """A 40th is not a 50th; Portkey was not there."""
    text = ratios(RUN)
    assert "at most 10 times nginx's plain proxy | 20.0 × | **no** |" in text
    assert "at most a 50th of LiteLLM's | 1/40.0 | **no** |" in text
    assert "Portkey" not in text
    reached = ratios([line(PERPETUO, "chat", 100.0), *RUN[3:]])
    assert "at most a 50th of LiteLLM's | 1/120.0 | yes |" in reached
    assert ratios(RUN[:2]) == ""


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"measured": attrs.evolve(MANY, wrong=3)}, "3 wrong"),
        ({"one": attrs.evolve(ONE, wrong=2)}, "2 wrong"),
        ({"measured": attrs.evolve(MANY, answers=0)}, "not one answer"),
        ({"rows": 1_499}, "only 1499 rows"),
    ],
)
def test_a_bad_run_is_noticed(bad: dict[str, Any], said: str) -> None:
    """Wrong answers, none at all, a row lost."""
    good = line(PERPETUO, "chat", 300.0, rows=1_500)
    assert wrong(good) is None
    assert said in (wrong(attrs.evolve(good, **bad)) or "")


def test_what_is_replayed_or_refused_has_no_rows_of_its_own() -> None:
    """Fewer rows than answers are right there."""
    assert wrong(line(PERPETUO, "replay", 150.0, rows=1)) is None
    assert wrong(line(PERPETUO, "refused", 150.0, rows=0)) is None
