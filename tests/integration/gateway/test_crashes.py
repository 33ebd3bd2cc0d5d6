"""Two workers on one Redis: one is killed, the configuration changes under load, a provider fails (I7, O5, C1-C4)."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import attrs
import httpx
import openai
import pytest

from perpetuo.domain.model.errors import Reason
from tests.cluster import owner
from tests.evil import Evil, Peer, saying
from tests.integration.gateway.contract import check
from tests.integration.gateway.sdk import Counted
from tests.integration.gateway.test_upstreams import GOOD, Stage, whole
from tests.live import KEY, OTHER_KEY, LiveGateway, config_text, eventually, rows
from tests.patience import PATIENCE, best
from tests.servers import RedisServer

PRICE = "price: {inputPerMTok: 100, outputPerMTok: 100}, maxOutputTokens: 100"
LEASE_SECONDS, OPEN_SECONDS = 15, 10
"""Both longer than a busy machine takes to look at what is so until their end."""
LONG = LEASE_SECONDS + PATIENCE
BROKEN = whole(b'{"error":{"message":"boom"}}', b"500 Oops")


def config(origin: str, more: str = "") -> str:
    return config_text(
        providers=f"""
  - {{id: demo, kind: demo}}
  - {{id: evil, kind: openai, baseUrl: "{origin}/v1",
      breaker: {{minimumCalls: 5, openFor: {OPEN_SECONDS}s, window: 10s}}}}""",
        models=f"""
  - {{name: m, targets: [{{provider: demo, model: m}}], {PRICE}}}
  - {{name: stall, targets: [{{provider: demo, model: demo-stall}}], {PRICE}}}
  - {{name: evil, targets: [{{provider: evil, model: x}}], {PRICE}}}""",
        more=f"retry: {{attempts: 1}}\nredis: {{timeout: 10s}}\nidempotency: {{lease: {LEASE_SECONDS}s{more}}}",
    )


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


@pytest.fixture(scope="module")
def evil(stage: Stage) -> Iterator[Evil]:
    with Evil(stage) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(redis_here: RedisServer, database_here: str, evil: Evil) -> Iterator[LiveGateway]:
    with LiveGateway(config(evil.origin), redis_url=redis_here.url, database_url=database_here, workers=2) as running:
        eventually(lambda: len(running.worker_pids()) == 2)
        yield running


# --- a worker is killed --------------------------------------------------------------------------


@attrs.define
class Held:
    """A stream that has begun and goes nowhere: of acme's with an idempotency key, or of another tenant's without."""

    key: str
    client: httpx.Client
    answer: httpx.Response
    cut: bool = False

    @property
    def port(self) -> int:
        """Of the client's end."""
        return int(self.answer.extensions["network_stream"].get_extra_info("socket").getsockname()[1])

    def listen(self) -> None:
        """Until it ends: a worker that dies cuts it."""
        with contextlib.suppress(httpx.HTTPError, RuntimeError):
            for _ in self.answer.iter_raw():
                pass
        self.cut = True

    def leave(self) -> None:
        """Closing is not enough while another thread is reading."""
        with contextlib.suppress(OSError):
            self.answer.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self.client.close()


