"""How does any page of ``/admin`` leave, and what does one show instead when it can't be shown?"""

from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException

from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.door import AnyRequest, Operator
from perpetuo.entrypoints.http.admin.rendering import page
from perpetuo.entrypoints.http.admin.signing import ForbiddenError
from perpetuo.entrypoints.http.errors import retry_headers, status_of
from perpetuo.entrypoints.http.refusals import RefusedError, broken


def operator_page(name: str, operator: Operator, **context: Any) -> Response[str]:
    return page(f"{name}.html", operator=operator, section=name, **context)


def message_page(operator: Operator | None, title: str, text: str, status: int, **headers: str) -> Response[str]:
    return page("message.html", status, headers, operator=operator, section="", title=title, text=text)


def now_of(container: Container) -> str:
    return iso(container.system.now_us())


def forbidden(_: AnyRequest, error: ForbiddenError) -> Response[str]:
    return message_page(None, "Not allowed", str(error), 403)


def refused(_: AnyRequest, error: RefusedError) -> Response[str]:
    status = status_of(error.refusal)
    title = {404: "Not found", 401: "Wrong key", 429: "Too many attempts"}.get(status, "Not possible")
    return message_page(None, title, error.refusal.message, status, **dict(retry_headers(error.refusal)))


def framework_refused(_: AnyRequest, error: HTTPException) -> Response[str]:
    return message_page(None, "Not possible", str(error.detail), error.status_code)


def defect(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    broken(request, error)
    return message_page(None, "This page is broken", "A defect of the gateway; its log says where. Calls go on.", 503)
