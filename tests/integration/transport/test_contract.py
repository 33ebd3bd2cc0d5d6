"""What every transport promises: answers, failures and their ``sent``, each phase's end, strictness."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from perpetuo.adapters.providers.transport.wire import Exchange, Phases, Upstream, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure
from tests.evil import OK, Blackhole, Evil, Peer, answering, saying, silent_after
from tests.integration.transport.conftest import POST, Certificates, MakeUpstream, phases

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\n"
MEGABYTE = 1 << 20


async def call(upstream: Upstream, request: UpstreamRequest = POST, within: Phases | None = None) -> bytes:
    exchange = await upstream.open(request, within or phases(), Abort())
    return await exchange.read(MEGABYTE)


async def failure_of(awaitable: Awaitable[Any]) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await awaitable
    return caught.value


async def drain(exchange: Exchange) -> tuple[bytes, UpstreamFailure | None]:
    """All that came, and how it ended."""
    whole = b""
    try:
        while (piece := await exchange.chunk()) is not None:
            whole += piece
    except UpstreamFailure as failure:
        return whole, failure
    return whole, None


# What goes out and what comes back.


async def test_s1_the_request_on_the_wire_is_ours(upstream: MakeUpstream) -> None:
    """Path, body and the caller's headers as given; host, length and coding are ours, whoever else sets them."""
    given = ((b"X-One", b"1"), (b"Accept-Encoding", b"gzip"), (b"Host", b"elsewhere"), (b"Content-Length", b"99"))
    with Evil(answering(OK)) as server:
        await call(upstream(server.origin), UpstreamRequest(b"POST", b"/a/b%20c?d=e", given, b"hello"))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    sent = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    assert lines[0] == b"POST /a/b%20c?d=e HTTP/1.1"
    assert body == b"hello"
    assert len(sent) == len(lines) - 1
    assert sent[b"x-one"] == b"1"
    assert sent[b"accept-encoding"] == b"identity"
    assert sent[b"content-length"] == b"5"
    assert sent[b"host"] == f"127.0.0.1:{server.port}".encode()


@pytest.mark.parametrize(
    "request_",
    [
        UpstreamRequest(b"POST", b"/", ((b"a", b"b\r\nx: y"),), b""),
        UpstreamRequest(b"POST", b"/", ((b"a\r\nx", b"b"),), b""),
        UpstreamRequest(b"POST", b"/", ((b"a", b"b\0"),), b""),
        UpstreamRequest(b"POST", b"/ HTTP/1.1\r\nx: y", (), b""),
        UpstreamRequest(b"POST / ", b"/", (), b""),
    ],
)
async def test_s1_a_request_that_could_be_two_is_never_sent(upstream: MakeUpstream, request_: UpstreamRequest) -> None:
    """Line breaks and NUL in what we send are refused before there is a connection."""
    with Evil(answering(OK)) as server:
        failure = await failure_of(upstream(server.origin).open(request_, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.PROTOCOL, False)
        assert server.connections == 0


async def test_an_answer_has_its_status_lower_case_headers_and_bytes(upstream: MakeUpstream) -> None:
    """Bad statuses are answers, not failures; header values lose only the blanks around them."""
    answer = b"HTTP/1.1 503 Down\r\nX-Request-ID:  a b \r\nEmpty:\r\nContent-Length: 3\r\n\r\nno!"
    with Evil(answering(answer)) as server:
        exchange = await upstream(server.origin).open(POST, phases(), Abort())
        assert exchange.status == 503
        assert dict(exchange.headers) == {b"x-request-id": b"a b", b"empty": b"", b"content-length": b"3"}
        assert await exchange.read(10) == b"no!"
        assert await exchange.chunk() is None


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nTrailer: 1\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n", b""),
        (HEAD + b"content-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx", b"x"),
        (HEAD + b"content-encoding: identity\r\ncontent-length: 1\r\n\r\nx", b"x"),
    ],
    ids=["chunked", "1xx", "204", "empty", "no reason", "identity"],
)
async def test_every_framing_of_an_answer_is_understood(upstream: MakeUpstream, answer: bytes, body: bytes) -> None:
    """Whatever its framing, the answer is whole and the connection is used again; trailers and 1xx are dropped."""
    with Evil(answering(answer)) as server:
        client = upstream(server.origin)
        for _ in range(3):
            exchange = await client.open(POST, phases(), Abort())
            assert await exchange.read(100) == body
            assert exchange.status in (200, 204)
            assert b"trailer" not in dict(exchange.headers)
        assert server.connections == 1


