"""SIGTERM with streams, a stalled upload and idle connections: exit 0, and no event is lost (O1, A1, B4)."""

import concurrent.futures
import contextlib
import itertools
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.evil import Peer
from tests.integration.faults.traffic import KINDS, Traffic, broken_by, rows_of
from tests.integration.faults.upstreams import Act, Upstreams, late
from tests.integration.gateway.test_upstreams import CHUNK_HEAD, EVENT, FINISH
from tests.live import KEY, LiveGateway, eventually, rows
from tests.patience import PATIENCE
from tests.servers import PostgresServer, RedisServer

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
STREAMS = 6


@pytest.fixture
def leaving(
    redis: RedisServer, postgres: PostgresServer, configured: str, request: pytest.FixtureRequest
) -> Iterator[LiveGateway]:
    """A gateway of this test's own, to be ended; its parameter is about ``server``."""
    text = configured.replace("bodyTimeout: 20s, drainDelay: 500ms", request.param)
    assert request.param in text
    with LiveGateway(text, redis_url=redis.url, database_url=postgres.url, workers=2) as running:
        yield running


def lasting(seconds: float, over: threading.Event | None = None) -> Act:
    """A stream of an event every 0.2 s, for so long or until it is ``over``."""

    def act(peer: Peer) -> None:
        peer.send(CHUNK_HEAD)
        chunk = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
        peer.send_slowly(
            itertools.takewhile(lambda _: not (over and over.is_set()), [chunk] * round(seconds / 0.2)), 0.2
        )
        peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(FINISH), FINISH))

    return act


@contextlib.contextmanager
def idle_connections(gateway: LiveGateway, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have had an answer and stay open, half of them; the others have said nothing yet."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 30)) for _ in range(count)]
        for sock in made[::2]:
            sock.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200")
        yield made


def closed(sock: socket.socket) -> bool:
    sock.settimeout(PATIENCE)
    try:
        return sock.recv(65_536) == b""
    except ConnectionError:
        return True


def stream(gateway: LiveGateway, number: int, tag: str, **more: str) -> httpx.Response:
    headers = {"x-request-id": f"{tag}-{number}", "x-perpetuo-tag": tag, **more}
    url, body = gateway.url + "/v1/chat/completions", {"model": "endless", "stream": True, "max_tokens": 5}
    messages = [{"role": "user", "content": "hi"}]
    headers |= {"authorization": f"Bearer {KEY}"}
    return httpx.post(url, headers=headers, json={**body, "messages": messages}, timeout=90, verify=False)


def asked(upstreams: Upstreams) -> int:
    """Streams that have begun."""
    return sum(1 for name, _ in upstreams.asked if name == "endless")


def in_flight(redis: RedisServer) -> int:
    """Calls in flight that Redis knows of."""
    with redis.client() as client:
        return sum(int(client.zcard(f"perpetuo:{{s{shard:02}}}:holds")) for shard in range(16))


def waiting(redis: RedisServer, tag: str) -> set[str]:
    """Request ids of events that are still in Redis, for the next gateway to carry over."""
    with redis.client() as client:
        entries = [entry for shard in range(16) for _, entry in client.xrange(f"perpetuo:{{s{shard:02}}}:events")]
    events = [json.loads(entry["e"]) for entry in entries]
    return {event["request_id"] for event in events if event.get("tag") == tag}


@pytest.mark.parametrize("leaving", ["bodyTimeout: 2s, drainDelay: 4s"], indirect=True)
def test_o1_sigterm_lets_streams_finish_beside_a_stalled_upload_and_idle_connections(
    leaving: LiveGateway, upstreams: Upstreams, redis: RedisServer, postgres: PostgresServer
) -> None:
    """Streams end with [DONE], idle connections are closed, the upload is cut: exit 0, and every event is there."""
    over = threading.Event()
    upstreams.acts["endless"] = lasting(60, over)
    with (
        idle_connections(leaving, 20) as idle,
        socket.create_connection(("127.0.0.1", leaving.port)) as upload,
        concurrent.futures.ThreadPoolExecutor(STREAMS) as pool,
        Traffic(leaving, "o1-traffic", clients=2, kinds={"plain": KINDS["plain"]}) as traffic,
    ):
        upload.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        before = asked(upstreams)
        calls = [pool.submit(stream, leaving, number, "o1-streams") for number in range(STREAMS)]
        eventually(lambda: asked(upstreams) == before + STREAMS)
        leaving.signal(signal.SIGTERM)
        began = time.monotonic()
        eventually(lambda: leaving.get("/health/ready").status_code == 503)
        assert leaving.process is not None
        traffic.stop()
        over.set()
        assert leaving.process.wait(60) == 0
        assert time.monotonic() - began < 50  # the drain's end would be after 58 s
        assert all(call.result().text.endswith("data: [DONE]\n\n") for call in calls)
        assert all(closed(sock) for sock in idle)
    for tag, ids in (
        ("o1-streams", {f"o1-streams-{number}" for number in range(STREAMS)}),
        ("o1-traffic", {one.request_id for one in traffic.seen if one.good}),
    ):
        left = waiting(redis, tag)  # before SQL is looked at: another gateway carries them over meanwhile
        found = rows_of(postgres.url, tag)
        assert set(found.values()) <= {1}
        assert set(found) | left == ids
    assert in_flight(redis) == 0
    upstreams.acts["endless"] = late(0)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("leaving", ["bodyTimeout: 300s, drainDelay: 500ms"], indirect=True)
def test_o1_after_58_s_streams_get_an_error_event_and_the_exit_is_0_within_70_s(
    leaving: LiveGateway, upstreams: Upstreams, redis: RedisServer, postgres: PostgresServer
) -> None:
    """In real time: endless streams with and without a key, an upload that stalls, idle connections; no hold stays."""
    upstreams.acts["endless"] = lasting(120)
    with (
        idle_connections(leaving, 20) as idle,
        socket.create_connection(("127.0.0.1", leaving.port)) as upload,
        concurrent.futures.ThreadPoolExecutor(STREAMS) as pool,
    ):
        keyed = [{"x-idempotency-key": f"o1-{number}"} if number % 2 else {} for number in range(STREAMS)]
        before = asked(upstreams)
        calls = [pool.submit(stream, leaving, number, "o1-long", **keyed[number]) for number in range(STREAMS)]
        eventually(lambda: asked(upstreams) == before + STREAMS)
        leaving.signal(signal.SIGTERM)
        began = time.monotonic()
        upload.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        assert leaving.process is not None
        assert leaving.process.wait(70) == 0
        assert 55 < time.monotonic() - began < 70
        assert {broken_by(call.result().text) for call in calls} == {"shutting_down"}
        assert all(closed(sock) for sock in idle)
    query = "select outcome, error_code, count(*), count(distinct id) from events where tag = 'o1-long' group by 1, 2"
    with LiveGateway(
        leaving.config_path.read_text(), redis_url=redis.url, database_url=postgres.url, migrated=False
    ) as after:
        eventually(lambda: rows(postgres.url, query) == [("failed", "shutting_down", STREAMS, STREAMS)])
        assert in_flight(redis) == 0
        again = stream(after, 1, "o1-again", **{"x-idempotency-key": "o1-1", "x-request-timeout-ms": "500"})
        assert again.headers.get("idempotent-replayed") is None
    upstreams.acts["endless"] = late(0)
