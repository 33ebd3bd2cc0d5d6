"""Is the overview live, does it say so, and does it help itself when it can't be?"""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.looking import check_accessible
from tests.browser.site import Site
from tests.browser.test_overview import figure

MORE = "before => Number(document.querySelector('.figures dd').textContent.replace(',', '')) > before"


def test_it_says_that_it_is_live_and_goes_on(page: Page, site: Site) -> None:
    """To everybody, once; a section that somebody is busy with waits, the others do not."""
    page.goto("/admin")
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#live")).to_have_attribute("aria-live", "polite")
    check_accessible(page)
    card = page.locator("article", has=page.get_by_role("link", name="demo", exact=True))
    card.locator("summary").last.click()
    page.wait_for_function(MORE, arg=figure(page, "Calls"))
    expect(card.get_by_role("button", name="Open the breaker of demo")).to_be_visible()


def test_where_too_many_watch_it_asks_instead(page: Page, site: Site) -> None:
    """It says that it does, and figures go on."""
    page.route("**/admin/live?*", lambda route: route.fulfill(status=503, content_type="text/plain", body="Too many."))
    page.goto("/admin")
    calls = figure(page, "Calls")
    expect(page.locator("#live")).to_have_text("Refreshed every 5 seconds")
    expect(page.locator("#live")).to_have_attribute("title", "Too many.")
    page.wait_for_function(MORE, arg=calls)
    page.unroute("**/admin/live?*")
    expect(page.locator("#live")).to_have_text("Live")


def test_a_lost_connection_is_told_and_comes_back(page: Page, site: Site) -> None:
    """By itself, without a click."""
    page.route("**/admin/live?*", lambda route: route.abort("connectionrefused"))
    page.goto("/admin")
    expect(page.locator("#live")).to_have_text("Connection lost, retrying")
    page.unroute("**/admin/live?*")
    expect(page.locator("#live")).to_have_text("Live")


def test_without_javascript_nothing_claims_to_be_live(
    new_page: Callable[..., Page], signed_in: Callable[..., Page], site: Site
) -> None:
    """The place is empty, and there is the link."""
    page = signed_in(new_page(java_script_enabled=False))
    page.goto("/admin")
    expect(page.locator("#live")).to_be_empty()
    expect(page.get_by_role("link", name="Refresh")).to_be_visible()
