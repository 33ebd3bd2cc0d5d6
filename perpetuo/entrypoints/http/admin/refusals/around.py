"""
When was a call made of which only the request id is known?

An id that the gateway gave it is a UUIDv7 and begins with its time; so do many of those that clients send. A refusal is
counted in the minute in which it was said, which may be the one after.
"""

import uuid
from typing import Any

import attrs

from perpetuo.entrypoints.http.account import iso

MINUTE_US = 60_000_000
MOST_AHEAD_US = MINUTE_US
"""A client's clock may be ahead of ours."""
OLDEST_US = 400 * 86_400_000_000
"""What would be older is a number of another meaning."""
CALLS_LAST_US = 660_000_000
"""A call may last so long; its row comes at its end."""


@attrs.frozen
class Around:
    """When a call was made, by its id."""

    made_us: int

    @property
    def since_us(self) -> int:
        return self.made_us - self.made_us % MINUTE_US

    @property
    def until_us(self) -> int:
        return self.since_us + 2 * MINUTE_US

    def may_go_on(self, now_us: int) -> bool:
        return now_us - self.made_us < CALLS_LAST_US

    def told(self) -> str:
        return f"By its id the call was made at {iso(self.made_us)[:19].replace('T', ' ')} UTC."

    def facts(self) -> dict[str, Any]:
        """``since`` and ``until``: in which time to look among refusals."""
        return {"made_at": iso(self.made_us), "since": _minute(self.since_us), "until": _minute(self.until_us)}


def around(request_id: str | None, now_us: int) -> Around | None:
    """``None``: the id says nothing of its time."""
    try:
        found = uuid.UUID(request_id or "")
    except ValueError:
        return None
    made_us = (found.int >> 80) * 1_000
    if found.version != 7 or not now_us - OLDEST_US < made_us < now_us + MOST_AHEAD_US:
        return None
    return Around(made_us)


def _minute(at_us: int) -> str:
    """As a filter takes it."""
    return f"{iso(at_us)[:16]}Z"
