"""Does the page of one event say what the row says: all of it, in order, and nothing else?"""

import json
import re
from typing import Any

import attrs
import pytest

from perpetuo.domain.gateway.operate import AdminEvent
from perpetuo.domain.model.events import Event, Outcome
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.routing import Why
from perpetuo.entrypoints.http.admin.events.drawn import WHOLE, bars, parts
from perpetuo.entrypoints.http.admin.events.trace import DIED, FAILED, GIVEN_UP, SKIPPED, STARTS, time_of, trace_of
from tests.unit.admin.conftest import HOSTILE, Desk, Markup

ID = "019ac000-0000-7000-8000-0000000000{:02d}"


def attempt(provider: str, outcome: str, ms: float, **more: Any) -> dict[str, Any]:
    return {"provider": provider, "model": "x", "outcome": outcome, "status": 200, "sent": True, "ms": ms, **more}


DECISION = {
    "candidates": ["down/x", "shaky/x", "demo/x", "spare/x"],
    "skipped": [{"provider": "down", "model": "x", "why": "breaker_open"}],
    "rates": [{"scope": "acme", "limit": 100, "remaining": 97}],
    "budgets": [
        {"scope": "acme", "period": "day", "window": "2026-11-26", "limit": 1_000_000_000, "spent": 250_000_000,
         "held": 250_000_001},
        {"scope": "acme", "period": "month", "window": "2026-11", "limit": None, "spent": 3, "held": 5},
    ],
    "hold": 9_000, "max_tokens": 20, "max_tokens_reason": "budget", "kept": 2_000,
    "admit_ms": 2.0, "upstream_ms": 900.0, "after_ms": 98.0,
}  # fmt: skip
EVENT = Event(
    id=ID.format(1), occurred_at_us=1_795_651_200_000_000, tenant_id="acme", key_name="web", kind="chat", model="m",
    request_id="r-1", status=200, outcome="completed", provider="demo", upstream_model="x", stream=True,
    attempts=(
        attempt("shaky", "server_error", 100.0, status=500, start_ms=2.0),
        attempt("shaky", "timeout", 200.0, status=0, start_ms=152.0),
        attempt("demo", "success", 150.0, start_ms=352.0),
    ),
    decision=DECISION, cost_nano_usd=5_000, hold_nano_usd=9_000, latency_ms=1_000.0, first_token_ms=502.0,
    overhead_ms=50.0, input_tokens=3, output_tokens=4,
)  # fmt: skip
ABANDONED = attrs.evolve(
    EVENT, id=ID.format(2), attempts=(), decision={}, outcome="abandoned", status=0, provider=None, usage_basis="bound",
    error_code="abandoned", latency_ms=0.0, first_token_ms=None, overhead_ms=0.0, cost_nano_usd=9_000,
)  # fmt: skip


def test_every_reason_has_a_sentence() -> None:
    """Whatever routing skips for and an attempt can end with, and whatever is not success at the end of a stream."""
    assert set(SKIPPED) == {why.value for why in Why}
    assert set(FAILED) == {fault.value for fault in Fault}


def test_each_target_has_one_fate() -> None:
    """Skipped, failed, answered, or never needed."""
    found = {one["target"]: one for one in trace_of(EVENT)["targets"]}
    assert {name: one["fate"] for name, one in found.items()} == {
        "down/x": "skipped", "shaky/x": "failed", "demo/x": "answered", "spare/x": "not_needed",
    }  # fmt: skip
    assert found["shaky/x"]["attempts"] == [1, 2]
    assert found["down/x"]["why"] == SKIPPED["breaker_open"]
    assert found["shaky/x"]["why"] == FAILED["timeout"]
    gone = attrs.evolve(EVENT, attempts=EVENT.attempts[:2], outcome="failed")
    assert [one["fate"] for one in trace_of(gone)["targets"]] == ["skipped", "failed", "not_asked", "not_asked"]
    assert GIVEN_UP in trace_of(gone)["not_recorded"]
    assert GIVEN_UP not in trace_of(EVENT)["not_recorded"]


def test_attempts_say_how_they_came_about() -> None:
    """The first, one more at the same target, and one at another."""
    made = trace_of(EVENT)["attempts"]
    assert [one["how"] for one in made] == ["first", "again", "fallback"]
    assert [one["why"] for one in made] == [FAILED["server_error"], FAILED["timeout"], None]
    assert [one["status"] for one in made] == [500, None, 200]


