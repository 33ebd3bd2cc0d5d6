"""
How is a page looked at: by somebody who sees, by a screen reader, on a phone?

    check_accessible(page)      axe finds nothing, light and dark and 390 px wide, and nothing scrolls sideways
    shots(page, "overview")     overview.png, overview-dark.png, overview-phone.png

Screenshots go to a temporary folder, or to ``docs/screenshots`` with ``SCREENSHOTS=docs``.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, ViewportSize

ROOT = Path(__file__).parents[2]
DESK = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)
Look = Literal["light", "dark", "phone"]
LOOKS: tuple[Look, ...] = ("light", "dark", "phone")
SUFFIX: dict[Look, str] = {"light": "", "dark": "-dark", "phone": "-phone"}
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"


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


def violations(page: Page) -> list[str]:
    """What axe has against this page as it is now: the rule, and where."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found: list[Any] = page.evaluate(f"async () => (await axe.run({RULES})).violations")
    return [
        f"{one['id']}: {one['help']}: {node['target']} {node['html'][:160]}" for one in found for node in one["nodes"]
    ]


def check_accessible(page: Page) -> None:
    """Nothing to say for axe, and everything within the width of a phone."""
    for look in LOOKS:
        with seen_as(page, look):
            found = violations(page)
            assert not found, "\n".join([f"{page.url}, {look}:", *found])
            if look == "phone":
                too_wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
                assert too_wide <= 0, f"{page.url} is {too_wide} px wider than a phone"


def shots(page: Page, name: str, *, whole: bool = True) -> list[Path]:
    """A picture of each look; ``whole``: beyond the first screen too."""
    folder = ROOT / "docs/screenshots" if os.environ.get("SCREENSHOTS") == "docs" else _somewhere()
    made = []
    for look in LOOKS:
        with seen_as(page, look):
            page.wait_for_timeout(100)  # a chart draws itself anew in the next frame
            made.append(folder / f"{name}{SUFFIX[look]}.png")
            page.screenshot(path=made[-1], full_page=whole, animations="disabled")
    return made


def _somewhere() -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or Path(tempfile.gettempdir()) / "perpetuo-screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
