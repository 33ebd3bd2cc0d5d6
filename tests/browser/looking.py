"""
How is a page looked at: by somebody who sees, by a screen reader, on a phone?

    check_accessible(page)      axe finds nothing, light and dark and 390 px wide, and nothing scrolls sideways
    shots(page, "overview")     overview.png, overview-dark.png, overview-phone.png, if pictures are asked for

``SCREENSHOTS=docs`` renews the pictures that ``docs/dashboard.md`` shows. Any other value is a folder, for all of them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, ViewportSize

ROOT = Path(__file__).parents[2]
SHOWN = ROOT / "docs/screenshots"
SHOWING = ROOT / "docs/dashboard.md"
DESK = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)
Look = Literal["light", "dark", "phone"]
LOOKS: tuple[Look, ...] = ("light", "dark", "phone")
SUFFIX: dict[Look, str] = {"light": "", "dark": "-dark", "phone": "-phone"}
TAGS = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']"
EVERYTHING = f"runOnly: {{type: 'tag', values: {TAGS}}}, rules: {{'target-size': {{enabled: true}}}}"
BUT_COLOURS = EVERYTHING.replace("rules: {", "rules: {'color-contrast': {enabled: false}, ")
COLOURS = "runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']}"
RULES: dict[Look, str] = {"light": EVERYTHING, "dark": COLOURS, "phone": BUT_COLOURS}
"""In the dark a page is the same but for its colours, on a phone but for where things are."""
ALIKE = "tbody tr:nth-child(n+7), .api section article:nth-of-type(n+4)"
"""Further rows of a table are made by the same lines of a template: they would take most of the time."""


@contextmanager
def seen_as(page: Page, look: Look) -> Iterator[Page]:
    """The page under this look, and as it was afterwards."""
    page.emulate_media(color_scheme="dark" if look == "dark" else "light")
    page.set_viewport_size(PHONE if look == "phone" else DESK)
    try:
        yield page
    finally:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(DESK)


def violations(page: Page, rules: str) -> list[str]:
    """What axe has against this page as it is now: the rule, and where."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found: list[Any] = page.evaluate(
        f"async () => (await axe.run({{{rules}, resultTypes: ['violations']}})).violations"
    )
    return [
        f"{one['id']}: {one['help']}: {node['target']} {node['html'][:160]}" for one in found for node in one["nodes"]
    ]


def check_accessible(page: Page) -> None:
    """
    Nothing to say for axe, and everything within the width of a phone.

    Takes rows that are `ALIKE` out of the page: what needs them comes before.
    """
    page.evaluate("alike => document.querySelectorAll(alike).forEach(one => one.remove())", ALIKE)
    for look in LOOKS:
        with seen_as(page, look):
            found = violations(page, RULES[look])
            assert not found, "\n".join([f"{page.url}, {look}:", *found])
            if look == "phone":
                too_wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
                assert too_wide <= 0, f"{page.url} is {too_wide} px wider than a phone"


def shots(page: Page, name: str) -> None:
    """A picture of each look; for the documentation of the first screen, else of the whole page."""
    wanted = os.environ.get("SCREENSHOTS")
    if not wanted:
        return
    folder = SHOWN if wanted == "docs" else Path(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    text = SHOWING.read_text()
    for look in LOOKS:
        path = folder / f"{name}{SUFFIX[look]}.png"
        if folder == SHOWN and f"screenshots/{path.name})" not in text:
            continue
        with seen_as(page, look):
            page.wait_for_timeout(100)  # a chart draws itself anew in the next frame
            page.screenshot(path=path, full_page=folder != SHOWN, animations="disabled")
