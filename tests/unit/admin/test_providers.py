"""Do the pages of providers tell what is wrong, and ask before they act?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.routing import Cooldowns
from perpetuo.domain.ports import ProviderCall
from perpetuo.entrypoints.http.admin.providers import facts
from tests.unit.admin.conftest import READ_KEY, Desk


def call(outcome: str = "completed", code: str | None = None, latency: float = 1.0) -> ProviderCall:
    return ProviderCall(outcome, code, latency, None)


def test_the_last_hour_is_told_in_figures() -> None:
    """Failures by code, most frequent first; latencies of those that did not fail."""
    calls = [call(latency=float(n)) for n in range(1, 100)]
    calls += [call("failed", "upstream_error", 9_999.0)] * 2 + [call("truncated")] + [call("cancelled", latency=100.0)]
    hour = facts.recent(calls, 1_000)
    assert (hour["calls"], hour["failed"], hour["complete"]) == (103, 3, True)
    assert hour["failed_percent"] == 2.9
    assert hour["latency_ms"] == {"p50": 50.5, "p95": 95.05}
    assert hour["first_token_ms"] is None
    assert hour["errors"] == [{"code": "upstream_error", "count": 2}, {"code": "truncated", "count": 1}]


@given(st.lists(st.floats(0, 600_000), max_size=50))
def test_percentiles_lie_among_what_was_seen(latencies: list[float]) -> None:
    """Whatever there was, and nothing when there was nothing."""
    spread = facts.recent([call(latency=value) for value in latencies], 1_000)["latency_ms"]
    if not latencies:
        assert spread is None
    else:
        assert min(latencies) - 0.001 <= spread["p50"] <= spread["p95"] <= max(latencies) + 0.001


def test_cooldowns_of_a_provider_are_those_that_last() -> None:
    """By model for a 429, for all of it when the credential was refused; what has passed is not told."""
    found = Cooldowns({("one", "m"): 3_000_000, ("one", "old"): 900_000, ("two", "m"): 9_000_000}, {"one": 8_000_000})
    assert [(c["model"], c["reason"], c["seconds_left"]) for c in facts.cooldowns(found, "one", 1_000_000)] == [
        (None, "credential_refused", 7),
        ("m", "rate_limited", 2),
    ]


@pytest.mark.anyio
async def test_a_provider_has_a_page_with_its_history(desk: Desk) -> None:
    """What opened it, when and until when; and the same as JSON."""
    await desk.sign_in()
    board = desk.container.stores.breakers
    for _ in range(5):
        board.record("paid", Fault.CONNECT, generation=0, probe=None)
    await board.force("paid", open_for_us=None)
    page = await desk.page("/admin/providers/paid")
    assert "it could not be reached several times in a row" in page
    assert "by an operator" in page
    seen = await desk.api("providers/paid")
    assert [(c["state"], c["cause"]) for c in seen["history"]["items"]] == [
        ("closed", "operator"),
        ("open", "connect_failures"),
    ]
    assert seen["history"]["items"][1]["until"] is not None
    assert seen["models"] == ["away"]


@pytest.mark.anyio
async def test_the_list_tells_of_the_last_hour(desk: Desk) -> None:
    """Calls that ended there; worst provider first."""
    await desk.sign_in()
    await desk.call()
    await desk.call()
    found = {one["id"]: one for one in (await desk.api("providers"))["items"]}
    assert found["demo"]["hour"]["calls"] == 2
    assert found["demo"]["hour"]["latency_ms"]["p95"] > 0
    assert found["paid"]["hour"]["calls"] == 0
    assert "/admin/providers/demo" in await desk.page("/admin/providers")


@pytest.mark.anyio
async def test_a_breaker_is_opened_and_reset_by_a_page_that_asks_first(desk: Desk) -> None:
    """No script is needed: a link, a page that says what will happen, its button, and back with what was done."""
    await desk.sign_in()
    token = await desk.token()
    board = desk.container.stores.breakers
    for action, verb, state in (("open", "opened", "open"), ("close", "closed", "closed")):
        asked = await desk.page(f"/admin/providers/paid/{action}")
        assert 'name="back" value="provider"' in asked
        order = {"token": token, "provider": "paid", "back": "provider", "action": action, "seconds": "30"}
        answer = await desk.browser.post("/admin/breaker", data=order)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/admin/providers/paid")
        assert f"The breaker of paid was {verb} on all workers." in await desk.page(answer.headers["location"])
        assert board.view("paid").phase.value == state
    refused = await desk.browser.post("/admin/breaker", data={"provider": "paid", "action": "open", "seconds": "30"})
    assert refused.status_code == 403
    assert board.view("paid").phase.value == "closed"


@pytest.mark.anyio
async def test_who_may_only_read_sees_no_buttons(desk: Desk) -> None:
    """And a page that would act is refused."""
    await desk.sign_in(READ_KEY)
    assert "Open the breaker" not in await desk.page("/admin/providers/paid")
    assert (await desk.browser.get("/admin/providers/paid/open")).status_code == 403


@pytest.mark.anyio
async def test_what_is_not_there_is_404(desk: Desk) -> None:
    """A provider nobody configured, an action nobody can do."""
    await desk.sign_in()
    for path in ("nobody", "nobody/open", "paid/explode", "%3Cb%3E"):
        answer = await desk.browser.get(f"/admin/providers/{path}")
        assert answer.status_code == 404
        assert "<b>" not in answer.text
    assert (await desk.ask("providers/nobody")).status_code == 404


@pytest.mark.anyio
async def test_with_the_event_table_away_the_rest_is_told(blind_desk: Desk) -> None:
    """The breaker and its history do not need it."""
    await blind_desk.sign_in()
    await blind_desk.container.stores.breakers.force("paid", open_for_us=60_000_000)
    page = await blind_desk.page("/admin/providers/paid")
    assert "Not known now." in page
    assert "by an operator" in page
    assert "not known now" in await blind_desk.page("/admin/providers")