@pytest.mark.parametrize("outcome", [o.value for o in Outcome if o not in {Outcome.COMPLETED, Outcome.ABANDONED}])
def test_a_stream_that_broke_is_no_success(outcome: str) -> None:
    """Its attempt began well; how it went on is said."""
    assert "began to answer" in trace_of(attrs.evolve(EVENT, outcome=outcome))["attempts"][-1]["why"]


def test_limits_are_as_the_admission_left_them() -> None:
    """Money to the last nano-USD; no limit is not a limit of 0."""
    rate, day, month = trace_of(EVENT)["limits"]
    assert (rate["used"], rate["allowed"], rate["left"], rate["percent"]) == (3, 100, 97, 3)
    assert (day["used"], day["held"], day["left"], day["percent"]) == ("0.25", "0.250000001", "0.499999999", 50)
    assert (month["allowed"], month["left"], month["percent"]) == (None, None, None)


def test_the_charge_is_told_apart_from_the_hold() -> None:
    """What failed attempts cost, what the answer did, and what went back."""
    paid = trace_of(EVENT)["money"]
    assert (paid["held_usd"], paid["charged_usd"], paid["given_back_usd"]) == ("0.000009", "0.000005", "0.000004")
    assert (paid["for_failed_attempts_usd"], paid["for_the_answer_usd"]) == ("0.000002", "0.000003")
    more = trace_of(attrs.evolve(EVENT, cost_nano_usd=10_000))["money"]
    assert (more["more_than_held"], more["given_back_usd"]) == (True, "-0.000001")


def test_parts_of_the_time_add_up_to_the_latency() -> None:
    """The pause follows from what is the gateway's own; streaming is what attempts do not have of the providers'."""
    told = {one["part"]: one["ms"] for one in time_of(EVENT)["parts"]}
    assert told == {"admission": 2.0, "providers": 450.0, "pause": 50.0, "stream": 450.0, "gateway": 48.0}
    assert sum(told.values()) == EVENT.latency_ms


def test_steps_are_in_order_and_have_the_pauses_between_them() -> None:
    """From the admission to the end."""
    steps = trace_of(EVENT)["steps"]
    assert [(one["step"], one["start_ms"], one["ms"]) for one in steps] == [
        ("admission", 0.0, 2.0), ("attempt", 2.0, 100.0), ("between", 102.0, 50.0), ("attempt", 152.0, 200.0),
        ("attempt", 352.0, 150.0), ("stream", 502.0, 450.0), ("end", 952.0, 48.0),
    ]  # fmt: skip


def test_an_older_row_says_less_and_that_it_does() -> None:
    """No start is made up, but for the last one's, which follows from the first token."""
    old = attrs.evolve(
        EVENT, attempts=tuple({k: v for k, v in a.items() if k != "start_ms"} for a in EVENT.attempts)
    )  # fmt: skip
    trace = trace_of(old)
    assert [one["start_ms"] for one in trace["steps"]] == [0.0, None, None, 352.0, 502.0, 952.0]
    assert STARTS in trace["not_recorded"]
    assert STARTS not in trace_of(EVENT)["not_recorded"]


def test_a_row_of_a_dead_worker_says_that_there_is_nothing() -> None:
    """No zeros where nothing is known."""
    trace = trace_of(ABANDONED)
    assert trace["not_recorded"] == [DIED]
    assert (trace["targets"], trace["attempts"], trace["limits"], trace["steps"]) == ([], [], [], [])
    assert trace["time"]["parts"] == []
    assert trace["money"]["charged_usd"] == "0.000009"


def test_bars_stay_within_the_line() -> None:
    """Whatever times a row has, also none; the shortest can still be seen."""
    steps = trace_of(EVENT)["steps"]
    for total in (0.0, 10.0, 1_000.0, 5_000.0):
        for bar in bars(steps, total):
            assert 0 <= bar["x"] <= bar["x"] + bar["width"] <= WHOLE
            assert bar["width"] > 0
    assert bars([], 0.0) == []
    assert parts([{"part": "admission", "ms": 0.0}]) == []


