"""
Who may come in to /admin, and how often may one try?

Rule 1: a right key is let in as a bearer whatever happened before; wrong ones count, by client address: five in any
        minute, then 429 with the wait.
Rule 2: a form is also refused while its address has to wait, and a right one wipes the slate clean.
Rule 3: the count is shared by all workers; with Redis away each counts for itself.
Rule 4: what a browser sends from another site is refused, whatever else is right with it.
"""

import ipaddress
from typing import Any

import attrs
from litestar import Request

from perpetuo.adapters.memory.logins import MemoryLogins
from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.operate import Actor
from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.events import RefusalNote
from perpetuo.domain.model.settings import AdminKey
from perpetuo.domain.ports import StoreUnavailable
from perpetuo.entrypoints.http import intake
from perpetuo.entrypoints.http.admin.sessions import COOKIE, Session, Sessions, SignedOut, holder, keys_of, secret_of
from perpetuo.entrypoints.http.request_id import request_id

AnyRequest = Request[Any, Any, Any]
SECOND_US = 1_000_000
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")


@attrs.frozen
class Operator:
    """Who is at the door. ``session`` ``None``: came with a bearer key, so that forms need no token."""

    key: AdminKey
    session: Session | None = None
    rejected: tuple[str, ...] = ()
    """What is wrong with the configuration file; the one before it is in force."""

    @property
    def may_act(self) -> bool:
        return self.key.role == "write"


@attrs.frozen
class WrongKey:
    """``wait_us``: until this address may try again; 0: at once."""

    wait_us: int = 0


class Door:
    """Lets operators in."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self.sessions = Sessions(secret_of(container.environment))
        self._fallback = MemoryLogins(container.system.now_us)

    @property
    def now_s(self) -> int:
        return self._container.system.now_us() // SECOND_US

    def rejected(self) -> tuple[str, ...]:
        """For the banner on every page."""
        return self._container.config.problems

    def keys(self) -> list[AdminKey]:
        return keys_of(self._container.environment, self._container.settings)

    async def bearer(self, request: AnyRequest) -> AdminKey | WrongKey | None:
        """Whose key came in the header? ``None``: there is none."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = holder(key.strip(), self.keys())
        return found or WrongKey(await self._count(request))

    async def sign_in(self, request: AnyRequest, key: str) -> Session | WrongKey:
        """A key typed into the form."""
        wait_us = await self._count(request, note=False)
        found = holder(key, self.keys())
        if wait_us or found is None:
            self._note(request, wait_us)
            return WrongKey(wait_us)
        try:
            await self._container.stores.logins.forget(_bucket(self.address(request)))
        except StoreUnavailable:
            pass  # the count ends by itself within a minute
        await self._fallback.forget(_bucket(self.address(request)))
        self._container.journal.log("info", "admin_signed_in", actor=found.name, client_ip=self.recorded(request))
        return self.sessions.begin(found, self.now_s)

    def session(self, request: AnyRequest) -> Session | SignedOut:
        return self.sessions.read(request.cookies.get(COOKIE), self.keys(), self.now_s)

    def signed_in(self, request: AnyRequest) -> Operator | None:
        """Who looks at a page that is not only for operators, or that says why another can't be shown."""
        session = self.session(request)
        return None if isinstance(session, SignedOut) else Operator(session.key, session, self.rejected())

    async def _count(self, request: AnyRequest, *, note: bool = True) -> int:
        address = _bucket(self.address(request))
        try:
            wait_us = await self._container.stores.logins.login_attempt(address)
        except StoreUnavailable:
            wait_us = await self._fallback.login_attempt(address)
        if note:
            self._note(request, wait_us)
        return wait_us

    def _note(self, request: AnyRequest, wait_us: int) -> None:
        """Kept by the minute like every failed authentication."""
        status = 429 if wait_us else 401
        address = self.recorded(request)
        if not wait_us:
            self._container.journal.log("warning", "admin_key_wrong", client_ip=address)
        note = RefusalNote(
            at_us=self._container.system.now_us(),
            request_id=request_id(request.scope),
            tenant_id="",
            key_name="",
            reason=Reason.INVALID_API_KEY.value,
            status=status,
            model="other",
            client_ip=address,
            decision={"at": "admin"},
        )
        self._container.journal.refused(note)

    def address(self, request: AnyRequest) -> str:
        head = intake.read_head(request.scope["headers"])
        return intake.client_address(request.scope, head, self._container.settings.server) or "unknown"

    def recorded(self, request: AnyRequest) -> str | None:
        return intake.recorded_address(self.address(request), self._container.settings.audit.client_ip)

    def actor(self, request: AnyRequest, operator: Operator) -> Actor:
        return Actor(operator.key.name, request_id(request.scope), self.recorded(request))


def _bucket(address: str) -> str:
    """What counts as one address: whoever has an IPv6 address has a /64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def from_another_site(request: AnyRequest) -> bool:
    """Does the browser say that somebody else's page sent this?"""
    return request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}


def on_loopback(request: AnyRequest) -> bool:
    """
    Was this machine itself addressed? Then plain HTTP is no risk, and browsers may not keep a Secure cookie.

    A proxy may ask under a name of its own (nginx does), but says that it is one.
    """
    if any(name in request.headers for name in FORWARDED):
        return False
    host = request.url.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
