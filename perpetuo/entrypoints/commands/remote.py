"""
How does a command ask a running gateway? As a client of its ``/admin/api``, with an operator's key.

Rule 1: where the gateway is comes from ``--url`` or PERPETUO_URL; the key only from the environment, because every
        user of a machine can read the arguments of its processes.
Rule 2: what goes wrong is one sentence on stderr that says what to do; 2: asked for wrongly, 1: could not be done.
Rule 3: nothing is sent twice and no redirect is followed: the key goes to the gateway that was named, or nowhere.
Rule 4: a server of another kind, and a gateway without the path, are told apart from "there is no such event".
"""

import contextlib
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from http import HTTPStatus
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import attrs
import httpx
import msgspec
import rich_click as click

from perpetuo.adapters.environment import GatewayAddress, InvalidEnvironmentError, read_gateway_address

P = ParamSpec("P")
R = TypeVar("R")
Query = Mapping[str, str | int | None]
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class RemoteError(Exception):
    """A sentence for the operator, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = 1, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.status = status
        self.passing = passing
        """May the same question be answered in a moment? Nothing listens, a timeout, a store that is away."""


@attrs.frozen
class Answer:
    """What the gateway said: ``raw`` for scripts, byte for byte, and the same read."""

    raw: bytes = attrs.field(repr=False)
    facts: Any


# --- for commands --------------------------------------------------------------------------------


def asks_a_gateway(command: Callable[..., R]) -> Callable[..., R]:
    """``--url`` for a command; it is handed the `Remote` as its first argument, and what goes wrong becomes an exit."""

    @click.option(
        "--url", metavar="URL", help="The gateway. Default: PERPETUO_URL, else this machine's MANAGEMENT_PORT or PORT."
    )
    @wraps(command)
    def asking(*args: Any, url: str | None, **options: Any) -> R:
        try:
            with connect(url) as gateway:
                return command(gateway, *args, **options)
        except RemoteError as error:
            fail(str(error), error.status)

    return asking


def as_json(command: Callable[P, R]) -> Callable[P, R]:
    """``--json`` for a command: what the gateway answered, for scripts."""
    return click.option("--json", "json", is_flag=True, help="What the gateway answered, for scripts.")(command)


def fail(sentence: str, status: int = 1) -> NoReturn:
    click.echo(sentence, err=True)
    raise SystemExit(status)


def connect(url: str | None = None) -> "Remote":
    """The gateway of ``url``, or of the environment; raises `RemoteError` when it can't be asked."""
    try:
        address = read_gateway_address()
    except InvalidEnvironmentError as error:
        raise RemoteError("\n".join(error.problems), 2) from error
    if address.admin_key is None:
        text = (
            "PERPETUO_ADMIN_KEY is not set. It is the key that `perpetuo serve` was started with or that `perpetuo dev`"
            " prints; PERPETUO_ADMIN_KEY_FILE may name a file that holds it."
        )
        raise RemoteError(text, 2)
    if not address.admin_key.isascii() or not address.admin_key.isprintable():
        raise RemoteError("PERPETUO_ADMIN_KEY holds something that no key has: only printable ASCII is allowed.", 2)
    return Remote(attrs.evolve(address, url=_checked(url or address.url)))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        strange = parts.username is not None or parts.query or parts.fragment
    except ValueError:
        named, strange = False, None
    if not named or strange or not url.isprintable():
        raise RemoteError("The gateway's URL has to look like http://127.0.0.1:3000: no user, no key, no query.", 2)
    return url.rstrip("/").removesuffix("/admin")


# --- the client ----------------------------------------------------------------------------------


