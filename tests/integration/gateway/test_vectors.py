"""Each vector of the table: a 4xx and the end, or one clear reading; no 5xx, nothing smuggled (S3)."""

import concurrent.futures
import contextlib
import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator

import attrs
import pytest

from tests.evil import Evil, Peer
from tests.integration.gateway.vectors import BODY, CANARY_ID, INNER, VECTORS, Reading, Vector, after, body
from tests.live import ADMIN_KEY, LiveGateway, config_text
from tests.patience import PATIENCE

COMPLETION = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)
HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
MEANT = {BODY, body(b"smuggled"), body(b"canary")}


def answering(peer: Peer) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(COMPLETION)
    while peer.request() is not None:
        peer.send(head + COMPLETION)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Evil]:
    """Keeps a journal of what reaches a provider."""
    with Evil(answering) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(upstream: Evil, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """One worker; it has to live through all of this."""
    config = config_text(
        providers=f'  - {{id: up, kind: openai, baseUrl: "{upstream.origin}/v1"}}',
        models="  - {name: m, targets: [{provider: up, model: m}], free: true}",
        more="server: {requestMaxBytes: 2MiB, bodyTimeout: 5s}",
    )
    database = f"sqlite:///{tmp_path_factory.mktemp('vectors')}/events.sqlite3"
    with LiveGateway(config, database_url=database) as running:
        before = running.worker_pids()
        yield running
        assert running.worker_pids() == before
        assert '"level":"error"' not in running.log()


@attrs.frozen
class Heard:
    """What came back: the vector's final statuses in order, the canary's, the end of the connection."""

    statuses: list[int]
    canary: int | None
    closed: bool


def ask(gateway: LiveGateway, data: bytes, patience: float = PATIENCE) -> Heard:
    """Write it with the canary behind it, and listen until the canary is answered or the connection ends."""
    received, closed = b"", False
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=patience) as sock:
        with contextlib.suppress(OSError):  # refused and closed while we were still writing
            sock.sendall(data + after())
        with contextlib.suppress(TimeoutError):
            try:
                while piece := sock.recv(65_536):
                    received += piece
                    if _canary_is_whole(received):
                        sock.shutdown(socket.SHUT_WR)
                closed = True
            except OSError as error:
                closed = not isinstance(error, TimeoutError)
    return _heard(received, closed)


def _canary_is_whole(received: bytes) -> bool:
    mark = received.find(b"x-request-id: " + CANARY_ID)
    return mark >= 0 and received.endswith(b"}") and b"\r\n\r\n" in received[mark:]


def _heard(received: bytes, closed: bool) -> Heard:
    statuses, canary = [], None
    for status, lines in HEAD.findall(received):
        if b"x-request-id: " + CANARY_ID in lines:
            canary = int(status)
        elif status != b"100":
            assert canary is None, "an answer after the last request's"
            statuses.append(int(status))
    return Heard(statuses, canary, closed)


def judge(vector: Vector, heard: Heard) -> None:
    """Is this what the table says?"""
    assert all(status < 500 for status in heard.statuses)
    assert heard.canary in (None, 200)
    assert heard.closed, "neither answered nor closed"
    refused = heard.canary is None and len(heard.statuses) <= 1 and all(s >= 400 for s in heard.statuses)
    one = len(heard.statuses) == 1
    match vector.reading:
        case Reading.REFUSED:
            assert refused
        case Reading.ONE:
            assert one
        case Reading.EITHER:
            assert refused or one
        case Reading.ANSWERED:
            assert (heard.statuses, heard.canary) == ([200], 200)
        case Reading.TWO:
            assert (len(heard.statuses), heard.canary) == (2, 200)
    assert not vector.statuses or set(heard.statuses) <= vector.statuses


def judge_upstream(requests: list[bytes], vector: Vector | None) -> None:
    """What reached the provider was meant by its sender, framed by us, and each at most as often as it was sent."""
    seen = []
    for whole in requests:
        head, _, data = whole.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert re.findall(rb"(?im)^(content-length|transfer-encoding|host):", head).count(b"content-length") == 1
        assert b"transfer-encoding" not in head.lower()
        assert data in MEANT, data
        seen.append(data)
    assert seen.count(body(b"canary")) <= 1
    assert seen.count(BODY) <= (2 if vector is None or vector.reading is Reading.TWO else 1)
    if vector is not None and vector.reading is not Reading.TWO:
        assert body(b"smuggled") not in seen


