"""Both transports, and the event loops they run on."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from perpetuo.adapters.providers.transport.httpx_transport import HttpxUpstream
from perpetuo.adapters.providers.transport.llhttp import LlhttpUpstream
from perpetuo.adapters.providers.transport.wire import Exchange, Phases, Upstream, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure
from tests.evil import Evil
from tests.patience import PATIENCE

POST = UpstreamRequest(b"POST", b"/v1/chat?x=1", ((b"content-type", b"application/json"),), b'{"a":1}')

HEAD = b"HTTP/1.1 200 OK\r\n"
LATE = PATIENCE
"""Seconds after which something did not happen in time, on a busy machine too: the limits of `phases` are longer."""
LONG = 2 * LATE
"""Seconds of what is not to end first."""
SHORT = (0.3, 1.5, 8.0)
"""Seconds of a deadline: a stalled machine may need the longer ones to send anything before it."""
MEGABYTE = 1 << 20

MakeUpstream = Callable[..., Upstream]


def phases(
    *, connect: float = LONG, head: float | None = LONG, idle: float | None = LONG, total: float = LONG
) -> Phases:
    return Phases(connect, head, idle, time.monotonic() + total)


async def call(upstream: Upstream, request: UpstreamRequest = POST, within: Phases | None = None) -> bytes:
    exchange = await upstream.open(request, within or phases(), Abort())
    return await exchange.read(MEGABYTE)


async def failure_of(awaitable: Awaitable[Any]) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await awaitable
    return caught.value


async def timed_out(attempt: Callable[[float], Awaitable[Any]]) -> UpstreamFailure:
    """
    How an attempt ends that is given so many seconds: TIMEOUT, not before they are over and soon after.

    With more of them from time to time while the request has not been sent by then.
    """
    for seconds in SHORT[:-1]:
        if (failure := await _timed_out(attempt, seconds)).sent:
            return failure
    return await _timed_out(attempt, SHORT[-1])


async def _timed_out(attempt: Callable[[float], Awaitable[Any]], seconds: float) -> UpstreamFailure:
    start = time.monotonic()
    failure = await failure_of(attempt(seconds))
    assert failure.fault is Fault.TIMEOUT
    assert seconds * 0.8 < time.monotonic() - start < seconds + LATE
    return failure


async def drain(exchange: Exchange) -> tuple[bytes, UpstreamFailure | None]:
    """All that came, and how it ended."""
    whole = b""
    try:
        while (piece := await exchange.chunk()) is not None:
            whole += piece
    except UpstreamFailure as failure:
        return whole, failure
    return whole, None


@pytest.fixture(params=["llhttp", "llhttp-uvloop", "httpx"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(engine: str) -> Any:
    return ("asyncio", {"use_uvloop": engine.endswith("uvloop")})


@pytest.fixture
async def upstream(engine: str, anyio_backend: Any) -> AsyncIterator[MakeUpstream]:
    """Makes a transport for an origin; afterwards nothing of it may be left."""
    made: list[Upstream] = []

    def make(origin: str, **options: Any) -> Upstream:
        if engine == "httpx":
            if origin.startswith("http://"):
                options.setdefault("tls", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # reading the system's takes 27 ms
            made.append(HttpxUpstream(origin, **options))
        else:
            made.append(LlhttpUpstream(origin, **options))
        return made[-1]

    yield make
    for one in made:
        await one.close()
        assert one.stats().busy == 0
        assert one.stats().idle == 0
    await until(lambda: not tasks())


async def until(true: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def left_by(server: Evil) -> None:
    """Until the server has closed every connection and the kernel has told our ends; the loop sees nothing of it."""
    while server.open_connections() or _established(server.port):
        time.sleep(0.01)


def _established(port: int) -> int:
    """Connections to this port that our end takes for open (Linux)."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in table)


def tasks() -> list[asyncio.Task[Any]]:
    """Tasks that are running, beside the test's own and its runner's."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return [task for task in others if "TestRunner" not in repr(task)]


@attrs.frozen
class Certificates:
    """A certificate authority of the test's own, and what it signed for ``localhost``."""

    folder: Path

    def server(self, name: str) -> ssl.SSLContext:
        """``good``; or ``expired``, ``stranger`` (signed by nobody we know), ``self-signed``, for ``another host``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(("openssl", *arguments), cwd=folder, check=True, capture_output=True)

    (folder / "localhost").write_text("subjectAltName=DNS:localhost\n")
    (folder / "elsewhere").write_text("subjectAltName=DNS:provider.example,DNS:*.localhost\n")
    for authority in ("ca", "other"):
        openssl("req", "-x509", *_NEW_KEY, "-keyout", f"{authority}.key", "-out", f"{authority}.pem",
                "-subj", f"/CN={authority}", "-days", "2")  # fmt: skip
    openssl("req", "-x509", *_NEW_KEY, "-keyout", "self-signed.key", "-out", "self-signed.pem",
            "-subj", "/CN=localhost", "-days", "2", "-addext", "subjectAltName=DNS:localhost")  # fmt: skip
    for name, authority, days, names in (
        ("good", "ca", "2", "localhost"),
        ("expired", "ca", "-1", "localhost"),
        ("stranger", "other", "2", "localhost"),
        ("another host", "ca", "2", "elsewhere"),
    ):
        openssl("req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
                "-CAcreateserial", "-days", days, "-extfile", names, "-out", f"{name}.pem")  # fmt: skip
    return Certificates(folder)
