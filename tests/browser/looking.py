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
COLOURS = "runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']}"
BUT_COLOURS = (
    f"runOnly: {{type: 'tag', values: {TAGS}}}, rules: {{'target-size': {{enabled: true}},"
    " 'color-contrast': {enabled: false}, 'link-in-text-block': {enabled: false}}"
)
ALIKE = "tbody tr:nth-child(n+7), .api section article:nth-of-type(n+4)"
"""Further rows of a table are made by the same lines of a template: they would take most of the time."""
DRESSED = """
() => {
  const worn = (one) => one === document.documentElement ? "" : worn(one.parentElement) + " > " + one.localName
    + [...one.attributes].map(({name, value}) => name === "class" ? `.${value}` : `[${name}]`).sort().join("");
  const reads = (one) => one.matches("input, select, textarea") || [...one.childNodes].some((node) =>
    node.nodeType === Node.TEXT_NODE && node.nodeValue.trim());
  window.dressed = new Map();
  for (const one of document.body.querySelectorAll("*"))
    if (reads(one) && one.checkVisibility({visibilityProperty: true}) && !dressed.has(worn(one)))
      dressed.set(worn(one), one);
  return [...dressed.keys()];
}
"""
"""Whatever can be read, by what decides its colours: its element, classes and attributes, and those around it."""
LOOKED_AT: dict[Look, set[str]] = {look: set() for look in LOOKS}
"""In these clothes axe has seen something before, under this look: its colours take half of a run's time."""
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""After a new size or other colours: in the next frame a page hears of them, and in the one after it shows that."""


@contextmanager
def still(page: Page) -> Iterator[None]:
    """The overview renews its sections every two seconds: none is taken from somebody who is going through them."""
    page.evaluate("() => { if (window.listen) stop() }")
    yield
    page.evaluate("() => { if (window.listen) listen() }")


@contextmanager
def seen_as(page: Page, look: Look) -> Iterator[Page]:
    """The page under this look, and as it was afterwards."""
    page.emulate_media(color_scheme="dark" if look == "dark" else "light")
    page.set_viewport_size(PHONE if look == "phone" else DESK)
    page.evaluate(DRAWN)
    try:
        yield page
    finally:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(DESK)


def violations(page: Page, rules: str, where: str = "document") -> list[str]:
    """What axe has against this page, or a part of it, as it is now: the rule, and where."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found: list[Any] = page.evaluate(
        f"async () => (await axe.run({where}, {{{rules}, resultTypes: ['violations']}})).violations"
    )
    return [
        f"{one['id']}: {one['help']}: {node['target']} {node['html'][:160]}" for one in found for node in one["nodes"]
    ]


def check_accessible(page: Page) -> None:
    """
    Nothing to say for axe, and everything within the width of a phone.

    Takes rows that are `ALIKE` out of the page: what needs them comes before.
    """
    with still(page):
        page.evaluate("alike => document.querySelectorAll(alike).forEach(one => one.remove())", ALIKE)
        for look in LOOKS:
            with seen_as(page, look):
                found = _against(page, look)
                assert not found, "\n".join([f"{page.url}, {look}:", *found])
                if look == "phone":
                    too_wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
                    assert too_wide <= 0, f"{page.url} is {too_wide} px wider than a phone"


def _against(page: Page, look: Look) -> list[str]:
    """In the dark a page is the same but for its colours, on a phone but for where things are."""
    worn: list[str] = page.evaluate(DRESSED)
    new = [one for one in worn if one not in LOOKED_AT[look]]
    found = []
    if look == "light" or (look == "phone" and new):
        found += violations(page, BUT_COLOURS)
    if look != "phone" and new:
        page.evaluate("names => { window.unseen = names.map(name => dressed.get(name)) }", new)
        found += violations(page, COLOURS, "{include: unseen}")
    if not found:
        LOOKED_AT[look].update(new)
    return found


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
            page.screenshot(path=path, full_page=folder != SHOWN, animations="disabled")
