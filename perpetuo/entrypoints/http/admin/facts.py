"""
What is there to know, in words and figures?

Values of the domain as plain dictionaries: the JSON of ``/admin/api`` and what the templates show, from one source.
Money is decimal USD as text, instants are ISO 8601 in UTC, spans say their unit in their name. Keys appear by name.
"""

from collections.abc import Sequence
from typing import Any

Facts = dict[str, Any]
SECOND_US = 1_000_000


def listed(items: Sequence[Facts], unavailable: str | None = None) -> Facts:
    """A list that may be missing because its store is away."""
    return {"items": list(items), "unavailable": unavailable}


def span(seconds: int) -> str:
    """A span in the unit one would say it in."""
    for size, unit in ((172_800, "d"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds // {'d': 86_400, 'h': 3_600, 'min': 60}[unit]} {unit}"
    return f"{seconds} s"


def percent_of(part: int, whole: int | None) -> float | None:
    """To one decimal, rounded down, so that 100 means all of it."""
    if whole is None:
        return None
    return part * 1_000 // whole / 10 if whole > 0 else 100.0
