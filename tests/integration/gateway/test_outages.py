"""Redis or PostgreSQL away, for a while or in the middle of a call; and an orderly end (R5, A3, O1, O2)."""

import concurrent.futures
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from perpetuo.domain.model.errors import Reason
from tests import servers
from tests.evil import Evil, Peer
from tests.integration.gateway.contract import check
from tests.integration.gateway.test_upstreams import CHUNK_HEAD, EVENT, FINISH, GOOD, Stage, whole
from tests.live import KEY, LiveGateway, config_text, eventually, rows
from tests.patience import PATIENCE, best

PRICE = "price: {inputPerMTok: 1000, outputPerMTok: 1000}, maxOutputTokens: 100"
COST = 5_000_000
"""Nano-USD of `GOOD`: 3 tokens in, 2 out."""


def config(origin: str, timeout: str = "5s") -> str:
    return config_text(
        providers=f'  - {{id: demo, kind: demo}}\n  - {{id: evil, kind: openai, baseUrl: "{origin}/v1"}}',
        models=f"""
  - {{name: m, targets: [{{provider: demo, model: m}}], {PRICE}}}
  - {{name: evil, targets: [{{provider: evil, model: x}}], {PRICE}}}""",
        more=f"server: {{drainDelay: 500ms}}\nredis: {{timeout: {timeout}}}",
    )


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


@pytest.fixture(scope="module")
def evil(stage: Stage) -> Iterator[Evil]:
    with Evil(stage) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_here(_postgres_template: Any) -> Iterator[servers.PostgresServer]:
    """A PostgreSQL of this module's own, to stop."""
    server = servers.PostgresServer(_postgres_template)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def shared(redis_here: servers.RedisServer, postgres_here: servers.PostgresServer, evil: Evil) -> Iterator[LiveGateway]:
    with LiveGateway(config(evil.origin), redis_url=redis_here.url, database_url=postgres_here.url) as running:
        yield running


@pytest.fixture(scope="module")
def hurried(
    redis_here: servers.RedisServer, postgres_here: servers.PostgresServer, evil: Evil
) -> Iterator[LiveGateway]:
    """With the usual timeout for Redis, for tests about time."""
    text = config(evil.origin, "100ms")
    with LiveGateway(text, redis_url=redis_here.url, database_url=postgres_here.url) as running:
        yield running


@pytest.fixture
def gateway(
    request: pytest.FixtureRequest, redis_here: servers.RedisServer, postgres_here: servers.PostgresServer
) -> Iterator[LiveGateway]:
    """Everything is there before; after every test the same worker is alive, nothing is held, counter = Σ events."""
    running: LiveGateway = request.getfixturevalue("hurried" if request.node.get_closest_marker("alone") else "shared")
    before = running.worker_pids()
    eventually(lambda: running.chat(max_tokens=2).status_code == 200)
    yield running
    redis_here.start()
    postgres_here.start()
    assert running.worker_pids() == before
    settled(running, postgres_here.url)


def settled(gateway: LiveGateway, database: str) -> None:
    def look() -> bool:
        answer = gateway.get("/v1/key")
        if answer.status_code != 200:
            return False
        day = answer.json()["budgets"][0]
        total = rows(database, "select coalesce(sum(cost_nano_usd), 0) from events where tenant_id = 'acme'")[0][0]
        return day["held_usd"] == "0" and round(float(day["used_usd"]) * 1e9) == int(total)

    eventually(look, every=0.2)


class Held:
    """A provider's answer, or stream, that has begun and goes on when the test says so."""

    def __init__(self, *, stream: bool = False) -> None:
        self._stream = stream
        self.begun = threading.Event()
        self.goes_on = threading.Event()

    def __call__(self, peer: Peer) -> None:
        peer.request()
        if self._stream:
            peer.send(CHUNK_HEAD)
            self._send(peer, EVENT)
        self.begun.set()
        self.goes_on.wait(PATIENCE)
        if not self._stream:
            peer.send(whole(GOOD))
            return
        for event in (*[EVENT] * 8, FINISH):
            self._send(peer, event)
        peer.send(b"0\r\n\r\n")

    def _send(self, peer: Peer, event: bytes) -> None:
        peer.send(b"%x\r\n%b\r\n" % (len(event), event))


