"""``/admin/refusals`` and ``/admin/api/refusals``."""

from litestar import Response, get

from perpetuo.domain.model.errors import Reason
from perpetuo.entrypoints.http.admin import asked
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.refusals import look
from perpetuo.entrypoints.http.admin.shown import now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.wired import Container

REASONS = tuple(reason.value for reason in Reason)


@get("/refusals")
async def refusals(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    query, now_us = request.query_params, container.system.now_us()
    chosen = {name: given for name in look.FILTERS if (given := query.get(name, "").strip()[: look.MOST_TEXT])}
    found, wrong = look.wanted(chosen, now_us)
    strange = [f"{name.capitalize()} {what}. This filter was left out." for name, what in wrong.items()]
    seen = await look.search(container, found)
    return operator_page(
        "refusals", operator, seen=seen, chosen=chosen, fields=dict.fromkeys(look.FILTERS, "") | chosen,
        strange=strange, reasons=REASONS, as_of=now_of(container),
    )  # fmt: skip


@get("/refusals")
async def refusals_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    given = {name: asked.text(request.query_params, name) for name in look.FILTERS}
    if given["reason"] is not None and given["reason"] not in REASONS:
        raise asked.wrong("reason", f"must be one of {', '.join(REASONS)}")
    found, wrong = look.wanted(given, container.system.now_us())
    for name, what in wrong.items():
        raise asked.wrong(name, what)
    return await look.search(container, found)


PAGES = (refusals,)
API = (refusals_facts,)
