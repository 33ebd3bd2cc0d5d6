"""``/admin``, ``/admin/live`` and ``/admin/api/overview``."""

from typing import Annotated

from litestar import Response, get
from litestar.params import Dependency

from perpetuo.entrypoints.http.admin.asked import text
from perpetuo.entrypoints.http.admin.door import AnyRequest
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.overview import look
from perpetuo.entrypoints.http.admin.overview.activity import SPANS, span_of
from perpetuo.entrypoints.http.admin.overview.viewer import Viewer
from perpetuo.entrypoints.http.admin.overview.watched import View, Watch
from perpetuo.entrypoints.http.admin.providers.acting import notice
from perpetuo.entrypoints.http.admin.sessions import Session
from perpetuo.entrypoints.http.admin.shown import operator_page
from perpetuo.entrypoints.http.admin.signing import TheDoor, TheOperator
from perpetuo.entrypoints.http.wired import Container

TheWatch = Annotated[Watch, Dependency(skip_validation=True)]


@get("/")
async def overview(request: AnyRequest, operator: TheOperator, container: Container) -> Response[str]:
    span = span_of(text(request.query_params, "span"))
    seen = await look.overview(container, span)
    return operator_page(
        "overview", operator, seen=seen, spans=SPANS.values(), notice=notice(request.query_params, container)
    )


@get("/live")
async def live(
    request: AnyRequest, operator: TheOperator, door: TheDoor, watch: TheWatch, span: str | None = None
) -> Viewer:
    """What the page shows, told again whenever it changes; for a script there is ``/admin/api/overview``."""

    def allowed() -> bool:
        if operator.session is None:
            keys = door.keys()
            return operator.key in keys
        session = door.session(request)
        return isinstance(session, Session) and session.key == operator.key

    token = "" if operator.session is None else operator.session.token
    return Viewer(watch, View(span_of(span).name, operator.may_act), token, allowed)


@get("/overview")
async def overview_facts(request: AnyRequest, operator: TheOperator, container: Container) -> Facts:
    return await look.overview(container, span_of(text(request.query_params, "span")))


PAGES = (overview, live)
API = (overview_facts,)