# --- Redis ---------------------------------------------------------------------------------------


@pytest.mark.alone
def test_r5_redis_away_is_503_quickly_then_at_once_and_back_within_two_seconds(
    gateway: LiveGateway, redis_here: servers.RedisServer
) -> None:
    """Nothing is sent; live and ready say what they should; figures have room for a busy machine."""
    redis_here.kill()
    check(gateway.chat(max_tokens=2), Reason.STORE_UNAVAILABLE)

    def usual() -> float:
        times = []
        for _ in range(20):
            began = time.monotonic()
            assert gateway.chat(max_tokens=2).status_code == 503
            times.append(time.monotonic() - began)
        return statistics.median(times)

    best(0.05, usual)
    assert gateway.get("/health/live").status_code == 200
    ready = gateway.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "redis" in ready.json()["problems"]
    assert gateway.get("/v1/models").status_code == 200
    check(gateway.get("/v1/key"), Reason.STORE_UNAVAILABLE)

    def back() -> float:
        redis_here.kill()
        check(gateway.chat(max_tokens=2), Reason.STORE_UNAVAILABLE)
        redis_here.start()
        began = time.monotonic()
        eventually(lambda: gateway.chat(max_tokens=2).status_code == 200)
        return time.monotonic() - began

    best(2, back)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_r5_the_first_decision_takes_150_ms_and_the_next_ones_5(
    gateway: LiveGateway, redis_here: servers.RedisServer, how: str
) -> None:
    """HTTP included: 50 ms more for the first and 5 for the others; the best of a few outages, as others run here."""
    headers, body = {"authorization": f"Bearer {KEY}"}, {"model": "m", "max_tokens": 2}
    messages = [{"role": "user", "content": "hi"}]

    def refused(client: httpx.Client) -> float:
        began = time.perf_counter()
        url = gateway.url + "/v1/chat/completions"
        check(client.post(url, headers=headers, json={**body, "messages": messages}), Reason.STORE_UNAVAILABLE)
        return time.perf_counter() - began

    def outage() -> float:
        """As a share of what it may take."""
        with httpx.Client(timeout=20, verify=False) as client:
            client.get(gateway.url + "/health/live")
            redis_here.kill() if how == "killed" else redis_here.pause()
            try:
                first, usual = refused(client), statistics.median(refused(client) for _ in range(40))
                print(f"the first after {first:.4f} s, the next ones after {usual:.4f} s")
                return max(first / (0.150 + 0.050), usual / (0.005 + 0.005))
            finally:
                redis_here.start() if how == "killed" else redis_here.resume()
                eventually(lambda: gateway.chat(max_tokens=2).status_code == 200)

    best(1, outage)


def test_r5_redis_killed_in_mid_call_is_no_matter_to_the_client(
    gateway: LiveGateway, redis_here: servers.RedisServer, postgres_here: servers.PostgresServer, stage: Stage
) -> None:
    """The answer comes; when Redis is back with its data, the call is settled once, at what it cost."""
    stage.script = held = Held()
    tag = {"x-perpetuo-tag": "redis-killed"}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: gateway.chat(model="evil", max_tokens=5, headers=tag))
        assert held.begun.wait(PATIENCE)
        redis_here.kill()
        held.goes_on.set()
        answer = call.result()
    assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 2)
    redis_here.start()
    query = "select outcome, cost_nano_usd from events where tag = 'redis-killed'"
    assert eventually(lambda: rows(postgres_here.url, query)) == [("completed", COST)]


