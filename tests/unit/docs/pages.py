"""What do tests of the documentation need to know of its pages?"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", text)


def shell_lines(text: str) -> Iterator[str]:
    """Lines of code blocks that are for a shell."""
    for language, block in FENCE.findall(text):
        if language in {"sh", "bash"}:
            yield from block.splitlines()


def spans(text: str) -> list[str]:
    """Pieces of code in running text."""
    return SPAN.findall(prose(text))


def table_rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table below ``## heading``."""
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines[2:]]


def anchors(text: str) -> set[str]:
    """Anchors that headings get: lower case, spaces as dashes, most punctuation gone."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
