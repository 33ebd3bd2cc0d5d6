"""``/admin`` and ``/admin/api/overview``."""

from litestar import Response, get

from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.overview import look
from perpetuo.entrypoints.http.admin.providers.acting import notice
from perpetuo.entrypoints.http.admin.shown import operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.wired import Container


@get("/")
async def overview(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    seen = await look.overview(container)
    return operator_page("overview", operator, seen=seen, notice=notice(request.query_params, container))


@get("/overview")
async def overview_facts(operator: TheOperator, container: Container) -> Facts:
    return await look.overview(container)


PAGES = (overview,)
API = (overview_facts,)
