"""``/admin``: the pages an operator reads, and the forms behind the buttons."""

from litestar import Response, Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.door import Door
from perpetuo.entrypoints.http.admin.rendering import GuardedMiddleware
from perpetuo.entrypoints.http.admin.shown import defect, forbidden, framework_refused, refused
from perpetuo.entrypoints.http.admin.signing import (
    ForbiddenError,
    SignedOutError,
    TheOperator,
    provide_operator,
    show_login,
    sign_in,
    sign_out,
    to_sign_in,
)
from perpetuo.entrypoints.http.admin.topics import PAGES
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.request_id import RequestIdMiddleware


@get("/{rest:path}")
async def nowhere(rest: str, operator: TheOperator) -> Response[str]:
    raise RefusedError(Refusal(Reason.NOT_FOUND, f"There is no page /admin{rest}."))


def pages_router(door: Door) -> Router:
    return Router(
        path="/admin",
        route_handlers=[
            show_login, sign_in, sign_out, *PAGES, nowhere,
        ],
        dependencies={
            "door": Provide(lambda: door, sync_to_thread=False),
            "operator": Provide(provide_operator),
        },
        middleware=[RequestIdMiddleware(), GuardedMiddleware()],
        exception_handlers={
            SignedOutError: to_sign_in,
            ForbiddenError: forbidden,
            RefusedError: refused,
            HTTPException: framework_refused,
            Exception: defect,
        },
        request_max_body_size=16_384,
        include_in_schema=False,
    )  # fmt: skip
