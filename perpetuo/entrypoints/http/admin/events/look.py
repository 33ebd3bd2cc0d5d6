"""Which calls and admin actions were there?"""

import uuid
from collections.abc import Sequence

from perpetuo.bootstrap import Container
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.entrypoints.http.admin.events.facts import event_brief, event_whole
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.stores import Away, asked
from perpetuo.entrypoints.http.refusals import RefusedError

PER_PAGE = 50


async def events_page(container: Container, where: EventFilter, before: str | None) -> Facts:
    """One page, newest first; ``next`` is the ``before`` of the page after it."""
    latest = await asked(container.store.latest(where, before=before, limit=PER_PAGE + 1))
    more = not isinstance(latest, Away) and len(latest) > PER_PAGE
    page = brief_events(latest, PER_PAGE)
    return {**page, "next": page["items"][-1]["id"] if more else None}


def brief_events(latest: Sequence[Event] | Away, limit: int) -> Facts:
    if isinstance(latest, Away):
        return listed([], latest.why)
    return listed([event_brief(event) for event in latest[:limit]])


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
