"""Who comes in, who goes, and what is said when a session is over?"""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.looking import check_accessible, shots
from tests.browser.site import Site, sign_in

NewPage = Callable[..., Page]


def test_a_wrong_key_then_the_right_one_then_out(new_page: NewPage, site: Site) -> None:
    """Each with a sentence; in between one is where one wanted to go."""
    page = new_page()
    page.goto("/admin/events?status=502")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    expect(page.get_by_label("Admin key")).to_be_focused()
    check_accessible(page)
    shots(page, "sign-in")
    page.get_by_label("Admin key").fill("not-a-key")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This is not an admin key.")
    check_accessible(page)
    sign_in(page, "PERPETUO_ADMIN_KEY")
    page.wait_for_url("**/admin/events?status=502")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    page.goto("/admin")
    page.wait_for_url("**/admin/login?**")


def test_a_session_that_is_over_is_told_and_leads_back(
    new_page: NewPage, signed_in: Callable[..., Page], site: Site
) -> None:
    """After 12 hours: a sentence, the key again, and one is where one was; so with a session of nobody."""
    page = signed_in(new_page(), hours_ago=12.1)
    page.goto("/admin/tenants/acme")
    expect(page.get_by_role("status")).to_have_text("Your session has ended after 12 hours. Sign in again.")
    sign_in(page, "bob")
    page.wait_for_url("**/admin/tenants/acme")
    name = site.cookies("bob")[0]["name"]
    page.context.add_cookies([{"name": name, "value": "bm9ib2R5.bm9ib2R5", "domain": "127.0.0.1", "path": "/admin"}])
    page.goto("/admin/tenants")
    expect(page.get_by_role("status")).to_have_text("Your session is no longer valid. Sign in again.")


def test_an_overview_left_open_leads_to_the_sign_in_page(
    page: Page, signed_in: Callable[..., Page], site: Site
) -> None:
    """It renews itself, so it is the first to hear that the session is over; afterwards one is where one was."""
    page.goto("/admin?span=24h")
    page.get_by_text("Live", exact=True).wait_for()
    signed_in(page, hours_ago=12.1)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # somebody comes back to the tab
    page.wait_for_url("**/admin/login?**")
    expect(page.get_by_role("status")).to_contain_text("Your session has ended")
    sign_in(page, "PERPETUO_ADMIN_KEY")
    page.wait_for_url("**/admin?span=24h")


def test_who_may_only_look_has_no_buttons_and_is_told_why(
    new_page: NewPage, signed_in: Callable[..., Page], site: Site
) -> None:
    """Where a button would be, and at the address that it would lead to."""
    page = signed_in(new_page(), "eve")
    page.goto("/admin/providers/demo")
    expect(page.get_by_role("banner")).to_contain_text("eve (read)")
    expect(page.get_by_role("link", name="Open the breaker")).to_have_count(0)
    page.goto("/admin/tenants/acme")
    expect(page.get_by_text("Your key has the role read")).to_be_visible()
    expect(page.locator("main form")).to_have_count(0)
    page.goto("/admin/providers/demo/open")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not allowed")
    expect(page.locator("main")).to_contain_text("The key eve has the role read: it may look, but not act.")
    check_accessible(page)


def test_the_api_page_is_for_everybody_and_knows_who_is_signed_in(
    new_page: NewPage, signed_in: Callable[..., Page], site: Site
) -> None:
    """Signed out: the page, and the way to the dashboard. Signed in: the dashboard's head, and out from here."""
    page = new_page()
    page.goto("/schema")
    expect(page.get_by_role("navigation", name="Main").get_by_role("link")).to_have_text(["Dashboard", "API"])
    page.get_by_text("What comes back").first.click()
    page.get_by_text("What to send").nth(1).click()
    signed_in(page).reload()
    expect(page.get_by_role("navigation", name="Main").get_by_role("link")).to_have_count(7)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    page.goto("/schema")
    expect(page.get_by_role("button", name="Sign out")).to_have_count(0)
