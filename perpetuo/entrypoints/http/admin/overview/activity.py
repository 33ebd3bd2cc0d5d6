"""How much, how well, how fast and for how much money, over an hour, a day or a week?"""

from typing import Any

import attrs

from perpetuo.bootstrap import Container
from perpetuo.domain.model.activity import MINUTE_US, Activity, Slice
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.histogram import Histogram
from perpetuo.domain.model.money import usd
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.refusals import RefusedError

PERCENTS = (50, 95, 99)


@attrs.frozen
class Span:
    """``minutes`` in steps of ``step``."""

    name: str
    words: str
    minutes: int
    step: int


SPANS = {
    span.name: span for span in (
        Span("1h", "hour", 60, 1), Span("24h", "24 hours", 1_440, 15), Span("7d", "7 days", 10_080, 120),
    )
}  # fmt: skip


def span_of(name: str | None) -> Span:
    """An hour when nothing is said; raises `RefusedError` for what is no span."""
    found = SPANS.get(name or "1h")
    if found is None:
        raise RefusedError(Refusal(Reason.INVALID_REQUEST, f"`span` is one of {', '.join(SPANS)}.", "span"))
    return found


async def activity(container: Container, span: Span) -> Facts:
    """The sums of the span, and its steps; also those in which nothing happened."""
    now_us = container.system.now_us()
    found = await asked(container.store.activity(now_us - span.minutes * MINUTE_US, now_us, span.step))
    of_span: Facts = {"span": span.name, "words": span.words, "step_minutes": span.step}
    if isinstance(found, Away):
        return {**of_span, "unavailable": found.why, "total": None, "steps": [], "minutes_missing": None}
    return {
        **of_span,
        "unavailable": None,
        "total": figures(found.total),
        "steps": _steps(found, now_us, span),
        "minutes_missing": found.behind,
    }


def _steps(found: Activity, now_us: int, span: Span) -> list[Facts]:
    known = {one.minute: one for one in found.slices}
    now = now_us // MINUTE_US
    first = (now - span.minutes) // span.step * span.step
    return [
        {"at": iso(minute * MINUTE_US), **figures(known.get(minute, Slice(minute=minute)))}
        for minute in range(first, now + 1, span.step)
    ]


def figures(one: Slice) -> Facts:
    """Times in ms; `None`: there was no call to tell them from."""
    tally = one.tally
    return {
        "calls": tally.calls,
        "refused": tally.refused,
        "errors": tally.errors,
        "cost_usd": usd(tally.cost_nano_usd),
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "latency_ms": _percentiles(one.latency),
        "first_token_ms": _percentiles(one.first_token),
    }


def _percentiles(times: Histogram) -> dict[str, Any]:
    told = {f"p{percent}": times.percentile(percent) for percent in PERCENTS}
    return {name: None if value is None else round(value, 1) for name, value in told.items()}
