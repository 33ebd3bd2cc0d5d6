"""
What was refused, by the minute?

A refusal has no row of its own, so that a flood can't fill a table: of each minute, tenant, key and reason the first is
kept with its request id. Whoever asks for another is told so.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.admin.events.asked import instant_us
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.refusals.facts import refusal
from perpetuo.entrypoints.http.admin.stores import Away, asked

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
FILTERS = ("request_id", "tenant_id", "reason", "since")
MOST_TEXT = 200
NOT_KEPT = (
    "No refusal is kept under this request id. Refusals are counted by the minute, and only the first of each minute,"
    " tenant, key and reason keeps its request id: look by tenant and time. A call that was admitted is an event."
)


NOTHING = "Nothing of this kind was refused in this time."


@attrs.frozen
class Wanted:
    since_us: int
    tenant: str | None = None
    reason: str | None = None
    request_id: str | None = None


def wanted(given: Mapping[str, Any], now_us: int) -> Wanted:
    """What an address asks for; raises `ValueError` when ``since`` can't be meant."""
    since = given.get("since")
    since_us = now_us - HOUR_US if since is None else instant_us(since, now_us)
    return Wanted(since_us, given.get("tenant_id"), given.get("reason"), given.get("request_id"))


async def refusals(container: Container, span_us: int, tenant: str | None = None) -> Facts:
    """By the minute, newest first."""
    return await search(container, Wanted(container.system.now_us() - span_us, tenant))


async def search(container: Container, wanted: Wanted) -> Facts:
    """By the minute, newest first; ``hint`` says why there is nothing."""
    rows = await asked(
        container.store.refusals(
            wanted.since_us - wanted.since_us % MINUTE_US,
            wanted.tenant,
            reason=wanted.reason,
            request_id=wanted.request_id,
        )
    )
    if isinstance(rows, Away):
        return {**listed([], rows.why), "hint": None}
    why = NOTHING if wanted.request_id is None else NOT_KEPT
    return {**listed([refusal(row) for row in rows]), "hint": None if rows else why}
