"""
Promises about 10, 30 and 60 seconds, once each with nobody turning a clock (R1 R2 B5 I7 C3 C5; O1 is in test_sigterm).

They are mostly waiting, so all scenes run at the same time, each with a tenant and a provider of its own, in front of
two gateways: ``here`` goes on, and the only worker of ``there`` is killed in the middle.
"""

import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import attrs
import httpx
import pytest

from perpetuo.domain.model.errors import Reason
from tests.evil import Evil
from tests.integration.faults.upstreams import WELL, Upstreams, refusal, say_and_wait
from tests.integration.gateway.contract import check
from tests.live import KEY, LiveGateway, config_text, eventually, rows
from tests.servers import PostgresServer, RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WAITING, ASKING = (f"sk-test-{name}-0123456789" for name in ("waiting", "asking"))
PRICE = "price: {inputPerMTok: 1000, outputPerMTok: 1000}, maxOutputTokens: 100"
SLACK = 2.0
"""Seconds that a busy machine may add."""


def config(origin: str) -> str:
    names = ("opened", "probed", "credential", "killed")
    breaker = {"probed": ", breaker: {openFor: 1s, minimumCalls: 5}"}
    return config_text(
        providers="\n".join(
            ["  - {id: demo, kind: demo}"]
            + [
                f'  - {{id: {name}, kind: openai, baseUrl: "{origin}/v1", apiKey: sk-x{breaker.get(name, "")}}}'
                for name in names
            ]
        ),
        models="\n".join(
            [f"  - {{name: m, targets: [{{provider: demo, model: m}}], {PRICE}}}"]
            + [f"  - {{name: {name}, targets: [{{provider: {name}, model: {name}}}], {PRICE}}}" for name in names]
        ),
        limits="{rateLimitMin: 100000, budgetDay: 1000000}",  # others spend under the same tenant
        more=f"""
  - {{id: waiting, plan: pro, limits: {{rateLimitMin: 5}}, apiKeys: ["{WAITING}"]}}
  - {{id: asking, plan: pro, limits: {{rateLimitMin: 5}}, apiKeys: ["{ASKING}"]}}
redis: {{timeout: 500ms}}
retry: {{attempts: 1}}""",
    )


@attrs.frozen
class Stage:
    """What a scene plays on."""

    here: LiveGateway
    there: LiveGateway
    upstreams: Upstreams
    redis: RedisServer
    database: str
    probing: threading.Event = attrs.field(factory=threading.Event)
    """The dead prober has begun its probe, so that its worker may be killed."""
    killed: threading.Event = attrs.field(factory=threading.Event)

    def asked(self, model: str) -> int:
        return sum(1 for name, _ in self.upstreams.asked if name == model)


# --- scenes --------------------------------------------------------------------------------------


def rate(stage: Stage) -> None:
    """Five a minute: waiting exactly as told admits; asking again and again gets the sixth after 60 s, not before."""

    def waits() -> None:
        assert {stage.here.chat(WAITING, max_tokens=2).status_code for _ in range(5)} == {200}
        refused = stage.here.chat(WAITING, max_tokens=2)
        told = time.monotonic()
        check(refused, Reason.RATE_LIMIT_EXCEEDED)
        wait = int(refused.headers["retry-after-ms"]) / 1_000
        assert 55 < wait <= 60
        time.sleep(told + wait - time.monotonic())
        assert stage.here.chat(WAITING, max_tokens=2).status_code == 200

    def asks() -> None:
        began = time.monotonic()
        assert {stage.here.chat(ASKING, max_tokens=2).status_code for _ in range(5)} == {200}
        admitted = time.monotonic()
        eventually(lambda: stage.here.chat(ASKING, max_tokens=2).status_code == 200, 70, every=0.1)
        assert time.monotonic() - admitted >= 60 - (admitted - began)
        assert time.monotonic() - admitted <= 60 + SLACK

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(waits), pool.submit(asks)]:
            done.result()


def opened(stage: Stage) -> None:
    """20 failures open it for 30 s: nothing is sent, the wait counts down; then a probe finds the provider well."""
    stage.upstreams.acts["opened"] = refusal(b"500 Oops")
    eventually(lambda: stage.here.chat(model="opened", max_tokens=5).status_code == 503, 20, every=0)
    began = time.monotonic()
    time.sleep(1)  # C1: the other worker knows within 500 ms
    asked = stage.asked("opened")
    assert asked >= 20
    stage.upstreams.acts["opened"] = WELL
    while (answer := stage.here.chat(model="opened", max_tokens=5)).status_code != 200:
        check(answer, Reason.NO_HEALTHY_UPSTREAM)
        assert stage.asked("opened") == asked
        left = int(answer.headers["retry-after-ms"]) / 1_000
        assert left <= 30.1 - (time.monotonic() - began) + SLACK
        time.sleep(0.2)
    assert 29 - SLACK <= time.monotonic() - began <= 30 + SLACK


def credential(stage: Stage) -> None:
    """Our key refused: for 60 s its worker does not ask that provider, then it does (each worker learns by itself)."""
    stage.upstreams.acts["credential"] = refusal(b"401 No")
    with httpx.Client(timeout=30, verify=False) as one_worker:
        check(_ask(one_worker, stage.here, "credential"), Reason.UPSTREAM_CREDENTIALS)
        began = time.monotonic()
        stage.upstreams.acts["credential"] = WELL
        while (answer := _ask(one_worker, stage.here, "credential")).status_code != 200:
            check(answer, Reason.UPSTREAM_CREDENTIALS)
            assert stage.asked("credential") == 1
            time.sleep(0.5)
        assert 60 - SLACK / 4 <= time.monotonic() - began <= 60 + SLACK


