"""
Fixtures for pages: the site, and a browser that is signed in.

| fixture | gives |
|---|---|
| ``site`` | the gateway of `tests.browser.site`, shared by all tests of this folder: put back what you change |
| ``page`` | a new tab at the sign-in's other side; the test fails when a script did, or broke the page's policy |
| ``new_page(**options)`` | further ones, each signed out and with a cookie jar of its own |
| ``signed_in(page)`` | signs a page in, as somebody would |

A machine without chromium skips these tests, loudly; with ``CI=true`` it fails them.
"""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests import servers
from tests.browser.looking import DESK
from tests.browser.site import CONFIG, Site, Traffic, warmed_up
from tests.live import ADMIN_KEY, LiveGateway

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


@pytest.fixture(scope="package")
def site(_shared_postgres: str) -> Iterator[Site]:
    redis = servers.RedisServer()
    database = servers.new_database(_shared_postgres)
    try:
        try:
            redis.start()
        except servers.NoServerError as missing:
            pytest.skip(f"SERVER MISSING: {missing}")
        running = LiveGateway(CONFIG, redis_url=redis.url, database_url=database, workers=2)
        with running as gateway, Traffic(gateway) as traffic:
            warmed_up(gateway, traffic)
            made = Site(gateway, redis.url, database)
            made.wait_recorded()
            yield made
    finally:
        redis.close()
        servers.drop_database(_shared_postgres, database)


@pytest.fixture(scope="package")
def browser(site: Site) -> Iterator[Browser]:
    """After the site and before its end: while the browser is there, this thread has an event loop that runs."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        text = "no chromium on the PATH (Debian: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(f"BROWSER MISSING: {text}")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def new_page(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    complaints: list[str] = []
    contexts = []

    def note(message: ConsoleMessage) -> None:
        # a status a test asks for is logged as well; what it means is for the test
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def make(**options: object) -> Page:
        context = browser.new_context(base_url=site.url, viewport=DESK, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == [], "a script failed, or something was against the page's policy"


@pytest.fixture
def signed_in() -> Callable[[Page], Page]:
    def sign_in(page: Page) -> Page:
        page.goto("/admin")
        page.get_by_label("Admin key").fill(ADMIN_KEY)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/admin")
        return page

    return sign_in


@pytest.fixture
def page(new_page: Callable[..., Page], signed_in: Callable[[Page], Page]) -> Page:
    return signed_in(new_page())
