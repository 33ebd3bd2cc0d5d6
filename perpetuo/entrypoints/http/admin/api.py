"""``/admin/api``: what the pages show and do, as JSON for scripts and the command line."""

from typing import Any

from litestar import Request, Response, Router, get
from litestar.di import Provide

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.door import Door
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.rendering import GuardedMiddleware
from perpetuo.entrypoints.http.admin.signing import ForbiddenError, TheOperator, provide_bearer
from perpetuo.entrypoints.http.admin.topics import API
from perpetuo.entrypoints.http.refusals import EXCEPTION_HANDLERS, RefusedError
from perpetuo.entrypoints.http.request_id import RequestIdMiddleware


@get("/{rest:path}", sync_to_thread=False)
def nowhere(rest: str, operator: TheOperator) -> Facts:
    raise RefusedError(Refusal(Reason.NOT_FOUND, f"There is nothing at /admin/api{rest}."))


def forbidden(_: Request[Any, Any, Any], error: ForbiddenError) -> Response[Facts]:
    """No row of the calls' error table: a caller of ``/v1`` never gets it."""
    problem = {
        "message": str(error), "type": "permission_error", "param": None, "code": "read_only_key", "source": "gateway",
    }  # fmt: skip
    return Response({"error": problem}, status_code=403)


def api_router(door: Door) -> Router:
    return Router(
        path="/admin/api",
        route_handlers=[
            *API, nowhere,
        ],
        dependencies={
            "door": Provide(lambda: door, sync_to_thread=False),
            "operator": Provide(provide_bearer),
        },
        middleware=[RequestIdMiddleware(), GuardedMiddleware()],
        exception_handlers={**EXCEPTION_HANDLERS, ForbiddenError: forbidden},
        request_max_body_size=16_384,
        include_in_schema=False,
    )  # fmt: skip
