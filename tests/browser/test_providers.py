"""Can an operator take a provider out and let it in again, and see afterwards what was done?"""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.looking import check_accessible, shots
from tests.browser.site import Site, eventually
from tests.live import OTHER_KEY


def test_a_breaker_is_opened_and_reset_without_a_script(
    new_page: Callable[..., Page], signed_in: Callable[..., Page], site: Site
) -> None:
    """From the list to the provider, a page that asks, and back; it is in the history and in the events."""
    page = signed_in(new_page(java_script_enabled=False))
    page.goto("/admin/providers")
    page.get_by_role("link", name="demo", exact=True).click()
    page.get_by_role("link", name="Open the breaker").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Open the breaker of demo?")
    page.get_by_label("For").select_option("1 hour")
    page.get_by_role("button", name="Open the breaker").click()
    expect(page.get_by_role("status")).to_contain_text("The breaker of demo was opened on all workers.")
    expect(page.locator(".provider")).to_contain_text("gets no calls")
    page.get_by_role("link", name="Reset the breaker").click()
    page.get_by_role("button", name="Reset the breaker").click()
    expect(page.get_by_role("status")).to_contain_text("The breaker of demo was closed on all workers.")
    history = page.locator("section", has_text="History of its breaker").locator("tbody tr")
    expect(history.nth(0)).to_contain_text("by an operator")
    told = page.get_by_text("opened the breaker of demo for 3600 s")
    eventually(lambda: page.goto("/admin/events?provider=demo&kind=admin") and told.count() > 0)


def test_changing_ones_mind_changes_nothing(page: Page, site: Site) -> None:
    """The way back from the page that asks, which is part of Providers; the form's own address leads to the list."""
    page.goto("/admin/providers/demo/open")
    page.get_by_label("For").select_option("1 day")
    page.get_by_role("link", name="No, back to demo").click()
    expect(page.locator(".provider")).to_contain_text("gets calls")
    page.goto("/admin/breaker")
    page.wait_for_url("**/admin/providers")


def test_an_open_breaker_says_why_and_since_when(page: Page, site: Site) -> None:
    """A provider that can't be reached, as somebody with a pager sees it; once reset it opens again by itself."""
    page.goto("/admin/providers/down/close")
    page.get_by_role("button", name="Reset the breaker").click()
    expect(page.get_by_role("status")).to_contain_text("The breaker of down was closed")
    eventually(lambda: opened_by_calls(page, site))
    expect(page.get_by_text("it could not be reached several times in a row").first).to_be_visible()
    expect(page.get_by_text("upstream_error").first).to_be_visible()
    check_accessible(page)
    shots(page, "provider-down")
    page.get_by_role("link", name="Reset the breaker").click()
    check_accessible(page)
    page.get_by_role("button", name="Reset the breaker").click()
    expect(page.get_by_role("status")).to_contain_text("The breaker of down was closed")


def opened_by_calls(page: Page, site: Site) -> bool:
    """One more call to what is down; does its page say that it gets none now?"""
    site.gateway.chat(OTHER_KEY, model="down", max_tokens=5)
    page.goto("/admin/providers/down")
    return "gets no calls" in page.locator(".provider").inner_text()
