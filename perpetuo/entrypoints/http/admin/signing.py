"""``/admin/login`` and ``/admin/logout``, and who is asking on every other page."""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote, urlsplit

from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.params import Dependency, Parameter

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.door import AnyRequest, Door, Operator, WrongKey, from_another_site, on_loopback
from perpetuo.entrypoints.http.admin.rendering import page
from perpetuo.entrypoints.http.admin.sessions import COOKIE, SESSION_SECONDS, SignedOut, is_token
from perpetuo.entrypoints.http.errors import retry_headers, status_of
from perpetuo.entrypoints.http.refusals import RefusedError

TheDoor = Annotated[Door, Dependency(skip_validation=True)]
TheOperator = Annotated[Operator, Dependency(skip_validation=True)]
FORM_SECONDS = 10.0
LOGOUT = "/admin/logout"
COOKIE_PATHS = ("/admin", "/schema")
OWN_PATH = re.compile(r"/admin(?:[/?][!-\[\]-~]*)?")
"""Where signing in may lead to: printable, ours, no backslash."""
NOT_KEPT = "not_kept"
UNDONE = "undone"
OUT = "out"
KEPT_SECONDS = SESSION_SECONDS + 7 * 86_400
"""A browser keeps the cookie for longer than the session, so that one that has ended can be told as that."""

WHY_SIGNED_OUT = {
    SignedOut.EXPIRED.value: "Your session has ended after 12 hours. Sign in again.",
    SignedOut.INVALID.value: "Your session is no longer valid. Sign in again.",
    OUT: "You are signed out.",
    UNDONE: "You were no longer signed in, so nothing was done. Sign in, then do it again.",
    NOT_KEPT: (
        "The key is right, but your browser did not keep the session: it does so over HTTPS, or for localhost."
        " Use HTTPS, or a tunnel: ssh -L 3000:localhost:3000 and this host."
    ),
}


class SignedOutError(Exception):
    """Nobody is signed in; `to_sign_in` leads to the sign-in page."""

    def __init__(self, why: SignedOut) -> None:
        super().__init__(why.value)
        self.why = why


class ForbiddenError(Exception):
    """Signed in, but not for this; the text says why."""


class StaleFormError(ForbiddenError):
    """Sent from a page that was made for another session: somebody has signed in again meanwhile, in another tab."""


# --- who asks ------------------------------------------------------------------------------------


async def provide_operator(request: AnyRequest, door: TheDoor) -> Operator:
    """Who asks for a page: a bearer key, else a session."""
    key = await door.bearer(request)
    if isinstance(key, WrongKey):
        raise RefusedError(wrong_key(key))
    if key is not None:
        return Operator(key, rejected=door.rejected())
    session = door.session(request)
    if isinstance(session, SignedOut):
        raise SignedOutError(session)
    return Operator(session.key, session, door.rejected())


async def provide_bearer(request: AnyRequest, door: TheDoor) -> Operator:
    """Who asks ``/admin/api``: a bearer key only, so that no browser does it unasked."""
    key = await door.bearer(request)
    if key is None:
        text = "/admin/api needs `Authorization: Bearer <admin key>`."
        raise RefusedError(Refusal(Reason.INVALID_API_KEY, text))
    if isinstance(key, WrongKey):
        raise RefusedError(wrong_key(key))
    return Operator(key)