async def test_an_answer_may_end_with_its_connection(upstream: MakeUpstream) -> None:
    """No length at all: the body ends where the connection does, and that was its last answer."""
    with Evil(saying(HEAD + b"\r\nuntil the end")) as server:
        client = upstream(server.origin)
        assert await call(client) == b"until the end"
        assert client.stats().idle == 0
        assert await call(client) == b"until the end"
        assert server.connections == 2


async def test_an_answer_to_head_has_no_body(upstream: MakeUpstream) -> None:
    """Its content-length is about another request."""
    with Evil(answering(HEAD + b"content-length: 10\r\n\r\n")) as server:
        assert await call(upstream(server.origin), UpstreamRequest(b"HEAD", b"/", (), b"")) == b""


async def test_a_stream_arrives_piece_by_piece(upstream: MakeUpstream) -> None:
    """Each chunk is there before the server has sent the next: nothing waits for a buffer to fill."""
    loop = asyncio.get_running_loop()
    turns: list[asyncio.Future[None]] = [loop.create_future() for _ in range(5)]

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for number, turn in enumerate(turns):
            peer.send(b"1\r\n%d\r\n" % number)
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(turn, 5), loop).result()
        peer.send(b"0\r\n\r\n")

    with Evil(script) as server:
        exchange = await upstream(server.origin).open(POST, phases(), Abort())
        for number, turn in enumerate(turns):
            assert await exchange.chunk() == b"%d" % number
            turn.set_result(None)
        assert await exchange.chunk() is None


# Connections.


async def test_a_connection_serves_many_calls(upstream: MakeUpstream) -> None:
    """Twenty calls in a row need one connection, and leave it idle."""
    with Evil(answering(OK)) as server:
        client = upstream(server.origin)
        for _ in range(20):
            assert await call(client) == b"ok"
        assert server.connections == 1
        assert client.stats().idle == 1
        assert client.stats().busy == 0


@pytest.mark.parametrize("header", [b"connection: close", b"keep-alive: timeout=1", b"Keep-Alive: max=5, timeout=0"])
async def test_a_connection_about_to_be_closed_is_not_used_again(upstream: MakeUpstream, header: bytes) -> None:
    """The server says when it will close; a second of margin keeps the next request off."""
    with Evil(answering(HEAD + header + b"\r\ncontent-length: 2\r\n\r\nok")) as server:
        client = upstream(server.origin)
        for _ in range(3):
            assert await call(client) == b"ok"
        assert client.stats().idle == 0
        assert server.connections == 3


