"""One breaker for each provider over four workers (C1, C3, C4)."""

import threading
import time
from collections.abc import Sequence

import httpx
import pytest

from tests.cluster import Line, ask_each
from tests.integration.cluster.scene import Scene, key_of
from tests.live import eventually
from tests.patience import best
from tests.swarm import Ask, Reply, swarm

KEY = key_of("breaking")
AT_ONCE = 0.5
"""Seconds within which every worker knows."""


def statuses(lines: Sequence[Line], model: str) -> list[int]:
    """One call at each worker."""
    return [answer.status_code for answer in ask_each(lines, lambda line: line.chat(KEY, model=model))]


def known_after(lines: Sequence[Line], model: str, status: int) -> float:
    """How long until the slowest worker is asked the call that it answers so."""
    began = time.monotonic()

    def first(line: Line) -> float:
        asked = began

        def knows() -> bool:
            nonlocal asked
            asked = time.monotonic()
            return line.chat(KEY, model=model).status_code == status

        eventually(knows, every=0.02)
        return asked - began

    return max(ask_each(lines, first))


def close(scene: Scene, lines: Sequence[Line], provider: str) -> None:
    """As an operator does; until every worker knows."""
    with scene.redis.client() as client:
        client.delete(f"perpetuo:cb:{provider}")
    eventually(lambda: 503 not in statuses(lines, provider))


def fail_twenty_times(lines: Sequence[Line], model: str) -> None:
    """Five at each worker, so that none of them sees enough failures itself."""

    def five(line: Line) -> set[int]:
        return {line.chat(KEY, model=model).status_code for _ in range(5)}

    assert {status for found in ask_each(lines, five) for status in found} <= {502, 503}


def test_c1_twenty_failures_over_four_workers_open_it_for_all(scene: Scene) -> None:
    """Nobody saw more than five of them; 500 ms later everybody refuses, and nothing more is sent."""
    with scene.cluster.lines() as lines:

        def opened() -> float:
            scene.upstream.behave("breaks", "status=503")
            fail_twenty_times(lines, "breaks")
            took = known_after(lines, "breaks", 503)
            sent = len(scene.upstream.entries("breaks"))
            refused = lines[0].chat(KEY, model="breaks")
            assert refused.json()["error"]["code"] == "no_healthy_upstream"
            assert 0 < int(refused.headers["retry-after-ms"]) <= 300_000
            assert statuses(lines, "breaks") == [503] * 4
            assert len(scene.upstream.entries("breaks")) == sent
            scene.upstream.behave("breaks")
            close(scene, lines, "breaks")
            return took

        best(AT_ONCE, opened)


def test_c1_five_connect_failures_in_a_row_open_it_for_all(scene: Scene) -> None:
    """Two at one worker and one at each of the others are five."""
    with scene.cluster.lines() as lines:

        def opened() -> float:
            assert statuses(lines, "nobody") == [502] * 4
            assert lines[0].chat(KEY, model="nobody").status_code == 502
            took = known_after(lines, "nobody", 503)
            with scene.redis.client() as client:
                assert client.pttl("perpetuo:cb:nobody") > 0
                client.delete("perpetuo:cb:nobody")
            eventually(lambda: scene.breakers(lines, "nobody") == {"closed"})  # to see it by calls would count
            return took

        best(AT_ONCE, opened)


def test_c4_deleting_the_key_closes_it_everywhere(scene: Scene) -> None:
    """It would be open for five minutes; 500 ms after ``DEL perpetuo:cb:breaks`` every worker sends again."""
    with scene.cluster.lines() as lines:

        def closed() -> float:
            scene.upstream.behave("breaks", "status=503")
            fail_twenty_times(lines, "breaks")
            known_after(lines, "breaks", 503)
            scene.upstream.behave("breaks")
            with scene.redis.client() as client:
                assert client.pttl("perpetuo:cb:breaks") > 20_000
                assert client.delete("perpetuo:cb:breaks") == 1
            took = known_after(lines, "breaks", 200)
            assert statuses(lines, "breaks") == [200] * 4
            return took

        best(AT_ONCE, closed)


def herd(scene: Scene, verdict: str) -> tuple[list[int], int]:
    """Fifty callers of a half-open breaker while its probe is undecided: statuses, and how many were sent."""
    scene.upstream.behave("herd", "wait=1")
    before = len(scene.upstream.entries("herd"))
    replies = [Ask(KEY, {"model": "herd"})] * 50
    seen: list[int] = []

    def decide() -> None:
        try:
            eventually(lambda: sum(reply.status == 503 for reply in filled) == 49)
            seen.append(len(scene.upstream.working("herd")))
        finally:
            scene.upstream.behave("herd", verdict)

    filled = [Reply() for _ in replies]
    swarm(scene.cluster.urls, replies, 50, into=filled, meanwhile=decide)
    assert seen == [1]
    return sorted(reply.status for reply in filled), len(scene.upstream.entries("herd")) - before


def half_open(scene: Scene) -> None:
    """Until its time is over, and every worker knows."""
    with scene.cluster.lines() as lines:
        eventually(lambda: scene.breakers(lines, "herd") == {"half_open"})


def test_c3_a_herd_of_fifty_sends_one_probe(scene: Scene) -> None:
    """In half-open exactly one of 50 callers reaches the provider; its failure opens again, its success closes."""
    scene.upstream.behave("herd", "status=503")
    with scene.cluster.lines() as lines:
        fail_twenty_times(lines, "herd")
        known_after(lines, "herd", 503)
    half_open(scene)
    assert herd(scene, "status=503") == ([502, *[503] * 49], 1)
    half_open(scene)
    assert herd(scene, "") == ([200, *[503] * 49], 1)
    eventually(lambda: {r.status for r in scene.swarm([Ask(KEY, {"model": "herd"})] * 20)} == {200})


@pytest.mark.slow
def test_c3_a_dead_probers_lease_ends_after_ten_seconds(scene: Scene) -> None:
    """Its worker is killed while it asks: for ten seconds nobody probes, then one of fifty does."""
    scene.upstream.behave("herd", "status=503")
    with scene.cluster.lines() as lines:
        fail_twenty_times(lines, "herd")
        known_after(lines, "herd", 503)
        half_open(scene)
        scene.upstream.behave("herd", "wait=1")
        prober = threading.Thread(target=_suffer, args=(lines[0],))
        prober.start()
        eventually(lambda: len(scene.upstream.working("herd")) == 1)
        killed = time.monotonic()
        scene.cluster.kill_worker(lines[0].pid)
        prober.join()
    while time.monotonic() - killed < 8:
        assert {r.status for r in scene.swarm([Ask(KEY, {"model": "herd"})] * 10)} == {503}
        time.sleep(0.5)
    time.sleep(max(0.0, killed + 10.5 - time.monotonic()))
    assert herd(scene, "") == ([200, *[503] * 49], 1)


def _suffer(line: Line) -> None:
    with pytest.raises(httpx.HTTPError):
        line.chat(KEY, model="herd")
