"""One connection without sockets: bytes are handed to the protocol, what it does to its transport is looked at."""

import asyncio
import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.providers.transport.connection import Connection, Http1Exchange
from perpetuo.adapters.providers.transport.wire import BUFFER_BYTES, Phases
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure

HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = Phases(connect=5, head=60, idle=60, deadline=time.monotonic() + 1000)


class Pipe(asyncio.Transport):
    """A transport to nowhere: keeps what is written, as a full or an empty socket buffer would."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.unsent = 0
        self.closed = False
        self.pauses: list[bool] = []

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.pauses.append(True)

    def resume_reading(self) -> None:
        self.pauses.append(False)


class Bench:
    """A connection on a pipe, and what it told its pool."""

    def __init__(self) -> None:
        self.freed: list[float] = []
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(self.loop, lambda _, keep_s: self.freed.append(keep_s))
        self.pipe = Pipe()
        self.connection.connection_made(self.pipe)

    async def exchange(self, *answer: bytes, body: bytes = b"", abort: Abort | None = None) -> Http1Exchange:
        """An exchange whose head has arrived."""
        exchange = Http1Exchange(self.loop, self.connection, b"POST", LONG, abort or Abort())
        for piece in answer:
            self.loop.call_soon(self.connection.data_received, piece)
        await exchange.begin(b"POST / HTTP/1.1\r\n\r\n", body)
        return exchange


@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 500), max_size=10))
@settings(max_examples=60, deadline=None)
def test_the_reader_gets_every_byte_once(body: bytes, cuts: list[int]) -> None:
    """However the bytes arrive, the chunks joined are the body, and the connection is free afterwards."""
    data = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    async def scenario() -> None:
        bench = Bench()
        exchange = await bench.exchange(*(data[a:b] for a, b in itertools.pairwise(edges) if b > a))
        assert await exchange.read(1000) == body
        assert bench.freed == [15.0]
        assert not bench.pipe.closed

    asyncio.run(scenario())


@pytest.mark.anyio
async def test_an_answer_in_one_packet_frees_the_connection_before_it_is_read() -> None:
    """Rule 1: the connection doesn't wait for whoever reads the answer."""
    bench = Bench()
    exchange = await bench.exchange(HEAD + b"content-length: 2\r\n\r\nok")
    assert bench.freed == [15.0]
    assert await exchange.chunk() == b"ok"
    assert await exchange.chunk() is None


@pytest.mark.anyio
async def test_reading_stops_while_the_reader_is_slow() -> None:
    """More than a buffer's worth waiting: the socket is left alone until the reader wants more."""
    bench = Bench()
    exchange = await bench.exchange(HEAD + b"content-length: 9999999\r\n\r\n")
    bench.connection.data_received(b"x" * BUFFER_BYTES)
    assert bench.pipe.pauses == []
    bench.connection.data_received(b"x")
    assert bench.pipe.pauses == [True]
    assert len(await exchange.chunk() or b"") == BUFFER_BYTES + 1
    bench.loop.call_soon(bench.connection.data_received, b"y")
    assert await exchange.chunk() == b"y"
    assert bench.pipe.pauses == [True, False]
    exchange.abort()


@pytest.mark.anyio
async def test_a_large_body_waits_for_the_server() -> None:
    """Written in pieces, none while the transport's buffer is full, all in the end."""
    bench = Bench()
    body = bytes(range(256)) * 4096
    bench.connection.pause_writing()
    waiting = asyncio.create_task(bench.exchange(body=body))
    await asyncio.sleep(0)
    assert bytes(bench.pipe.written) == b"POST / HTTP/1.1\r\n\r\n"
    bench.connection.resume_writing()
    assert bytes(bench.pipe.written) == b"POST / HTTP/1.1\r\n\r\n" + body
    bench.connection.data_received(HEAD + b"content-length: 0\r\n\r\n")
    assert await (await waiting).read(1) == b""
    assert bench.freed == [15.0]


@pytest.mark.parametrize("where", ["our pieces", "the transport's buffer"])
@pytest.mark.anyio
async def test_an_answer_before_the_request_was_sent_ends_the_connection(where: str) -> None:
    """The server would take the rest of the body for another request."""
    bench = Bench()
    if where == "our pieces":
        bench.connection.pause_writing()
    else:
        bench.pipe.unsent = 1
    exchange = await bench.exchange(b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno", body=b"x" * 100_000)
    assert exchange.status == 413
    assert await exchange.read(10) == b"no"
    assert bench.freed == [0.0]
    await asyncio.sleep(0)
    assert bench.pipe.closed


@pytest.mark.anyio
async def test_an_abort_and_an_end_in_the_same_moment_have_one_outcome() -> None:
    """Whichever came first wins, the connection is freed once."""
    for first in ("abort", "end"):
        bench = Bench()
        abort = Abort()
        exchange = await bench.exchange(HEAD + b"content-length: 2\r\n\r\n", abort=abort)
        if first == "abort":
            abort.fire("client_gone")
            bench.connection.data_received(b"ok")
            with pytest.raises(UpstreamFailure) as caught:
                await exchange.chunk()
            assert caught.value.fault is Fault.ABORTED
        else:
            bench.connection.data_received(b"ok")
            abort.fire("client_gone")
            assert await exchange.chunk() == b"ok"
        await asyncio.sleep(0)
        assert bench.pipe.closed is (first == "abort")


@pytest.mark.anyio
async def test_bytes_on_an_idle_connection_close_it() -> None:
    """Nobody asked: not kept for the next request to trip over."""
    bench = Bench()
    await bench.exchange(HEAD + b"content-length: 0\r\n\r\n")
    bench.connection.data_received(b"HTTP/1.1 408 Timeout\r\n\r\n")
    await asyncio.sleep(0)
    assert bench.pipe.closed
    assert bench.freed == [15.0, 0.0]
