"""How long is each bar of a call's timeline, in thousandths of the whole?"""

from collections.abc import Sequence

from perpetuo.entrypoints.http.admin.facts import Facts

WHOLE = 1_000
THINNEST = 4
"""What is too short to be seen gets so much."""


def bars(steps: Sequence[Facts], total_ms: float) -> list[Facts]:
    """``x`` and ``width`` of each step; one whose start is not known begins where the one before it ends."""
    ends = [(one["start_ms"] or 0.0) + one["ms"] for one in steps]
    whole = max([total_ms, *ends, 0.001])
    drawn, cursor = [], 0.0
    for one in steps:
        start = cursor if one["start_ms"] is None else one["start_ms"]
        cursor = start + one["ms"]
        width = min(WHOLE, max(THINNEST, round(one["ms"] / whole * WHOLE)))
        drawn.append({"x": min(round(start / whole * WHOLE), WHOLE - width), "width": width})
    return drawn


def parts(found: Sequence[Facts]) -> list[Facts]:
    """The same for parts that follow each other without a gap; those of no time are left out."""
    total = sum(one["ms"] for one in found)
    drawn, cursor = [], 0.0
    for one in found:
        if one["ms"] > 0:
            width = max(THINNEST, round(one["ms"] / total * WHOLE))
            drawn.append({"part": one["part"], "x": min(round(cursor / total * WHOLE), WHOLE - width), "width": width})
        cursor += one["ms"]
    return drawn
