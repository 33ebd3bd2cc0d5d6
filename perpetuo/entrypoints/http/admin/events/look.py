"""
Which calls and admin actions were there?

A search that finds nothing says which of its filters is in the way: each is left out once, and whether there would be
something then is looked for, within `HINT_SECONDS` in all.
"""

import asyncio
import uuid
from collections.abc import Sequence

import attrs

from perpetuo.bootstrap import Container
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.entrypoints.http.admin.events.asked import FILTERS, Asked
from perpetuo.entrypoints.http.admin.events.facts import event_brief, event_whole
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.refusals import RefusedError

PER_PAGE = 50
HINT_SECONDS = 0.5
WORDS = {
    "tenant_id": "tenant", "key_name": "key", "model": "model", "provider": "provider", "request_id": "request id",
    "tag": "tag", "status": "status", "outcome": "outcome", "kind": "kind", "since": "since", "until": "until",
}  # fmt: skip


async def events_page(container: Container, wanted: Asked, limit: int = PER_PAGE) -> Facts:
    """One page, newest first; ``next`` is the ``before`` of the page after it, ``hint`` says why there is nothing."""
    latest = await asked(container.store.latest(wanted.where, before=wanted.before, limit=limit + 1))
    more = not isinstance(latest, Away) and len(latest) > limit
    page = brief_events(latest, limit)
    hint = None if isinstance(latest, Away) or latest else await nothing_found(container, wanted)
    return {**page, "next": page["items"][-1]["id"] if more else None, "hint": hint}


def brief_events(latest: Sequence[Event] | Away, limit: int) -> Facts:
    if isinstance(latest, Away):
        return listed([], latest.why)
    return listed([event_brief(event) for event in latest[:limit]])


async def nothing_found(container: Container, wanted: Asked) -> str:
    """Why, and what could be loosened."""
    if wanted.before is not None:
        return "There is nothing older."
    if not wanted.chosen:
        return "There is no event yet. A finished call has its row within 2 seconds."
    since_us, until_us = wanted.where.since_us, wanted.where.until_us
    if since_us is not None and until_us is not None and until_us <= since_us:
        return "Nothing can match: `until` is not after `since`."
    text = "Nothing matches."
    in_the_way = await _in_the_way(container, wanted)
    if in_the_way:
        named = " or ".join(f"the {WORDS[name]}" for name in in_the_way)
        text += f" Without {named} there would be something."
    elif len(wanted.chosen) > 1:
        text += " Leave out more than one filter: none of them alone is in the way."
    if wanted.where.request_id is not None:
        text += " A call that was refused has no row here: look among the refusals."
    return text


async def _in_the_way(container: Container, wanted: Asked) -> list[str]:
    found: list[str] = []
    try:
        async with asyncio.timeout(HINT_SECONDS):
            for name in wanted.chosen:
                without = attrs.evolve(wanted.where, **{FILTERS[name][0]: None})
                rows = await asked(container.store.latest(without, limit=1))
                if not isinstance(rows, Away) and rows:
                    found.append(name)
    except TimeoutError:
        pass  # what was found so far is true
    return found


async def one_event(container: Container, event_id: str) -> Facts | Away:
    """The row with this id: the newest of those before the id after it; raises `RefusedError`."""
    try:
        wanted = uuid.UUID(event_id)
        after = uuid.UUID(int=wanted.int + 1)
    except ValueError as error:
        raise RefusedError(Refusal(Reason.NOT_FOUND, "This is not the id of an event.")) from error
    found = await asked(container.store.latest(EventFilter(), before=str(after), limit=1))
    if isinstance(found, Away):
        return found
    if not found or found[0].id != str(wanted):
        text = "There is no event with this id. A finished call has its row within 2 seconds."
        raise RefusedError(Refusal(Reason.NOT_FOUND, text))
    return event_whole(found[0])
