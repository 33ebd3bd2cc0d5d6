"""Which choices have a page of their own?"""

from collections.abc import Iterator
from pathlib import Path

from scripts.reference.markdown import GENERATED

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"


def lines() -> Iterator[str]:
    yield from ["# Decisions", "", GENERATED, ""]
    yield from [
        "Choices that a newcomer would question, each with what else was possible and why it was not taken.",
        "",
    ]
    for file in sorted(FOLDER.glob("0*.md")):
        number, title = file.read_text().splitlines()[0].removeprefix("# ").split(" ", 1)
        yield f"- {number} [{title}]({file.name})"
