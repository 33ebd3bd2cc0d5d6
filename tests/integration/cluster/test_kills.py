"""Processes of the gateways are killed and stopped under load (A1, B2, B4, B5, O5)."""

import concurrent.futures
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from perpetuo.adapters.redis import keys
from tests.cluster import Line
from tests.integration.cluster.scene import IN_REAL_TIME, Row, Scene, key_of
from tests.integration.cluster.test_idempotency import in_flight
from tests.live import eventually
from tests.patience import PATIENCE, best
from tests.servers import _children
from tests.swarm import Ask, Reply, swarm

CALL = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The id of the call, with which the upstream begins every text."""

# --- calls of one worker -------------------------------------------------------------------------


def test_b2_b4_b5_a_killed_workers_calls_are_charged_at_their_hold_and_nothing_stays_held(scene: Scene) -> None:
    """Its lease over, another worker records it: ``abandoned``, basis ``bound``, one row; the provider cost no more."""
    scene.trust_leases()
    with scene.cluster.lines() as lines, in_flight(scene, lines[0], "abandoned", "killed") as lost:
        held = {held for _, held in scene.budget("abandoned").values()}
        scene.cluster.kill_worker(lines[0].pid)
        assert isinstance(lost.exception(PATIENCE), httpx.HTTPError)
        assert {held for _, held in scene.budget("abandoned").values()} == held != {0}
    scene.end_leases("abandoned", scene.in_flight("abandoned"))
    (row,) = scene.written("abandoned", 1)
    assert (row["outcome"], row["usage_basis"], row["cost_nano_usd"]) == ("abandoned", "bound", row["hold_nano_usd"])
    assert {row["hold_nano_usd"]} == held
    scene.settled("abandoned")
    assert scene.check_books("abandoned") == row["hold_nano_usd"]


def test_b5_a_late_settlement_corrects_counter_and_row_to_the_nano(scene: Scene) -> None:
    """A worker is stopped longer than its lease, charged at the hold by another, and wakes up: one row, exact."""
    scene.trust_leases()
    with scene.cluster.lines() as lines, in_flight(scene, lines[2], "paused", "paused") as late:
        os.kill(lines[2].pid, signal.SIGSTOP)
        try:
            scene.end_leases("paused", scene.in_flight("paused"))
            (row,) = scene.written("paused", 1)
            assert (row["outcome"], row["revision"]) == ("abandoned", 1)
            assert set(scene.budget("paused").values()) == {(row["hold_nano_usd"], 0)}
            scene.upstream.behave("paused")
        finally:
            os.kill(lines[2].pid, signal.SIGCONT)
        assert late.result(PATIENCE).status_code == 200
    scene.settled("paused")
    (row,) = scene.written("paused", 1)
    assert (row["outcome"], row["usage_basis"], row["revision"]) == ("completed", "reported", 2)
    assert 0 < scene.check_books("paused") < row["hold_nano_usd"]


@pytest.mark.slow
def test_b5_i7_a_killed_and_a_stopped_worker_in_real_time(scene: Scene) -> None:
    """Nobody helps time along: charged within 60 s of the kill; the stopped one, awake after a minute, corrects."""
    scene.configure(features=IN_REAL_TIME)
    try:
        killed_and_stopped(scene)
    finally:
        scene.configure()


def killed_and_stopped(scene: Scene) -> None:
    key = {"x-idempotency-key": "real-time"}
    with scene.cluster.lines() as lines, ExitStack() as calls:
        lost = calls.enter_context(in_flight(scene, lines[0], "real", "killed", **key))
        late = calls.enter_context(in_flight(scene, lines[3], "real", "paused"))
        killed = time.monotonic()
        scene.cluster.kill_worker(lines[0].pid)
        os.kill(lines[3].pid, signal.SIGSTOP)
        try:
            assert isinstance(lost.exception(PATIENCE), httpx.HTTPError)
            eventually(lambda: len(scene.calls_of("real")) == 2, 62, every=0.5)
            assert time.monotonic() - killed <= 62
            assert {row["outcome"] for row in scene.calls_of("real")} == {"abandoned"}
        finally:
            scene.upstream.behave("paused")
            os.kill(lines[3].pid, signal.SIGCONT)
        assert late.result(PATIENCE).status_code == 200
        scene.upstream.behave("killed")
        again = lines[1].chat(key_of("real"), headers=key, model="killed")
        assert again.headers["x-perpetuo-idempotency"] == "reexecuted"
    scene.settled("real")
    assert sorted(row["outcome"] for row in scene.written("real", 3)) == ["abandoned", "completed", "completed"]
    scene.check_books("real")


# --- under load ----------------------------------------------------------------------------------


def load(seed: int, tenant: str, count: int) -> list[Ask]:
    """Calls of many kinds, most of which wait for their provider; every fourth has a key, some the same."""
    rng = random.Random(seed)
    asks = []
    for i in range(count):
        body = {"model": rng.choices(["m", "slow", "unsaid", "cut"], [1, 6, 1, 1])[0], "stream": rng.random() < 0.4}
        headers = {} if i % 4 else {"x-idempotency-key": f"{tenant}-{i // 8}"}
        asks.append(Ask(key_of(tenant), body, headers))
    return asks


def kill_everything(scene: Scene, *, both: bool) -> None:
    """SIGKILL to every kind of process that a gateway has, and wait until all is well again; last to whole gateways."""
    one, two = scene.cluster.gateways
    assert one.process is not None
    nursery = next(pid for pid in _children(one.process.pid) if set(_children(pid)) & set(one.worker_pids()))
    kills: dict[str, Callable[[], object]] = {
        "a worker": lambda: scene.cluster.kill_worker(one.worker_pids()[0]),
        "all workers of a gateway": two.kill_workers,
        "the nursery of the workers": lambda: os.kill(nursery, signal.SIGKILL),
    }
    for what, kill in kills.items():
        print("killing", what)
        kill()
        time.sleep(0.3)
        scene.cluster.wait_whole()
    print("killing a main process, which leaves its workers behind", "and a whole gateway" if both else "")
    orphans = one.worker_pids()
    one.signal(signal.SIGKILL)
    one.process.wait(PATIENCE)
    one.start(wait=False)
    if both:
        two.kill()
        two.start(wait=False)
    for gateway in scene.cluster.gateways:
        gateway.wait_ready()
    scene.cluster.wait_whole()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), 120)


def test_a1_kill_9_of_any_process_under_load_leaves_one_row_for_each_admitted_call(scene: Scene) -> None:
    """
    Rows = admissions, counter = Σ rows, provider ≤ rows, and nothing reached it that has no row.

    Admissions are counted by the rate log, what reached the provider by its journal, answers by the clients.
    """
    killed_under_load(scene, "killed", both=False)


@pytest.mark.slow
@pytest.mark.parametrize("tenant", ["killed-1", "killed-2", "killed-3"])
def test_a1_kill_9_of_both_gateways_again_and_again(scene: Scene, tenant: str) -> None:
    """The same, with nobody left to answer for a while."""
    killed_under_load(scene, tenant, both=True)


def killed_under_load(scene: Scene, tenant: str, *, both: bool) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    scene.trust_leases()
    asks = load(seed, tenant, 8_000)
    meanwhile = partial(kill_everything, scene, both=both)
    with admissions(scene, tenant) as admitted:
        replies = swarm(scene.cluster.urls, asks, 8, meanwhile=meanwhile, stop=True)
    answered = [reply for reply in replies if reply.status == 200 and reply.complete]
    print(Counter((reply.status, reply.error.partition(":")[0]) for reply in replies))
    assert answered
    scene.end_leases(tenant, scene.in_flight(tenant))
    eventually(lambda: not scene.in_flight(tenant))
    calls = scene.written(tenant, len(admitted))
    print(Counter((row["outcome"], row["usage_basis"], row["revision"]) for row in calls))
    scene.settled(tenant)
    scene.check_books(tenant)
    assert scene.without_row() == set()
    check_answers(answered, {row["id"]: row for row in calls})


@contextmanager
def admissions(scene: Scene, tenant: str) -> Iterator[set[str]]:
    """Redis's times of the tenant's admissions, all of them in the end: its rate log keeps a minute of them."""
    log, over, found = keys.rate(keys.prefix_of(tenant), tenant), threading.Event(), set[str]()

    def collect() -> None:
        with scene.redis.client() as client:
            while not over.wait(2):
                found.update(client.lrange(log, 0, -1))
            found.update(client.lrange(log, 0, -1))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        collecting = pool.submit(collect)
        try:
            yield found
        finally:
            over.set()
            collecting.result(PATIENCE)


def check_answers(answered: Sequence[Reply], calls: Mapping[str, Row]) -> None:
    """What a client was given is in the rows: its call, completed, at the cost that it was told."""
    for reply in answered:
        named = CALL.search(reply.body)
        assert named is not None, reply.body
        row = calls[named[0].decode()]
        if "idempotent-replayed" not in reply.headers and "text/event-stream" not in reply.headers["content-type"]:
            assert row["outcome"] == "completed"
            assert round(float(reply.headers["x-perpetuo-cost-usd"]) * 1e9) == row["cost_nano_usd"]


def test_o5_a_killed_worker_under_load_does_not_bother_the_others(scene: Scene) -> None:
    """The others' calls and streams go on, new connections are taken, and a new worker answers within 5 s."""
    best(5, lambda: back_after_a_kill(scene))