def test_r5_redis_killed_in_mid_stream_leaves_the_stream_its_done(
    gateway: LiveGateway, redis_here: servers.RedisServer, stage: Stage
) -> None:
    """Events and [DONE], though nothing can be settled."""
    stage.script = held = Held(stream=True)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: gateway.chat(model="evil", max_tokens=5, stream=True))
        assert held.begun.wait(PATIENCE)
        redis_here.kill()
        held.goes_on.set()
        answer = call.result()
    assert answer.text.endswith("data: [DONE]\n\n")
    redis_here.start()


def test_r5_redis_frozen_in_mid_call(gateway: LiveGateway, redis_here: servers.RedisServer, stage: Stage) -> None:
    """No answer from Redis is the same as no Redis."""
    stage.script = held = Held()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: gateway.chat(model="evil", max_tokens=5))
        assert held.begun.wait(PATIENCE)
        redis_here.pause()
        held.goes_on.set()
        try:
            assert call.result().status_code == 200
        finally:
            redis_here.resume()


def test_b7_a_redis_that_lost_everything_is_filled_from_sql(
    gateway: LiveGateway, redis_here: servers.RedisServer, postgres_here: servers.PostgresServer
) -> None:
    """FLUSHALL: what was spent is known again, before a call under a budget is admitted."""
    for _ in range(3):
        assert gateway.chat(max_tokens=50).status_code == 200
    settled(gateway, postgres_here.url)
    spent = gateway.get("/v1/key").json()["budgets"][0]["used_usd"]
    assert float(spent) > 0
    with redis_here.client() as client:
        client.flushall()
    answer = eventually(lambda: (a := gateway.chat(max_tokens=2)).status_code == 200 and a)
    left = float(answer.headers["x-perpetuo-budget-remaining-usd"])
    assert left <= 1_000 - float(spent)


# --- PostgreSQL ----------------------------------------------------------------------------------


def test_a3_postgres_away_fails_no_call_and_loses_no_event(
    gateway: LiveGateway, postgres_here: servers.PostgresServer
) -> None:
    """Thirty calls while it is away: all answered, all rows there when it is back."""
    postgres_here.kill()
    tag = {"x-perpetuo-tag": "postgres-away"}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: gateway.chat(max_tokens=2, headers=tag), range(30)))
    assert {a.status_code for a in answers} == {200}
    eventually(lambda: "postgres" in gateway.get("/health/ready").json().get("problems", {}))
    check(gateway.get("/v1/requests/whatever"), Reason.STORE_UNAVAILABLE)
    postgres_here.start()
    query = "select count(*), count(distinct request_id) from events where tag = 'postgres-away'"
    eventually(lambda: rows(postgres_here.url, query) == [(30, 30)])


# --- the end -------------------------------------------------------------------------------------


def test_o1_sigterm_finishes_streams_and_refuses_what_comes_after(
    evil: Evil, stage: Stage, postgres_here: servers.PostgresServer, redis_here: servers.RedisServer
) -> None:
    """Ready says 503 at once, a stream goes on to its [DONE], a later call gets 503, the end is exit 0."""
    stage.script = held = Held(stream=True)
    with (
        LiveGateway(
            config(evil.origin), redis_url=redis_here.url, database_url=postgres_here.url, migrated=False
        ) as leaving,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        call = pool.submit(lambda: leaving.chat(model="evil", max_tokens=5, stream=True))
        assert held.begun.wait(PATIENCE)
        leaving.signal(signal.SIGTERM)
        eventually(lambda: leaving.get("/health/ready").status_code == 503)
        late = eventually(lambda: (a := leaving.chat(max_tokens=2)).status_code == 503 and a)
        check(late, Reason.SHUTTING_DOWN)
        held.goes_on.set()
        assert call.result().text.endswith("data: [DONE]\n\n")
        assert leaving.process is not None
        assert leaving.process.wait(60) == 0
        assert "call_broken" not in leaving.log()
