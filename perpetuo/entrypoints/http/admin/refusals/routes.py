"""``/admin/refusals`` and ``/admin/api/refusals``."""

from litestar import Response, get

from perpetuo.entrypoints.http.admin import asked
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.refusals import look
from perpetuo.entrypoints.http.admin.shown import now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.wired import Container


@get("/refusals")
async def refusals(operator: TheOperator, container: Container) -> Response[str]:
    seen = await look.refusals(container, look.HOUR_US)
    return operator_page("refusals", operator, seen=seen, as_of=now_of(container))


@get("/refusals")
async def refusals_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    return await look.refusals(container, look.HOUR_US, asked.text(request.query_params, "tenant_id"))


PAGES = (refusals,)
API = (refusals_facts,)
