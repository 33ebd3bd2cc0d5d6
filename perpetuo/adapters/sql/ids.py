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


def ms_of(event_id: str | None) -> int | None:
    """Milliseconds since the epoch, the first 48 bits of a UUIDv7 or a `floor_id`; ``None``: there are none in it."""
    try:
        return int((event_id or "").replace("-", "")[:12], 16)
    except ValueError:
        return None


def day_of(event_id: str) -> date | None:
    """The UTC day a UUIDv7 was made on; ``None``: it carries no day."""
    ms = ms_of(event_id)
    if ms is None or event_id.replace("-", "")[12:13] != "7":
        return None
    day = ms // DAY_MS
    return date.fromordinal(EPOCH + day) if day < LAST_DAY else None


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
