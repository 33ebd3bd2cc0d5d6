"""What did a tenant do in the last 24 hours: by the hour, with which models, by which keys?"""

import asyncio
from collections.abc import Mapping

from perpetuo.bootstrap import Container
from perpetuo.domain.model.activity import MINUTE_US, Activity, Scope, Tally
from perpetuo.domain.model.money import usd
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.stores import Away, asked

HOUR = 60
HOURS = 24
TOP = 10


async def usage(container: Container, tenant: str) -> Facts:
    """The hour that goes on, and the 23 before it."""
    now_us = container.system.now_us()
    first = now_us // MINUTE_US // HOUR * HOUR - (HOURS - 1) * HOUR
    whole, by_key = Scope("tenant", tenant), Scope("key", tenant)
    went, models, keys = await asyncio.gather(
        asked(container.store.activity(first * MINUTE_US, now_us, HOUR, whole)),
        asked(container.store.parts(first * MINUTE_US, now_us, whole)),
        asked(container.store.parts(first * MINUTE_US, now_us, by_key)),
    )
    if isinstance(went, Away) or isinstance(models, Away) or isinstance(keys, Away):
        why = next(one.why for one in (went, models, keys) if isinstance(one, Away))
        return {"unavailable": why, "total": None, "hours": [], "models": None, "keys": None, "minutes_missing": None}
    return {
        "unavailable": None,
        "total": figures(went.total.tally),
        "hours": _hours(went, first),
        "models": top(models),
        "keys": top(keys),
        "minutes_missing": went.behind,
    }


def _hours(went: Activity, first: int) -> list[Facts]:
    """Also those in which nothing happened."""
    known = {one.minute: one.tally for one in went.slices}
    return [
        {"at": iso(minute * MINUTE_US), **figures(known.get(minute, Tally()))}
        for minute in range(first, first + HOURS * HOUR, HOUR)
    ]


def figures(tally: Tally) -> Facts:
    return {
        "calls": tally.calls,
        "refused": tally.refused,
        "errors": tally.errors,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "cached_tokens": tally.cached_tokens,
        "cost_usd": usd(tally.cost_nano_usd),
    }


def top(parts: Mapping[str, Tally]) -> Facts:
    """The dearest first, then the busiest; ``others``: how many more there are."""
    named = {name: tally for name, tally in parts.items() if name and (tally.calls or tally.refused)}
    ranked = sorted(named.items(), key=lambda one: (-one[1].cost_nano_usd, -one[1].calls, one[0]))
    items = [{"name": name, **figures(tally)} for name, tally in ranked[:TOP]]
    return {"items": items, "others": max(0, len(ranked) - TOP)}
