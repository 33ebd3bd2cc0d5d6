"""Is a search answered as it was meant, and does one that finds nothing say why?"""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.entrypoints.http.admin.events.asked import instant_us
from tests.unit.admin.conftest import ADMIN_KEY, Desk

NOW_US = 1_800_000_000_000_000


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("30s", NOW_US - 30_000_000),
        ("2h", NOW_US - 7_200_000_000),
        ("7d", NOW_US - 604_800_000_000),
        ("999999d", 0),
        ("2026-11-26", 1_795_651_200_000_000),
        ("2026-11-26T10:30", 1_795_689_000_000_000),
        ("2026-11-26T10:30Z", 1_795_689_000_000_000),
        ("2026-11-26T11:30+01:00", 1_795_689_000_000_000),
        ("2026-11-26T11:30 01:00", 1_795_689_000_000_000),
    ],
)
def test_an_instant_is_iso_or_how_long_ago(text: str, us: int) -> None:
    """Without a zone it is UTC; a plus sign that was not escaped is a space in an address."""
    assert instant_us(text, NOW_US) == us


@given(st.text(max_size=30))
def test_no_text_is_more_than_wrong(text: str) -> None:
    """A sentence, never another error."""
    try:
        instant_us(text, NOW_US)
    except ValueError as error:
        assert "must be an instant" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.anyio
async def test_tag_kind_and_time_are_filters(desk: Desk) -> None:
    """Each alone finds its own and nothing else."""
    await desk.call(**{"x-perpetuo-tag": "nightly"})
    await desk.call()
    await desk.ask("breaker", ADMIN_KEY, provider="demo", action="close")
    assert [e["kind"] for e in (await desk.api("events?kind=admin"))["items"]] == ["admin"]
    assert [e["kind"] for e in (await desk.api("events?kind=call"))["items"]] == ["chat", "chat"]
    assert len((await desk.api("events?tag=nightly&kind=chat"))["items"]) == 1
    assert len((await desk.api("events?since=1h"))["items"]) == 3
    year = datetime.now(UTC).year
    assert (await desk.api(f"events?since={year + 1}-01-01"))["items"] == []
    assert (await desk.api(f"events?until={year - 1}-01-01"))["items"] == []
    assert len((await desk.api("events?limit=2"))["items"]) == 2


@pytest.mark.anyio
async def test_nothing_found_says_what_is_in_the_way(desk: Desk) -> None:
    """The filter without which there would be something is named; nothing is suggested that would not help."""
    assert "no event yet" in (await desk.api("events"))["hint"]
    await desk.call()
    hint = (await desk.api("events?tenant_id=acme&status=502"))["hint"]
    assert hint == "Nothing matches. Without the status there would be something."
    both = (await desk.api("events?tenant_id=none&status=502"))["hint"]
    assert "more than one filter" in both
    assert "among the refusals" in (await desk.api("events?request_id=none"))["hint"]
    assert "`until` is not after `since`" in (await desk.api("events?since=1h&until=2h"))["hint"]
    assert (await desk.api("events"))["hint"] is None
    await desk.sign_in()
    assert "Without the status there would be something." in await desk.page("/admin/events?tenant_id=acme&status=502")


@pytest.mark.anyio
async def test_a_page_says_what_it_did_not_understand(desk: Desk) -> None:
    """The filter is left out, but not without a word; then there is no export either, which would take all."""
    await desk.call()
    await desk.sign_in()
    page = await desk.page("/admin/events?since=soon&tenant_id=acme")
    assert "Since must be an instant such as" in page
    assert "This filter was left out." in page
    assert "/admin/events/export" not in page
    assert "format=csv" in await desk.page("/admin/events?tenant_id=acme")


@pytest.mark.anyio
async def test_a_refusal_is_found_by_its_request_id_or_it_is_said_why_not(desk: Desk) -> None:
    """Only the first of each minute is kept with its id."""
    refused = await desk.call(model="away-from-here")
    first = refused.headers["x-request-id"]
    items = (await desk.api(f"refusals?request_id={first}"))["items"]
    assert [(one["request_id"], one["reason"]) for one in items] == [(first, "model_not_found")]
    assert (await desk.api("refusals?tenant_id=acme&reason=model_not_found"))["items"] == items
    assert (await desk.api("refusals?reason=rate_limit_exceeded"))["items"] == []
    assert "only the first of each minute" in (await desk.api("refusals?request_id=another"))["hint"]
    assert (await desk.ask("refusals?since=soon")).json()["error"]["param"] == "since"
    assert (await desk.ask("refusals?reason=because")).json()["error"]["param"] == "reason"
    await desk.sign_in()
    assert first in await desk.page(f"/admin/refusals?request_id={first}")
    assert "only the first of each minute" in await desk.page("/admin/refusals?request_id=another")
    assert "Since must be an instant" in await desk.page("/admin/refusals?since=soon")
