"""Budgets over four workers: never passed, as many calls as they have room for, nothing left held (B1-B4)."""

import itertools
import random
import threading
import time

import attrs
import pytest

from perpetuo.adapters.redis import keys
from tests.integration.cluster.scene import OUT, Row, Scene, key_of
from tests.live import eventually
from tests.patience import best
from tests.swarm import Ask, Reply, swarm


def test_b3_of_200_callers_seven_reach_the_provider(scene: Scene) -> None:
    """With budget for seven: seven run, 193 hear ``budget_reserved``; then all hear ``budget_exceeded``."""
    asks = [Ask(key_of("seven"), {"model": "exact", "max_tokens": 100})] * 200
    scene.upstream.behave("exact", "wait=1")
    refused: list[Reply] = []

    def release() -> None:
        """When everybody else has been answered."""
        try:
            eventually(lambda: len([r for r in replies_so_far if r.status == 429]) >= 193)
            refused.extend(r for r in replies_so_far if r.status == 429)
            eventually(lambda: len(scene.upstream.working("exact")) == 7)
        finally:
            scene.upstream.behave("exact", "tokens=100")

    replies_so_far = [Reply() for _ in asks]
    swarm(scene.cluster.urls, asks, 200, into=replies_so_far, meanwhile=release)
    assert sorted(reply.status for reply in replies_so_far) == [200] * 7 + [429] * 193
    assert {reply.code for reply in refused} == {"budget_reserved"}
    assert scene.budget("seven") == dict.fromkeys(scene.budget("seven"), (7 * 100 * OUT, 0))
    again = scene.swarm(asks, clients=200)
    assert {(reply.status, reply.code) for reply in again} == {(403, "budget_exceeded")}
    assert len(scene.journal_of(scene.written("seven", 7))) == 7
    assert scene.check_books("seven") == 7 * 100 * OUT


# --- every instant -------------------------------------------------------------------------------

LIMITS = {("sampled", 10): 600_000_000, ("sampled/by-day", 10): 300_000_000, ("sampled/by-month", 7): 400_000_000}
"""Scope, and how long the name of its window is: ``2026-01-31`` or ``2026-01``; nano-USD."""


@attrs.define
class Sampler:
    """Reads all windows of a tenant in one instant, again and again."""

    scene: Scene
    windows: dict[tuple[str, int], str]
    samples: list[dict[tuple[str, int], tuple[int, int]]] = attrs.field(factory=list)
    stop: threading.Event = attrs.field(factory=threading.Event)

    def run(self) -> None:
        with self.scene.redis.client() as client:
            while not self.stop.is_set():
                with client.pipeline(transaction=True) as instant:
                    for name in self.windows.values():
                        instant.hmget(name, "spent", "held")
                    found = instant.execute()
                read = [(int(spent or 0), int(held or 0)) for spent, held in found]
                self.samples.append(dict(zip(self.windows, read, strict=True)))


def windows_of(scene: Scene) -> dict[tuple[str, int], str]:
    """The keys in Redis of what `LIMITS` names: made by a first call of each key."""
    found: dict[tuple[str, int], str] = {}
    p = keys.prefix_of("sampled")
    for scope, length in LIMITS:
        name = next(window for window in scene.budget("sampled", scope) if len(window) == length)
        found[scope, length] = keys.budget(p, scope, name)
    return found


def mixed(seed: int, count: int) -> list[Ask]:
    """Calls of every kind of ending, from two keys with budgets of their own."""
    rng = random.Random(seed)
    asks = []
    for _ in range(count):
        model = rng.choices(["m", "late", "flaky", "unsaid", "cut", "resetting"], [6, 3, 1, 1, 1, 1])[0]
        body = {"model": model, "stream": rng.random() < 0.4, "max_tokens": rng.randrange(1, 100)}
        leave = 0.03 if model == "late" and rng.random() < 0.5 else None
        key = key_of("sampled", rng.choice(["by-day", "by-month"]))
        asks.append(Ask(key, body, leave_after=leave))
    return asks


