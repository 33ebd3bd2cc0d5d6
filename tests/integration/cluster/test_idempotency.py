"""One run for a key over four workers (I5, I7), also when its worker is killed or stopped, and nobody else's (S2)."""

import concurrent.futures
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from perpetuo.adapters.redis import keys
from tests.cluster import Line
from tests.integration.cluster.scene import FEATURES, Scene, key_of
from tests.live import eventually
from tests.patience import PATIENCE
from tests.swarm import Ask, Reply, swarm


def test_i5_five_hundred_callers_with_one_key_are_one_run(scene: Scene) -> None:
    """
    All at once, over four workers: one request reaches the provider, and all hear its answer.

    A worker lets a hundred of a tenant wait; who finds no place hears 409, asks again, and hears the answer then.
    """
    headers = {"x-idempotency-key": "one-run", "prefer": "wait=50"}
    scene.upstream.behave("one", "wait=1")
    asks = [Ask(key_of("one-run"), {"model": "one"}, headers)] * 500
    replies = [Reply() for _ in asks]

    def release() -> None:
        """When everybody has asked, and a little later."""
        try:
            eventually(lambda: all(reply.began for reply in replies))
            eventually(lambda: scene.upstream.working("one"))
            time.sleep(1)
            assert len(scene.upstream.working("one")) == 1
        finally:
            scene.upstream.behave("one")

    swarm(scene.cluster.urls, asks, 500, into=replies, meanwhile=release)
    turned_away = [reply for reply in replies if reply.code == "idempotency_in_progress"]
    assert {reply.headers["x-should-retry"] for reply in turned_away} <= {"true"}
    heard = [reply for reply in replies if reply.status != 409]
    assert len(heard) >= 100
    heard += scene.swarm(asks[: len(turned_away)], clients=100)
    assert {(reply.status, reply.body) for reply in heard} == {(200, heard[0].body)}
    assert [reply.headers.get("idempotent-replayed") for reply in heard].count("true") == 499
    (row,) = scene.written("one-run", 1)
    (entry,) = scene.upstream.entries("one")
    assert (entry.call, row["idempotency"]) == (row["id"], "stored")
    scene.check_books("one-run")


@pytest.mark.parametrize("stream", [False, True])
def test_i5_s2_two_tenants_with_the_same_key_and_body_never_see_each_others(scene: Scene, stream: bool) -> None:
    """Sixty callers of two tenants, everything else equal: two runs, and each caller hears its own tenant's."""
    body = {"stream": stream, "messages": [{"role": "user", "content": "the same"}]}
    headers = {"x-idempotency-key": f"twin-{stream}", "prefer": "wait=50", "x-perpetuo-tag": f"twin-{stream}"}
    tenants = ("twin-a", "twin-x")
    assert keys.shard_of("twin-a") == keys.shard_of("twin-x")  # or it would be no wonder
    replies = scene.swarm([Ask(key_of(tenants[i % 2]), body, headers) for i in range(60)], clients=60)
    assert {reply.status for reply in replies} == {200}
    for i, tenant in enumerate(tenants):
        eventually(lambda: any(row["tag"] == f"twin-{stream}" for row in scene.calls_of(tenant)))  # noqa: B023
        (mine,) = [row["id"] for row in scene.calls_of(tenant) if row["tag"] == f"twin-{stream}"]
        (theirs,) = [r["id"] for r in scene.calls_of(tenants[1 - i]) if r["tag"] == f"twin-{stream}"] or ["?"]
        bodies = {reply.body for reply in replies[i::2]}
        assert len(bodies) == 1
        assert mine.encode() in bodies.pop()
        assert not any(theirs.encode() in reply.body for reply in replies[i::2])
        assert len(scene.journal_of([row for row in scene.calls_of(tenant) if row["id"] == mine])) == 1


# --- the worker of a run is lost -----------------------------------------------------------------


@contextmanager
def in_flight(scene: Scene, line: Line, tenant: str, model: str, **headers: str) -> Iterator[concurrent.futures.Future]:
    """A call held back by its provider, at a worker that is known; its future answer, or the error it ends in."""
    scene.upstream.behave(model, "wait=1")
    before = len(scene.upstream.working(model))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(line.chat, key_of(tenant), headers=headers, model=model)
        eventually(lambda: len(scene.upstream.working(model)) == before + 1)
        try:
            yield answer
        finally:
            scene.upstream.behave(model)


