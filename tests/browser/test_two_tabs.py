"""What happens when the page that acts is no longer the page of this session? Always a sentence, done once at most."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, Response, expect

from tests.browser.looking import check_accessible
from tests.browser.site import Site, sign_in

OPEN = "/admin/providers/demo/open"


def answer_to(page: Page, act: Callable[[], Any]) -> Response:
    """What a form was answered with."""
    with page.expect_response(lambda response: response.request.method == "POST") as found:
        act()
    return found.value


def open_breaker(page: Page) -> Response:
    return answer_to(page, page.get_by_role("button", name="Open the breaker").click)


def is_closed(site: Site) -> bool:
    return str(site.api("providers/demo")["breaker"]["state"]) == "closed"


def test_what_is_sent_after_signing_out_elsewhere_is_not_done(page: Page, site: Site) -> None:
    """Out in one tab, a button in the other: the sign-in page says so, and leads back to the page that asks."""
    page.goto(OPEN)
    other = page.context.new_page()
    other.goto("/admin/system")
    other.get_by_role("button", name="Sign out").click()
    other.get_by_text("You are signed out.").wait_for()
    assert open_breaker(page).status == 303
    expect(page.get_by_role("status")).to_have_text(
        "You were no longer signed in, so nothing was done. Sign in, then do it again."
    )
    check_accessible(page)
    assert is_closed(site)
    sign_in(page, "PERPETUO_ADMIN_KEY")
    page.wait_for_url(f"**{OPEN}")


def test_signing_out_twice_is_no_mistake(page: Page, site: Site) -> None:
    """Both tabs end at the same page."""
    page.goto("/admin/system")
    other = page.context.new_page()
    other.goto("/admin/system")
    for tab in (other, page):
        tab.get_by_role("button", name="Sign out").click()
        expect(tab.get_by_role("status")).to_have_text("You are signed out.")


def test_a_page_of_another_session_does_nothing(page: Page, signed_in: Callable[..., Page], site: Site) -> None:
    """Somebody else has signed in in another tab: who one is now, and a way back; from there it is done."""
    page.goto(OPEN)
    signed_in(page, "bob")
    refused = open_breaker(page)
    assert refused.status == 403
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing was done")
    expect(page.locator("main")).to_contain_text("you are signed in as bob now")
    check_accessible(page)
    assert is_closed(site)
    page.get_by_role("link", name="Back to the page").click()
    page.wait_for_url(f"**{OPEN}")
    assert open_breaker(page).status == 303
    expect(page.get_by_role("status")).to_contain_text("The breaker of demo was opened")
    page.get_by_role("link", name="Reset the breaker").click()
    page.get_by_role("button", name="Reset the breaker").click()
    expect(page.get_by_role("status")).to_contain_text("The breaker of demo was closed")


def test_a_form_without_its_token_does_nothing(page: Page, site: Site) -> None:
    """An extension or a bad proxy took it out; the same for every form that acts."""
    buttons = {OPEN: "Open the breaker", "/admin/system": "Sign out", "/admin/tenants/acme": "Raise …"}
    for path, name in buttons.items():
        page.goto(path)
        page.evaluate("document.querySelectorAll('[name=token]').forEach(e => e.remove())")
        page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
        assert answer_to(page, page.get_by_role("button", name=name).click).status == 403
        expect(page.get_by_role("heading", level=1)).to_have_text("Nothing was done")
    assert is_closed(site)


def test_what_is_confirmed_twice_is_done_once(page: Page, site: Site) -> None:
    """The same page sent from two tabs: the books have it once, and the second answer says so."""
    before = site.api("tenants/other")["budgets"][0]["spent_usd"]
    page.goto("/admin/tenants/other")
    page.get_by_text("Adjust what was spent").click()
    form = page.locator("form", has=page.get_by_role("button", name="Adjust …"))
    form.get_by_label("By how many USD").fill("1")
    form.get_by_label("Reason").fill("twice")
    page.get_by_role("button", name="Adjust …").click()
    confirm = page.get_by_role("button", name="Adjust what was spent")
    confirm.wait_for()
    form = page.locator("form.stacked")
    form.evaluate("form => { form.target = '_blank' }")
    with page.context.expect_page() as opened:
        confirm.click()
    expect(opened.value.get_by_role("status")).to_contain_text("What was spent is adjusted.")
    form.evaluate("form => { form.target = '' }")
    confirm.click()
    expect(page.get_by_role("status")).to_have_text("That had been done before, and was not done again.")
    after = site.api("tenants/other")["budgets"][0]["spent_usd"]
    assert (before, after) == ("0", "1")