@pytest.mark.parametrize("name", VECTORS)
def test_s3_each_vector_is_refused_or_read_in_one_way(gateway: LiveGateway, upstream: Evil, name: str) -> None:
    """Never a 5xx, never two for one, and a good request behind it is read as it stands or not at all."""
    before, vector = len(upstream.requests), VECTORS[name]
    heard = ask(gateway, vector.data)
    print(heard)
    judge(vector, heard)
    judge_upstream(upstream.requests[before:], vector)


ROUTES = (
    "GET /nothing", "PUT /v1/models", "GET /v1/models", "GET /health/live", "GET /metrics", "GET /schema",
    "GET /schema/openapi.json", "GET /admin/login", "GET /admin/static/nothing.css", "GET /admin/api/system",
)  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("host", [":y", "x:99999", "a/b"])
def test_s3_a_host_that_no_url_can_be_made_of_is_400_everywhere(gateway: LiveGateway, route: str, host: str) -> None:
    """A port that is no number was a 500 wherever a route, or its refusal, looked at its own address."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as sock:
        sock.sendall(f"{route} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n".encode())
        received = sock.recv(65_536)
    assert received.startswith(b"HTTP/1.1 400 "), received
    if "/v1" in route:
        assert received.count(b"\r\nx-request-id: ") == 1


def test_a_health_check_of_http_1_0_needs_no_host(gateway: LiveGateway) -> None:
    """HAProxy's, for one."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as sock:
        sock.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert sock.recv(65_536).startswith(b"HTTP/1.0 200 ")


# --- at random ------------------------------------------------------------------------------------

SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.randrange(1 << 30)
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0\r\n\r\n", b"0", b"-", b"chunked", b"\xff",
    b"transfer-encoding: chunked\r\n", b"content-length: 7\r\n", b"content-length: 0\r\n", b"host: y\r\n",
    b"connection: close\r\n", b"expect: 100-continue\r\n", b"GET / HTTP/1.1\r\n", b" HTTP/1.1", b"HTTP/1.0", INNER,
)  # fmt: skip


def mutated(dice: random.Random) -> bytes:
    """A vector, or two of them at a seam, with one to four changes."""
    data = bytearray(dice.choice(SMALL))
    if dice.random() < 0.2:
        other = dice.choice(SMALL)
        data[dice.randrange(len(data)) :] = other[dice.randrange(len(other)) :]
    for _ in range(dice.randint(1, 4)):
        at, size = dice.randrange(len(data) + 1), dice.choice((1, 1, 2, 8, 40))
        match dice.randrange(4):
            case 0:
                data[at:at] = dice.choice(PIECES)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case _:
                data[at : at + 1] = bytes([dice.randrange(256)])
    return bytes(data)


SMALL = [vector.data for vector in VECTORS.values() if len(vector.data) < 4_000]


def fuzz(gateway: LiveGateway, number: int, until: float) -> int:
    """One of several that write at the same time; how many it wrote."""
    dice, written = random.Random(f"{SEED}.{number}"), 0
    while time.monotonic() < until:
        data = mutated(dice)
        heard = ask(gateway, data, patience=1.5)
        assert all(status < 500 for status in heard.statuses), data
        assert heard.canary is None or heard.canary < 500, data
        written += 1
    return written


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_s3_vectors_changed_at_random_break_nothing(gateway: LiveGateway, upstream: Evil) -> None:
    """For a minute (FUZZ_SECONDS) from FUZZ_SEED: no 5xx, no dead worker, nothing ill-framed at the provider."""
    print(f"FUZZ_SEED={SEED}")
    before, until = len(upstream.requests), time.monotonic() + SECONDS
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        written = sum(pool.map(lambda number: fuzz(gateway, number, until), range(8)))
    print(f"{written:,} changed vectors, {len(upstream.requests) - before:,} calls reached the provider")
    assert written > SECONDS
    for whole in upstream.requests[before:]:
        head, _, data = whole.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n"), whole
        assert b"transfer-encoding" not in head.lower(), whole
        assert json.loads(data)["model"] == "m", whole
    assert gateway.chat().status_code == 200
