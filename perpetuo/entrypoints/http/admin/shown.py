"""How does any page of ``/admin`` leave, and what does one show instead when it can't be shown?"""

from typing import Any

from litestar import Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.door import AnyRequest, Door, Operator
from perpetuo.entrypoints.http.admin.rendering import page
from perpetuo.entrypoints.http.admin.signing import (
    ForbiddenError,
    SignedOutError,
    StaleFormError,
    came_from,
    to_sign_in,
)
from perpetuo.entrypoints.http.errors import retry_headers, status_of
from perpetuo.entrypoints.http.refusals import RefusedError, broken


def operator_page(name: str, operator: Operator, **context: Any) -> Response[str]:
    return page(f"{name}.html", operator=operator, section=name.partition("_")[0], **context)


def message_page(
    operator: Operator | None, title: str, text: str, status: int, headers: dict[str, str] | None = None,
    back: str = "/admin",
) -> Response[str]:  # fmt: skip
    return page("message.html", status, headers, operator=operator, section="", title=title, text=text, back=back)


def now_of(container: Container) -> str:
    return iso(container.system.now_us())


def instead_of_pages(door: Door) -> ExceptionHandlersMap:
    """What a page's route may raise, and what is shown then: with the head and the banner, as on any page."""

    def forbidden(request: AnyRequest, error: ForbiddenError) -> Response[str]:
        title = "Nothing was done" if isinstance(error, StaleFormError) else "Not allowed"
        return message_page(door.signed_in(request), title, str(error), 403, back=came_from(request))

    def refused(request: AnyRequest, error: RefusedError) -> Response[str]:
        status = status_of(error.refusal)
        title = {404: "Not found", 401: "Wrong key", 429: "Too many attempts"}.get(status, "Not possible")
        headers = dict(retry_headers(error.refusal))
        return message_page(door.signed_in(request), title, error.refusal.message, status, headers, came_from(request))

    def framework_refused(request: AnyRequest, error: HTTPException) -> Response[str]:
        return message_page(door.signed_in(request), "Not possible", str(error.detail), error.status_code)

    def defect(request: AnyRequest, error: Exception) -> Response[str]:
        broken(request, error)
        text = "A defect of the gateway; its log says where. Calls go on."
        return message_page(door.signed_in(request), "This page is broken", text, 503)

    return {
        SignedOutError: to_sign_in,
        ForbiddenError: forbidden,
        RefusedError: refused,
        HTTPException: framework_refused,
        Exception: defect,
    }