def test_i7_a_killed_workers_run_is_made_again_after_its_lease_and_says_so(scene: Scene) -> None:
    """409 before, at every worker; then of fifty callers one runs, says ``reexecuted``, and the others replay it."""
    scene.trust_leases()
    headers = {"x-idempotency-key": "retried"}
    with scene.cluster.lines() as lines:
        with in_flight(scene, lines[0], "retried", "killed", **headers) as lost:
            scene.cluster.kill_worker(lines[0].pid)
            assert isinstance(lost.exception(PATIENCE), httpx.HTTPError)
            for line in lines[1:]:
                assert line.chat(key_of("retried"), headers=headers, model="killed").status_code == 409
            (dead,) = scene.in_flight("retried")
        scene.cluster.wait_whole()
        scene.end_claims("retried")
        asks = [Ask(key_of("retried"), {"model": "killed"}, {**headers, "prefer": "wait=30"})] * 50
        replies = scene.swarm(asks, clients=50)
    assert {reply.status for reply in replies} == {200}
    assert sorted(reply.headers["x-perpetuo-idempotency"] for reply in replies) == ["reexecuted", *["replayed"] * 49]
    assert {reply.text for reply in replies} == {replies[0].text}
    scene.end_leases("retried", [dead])
    first, second = sorted(scene.written("retried", 2), key=lambda row: str(row["id"]))
    assert (first["outcome"], second["outcome"], second["idempotency"]) == ("abandoned", "completed", "reexecuted")
    assert len(scene.journal_of([first, second])) == 2
    scene.settled("retried")


def test_i7_with_fail_a_killed_workers_run_is_never_made_again(scene: Scene) -> None:
    """``onUnknownOutcome: fail``: after the lease fifty callers get 409 ``idempotency_outcome_unknown``."""
    scene.trust_leases()
    headers = {"x-idempotency-key": "undecided"}
    scene.configure(features=FEATURES.replace("lease: 5m", "lease: 5m, onUnknownOutcome: fail"))
    try:
        with scene.cluster.lines() as lines, in_flight(scene, lines[3], "undecided", "killed", **headers) as lost:
            scene.cluster.kill_worker(lines[3].pid)
            assert isinstance(lost.exception(PATIENCE), httpx.HTTPError)
        dead = scene.in_flight("undecided")
        scene.cluster.wait_whole()  # connections that were on their way to the dead worker would be reset
        scene.end_claims("undecided")
        replies = scene.swarm([Ask(key_of("undecided"), {"model": "killed"}, headers)] * 50, clients=50)
        assert {(reply.status, reply.code) for reply in replies} == {(409, "idempotency_outcome_unknown")}
        scene.end_leases("undecided", dead)
        (row,) = scene.written("undecided", 1)
        assert row["outcome"] == "abandoned"
        assert len(scene.journal_of([row])) == 1
    finally:
        scene.configure()


@pytest.mark.parametrize("reaped", [False, True])
def test_i5_b5_a_stopped_worker_that_lost_its_key_stores_nothing_over_the_new_run(scene: Scene, reaped: bool) -> None:
    """
    It is stopped until another has run under its key, and wakes up: the key keeps the answer of the second.

    Both runs are charged to the nano, one row each, also when the first was already charged at its hold.
    """
    scene.trust_leases()
    tenant = f"fenced-{reaped}".lower()
    headers = {"x-idempotency-key": "fenced"}
    with scene.cluster.lines() as lines, in_flight(scene, lines[1], tenant, "fenced", **headers) as late:
        os.kill(lines[1].pid, signal.SIGSTOP)
        try:
            stopped = scene.in_flight(tenant)
            scene.end_claims(tenant)
            if reaped:
                scene.end_leases(tenant, stopped)
                eventually(lambda: [row["outcome"] for row in scene.calls_of(tenant)] == ["abandoned"])
            scene.upstream.behave("fenced")
            second = lines[0].chat(key_of(tenant), headers=headers, model="fenced")
            assert (second.status_code, second.headers["x-perpetuo-idempotency"]) == (200, "reexecuted")
        finally:
            os.kill(lines[1].pid, signal.SIGCONT)
        first = late.result(PATIENCE)
        assert (first.status_code, first.headers["x-perpetuo-idempotency"]) == (200, "not_stored")
        replay = lines[1].chat(key_of(tenant), headers=headers, model="fenced")
        assert replay.headers["x-perpetuo-idempotency"] == "replayed"
        assert replay.content == second.content != first.content
    scene.settled(tenant)
    calls = scene.written(tenant, 2)
    assert {(row["outcome"], row["usage_basis"]) for row in calls} == {("completed", "reported")}
    assert sorted(row["revision"] for row in calls) == [1, 1 + reaped]
    scene.check_books(tenant)
