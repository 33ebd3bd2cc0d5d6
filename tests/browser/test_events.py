"""Can a call be found among all of them, taken home as a file, and is it said when there is none?"""

import csv
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from playwright.sync_api import Download, Page, Route, expect

from tests.browser.looking import check_accessible, shots
from tests.browser.site import SMALL_KEY, Site, eventually

COLUMNS = {"Tenant": "acme", "Key": "web", "Model": "flaky", "Provider": "shaky", "Status": "502"}
OTHERS = {"Since": "2h", "Until": "1s", "Request id": "nothing", "Tag": "nothing"}


def show(page: Page) -> None:
    """Ask with the filters as they are, and wait until the answer is the list and its address that of the page."""
    page.locator("#found").evaluate("found => { found.dataset.before = '' }")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#found[data-before]")).to_have_count(0)


def shows(page: Page, text: str) -> bool:
    """Does the list say this? A busy machine may not get so far in the time of a search: then ask once more."""
    if text in page.locator("#found").inner_text():
        return True
    show(page)
    return False


def has_rows(page: Page) -> bool:
    """The same of a list with something in it."""
    if page.locator("#found tbody th").count() > 0:
        return True
    show(page)
    return False


def test_each_filter_finds_what_it_names_without_a_new_page(page: Page, site: Site) -> None:
    """The list changes, the form keeps what was typed, the address can be sent to somebody; back is back."""
    page.goto("/admin/events")
    page.evaluate("window.stayed = true")
    for label, text in (COLUMNS | OTHERS).items():
        field = page.get_by_label(label, exact=True)
        field.fill(text)
        show(page)
        if text == "nothing":
            eventually(lambda label=label: shows(page, f"Nothing matches. Without the {label.lower()} there would be"))
            expect(page.locator("#told")).to_have_text("No events")
        else:
            cells = page.locator(f"#found td[data-label={label}]")
            eventually(lambda: has_rows(page))
            expect(cells.filter(has_not_text=text)).to_have_count(0)
        expect(field).to_have_value(text)
        field.fill("")
    for label, text in (("Outcome", "failed"), ("Kind", "chat")):
        page.get_by_label(label).select_option(text)
        show(page)
        expect(page.locator("#found td[data-label=Outcome]", has_text="completed")).to_have_count(0)
    assert page.evaluate("window.stayed") is True
    assert "outcome=failed" in page.url
    page.go_back()
    page.wait_for_url(lambda url: "outcome=failed&kind=&" in url)
    page.get_by_role("link", name="Show all").click()
    page.wait_for_url("**/admin/events")
    expect(page.get_by_label("Outcome")).to_have_value("")


def test_without_javascript_filters_and_pages_work(
    new_page: Callable[..., Page], signed_in: Callable[..., Page], site: Site
) -> None:
    """The same form and the same links, a new page each."""
    page = signed_in(new_page(java_script_enabled=False))
    page.goto("/admin/events")
    page.get_by_label("Model").fill("flaky")
    with page.expect_navigation(url="**/admin/events?*"):
        page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_label("Model")).to_have_value("flaky")
    expect(page.locator("td[data-label=Model]").filter(has_not_text="flaky")).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename.endswith(".csv")


def test_pages_go_back_in_time_and_forward_again(page: Page, site: Site) -> None:
    """By key, so that new calls move nothing: no row twice, none left out; the last page says that it is."""
    page.goto("/admin/events?kind=call&until=1s")
    seen: list[str] = []
    while True:
        links = page.locator("tbody th a")
        seen += links.evaluate_all("links => links.map(link => link.getAttribute('href'))")
        older = page.get_by_role("link", name="Older")
        if older.count() == 0:
            break
        with page.expect_navigation():
            older.click()
    assert len(seen) > 50
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, reverse=True)
    page.go_back()
    expect(page.get_by_role("link", name="Older")).to_be_visible()
    page.go_forward()
    page.get_by_role("link", name="Newest").click()
    page.wait_for_url(lambda url: "before=" not in url)
    expect(page.get_by_role("link", name="Newest")).to_have_count(0)


def test_a_search_in_vain_says_what_is_in_the_way(page: Page, site: Site) -> None:
    """Also for what can't be meant, and for five thousand characters; refusals are one link away, and back."""
    page.goto("/admin/events?tenant_id=nobody&model=m")
    eventually(lambda: shows(page, "Without the tenant there would be something."))
    check_accessible(page)
    shots(page, "events-nothing")
    page.goto("/admin/events?status=abc&since=yesterday")
    expect(page.get_by_role("alert").first).to_contain_text("Status must be an HTTP status such as 429.")
    check_accessible(page)
    page.get_by_label("Tenant").fill("x" * 5_000)
    show(page)
    eventually(lambda: shows(page, "Nothing matches."))
    refusals = page.get_by_role("link", name="Look among the refusals")
    eventually(lambda: page.goto("/admin/events?request_id=req_nothing") and refusals.count() == 1)
    refusals.click()
    expect(page.get_by_label("Request id")).to_have_value("req_nothing")
    expect(page.locator("main")).to_contain_text("No refusal is kept under this request id.")
    page.get_by_role("link", name="Look among the events").click()
    page.wait_for_url("**/admin/events?request_id=req_nothing")


