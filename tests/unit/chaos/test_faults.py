"""The neighbour's plan, and what a client makes of an answer."""

from collections.abc import Mapping

import pytest

from tests.chaos import wire
from tests.chaos.faults import HAND, LOSSY, STORMS, plan
from tests.chaos.stage import Stage
from tests.unit.chaos.sample import asked

SSE = {"Content-Type": "text/event-stream"}
TEXT = b"".join(
    b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % piece for piece in (b"c1 canary-acme-r1", b" x")
)
DONE = b"data: [DONE]\n\n"
ERROR = b'{"error": {"message": "no", "type": "upstream_error", "param": null, "code": "boom", "source": "gateway"}}'


def test_the_same_seed_is_the_same_plan() -> None:
    """Also a longer one, as far as they both go; another seed is another."""
    assert plan(7, 60) == plan(7, 60)
    assert [hand[:5] for hand in plan(7, 600)[:2]] == [hand[:5] for hand in plan(7, 60)[:2]]
    assert plan(8, 60) != plan(7, 60)


@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_have_every_kind_of_fault(seed: int) -> None:
    """Each several times; a lossy run also throws Redis's data away; none begins at the very end."""
    processes, provider, stops = plan(seed, 600)
    assert {planned.what for planned in processes} == set(HAND)
    assert {planned.what for planned in provider} == set(STORMS)
    assert {planned.what for planned in plan(seed, 600, LOSSY)[0]} == set(LOSSY)
    assert all(2 <= planned.at < 540 for planned in (*processes, *provider, *stops))
    assert len(stops) >= 3
    assert all(planned.seconds > 30 for planned in stops)


def test_limits_only_ever_rise() -> None:
    """So that what can have been allowed at a moment is known."""
    stages = [Stage("http://127.0.0.1:9/v1", raised) for raised in range(5)]
    for one in ("rate", "key_rate", "budget"):
        values = [getattr(stage, one) for stage in stages]
        assert values == sorted(set(values))


@pytest.mark.parametrize(
    ("status", "headers", "body", "what", "code"),
    [
        (200, {}, b'{"choices":[{"message":{"content":"c1 canary-acme-r1 x"}}]}', "ok", None),
        (200, SSE, TEXT + DONE, "ok", None),
        (200, SSE, TEXT, "lost", None),
        (200, SSE, TEXT + b"data: " + ERROR + b"\n\n", "fail", "boom"),
        (502, {}, ERROR, "fail", "boom"),
        (500, {}, b"Internal Server Error", "fail", None),
        (200, {}, b"half of it", "lost", None),
    ],
)
def test_what_a_client_makes_of_an_answer(
    status: int, headers: Mapping[str, str], body: bytes, what: str, code: str | None
) -> None:
    """Whole, in an error, cut short, or nothing that the contract knows."""
    answered = wire.told(asked("r1", 0), status, headers.items(), body)
    assert (answered.what, answered.code, answered.status) == (what, code, status)
    if what == "ok":
        assert (answered.call, answered.said, answered.canaries) == ("c1", "canary-acme-r1", ("acme",))
