"""Every ``/v1`` answer has an ``x-request-id``: the client's own if it is sane, else a new one."""

from typing import Any

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware

from perpetuo.domain.model.chat import Kind
from perpetuo.entrypoints.http import intake


def request_id(scope: Any) -> str:
    """The client's id for this request if it is sane, else a new one."""
    given = intake.read_head(scope["headers"]).text(b"x-request-id")
    if given is not None and intake.SANE_ID.match(given):
        return given
    return str(scope["litestar_app"].state.container.system.new_id())


class RequestIdMiddleware(ASGIMiddleware):
    """For ordinary routes; the call path sets the header itself."""

    scopes = (ScopeType.HTTP,)
    exclude_path_pattern = tuple(f"^{kind.path}$" for kind in Kind)

    async def handle(self, scope: Any, receive: Any, send: Any, next_app: Any) -> None:
        header = (b"x-request-id", request_id(scope).encode())

        async def with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await next_app(scope, receive, with_id)
