"""What only the httpx transport does: HTTP/2, and HTTP/1.1 through a proxy; its faults stay exact."""

import asyncio
import base64
import contextlib
import socket
import ssl
import threading
import time
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.events
import pytest

from perpetuo.adapters.providers.transport.wire import Upstream, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure
from tests.evil import OK, Blackhole, Evil, Nobody, Peer, answering
from tests.integration.transport.conftest import LATE, POST, Certificates, MakeUpstream, phases, until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("engine", ["httpx"], indirect=True)]


def _h2(peer: Peer) -> None:
    """An HTTP/2 server: answers in two parts; what the path says goes wrong."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    peer.send(connection.data_to_send())
    while data := peer.sock.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                path = next(value for name, value in event.headers or [] if name == b":path")
                peer.server.requests.append(path)
                if not _h2_answer(connection, event.stream_id or 0, path):
                    peer.send(connection.data_to_send())
                    return
        peer.send(connection.data_to_send())
    peer.server.gone.append(time.monotonic())


def _h2_answer(connection: h2.connection.H2Connection, stream: int, path: bytes) -> bool:
    """False: hang up after this."""
    headers = [(":status", "200"), ("content-type", "text/plain")]
    match path:
        case b"/reset":
            connection.reset_stream(stream, error_code=2)
        case b"/gone":
            return False
        case b"/silent":
            pass
        case b"/gzip":
            connection.send_headers(stream, [*headers, ("content-encoding", "gzip")], end_stream=True)
        case b"/half":
            connection.send_headers(stream, headers)
            connection.send_data(stream, b"half")
        case _:
            connection.send_headers(stream, headers)
            connection.send_data(stream, b"a")
            connection.send_data(stream, b"b", end_stream=True)
    return True


@contextlib.contextmanager
def h2_server(certificates: Certificates) -> Any:
    tls = certificates.server("good")
    tls.set_alpn_protocols(["h2"])
    with Evil(_h2, tls=tls, host="localhost") as server:
        yield server


async def ask(client: Upstream, path: bytes, within: dict[str, Any] | None = None) -> bytes:
    exchange = await client.open(to(path), phases(**(within or {})), Abort())
    return await exchange.read(1000)


def to(path: bytes) -> UpstreamRequest:
    return attrs.evolve(POST, path=path)


async def test_http2_calls_are_answered_and_its_connection_used_again(
    upstream: MakeUpstream, certificates: Certificates
) -> None:
    """One connection, one call at a time on it, parallel calls on parallel connections."""
    with h2_server(certificates) as server:
        client = upstream(server.origin, http2=True, tls=certificates.client())
        for _ in range(5):
            assert await ask(client, b"/ok") == b"ab"
        assert server.connections == 1
        assert await asyncio.gather(*[ask(client, b"/ok") for _ in range(5)]) == [b"ab"] * 5
        assert server.connections == 5


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (b"/reset", Fault.RESET),
        (b"/gone", Fault.RESET),
        (b"/silent", Fault.TIMEOUT),
        (b"/half", Fault.TIMEOUT),
        (b"/gzip", Fault.PROTOCOL),
    ],
)
async def test_http2_failures_have_the_same_faults(
    upstream: MakeUpstream, certificates: Certificates, path: bytes, fault: Fault
) -> None:
    """A stream reset, a closed connection, silence, an encoded body: all of it was sent."""
    with h2_server(certificates) as server:
        client = upstream(server.origin, http2=True, tls=certificates.client())
        with pytest.raises(UpstreamFailure) as caught:
            await ask(client, path, {"head": 0.3, "idle": 0.3} if fault is Fault.TIMEOUT else {})
        assert (caught.value.fault, caught.value.sent) == (fault, True)
        assert client.stats().busy == client.stats().idle == 0
        assert await ask(client, b"/ok") == b"ab"


@pytest.mark.parametrize("path", [b"/silent", b"/half"])
@pytest.mark.parametrize("how", ["abort", "cancel"])
async def test_c10_stopping_an_http2_call_ends_it_at_the_server(
    upstream: MakeUpstream, certificates: Certificates, path: bytes, how: str
) -> None:
    """The connection goes, so that the provider stops generating; httpcore alone would leave the stream open."""
    with h2_server(certificates) as server:
        client = upstream(server.origin, http2=True, tls=certificates.client())
        abort = Abort()

        async def call() -> bytes:
            exchange = await client.open(to(path), phases(), abort)
            return await exchange.read(1000)

        waiting = asyncio.create_task(call())
        await until(lambda: server.requests)
        await asyncio.sleep(0.15)
        start = time.monotonic()
        if how == "abort":
            abort.fire("client_gone")
            with pytest.raises(UpstreamFailure):
                await waiting
        else:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert client.stats().busy == 0
        while server.open_connections():
            await asyncio.sleep(0.01)
            assert time.monotonic() - start < LATE


# Proxies.


def _tunnel(peer: Peer) -> None:
    """A CONNECT proxy that wants a password."""
    request = peer.request() or b""
    if b"proxy-authorization: basic " + base64.b64encode(b"user:secret").lower() not in request.lower():
        peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        return
    host, _, port = request.split(b" ")[1].decode().partition(":")
    try:
        onward = socket.create_connection((host, int(port)), timeout=PATIENCE)
    except OSError:
        peer.send(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
        return
    with onward:
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_copy, args=(onward, peer.sock), daemon=True)
        back.start()
        _copy(peer.sock, onward)
        back.join(5)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for sock in (source, target):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def proxy_of(server: Evil, password: str) -> str:
    return f"http://user:{password}@127.0.0.1:{server.port}"


async def test_calls_go_through_a_proxy_and_its_tunnel_is_used_again(
    upstream: MakeUpstream, certificates: Certificates
) -> None:
    """The provider sees neither the proxy's password nor a second handshake."""
    tls = certificates.client()
    with Evil(answering(OK), tls=certificates.server("good"), host="localhost") as server, Evil(_tunnel) as proxy:
        client = upstream(server.origin, tls=tls, proxy=proxy_of(proxy, "secret"))
        for _ in range(3):
            assert await ask(client, b"/x") == b"ok"
        assert server.connections == proxy.connections == 1
        assert not any(b"proxy-auth" in request.lower() for request in server.requests)


async def test_a_proxy_that_fails_means_not_sent(upstream: MakeUpstream, certificates: Certificates) -> None:
    """Refused, wrong password, provider unreachable, silence: CONNECT, so the call may go elsewhere."""
    tls: ssl.SSLContext = certificates.client()
    with Nobody() as gone, Evil(_tunnel) as proxy, Blackhole() as hole, Evil(lambda peer: peer.pause(5)) as mute:
        nobody = gone.origin.replace("http://", "https://")
        for via, origin in (
            (gone.origin, "https://localhost:1"),
            (proxy_of(proxy, "wrong"), "https://localhost:1"),
            (proxy_of(proxy, "secret"), nobody),
            (hole.origin, "https://localhost:1"),
            (mute.origin, "https://localhost:1"),
        ):
            client = upstream(origin, tls=tls, proxy=via)
            with pytest.raises(UpstreamFailure) as caught:
                await ask(client, b"/x", {"connect": 0.4})
            assert (caught.value.fault, caught.value.sent) == (Fault.CONNECT, False)
            assert client.stats().busy == client.stats().idle == 0
