"""
What went on in a span of time, summed up?

Rule 1: a call belongs to the minute of its id, which is when it came in; so a minute may still grow when it is over.
Rule 2: sums of two spans are added; percentiles are told from the sum, never averaged.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from perpetuo.domain.model.histogram import Histogram, merged

MINUTE_US = 60_000_000


@attrs.frozen
class Scope:
    """
    Of what: everything, one provider, one tenant by its models or by its keys.

    Only the first two know how long calls took; refusals belong to everything, to a tenant and to a key.
    """

    cut: Literal["all", "provider", "tenant", "key"] = "all"
    name: str = ""


EVERYTHING = Scope()


@attrs.frozen(kw_only=True)
class Tally:
    """Counts and sums. ``calls`` is the sum of the five outcomes; a refusal is none of them."""

    calls: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    truncated: int = 0
    abandoned: int = 0
    refused: int = 0
    cost_nano_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def errors(self) -> int:
        """Calls that did not give what was asked for, and not because the client left."""
        return self.failed + self.truncated + self.abandoned


FIGURES = tuple(field.name for field in attrs.fields(Tally))


def added(tallies: Iterable[Tally]) -> Tally:
    sums = dict.fromkeys(FIGURES, 0)
    for tally in tallies:
        for name in FIGURES:
            sums[name] += getattr(tally, name)
    return Tally(**sums)


@attrs.frozen(kw_only=True)
class Slice:
    """One step of a span, from ``minute`` (since the epoch) on."""

    minute: int
    tally: Tally = Tally()
    latency: Histogram = Histogram()
    first_token: Histogram = Histogram()


@attrs.frozen(kw_only=True)
class Activity:
    """Slices in the order of time; steps in which nothing happened are left out."""

    slices: Sequence[Slice]
    behind: int = 0
    """Minutes of the span whose calls have not all been summed up yet."""

    @property
    def total(self) -> Slice:
        first = self.slices[0].minute if self.slices else 0
        return Slice(
            minute=first,
            tally=added(one.tally for one in self.slices),
            latency=merged(one.latency for one in self.slices),
            first_token=merged(one.first_token for one in self.slices),
        )
