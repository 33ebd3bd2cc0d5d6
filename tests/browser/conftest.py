"""
Fixtures for pages: the site, and a browser that is signed in.

| fixture | gives |
|---|---|
| ``site`` | the gateway of `tests.browser.site`, shared by all tests of this folder: put back what you change |
| ``page`` | a new tab of somebody who is signed in; the test fails when a script did, or broke the page's policy |
| ``new_page(**options)`` | further ones, each signed out and with a cookie jar of its own |
| ``signed_in(page, name)`` | signs its browser in, without the form |
| ``record`` | which controls were seen and used so far: `tests.browser.driven` |

A machine without chromium skips these tests, loudly; with ``CI=true`` it fails them.
"""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, WebError, expect, sync_playwright

from tests.browser.driven import TELLING, Record
from tests.browser.looking import DESK
from tests.browser.site import CONFIG, SLOW, Site, Traffic, warmed_up
from tests.live import LiveGateway
from tests.stores import own_database, running_redis

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions",
    # one process less for what is drawn, and one for all pages of a context: they are of one site
    "--in-process-gpu", "--disable-software-rasterizer", "--num-raster-threads=1", "--disable-site-isolation-trials",
]  # fmt: skip


@pytest.fixture(scope="package")
def site(_shared_postgres: str) -> Iterator[Site]:
    with running_redis("--maxmemory", "256mb") as redis, own_database(_shared_postgres) as database:
        running = LiveGateway(CONFIG, redis_url=redis.url, database_url=database, workers=2)
        with running as gateway, Traffic(gateway) as traffic:
            warmed_up(gateway, traffic)
            made = Site(gateway, redis.url, database)
            made.wait_recorded()
            if os.environ.get("SCREENSHOTS"):
                made.given_a_past()
            yield made


@pytest.fixture(scope="package")
def browser(site: Site) -> Iterator[Browser]:
    """After the site and before its end: while the browser is there, this thread has an event loop that runs."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        text = "no chromium on the PATH (Debian: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(f"BROWSER MISSING: {text}")
    expect.set_options(timeout=SLOW * 1_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=SLOW * 1_000)
        yield running
        running.close()


@pytest.fixture(scope="package")
def record() -> Record:
    return Record()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    assert found == [], "a script failed, or something was against the page's policy"


@pytest.fixture
def new_page(browser: Browser, site: Site, record: Record, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    contexts: list[BrowserContext] = []

    def make(**options: object) -> Page:
        contexts.append(_new_context(browser, site, record, **options))
        _listen(contexts[-1], complaints)
        return contexts[-1].new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="package")
def _shared_context(browser: Browser, site: Site, record: Record) -> BrowserContext:
    """For every test that needs no other: a context of its own costs a process of its own, half a second of CPU."""
    return _new_context(browser, site, record)


def _new_context(browser: Browser, site: Site, record: Record, **options: object) -> BrowserContext:
    context = browser.new_context(base_url=site.url, viewport=DESK, **options)  # type: ignore[arg-type]
    context.set_default_timeout(SLOW * 1_000)
    context.expose_binding("tell", lambda _, told: record.hear(told))
    context.add_init_script(TELLING)
    return context


def _listen(context: BrowserContext, complaints: list[str]) -> Callable[[], None]:
    """Hear of what goes wrong in any page; calling what comes back ends that."""

    def note(message: ConsoleMessage) -> None:
        # a status a test asks for is logged as well; what it means is for the test
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def failed(error: WebError) -> None:
        complaints.append(str(error.error))

    def asked(dialog: Dialog) -> None:
        complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    context.on("console", note)
    context.on("weberror", failed)
    context.on("dialog", asked)

    def end() -> None:
        context.remove_listener("console", note)
        context.remove_listener("weberror", failed)
        context.remove_listener("dialog", asked)

    return end


@pytest.fixture
def signed_in(site: Site) -> Callable[..., Page]:
    def sign_in(page: Page, name: str = "PERPETUO_ADMIN_KEY", hours_ago: float = 0) -> Page:
        page.context.add_cookies(site.cookies(name, hours_ago))
        return page

    return sign_in


@pytest.fixture
def page(_shared_context: BrowserContext, signed_in: Callable[..., Page], complaints: list[str]) -> Iterator[Page]:
    end = _listen(_shared_context, complaints)
    _shared_context.clear_cookies()
    first = _shared_context.pages[0] if _shared_context.pages else _shared_context.new_page()
    yield signed_in(first)
    for tab in _shared_context.pages[1:]:
        tab.close()
    first.unroute_all()
    first.goto("about:blank")
    end()
