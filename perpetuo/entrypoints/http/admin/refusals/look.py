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
from perpetuo.entrypoints.http.admin.refusals.around import around
from perpetuo.entrypoints.http.admin.refusals.facts import refusal
from perpetuo.entrypoints.http.admin.stores import Away, asked

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
FILTERS = ("request_id", "tenant_id", "reason", "since", "until")
INSTANTS = ("since", "until")
MOST_TEXT = 200
NOT_KEPT = (
    "No refusal is kept under this request id. Refusals are counted by the minute, and only the first of each minute,"
    " tenant, key and reason keeps its request id: look by tenant and time. A call that was admitted is an event."
)


NOTHING = "Nothing of this kind was refused in this time."


@attrs.frozen
class Wanted:
    since_us: int
    until_us: int | None = None
    tenant: str | None = None
    reason: str | None = None
    request_id: str | None = None


def wanted(given: Mapping[str, Any], now_us: int) -> tuple[Wanted, dict[str, str]]:
    """What an address asks for, without instants that can't be meant; and what these must be, by their names."""
    instants: dict[str, int] = {}
    wrong: dict[str, str] = {}
    for name in INSTANTS:
        try:
            if given.get(name) is not None:
                instants[name] = instant_us(given[name], now_us)
        except ValueError as error:
            wrong[name] = str(error)
    since_us = instants.get("since", now_us - HOUR_US)
    asked_for = Wanted(
        since_us, instants.get("until"), given.get("tenant_id"), given.get("reason"), given.get("request_id")
    )
    return asked_for, wrong


async def refusals(container: Container, span_us: int, tenant: str | None = None) -> Facts:
    """By the minute, newest first."""
    return await search(container, Wanted(container.system.now_us() - span_us, tenant=tenant))


async def search(container: Container, wanted: Wanted) -> Facts:
    """By the minute, newest first; ``hint`` says why there is nothing, ``around`` when a call was, by its id."""
    rows = await asked(
        container.store.refusals(
            wanted.since_us - wanted.since_us % MINUTE_US,
            wanted.tenant,
            until_us=wanted.until_us,
            reason=wanted.reason,
            request_id=wanted.request_id,
        )
    )
    if isinstance(rows, Away):
        return {**listed([], rows.why), "hint": None, "around": None}
    if rows:
        return {**listed([refusal(row) for row in rows]), "hint": None, "around": None}
    if wanted.request_id is None:
        return {**listed([]), "hint": NOTHING, "around": None}
    when = around(wanted.request_id, container.system.now_us())
    if when is None:
        return {**listed([]), "hint": NOT_KEPT, "around": None}
    return {**listed([]), "hint": f"{NOT_KEPT} {when.told()}", "around": when.facts()}
