"""The overview and the system page, as an operator has them."""

from collections.abc import Callable

from playwright.sync_api import Page

from tests.browser.looking import check_accessible, shots
from tests.browser.site import Site
from tests.live import eventually


def figure(page: Page, name: str) -> int:
    """What stands below ``name`` among the figures of the span."""
    return int(page.locator(".figures > div", has_text=name).first.locator("dd").inner_text().replace(",", ""))


def test_the_figures_are_those_of_the_rows_and_go_on(page: Page, site: Site) -> None:
    """Calls, errors and refusals as the database has them; without a reload there are more soon."""
    before = site.rows("select count(*), count(*) filter (where outcome = 'failed') from events where kind <> 'admin'")
    page.goto("/admin")
    calls, errors = figure(page, "Calls"), figure(page, "Errors")
    assert calls >= before[0][0]
    assert errors >= before[0][1] > 0
    assert figure(page, "Refused") > 0
    page.wait_for_function(
        "before => Number(document.querySelector('.figures dd').textContent.replace(',', '')) > before", arg=calls
    )


def test_charts_are_drawn_from_the_table(page: Page, site: Site) -> None:
    """Three of them, again after the page has renewed itself, in the span that was asked for."""
    page.goto("/admin")
    page.locator(".charts canvas").nth(2).wait_for()
    page.get_by_role("link", name="24 hours").click()
    page.wait_for_url("**/admin?span=24h")
    assert page.locator(".charts canvas").count() == 3
    page.get_by_text("The same as a table").click()
    assert page.locator("#steps tbody tr").count() == 97
    check_accessible(page)


def test_without_javascript_the_overview_is_whole(
    new_page: Callable[..., Page], signed_in: Callable[[Page], Page], site: Site
) -> None:
    """The figures, and the table that charts are made of."""
    page = signed_in(new_page(java_script_enabled=False))
    assert figure(page, "Calls") > 0
    page.get_by_text("The same as a table").click()
    assert page.locator("#steps").is_visible()


def test_a_keyboard_is_enough(page: Page, site: Site) -> None:
    """The first stop leads to the content, and every link that is stopped at can be seen to be."""
    page.goto("/admin/system")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id || location.hash") in {"main", "#main"}


def test_an_expired_session_leads_to_the_sign_in_page(page: Page, site: Site) -> None:
    """Also from a page that renews itself; afterwards one is where one was."""
    page.goto("/admin?span=24h")
    page.context.clear_cookies()
    page.wait_for_url("**/admin/login?**", timeout=20_000)
    assert "24h" in page.url


def test_a_broken_file_is_told_on_every_page(page: Page, site: Site) -> None:
    """Where, and what; the one before stays in force. No banner any more once it is right again."""
    right = site.config.read_text()
    try:
        site.config.write_text(right.replace("rateLimitMin: 5000", "rateLimitMin: lots"))
        for path in ("/admin", "/admin/events", "/admin/tenants", "/admin/system"):
            eventually(lambda at=path: page.goto(at) and page.locator(".banner").count() == 1, 20.0)
            text = page.locator(".banner").inner_text()
            assert "stays in force" in text
            assert "perpetuo.config.yaml:" in text
            assert "rateLimitMin" in text
        check_accessible(page)
        shots(page, "system-broken-file")
    finally:
        site.config.write_text(right)
    eventually(lambda: page.goto("/admin") and page.locator(".banner").count() == 0, 20.0)


def test_the_system_page_tells_no_secret(page: Page, site: Site) -> None:
    """That there is a key, not which."""
    page.goto("/admin/system")
    text = page.content()
    assert "(set, not shown)" in text
    assert "sk-canary-of-a-provider" not in text
    page.locator("tr", has_text="PostgreSQL").get_by_text("works").wait_for()
