"""
``/admin/providers``, ``/admin/breaker`` and the same under ``/admin/api``.

Rule: what acts is asked twice. The button of a list leads to a page that says what will happen, and only its own button
does it: so it needs no script.
"""

from typing import Any
from urllib.parse import quote, urlencode

from litestar import Response, get, post

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.providers import look
from perpetuo.entrypoints.http.admin.providers.acting import breaker_fields, breaker_order, carry_out, notice, told
from perpetuo.entrypoints.http.admin.shown import now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheDoor, TheOperator, check_form, check_role, read_form, see
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.wired import Container


@get("/providers")
async def providers_page(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    seen, told_of = await look.lately(container), notice(request.query_params, container)
    return operator_page("providers", operator, seen=seen, notice=told_of, as_of=now_of(container))


@get("/providers/{provider_id:str}")
async def provider_page(
    provider_id: str, request: AnyRequest, operator: TheOperator, container: Container
) -> Response[str]:
    seen, told_of = await look.one_provider(container, provider_id), notice(request.query_params, container)
    return operator_page("provider", operator, seen=seen, notice=told_of, as_of=now_of(container))


@get("/providers/{provider_id:str}/{action:str}")
async def confirm(provider_id: str, action: str, operator: TheOperator, container: Container) -> Response[str]:
    """Says what opening or closing would do, and has the button that does it."""
    seen = await look.known(container, provider_id)
    if action not in {"open", "close"}:
        raise RefusedError(Refusal(Reason.NOT_FOUND, "A breaker can be opened or closed."))
    check_role(operator)
    return operator_page("provider_confirm", operator, seen=seen, action=action)


@get("/breaker", sync_to_thread=False)
def nothing_to_see(operator: TheOperator) -> Response[str]:
    """The address of the form, asked for by itself."""
    return see("/admin/providers")


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
    back = f"/admin/providers/{quote(order.provider, safe='')}" if form.get("back") == "provider" else "/admin"
    return see(f"{back}?{urlencode(query)}")


@get("/providers")
async def providers(operator: TheOperator, container: Container) -> Facts:
    return await look.lately(container)


@get("/providers/{provider_id:str}")
async def provider_facts(provider_id: str, operator: TheOperator, container: Container) -> Facts:
    return await look.one_provider(container, provider_id)


@post("/breaker", status_code=200)
async def breaker_facts(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Facts:
    check_role(operator)
    order = breaker_order(container, breaker_fields(await request.body()))
    done = await carry_out(container, door, request, operator, order)
    verb = "closed" if order.open_for_us is None else "opened"
    message = told(order.provider, verb, everywhere=done.everywhere, recorded=done.recorded)["text"]
    return {"message": message, "everywhere": done.everywhere, "recorded": done.recorded}


PAGES: tuple[Any, ...] = (providers_page, provider_page, confirm, nothing_to_see, breaker)
API: tuple[Any, ...] = (providers, provider_facts, breaker_facts)
