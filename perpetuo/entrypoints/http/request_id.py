"""Every ``/v1`` answer has an ``x-request-id``: the client's own if it is sane, else a new one."""

from typing import Any

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware

from perpetuo.entrypoints.http import intake

KEPT = "perpetuo.request_id"


def request_id(scope: Any) -> str:
    """The client's id for this request if it is sane, else a new one; the same whoever asks."""
    if KEPT not in scope:
        given = intake.read_head(scope["headers"]).text(b"x-request-id")
        sane = given is not None and intake.SANE_ID.match(given)
        scope[KEPT] = given if sane else str(scope["litestar_app"].state.container.system.new_id())
    return str(scope[KEPT])


class RequestIdMiddleware(ASGIMiddleware):
    """For ordinary routes; the call path sets the header itself."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Any, receive: Any, send: Any, next_app: Any) -> None:
        header = (b"x-request-id", request_id(scope).encode())

        async def with_id(message: Any) -> None:
            if message["type"] == "http.response.start" and not _has_one(message["headers"]):
                message["headers"] = [*message["headers"], header]
            await send(message)

        await next_app(scope, receive, with_id)


def _has_one(headers: Any) -> bool:
    return any(name == b"x-request-id" for name, _ in headers)