def dead_prober(stage: Stage) -> None:
    """Killed while it probes: for 10 s nobody else may, then the next one does and closes the breaker."""
    stage.upstreams.acts["probed"] = refusal(b"500 Oops")
    eventually(lambda: stage.there.chat(model="probed", max_tokens=5).status_code == 503, 20, every=0)
    stage.upstreams.acts["probed"] = say_and_wait(b"", 60)
    asked = stage.asked("probed")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        probe = pool.submit(_until_cut, stage.there, "probed", "")
        eventually(lambda: stage.asked("probed") == asked + 1, 10, every=0.01)
        began = time.monotonic()
        stage.upstreams.acts["probed"] = WELL
        stage.probing.set()
        stage.killed.wait(30)
        while stage.here.chat(model="probed", max_tokens=5).status_code != 200:
            assert stage.asked("probed") == asked + 1
            time.sleep(0.1)
        assert 10 - 0.5 <= time.monotonic() - began <= 10 + SLACK
        probe.result()


def killed_in_mid_call(stage: Stage) -> None:
    """Within 30 s of its last renewal its key is in progress, afterwards a retry runs again; charged within 60 s."""
    stage.upstreams.acts["killed"] = say_and_wait(b"", 60)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        cut = pool.submit(_until_cut, stage.there, "killed", "real-time")
        eventually(lambda: stage.asked("killed") == 1)
        stage.probing.wait(30)
        time.sleep(1.2)  # a renewal
        (victim,) = stage.there.worker_pids()
        os.kill(victim, signal.SIGKILL)
        died = time.monotonic()
        stage.killed.set()
        cut.result()
    stage.upstreams.acts["killed"] = WELL
    key = {"x-idempotency-key": "real-time", "x-perpetuo-tag": "again"}
    while (again := stage.here.chat(model="killed", max_tokens=5, headers=key)).status_code != 200:
        check(again, Reason.IDEMPOTENCY_IN_PROGRESS)
        time.sleep(0.2)
    assert 28 - SLACK <= time.monotonic() - died <= 30 + SLACK
    assert again.headers["x-perpetuo-idempotency"] == "reexecuted"
    query = "select outcome, usage_basis, cost_nano_usd = hold_nano_usd from events where tag = 'real-time'"
    eventually(lambda: rows(stage.database, query) == [("abandoned", "bound", True)], 60 - (time.monotonic() - died))


def _until_cut(gateway: LiveGateway, model: str, key: str) -> None:
    """One call, with a key if there is one, whose worker dies; before that, whatever it takes to get an attempt."""
    headers = {"x-idempotency-key": key, "x-perpetuo-tag": key} if key else {}
    with httpx.Client(timeout=60, verify=False) as client, contextlib.suppress(httpx.TransportError):
        while _ask(client, gateway, model, headers).status_code == 503:
            time.sleep(0.05)
        raise AssertionError("the call was answered")


def _ask(
    client: httpx.Client, gateway: LiveGateway, model: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    url, known = gateway.url + "/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
    return client.post(url, headers={**known, **(headers or {})}, json=body)


SCENES: list[Callable[[Stage], None]] = [rate, opened, credential, dead_prober, killed_in_mid_call]


@pytest.fixture(scope="module")
def scenes(redis: RedisServer, postgres: PostgresServer) -> Iterator[dict[str, concurrent.futures.Future[None]]]:
    """All of them, playing."""
    upstreams = Upstreams()
    with Evil(upstreams) as evil:
        text = config(evil.origin)
        with (
            LiveGateway(text, redis_url=redis.url, database_url=postgres.url, workers=2) as here,
            LiveGateway(text, redis_url=redis.url, database_url=postgres.url, migrated=False) as there,
            concurrent.futures.ThreadPoolExecutor(len(SCENES)) as pool,
        ):
            stage = Stage(here, there, upstreams, redis, postgres.url)
            yield {scene.__name__: pool.submit(scene, stage) for scene in SCENES}


Scenes = dict[str, concurrent.futures.Future[None]]


def test_r1_r2_the_sixth_of_five_calls_a_minute_comes_after_sixty_seconds(scenes: Scenes) -> None:
    """Not before; and waiting exactly as told is enough."""
    scenes["rate"].result()


def test_c3_an_open_breaker_probes_after_thirty_seconds(scenes: Scenes) -> None:
    """Until then nothing is sent, and the wait that is told counts down."""
    scenes["opened"].result()


def test_c5_a_refused_credential_is_left_alone_for_sixty_seconds(scenes: Scenes) -> None:
    """Then it is tried again."""
    scenes["credential"].result()


def test_c3_a_dead_probers_lease_ends_after_ten_seconds(scenes: Scenes) -> None:
    """Its worker was killed in the middle of the probe; the next probe comes from another gateway."""
    scenes["dead_prober"].result()


def test_i7_b5_a_killed_workers_call_runs_again_after_thirty_seconds_and_is_charged_within_sixty(
    scenes: Scenes,
) -> None:
    """409 until its lease is over, then ``reexecuted``; the first run is one row, at its hold."""
    scenes["killed_in_mid_call"].result()
