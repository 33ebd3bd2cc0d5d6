"""
Can a provider be reached from here, and does it take our credential?

For `perpetuo doctor`. Rule 1: without being asked for more, only a connection is made (TCP, and TLS with its checks).
Rule 2: a call is ``GET …/models``; no prompt is ever sent. Of its answer only the status is kept: what a provider says
about a credential may repeat it.
"""

import asyncio
import ssl
from urllib.parse import urlsplit

import attrs

from perpetuo import __version__
from perpetuo.adapters.providers.openai import request_target
from perpetuo.adapters.providers.registry import open_line
from perpetuo.adapters.providers.transport.llhttp import default_tls
from perpetuo.adapters.providers.transport.wire import Phases, UpstreamRequest
from perpetuo.adapters.system import RealSystem
from perpetuo.domain.model.models import ProviderSpec
from perpetuo.domain.model.upstream import Abort, UpstreamFailure

PORTS = {"https": 443, "http": 80}


class UnreachableError(Exception):
    """There is no connection; the text says why. ``insecure``: there is one, with a certificate not to be trusted."""

    def __init__(self, text: str, *, insecure: bool = False) -> None:
        super().__init__(text)
        self.insecure = insecure


@attrs.frozen
class Reached:
    """``address`` is host and port: of the proxy, where there is one."""

    address: str
    took_ms: float
    status: int | None = None
    """Of `GET /models`; ``None``: not asked."""


async def reach(spec: ProviderSpec, *, call: bool, seconds: float) -> Reached:
    """Connect, and call if told to; raises `UnreachableError`."""
    parts = urlsplit(spec.proxy or spec.base_url)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 80)
    monotonic = RealSystem().monotonic
    begun = monotonic()
    try:
        async with asyncio.timeout(seconds):
            await _connect(host, port, default_tls() if parts.scheme == "https" else None)
            took_ms = (monotonic() - begun) * 1000
            status = await _models(spec, seconds) if call else None
    except ssl.SSLCertVerificationError as error:
        raise UnreachableError(f"{host}:{port}: {error.verify_message}", insecure=True) from error
    except TimeoutError as error:
        raise UnreachableError(f"{host}:{port}: no answer in {seconds:g} s") from error
    except UpstreamFailure as failure:
        raise UnreachableError(failure.text) from failure
    except (OSError, ValueError) as error:
        raise UnreachableError(f"{host}:{port}: {error}") from error
    return Reached(f"{host}:{port}", took_ms, status)


async def _connect(host: str, port: int, tls: ssl.SSLContext | None) -> None:
    _, writer = await asyncio.open_connection(host, port, ssl=tls)
    writer.transport.abort()


async def _models(spec: ProviderSpec, seconds: float) -> int:
    key = (spec.api_key or "").strip()
    usual = ((b"accept", b"application/json"), (b"user-agent", b"perpetuo/" + __version__.encode()))
    headers = (*usual, (b"authorization", b"Bearer " + key.encode())) if key else usual
    due = asyncio.get_running_loop().time() + seconds
    line = open_line(spec, RealSystem().now_us)
    try:
        request = UpstreamRequest(b"GET", request_target(spec.base_url, "/models"), headers, b"")
        exchange = await line.open(request, Phases(seconds, seconds, seconds, due), Abort())
        exchange.abort()
        return exchange.status
    finally:
        await line.close()