def hold(gateway: LiveGateway, key: str, *, with_key: bool) -> Held:
    client = httpx.Client(timeout=60, verify=False)
    body = {"model": "stall", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": True}
    headers = {"authorization": f"Bearer {KEY if with_key else OTHER_KEY}", "x-perpetuo-tag": key}
    if with_key:
        headers["x-idempotency-key"] = key
    request = client.build_request("POST", gateway.url + "/v1/chat/completions", headers=headers, json=body)
    held = Held(key, client, client.send(request, stream=True))
    assert held.answer.status_code == 200
    threading.Thread(target=held.listen, daemon=True).start()
    return held


@contextlib.contextmanager
def holding(gateway: LiveGateway, name: str, *, with_key: bool = True) -> Iterator[list[Held]]:
    """Streams, at least one at each of two workers: the kernel deals connections out."""
    streams: list[Held] = []

    def everywhere() -> bool:
        pids = gateway.worker_pids()
        return len(pids) == 2 and {owner(held.port, pids) for held in streams} == set(pids)

    try:
        until = time.monotonic() + PATIENCE
        while len(streams) < 4 or not everywhere():
            assert time.monotonic() < until, "one worker gets no connections"
            streams.append(hold(gateway, f"{name}-{len(streams)}", with_key=with_key))
            time.sleep(0.05)
        yield streams
    finally:
        for held in streams:
            held.leave()


def kill_one(gateway: LiveGateway, streams: list[Held], redis: RedisServer) -> list[Held]:
    """SIGKILL to one worker; the streams it had."""
    no_longer_new(redis)
    victim = gateway.worker_pids()[0]
    its = [held for held in streams if owner(held.port, [victim])]
    assert 0 < len(its) < len(streams)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: all(held.cut for held in its))
    return its


def no_longer_new(redis: RedisServer) -> None:
    """For a lease after the first sign of life (or a gap) leases prove nothing: say that this time is over."""

    def done() -> bool:
        keys = list(client.scan_iter("perpetuo:{s*}:life"))
        lives = [client.get(key).split() for key in keys]
        for key, life in zip(keys, lives, strict=True):
            if life[2] != "0":
                client.set(key, f"{life[0]} {life[1]} 0")
        return len(lives) == 16 and all(life[1] != "-" and life[2] == "0" for life in lives)

    with redis.client() as client:
        eventually(done)


def end_leases(redis: RedisServer, dead: list[Held]) -> None:
    """Half a minute later, for these calls."""
    tags = {f'"tag":"{held.key}"' for held in dead}
    with redis.client() as client:
        for key in client.scan_iter("perpetuo:{s*}:call:*"):
            record = client.get(key)
            if record.startswith("H ") and any(tag in record for tag in tags):
                shard, _, call = key.rpartition(":call:")
                client.zadd(f"{shard}:holds", {call: 1})


