"""
Which controls do the pages have, and which of them has a test used?

A script in every page of these tests tells two things: which controls stand in it, and which are used, by a click or a
key as by a person. What the templates hold is read from their text. At the end each control has to have been
used (`tests/browser/test_with_nothing_left_out.py`): a new button without a test makes that one fail.

Controls of the same name in the same form are one: what names an item in them (``acme``, ``7``) is a star.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs

TEMPLATES = Path(__file__).parents[2] / "perpetuo/entrypoints/http/admin/templates"
TELLING = """
(() => {
  const named = (e) => e.localName === "button" || e.localName === "summary" || e.localName === "a"
    ? (e.textContent || "").replace(/\\s+/g, " ").trim() : e.name;
  const control = (e) => ({
    kind: e.matches("input, select, textarea") ? "field" : e.localName, name: named(e),
    place: e.localName === "a" ? e.getAttribute("href") : e.closest("form")?.getAttribute("action") ?? "",
  });
  const all = "button, summary, a[href], input:not([type=hidden]), select, textarea";
  const used = (event) => {
    const found = event.target.closest?.(all);
    if (found && found.matches("input, select, textarea") === (event.type === "input")) tell({used: [control(found)]});
  };
  addEventListener("click", used, true);
  addEventListener("input", used, true);
  addEventListener("DOMContentLoaded", () =>
    tell({path: location.pathname, seen: [...document.querySelectorAll(all)].map(control)}));
})();
"""
ITEMS = re.compile(r"\b(demo|shaky|down|acme|other|small|customer-\d+|web)\b|<[^>]*>|\d[\d,.]*")
KIND = re.compile(r"(?<=/)[0-9a-f-]{36}|(?<==)[^&]+|(?<=/tenants/)[^/?]+|(?<=/providers/)[^/?]+")
JINJA = re.compile(r"\{[%#].*?[%#]\}", re.DOTALL)
ANYWHERE = "\ue000"
"""A macro's controls are in the form of whoever calls it."""
VALUE = re.compile(r"\{\{.*?\}\}", re.DOTALL)


@attrs.frozen(order=True)
class Control:
    """``place``: where a link leads to, where a form is sent to."""

    kind: str
    name: str
    place: str


@attrs.define
class Record:
    """What was seen and used since the browser started."""

    seen: set[Control] = attrs.field(factory=set)
    used: set[Control] = attrs.field(factory=set)
    pages: dict[Control, str] = attrs.field(factory=dict)
    """A page that each was seen on."""

    def hear(self, told: dict[str, Any]) -> None:
        for one in told.get("used", ()):
            self.used.add(_control(one))
        for one in told.get("seen", ()):
            found = _control(one)
            self.seen.add(found)
            self.pages.setdefault(found, told["path"])

    def not_used(self) -> list[str]:
        """What pages had and no test has touched; links are followed by another test."""
        left = {one for one in self.seen - self.used if one.kind != "a"}
        return [f"{one.kind} “{one.name}” of {one.place or 'no form'}, on {self.pages[one]}" for one in sorted(left)]

    def not_seen(self) -> list[str]:
        """What templates have and no page of these tests had."""
        return [
            f"{template}: {one.kind} “{one.name}” of {one.place or 'no form'}"
            for template, one in in_templates()
            if not any(_is(one, other) for other in self.seen | self.used)
        ]

    def links(self) -> list[str]:
        """One address of each kind of link."""
        kinds = {KIND.sub("*", one.place): one.place for one in sorted(self.seen) if one.kind == "a"}
        return [place for place in kinds.values() if not place.startswith("#")]


def _control(told: dict[str, Any]) -> Control:
    name = told["name"] if told["kind"] == "a" else ITEMS.sub("*", told["name"])
    return Control(told["kind"], name, told["place"])


def _is(pattern: Control, found: Control) -> bool:
    """Is this what the template makes? A value in it may be anything; a link is what it leads to."""
    texts = [(pattern.place, found.place)]
    if pattern.kind != "a":
        texts.append((pattern.name, found.name))
    return pattern.kind == found.kind and all(
        re.fullmatch(".*".join(map(re.escape, text.split("\0"))), seen, re.DOTALL) for text, seen in texts
    )


def in_templates() -> Iterator[tuple[str, Control]]:
    """Every control of every template."""
    for path in sorted(TEMPLATES.glob("*.html")):
        text = VALUE.sub("\0", JINJA.sub("", path.read_text()))
        for control in _Controls(text).found:
            yield path.name, control


class _Controls(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[Control] = []
        self._form = ANYWHERE
        self._open: tuple[str, str] | None = None
        self._text = ""
        self.feed(text.replace("\0", "\ue000"))
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form":
            self._form = given.get("action", "")
        if tag in {"button", "summary"} or (tag == "a" and "href" in given):
            self._open, self._text = (tag, given["href"] if tag == "a" else self._form), ""
        if tag in {"input", "select", "textarea"} and given.get("type") != "hidden":
            self._add("field", given.get("name", ""), self._form)

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if self._open is not None and tag == self._open[0]:
            self._add(tag, " ".join(self._text.split()), self._open[1])
            self._open = None
        if tag == "form":
            self._form = ANYWHERE

    def _add(self, kind: str, name: str, place: str) -> None:
        self.found.append(Control(kind, name.replace("\ue000", "\0"), place.replace("\ue000", "\0")))
