"""
Do the scripts follow the policy to the letter?

The same histories, with the same clock, go through the policy (which is all that the ledger in memory runs) and through
Redis; every answer, every reading and every event must be the same, step by step.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.domain.model.admission import (
    LEASE_US,
    Abandoned,
    AdmitRequest,
    Admitted,
    BudgetLimit,
    Hold,
    Keep,
    UnknownOutcome,
)
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.model.tenants import Limits
from perpetuo.domain.policy.nearness import Watched
from perpetuo.domain.policy.windows import Window
from perpetuo.domain.ports import EventStream, WindowSum
from tests.contract.ledger_world import (
    DAY,
    HOUR,
    MIDNIGHT,
    MINUTE,
    REPLAYS,
    SECOND,
    TENANT,
    Clock,
    adjustment,
    answer,
    at_once,
    claim,
    day,
    month,
    rate,
    request,
    settlement,
)
from tests.integration.redis.world import RedisWorld
from tests.patience import PATIENCE
from tests.servers import RedisServer

BATCH = f"{TENANT}/batch"
OF_A_SHARD = (":life", ":seeded", ":holds", ":events", ":format")
KEEPING = IdempotencySettings(max_bytes=30, max_bytes_per_tenant=40)
LIMITS = [
    (rate(2), day(100)),
    (rate(3), rate(2, BATCH), at_once(2), day(100), month(150)),
    (rate(1, window_us=10 * SECOND), at_once(1), at_once(2, BATCH), day(None), day(60, BATCH)),
    (at_once(2, BATCH), month(90)),
    (rate(0), day(5)),
    (),
]
MOST_REPLAYS = 2
CLAIMS = [
    None,
    None,
    claim("a"),
    claim("a", "other"),
    claim("a", on_unknown=UnknownOutcome.FAIL),
    claim("b", ttl_us=MINUTE, lease_us=5 * SECOND),
    claim("b", ttl_us=0),
]
SPANS = [0, 1, SECOND - 1, SECOND, 5 * SECOND, 10 * SECOND, 10 * SECOND + 1, LEASE_US - 1, LEASE_US, MINUTE - 1, MINUTE]
SPANS += [HOUR, 12 * HOUR, DAY, -1, -5 * SECOND]
SEEDED = [(None, "2025-11-24"), ("batch", "2025-11")]
ANSWERS = [None, answer(b""), answer(b"x" * 15), answer(b"y" * 30), answer(b"z" * 31)]

which = st.integers(0, 5)
steps = st.one_of(
    st.tuples(st.just("advance"), st.sampled_from(SPANS)),
    st.tuples(st.just("admit"), st.sampled_from(LIMITS), st.integers(0, 70), st.booleans(), st.sampled_from(CLAIMS)),
    st.tuples(st.just("admit"), st.sampled_from(LIMITS), st.integers(0, 70), st.booleans(), st.sampled_from(CLAIMS)),
    st.tuples(st.just("again"), which),
    st.tuples(st.just("settle"), which, st.integers(0, 90), st.sampled_from(Keep), st.sampled_from(ANSWERS)),
    st.tuples(st.just("settle"), which, st.integers(0, 90), st.sampled_from(Keep), st.sampled_from(ANSWERS)),
    st.tuples(st.just("extend"), which, st.integers(0, 60)),
    st.tuples(st.just("cancel"), which, st.booleans()),
    st.tuples(st.just("renew"), st.lists(which, max_size=3, unique=True)),
    st.tuples(st.just("reap")),
    st.tuples(st.just("keep_alive"), st.sampled_from([LEASE_US, MINUTE])),
    st.tuples(st.just("adjust"), st.integers(0, 3), st.sampled_from([-90, -20, -1, 1, 50]), st.booleans()),
    st.tuples(st.just("lose"), st.integers(0, 50)),
)


class Pair:
    """The policy and Redis, side by side."""

    def __init__(self, world: RedisWorld) -> None:
        self.clock = world.clock
        self.redis = world
        self.policy = MemoryLedger(self.clock)
        self.requests: list[AdmitRequest] = []
        self.holds: list[tuple[Hold, Hold]] = []
        """The newest first."""
        self.lives = 0

    async def both(self, step: Callable[[Any], Awaitable[Any]]) -> tuple[Any, Any]:
        """The same step on each; their answers, which must be the same."""
        expected, found = await step(self.policy), await step(self.redis.ledger)
        assert plain(found) == plain(expected)
        return expected, found

    async def of_hold(self, number: int, step: Callable[[Any, Hold], Awaitable[Any]]) -> None:
        if number < len(self.holds):
            mine, theirs = self.holds[number]
            expected, found = await step(self.policy, mine), await step(self.redis.ledger, theirs)
            assert plain(found) == plain(expected)

    async def do(self, step: Sequence[Any]) -> None:
        await getattr(self, f"do_{step[0]}")(*step[1:])

    async def do_advance(self, span: int) -> None:
        self.clock.advance(span)

    async def do_admit(self, limits: Any, hold: int, lower: bool, asked: Any) -> None:
        name = f"c{len(self.requests)}"
        most = MOST_REPLAYS if limits else None
        least = hold // 2 if lower else hold
        self.requests.insert(0, request(name, *limits, hold=hold, hold_min=least, claim=asked, replays=most))
        await self._admit(self.requests[0])

    async def do_again(self, number: int) -> None:
        if number < len(self.requests):
            await self._admit(self.requests[number])

    async def _admit(self, asked: AdmitRequest) -> None:
        expected, found = await self.both(lambda ledger: ledger.admit(asked))
        if isinstance(expected, Admitted):
            self.holds.insert(0, (expected.hold, found.hold))

    async def do_settle(self, number: int, charge: int, keep: Keep, stored: Any) -> None:
        await self.of_hold(number, lambda ledger, hold: ledger.settle(settlement(hold, charge, keep, stored), KEEPING))

    async def do_extend(self, number: int, extra: int) -> None:
        await self.of_hold(number, lambda ledger, hold: ledger.extend(hold, Nano(extra)))

    async def do_cancel(self, number: int, by_request: bool) -> None:
        if not by_request:
            await self.of_hold(number, lambda ledger, hold: ledger.cancel(hold))
        elif number < len(self.requests):
            await self.both(lambda ledger: ledger.cancel(self.requests[number]))

    async def do_renew(self, numbers: Sequence[int]) -> None:
        pairs = [self.holds[n] for n in numbers if n < len(self.holds)]
        expected = await self.policy.renew([mine for mine, _ in pairs])
        assert await self.redis.ledger.renew([theirs for _, theirs in pairs]) == expected

    async def do_keep_alive(self, span: int) -> None:
        for _ in range(span // (10 * SECOND)):
            self.clock.advance(10 * SECOND)
            await self.do_renew([])

    async def do_adjust(self, number: int, amount: int, by_key: bool) -> None:
        """Of the day before midnight and its month: by the clock, that day is over for half of a history."""
        limits = [day(None), month(None), *([day(None, BATCH), month(None, BATCH)] if by_key else [])]
        await self.both(lambda ledger: ledger.adjust(adjustment(f"a{number}", amount, *limits)))

    async def do_reap(self) -> None:
        expected, found = await self.policy.reap(), await self.redis.ledger.reap()
        key: Callable[[Abandoned], str] = lambda one: one.call  # noqa: E731
        assert sorted(found, key=key) == sorted(expected, key=key)

    async def do_lose(self, spent: int) -> None:
        """Redis comes back empty; what was not yet in SQL is compared first, since it is gone then."""
        await self.compare_events()
        self.lives += 1
        self.policy = MemoryLedger(self.clock, epoch=f"life{self.lives}", seeded=False)
        await self.redis.lose_data()
        if spent % 2:
            sums = [WindowSum(TENANT, key, window, Nano(spent)) for key, window in SEEDED]
            self.policy.seed(TENANT, sums)
            await self.redis.seed(TENANT, sums)

    async def compare(self) -> None:
        """What can be read, and the rows of calls in flight."""
        limits = [day(100), month(150), day(60, BATCH), month(90, BATCH)]
        await self.both(lambda ledger: ledger.read_budgets(limits, TENANT))
        await self.both(lambda ledger: ledger.read_usage(TENANT, [TENANT, BATCH, REPLAYS]))
        watched = [
            Watched(TENANT, TENANT, ALL, *windows(limits[:2])),
            Watched(TENANT, BATCH, ALL, *windows(limits[2:])),
        ]
        watched.append(Watched("other", "other", Limits(), *windows(limits[:2])))
        await self.both(lambda ledger: ledger.read_used(watched))
        for asked in self.requests[:2]:
            await self.both(lambda ledger, call=asked.call: ledger.in_flight(TENANT, call))  # type: ignore[misc]

    async def compare_events(self) -> None:
        assert await events(self.redis.stream) == await events(self.policy)


ALL = Limits(1, 1, Nano(1), Nano(1))


def windows(limits: Sequence[BudgetLimit]) -> list[Window]:
    return [Window(b.period, b.current, b.following, b.boundary_us, b.following_end_us) for b in limits]


def plain(answered: Any) -> Any:
    """Lives have different names, and each ledger its own class of readings."""
    if isinstance(answered, Admitted):
        return attrs.evolve(answered, hold=attrs.evolve(answered.hold, epoch=""))
    if isinstance(answered, list) and answered and hasattr(answered[0], "admitted_last_minute"):
        return [(u.scope, u.admitted_last_minute, u.oldest_leaves_us, u.in_flight) for u in answered]
    return answered


async def events(stream: EventStream) -> Counter[str]:
    found: Counter[str] = Counter()
    while batch := await stream.read(1000, 0):
        found.update(json.dumps([json.loads(one.row), one.revision, one.charged], sort_keys=True) for one in batch)
        await stream.ack(batch)
    return found


async def play(url: str, history: Sequence[Sequence[Any]]) -> None:
    world = RedisWorld(await RedisStore.connect(url, timeout=PATIENCE), Clock(MIDNIGHT - MINUTE))
    await world.store.execute(b"FLUSHALL")
    try:
        await world.open_all()
        pair = Pair(world)
        for step in history:
            await pair.do(step)
            await pair.compare()
        await pair.compare_events()
        assert await without_an_end(world.store) == []
    finally:
        await world.close()


async def without_an_end(store: RedisStore) -> list[str]:
    """Keys that would stay for ever, but for those of a shard itself and of calls in flight; Redis would fill up."""
    found = []
    for key in await store.execute(b"KEYS", b"*"):
        name = key.decode()
        if name.endswith(OF_A_SHARD) or ":inflight:" in name or await store.execute(b"PTTL", key) >= 0:
            continue
        if ":call:" not in name or not (await store.execute(b"GET", key)).startswith(b"H "):
            found.append(name)
    return sorted(found)


LATE_SETTLEMENT = [
    ("keep_alive", LEASE_US),
    ("admit", LIMITS[1], 40, False, claim("a")),
    ("keep_alive", LEASE_US),
    ("reap",),
    ("settle", 0, 10, Keep.STORE, answer(b"late")),
    ("settle", 0, 10, Keep.STORE, answer(b"late")),
]
LOST_AND_PUT_BACK = [
    ("admit", LIMITS[1], 40, False, claim("a")),
    ("lose", 31),
    ("again", 0),
    ("renew", [0]),
    ("again", 0),
    ("extend", 0, 5),
    ("settle", 0, 30, Keep.STORE, answer(b"kept")),
    ("admit", LIMITS[1], 40, True, claim("a")),
]
OVER_MIDNIGHT = [
    ("admit", LIMITS[0], 60, False, None),
    ("advance", MINUTE),
    ("admit", LIMITS[0], 60, False, None),
    ("cancel", 0, True),
    ("settle", 1, 50, Keep.FREE, None),
]
SHARE = [
    ("admit", (), 0, False, claim("b", ttl_us=MINUTE)),
    ("settle", 0, 0, Keep.STORE, answer(b"y" * 30)),
    ("admit", (), 0, False, claim("a")),
    ("settle", 0, 0, Keep.STORE, answer(b"x" * 15)),
    ("advance", MINUTE),
    ("admit", (), 0, False, claim("b", ttl_us=MINUTE)),
    ("settle", 0, 0, Keep.STORE, answer(b"x" * 15)),
    ("again", 0),
]

RENEWED_WITH_THE_CLOCK_BACK = [
    ("keep_alive", LEASE_US),
    ("admit", LIMITS[1], 40, False, None),
    ("advance", -5 * SECOND),
    ("renew", [0]),
    ("keep_alive", LEASE_US),
    ("reap",),
]
KEY_TAKEN_AFTER_A_LOSS = [
    ("admit", (), 0, False, claim("a")),
    ("lose", 1),
    ("admit", (), 0, False, claim("a")),
    ("renew", [1]),
    ("settle", 1, 0, Keep.STORE, answer(b"old")),
    ("settle", 0, 0, Keep.STORE, answer(b"new")),
    ("admit", (), 0, False, claim("a")),
]
RENEWED_AFTER_ITS_TOMBSTONE = [
    ("admit", LIMITS[0], 40, False, None),
    ("settle", 0, 10, Keep.FREE, None),
    ("advance", MINUTE),
    ("renew", [0]),
    ("settle", 0, 10, Keep.FREE, None),
]
USAGE_WITH_THE_CLOCK_BACK = [
    ("admit", LIMITS[1], 0, False, None),
    ("advance", MINUTE),
    ("admit", LIMITS[1], 0, False, None),
    ("advance", -5 * SECOND),
]
REPLAYS_AND_THEIR_END = [
    ("admit", LIMITS[1], 0, False, claim("a")),
    ("settle", 0, 0, Keep.STORE, answer(b"kept")),
    ("admit", LIMITS[1], 0, False, claim("a")),
    ("advance", -5 * SECOND),
    *[("admit", LIMITS[1], 0, False, claim("a"))] * 3,
    ("admit", (), 0, False, claim("a")),
    ("advance", MINUTE),
    ("admit", LIMITS[1], 0, False, claim("a")),
    ("advance", 5 * SECOND - 1),
    ("admit", LIMITS[1], 0, False, claim("a")),
    ("advance", 1),
    *[("admit", LIMITS[1], 0, False, claim("a"))] * 3,
]

ADJUSTED = [
    ("admit", LIMITS[1], 40, False, None),
    ("settle", 0, 40, Keep.FREE, None),
    ("adjust", 0, -20, False),
    ("adjust", 0, -20, False),
    ("adjust", 1, -20, True),
    ("adjust", 2, -21, False),
    ("adjust", 3, -20, False),
    ("advance", HOUR),
    ("adjust", 4, 50, True),
    ("lose", 0),
    ("adjust", 5, 1, False),
    ("lose", 31),
    ("adjust", 6, -20, False),
    ("advance", DAY),
    ("advance", DAY),
    ("adjust", 7, 1, False),
]


def test_b1_r1_i5_scripts_decide_as_the_policy_step_by_step(redis_server: RedisServer) -> None:
    """Every answer, reading and event of Redis is the policy's, for any history of steps on one tenant."""
    with asyncio.Runner() as runner:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(steps, max_size=25))
        @example(LATE_SETTLEMENT)
        @example(LOST_AND_PUT_BACK)
        @example(OVER_MIDNIGHT)
        @example(SHARE)
        @example(RENEWED_WITH_THE_CLOCK_BACK)
        @example(KEY_TAKEN_AFTER_A_LOSS)
        @example(RENEWED_AFTER_ITS_TOMBSTONE)
        @example(USAGE_WITH_THE_CLOCK_BACK)
        @example(ADJUSTED)
        @example(REPLAYS_AND_THEIR_END)
        def check(history: list[Any]) -> None:
            runner.run(play(redis_server.url, history))

        check()
