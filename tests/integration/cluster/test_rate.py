"""Rate limits over four workers (R1, R4)."""

import concurrent.futures
import itertools
import time
from typing import Any

import pytest

from perpetuo.adapters.redis import keys, scripts
from tests.integration.cluster.scene import Scene, key_of
from tests.live import eventually
from tests.patience import PATIENCE, best
from tests.swarm import Ask

MINUTE_US = 60_000_000


def admitted_at(scene: Scene, tenant: str) -> list[int]:
    """Redis's own times of admission of the last minute, oldest first."""
    with scene.redis.client() as client:
        return [int(at) for at in reversed(client.lrange(keys.rate(keys.prefix_of(tenant), tenant), 0, -1))]


def test_r1_a_hundred_clients_over_four_workers_get_exactly_the_limit(scene: Scene) -> None:
    """60 of 100 concurrent calls are admitted and reach the provider, at whichever worker they arrive."""
    replies = scene.swarm([Ask(key_of("rated"))] * 100, clients=100)
    assert sorted(reply.status for reply in replies) == [200] * 60 + [429] * 40
    assert {reply.code for reply in replies} == {"", "rate_limit_exceeded"}
    assert len(scene.journal_of(scene.written("rated", 60))) == 60


def test_r1_a_keys_own_limit_is_exact_within_its_tenants(scene: Scene) -> None:
    """A key with 15 in a tenant with 60: of fifty callers 15 are admitted, of a hundred with another key 45."""
    tight = scene.swarm([Ask(key_of("two-keys", "tight"))] * 50, clients=50)
    assert [reply.status for reply in tight].count(200) == 15
    loose = scene.swarm([Ask(key_of("two-keys"))] * 100, clients=100)
    assert [reply.status for reply in loose].count(200) == 45
    assert len(scene.journal_of(scene.written("two-keys", 60))) == 60


def test_r1_as_many_are_admitted_as_have_left_the_minute(scene: Scene) -> None:
    """When 25 of 60 admissions are a minute old, exactly 25 of 100 concurrent calls are admitted, and then none."""
    key = key_of("sliding")
    # with an idempotency key: without one a worker answers from memory until the time that it knows (R4)
    asks = [Ask(key, headers={"x-idempotency-key": f"sliding-{i}"}) for i in range(300)]
    assert [r.status for r in scene.swarm(asks[:100], clients=100)].count(200) == 60
    log = keys.rate(keys.prefix_of("sliding"), "sliding")
    with scene.redis.client() as client:
        for i, at in enumerate(client.lrange(log, 35, 59)):
            client.lset(log, 35 + i, int(at) - MINUTE_US)
    assert [r.status for r in scene.swarm(asks[100:200], clients=100)].count(200) == 25
    assert [r.status for r in scene.swarm(asks[200:], clients=100)].count(200) == 0
    assert len(scene.journal_of(scene.written("sliding", 85))) == 85


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_r1_no_minute_has_more_than_the_limit_in_real_time(scene: Scene) -> None:
    """Two minutes and more of a hundred impatient clients: by Redis's clock no 60 s have more than 60 admissions."""
    key, seen, until = key_of("patient"), set[int](), time.monotonic() + 135
    statuses: list[int] = []
    while time.monotonic() < until:
        replies = scene.swarm([Ask(key)] * 200, clients=100)
        statuses += [reply.status for reply in replies]
        seen.update(admitted_at(scene, "patient"))
        time.sleep(0.2)
    times = sorted(seen)
    assert 121 <= len(times) == statuses.count(200)
    assert all(later - earlier >= MINUTE_US for earlier, later in zip(times, times[60:], strict=False))
    started = sorted(entry.started for entry in scene.journal_of(scene.written("patient", len(times))))
    assert len(started) == len(times)
    assert all(later - earlier > 58 for earlier, later in zip(started, started[60:], strict=False))


class Admissions:
    """Counts what a tenant's calls ask of Redis, by listening to every command it gets."""

    def __init__(self, scene: Scene, tenant: str) -> None:
        self._log = keys.rate(keys.prefix_of(tenant), tenant)
        self._sha = scripts.load("admit", "common").sha.decode()
        self._scene = scene
        self._ended = f"end of {tenant}"

    def await_listening(self) -> None:
        with self._scene.redis.client() as client:
            eventually(lambda: any("O" in one["flags"] for one in client.client_list()))

    def listen(self) -> int:
        """Until `end`; how many admissions were asked for."""
        count = 0
        client: Any = self._scene.redis.client()  # `monitor` has no types
        with client, client.monitor() as monitor:
            for command in monitor.listen():
                if self._ended in command["command"]:
                    return count
                asked = command["command"].startswith(f"EVALSHA {self._sha}")
                count += asked and self._log in command["command"] and command["client_type"] != "lua"
        raise AssertionError("the monitor ended")

    def end(self) -> None:
        """By a client of its own: closing one closes all its connections, the listening one too."""
        with self._scene.redis.client() as client:
            client.echo(self._ended)


def test_r4_a_flood_costs_redis_next_to_nothing_and_a_raised_limit_works_within_a_second(scene: Scene) -> None:
    """Of 2,000 calls 20 pass, and of the refusals at most 5 % ask Redis; a raised limit is at once everywhere."""
    key, admissions = key_of("flooded"), Admissions(scene, "flooded")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        counting = pool.submit(admissions.listen)
        admissions.await_listening()
        began = time.monotonic()
        replies = scene.swarm([Ask(key)] * 2_000, clients=32)
        minutes = (time.monotonic() - began) // 60  # that the flood took beyond the first
        admissions.end()
        asked = counting.result(PATIENCE)
    refused = [reply for reply in replies if reply.status == 429]
    passed = [reply.status for reply in replies].count(200)
    assert 20 <= passed == 2_000 - len(refused) <= 20 * (1 + minutes)
    assert all(0 < int(reply.headers["retry-after-ms"]) <= 60_000 for reply in refused)
    assert passed + 1 <= asked <= passed + 0.05 * len(refused)
    with scene.cluster.lines() as lines:
        scene.swarm([Ask(key)] * 20)  # a flood that took long leaves room again
        assert {line.chat(key).status_code for line in lines} == {429}
        limits = itertools.count(1_000)
        best(1, lambda: scene.configure({"flooded": f"{{rateLimitMin: {next(limits)}}}"}))
        assert {line.chat(key).status_code for line in lines} == {200}
    scene.configure()
