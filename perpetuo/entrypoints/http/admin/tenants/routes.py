"""``/admin/tenants`` and ``/admin/api/tenants``."""

from typing import Annotated

from litestar import Response, get
from litestar.params import Parameter

from perpetuo.entrypoints.http.admin import asked
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.shown import now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.admin.tenants import acting, look
from perpetuo.entrypoints.http.wired import Container


@get("/tenants")
async def tenants(
    operator: TheOperator,
    container: Container,
    q: str = "",
    number: Annotated[int, Parameter(query="page")] = 1,
    sort: str = look.NEAREST,
) -> Response[str]:
    """What can't be meant is left out."""
    order = sort if sort in look.SORTS else look.NEAREST
    seen = await look.tenants_page(container, q, number, order)
    return operator_page("tenants", operator, seen=seen, sorts=look.SORTS, as_of=now_of(container))


@get("/tenants/{tenant_id:str}")
async def tenant(tenant_id: str, operator: TheOperator, container: Container, done: str = "") -> Response[str]:
    """``done``: which form led here."""
    found = await look.one_tenant(container, tenant_id)
    raises, notice = acting.known_in_force(container, tenant_id), acting.NOTICES.get(done)
    return operator_page("tenant", operator, seen=found, raises=raises, notice=notice, as_of=now_of(container))


@get("/tenants")
async def tenants_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    query = request.query_params
    sort = asked.text(query, "sort") or look.NEAREST
    if sort not in look.SORTS:
        raise asked.wrong("sort", f"must be one of {', '.join(look.SORTS)}")
    return await look.tenants_page(container, asked.text(query, "q") or "", asked.page_number(query), sort)


@get("/tenants/{tenant_id:str}")
async def tenant_facts(tenant_id: str, operator: TheOperator, container: Container) -> Facts:
    return await look.one_tenant(container, tenant_id)


PAGES = (tenants, tenant)
API = (tenants_facts, tenant_facts)
