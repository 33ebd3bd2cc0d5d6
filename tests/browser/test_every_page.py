"""What holds for every page of the dashboard."""

from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looking import check_accessible, shots
from tests.browser.site import HOSTILE, Site, with_rows

PAGES = {
    "overview": "/admin",
    "system": "/admin/system",
    "system-configuration": "/admin/system/configuration",
    "events": "/admin/events",
    "refusals": "/admin/refusals",
    "providers": "/admin/providers",
    "provider": "/admin/providers/shaky",
    "provider-open": "/admin/providers/demo/open",
    "tenants": "/admin/tenants",
    "tenant": "/admin/tenants/acme",
    "not-found": "/admin/tenants/nobody",
    "api": "/schema",
}
SECTIONS = {
    "system-configuration": "System",
    "provider": "Providers",
    "provider-open": "Providers",
    "tenant": "Tenants",
    "api": "API",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_for_everybody(page: Page, site: Site, name: str) -> None:
    """Axe finds nothing on it, light, dark and on a phone; one heading of the first order; the way here is marked."""
    page.goto(PAGES[name])
    assert page.locator("h1").count() == 1
    if name == "overview":
        page.get_by_text("Live", exact=True).wait_for()
    marked = page.get_by_role("navigation", name="Main").locator("[aria-current=page]")
    expect(marked).to_have_text([] if name == "not-found" else [SECTIONS.get(name, name.capitalize())])
    shots(page, name)
    check_accessible(page)


def test_an_event_is_for_everybody(page: Page, site: Site) -> None:
    """One that failed, and an operator's action."""
    for query, name in (("outcome=failed", "event"), ("kind=admin", "event-action")):
        if name == "event-action":
            page.goto("/admin/providers/demo/close")
            page.get_by_role("button", name="Reset the breaker").click()
            expect(page.get_by_role("status")).to_contain_text("closed")
        with_rows(page, f"/admin/events?{query}").first.click()
        page.wait_for_url("**/admin/events/*")
        assert page.locator("h1").count() == 1
        shots(page, name)
        check_accessible(page)


def test_html_in_a_name_is_text(page: Page, site: Site) -> None:
    """A tenant and a model that would run a script; in lists, on their own page, in fields, titles and messages."""
    escaped = quote(HOSTILE, safe="")
    for path in (
        "/admin",
        f"/admin/tenants?q={escaped}",
        f"/admin/tenants/{escaped}",
        f"/admin/tenants/{escaped}%20too",
        f"/admin/events?tag={escaped}&since={escaped}",
        f"/admin/refusals?tenant_id={escaped}&since={escaped}",
        "/admin/system",
    ):
        page.goto(path)
        expect(page.locator("main")).to_contain_text(
            "<img src=x" if "tag=" not in path and "refusals" not in path else "Since"
        )
        assert page.locator("main img").count() == 0, path
    row = with_rows(page, f"/admin/events?model={escaped}").first
    expect(page.locator("main")).to_contain_text("<img src=x")
    assert page.locator("main img").count() == 0
    row.click()
    page.wait_for_url("**/admin/events/*")
    expect(page.locator("main")).to_contain_text(HOSTILE)
    assert page.locator("main img").count() == 0