def again(gateway: LiveGateway, held: Held) -> httpx.Response:
    """The client's retry: its head, and the body when that is an error."""
    body = {"model": "stall", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": True}
    headers = {"authorization": f"Bearer {KEY}", "x-idempotency-key": held.key}
    with (
        httpx.Client(timeout=60, verify=False) as client,
        client.stream("POST", gateway.url + "/v1/chat/completions", headers=headers, json=body) as answer,
    ):
        if answer.status_code != 200:
            answer.read()
        return answer


def test_i7_o5_a_killed_workers_calls_run_again_after_the_lease_and_say_so(
    gateway: LiveGateway, redis_here: RedisServer
) -> None:
    """Before the lease's end 409; then ``reexecuted``. The other worker's streams go on; a new worker comes."""
    with holding(gateway, "killed") as streams:
        cut = kill_one(gateway, streams, redis_here)
        killed = time.monotonic()
        check(again(gateway, cut[0]), Reason.IDEMPOTENCY_IN_PROGRESS)
        assert gateway.chat(max_tokens=5).status_code == 200
        eventually(lambda: len(gateway.worker_pids()) == 2)
        answer = eventually(
            lambda: (a := again(gateway, cut[0])).status_code == 200 and a, LEASE_SECONDS + PATIENCE, 0.2
        )
        assert time.monotonic() - killed > 1.5
        assert answer.headers["x-perpetuo-idempotency"] == "reexecuted"
        assert not any(held.cut for held in streams if held not in cut)


def test_i7_with_fail_a_killed_workers_calls_never_run_twice(
    gateway: LiveGateway, evil: Evil, redis_here: RedisServer
) -> None:
    """``onUnknownOutcome: fail``: 409 ``idempotency_outcome_unknown``, which an SDK does not repeat."""
    gateway.config_path.write_text(config(evil.origin, ", onUnknownOutcome: fail"))
    try:
        with holding(gateway, "failed") as streams:
            cut = kill_one(gateway, streams, redis_here)
            refused = eventually(
                lambda: (a := again(gateway, cut[0])).status_code == 409 and known(a), LEASE_SECONDS + PATIENCE, 0.2
            )
            check(refused, Reason.IDEMPOTENCY_OUTCOME_UNKNOWN)
            sdk = Counted(gateway)
            with pytest.raises(openai.ConflictError) as raised:
                sdk.ask(model="stall", max_tokens=50, stream=True, extra_headers={"x-idempotency-key": cut[0].key})
            assert (raised.value.code, sdk.sent) == ("idempotency_outcome_unknown", 1)
    finally:
        gateway.config_path.write_text(config(evil.origin))


def known(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.json()["error"]["code"] != "idempotency_in_progress" else None


def test_b5_a1_a_killed_workers_calls_are_charged_and_written_once(
    gateway: LiveGateway, redis_here: RedisServer, database_here: str
) -> None:
    """When their leases have ended: one row each, ``abandoned``, at the hold; nothing held; counter = Σ events."""
    with holding(gateway, "abandoned", with_key=False) as streams:
        cut = kill_one(gateway, streams, redis_here)
        end_leases(redis_here, cut)
        eventually(lambda: len(abandoned(database_here, "abandoned-")) == len(cut))
    settled(gateway, database_here)
    assert set(abandoned(database_here, "abandoned-")) == {("abandoned", "bound", True, 1)}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_b5_a1_a_killed_workers_calls_are_charged_within_a_minute(
    gateway: LiveGateway, redis_here: RedisServer, database_here: str
) -> None:
    """The same with nobody helping time along."""
    with holding(gateway, "left", with_key=False) as streams:
        cut = kill_one(gateway, streams, redis_here)
        killed = time.monotonic()
        eventually(lambda: len(abandoned(database_here, "left-")) == len(cut), 75, every=1)
        assert time.monotonic() - killed <= 62
    settled(gateway, database_here)


def abandoned(database: str, tag: str) -> list[Any]:
    """Outcome, basis, charged at the hold?, and rows of each such call with tags that begin so."""
    query = (
        "select tag, outcome, usage_basis, cost_nano_usd = hold_nano_usd, count(*) over (partition by tag) "
        "from events where outcome = 'abandoned'"
    )
    return [tuple(found) for name, *found in rows(database, query) if name.startswith(tag)]


def settled(gateway: LiveGateway, database: str) -> None:
    """Nothing held, and what the counter says is the sum of the rows."""

    def look() -> bool:
        day = gateway.get("/v1/key", OTHER_KEY).json()["budgets"][0]
        total = rows(database, "select coalesce(sum(cost_nano_usd), 0) from events where tenant_id = 'other'")[0][0]
        return day["held_usd"] == "0" and round(float(day["used_usd"]) * 1e9) == int(total)

    eventually(look, every=0.2)


def test_b7_counter_is_the_sum_of_the_rows(gateway: LiveGateway, database_here: str) -> None:
    """After calls, streams and cancelled streams of both workers."""
    with holding(gateway, "cancelled", with_key=False), concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: gateway.chat(OTHER_KEY, max_tokens=5 + i, stream=i % 2 == 0), range(20)))
    settled(gateway, database_here)
    query = "select outcome, count(*) from events where tenant_id = 'other' and tag is null group by 1"
    assert rows(database_here, query) == [("completed", 20)]
    query = "select distinct outcome, usage_basis from events where tag like 'cancelled-%'"
    assert rows(database_here, query) == [("cancelled", "estimated")]


# --- the configuration changes -------------------------------------------------------------------


def test_a_reload_under_load_drops_no_call(gateway: LiveGateway, evil: Evil) -> None:
    """Eight threads call while the file is rewritten, once with nonsense: every call is answered."""
    stop = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        while not stop.is_set():
            statuses.append(gateway.chat(max_tokens=2).status_code)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for i in range(6):
        text = (
            "nonsense: ["
            if i == 3
            else config(evil.origin) + f"\n# edition {i}\nbudget: {{whenShort: lower}}\n" * (i % 2)
        )
        gateway.config_path.write_text(text)
        gateway.signal(signal.SIGHUP)
        time.sleep(0.3)
        enough = len(statuses) + 2 * len(threads)  # more than were in flight
        eventually(lambda enough=enough: len(statuses) >= enough)
    gateway.config_path.write_text(config(evil.origin))
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