def wrong_key(wrong: WrongKey) -> Refusal:
    if wrong.wait_us:
        seconds = -(-wrong.wait_us // 1_000_000)
        text = f"Too many wrong admin keys from this address. Try again in {seconds} s."
        return Refusal(Reason.RATE_LIMIT_EXCEEDED, text, retry_after_us=wrong.wait_us)
    return Refusal(Reason.INVALID_API_KEY, "This is not an admin key.")


async def read_form(request: AnyRequest) -> dict[str, str]:
    try:
        async with asyncio.timeout(FORM_SECONDS):
            form = await request.form()
    except TimeoutError as error:
        raise RefusedError(Refusal(Reason.REQUEST_TIMEOUT, "The form did not arrive in time.")) from error
    return {name: value for name, value in form.items() if isinstance(value, str)}


def check_form(request: AnyRequest, operator: Operator, form: Mapping[str, str]) -> None:
    """Did this operator's own page send it? A bearer key needs no token: no browser adds it by itself."""
    if from_another_site(request):
        raise ForbiddenError("This form came from another site.")
    if operator.session is not None and not is_token(operator.session, form.get("token", "")):
        text = (
            f"This page was made for another session. Nothing was done; you are signed in as {operator.key.name} now."
        )
        raise StaleFormError(text)


# --- signing in and out --------------------------------------------------------------------------


@get("/login")
async def show_login(
    request: AnyRequest, door: TheDoor, why: str = "", target: Annotated[str, Parameter(query="next")] = "/admin"
) -> Response[str]:
    if why == NOT_KEPT and not isinstance(door.session(request), SignedOut):
        return see(own(target))
    return _login_page(WHY_SIGNED_OUT.get(why), target, bad=why == NOT_KEPT)


@post("/login", status_code=200)
async def sign_in(request: AnyRequest, door: TheDoor) -> Response[str]:
    form = await read_form(request)
    target, key = own(form.get("next", "")), form.get("key", "").strip()
    if from_another_site(request):
        return _login_page("This form came from another site. Sign in here.", target, 403, bad=True)
    if not key:
        return _login_page("Enter an admin key.", target, 400, bad=True)
    session = await door.sign_in(request, key)
    if isinstance(session, WrongKey):
        refusal = wrong_key(session)
        return _login_page(refusal.message, target, status_of(refusal), bad=True, headers=dict(retry_headers(refusal)))
    plain = on_loopback(request)
    # a browser that does not keep a Secure cookie is told so, instead of being asked for the key for ever
    answer = see(target if plain else f"/admin/login?why={NOT_KEPT}&next={quote(target, safe='')}")
    return _with_cookies(answer, session.text, KEPT_SECONDS, secure=not plain)


@post("/logout", status_code=200)
async def sign_out(request: AnyRequest, operator: TheOperator) -> Response[str]:
    check_form(request, operator, await read_form(request))
    return _with_cookies(see(f"/admin/login?why={OUT}"), "", 0, secure=not on_loopback(request))


def to_sign_in(request: AnyRequest, error: SignedOutError) -> Response[str]:
    """Back to what was asked for once signed in; a form that was sent is not sent again."""
    if "hx-request" in request.headers:
        # a part of a page: htmx would put the sign-in page where the part belongs, so the whole page goes there
        shown = urlsplit(request.headers.get("hx-current-url", ""))
        place = login_place(error.why.value, shown.path + (f"?{shown.query}" if shown.query else ""))
        return Response("Sign in again.", status_code=401, headers={"hx-redirect": place}, media_type="text/plain")
    if request.method == "GET":
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return see(login_place(error.why.value, target))
    if request.url.path == LOGOUT:
        return see(f"/admin/login?why={OUT}")  # in another tab already
    return see(login_place(UNDONE, came_from(request)))


def login_place(why: str, target: str) -> str:
    return f"/admin/login?why={why}&next={quote(own(target), safe='')}"


def came_from(request: AnyRequest) -> str:
    """The page of ours that a form was sent from; the overview when the browser does not say."""
    page = urlsplit(request.headers.get("referer", ""))
    return own(page.path + (f"?{page.query}" if page.query else ""))


def see(target: str) -> Response[str]:
    return Response("", status_code=303, headers={"location": target}, media_type="text/plain")


def own(target: str) -> str:
    return target if OWN_PATH.fullmatch(target) else "/admin"


def _with_cookies(answer: Response[str], text: str, seconds: int, *, secure: bool) -> Response[str]:
    """For each place that looks for a session; calls under ``/v1`` never carry it."""
    for path in COOKIE_PATHS:
        answer.set_cookie(
            Cookie(key=COOKIE, value=text, path=path, max_age=seconds, httponly=True, samesite="strict", secure=secure)
        )
    return answer


def _login_page(
    message: str | None, target: str, status: int = 200, *, bad: bool = False, headers: dict[str, str] | None = None
) -> Response[str]:
    return page("login.html", status, headers, message=message, bad=bad, next=own(target))


def check_role(operator: Operator) -> None:
    if not operator.may_act:
        raise ForbiddenError(f"The key {operator.key.name} has the role read: it may look, but not act.")
