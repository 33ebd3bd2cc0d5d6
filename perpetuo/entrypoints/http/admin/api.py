"""``/admin/api``: what the pages show and do, as JSON for scripts and the command line."""

from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.di import Provide

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin import asked, look
from perpetuo.entrypoints.http.admin.acting import breaker_order, carry_out, check_role, told
from perpetuo.entrypoints.http.admin.door import AnyRequest, Door
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.rendering import GuardedMiddleware
from perpetuo.entrypoints.http.admin.signing import ForbiddenError, TheDoor, TheOperator, provide_bearer
from perpetuo.entrypoints.http.refusals import EXCEPTION_HANDLERS, RefusedError
from perpetuo.entrypoints.http.request_id import RequestIdMiddleware
from perpetuo.entrypoints.http.wired import Container


@get("/overview")
async def overview(operator: TheOperator, container: Container) -> Facts:
    return await look.overview(container)


@get("/system")
async def system(operator: TheOperator, container: Container) -> Facts:
    return await look.system(container)


@get("/providers", sync_to_thread=False)
def providers(operator: TheOperator, container: Container) -> Facts:
    return {"items": look.providers(container), "unavailable": None}


@get("/tenants")
async def tenants(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    query = request.query_params
    return await look.tenants_page(container, asked.text(query, "q") or "", asked.page_number(query))


@get("/tenants/{tenant_id:str}")
async def tenant(tenant_id: str, operator: TheOperator, container: Container) -> Facts:
    return await look.one_tenant(container, tenant_id)


@get("/events")
async def events(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    where, before = asked.event_filter(request.query_params)
    return await look.events_page(container, where, before)


@get("/events/{event_id:str}")
async def event(event_id: str, operator: TheOperator, container: Container) -> Facts:
    found = await look.one_event(container, event_id)
    if isinstance(found, look.Away):
        raise RefusedError(Refusal(Reason.STORE_UNAVAILABLE, f"The event table is away: {found.why}"))
    return found


@get("/refusals")
async def refusals(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    return await look.refusals(container, look.HOUR_US, asked.text(request.query_params, "tenant_id"))


@post("/breaker", status_code=200)
async def breaker(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Facts:
    check_role(operator)
    order = breaker_order(container, asked.breaker_fields(await request.body()))
    done = await carry_out(container, door, request, operator, order)
    verb = "closed" if order.open_for_us is None else "opened"
    message = told(order.provider, verb, everywhere=done.everywhere, recorded=done.recorded)["text"]
    return {"message": message, "everywhere": done.everywhere, "recorded": done.recorded}


@get("/{rest:path}", sync_to_thread=False)
def nowhere(rest: str, operator: TheOperator) -> Facts:
    raise RefusedError(Refusal(Reason.NOT_FOUND, f"There is nothing at /admin/api{rest}."))


def forbidden(_: Request[Any, Any, Any], error: ForbiddenError) -> Response[Facts]:
    """No row of the calls' error table: a caller of ``/v1`` never gets it."""
    problem = {
        "message": str(error), "type": "permission_error", "param": None, "code": "read_only_key", "source": "gateway",
    }  # fmt: skip
    return Response({"error": problem}, status_code=403)


def api_router(door: Door) -> Router:
    return Router(
        path="/admin/api",
        route_handlers=[
            overview, system, providers, tenants, tenant, events, event, refusals, breaker, nowhere,
        ],
        dependencies={
            "door": Provide(lambda: door, sync_to_thread=False),
            "operator": Provide(provide_bearer),
        },
        middleware=[RequestIdMiddleware(), GuardedMiddleware()],
        exception_handlers={**EXCEPTION_HANDLERS, ForbiddenError: forbidden},
        request_max_body_size=16_384,
        include_in_schema=False,
    )  # fmt: skip
