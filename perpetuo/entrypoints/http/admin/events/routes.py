"""``/admin/events`` and ``/admin/api/events``."""

from litestar import Response, get

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.asked import text
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.events import exporting, look
from perpetuo.entrypoints.http.admin.events.asked import (
    FILTERS,
    KINDS,
    OUTCOMES,
    event_filter,
    lenient_filter,
    rows_asked,
)
from perpetuo.entrypoints.http.admin.events.drawn import bars, parts
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.shown import message_page, now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.admin.stores import Away
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.wired import Container


@get("/events")
async def events(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    wanted = lenient_filter(request.query_params, container.system.now_us())
    seen = await look.events_page(container, wanted)
    return operator_page(
        "events", operator, seen=seen, chosen=wanted.chosen, fields=dict.fromkeys(FILTERS, "") | wanted.chosen,
        strange=wanted.not_understood, first=wanted.before is None, outcomes=OUTCOMES, kinds=KINDS,
        as_of=now_of(container),
    )  # fmt: skip


@get("/events/{event_id:str}")
async def event(event_id: str, operator: TheOperator, container: Container) -> Response[str]:
    found = await look.one_event(container, event_id)
    if isinstance(found, Away):
        return message_page(operator, "The event table is away", found.why, 503)
    trace = found["trace"]
    drawn = {} if trace is None else {
        "bars": bars(trace["steps"], trace["time"]["total_ms"]), "parts": parts(trace["time"]["parts"]),
    }  # fmt: skip
    return operator_page("event", operator, event=found, drawn=drawn, as_of=now_of(container))


@get("/events")
async def events_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    wanted = event_filter(request.query_params, container.system.now_us())
    return await look.events_page(container, wanted, rows_asked(request.query_params, look.PER_PAGE))


@get("/events/{event_id:str}")
async def event_facts(event_id: str, operator: TheOperator, container: Container) -> Facts:
    found = await look.one_event(container, event_id)
    if isinstance(found, Away):
        raise RefusedError(Refusal(Reason.STORE_UNAVAILABLE, f"The event table is away: {found.why}"))
    return found


@get("/events/export")
async def export(request: AnyRequest, operator: TheOperator, container: Container) -> exporting.Export:
    """The same for the page's links and for scripts; a filter that can't be meant is 400 for both: it makes a file."""
    query = request.query_params
    wanted = event_filter(query, container.system.now_us())
    return await exporting.begin(container, wanted.where, text(query, "format") or "csv")


PAGES = (events, event, export)
API = (events_facts, event_facts, export)
