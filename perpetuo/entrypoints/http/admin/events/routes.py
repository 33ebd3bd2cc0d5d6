"""``/admin/events`` and ``/admin/api/events``."""

from litestar import Response, get

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.events import look
from perpetuo.entrypoints.http.admin.events.asked import FILTERS, event_filter, lenient_filter
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.shown import message_page, now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.admin.stores import Away
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.wired import Container


@get("/events")
async def events(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    where, before = lenient_filter(request.query_params)
    chosen = {name: getattr(where, name) for name in (*FILTERS, "status") if getattr(where, name) is not None}
    seen = await look.events_page(container, where, before)
    return operator_page("events", operator, seen=seen, chosen=chosen, first=before is None, as_of=now_of(container))


@get("/events/{event_id:str}")
async def event(event_id: str, operator: TheOperator, container: Container) -> Response[str]:
    found = await look.one_event(container, event_id)
    if isinstance(found, Away):
        return message_page(operator, "The event table is away", found.why, 503)
    return operator_page("event", operator, event=found, as_of=now_of(container))


@get("/events")
async def events_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    where, before = event_filter(request.query_params)
    return await look.events_page(container, where, before)


@get("/events/{event_id:str}")
async def event_facts(event_id: str, operator: TheOperator, container: Container) -> Facts:
    found = await look.one_event(container, event_id)
    if isinstance(found, Away):
        raise RefusedError(Refusal(Reason.STORE_UNAVAILABLE, f"The event table is away: {found.why}"))
    return found


PAGES = (events, event)
API = (events_facts, event_facts)
