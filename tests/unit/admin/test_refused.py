"""Is it told which limit refused a call, and whose answer a replay was?"""

from pathlib import Path

import pytest

from tests.unit.admin.conftest import CONFIG, TENANT_KEY, Desk, open_desk

pytestmark = pytest.mark.anyio


def one_a_minute(environ: dict[str, str]) -> dict[str, str]:
    Path(environ["PERPETUO_CONFIG_PATH"]).write_text(CONFIG.replace("rateLimitMin: 100", "rateLimitMin: 1"))
    return environ


async def test_the_limit_that_said_no_is_told(environ: dict[str, str]) -> None:
    """Which one, whose, how full it was, and when to try again; on the page in words."""
    desk = await open_desk(one_a_minute(environ))
    try:
        assert [(await desk.call()).status_code for _ in range(2)] == [200, 429]
        (row,) = (await desk.api("refusals"))["items"]
        assert row["limit"] == {
            "limit": "requests_per_minute", "scope": "acme", "used": 1, "allowed": 1, "window": None, "held": None,
            "needed": None,
        }  # fmt: skip
        assert 0 < row["retry_after_ms"] <= 60_000
        await desk.sign_in()
        page = await desk.page("/admin/refusals")
        assert "Requests a minute of acme:" in page
        assert "Retry after" in page
    finally:
        await desk.close()


async def test_a_budget_that_said_no_is_told_in_dollars(desk: Desk) -> None:
    """What was spent, what was held, and the least that the call needed: exact, and never rounded."""
    await desk.ask("budget/adjust", tenant="acme", usd="0.999999999", reason="nearly all of it")
    assert (await desk.call()).status_code == 403
    (row,) = (await desk.api("refusals"))["items"]
    assert row["reason"] == "budget_exceeded"
    limit = row["limit"]
    assert (limit["limit"], limit["scope"], limit["used"]) == ("budget_day_usd", "acme", "0.999999999")
    assert (limit["held"], limit["allowed"]) == ("0", "1")
    assert float(limit["needed"]) > 0
    await desk.sign_in()
    assert "$0.999999999 of $1; it needed $" in await desk.page("/admin/refusals")


async def test_a_refusal_without_a_limit_has_none(desk: Desk) -> None:
    """Nothing is made up."""
    assert (await desk.call(model="nothing")).status_code == 404
    (row,) = (await desk.api("refusals"))["items"]
    assert (row["limit"], row["retry_after_ms"], row["original_event"]) == (None, None, None)


async def test_a_replay_leads_to_the_call_whose_answer_it_is(desk: Desk) -> None:
    """By that call's event, also with another request id."""
    first = await desk.call(TENANT_KEY, **{"x-idempotency-key": "k-1", "x-request-id": "the-first"})
    again = await desk.call(TENANT_KEY, **{"x-idempotency-key": "k-1", "x-request-id": "the-second"})
    assert (first.status_code, again.headers["x-perpetuo-idempotency"]) == (200, "replayed")
    (row,) = (await desk.api("refusals"))["items"]
    event = await desk.api(f"events/{row['original_event']}")
    assert (row["reason"], event["request_id"]) == ("replayed", "the-first")
    await desk.sign_in()
    assert f'href="/admin/events/{event["id"]}"' in await desk.page("/admin/refusals?request_id=the-second")
