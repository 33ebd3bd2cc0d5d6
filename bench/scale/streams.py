"""
What does a stream cost that is open: in memory while nothing comes, and in CPU for each event that does?
"""

import asyncio
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from bench import machine
from bench.scale import stage
from bench.upstream import start_python
from tests import servers
from tests.live import LiveGateway

COUNTS = (1, 10, 100, 1_000)
PACE = 1_000
"""Events a second, over all streams together."""
SECONDS = 4.0
BODY = (stage.BODY % ("stream", '"stream":true,', "hi")).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %b\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)


@attrs.frozen
class Streams:
    """So many at once; ``kib`` are of the worker's resident memory, for each stream that is silent."""

    count: int
    kib: float
    idle_cpu: float
    """Percent of a core that the gateway takes while nothing comes."""
    cpu_us: float
    """CPU for each event passed on, beyond that."""
    rate: float
    """Events a second that clients got."""


class Client(asyncio.Protocol):
    """Opens a stream and counts its events."""

    def __init__(self) -> None:
        self.events = 0
        self.first = asyncio.get_running_loop().create_future()
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(REQUEST % (stage.KEY.format(0).encode(), len(BODY), BODY))

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b"data: ")
        if self.events and not self.first.done():
            self.first.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.first.done():
            self.first.set_exception(AssertionError("the gateway closed a stream before its first event"))


@contextmanager
def provider() -> Iterator[int]:
    """The provider in a process of its own, on the other core; its port."""
    port = servers.free_port()
    process = start_python("bench.scale.provider", port)
    try:
        machine.pin(process.pid, stage.OTHER_CORE)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def measure(stores: stage.Stores) -> list[Streams]:
    """One worker for all counts, smallest first: what it took for fewer streams it has already."""
    database = servers.new_database(stores.postgres.url)
    with provider() as port, stage.gateway(stage.config(1, port), stores.redis, database) as live:
        return [asyncio.run(_measure(count, port, live)) for count in COUNTS]


async def _measure(count: int, port: int, live: LiveGateway) -> Streams:
    (worker,) = live.worker_pids()
    assert live.process is not None
    clients = await _opened(min(count, 5), live.port)  # what the first streams of a process bring with them
    await _closed(clients, live)
    before = machine.rss_mib(worker)
    clients = await _opened(count, live.port)
    await asyncio.sleep(1)
    kib = (machine.rss_mib(worker) - before) * 1024 / count
    idle, _ = await _cpu(live.process.pid, clients)
    await asyncio.to_thread(_pace, port, PACE)
    busy, events = await _cpu(live.process.pid, clients)
    await asyncio.to_thread(_pace, port, 0)
    await _closed(clients, live)
    return Streams(count, kib, idle / SECONDS * 100, (busy - idle) * 1e6 / max(1, events), events / SECONDS)


async def _opened(count: int, port: int) -> list[Client]:
    """So many streams, each of which has had its first event."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(count)]
    await asyncio.wait_for(asyncio.gather(*(client.first for client in clients)), 30)
    return clients


async def _closed(clients: list[Client], live: LiveGateway) -> None:
    for client in clients:
        assert client.transport is not None
        client.transport.close()
    for _ in range(100):
        await asyncio.sleep(0.1)
        metrics = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{live.url}/metrics").read().decode())
        if "perpetuo_in_flight_requests 0" in metrics:
            return
    raise AssertionError("streams that clients left are still in flight")


async def _cpu(pid: int, clients: list[Client]) -> tuple[float, int]:
    """Seconds of CPU and events within `SECONDS`."""
    cpu, seen = machine.cpu_seconds(pid), sum(client.events for client in clients)
    await asyncio.sleep(SECONDS)
    return machine.cpu_seconds(pid) - cpu, sum(client.events for client in clients) - seen


def _pace(port: int, events: int) -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/pace/{events}").close()
