"""``/admin/api/system``."""

from litestar import get

from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.signing import TheOperator
from perpetuo.entrypoints.http.admin.system import look
from perpetuo.entrypoints.http.wired import Container


@get("/system")
async def system(operator: TheOperator, container: Container) -> Facts:
    return await look.system(container)


PAGES = ()
API = (system,)
