"""The overview and the system page, as an operator has them."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.looking import check_accessible, shots
from tests.browser.site import Site, eventually

EVERYWHERE = (
    "/admin/providers", "/admin/providers/demo", "/admin/providers/demo/open", "/admin/tenants",
    "/admin/tenants/acme", "/admin/events", "/admin/refusals", "/admin/system", "/schema", "/admin/tenants/nobody",
    "/admin/nowhere",
)  # fmt: skip


def figure(page: Page, name: str) -> int:
    """What stands below ``name`` among the figures of the span."""
    return int(page.locator(".figures > div", has_text=name).first.locator("dd").inner_text().replace(",", ""))


def test_the_figures_are_those_of_the_rows_and_go_on(page: Page, site: Site) -> None:
    """Calls, errors and refusals as the database has them; without a reload there are more soon."""
    before = site.rows(
        "select count(*), count(*) filter (where outcome = 'failed') from events"
        " where kind <> 'admin' and occurred_at > now() - interval '50 minutes'"
    )
    assert before[0][1] > 0
    eventually(lambda: page.goto("/admin") and figure(page, "Calls") >= before[0][0])
    calls, errors = figure(page, "Calls"), figure(page, "Errors")
    assert errors >= before[0][1]
    assert figure(page, "Refused") > 0
    page.wait_for_function(
        "before => Number(document.querySelector('.figures dd').textContent.replace(',', '')) > before", arg=calls
    )


def test_a_small_cost_is_shown_whole(page: Page, site: Site) -> None:
    """Its many decimals go beyond no edge, neither of a figure nor of what stands beside a chart."""
    page.goto("/admin")
    page.locator(".charts canvas").nth(2).wait_for()
    for cost in ("$0.000023", "$12,345.678901234"):
        over = page.evaluate(
            "cost => { const dd = [...document.querySelectorAll('.figures dd')].at(-1); dd.textContent = cost;"
            " return dd.scrollWidth - dd.clientWidth }",
            cost,
        )
        assert over <= 0, cost
    room = page.evaluate("() => [room(null, null), room(null, ['0', '0.000025'])]")
    assert room[1] >= 8 * len("0.000025") + 16 > room[0]


def test_charts_are_drawn_from_the_table(page: Page, site: Site) -> None:
    """Three of them, again after the page has renewed itself, in the span that was asked for."""
    page.goto("/admin")
    page.locator(".charts canvas").nth(2).wait_for()
    for name, span in (("7 days", "7d"), ("hour", "1h"), ("24 hours", "24h")):
        link = page.get_by_role("navigation", name="Span").get_by_role("link", name=name, exact=True)
        link.click()
        page.wait_for_url(f"**/admin?span={span}")
        expect(link).to_have_attribute("aria-current", "true")
        expect(page.locator(".charts canvas")).to_have_count(3)
    page.get_by_text("The same as a table").click()
    assert page.locator("#steps tbody tr").count() == 97
    check_accessible(page)


def test_without_javascript_the_overview_is_whole(
    new_page: Callable[..., Page], signed_in: Callable[..., Page], site: Site
) -> None:
    """The figures, and the table that charts are made of."""
    page = signed_in(new_page(java_script_enabled=False))
    page.goto("/admin")
    assert figure(page, "Calls") > 0
    page.get_by_text("The same as a table").click()
    assert page.locator("#steps").is_visible()


def test_a_breaker_is_opened_and_closed_from_its_card(page: Page, site: Site) -> None:
    """Opened up first, so that one click does nothing yet; the page says what was done."""
    page.goto("/admin")
    card = page.locator("article", has=page.get_by_role("link", name="demo", exact=True))
    card.locator("summary", has_text="Open the breaker").click()
    check_accessible(page)
    card.get_by_label("For").select_option("1 day")
    card.get_by_role("button", name="Open the breaker of demo").click()
    expect(page.get_by_role("status")).to_contain_text("The breaker of demo was opened")
    card.locator("summary", has_text="Keep it open").click()
    card.locator("summary", has_text="Close the breaker").click()
    card.get_by_role("button", name="Close the breaker of demo").click()
    expect(page.get_by_role("status")).to_contain_text("The breaker of demo was closed")


def test_a_broken_file_is_told_once_while_the_overview_is_open(page: Page, site: Site) -> None:
    """It appears, says what and where, and goes when the file is right again: nobody loads the page anew."""
    page.goto("/admin")
    told = page.locator(".alerts li", has_text="The configuration file is not valid")
    right = site.config.read_text()
    try:
        broken = right.replace("rateLimitMin: 5000", "rateLimitMin: lots").replace("budgetDay: 50", "budgetDay: much")
        site.config.write_text(broken)
        expect(told).to_have_count(1)
        expect(told).to_contain_text(re.compile(r"stays in force\. \S*perpetuo\.config\.yaml:[0-9]+:[0-9]+: plans"))
        expect(told).to_contain_text("; and 1 more.")
        expect(page.get_by_text("is not valid")).to_have_count(1)
        check_accessible(page)
        shots(page, "overview-broken-file")
        told.get_by_role("link").click()
        page.wait_for_url("**/admin/system#configuration")
        page.go_back()
        expect(told).to_have_count(1)
    finally:
        site.config.write_text(right)
    expect(told).to_have_count(0)


def test_a_broken_file_is_told_on_every_page(page: Page, site: Site) -> None:
    """But for the overview, which is live. Where, and what; no banner any more once the file is right again."""
    right = site.config.read_text()
    try:
        broken = right.replace("rateLimitMin: 5000", "rateLimitMin: lots")
        site.config.write_text(broken)
        for path in EVERYWHERE:
            eventually(lambda at=path: page.goto(at) and page.locator(".banner").count() == 1)
            text = page.locator(".banner").inner_text()
            assert "stays in force" in text
            assert "perpetuo.config.yaml:" in text
            assert "rateLimitMin" in text
        check_accessible(page)
        page.goto("/admin/events")
        banner = page.locator(".banner")
        expect(banner).to_have_count(1)
        site.config.write_text(right)
        expect(banner).to_have_count(0)  # nobody loads the page anew
        site.config.write_text(broken)
        expect(banner).to_contain_text("rateLimitMin")
        page.goto("/admin/nowhere")
        page.get_by_role("link", name="Back to the page").or_(page.get_by_role("link", name="To the overview")).click()
        page.goto("/admin/system")
        check_accessible(page)
        shots(page, "system-broken-file")
        site.config.write_text(broken.replace("budgetDay: 50", "budgetDay: much"))
        more = page.locator(".banner").get_by_role("link", name="all of them")
        eventually(lambda: page.goto("/admin/events") and more.count() == 1)
        more.click()
        page.wait_for_url("**/admin/system#configuration")
    finally:
        site.config.write_text(right)
    eventually(lambda: page.goto("/admin/events") and page.locator(".banner").count() == 0)


def test_the_system_page_tells_no_secret(page: Page, site: Site) -> None:
    """That there is a key, not which."""
    page.goto("/admin/system")
    text = page.content()
    assert "(set, not shown)" in text
    assert "sk-canary-of-a-provider" not in text
    works = page.locator("tr", has_text="PostgreSQL").get_by_text("works")
    eventually(lambda: page.reload() and works.count() == 1)