def test_b1_b2_spent_and_held_are_within_every_limit_in_every_sample(scene: Scene) -> None:
    """Day and month, tenant and key, read all the time while calls succeed, fail, break off and are left."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    for name in ("by-day", "by-month"):
        assert scene.cluster.chat(key_of("sampled", name)).status_code == 200
    sampler = Sampler(scene, windows_of(scene))
    thread = threading.Thread(target=sampler.run)
    thread.start()
    try:
        replies = scene.swarm(mixed(seed, 1_200), clients=32)
    finally:
        sampler.stop.set()
        thread.join()
    codes = {reply.code for reply in replies}
    assert {"", "budget_reserved", "budget_exceeded"} <= codes, codes
    for sample in sampler.samples:
        for window, (spent, held) in sample.items():
            assert spent >= 0 <= held
            assert spent + held <= LIMITS[window]
    assert len(sampler.samples) > 10
    assert any(held for sample in sampler.samples for _, held in sample.values())
    scene.settled("sampled")
    assert 0 < scene.check_books("sampled") <= LIMITS["sampled", 10]
    per_key = {name: [r for r in scene.calls_of("sampled") if r["key_name"] == name] for name in ("by-day", "by-month")}
    for name, calls in per_key.items():
        total = sum(row["cost_nano_usd"] for row in calls)
        assert set(scene.budget("sampled", f"sampled/{name}").values()) == {(total, 0)}
    for gateway in scene.cluster.gateways:
        assert metric(gateway.get("/metrics").text, "perpetuo_hold_exceeded_total") == 0


def metric(page: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


# --- no hold stays -------------------------------------------------------------------------------

ENDINGS: dict[str, tuple[Ask, str]] = {
    "answered": (Ask(body={"model": "m"}), "completed"),
    "streamed": (Ask(body={"model": "m", "stream": True}), "completed"),
    "failed": (Ask(body={"model": "failing"}), "failed"),
    "reset": (Ask(body={"model": "resetting"}), "failed"),
    "stream reset": (Ask(body={"model": "resetting", "stream": True}), "truncated"),
    "stream cut": (Ask(body={"model": "cut", "stream": True}), "truncated"),
    "too slow": (Ask(body={"model": "silent"}), "failed"),
    "left before an answer": (Ask(body={"model": "held"}), "cancelled"),
    "left in a stream": (Ask(body={"model": "held", "stream": True}), "cancelled"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_b4_no_hold_stays_after_a_call_however_it_ends(scene: Scene, ending: str) -> None:
    """A second after its end at the latest: nothing held, and a row that says how it ended."""
    rounds = itertools.count()
    # a client's leaving is noticed within a second (I8)
    best(1 + (ENDINGS[ending][0].body["model"] == "held"), lambda: released(scene, ending, f"{ending} {next(rounds)}"))


def released(scene: Scene, ending: str, tag: str) -> float:
    """One call that ends so; seconds from its end until nothing is held."""
    ask, outcome = ENDINGS[ending]
    stream, leaves = "stream" in ask.body, ask.body["model"] == "held"
    scene.upstream.behave("held", "end=stall,after=3,tokens=9" if stream else "wait=1")

    def there(reply: Reply) -> bool:
        """The provider is at work, and a stream has begun."""
        return bool(scene.upstream.working("held")) and (reply.status == 200 or not stream)

    ask = attrs.evolve(
        ask, key=key_of("endings"), headers={"x-perpetuo-tag": tag}, leave_when=there if leaves else None
    )
    (reply,) = scene.swarm([ask])
    eventually(lambda: not scene.in_flight("endings"), every=0.01)
    took = time.time() - reply.ended
    assert {held for _, held in scene.budget("endings").values()} == {0}
    row: Row = eventually(lambda: next((r for r in scene.calls_of("endings") if r["tag"] == tag), None))
    assert (row["outcome"], row["cost_nano_usd"] > 0) == (outcome, True)
    scene.check_books("endings")
    return took
