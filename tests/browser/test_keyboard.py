"""Is a keyboard enough: in which order does one come by, can one see where one is, is nothing a trap?"""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looking import still
from tests.browser.site import Site

MOST_STOPS = 45
HERE = """
() => {
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  const all = window.stops ??= [];
  const before = all.at(-1);
  all.push(at);
  return {
    name: at.localName + " " + (at.textContent || at.name || "").trim().slice(0, 40),
    end: at === document.body,
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
    there: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight
      && box.right > 0 && box.left < innerWidth,
    later: !before || !!(before.compareDocumentPosition(at) & Node.DOCUMENT_POSITION_FOLLOWING),
  };
}
"""


@pytest.mark.parametrize(
    "path", ["/admin", "/admin/events", "/admin/tenants/acme", "/admin/providers/demo/open", "/schema"]
)
def test_every_stop_is_seen_and_in_order(page: Page, site: Site, path: str) -> None:
    """The first leads past the navigation; each has a ring, is on the screen, and comes after the one before."""
    page.goto(path)
    names = []
    with still(page):
        page.keyboard.press("Tab")
        first = page.evaluate(HERE)
        assert (first["name"], first["ring"], first["there"]) == ("a Skip to content", True, True)
        for _ in range(MOST_STOPS):
            page.keyboard.press("Tab")
            stop = page.evaluate(HERE)
            if stop["end"]:
                break
            names.append(stop["name"])
            assert stop["ring"], f"{path}: one does not see being at {stop['name']}"
            assert stop["there"], f"{path}: {stop['name']} is not on the screen"
            assert stop["later"], f"{path}: {stop['name']} comes too late"
    assert "button Sign out" in names
    assert len(names) > 10


def test_the_first_stop_leads_to_the_content(page: Page, site: Site) -> None:
    """From there the next stop is the first of the content, not of the navigation."""
    page.goto("/admin/tenants")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Id or plan")).to_be_focused()


def test_a_budget_is_raised_without_a_mouse(page: Page, site: Site) -> None:
    """The form is opened, filled, sent and confirmed with keys alone."""
    page.goto("/admin/tenants/customer-08")
    page.locator("summary", has_text="Raise a budget").focus()
    keys = page.keyboard
    keys.press("Enter")
    keys.press("Tab")
    keys.type("2")
    keys.press("Enter")
    expect(page.locator("main")).to_contain_text("52 USD instead of 50 USD")
    page.get_by_role("button", name="Raise a budget").focus()
    keys.press("Space")
    expect(page.get_by_role("status")).to_contain_text("The budget is raised.")
    assert [one["usd"] for one in site.api("tenants/customer-08")["raises"]] == ["2"]
