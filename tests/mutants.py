"""
Which bugs are planted, on purpose, and what caught them?

`make mutants` changes one line at a time in a policy or in a script and runs the traces over it; what they don't notice
is a hole in them. The ten bugs of `TEN` are there by name for policies and scripts; the others are our own.
"""

from collections.abc import Iterable
from typing import Any

TEN = (
    "≥ for > in rate",
    "claim kept at a refusal",
    "no fence check",
    "double settle",
    "wrong day",
    "missing TTL",
    "tombstone ignored",
    "hold not released",
    "probe lease unchecked",
    "stale generation counted",
)
"""A mutant whose name begins with one of these is a planting of it."""

PLANTED, CAUGHT_BY = "planted", "caught by"
"""Properties of a test: where and what was planted, and the trace that noticed."""


def missing(names: Iterable[str]) -> list[str]:
    """Those of the ten that are not among ``names``."""
    known = tuple(names)
    return [bug for bug in TEN if not any(name == bug or name.startswith(f"{bug}: ") for name in known)]


def table(reports: Iterable[Any]) -> list[str]:
    """Every planted bug and what caught it, and how many were; nothing when none was planted."""
    rows = []
    for report in reports:
        said = dict(report.user_properties)
        if PLANTED in said and report.when == "call":
            rows.append((said[PLANTED], said.get(CAUGHT_BY) or "NOTHING"))
    if not rows:
        return []
    width = max(len(bug) for bug, _ in rows)
    caught = sum(by != "NOTHING" for _, by in rows)
    return [*(f"{bug:<{width}}  {by}" for bug, by in rows), f"{caught}/{len(rows)} planted bugs were caught"]
