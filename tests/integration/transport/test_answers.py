"""What every transport promises about requests, answers and the connections they use."""

import asyncio
import threading

import attrs
import pytest

from perpetuo.adapters.providers.transport.wire import UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault
from tests.evil import OK, Blackhole, Evil, Peer, answering, saying, silent_after
from tests.integration.transport.conftest import (
    HEAD,
    LATE,
    POST,
    MakeUpstream,
    call,
    failure_of,
    left_by,
    phases,
    until,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


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
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(turn, PATIENCE), loop).result()
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
            left_by(server)
            if yielding:
                await asyncio.sleep(0.05)
        assert server.connections == 3


@pytest.mark.parametrize("goodbye", ["close", "reset", "speaks"])
async def test_however_many_idle_connections_have_died_the_call_is_sent_once(
    upstream: MakeUpstream, goodbye: str
) -> None:
    """All five idle ones closed, reset or talking: the call goes over a new one, and its server reads it once."""
    leave = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        if peer.number < 5:
            leave.wait(PATIENCE)
            peer.send(b"HTTP/1.1 408 Too late\r\n\r\n") if goodbye == "speaks" else None
            peer.reset() if goodbye == "reset" else peer.close()
        else:
            peer.wait_gone()

    with Evil(script) as server:
        client = upstream(server.origin)
        await asyncio.gather(*[call(client) for _ in range(5)])
        assert client.stats().idle == server.connections == 5
        leave.set()
        left_by(server)
        assert await call(client, attrs.evolve(POST, path=b"/once")) == b"ok"
        assert sum(request.startswith(b"POST /once ") for request in server.requests) == 1
        assert server.connections == 6


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
        done = Abort()
        first = asyncio.create_task(failure_of(client.open(POST, phases(head=None), done)))
        await until(lambda: server.requests)
        failure = await failure_of(client.open(POST, phases(connect=0.2), Abort()))
        assert (failure.fault, failure.sent) == (Fault.CONNECT, False)
        done.fire("client_gone")
        assert (await first).fault is Fault.ABORTED
        assert client.stats().busy == 0


async def test_closing_ends_calls_in_flight(upstream: MakeUpstream) -> None:
    """Calls in every phase end with ABORTED, and nobody gets in any more."""
    with Evil(silent_after(b"")) as server, Blackhole() as hole:
        busy, dialling = upstream(server.origin, max_connections=1), upstream(hole.origin)
        waiting = [
            asyncio.create_task(failure_of(client.open(POST, phases(), Abort()))) for client in (busy, busy, dialling)
        ]
        await until(lambda: server.requests and dialling.stats().busy)
        await asyncio.gather(busy.close(), dialling.close())
        ends = await asyncio.wait_for(asyncio.gather(*waiting), LATE)
        assert [end.fault for end in ends] == [Fault.ABORTED] * 3
        assert [end.sent for end in ends] == [True, False, False]
        assert (await failure_of(busy.open(POST, phases(), Abort()))).fault is Fault.ABORTED
