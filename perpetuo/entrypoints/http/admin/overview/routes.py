"""``/admin`` and ``/admin/api/overview``."""

from litestar import Response, get

from perpetuo.entrypoints.http.admin.asked import text
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.overview import look
from perpetuo.entrypoints.http.admin.overview.activity import SPANS, span_of
from perpetuo.entrypoints.http.admin.providers.acting import notice
from perpetuo.entrypoints.http.admin.shown import operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.wired import Container


@get("/")
async def overview(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    span = span_of(text(request.query_params, "span"))
    seen = await look.overview(container, span)
    return operator_page(
        "overview", operator, seen=seen, spans=SPANS.values(), notice=notice(request.query_params, container)
    )


@get("/overview")
async def overview_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    return await look.overview(container, span_of(text(request.query_params, "span")))


PAGES = (overview,)
API = (overview_facts,)
