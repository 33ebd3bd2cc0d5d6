"""How do the ordinary Litestar routes refuse, and what becomes of what Litestar itself refuses?"""

import logging
import re
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
)
from litestar.routes import HTTPRoute

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.settings import ServerSettings
from perpetuo.entrypoints.http import intake
from perpetuo.entrypoints.http.errors import envelope, retry_headers, status_of
from perpetuo.entrypoints.http.request_id import request_id

SERVED = (
    "POST /v1/chat/completions, POST /v1/embeddings, GET /v1/models, GET /v1/models/{id}, GET /v1/key, "
    "GET /v1/requests/{id}"
)
DEFECT = "internal_error"
"""Code of what must not happen: no row of the error table, and no test but one that breaks a route on purpose."""
DEFECT_BODY = msgspec.json.encode(
    {
        "error": {
            "message": "The gateway failed at this, and it is its own defect. Your operator's log says where.",
            "type": "api_error",
            "param": None,
            "code": DEFECT,
            "source": "gateway",
        }
    }
)
_PARAMETER = re.compile(r"\{[^}]+\}")
CLOSE = {"connection": "close"}
_log = logging.getLogger("perpetuo")


class RefusedError(Exception):
    """Raised by a route that refuses; `answer` renders it."""

    def __init__(self, refusal: Refusal, *, close: bool = False) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.close = close
        """Is the connection not to be trusted with another request?"""


def refused(request: Request[Any, Any, Any], error: RefusedError) -> Response[bytes]:
    return answer(error.refusal, headers={**(CLOSE if error.close else {}), "x-request-id": request_id(request.scope)})


def answer(refusal: Refusal, status: int | None = None, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A refusal as an ordinary Litestar response."""
    return Response(
        envelope(refusal),
        status_code=status or status_of(refusal),
        media_type="application/json",
        headers={**dict(retry_headers(refusal)), **(headers or {})},
    )


def check_host(request: Request[Any, Any, Any]) -> None:
    """
    Before every ordinary route: a Host that no URL can be made of is the client's 400.

    None at all is fine there: health checks of HTTP/1.0 have none.
    """
    refusal = intake.check_host(intake.read_head(request.scope["headers"]))
    if refusal is not None:
        raise RefusedError(refusal, close=True)


def framework_refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refuses, in our envelope. Its router's own refusals pass no middleware."""
    framing = intake.check_framing(intake.read_head(request.scope["headers"]), ServerSettings())
    if framing is not None:
        return answer(framing, headers={**CLOSE, "x-request-id": request_id(request.scope)})
    if isinstance(error, NotFoundException):
        served = f" Served here: {SERVED}." if request.scope["path"].startswith("/v1") else ""
        refusal = Refusal(Reason.NOT_FOUND, f"There is nothing at this path.{served}")
        return answer(refusal, headers={"x-request-id": request_id(request.scope)})
    if isinstance(error, MethodNotAllowedException):
        allowed = ", ".join(sorted(methods_at(request)))
        refusal = Refusal(Reason.METHOD_NOT_ALLOWED, f"{request.method} is not possible here. Possible: {allowed}.")
        return answer(refusal, headers={"allow": allowed, "x-request-id": request_id(request.scope)})
    refusal = Refusal(Reason.INVALID_REQUEST, str(error.detail))
    return answer(refusal, status=error.status_code, headers={"x-request-id": request_id(request.scope)})


def methods_at(request: Request[Any, Any, Any]) -> set[str]:
    """Methods the routes of this path take; the router does not tell."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, HTTPRoute)
        and re.fullmatch(_PARAMETER.sub(_any, route.path), request.scope["path"].rstrip("/") or "/")
        for method in (*route.methods, *(("HEAD",) if "GET" in route.methods else ()))
        if method != "OPTIONS"
    }


def _any(parameter: re.Match[str]) -> str:
    return ".+" if parameter[0].endswith(":path}") else "[^/]+"


def broken(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A defect of ours: the log has where, the client gets no traceback."""
    _log.error("%s %s is broken", request.method, request.scope.get("path_template"), exc_info=error)
    return Response(
        DEFECT_BODY,
        status_code=500,
        media_type="application/json",
        headers={"x-should-retry": "false", "x-request-id": request_id(request.scope)},
    )


EXCEPTION_HANDLERS: dict[Any, Any] = {RefusedError: refused, HTTPException: framework_refused, Exception: broken}
