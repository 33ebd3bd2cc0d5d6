"""``/admin/system`` and ``/admin/api/system``."""

from litestar import Response, get

from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.shown import now_of, operator_page
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.admin.system import look
from perpetuo.entrypoints.http.admin.system.facts import in_force
from perpetuo.entrypoints.http.wired import Container


@get("/system")
async def system_page(operator: TheOperator, container: Container) -> Response[str]:
    seen, now = await look.system(container), now_of(container)
    return operator_page("system", operator, state=seen, now=now, in_force=in_force(container.settings))


@get("/system")
async def system(operator: TheOperator, container: Container) -> Facts:
    return {**await look.system(container), "in_force": in_force(container.settings)}


PAGES = (system_page,)
API = (system,)
