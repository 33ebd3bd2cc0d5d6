"""What holds for every page of the dashboard."""

import pytest
from playwright.sync_api import Page

from tests.browser.looking import check_accessible, shots
from tests.browser.site import Site

PAGES = {
    "overview": "/admin",
    "overview-week": "/admin?span=7d",
    "system": "/admin/system",
    "events": "/admin/events",
    "refusals": "/admin/refusals",
    "providers": "/admin/providers",
    "provider": "/admin/providers/down",
    "provider-open": "/admin/providers/down/open",
    "tenants": "/admin/tenants",
    "tenant": "/admin/tenants/acme",
    "api": "/schema",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_for_everybody(page: Page, site: Site, name: str) -> None:
    """Axe finds nothing on it, light, dark and on a phone, and it has one heading of the first order."""
    page.goto(PAGES[name])
    assert page.locator("h1").count() == 1
    check_accessible(page)
    shots(page, name)


def test_signing_in_is_for_everybody(new_page: object, site: Site) -> None:
    """The first page anybody sees, also after a wrong key."""
    page: Page = new_page()  # type: ignore[operator]
    page.goto("/admin")
    check_accessible(page)
    page.get_by_label("Admin key").fill("not-a-key")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("This is not an admin key.").wait_for()
    check_accessible(page)
    shots(page, "sign-in")


def test_html_in_a_name_is_text(page: Page, site: Site) -> None:
    """A tenant and a model may be called as they like."""
    page.goto("/admin/tenants")
    page.get_by_text("<b>bold").first.wait_for()
    page.goto("/admin/events?model=%3Ci%3Emodel%3C/i%3E")
    page.get_by_text("<i>model</i>").first.wait_for()
    assert page.locator("main b, main i").count() == 0
