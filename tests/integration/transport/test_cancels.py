"""C10: thousands of calls stopped at random moments leave no busy slot, no task, no socket."""

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from perpetuo.adapters.providers.transport.wire import Upstream, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, UpstreamFailure
from tests.evil import Evil, Peer
from tests.integration.transport.conftest import Certificates, MakeUpstream, phases, tasks
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio

SEED = int(os.environ.get("CANCEL_SEED", "0")) or random.randrange(1 << 30)
LATER = -1.0


def _hesitant(peer: Peer) -> None:
    """The path of the request as a stream in three parts with pauses; some paths miss the last one."""
    while (request := peer.request()) is not None:
        path = request.split(b" ")[1]
        peer.pause(random.random() * 0.004)
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n%s\r\n" % path[:2])
        peer.pause(random.random() * 0.004)
        if random.random() < 0.1 and not path.startswith(b"/calm"):
            peer.reset()
            return
        peer.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(path) - 2, path[2:]))


async def _call(client: Upstream, abort: Abort, dice: random.Random, path: bytes = b"/%d") -> None:
    """Its answer has to be its own path."""
    request = UpstreamRequest(b"POST", path % dice.randrange(10**9, 10**10), (), b"x" * dice.choice([10, 10, 200_000]))
    exchange = await client.open(request, phases(), abort)
    try:
        assert await exchange.read(1000) == request.path
    finally:
        exchange.abort()


async def _usual(client: Upstream, dice: random.Random, at_once: int) -> float:
    """Seconds that a call takes now beside so many others, if nobody stops it: the slowest's."""
    start = time.monotonic()
    await asyncio.gather(*[_call(client, Abort(), dice, b"/calm%d") for _ in range(at_once)])
    return time.monotonic() - start


async def _call_and_stop(client: Upstream, dice: random.Random, usual: float) -> str:
    """Stopped at once, early, at any time within what is ``usual``, or too late: when it has ended."""
    abort = Abort()
    waiting = asyncio.ensure_future(_call(client, abort, dice))
    part, how = dice.choice([0.0, 0.1, 1.0, LATER]), dice.choice(["abort", "cancel", "both"])
    for _ in range(dice.randrange(4)):
        await asyncio.sleep(0)
    if part == LATER:
        await asyncio.wait({waiting})
    elif part:
        await asyncio.sleep(part * dice.random() * usual)
    if how != "cancel":
        abort.fire("client_gone")
    if how != "abort":
        waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        return "cancelled"
    except UpstreamFailure as failure:
        return failure.fault.value
    return "answered"


async def _stop_many(client: Upstream, count: int, at_once: int) -> dict[str, int]:
    dice = random.Random(SEED)
    ends: dict[str, int] = {}
    usual = await _usual(client, dice, at_once)

    async def worker() -> None:
        for _ in range(count // at_once):
            end = await asyncio.wait_for(_call_and_stop(client, dice, usual), 2 * PATIENCE)
            ends[end] = ends.get(end, 0) + 1

    await asyncio.gather(*[worker() for _ in range(at_once)])
    return ends


async def _expect_nothing_left(client: Upstream, servers: list[Evil]) -> None:
    assert client.stats().busy == 0
    await client.close()
    end = time.monotonic() + PATIENCE
    while tasks() or any(server.open_connections() for server in servers):
        await asyncio.sleep(0.01)
        assert time.monotonic() < end


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=SLOW)])
async def test_c10_random_stops_leave_nothing(upstream: MakeUpstream, engine: str, count: int) -> None:
    """In line, connecting, sending, waiting, reading: whenever it was stopped, every answer is its own call's."""
    files = _open_files()
    with Evil(_hesitant) as server:
        client = upstream(server.origin, max_connections=20)
        ends = await _stop_many(client, count // 4 if engine == "httpx" and count < 10_000 else count, 40)
        assert {"aborted", "cancelled", "answered"} <= set(ends)
        dice = random.Random(SEED)
        for _ in range(10):
            await asyncio.gather(*[_call(client, Abort(), dice, b"/calm%d") for _ in range(20)])
        await _expect_nothing_left(client, [server])
    assert _open_files() <= files + 3


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=SLOW)])
async def test_c10_random_stops_over_tls_leave_nothing(
    upstream: MakeUpstream, certificates: Certificates, count: int
) -> None:
    """Handshakes included."""
    files = _open_files()
    with Evil(_hesitant, tls=certificates.server("good"), host="localhost") as server:
        client = upstream(server.origin, tls=certificates.client(), max_connections=10)
        ends = await _stop_many(client, count, 20)
        assert {"aborted", "cancelled", "answered"} <= set(ends)
        for number in range(20):
            await _call(client, Abort(), random.Random(number), b"/calm%d")
        await _expect_nothing_left(client, [server])
    assert _open_files() <= files + 3
