"""``/admin/breaker``, ``/admin/api/providers`` and ``/admin/api/breaker``."""

from urllib.parse import urlencode

from litestar import Response, get, post

from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.providers import look
from perpetuo.entrypoints.http.admin.providers.acting import breaker_fields, breaker_order, carry_out, told
from perpetuo.entrypoints.http.admin.signing import TheDoor, TheOperator, check_form, check_role, read_form, see
from perpetuo.entrypoints.http.wired import Container


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


@get("/providers", sync_to_thread=False)
def providers(operator: TheOperator, container: Container) -> Facts:
    return {"items": look.providers(container), "unavailable": None}


@post("/breaker", status_code=200)
async def breaker_facts(request: AnyRequest, operator: TheOperator, door: TheDoor, container: Container) -> Facts:
    check_role(operator)
    order = breaker_order(container, breaker_fields(await request.body()))
    done = await carry_out(container, door, request, operator, order)
    verb = "closed" if order.open_for_us is None else "opened"
    message = told(order.provider, verb, everywhere=done.everywhere, recorded=done.recorded)["text"]
    return {"message": message, "everywhere": done.everywhere, "recorded": done.recorded}


PAGES = (breaker,)
API = (providers, breaker_facts)
