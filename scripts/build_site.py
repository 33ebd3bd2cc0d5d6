"""
How do the Markdown files of this repository become a site that can be read without a network?

Rule 1: the files are written to be read where they lie. Only a copy of them, in ``build/docs``, is changed for the
site: the README becomes its first page, and links to what is no page (sources, tests) become plain text.
Rule 2: a broken link or anchor, or anything loaded from elsewhere: exit 1.
Rule 3: the pages work when opened as files. Browsers start no workers there, and search is one: a small script by the
theme's author (``scripts/site``, MIT) stands in for them. The theme would fetch it from a public server.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"

FETCHED_SHIM = "https://unpkg.com/iframe-worker/shim"
SHIM = "iframe-worker.js"

PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "scripts/site/iframe-worker.js": SHIM,
    "scripts/site/site.css": "site.css",
    **{name: name for name in ("bench/RESULTS.md", "bench/SCALE.md", "bench/SOAK.md")},
    **{name: name for name in ("bench/cpu.png", "bench/scale.png", "bench/soak.png")},
}
"""Where files outside ``docs`` stand in the site."""

FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:`[^`]*`|[^\[\]])*)\]\(([^)\s]+)\)")
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")


def main() -> int:
    lay_out()
    built = subprocess.run([_zensical(), "build", "--strict", "--clean"], cwd=ROOT, check=False)
    own_shim()
    foreign = list(loaded_from_elsewhere())
    for line in foreign:
        print(line, file=sys.stderr)
    if built.returncode or foreign:
        return 1
    print(f"The site is in {(SITE / 'index.html').relative_to(ROOT)}")
    return 0


def _zensical() -> str:
    return str(Path(sys.executable).with_name("zensical"))


def lay_out() -> None:
    """Fill ``build/docs`` anew."""
    shutil.rmtree(SOURCES, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    places = {**PLACES, **{f"docs/{path}": path for path in _files(ROOT / "docs")}}
    for source, place in places.items():
        to = SOURCES / place
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            to.write_text(page((ROOT / source).read_text(), source, places))
        else:
            shutil.copyfile(ROOT / source, to)


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def page(text: str, source: str, places: dict[str, str]) -> str:
    """``text`` of the file ``source``, with its links as they are in the site."""

    def moved(match: re.Match[str]) -> str:
        image, label, link = match.groups()
        path, hash_, anchor = link.partition("#")
        if urlsplit(link).scheme or not path:
            return match[0]
        target = os.path.normpath(PurePosixPath(source).parent / path)
        place = places.get(target) or places.get(f"{target}/README.md")
        if place is None:
            return label if (ROOT / target).exists() else match[0]  # what is nowhere is the builder's to report
        return f"{image}[{label}]({os.path.relpath(place, PurePosixPath(places[source]).parent)}{hash_}{anchor})"

    return "".join(piece if piece.startswith("```") else LINK.sub(moved, piece) for piece in FENCE.split(text))


def own_shim() -> None:
    for file in SITE.rglob("*.html"):
        path = os.path.relpath(SITE / SHIM, file.parent)
        file.write_text(file.read_text().replace(FETCHED_SHIM, path))


def loaded_from_elsewhere() -> Iterator[str]:
    """A page that is read without a network must not wait for one."""
    for file in sorted(SITE.rglob("*.html")):
        for address in LOADED.findall(file.read_text()):
            yield f"{file.relative_to(ROOT)} loads {address}"


if __name__ == "__main__":
    sys.exit(main())
