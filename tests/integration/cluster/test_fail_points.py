"""``kill -9`` at named points of a call (A1, B5, I7); see `tests/failpoints/sitecustomize.py` for how."""

import time
from collections import Counter
from collections.abc import Callable

import attrs
import pytest

from tests.integration.cluster.scene import IN_REAL_TIME, LEASE, Scene, key_of
from tests.live import eventually
from tests.swarm import Ask


@attrs.frozen
class Point:
    """Where a call's worker dies; did the provider hear of the call then, and was it settled?"""

    name: str
    model: str = "m"
    stream: bool = False
    asked: bool = True
    settled: bool = False

    def tag(self, tenant: str) -> str:
        return f"kill-{self.name}-{tenant}{'-stream' if self.stream else ''}"

    def ask(self, tenant: str) -> Ask:
        tag = self.tag(tenant)
        headers = {"x-idempotency-key": tag, "x-perpetuo-tag": tag}
        return Ask(key_of(tenant), {"model": self.model, "stream": self.stream}, headers)


POINTS = (
    Point("after_admit", asked=False),
    Point("after_send", model="points"),
    Point("mid_stream", model="drip", stream=True),
    Point("before_settle"),
    Point("before_settle", stream=True),
    Point("after_settle", settled=True),
    Point("after_settle", stream=True, settled=True),
    Point("before_ack", settled=True),
)


UNSETTLED = [point for point in POINTS if not point.settled]


def die_at(scene: Scene, point: Point, tenant: str) -> set[str]:
    """
    The call is made, its worker (or the relay that has its row) dies of it, and its client asks again at once.

    Returns which of the tenant's calls nobody had settled right after the death; later somebody may have.
    """
    before = set(scene.cluster.worker_pids())
    scene.upstream.behave("points", "wait=1")
    (reply,) = scene.swarm([point.ask(tenant)])
    if point.name != "before_ack":  # that relay may be at another worker than the call
        assert not reply.complete, (point, reply)
    eventually(lambda: before - set(scene.cluster.worker_pids()))
    dead = set(scene.in_flight(tenant))
    scene.upstream.behave("points")
    scene.cluster.wait_whole()
    # the new worker may not listen yet
    reply = eventually(lambda: (again := scene.swarm([point.ask(tenant)])[0]).status and again)
    if point.settled:
        assert (reply.status, reply.headers["x-perpetuo-idempotency"]) == (200, "replayed"), point
    else:
        assert reply.code == "idempotency_in_progress", point
    return dead


def test_a1_b5_i7_killed_at_any_point_of_a_call(scene: Scene) -> None:
    """
    One row for each call, nothing held, counter = Σ rows; the key's next request replays what was settled.

    What was not settled is refused with 409 until the lease is over, then runs again, and says so.
    """
    kill_and_retry(scene, "points", lambda: scene.end_claims("points"))


@pytest.mark.slow
def test_a1_i7_killed_at_any_point_of_a_call_in_real_time(scene: Scene) -> None:
    """The same, and the keys' leases of five seconds end by themselves."""
    scene.configure(features=IN_REAL_TIME)
    try:
        kill_and_retry(scene, "points-later", lambda: time.sleep(LEASE))
    finally:
        scene.configure()


def kill_and_retry(scene: Scene, tenant: str, end_leases: Callable[[], object]) -> None:
    scene.trust_leases()
    dead = {call for point in POINTS for call in die_at(scene, point, tenant)}
    assert len(dead) == len(UNSETTLED)
    end_leases()
    replies = scene.swarm([point.ask(tenant) for point in UNSETTLED])
    assert {(reply.status, reply.complete) for reply in replies} == {(200, True)}
    assert {reply.headers["x-perpetuo-idempotency"] for reply in replies} == {"reexecuted"}
    scene.end_leases(tenant, dead)
    check_rows(scene, tenant, dead)


def check_rows(scene: Scene, tenant: str, dead: set[str]) -> None:
    """One row for each call that was admitted: by those killed, and by those who ran again."""
    calls = scene.written(tenant, len(POINTS) + len(UNSETTLED))
    rows_of = {point: [row for row in calls if row["tag"] == point.tag(tenant)] for point in POINTS}
    sent = Counter(entry.call for entry in scene.upstream.entries())
    for point in POINTS:
        first, *again = sorted(rows_of[point], key=lambda row: str(row["id"]))
        assert (first["outcome"], first["id"] in dead) == (
            ("completed", False) if point.settled else ("abandoned", True)
        )
        assert [row["outcome"] for row in again] == ([] if point.settled else ["completed"])
        assert sent[first["id"]] == int(point.asked)
        assert all(sent[row["id"]] == 1 for row in again)
    scene.settled(tenant)
    scene.check_books(tenant)
