"""Does the site say what the files say?"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import build_site
from scripts.reference import __main__ as reference
from tests.unit.docs.pages import ROOT

PLACES = {"README.md": "index.md", "docs/a.md": "a.md", "docs/x/README.md": "x/README.md", "docs/x/b.md": "x/b.md"}


@pytest.mark.parametrize(
    ("source", "written", "in_the_site"),
    [
        ("README.md", "[A](docs/a.md#one)", "[A](a.md#one)"),
        ("docs/a.md", "[home](../README.md)", "[home](index.md)"),
        ("docs/x/b.md", "![A](../a.md)", "![A](../a.md)"),
        ("docs/a.md", "[all](x/)", "[all](x/README.md)"),
        ("docs/a.md", "[here](#there)", "[here](#there)"),
        ("docs/a.md", "[away](https://example.com/a.md)", "[away](https://example.com/a.md)"),
        ("docs/a.md", "[`code`](../scripts/build_site.py)", "`code`"),
        ("docs/a.md", "[nowhere](nowhere.md)", "[nowhere](nowhere.md)"),
        ("docs/a.md", "```sh\n[home](../README.md)\n```", "```sh\n[home](../README.md)\n```"),
    ],
)
def test_links_lead_to_the_same_place(source: str, written: str, in_the_site: str) -> None:
    """Pages move, sources have no page, and what leads nowhere stays for the builder to complain about."""
    assert build_site.page(written, source, PLACES) == in_the_site


def test_every_page_can_be_found_from_every_other() -> None:
    """The navigation names each page once, and none that is not there; single decisions are in their list."""
    named = list(_paths(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    outside = {place for place in build_site.PLACES.values() if place.endswith(".md") and "/" not in place}
    docs = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    decisions = {path for path in docs if path.startswith("decisions/0")}
    assert sorted(named) == sorted((docs - decisions) | outside)


def test_a_page_that_loads_something_from_elsewhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts, styles and pictures; a link that somebody may follow is none."""
    monkeypatch.setattr(build_site, "SITE", tmp_path)
    monkeypatch.setattr(build_site, "ROOT", tmp_path)
    page = (
        '<a href="https://a.example"></a><link rel="stylesheet" href="https://b.example/x.css"><img src=//c.example/x>'
    )
    (tmp_path / "x.html").write_text(page + '<script src="own.js"></script>')
    assert list(build_site.loaded_from_elsewhere()) == [
        "x.html loads https://b.example/x.css",
        "x.html loads //c.example/x",
    ]


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    """Whoever changes what can be looked up runs `make reference`."""
    assert reference.current(name) == reference.text(name), "run: make reference"


def _paths(nav: list[Any]) -> Iterator[str]:
    for item in nav:
        match item:
            case str():
                yield item
            case dict():
                for value in item.values():
                    yield from [value] if isinstance(value, str) else _paths(value)
