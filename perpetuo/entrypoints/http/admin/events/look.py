"""
Which calls and admin actions were there?

Rule 1: an answer takes no longer the more rows there are. What `SEARCH_SECONDS` do not reach is left to the next page:
        ``looked_back_to`` says so, and ``next`` goes on. Such a page may have fewer rows than asked for, or none.
Rule 2: a search that finds nothing says which of its filters is in the way: each is left out once, and whether there
        would be something then is looked for in what is left of `ANSWER_SECONDS`, by all of them in equal parts.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any

import attrs

from perpetuo.bootstrap import Container
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.domain.ports import Found
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.events.asked import FILTERS, Asked
from perpetuo.entrypoints.http.admin.events.facts import event_brief, event_shown
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.refusals.around import around
from perpetuo.entrypoints.http.admin.refusals.facts import refusal
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.refusals import RefusedError

PER_PAGE = 50
SEARCH_SECONDS = 0.2
ANSWER_SECONDS = 0.25
"""300 ms are the aim (`bench.scale.admin`); rendering and what a loaded machine adds come on top."""
WORDS = {
    "tenant_id": "tenant", "key_name": "key", "model": "model", "provider": "provider", "request_id": "request id",
    "tag": "tag", "status": "status", "outcome": "outcome", "kind": "kind", "since": "since", "until": "until",
}  # fmt: skip


async def events_page(container: Container, wanted: Asked, limit: int = PER_PAGE) -> Facts:
    """
    One page, newest first; ``next`` is the ``before`` of the page after it, ``hint`` says why there is nothing.

    ``looked_back_to``: what is older was not looked at yet. ``around``: when the call that was not found was made, by
    its request id, and so where it is among the refusals if it was refused.
    """
    until = _clock() + ANSWER_SECONDS
    found = await asked(_search(container, wanted.where, SEARCH_SECONDS, before=wanted.before, limit=limit))
    if isinstance(found, Away):
        return {**listed([], found.why), "next": None, "looked_back_to": None, "hint": None, "around": None}
    back_to = None if found.back_to_us is None else iso(found.back_to_us)
    hint, when = None, None
    if not found.events:
        when = around(wanted.where.request_id, container.system.now_us())
        hint = await nothing_found(container, wanted, until) if back_to is None else _nothing_yet(back_to)
    items = [event_brief(event) for event in found.events]
    told = {"hint": hint, "around": when and when.facts()}
    return {**listed(items), "next": found.next, "looked_back_to": back_to, **told}


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _search(container: Container, where: EventFilter, seconds: float, **more: Any) -> Awaitable[Found]:
    return container.store.search(where, now_us=container.system.now_us(), seconds=seconds, **more)


def brief_events(latest: Sequence[Event] | Away, limit: int) -> Facts:
    if isinstance(latest, Away):
        return listed([], latest.why)
    return listed([event_brief(event) for event in latest[:limit]])


def _nothing_yet(back_to: str) -> str:
    return f"Nothing matches back to {back_to[:16].replace('T', ' ')} UTC. What is older was not looked at yet."


async def nothing_found(container: Container, wanted: Asked, until: float) -> str:
    """Why, what could be loosened (looked for ``until`` then), and what is known of a call that has no row."""
    text = await _why_nothing(container, wanted, until)
    if wanted.where.request_id is not None:
        text += f" {await _about_call(container, wanted.where.request_id)}"
    return text


async def _why_nothing(container: Container, wanted: Asked, until: float) -> str:
    if wanted.before is not None:
        return "There is nothing older."
    if not wanted.chosen:
        return "There is no event yet. A finished call has its row within 2 seconds."
    since_us, until_us = wanted.where.since_us, wanted.where.until_us
    if since_us is not None and until_us is not None and until_us <= since_us:
        return "Nothing can match: `until` is not after `since`."
    text = "Nothing matches."
    in_the_way, sure = await _in_the_way(container, wanted, until)
    if in_the_way:
        named = " or ".join(f"the {WORDS[name]}" for name in in_the_way)
        text += f" Without {named} there would be something."
    elif sure and len(wanted.chosen) > 1:
        text += " Leave out more than one filter: none of them alone is in the way."
    return text


async def _about_call(container: Container, request_id: str) -> str:
    """By the request id alone."""
    now_us = container.system.now_us()
    when = around(request_id, now_us)
    if when is None:
        return "A call that was refused has no row here: look among the refusals."
    kept = await asked(container.store.refusals(when.since_us, until_us=when.until_us, request_id=request_id, limit=1))
    if not isinstance(kept, Away) and kept:
        told = refusal(kept[0])
        return f"The call was refused at {told['first_at'][:19].replace('T', ' ')} UTC: {told['reason']}."
    goes_on = ", or still goes on," if when.may_go_on(now_us) else ""
    text = f"A call that was refused{goes_on} has no row here; refusals are counted by the minute."
    return f"{when.told()} {text}"


async def _in_the_way(container: Container, wanted: Asked, until: float) -> tuple[list[str], bool]:
    """Those without which there is something; and are there surely no others?"""
    named: list[str] = []
    sure = True
    for place, name in enumerate(wanted.chosen):
        seconds = (until - _clock()) / (len(wanted.chosen) - place)
        if seconds <= 0:
            return named, False
        without = attrs.evolve(wanted.where, **{FILTERS[name][0]: None})
        found = await asked(_search(container, without, seconds, limit=1))
        if isinstance(found, Away) or (found.next is not None and not found.events):
            sure = False
        elif found.events:
            named.append(name)
    return named, sure


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
    return event_shown(found[0])
