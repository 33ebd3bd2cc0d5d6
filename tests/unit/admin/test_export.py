"""Do events leave as a whole file, that a spreadsheet can open without harm, or not at all?"""

import csv
import io
import json

import pytest

from perpetuo.entrypoints.http.admin.events.exporting import COLUMNS, ROWS, cell
from tests.unit.admin.conftest import ADMIN_KEY, HOSTILE, READ_KEY, Desk

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\r=1", "\n=1", "\uff1d1"])
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    """A tag or an error code comes from outside; numbers stay numbers."""
    assert cell(text) == f"'{text}"
    assert (cell(-1), cell(None), cell("a=b")) == (-1, None, "a=b")


async def test_csv_has_every_event_exactly(desk: Desk) -> None:
    """The rows that the list shows, with the same times and money, and a tag that is no formula."""
    await desk.call(**{"x-perpetuo-tag": "=HYPERLINK(1)"})
    await desk.call("sk-test-hostile-0123456789")
    answer = await desk.ask("events/export?format=csv", READ_KEY)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    shown = (await desk.api("events"))["items"]
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers[ROWS] == "2" == str(len(rows))
    assert tuple(rows[0]) == COLUMNS
    assert [(r["id"], r["at"], r["cost_usd"]) for r in rows] == [(e["id"], e["at"], e["cost_usd"]) for e in shown]
    assert (rows[0]["tenant"], rows[1]["tag"]) == (HOSTILE, "'=HYPERLINK(1)")
    assert 'attachment; filename="perpetuo-events-' in answer.headers["content-disposition"]
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


async def test_jsonl_is_what_one_event_is(desk: Desk) -> None:
    """Decision and all, one a line; filters count. What a page makes of it is not in a file."""
    await desk.call()
    await desk.call("sk-test-hostile-0123456789")
    text = (await desk.ask("events/export?format=jsonl&tenant_id=acme&since=1h")).text
    (line,) = text.splitlines()
    shown = await desk.api(f"events/{json.loads(line)['id']}")
    assert json.loads(line) == {name: value for name, value in shown.items() if name not in {"trace", "change"}}


async def test_no_event_is_a_file_too(desk: Desk) -> None:
    """A header alone, or nothing."""
    assert (await desk.ask("events/export?format=csv")).text == ",".join(COLUMNS) + "\r\n"
    assert (await desk.ask("events/export?format=jsonl")).text == ""


async def test_an_export_goes_on_over_many_batches(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event once, newest first, whether or not the last batch is full."""
    for _ in range(6):
        await desk.call()
    ids = [e["id"] for e in (await desk.api("events"))["items"]]
    for batch in (1, 2, 4, 6):
        monkeypatch.setattr("perpetuo.entrypoints.http.admin.events.exporting.BATCH", batch)
        lines = (await desk.ask("events/export?format=jsonl")).text.splitlines()
        assert [json.loads(line)["id"] for line in lines] == ids


@pytest.mark.parametrize(("query", "param"), [("format=xml", "format"), ("since=soon", "since"), ("kind=x", "kind")])
async def test_what_can_not_be_meant_makes_no_file(desk: Desk, query: str, param: str) -> None:
    """For the page's links as for scripts: nobody should mistake all events for a selection."""
    answer = await desk.ask(f"events/export?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    await desk.sign_in()
    assert (await desk.browser.get(f"/admin/events/export?{query}")).status_code == 400


async def test_too_many_exports_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each occupies a connection to SQL for long; none is counted after its end."""
    assert (await desk.ask("events/export")).status_code == 200
    monkeypatch.setattr("perpetuo.entrypoints.http.admin.events.exporting._running", 2)
    answer = await desk.ask("events/export")
    assert answer.status_code == 429
    assert "Try again when one has ended" in answer.text
    assert int(answer.headers["retry-after"]) == 5


async def test_a_store_that_is_away_is_said_before_anything_is_sent(blind_desk: Desk) -> None:
    """503, not an empty file."""
    assert (await blind_desk.ask("events/export")).status_code == 503


async def test_only_operators_export(desk: Desk) -> None:
    """No key, no file; a session is led to sign in."""
    assert (await desk.ask("events/export", "x" * 30)).status_code == 401
    assert (await desk.browser.get("/admin/events/export")).status_code == 303
    await desk.sign_in(ADMIN_KEY)
    assert (await desk.browser.get("/admin/events/export")).status_code == 200
