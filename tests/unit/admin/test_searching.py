"""Is a search answered as it was meant, and does one that finds nothing say why?"""

import html
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.system import uuid7
from perpetuo.domain.model.events import Event
from perpetuo.entrypoints.http.admin.events.asked import instant_us
from perpetuo.entrypoints.http.admin.refusals.around import around
from tests.contract.event_store_contract import event, sent
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
async def test_nothing_found_says_what_is_in_the_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter without which there would be something is named; nothing is suggested that would not help."""
    for name in ("SEARCH_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(f"perpetuo.entrypoints.http.admin.events.look.{name}", 10.0)  # this is not about time
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


@pytest.mark.anyio
@pytest.mark.usefixtures("within_a_minute")
async def test_a_request_id_in_vain_says_when_the_call_was_made_and_what_was_refused_then(desk: Desk) -> None:
    """The second refusal of a minute keeps no id, but its id begins with its time."""
    ids = [(await desk.call(model="away-from-here")).headers["x-request-id"] for _ in range(2)]
    seen = {one: await desk.api(f"events?request_id={one}") for one in ids}
    kept, other = (seen[one]["hint"] for one in ids)
    assert re.search(r"The call was refused at 20\S+ \S+ UTC: model_not_found\.$", kept)
    assert re.search(
        r"By its id the call was made at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\. A call that was refused", other
    )
    assert "refused, or still goes on, has no row here; refusals are counted by the minute." in other
    then = seen[ids[1]]["around"]
    query = f"since={then['since']}&until={then['until']}"
    assert sum(one["count"] for one in (await desk.api(f"refusals?{query}"))["items"]) == 2
    assert (await desk.api(f"refusals?since=90d&until={then['since']}"))["items"] == []
    in_vain = await desk.api(f"refusals?request_id={ids[1]}")
    assert in_vain["around"] == then
    assert "By its id the call was made at" in in_vain["hint"]
    older = await desk.api(f"events?request_id={ids[1]}&before={ids[1]}")
    assert older["around"] == then
    assert older["hint"].startswith("There is nothing older. By its id the call was made at")
    await desk.sign_in()
    address = f"/admin/refusals?{query}".replace(":", "%3A")
    for page in (f"/admin/events?request_id={ids[1]}", f"/admin/refusals?request_id={ids[1]}"):
        assert f'<a href="{html.escape(address)}">Refusals of that time</a>' in await desk.page(page)
        mine = f'<a href="{html.escape(address)}&amp;tenant_id=acme">Refusals of that time of acme</a>'
        assert mine in await desk.page(f"{page}&tenant_id=acme")
    assert "model_not_found" in await desk.page(address)
    assert "Until must be an instant" in await desk.page("/admin/refusals?until=soon")


NOW_US = 1_800_000_000_000_000


@pytest.mark.parametrize(
    "given",
    [
        None, "", "job-7", "0" * 32, "f47ac10b-58cc-4372-a567-0e02b2c3d479", uuid7(NOW_US // 1_000 + 61_000, 1),
        uuid7(NOW_US // 1_000 - 401 * 86_400_000, 1), uuid7(0, 1),
    ],
)  # fmt: skip
def test_other_ids_say_nothing_of_a_time(given: str | None) -> None:
    """Texts, other UUIDs, and times that can't be meant."""
    assert around(given, NOW_US) is None


def test_an_id_leads_to_its_minute_and_the_next() -> None:
    """A refusal may be said in the minute after; after eleven minutes no call goes on."""
    found = around(uuid7(NOW_US // 1_000 + 59_999, 1), NOW_US)
    assert found is not None
    assert found.facts() == {
        "made_at": "2027-01-15T08:00:59.999Z", "since": "2027-01-15T08:00Z", "until": "2027-01-15T08:02Z",
    }  # fmt: skip
    assert found.may_go_on(found.made_us + 659_000_000)
    assert not found.may_go_on(found.made_us + 660_000_000)


@pytest.fixture
async def old(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Event:
    """An event of five hours ago, one of now, and searches that have no time to get there at once."""
    await desk.call()
    found = event(desk.container.system.now_us() - 5 * 3_600_000_000, tag="nightly")
    await desk.container.store.write([sent(found)])
    for module, name in (("look", "SEARCH_SECONDS"), ("look", "ANSWER_SECONDS"), ("exporting", "SEARCH_SECONDS")):
        monkeypatch.setattr(f"perpetuo.entrypoints.http.admin.events.{module}.{name}", 0.0)
    return found


@pytest.mark.anyio
async def test_a_search_whose_time_is_over_is_an_empty_page_with_a_next_one(desk: Desk, old: Event) -> None:
    """It says how far it came; following `next` to the end finds what there is."""
    page = await desk.api("events?tag=nightly")
    back_to = page["looked_back_to"]
    assert page["items"] == []
    assert (
        page["hint"]
        == f"Nothing matches back to {back_to[:16].replace('T', ' ')} UTC. What is older was not looked at yet."
    )
    found = []
    while page["next"]:
        page = await desk.api(f"events?tag=nightly&before={page['next']}")
        found += page["items"]
    assert [one["id"] for one in found] == [old.id]
    assert page["looked_back_to"] is None


@pytest.mark.anyio
async def test_a_page_without_rows_goes_on_by_itself(desk: Desk, old: Event) -> None:
    """With JavaScript; there is a link without it. One that has rows leaves it to its reader."""
    await desk.sign_in()
    empty = await desk.page("/admin/events?tag=nightly&kind=chat")
    (address,) = set(
        re.findall(r'(?:href|hx-get)="(/admin/events\?tag=nightly&amp;kind=chat&amp;before=[0-9a-f-]+)"', empty)
    )
    assert 'hx-trigger="load"' in empty
    assert "No events back to " in empty
    page = await desk.page(html.unescape(address))
    while old.id not in page:
        (address,) = set(re.findall(r'href="([^"]+)" rel="next"', page))
        page = await desk.page(html.unescape(address))
    some = await desk.page("/admin/events")
    assert "Search further back" in some
    assert 'hx-trigger="load"' not in some


@pytest.mark.anyio
async def test_an_export_goes_on_however_far_its_rows_are(desk: Desk, old: Event) -> None:
    """A file is whole, also when batches of it are empty."""
    rows = (await desk.ask("events/export?format=jsonl&tag=nightly")).text.splitlines()
    assert [old.id in row for row in rows] == [True]
