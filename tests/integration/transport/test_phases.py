"""What every transport promises about time: silence, abort and cancel in each phase."""

import asyncio
import threading
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from perpetuo.adapters.providers.transport.wire import Exchange, Upstream, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault
from tests.evil import OK, Blackhole, Evil, Peer, answering, silent_after
from tests.integration.transport.conftest import (
    HEAD,
    LATE,
    LONG,
    MEGABYTE,
    POST,
    MakeUpstream,
    call,
    failure_of,
    phases,
    timed_out,
    until,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


async def test_c8_silence_ends_when_its_phase_does(upstream: MakeUpstream) -> None:
    """Head, gap and deadline, each TIMEOUT and sent, on time."""
    start_of_body = HEAD + b"content-length: 10\r\n\r\nabc"
    cases: tuple[tuple[bytes, str, dict[str, Any]], ...] = (
        (b"", "head", {}),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "head", {}),
        (b"", "total", {"head": None}),
        (start_of_body, "idle", {}),
        (start_of_body, "total", {"idle": None}),
    )
    for said, phase, within in cases:
        with Evil(silent_after(said)) as server:
            client = upstream(server.origin)

            def attempt(seconds: float) -> Awaitable[bytes]:
                return call(client, within=phases(**within, **{phase: seconds}))  # noqa: B023

            assert (await timed_out(attempt)).sent
            assert client.stats().busy == client.stats().idle == 0


async def test_c8_a_drip_resets_the_gap_but_not_the_deadline(upstream: MakeUpstream) -> None:
    """Bytes 50 ms apart are no gap of 600 ms; the call still ends at its deadline, 1.2 s after its beginning."""

    async def dripping(times: float) -> bool:
        """The same at so many times the length: did it last to its deadline?"""

        def script(peer: Peer) -> None:
            peer.request()
            peer.send(HEAD + b"content-length: 1000\r\n\r\n")
            peer.send_slowly([b"x"] * 1000, 0.05 * times)

        with Evil(script) as server:
            start = time.monotonic()
            failure = await failure_of(
                call(upstream(server.origin), within=phases(idle=0.6 * times, total=1.2 * times))
            )
            took = time.monotonic() - start
        assert failure.fault is Fault.TIMEOUT
        assert took < 1.2 * times + LATE
        return took > 1.1 * times

    assert await dripping(1) or await dripping(4) or await dripping(16)  # a stalled machine drips with gaps


async def test_c8_a_slow_reader_is_no_silent_server(upstream: MakeUpstream) -> None:
    """Time the reader takes between two chunks is not the server's gap."""

    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"content-length: 6\r\n\r\nabc")
        peer.pause(0.5)
        peer.send(b"def")
        sent.set()

    with Evil(script) as server:
        exchange = await upstream(server.origin).open(POST, phases(idle=0.3), Abort())
        assert await exchange.chunk() == b"abc"
        await until(sent.is_set)
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
    peer.sock.settimeout(LONG)
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
        await until(lambda: client.stats().busy == 1 and (not sent or server.requests))
        await asyncio.sleep(0.1)
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
            assert time.monotonic() - start < LATE
        assert abort._callbacks == []


LARGE = UpstreamRequest(b"POST", b"/", (), b"x" * 20 * MEGABYTE)


@pytest.mark.parametrize("how", ["abort", "cancel"])
async def test_c10_stopped_while_sending_leaves_nothing(upstream: MakeUpstream, how: str) -> None:
    """The server takes a part of a large request, then nothing: what it reads later ends there, not whole."""
    began, stopped = threading.Event(), threading.Event()
    read: list[int] = []

    def script(peer: Peer) -> None:
        size = len(peer.sock.recv(1000))
        began.set()
        stopped.wait(PATIENCE)
        while piece := peer.sock.recv(MEGABYTE):
            size += len(piece)
        read.append(size)

    with Evil(script) as server:
        client = upstream(server.origin)
        abort = Abort()
        waiting = asyncio.create_task(client.open(LARGE, phases(), abort))
        await until(began.is_set)
        await asyncio.sleep(0.1)
        if how == "abort":
            abort.fire("client_gone")
            failure = await failure_of(waiting)
            assert (failure.fault, failure.sent) == (Fault.ABORTED, True)
        else:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert client.stats().busy == client.stats().idle == 0
        stopped.set()
        await until(lambda: not server.open_connections())
        assert sum(read) < len(LARGE.body)


async def test_c8_a_server_that_takes_nothing_of_a_request_is_a_silent_one(upstream: MakeUpstream) -> None:
    """Sending is a part of the wait for the head: TIMEOUT and sent when that is over, or the deadline."""
    with Evil(lambda peer: peer.pause(LONG)) as server:
        client = upstream(server.origin)

        def until_head(seconds: float) -> Awaitable[Exchange]:
            return client.open(LARGE, phases(head=seconds), Abort())

        def until_deadline(seconds: float) -> Awaitable[Exchange]:
            return client.open(LARGE, phases(head=None, total=seconds), Abort())

        for attempt in (until_head, until_deadline):
            assert (await timed_out(attempt)).sent
            assert client.stats().busy == client.stats().idle == 0


@pytest.mark.parametrize("how", ["abort", "cancel"])
async def test_c10_stopped_while_waiting_in_line(upstream: MakeUpstream, how: str) -> None:
    """Not sent, the others' turn comes."""
    with Evil(silent_after(b"")) as server:
        client = upstream(server.origin, max_connections=1)
        first, second = Abort(), Abort()
        calls = [asyncio.create_task(failure_of(client.open(POST, phases(), abort))) for abort in (first, second)]
        await until(lambda: server.requests)
        if how == "abort":
            second.fire("client_gone")
            failure = await calls[1]
            assert (failure.fault, failure.sent) == (Fault.ABORTED, False)
        else:
            calls[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await calls[1]
        assert second._callbacks == []
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
