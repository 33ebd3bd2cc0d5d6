"""
What does an event's id say about its time?

A UUIDv7 starts with the milliseconds since the epoch, so a day is a range of ids: partitions, paging and
retention all go by that range.
"""

from collections.abc import Iterable
from datetime import date

DAY_MS = 86_400_000
EPOCH = date(1970, 1, 1).toordinal()
LAST_DAY = date.max.toordinal() - EPOCH


def floor_id(ms: int) -> str:
    """The smallest UUID a millisecond can have."""
    digits = f"{max(ms, 0):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def day_of(event_id: str) -> date | None:
    """The UTC day a UUIDv7 was made on; ``None``: it carries no day."""
    digits = event_id.replace("-", "")
    try:
        day = int(digits[:12], 16) // DAY_MS
    except ValueError:
        return None
    return date.fromordinal(EPOCH + day) if digits[12:13] == "7" and day < LAST_DAY else None


def days_of(event_ids: Iterable[str]) -> set[date]:
    """
    The days of many ids, and perhaps the next one a minute early.

    8 digits are 66 s, so that a batch has a handful of prefixes; 2.5 µs an id would be a lot here.
    """
    prefixes = {(event_id[:8], event_id[14:15]) for event_id in event_ids}
    ends = (f"{prefix}{end}{version}" for prefix, version in prefixes for end in ("0000", "ffff"))
    return {day for end in ends if (day := day_of(end)) is not None}


def day_range(day: date) -> tuple[str, str]:
    """The first id of ``day``, and the first after it."""
    start = (day.toordinal() - EPOCH) * DAY_MS
    return floor_id(start), floor_id(start + DAY_MS)
