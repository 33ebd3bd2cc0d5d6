"""
How full is Redis, and is it set up so that it forgets nothing?

Looked at once a second, so that nobody needs a round trip to know: refusals are remembered below 50 % of
``maxmemory``, answers kept below 70 %, calls admitted below 85 %, so that settlements and events always find room.
``INFO`` and not ``CONFIG``, which managed Redis blocks.
"""

import attrs

NOTES_BELOW, ANSWERS_BELOW, ADMISSION_BELOW = 50, 70, 85
"""Percent of ``maxmemory``."""
KEEPS = "noeviction"


class UnfitRedisError(Exception):
    """Redis is there, but must not be used as it is; the text says how to mend it."""


@attrs.frozen
class Room:
    """Bytes as of the last look; a ``maximum`` of 0 is none. ``policy`` is what Redis does when it is full."""

    used: int = 0
    maximum: int = 0
    policy: str = KEEPS
    looked: bool = False

    @classmethod
    def of(cls, facts: dict[str, str]) -> "Room":
        return cls(
            used=int(facts.get("used_memory", 0)),
            maximum=int(facts.get("maxmemory", 0)),
            policy=facts.get("maxmemory_policy", KEEPS),
            looked=True,
        )

    def below(self, percent: int) -> bool:
        return self.maximum == 0 or self.used * 100 < self.maximum * percent

    def problem(self) -> str | None:
        """In an operator's words; ``None``: nothing."""
        if self.policy != KEEPS:
            return eviction_text(self.policy)
        if not self.below(ADMISSION_BELOW):
            return f"Redis is full ({self.used:,} of {self.maximum:,} bytes): no call is admitted until there is room"
        if self.looked and self.maximum == 0:
            return "Redis has no maxmemory: it grows until the machine kills it; set maxmemory"
        return None


def eviction_text(policy: str) -> str:
    return (
        f"Redis may throw away budgets and calls in flight (its maxmemory-policy is {policy}). "
        f"Set it to {KEEPS}: `redis-cli CONFIG SET maxmemory-policy {KEEPS}`, and `maxmemory-policy {KEEPS}` in "
        "redis.conf or your provider's settings; then start again."
    )
