"""``/admin``: the pages an operator reads, and the forms behind the buttons."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Request, Response, Router, get, post
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.params import Parameter

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import EventFilter
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin import look
from perpetuo.entrypoints.http.admin.acting import breaker_order, carry_out, check_role, told
from perpetuo.entrypoints.http.admin.door import AnyRequest, Door, Operator
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.rendering import GuardedMiddleware, page
from perpetuo.entrypoints.http.admin.signing import (
    ForbiddenError,
    SignedOutError,
    TheDoor,
    TheOperator,
    check_form,
    provide_operator,
    read_form,
    see,
    show_login,
    sign_in,
    sign_out,
    to_sign_in,
)
from perpetuo.entrypoints.http.errors import retry_headers, status_of
from perpetuo.entrypoints.http.refusals import RefusedError, broken
from perpetuo.entrypoints.http.request_id import RequestIdMiddleware
from perpetuo.entrypoints.http.wired import Container

FILTERS = ("tenant_id", "key_name", "model", "provider", "outcome", "request_id")
MOST_TEXT = 200


# --- looking -------------------------------------------------------------------------------------


@get("/")
async def overview(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    seen = await look.overview(container)
    return _page("overview", operator, seen=seen, notice=_notice(request.query_params, container))


@get("/tenants")
async def tenants(
    operator: TheOperator, container: Container, q: str = "", number: Annotated[int, Parameter(query="page")] = 1
) -> Response[str]:
    return _page("tenants", operator, seen=await look.tenants_page(container, q, number), as_of=_now(container))


@get("/tenants/{tenant_id:str}")
async def tenant(tenant_id: str, operator: TheOperator, container: Container) -> Response[str]:
    found = await look.one_tenant(container, tenant_id)
    return _page("tenant", operator, seen=found, as_of=_now(container))


@get("/events")
async def events(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    where, before = event_filter(request.query_params)
    chosen = {name: getattr(where, name) for name in (*FILTERS, "status") if getattr(where, name) is not None}
    seen = await look.events_page(container, where, before)
    return _page("events", operator, seen=seen, chosen=chosen, first=before is None, as_of=_now(container))


@get("/events/{event_id:str}")
async def event(event_id: str, operator: TheOperator, container: Container) -> Response[str]:
    found = await look.one_event(container, event_id)
    if isinstance(found, look.Away):
        return _message(operator, "The event table is away", found.why, 503)
    return _page("event", operator, event=found, as_of=_now(container))


@get("/refusals")
async def refusals(operator: TheOperator, container: Container) -> Response[str]:
    seen = await look.refusals(container, look.HOUR_US)
    return _page("refusals", operator, seen=seen, as_of=_now(container))


@get("/{rest:path}")
async def nowhere(rest: str, operator: TheOperator) -> Response[str]:
    raise RefusedError(Refusal(Reason.NOT_FOUND, f"There is no page /admin{rest}."))


def event_filter(query: Mapping[str, str]) -> tuple[EventFilter, str | None]:
    """What an address asks for, and before which id; what can't be meant is left out."""
    chosen: dict[str, Any] = {name: query[name].strip()[:MOST_TEXT] for name in FILTERS if query.get(name, "").strip()}
    status = query.get("status", "").strip()
    if status.isascii() and status.isdigit() and len(status) == 3:
        chosen["status"] = int(status)
    try:
        before = str(uuid.UUID(query["before"])) if query.get("before") else None
    except ValueError:
        before = None
    return EventFilter(**chosen), before


# --- acting --------------------------------------------------------------------------------------


@post("/breaker", status_code=200)
async def breaker(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Response[str]:
    form = await read_form(request)
    check_form(request, operator, form)
    check_role(operator)
    order = breaker_order(container, form)
    done = await carry_out(container, door, request, operator, order)
    query = {"breaker": "closed" if order.open_for_us is None else "opened", "provider": order.provider}
    if not done.everywhere:
        query["only"] = "here"
    if not done.recorded:
        query["recorded"] = "no"
    return see(f"/admin?{urlencode(query)}")


def _notice(query: Mapping[str, str], container: Container) -> Facts | None:
    """What the last form did: nothing of the address is shown but a provider we know."""
    provider, verb = query.get("provider", ""), query.get("breaker", "")
    if verb not in {"closed", "opened"} or provider not in container.settings.providers:
        return None
    return told(provider, verb, everywhere="only" not in query, recorded="recorded" not in query)


# --- how -----------------------------------------------------------------------------------------


def _page(name: str, operator: Operator, **context: Any) -> Response[str]:
    return page(f"{name}.html", operator=operator, section=name, **context)


def _message(operator: Operator | None, title: str, text: str, status: int, **headers: str) -> Response[str]:
    return page("message.html", status, headers, operator=operator, section="", title=title, text=text)


def _now(container: Container) -> str:
    return iso(container.system.now_us())


def forbidden(_: AnyRequest, error: ForbiddenError) -> Response[str]:
    return _message(None, "Not allowed", str(error), 403)


def refused(_: AnyRequest, error: RefusedError) -> Response[str]:
    status = status_of(error.refusal)
    title = {404: "Not found", 401: "Wrong key", 429: "Too many attempts"}.get(status, "Not possible")
    return _message(None, title, error.refusal.message, status, **dict(retry_headers(error.refusal)))


def framework_refused(_: AnyRequest, error: HTTPException) -> Response[str]:
    return _message(None, "Not possible", str(error.detail), error.status_code)


def defect(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    broken(request, error)
    return _message(None, "This page is broken", "A defect of the gateway; its log says where. Calls go on.", 503)


def pages_router(door: Door) -> Router:
    return Router(
        path="/admin",
        route_handlers=[
            show_login, sign_in, sign_out, overview, tenants, tenant, events, event, refusals, breaker, nowhere,
        ],
        dependencies={
            "door": Provide(lambda: door, sync_to_thread=False),
            "operator": Provide(provide_operator),
        },
        middleware=[RequestIdMiddleware(), GuardedMiddleware()],
        exception_handlers={
            SignedOutError: to_sign_in,
            ForbiddenError: forbidden,
            RefusedError: refused,
            HTTPException: framework_refused,
            Exception: defect,
        },
        request_max_body_size=16_384,
        include_in_schema=False,
    )  # fmt: skip