class Remote:
    """One gateway's ``/admin/api``. Each method raises `RemoteError`."""

    def __init__(self, address: GatewayAddress, transport: httpx.BaseTransport | None = None) -> None:
        self.url = address.url
        on_this_machine = urlsplit(address.url).hostname in LOOPBACK
        self._client = httpx.Client(
            base_url=f"{address.url}/admin/api",
            headers={"authorization": f"Bearer {address.admin_key}", "accept": "application/json"},
            timeout=TIMEOUT,
            follow_redirects=False,
            # SSL_CERT_FILE counts always; a proxy of the environment is not asked for 127.0.0.1
            verify=httpx.create_ssl_context() if address.url.startswith("https:") else False,
            trust_env=not on_this_machine,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, query: Query | None = None) -> Answer:
        """``path`` below ``/admin/api``; a filter that is ``None`` is left out."""
        with self._told():
            return self._answer(self._client.get(path, params=_given(query)))

    def post(self, path: str, order: Mapping[str, Any]) -> Answer:
        with self._told():
            return self._answer(self._client.post(path, json=dict(order)))

    @contextlib.contextmanager
    def stream(self, path: str, query: Query | None = None) -> Iterator[httpx.Response]:
        """An answer that is read piece by piece, within `RemoteError`'s words while it is."""
        with self._told(), self._client.stream("GET", path, params=_given(query)) as response:
            if response.status_code != HTTPStatus.OK:
                response.read()
                raise self._refusal(response)
            yield response

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The transport's exceptions as sentences."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise RemoteError(f"{self.url} did not answer in time.", passing=True) from error
        except httpx.ConnectError as error:
            raise self._unreachable(error) from error
        except httpx.TransportError as error:
            raise RemoteError(f"The connection to {self.url} broke: {error}", passing=True) from error

    def _unreachable(self, error: httpx.ConnectError) -> RemoteError:
        broken = _tls_error(error)
        if broken is not None:
            text = (
                f"{self.url} was reached, but not over TLS that can be trusted: {broken}\n"
                "With a certificate authority of your own, name its file in SSL_CERT_FILE; without TLS, use http://."
            )
            return RemoteError(text)
        text = (
            f"Nothing answers at {self.url} ({error}). Is the gateway running there?"
            " --url or PERPETUO_URL names another place."
        )
        return RemoteError(text, passing=True)

    def _answer(self, response: httpx.Response) -> Answer:
        if not response.is_success:
            raise self._refusal(response)
        try:
            return Answer(response.content, msgspec.json.decode(response.content))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._stranger(response) from error

    def _refusal(self, response: httpx.Response) -> RemoteError:
        problem = _problem(response)
        if problem is None:
            return self._stranger(response)
        code, said = str(problem.get("code")), str(problem.get("message"))
        match response.status_code:
            case HTTPStatus.UNAUTHORIZED:
                return RemoteError(f"{self.url} refused PERPETUO_ADMIN_KEY: {said}")
            case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED if _lacks(response, said):
                return self._without(response)
            case HTTPStatus.FORBIDDEN if code == "read_only_key":
                return RemoteError(f"{said} Use a key with the role write.")
            case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
                return RemoteError(said, 2)
            case status:
                return RemoteError(said, passing=status == HTTPStatus.SERVICE_UNAVAILABLE)

    def _without(self, response: httpx.Response) -> RemoteError:
        text = (
            f"The gateway at {self.url} does not have {response.request.url.path}. It is older than this command,"
            " or it serves /admin on its MANAGEMENT_PORT: name that with --url."
        )
        return RemoteError(text)

    def _stranger(self, response: httpx.Response) -> RemoteError:
        text = f"{self.url} answered {response.status_code}, but not as a Perpetuo gateway does. Is this the right URL?"
        if response.is_redirect:
            text += f" It wants to send you to {response.headers.get('location', 'nowhere')[:200]}."
        return RemoteError(text)


def _given(query: Query | None) -> dict[str, str | int]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The ``error`` of our envelope."""
    try:
        found = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    problem = found.get("error") if isinstance(found, dict) else None
    return problem if isinstance(problem, dict) and "source" in problem else None


def _lacks(response: httpx.Response, said: str) -> bool:
    """Is it the path that this gateway does not have, and not what was looked for?"""
    return response.status_code == HTTPStatus.METHOD_NOT_ALLOWED or said.startswith("There is nothing at")


def _tls_error(error: BaseException) -> str | None:
    """What TLS found wrong; it stands somewhere below httpx's own exception."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLError):
            return getattr(below, "verify_message", "") or below.reason or str(below)
        below = below.__cause__ or below.__context__
    return None