def test_refusals_are_searched(page: Page, site: Site) -> None:
    """By tenant, reason, time and request id; the oldest, because the sums of this minute still change."""
    page.goto("/admin/refusals")
    oldest = page.locator("tbody tr", has_text="small").filter(has_text="rate_limit_exceeded").last
    request_id = oldest.locator("td").last.locator(".code").inner_text()
    for label, text in (("Tenant", "small"), ("Since", "1h"), ("Until", "1s"), ("Request id", request_id)):
        page.get_by_label(label).fill(text)
    page.get_by_label("Reason").select_option("rate_limit_exceeded")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Since").fill("a while")
    page.get_by_label("Tenant").fill("nobody")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_text("Since must be an instant such as")).to_be_visible()
    check_accessible(page)
    page.get_by_role("link", name="Show the last hour").click()
    expect(page.locator("tbody tr").first).to_be_visible()


def test_an_export_shows_how_far_it_is(page: Page, site: Site) -> None:
    """All that match, not only the page; both formats have the rows that the sentence says."""
    page.goto("/admin/events?model=m&until=1s")
    for name in ("CSV", "JSONL"):
        download = exported(page, name)
        told = int(page.locator("#export output").inner_text().split()[0].replace(",", ""))
        assert told >= 16
        assert file_rows(Path(download.path())) == told
        assert download.suggested_filename.endswith(f".{name.lower()}")
    shots(page, "events-exported")
    check_accessible(page)


def exported(page: Page, name: str) -> Download:
    """A file that the page has saved; a busy machine may leave it to the browser: then once more."""
    said = page.locator("#export output")

    def saved() -> Download | None:
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        expect(said).to_contain_text(re.compile(r"rows are saved\.|your browser downloads them\."))
        return download.value if "are saved" in said.inner_text() else None

    found: Download = eventually(saved)
    return found


def file_rows(path: Path) -> int:
    text = path.read_text()
    if text.startswith("{"):
        return len([json.loads(line) for line in text.splitlines()])
    return len(list(csv.DictReader(text.splitlines())))


def test_an_export_can_be_cancelled_fails_with_a_reason_or_is_left_to_the_browser(page: Page, site: Site) -> None:
    """While nothing comes; when the table is away; when it is larger than a page should hold."""
    page.goto("/admin/events")
    told, link = page.locator("#export output"), page.get_by_role("link", name="CSV")
    page.route("**/admin/events/export?*", lambda _: None)  # never answered
    link.click()
    expect(told).to_have_text("Asking …")
    check_accessible(page)
    page.locator("#export").get_by_role("button", name="Cancel").click()
    expect(told).to_have_text("Cancelled; nothing was saved.")
    page.unroute("**/admin/events/export?*")
    away = "<main><p>The event table is away: nobody listens.</p></main>"
    page.route("**/admin/events/export?*", lambda route: route.fulfill(status=503, content_type="text/html", body=away))
    link.click()
    expect(told).to_have_text("Not exported: The event table is away: nobody listens.")
    page.unroute("**/admin/events/export?*")
    asked: list[str] = []

    def large(route: Route) -> None:
        asked.append(route.request.resource_type)
        if len(asked) == 1:
            route.fulfill(status=200, headers={"x-perpetuo-rows": "300000"}, content_type="text/csv", body="id\r\n")
        else:
            route.continue_()

    page.route("**/admin/events/export?*", large)
    with page.expect_download():
        link.click()
    expect(told).to_have_text("300,000 rows: your browser downloads them.")
    assert asked == ["fetch", "document"]


def test_a_call_that_was_refused_is_followed_by_its_request_id(page: Page, site: Site) -> None:
    """It has no row; the page says when it was made, and leads to what was refused then."""
    eventually(lambda: looked_for(page, site))
    check_accessible(page)
    shots(page, "events-refused")
    page.get_by_role("link", name="Refusals of that time of small").click()
    page.wait_for_url("**/admin/refusals?*")
    told = page.locator("tbody tr", has_text="rate_limit_exceeded")
    eventually(lambda: page.reload() and told.count() > 0)  # a refusal is written a second later
    expect(page.get_by_label("Until", exact=True)).not_to_have_value("")
    check_accessible(page)
    shots(page, "refusals-then")


def looked_for(page: Page, site: Site) -> bool:
    """
    A call of ``small`` that its limit refuses, by its id: is it one of which only that is known?

    Four at once are too many for two a minute, however long each takes. The first of a minute keeps its id.
    """
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: site.gateway.chat(SMALL_KEY, max_tokens=5), range(4)))
    refused = [answer.headers["x-request-id"] for answer in answers if answer.status_code == 429]
    page.goto(f"/admin/events?request_id={max(refused, default='none')}&tenant_id=small")
    return "By its id the call was made at" in page.locator("#found").inner_text()