@pytest.mark.parametrize("yielding", [True, False], ids=["loop knows", "only the socket knows"])
async def test_a_connection_closed_while_idle_is_not_used(upstream: MakeUpstream, yielding: bool) -> None:
    """The goodbye is seen when the connection is taken, also if the loop hasn't polled since."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        peer.close()

    with Evil(script) as server:
        client = upstream(server.origin)
        for _ in range(3):
            assert await call(client) == b"ok"
            if yielding:
                await asyncio.sleep(0.05)
            else:
                time.sleep(0.05)  # noqa: ASYNC251 - the loop must not see it
        assert server.connections == 3


async def test_r_a_reset_on_a_warm_connection_counts_as_sent_and_is_not_repeated(upstream: MakeUpstream) -> None:
    """Nobody can tell whether the server had read the request: doing it twice is not ours to decide."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        peer.request()
        peer.reset()

    with Evil(script) as server:
        client = upstream(server.origin)
        await call(client)
        failure = await failure_of(client.open(POST, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.RESET, True)
        assert len(server.requests) == 2
        assert server.connections == 1


async def test_never_more_connections_than_allowed(upstream: MakeUpstream) -> None:
    """Callers wait their turn, at most for their connect phase, first come first served."""
    with Evil(answering(OK)) as server:
        client = upstream(server.origin, max_connections=2)
        assert await asyncio.gather(*[call(client) for _ in range(30)]) == [b"ok"] * 30
        assert server.connections <= 2
    with Evil(silent_after(b"")) as server:
        client = upstream(server.origin, max_connections=1)
        first = asyncio.create_task(failure_of(client.open(POST, phases(head=1.0), Abort())))
        await asyncio.sleep(0.05)
        failure = await failure_of(client.open(POST, phases(connect=0.2), Abort()))
        assert (failure.fault, failure.sent) == (Fault.CONNECT, False)
        assert (await first).fault is Fault.TIMEOUT
        assert client.stats().busy == 0


async def test_closing_ends_calls_in_flight(upstream: MakeUpstream) -> None:
    """Calls in every phase end with ABORTED, and nobody gets in any more."""
    with Evil(silent_after(b"")) as server, Blackhole() as hole:
        busy, dialling = upstream(server.origin, max_connections=1), upstream(hole.origin)
        waiting = [
            asyncio.create_task(failure_of(client.open(POST, phases(), Abort()))) for client in (busy, busy, dialling)
        ]
        await asyncio.sleep(0.1)
        await asyncio.gather(busy.close(), dialling.close())
        ends = await asyncio.wait_for(asyncio.gather(*waiting), 1)
        assert [end.fault for end in ends] == [Fault.ABORTED] * 3
        assert [end.sent for end in ends] == [True, False, False]
        assert (await failure_of(busy.open(POST, phases(), Abort()))).fault is Fault.ABORTED


# Failures before anything is sent.


async def test_nobody_listening_is_not_sent(upstream: MakeUpstream) -> None:
    """Refused, an unknown name: CONNECT, and the request can be tried elsewhere."""
    with Evil(answering(OK)) as server:
        refused = server.origin
    for origin in (refused, "http://no-such-host.invalid"):
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
                assert 0.25 < time.monotonic() - start < 1.0
            assert client.stats().busy == 0


@pytest.mark.parametrize("certificate", ["expired", "stranger", "wrong name"])
async def test_a_server_with_a_bad_certificate_gets_nothing(
    upstream: MakeUpstream, certificates: Certificates, certificate: str
) -> None:
    """Expired, signed by a stranger, for another name: CONNECT, and not a byte of the request."""
    name = "good" if certificate == "wrong name" else certificate
    host = "127.0.0.1" if certificate == "wrong name" else "localhost"
    with Evil(answering(OK), tls=certificates.server(name), host=host) as server:
        client = upstream(server.origin, tls=certificates.client())
        failure = await failure_of(client.open(POST, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.CONNECT, False)
        assert server.requests == []
    with Evil(answering(OK), tls=certificates.server("good"), host="localhost") as server:
        failure = await failure_of(upstream(server.origin).open(POST, phases(), Abort()))
        assert (failure.fault, failure.sent) == (Fault.CONNECT, False)


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
        failure = await failure_of(client.open(POST, phases(head=2), Abort()))
        assert (failure.fault, failure.sent) == (Fault.PROTOCOL, True)
        assert client.stats().busy == client.stats().idle == 0


@pytest.mark.parametrize("body", [b"zz\r\nab\r\n", b"2\r\nabc\r\n0\r\n\r\n", b"-1\r\n\r\n"])
async def test_a_bad_chunk_is_refused(upstream: MakeUpstream, body: bytes) -> None:
    """A chunk that is not as long as it says, or says no length."""
    with Evil(silent_after(HEAD + b"transfer-encoding: chunked\r\n\r\n" + body)) as server:
        failure = await failure_of(call(upstream(server.origin), within=phases(idle=2)))
        assert (failure.fault, failure.sent) == (Fault.PROTOCOL, True)


@pytest.mark.parametrize("extra", [OK, b"surplus", b"HTTP/1.1 200"], ids=["second response", "surplus", "half"])
@pytest.mark.parametrize("gap", [0.0, 0.05])
async def test_bytes_after_the_end_never_become_the_next_answer(
    upstream: MakeUpstream, extra: bytes, gap: float
) -> None:
    """A connection that said too much is not used again; the next call gets its own answer from a new one."""
    answer = HEAD + b"content-length: 5\r\n\r\nfirst"

    def script(peer: Peer) -> None:
        peer.request()
        if peer.number:
            peer.send(OK.replace(b"ok", b"no"))
        elif gap:
            peer.send(answer)
            peer.pause(gap)
            peer.send(extra)
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
            await asyncio.sleep(2 * gap)
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

    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        if engine == "httpx":
            peer.wait_gone()  # It looks for an answer only when all is sent, so the server has to take it.
        else:
            peer.pause(0.2)

    with Evil(script) as server:
        client = upstream(server.origin)
        exchange = await client.open(UpstreamRequest(b"POST", b"/", (), b"x" * 20 * MEGABYTE), phases(), Abort())
        assert exchange.status == 413
        assert await exchange.read(10) == b"big"
        assert client.stats().busy == 0
        assert engine == "httpx" or client.stats().idle == 0


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


# Silence, abort and cancel in every phase after connecting.


async def test_c8_silence_ends_when_its_phase_does(upstream: MakeUpstream) -> None:
    """Head, gap and deadline, each TIMEOUT and sent, on time."""
    start_of_body = HEAD + b"content-length: 10\r\n\r\nabc"
    cases: tuple[tuple[bytes, dict[str, Any]], ...] = (
        (b"", {"head": 0.3}),
        (b"HTTP/1.1 100 Continue\r\n\r\n", {"head": 0.3}),
        (b"", {"head": None, "total": 0.3}),
        (start_of_body, {"head": 5.0, "idle": 0.3}),
        (start_of_body, {"idle": None, "total": 0.3}),
    )
    for said, within in cases:
        with Evil(silent_after(said)) as server:
            client = upstream(server.origin)
            start = time.monotonic()
            failure = await failure_of(call(client, within=phases(**within)))
            assert (failure.fault, failure.sent) == (Fault.TIMEOUT, True)
            assert 0.25 < time.monotonic() - start < 0.8
            assert client.stats().busy == client.stats().idle == 0


async def test_c8_a_drip_resets_the_gap_but_not_the_deadline(upstream: MakeUpstream) -> None:
    """Bytes 50 ms apart are no gap of 200 ms; the call still ends at its deadline."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"content-length: 1000\r\n\r\n")
        peer.send_slowly([b"x"] * 1000, 0.05)

    with Evil(script) as server:
        start = time.monotonic()
        exchange = await upstream(server.origin).open(POST, phases(idle=0.2, total=0.7), Abort())
        whole, failure = await drain(exchange)
        assert failure is not None
        assert failure.fault is Fault.TIMEOUT
        assert len(whole) > 5
        assert 0.6 < time.monotonic() - start < 1.2


async def test_c8_a_slow_reader_is_no_silent_server(upstream: MakeUpstream) -> None:
    """Time the reader takes between two chunks is not the server's gap."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"content-length: 6\r\n\r\nabc")
        peer.pause(0.5)
        peer.send(b"def")

    with Evil(script) as server:
        exchange = await upstream(server.origin).open(POST, phases(head=0.3, idle=0.3), Abort())
        assert await exchange.chunk() == b"abc"
        await asyncio.sleep(0.6)
        assert await exchange.chunk() == b"def"
        assert await exchange.chunk() is None


def _stages(server: Evil, hole: Blackhole, mute: Evil) -> dict[str, tuple[str, bool]]:
    """Origin and ``sent`` for each phase in which a call can be stopped."""
    return {
        "connecting": (hole.origin, False),
        "handshake": (f"https://localhost:{mute.port}", False),
        "head": (server.origin, True),
        "body": (server.origin + "/body", True),
    }


def _silent(peer: Peer) -> None:
    request = peer.request() or b""
    if request.startswith(b"POST /body"):
        peer.send(HEAD + b"content-length: 10\r\n\r\nabc")
    peer.wait_gone()


def _mute(peer: Peer) -> None:
    peer.sock.settimeout(5)
    while peer.sock.recv(65536):
        pass


async def _call_at(client: Upstream, stage: str, abort: Abort) -> None:
    """Get stuck in that stage."""
    path = b"/body" if stage == "body" else b"/"
    exchange = await client.open(UpstreamRequest(b"POST", path, (), b""), phases(), abort)
    assert await exchange.chunk() == b"abc"
    await exchange.chunk()


@pytest.mark.parametrize("stage", ["connecting", "handshake", "head", "body"])
@pytest.mark.parametrize("how", ["abort", "cancel"])
async def test_c10_stopped_in_any_phase_leaves_nothing(upstream: MakeUpstream, stage: str, how: str) -> None:
    """The waiter is back at once, the server sees the connection end at once, no slot stays busy."""
    with Evil(_silent) as server, Evil(_mute) as mute, Blackhole() as hole:
        origin, sent = _stages(server, hole, mute)[stage]
        client = upstream(origin.removesuffix("/body"))
        abort = Abort()
        waiting = asyncio.create_task(_call_at(client, stage, abort))
        await asyncio.sleep(0.1)
        assert client.stats().busy == 1
        start = time.monotonic()
        if how == "abort":
            abort.fire("client_gone")
            failure = await failure_of(waiting)
            assert (failure.fault, failure.sent) == (Fault.ABORTED, sent)
        else:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert client.stats().busy == client.stats().idle == 0
        while server.open_connections() or mute.open_connections():
            await asyncio.sleep(0.01)
            assert time.monotonic() - start < 1.0
        assert abort._callbacks == []


async def test_c10_an_abort_while_waiting_in_line(upstream: MakeUpstream) -> None:
    """Not sent, the others' turn comes."""
    with Evil(silent_after(b"")) as server:
        client = upstream(server.origin, max_connections=1)
        first, second = Abort(), Abort()
        calls = [asyncio.create_task(failure_of(client.open(POST, phases(), abort))) for abort in (first, second)]
        await asyncio.sleep(0.1)
        second.fire("client_gone")
        failure = await calls[1]
        assert (failure.fault, failure.sent) == (Fault.ABORTED, False)
        first.fire("client_gone")
        assert (await calls[0]).sent is True
        assert client.stats().busy == 0


async def test_an_abort_before_the_call_sends_nothing(upstream: MakeUpstream) -> None:
    """Too late to begin."""
    with Evil(answering(OK)) as server:
        abort = Abort()
        abort.fire("shutdown")
        failure = await failure_of(upstream(server.origin).open(POST, phases(), abort))
        assert (failure.fault, failure.sent) == (Fault.ABORTED, False)
        assert server.connections == 0


async def test_an_exchange_given_up_by_its_reader_is_closed(upstream: MakeUpstream) -> None:
    """`abort()` between two chunks closes; afterwards it is harmless, also once the end was read."""
    with Evil(_silent) as server:
        client = upstream(server.origin)
        exchange = await client.open(UpstreamRequest(b"POST", b"/body", (), b""), phases(), Abort())
        assert await exchange.chunk() == b"abc"
        exchange.abort()
        exchange.abort()
        assert client.stats().busy == client.stats().idle == 0
        assert (await failure_of(exchange.chunk())).fault is Fault.ABORTED
    with Evil(answering(OK)) as server:
        client = upstream(server.origin)
        exchange = await client.open(POST, phases(), Abort())
        assert await exchange.read(10) == b"ok"
        exchange.abort()
        assert client.stats().idle == 1
