"""``/admin``: the pages an operator reads, and the forms behind the buttons."""

from litestar import Response, Router, get
from litestar.di import Provide

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.door import Door
from perpetuo.entrypoints.http.admin.overview.watched import Watch
from perpetuo.entrypoints.http.admin.rendering import GuardedMiddleware, page
from perpetuo.entrypoints.http.admin.shown import instead_of_pages
from perpetuo.entrypoints.http.admin.signing import (
    TheOperator,
    provide_operator,
    show_login,
    sign_in,
    sign_out,
)
from perpetuo.entrypoints.http.admin.topics import PAGES
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.request_id import RequestIdMiddleware


@get("/{rest:path}")
async def nowhere(rest: str, operator: TheOperator) -> Response[str]:
    raise RefusedError(Refusal(Reason.NOT_FOUND, f"There is no page /admin{rest}."))


@get("/banner", sync_to_thread=False)
def banner(operator: TheOperator) -> Response[str]:
    """A part of pages that are open already, or nothing."""
    return page("banner.html", operator=operator)


def pages_router(door: Door, watch: Watch) -> Router:
    return Router(
        path="/admin",
        route_handlers=[
            show_login, sign_in, sign_out, banner, *PAGES, nowhere,
        ],
        dependencies={
            "door": Provide(lambda: door, sync_to_thread=False),
            "operator": Provide(provide_operator),
            "watch": Provide(lambda: watch, sync_to_thread=False),
        },
        middleware=[RequestIdMiddleware(), GuardedMiddleware()],
        exception_handlers=instead_of_pages(door),
        request_max_body_size=16_384,
        include_in_schema=False,
    )  # fmt: skip