def back_after_a_kill(scene: Scene) -> float:
    """A worker is killed under load: nobody else may notice. Seconds until there is a new one."""
    scene.upstream.behave("slowly", "end=stall,after=3,tokens=9")
    stop = threading.Event()
    statuses: dict[int, list[int]] = {}
    broken: list[int] = []

    def go_on(line: Line) -> None:
        statuses[line.pid] = []
        try:
            while not stop.is_set():
                statuses[line.pid].append(line.chat(key_of("loaded")).status_code)
        except httpx.HTTPError:
            broken.append(line.pid)

    with (
        scene.cluster.lines() as lines,
        scene.cluster.lines() as beside,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        streams = [pool.submit(stream, line) for line in beside]
        running = [pool.submit(go_on, line) for line in lines]
        eventually(lambda: len(scene.upstream.working("slowly")) == 4)
        victim = scene.cluster.kill_worker(lines[0].pid)
        killed = time.time()
        new = scene.swarm([Ask(key_of("beside"))] * 300, clients=8)
        eventually(lambda: victim not in scene.cluster.worker_pids())
        scene.cluster.wait_whole()
        back = max(scene.cluster.ready_at(pid) for pid in scene.cluster.worker_pids()) - killed
        with scene.cluster.lines() as now:
            assert {line.chat(key_of("loaded")).status_code for line in now} == {200}
            assert victim not in {line.pid for line in now}
        scene.upstream.behave("slowly")
        stop.set()
        for worker in running:
            worker.result(PATIENCE)
        ended = [future.result(60) for future in streams]
    assert set(broken) <= {victim}  # between two calls its client just takes a new connection
    assert {status for line in lines[1:] for status in statuses[line.pid]} == {200}
    assert [text.endswith("data: [DONE]\n\n") for text in ended] == [False, True, True, True]
    assert {reply.status for reply in new if not reply.error} == {200}
    assert sum(bool(reply.error) for reply in new) <= 8  # connections that the killed worker had
    assert back > 0
    return back


def stream(line: Line) -> str:
    """What came of a stream until it ended, or broke; it pauses until the provider is told otherwise."""
    try:
        return line.chat(key_of("loaded"), model="slowly", stream=True).text
    except httpx.HTTPError:
        return ""
