"""What every transport promises about failures: their fault, an exact ``sent``, and strictness."""

import asyncio
import threading
import time

import pytest

from perpetuo.adapters.providers.transport.wire import UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure
from tests.evil import OK, Blackhole, Evil, Nobody, Peer, answering, silent_after
from tests.integration.transport.conftest import (
    HEAD,
    LATE,
    MEGABYTE,
    POST,
    Certificates,
    MakeUpstream,
    call,
    drain,
    failure_of,
    phases,
    until,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


async def test_nobody_listening_is_not_sent(upstream: MakeUpstream) -> None:
    """Refused, an unknown name: CONNECT, and the request can be tried elsewhere."""
    with Nobody() as nobody:
        for origin in (nobody.origin, "http://no-such-host.invalid"):
            failure = await failure_of(upstream(origin).open(POST, phases(), Abort()))
            assert (failure.fault, failure.sent) == (Fault.CONNECT, False)


async def test_c8_connecting_takes_as_long_as_it_may(upstream: MakeUpstream, certificates: Certificates) -> None:
    """TCP or TLS never answered: CONNECT after the connect phase, not sent; TIMEOUT if the deadline was first."""

    def mute(peer: Peer) -> None:
        peer.wait_gone()

    with Blackhole() as hole, Evil(mute) as plain:
        tls = f"https://localhost:{plain.port}"
        for client in (upstream(hole.origin), upstream(tls, tls=certificates.client())):
            for within, fault in (({"connect": 0.3}, Fault.CONNECT), ({"total": 0.3}, Fault.TIMEOUT)):
                start = time.monotonic()
                failure = await failure_of(client.open(POST, phases(**within), Abort()))
                assert (failure.fault, failure.sent) == (fault, False)
                assert 0.25 < time.monotonic() - start < LATE
            assert client.stats().busy == 0


BAD_CERTIFICATES = ["expired", "stranger", "self-signed", "another host", "wrong name"]


@pytest.mark.parametrize("certificate", BAD_CERTIFICATES)
async def test_a_server_with_a_bad_certificate_gets_nothing(
    upstream: MakeUpstream, certificates: Certificates, certificate: str
) -> None:
    """Expired, signed by a stranger or by itself, for another name or a name for an address: CONNECT, nothing sent."""
    name = "good" if certificate == "wrong name" else certificate
    host = "127.0.0.1" if certificate == "wrong name" else "localhost"
    with Evil(answering(OK), tls=certificates.server(name), host=host) as server:
        client = upstream(server.origin, tls=certificates.client())
        for _ in range(2):
            failure = await failure_of(client.open(POST, phases(), Abort()))
            assert (failure.fault, failure.sent) == (Fault.CONNECT, False)
            assert client.stats().busy == client.stats().idle == 0
        assert server.requests == []


async def test_nobody_is_trusted_that_the_system_does_not_trust(
    upstream: MakeUpstream, certificates: Certificates
) -> None:
    """Without a context of one's own, the system's authorities count, and ours isn't one."""
    with Evil(answering(OK), tls=certificates.server("good"), host="localhost") as server:
        failure = await failure_of(upstream(server.origin).open(POST, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.CONNECT, False)
        assert server.requests == []


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["nothing", "half", "http"]
)
@pytest.mark.parametrize("goodbye", ["close", "reset"])
async def test_a_server_that_leaves_the_handshake_gets_nothing(
    upstream: MakeUpstream, certificates: Certificates, said: bytes, goodbye: str
) -> None:
    """Closed, reset or answered in plain text while we agree on TLS: CONNECT, and nothing was sent."""

    def script(peer: Peer) -> None:
        assert peer.sock.recv(65536)[:1] == b"\x16", "our first byte is TLS's"
        if said:
            peer.send(said)
        peer.reset() if goodbye == "reset" else peer.close()

    with Evil(script) as server:
        client = upstream(f"https://localhost:{server.port}", tls=certificates.client())
        failure = await failure_of(client.open(POST, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.CONNECT, False)
        assert client.stats().busy == client.stats().idle == 0


async def test_tls_works_and_connections_are_used_again(upstream: MakeUpstream, certificates: Certificates) -> None:
    """With a certificate that is right for its name."""
    with Evil(answering(OK), tls=certificates.server("good"), host="localhost") as server:
        client = upstream(server.origin, tls=certificates.client())
        for _ in range(5):
            assert await call(client) == b"ok"
        assert server.connections == 1


# Failures afterwards.


@pytest.mark.parametrize("said", [b"", HEAD[:9], HEAD + b"content-le"], ids=["nothing", "half a line", "half a head"])
@pytest.mark.parametrize("goodbye", ["close", "reset"])
async def test_t2_a_server_that_leaves_without_an_answer_is_a_reset(
    upstream: MakeUpstream, said: bytes, goodbye: str
) -> None:
    """It has read the request: sent, whatever the client library calls it."""

    def script(peer: Peer) -> None:
        peer.request()
        if said:
            peer.send(said)
            peer.pause(0.05)
        peer.reset() if goodbye == "reset" else peer.close()

    with Evil(script) as server:
        failure = await failure_of(upstream(server.origin).open(POST, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.RESET, True)


@pytest.mark.parametrize(
    "said",
    [b"content-length: 10\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("goodbye", ["close", "reset"])
async def test_an_answer_cut_short_is_never_whole(upstream: MakeUpstream, said: bytes, goodbye: str) -> None:
    """What arrived is handed on, then the failure: never a clean end."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + said)
        peer.pause(0.05)
        peer.reset() if goodbye == "reset" else peer.close()

    with Evil(script) as server:
        exchange = await upstream(server.origin).open(POST, phases(), Abort())
        whole, failure = await drain(exchange)
        assert whole == b"abc"
        assert failure is not None
        assert (failure.fault, failure.sent) == (Fault.RESET, True)
        assert (await failure_of(exchange.chunk())).fault is Fault.RESET


MALFORMED = {
    "status 0": b"HTTP/1.1 000 No\r\ncontent-length: 0\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 No\r\ncontent-length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 No\r\ncontent-length: 0\r\n\r\n",
    "status 101": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "informational with a body": b"HTTP/1.1 150 X\r\ncontent-length: 5\r\n\r\nhello" + OK,
    "not http": b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "NUL": HEAD + b"a: b\0c\r\ncontent-length: 0\r\n\r\n",
    "line feed in a value": HEAD + b"a: b\n\0c: d\r\ncontent-length: 0\r\n\r\n",
    "both lengths": HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "negative length": HEAD + b"content-length: -1\r\n\r\nabc",
    "gzip and chunked": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "gzip": HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    "many headers": HEAD + b"a: b\r\n" * 200 + b"content-length: 0\r\n\r\n",
    "large head": HEAD + b"a: %s\r\ncontent-length: 0\r\n\r\n" % (b"b" * 70_000),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
async def test_s4_a_head_that_cannot_be_trusted_is_refused(upstream: MakeUpstream, answer: bytes) -> None:
    """Status, header, coding or length that can't be represented, or read in two ways: PROTOCOL, sent, closed."""
    with Evil(silent_after(answer)) as server:
        client = upstream(server.origin)
        failure = await failure_of(client.open(POST, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.PROTOCOL, True)
        assert client.stats().busy == client.stats().idle == 0


@pytest.mark.parametrize(
    "body",
    [b"zz\r\nab\r\n", b"2\r\nabc\r\n0\r\n\r\n", b"-1\r\n\r\n", b"1\r\na\r\n0\r\ntransfer-encoding: gzip\r\n\r\n"],
    ids=["no number", "too long", "negative", "a coding in the trailer"],
)
async def test_a_bad_chunk_is_refused(upstream: MakeUpstream, body: bytes) -> None:
    """A chunk that is not as long as it says, or says no length; a trailer that says another."""
    with Evil(silent_after(HEAD + b"transfer-encoding: chunked\r\n\r\n" + body)) as server:
        failure = await failure_of(call(upstream(server.origin)))
        assert (failure.fault, failure.sent) == (Fault.PROTOCOL, True)


@pytest.mark.parametrize("extra", [OK, b"surplus", b"HTTP/1.1 200"], ids=["second response", "surplus", "half"])
@pytest.mark.parametrize("gap", [0.0, 0.05])
async def test_bytes_after_the_end_never_become_the_next_answer(
    upstream: MakeUpstream, extra: bytes, gap: float
) -> None:
    """A connection that said too much is not used again; the next call gets its own answer from a new one."""
    answer = HEAD + b"content-length: 5\r\n\r\nfirst"
    said = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        if peer.number:
            peer.send(OK.replace(b"ok", b"no"))
        elif gap:
            peer.send(answer)
            peer.pause(gap)
            peer.send(extra)
            said.set()
        else:
            peer.send(answer + extra)
        peer.wait_gone()

    with Evil(script) as server:
        client = upstream(server.origin)
        try:
            assert await call(client) == b"first"
        except UpstreamFailure as failure:
            assert (failure.fault, failure.sent) == (Fault.PROTOCOL, True)  # noqa: PT017 - either is right
        if gap:
            await until(said.is_set)
            await asyncio.sleep(gap)
        assert await call(client) == b"no"
        assert server.connections == 2


async def test_a_body_over_the_limit_is_refused_and_its_connection_closed(upstream: MakeUpstream) -> None:
    """Read no further than the limit, whatever was announced."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(10_000):
            peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        peer.server.requests.append(b"took it all")

    with Evil(script) as server:
        client = upstream(server.origin)
        exchange = await client.open(POST, phases(), Abort())
        failure = await failure_of(exchange.read(4096))
        assert (failure.fault, failure.sent) == (Fault.PROTOCOL, True)
        assert client.stats().busy == 0
    assert b"took it all" not in server.requests
    with Evil(answering(OK)) as server:
        exchange = await upstream(server.origin).open(POST, phases(), Abort())
        assert (await failure_of(exchange.read(1))).fault is Fault.PROTOCOL


@pytest.mark.parametrize(
    "start",
    [b"", HEAD + b"a: ", HEAD + b"transfer-encoding: chunked\r\n\r\n1;x="],
    ids=["status line", "header", "chunk extension"],
)
async def test_s4_a_line_of_100_mb_is_not_read(upstream: MakeUpstream, start: bytes) -> None:
    """Whatever the endless line is part of, a fraction of a megabyte of it is enough."""
    sent = 0

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.request()
        peer.send(start or b"HTTP/1.1 200 ")
        for _ in range(1600):
            peer.send(b"x" * 65536)
            sent += 65536

    with Evil(script) as server:
        failure = await failure_of(call(upstream(server.origin)))
        assert (failure.fault, failure.sent) == (Fault.PROTOCOL, True)
    assert sent < 16 * MEGABYTE  # socket buffers of both ends


async def test_an_early_answer_is_delivered_and_its_connection_not_used_again(
    upstream: MakeUpstream, engine: str
) -> None:
    """413 before the body was sent: that is the answer, and the rest of the body no next request."""
    heard = threading.Event()

    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        if engine == "httpx":
            peer.wait_gone()  # It looks for an answer only when all is sent, so the server has to take it.
        else:
            heard.wait(PATIENCE)

    with Evil(script) as server:
        client = upstream(server.origin)
        exchange = await client.open(UpstreamRequest(b"POST", b"/", (), b"x" * 20 * MEGABYTE), phases(), Abort())
        assert exchange.status == 413
        assert await exchange.read(10) == b"big"
        heard.set()
        assert client.stats().busy == 0
        assert engine == "httpx" or client.stats().idle == 0


async def test_a_server_that_resets_while_it_is_sent_to_is_a_reset(upstream: MakeUpstream) -> None:
    """It has read a part of the request: sent."""

    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.reset()

    with Evil(script) as server:
        client = upstream(server.origin)
        request = UpstreamRequest(b"POST", b"/", (), b"x" * 20 * MEGABYTE)
        failure = await failure_of(client.open(request, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.RESET, True)
        assert client.stats().busy == client.stats().idle == 0


async def test_a_large_body_arrives_whole(upstream: MakeUpstream) -> None:
    """Written in pieces, as fast as the server takes them."""
    body = bytes(range(256)) * 40_000
    with Evil(answering(OK)) as server:
        client = upstream(server.origin)
        for _ in range(2):
            assert await call(client, UpstreamRequest(b"POST", b"/", (), body)) == b"ok"
        assert server.connections == 1
        assert all(request.endswith(b"\r\n\r\n" + body) for request in server.requests)


async def test_a_slow_reader_stops_the_server(upstream: MakeUpstream) -> None:
    """Nothing is read ahead but a buffer's worth: the server's writes block."""
    sent = 0

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.request()
        peer.send(HEAD + b"content-length: %d\r\n\r\n" % (64 * MEGABYTE))
        for _ in range(1024):
            peer.send(b"x" * 65536)
            sent += 65536

    with Evil(script) as server:
        exchange = await upstream(server.origin).open(POST, phases(), Abort())
        size = len(await exchange.chunk() or b"")
        await asyncio.sleep(0.3)
        assert sent < 24 * MEGABYTE  # socket buffers of both ends
        while (piece := await exchange.chunk()) is not None:
            size += len(piece)
            assert len(piece) <= MEGABYTE
        assert size == 64 * MEGABYTE
