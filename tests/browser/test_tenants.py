"""Can an operator find a tenant, change its budgets, and is a slip of the hand told at its field?"""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.looking import check_accessible, shots
from tests.browser.site import Site, eventually

RAISE, ADJUST = "Raise …", "Adjust …"
TENANT = "/admin/tenants/customer-07"


def form(page: Page, button: str) -> Locator:
    return page.locator("form", has=page.get_by_role("button", name=button, exact=True))


def opened(page: Page, summary: str, button: str) -> Locator:
    page.goto(TENANT)
    page.locator("summary", has_text=summary).click()
    return form(page, button)


def test_a_budget_is_raised_and_the_raise_ended(page: Page, site: Site) -> None:
    """A form, a page that says what it means, the tenant with the raise in its table; ended in the same way."""
    raising = opened(page, "Raise a budget", RAISE)
    raising.get_by_label("By how many USD").fill("12.50")
    raising.get_by_label("Until").fill("2h")
    raising.get_by_label("Which budget").select_option("of the month")
    raising.get_by_label("Whose budget").select_option(index=0)
    raising.get_by_label("Reason").fill("a <b>launch</b>")
    shots(page, "tenant-raise")
    page.get_by_role("button", name=RAISE).click()
    expect(page.locator("main")).to_contain_text("1012.5 USD instead of 1000 USD")
    expect(page.locator("main")).to_contain_text("Reason: a <b>launch</b>")
    check_accessible(page)
    shots(page, "tenant-raise-confirm")
    page.get_by_role("button", name="Raise a budget").click()
    expect(page.get_by_role("status")).to_contain_text("The budget is raised.")
    row = page.locator("tr", has_text="month").filter(has=page.get_by_role("button"))
    expect(row).to_contain_text("PERPETUO_ADMIN_KEY: a <b>launch</b>")
    check_accessible(page)
    shots(page, "tenant-raised")
    row.get_by_role("button").click()
    expect(page.locator("main")).to_contain_text("is no longer higher by 12.5 USD")
    check_accessible(page)
    with page.context.expect_page() as other:
        page.locator("form.stacked").evaluate("form => { form.target = '_blank' }")
        page.get_by_role("button", name="End a raise").click()
    expect(other.value.get_by_role("status")).to_have_text("The raise has ended.")
    page.locator("form.stacked").evaluate("form => { form.target = '' }")
    page.get_by_role("button", name="End a raise").click()
    expect(page.get_by_role("status")).to_have_text("That raise had already ended.")
    assert site.api("tenants/customer-07")["raises"] == []


def test_what_was_spent_is_adjusted_or_left(page: Page, site: Site) -> None:
    """One may change one's mind on the page that asks; confirmed, the row has who and why."""
    for button, path in (("leave", TENANT), ("do", f"{TENANT}?done=adjust")):
        adjusting = opened(page, "Adjust what was spent", ADJUST)
        adjusting.get_by_label("By how many USD").fill("3")
        adjusting.get_by_label("Day").fill("")
        adjusting.get_by_label("Whose budget").select_option(index=0)
        adjusting.get_by_label("Reason").fill("an invoice")
        page.get_by_role("button", name=ADJUST).click()
        expect(page.locator("main")).to_contain_text("3 USD more counts as spent by customer-07 today and this month.")
        if button == "leave":
            page.get_by_role("link", name="Leave it as it is").click()
        else:
            page.get_by_role("button", name="Adjust what was spent").click()
        page.wait_for_url(f"**{path}")
    assert [budget["spent_usd"] for budget in site.api("tenants/customer-07")["budgets"]] == ["3", "3"]
    told = page.get_by_text("adjusted what customer-07 spent by 3 USD: an invoice")
    eventually(lambda: page.reload() and told.count() == 1)


SLIPS = {
    "no amount": (RAISE, {"Until": "2h"}, "By how many USD", "is an amount such as 20 or -12.50"),
    "words": (RAISE, {"By how many USD": "lots", "Until": "2h"}, "By how many USD", "it is lots."),
    "below zero": (RAISE, {"By how many USD": "-5", "Until": "2h"}, "By how many USD", "must be above 0"),
    "no end": (RAISE, {"By how many USD": "5", "Until": "soon"}, "Until", "it is soon."),
    "no reason": (ADJUST, {"By how many USD": "5"}, "Reason", "An adjustment needs"),
    "no such day": (ADJUST, {"By how many USD": "5", "Reason": "x", "Day": "<b>2999"}, "Day", "must be a date"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_comes_back_with_what_was_typed(page: Page, site: Site, slip: str) -> None:
    """The field is marked, has the focus, and a screen reader reads the sentence with it; nothing is changed."""
    button, typed, wrong, said = SLIPS[slip]
    filled = opened(page, "Raise a budget" if button == RAISE else "Adjust what was spent", button)
    for label, text in typed.items():
        filled.get_by_label(label).fill(text)
    page.get_by_role("button", name=button).click()
    field = form(page, button).get_by_label(wrong, exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    described = (field.get_attribute("aria-describedby") or "").split()
    told = " ".join(page.locator(f"#{name}").inner_text() for name in described)
    assert said in told
    assert "`" not in told
    assert "as text" not in told
    for label, text in typed.items():
        expect(form(page, button).get_by_label(label)).to_have_value(text)
    if slip in {"words", "no such day"}:
        check_accessible(page)
        shots(page, "tenant-slip") if slip == "words" else None
    assert site.api("tenants/customer-07")["raises"] == []


def test_tenants_are_searched_and_paged(page: Page, site: Site) -> None:
    """By id or plan; nothing, a very long text, and a page that there is not are no mistake."""
    page.goto("/admin/tenants")
    expect(page.locator("main")).to_contain_text("Page 1 of 2")
    page.get_by_role("link", name="Next").click()
    expect(page.locator("main")).to_contain_text("Page 2 of 2")
    page.get_by_role("link", name="Before").click()
    expect(page.locator("main")).to_contain_text("Page 1 of 2")
    page.get_by_label("Order").select_option(index=1)
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**sort=*")
    search = page.get_by_label("Id or plan")
    search.fill("CUSTOMER-5")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(7)
    expect(search).to_have_value("CUSTOMER-5")
    for text in ("nobody at all", "x" * 5_000, "%00\\<>'\"&"):
        search.fill(text)
        search.press("Enter")
        expect(page.get_by_text("No tenant.")).to_be_visible()
    check_accessible(page)
    page.goto("/admin/tenants?page=99")
    expect(page.locator("main")).to_contain_text("Page 2 of 2")