# --- a provider fails ----------------------------------------------------------------------------


def statuses(gateway: LiveGateway, count: int) -> list[int]:
    """So many calls at once, over both workers."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [a.status_code for a in pool.map(lambda _: gateway.chat(model="evil", max_tokens=5), range(count))]


def opened(gateway: LiveGateway, stage: Stage) -> None:
    """Fail until the breaker is open in both workers."""
    stage.script = saying(BROKEN)
    eventually(lambda: set(statuses(gateway, 8)) == {503})


def test_c1_c2_a_failing_provider_is_left_alone_by_all_workers_and_heals_after_its_time(
    gateway: LiveGateway, stage: Stage, evil: Evil, redis_here: RedisServer
) -> None:
    """503 with what is left, nothing sent; after ``openFor`` a probe finds it well again."""
    opened(gateway, stage)
    evil.requests.clear()
    answer = gateway.chat(model="evil", max_tokens=5)
    check(answer, Reason.NO_HEALTHY_UPSTREAM)
    assert 0 < int(answer.headers["retry-after-ms"]) <= 1_000 * OPEN_SECONDS
    with redis_here.client() as client:
        assert 0 < client.pttl("perpetuo:cb:evil") <= 1_000 * OPEN_SECONDS
    assert evil.requests == []
    stage.script = saying(whole(GOOD))
    eventually(lambda: set(statuses(gateway, 8)) == {200})


def test_c4_deleting_the_key_heals_it_everywhere(gateway: LiveGateway, stage: Stage, redis_here: RedisServer) -> None:
    """``redis-cli DEL perpetuo:cb:evil``, as the runbook says: both workers within 500 ms (a busy machine: 2 s)."""
    opened(gateway, stage)
    with redis_here.client() as client:
        client.set("perpetuo:cb:evil", "by hand", px=600_000)
        eventually(lambda: set(statuses(gateway, 8)) == {503})
        stage.script = saying(whole(GOOD))
        time.sleep(OPEN_SECONDS + 0.5)
        assert set(statuses(gateway, 8)) == {503}

        def healed() -> float:
            client.set("perpetuo:cb:evil", "by hand", px=600_000)
            eventually(lambda: set(statuses(gateway, 8)) == {503})
            client.delete("perpetuo:cb:evil")
            deleted = time.monotonic()
            eventually(lambda: set(statuses(gateway, 8)) == {200})
            return time.monotonic() - deleted

        best(2, healed)


def test_c3_one_probe_in_the_whole_cluster(
    gateway: LiveGateway, stage: Stage, evil: Evil, redis_here: RedisServer
) -> None:
    """In half-open one call goes through while it is undecided; the others get 503."""
    opened(gateway, stage)

    decided = threading.Event()

    def slow(peer: Peer) -> None:
        peer.request()
        decided.wait(PATIENCE)
        peer.send(whole(GOOD))

    stage.script = slow
    evil.requests.clear()
    with redis_here.client() as client:
        eventually(lambda: not client.exists("perpetuo:cb:evil"))

    def seen() -> list[int]:
        """Of twelve calls at once, when all but one have been answered; or all, if no worker knows yet that it may."""
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(gateway.chat, model="evil", max_tokens=5) for _ in range(12)]
            try:
                eventually(lambda: sum(one.done() for one in asked) >= 11)
                eventually(lambda: all(one.done() for one in asked) or evil.requests)
            finally:
                decided.set()
            return sorted(one.result().status_code for one in asked)

    answers = eventually(lambda: found if set(found := seen()) != {503} else decided.clear())
    assert answers == [200, *[503] * 11]
    assert len(evil.requests) == 1
    stage.script = saying(whole(GOOD))
    eventually(lambda: set(statuses(gateway, 8)) == {200})