# --- the page ------------------------------------------------------------------------------------


async def stored(desk: Desk, *events: Event) -> None:
    await desk.container.store.write([AdminEvent(json.dumps(attrs.asdict(event)).encode()) for event in events])


@pytest.mark.anyio
async def test_a_page_shows_the_trace_and_the_api_has_it(desk: Desk) -> None:
    """The same facts, in words and as JSON; nothing inline, and every table has a caption and headings."""
    await desk.sign_in()
    await stored(desk, EVENT, ABANDONED)
    page = await desk.page(f"/admin/events/{EVENT.id}")
    for said in (
        "Attempt 3, fallback",
        "asked again",
        "Pause: until",
        "breaker was open",
        "not needed",
        "$0.499999999",
    ):
        assert said in page
    assert Markup(page).inline == []
    assert page.count("<table") == page.count("<caption") == 3
    assert len(re.findall(r"<h1", page)) == 1
    trace = (await desk.api(f"events/{EVENT.id}"))["trace"]
    assert trace == json.loads(json.dumps(trace_of(EVENT)))
    died = await desk.page(f"/admin/events/{ABANDONED.id}")
    assert "the worker that had the call died" in died
    assert "No attempt was made" in died


@pytest.mark.anyio
async def test_s7_html_in_a_row_is_text(desk: Desk) -> None:
    """Wherever a name of a caller, a provider or a code can stand."""
    decision = {
        **DECISION,
        "candidates": [f"{HOSTILE}/x"],
        "skipped": [{"provider": HOSTILE, "model": HOSTILE, "why": HOSTILE}],
        "rates": [{"scope": HOSTILE, "limit": 1, "remaining": 0}],
        "max_tokens_reason": HOSTILE,
    }
    hostile = attrs.evolve(
        EVENT, id=ID.format(3), tenant_id=HOSTILE, key_name=HOSTILE, model=HOSTILE, tag=HOSTILE, provider=HOSTILE,
        error_code=HOSTILE, outcome=HOSTILE, decision=decision, usage_basis=HOSTILE, request_id=HOSTILE,
        attempts=({**attempt(HOSTILE, HOSTILE, 1.0), "model": HOSTILE},), price_version=HOSTILE, budget_day=HOSTILE,
    )  # fmt: skip
    acted = attrs.evolve(
        EVENT, id=ID.format(4), kind="admin", provider=HOSTILE,
        decision={"action": "breaker_open", "actor": HOSTILE, "before": HOSTILE, "open_for_s": 5, "reason": HOSTILE},
    )  # fmt: skip
    await desk.sign_in()
    await stored(desk, hostile, acted)
    for event in (hostile, acted):
        page = await desk.page(f"/admin/events/{event.id}")
        assert "&lt;img src=x" in page
        assert "<img src=x" not in page
        assert Markup(page).inline == []


@pytest.mark.anyio
async def test_an_action_is_a_table_of_before_and_after(desk: Desk) -> None:
    """A breaker and a raised budget; what a row does not say is said to be missing."""
    await desk.sign_in()
    await desk.ask("breaker", provider="paid", action="open", seconds=300)
    for amount in ("2", "3"):
        answer = await desk.ask("budget/raise", tenant="acme", usd=amount, window="day", until="1h", reason="a launch")
        assert answer.status_code == 200, answer.text
    await desk.ask("budget/adjust", tenant="acme", usd="1.5", reason="a mistake")
    await desk.written()
    changes = [(await desk.api(f"events/{one['id']}"))["change"] for one in (await desk.api("events"))["items"]]
    adjusted, second, first, opened = changes
    assert opened["rows"] == [{"what": "Breaker of paid", "before": "closed", "after": "open for 5 min"}]
    assert [first["rows"][0][when] for when in ("before", "after")] == ["1 USD", "3 USD"]
    assert [second["rows"][0][when] for when in ("before", "after")] == ["3 USD", "6 USD"]
    assert adjusted["rows"][0]["before"] is None
    assert adjusted["rows"][0]["after"] == "1.5 USD more"
    for one in (await desk.api("events"))["items"]:
        page = await desk.page(f"/admin/events/{one['id']}")
        assert "<caption" in page
        assert "PERPETUO_ADMIN_KEY" in page
