"""Breakers on a real Redis: the contract, the script against the policy step by step, and two workers at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis as redis_py
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from perpetuo.adapters.redis import breakers, keys, scripts
from perpetuo.adapters.redis.breakers import RedisBreakerBoard, parse
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy import breaker as policy
from perpetuo.domain.policy.breaker import (
    Breaker,
    BreakerPhase,
    BreakerReading,
    Closed,
    Delta,
    HalfOpen,
    Key,
    Open,
    Verdict,
)
from perpetuo.domain.ports import StoreUnavailable
from tests.contract.breaker_contract import POLICIES, BreakerContract, Clock, World
from tests.patience import PATIENCE, best_of
from tests.servers import RedisServer

HALF_A_SECOND = 0.5
"""Within which all workers know (C1, C4)."""
HAND_SET_US = 30_000_000
NO_END = -1
"""What PTTL says of a key that stays for ever."""


async def until(holds: Callable[[], bool]) -> float:
    """Wait until it holds; how long that took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < PATIENCE
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


@pytest.mark.anyio
class TestRedisBreakerBoard(BreakerContract):
    @pytest.fixture
    async def world(self, redis_url: str) -> AsyncIterator[World]:
        clock, changes = Clock(), list[BreakerReading]()
        store = await RedisStore.connect(redis_url, timeout=PATIENCE)
        board = RedisBreakerBoard(store, POLICIES, clock=clock, on_change=changes.append)

        async def settled() -> None:
            await asyncio.gather(*board._judging)
            await board.refresh(everything=True)

        yield World(board, clock, settled, changes)
        await store.close()


# --- the script is the policy --------------------------------------------------------------------

RULES = BreakerPolicy(minimum_calls=6, consecutive_connect_failures=3)
CALLS = st.sampled_from(["a", "b", "c"])


class ScriptAgainstPolicy(RuleBasedStateMachine):
    """The same history goes to ``breaker.lua`` and to the pure policy; they agree after every step."""

    client: redis_py.Redis
    body = scripts.load("breaker").body

    @initialize()
    def begin(self) -> None:
        self.client.flushdb()
        self.now = Clock().now_us
        self.model: Breaker = Closed()
        self.key = Key.AS_LEFT
        self.deltas = 0
        self.names = (keys.breaker("p"), keys.breaker_state("p"), keys.breaker_history("p"))
        self.script = self.client.register_script(self.body)

    def step(self, name: str, *arguments: Any) -> bool:
        reply: Any = self.script(keys=self.names, args=(self.now, name, *arguments))
        answer = parse(reply, self.now)
        model = self.model
        assert policy.view(answer.breaker) == policy.view(model)
        assert answer.breaker.since == model.since
        if isinstance(model, HalfOpen):
            assert answer.breaker == model
        if isinstance(model, Closed):
            buckets = b" ".join(b"%d:%d:%d" % (b.number, b.outcomes, b.failures) for b in model.tally.buckets)
            assert (answer.buckets, answer.streak) == (buckets, model.tally.streak)
        exists = bool(self.client.exists(self.names[0]))
        assert exists == isinstance(model, Open) or isinstance(model, HalfOpen)  # there under the test's clock only
        by_hand = isinstance(model, Open) and model.by_hand
        assert self.client.pttl(self.names[0]) != NO_END or by_hand
        assert self.client.pttl(self.names[1]) != NO_END
        return answer.granted

    def see(self) -> Breaker:
        seen = policy.seen(self.model, self.now, self.key, self.now + HAND_SET_US)
        if self.key is Key.DELETED:
            self.key = Key.AS_LEFT
        return seen

    @rule(us=st.sampled_from([1, 400_000, 500_000, 9_999_999, 10_000_000, 29_999_999, 30_000_000]))
    def time_passes(self, us: int) -> None:
        self.now += us

    @rule()
    def look(self) -> None:
        self.model = self.see()
        self.step("see")

    @rule(
        faults=st.lists(st.sampled_from([None, Fault.CONNECT, Fault.RESET]), min_size=1, max_size=8),
        stale=st.booleans(),
    )
    def results(self, faults: list[Fault | None], stale: bool) -> None:
        delta = Delta()
        for fault in faults:
            delta = delta.plus(fault)
        self.model = self.see()
        generation = self.model.since.generation - stale
        self.model = policy.count(self.model, delta, generation, RULES, self.now)
        self.deltas += 1
        for _ in range(2):  # the second one is a repeat after a lost reply
            self.step(
                "count", generation, delta.outcomes, delta.failures, int(delta.connected), delta.streak,
                RULES.failure_rate, RULES.minimum_calls, RULES.window_us, RULES.consecutive_connect_failures,
                RULES.open_us, f"delta-{self.deltas}",
            )  # fmt: skip

    @rule(call=CALLS)
    def asks_to_probe(self, call: str) -> None:
        granted, self.model = policy.ask_probe(self.see(), call, RULES, self.now)
        assert self.step("probe", call, RULES.probe_lease_us) == granted

    @rule(call=CALLS, found=st.sampled_from(Verdict), stale=st.booleans())
    def verdict(self, call: str, found: Verdict, stale: bool) -> None:
        seen = self.see()
        generation = seen.since.generation - stale
        self.model = policy.judge(seen, call, generation, found, RULES, self.now)
        self.step("judge", call, generation, found.value, RULES.open_us)

    @rule(open_for=st.sampled_from([None, 5_000_000]))
    def operator_forces(self, open_for: int | None) -> None:
        self.model = policy.force(self.see(), open_for, self.now)
        self.key = Key.AS_LEFT
        self.step(*(("close",) if open_for is None else ("open", open_for)))

    @rule()
    def operator_deletes_the_key(self) -> None:
        self.client.delete(self.names[0])
        ours = isinstance(self.model, Open) and not self.model.by_hand and self.key is Key.AS_LEFT
        self.key = Key.DELETED if ours or self.key is Key.DELETED else Key.AS_LEFT
        if isinstance(self.model, Open) and not self.model.by_hand and not ours:
            self.key = Key.DELETED  # set by hand over ours, and gone before anybody looked

    @precondition(lambda self: self.key is not Key.BY_HAND)
    @rule(value=st.sampled_from(["1", ""]), as_list=st.booleans())
    def operator_sets_the_key(self, value: str, as_list: bool) -> None:
        self.client.delete(self.names[0])
        if as_list:
            self.client.rpush(self.names[0], value)
        else:
            self.client.set(self.names[0], value)
        self.key = Key.BY_HAND


def test_c3_the_script_does_what_the_policy_says(redis_url: str) -> None:
    """Random histories of results, probes, verdicts, time and operators' hands."""
    with redis_py.Redis.from_url(redis_url) as client:
        machine = type("Machine", (ScriptAgainstPolicy,), {"client": client})
        run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))


# --- two workers ---------------------------------------------------------------------------------


@asynccontextmanager
async def worker(url: str, **rules: Any) -> AsyncIterator[RedisBreakerBoard]:
    """A worker's board, on connections of its own and on the real clock."""
    store = await RedisStore.connect(url, timeout=PATIENCE)  # a busy machine may take longer than the usual 100 ms
    board = RedisBreakerBoard(store, {"openai": BreakerPolicy(**rules)})
    await board.start()
    yield board
    await board.close()
    await store.close()


def is_(board: RedisBreakerBoard, phase: BreakerPhase) -> Callable[[], bool]:
    return lambda: board.view("openai").phase is phase


def fail(board: RedisBreakerBoard, times: int = 5) -> None:
    generation = board.view("openai").generation
    for _ in range(times):
        board.record("openai", Fault.CONNECT, generation=generation, probe=None)


@pytest.mark.anyio
async def test_c1_opens_on_all_workers_within_half_a_second(redis_url: str) -> None:
    """Failures seen by one worker, and counts that only add up over both."""

    async def known() -> float:
        await one.force("openai", open_for_us=None)
        await two.refresh()
        fail(one, 3)
        await asyncio.sleep(0.1)
        fail(two, 2)
        return await until(lambda: not any(is_(board, BreakerPhase.CLOSED)() for board in (one, two)))

    async with worker(redis_url, open_us=200_000) as one, worker(redis_url, open_us=200_000) as two:
        await best_of(HALF_A_SECOND, known)
        await until(is_(one, BreakerPhase.HALF_OPEN))


@pytest.mark.anyio
async def test_c3_one_probe_in_the_cluster(redis_url: str) -> None:
    """Fifty askers over two workers at once; then its verdict closes both, after which all may go."""
    async with worker(redis_url, open_us=100_000) as one, worker(redis_url, open_us=100_000) as two:
        boards = (one, two)
        fail(one)
        for board in boards:
            await until(is_(board, BreakerPhase.HALF_OPEN))
        granted = await asyncio.gather(*(boards[n % 2].try_probe("openai", f"call-{n}") for n in range(50)))
        assert granted.count(True) == 1
        winner = granted.index(True)
        boards[winner % 2].record("openai", None, generation=1, probe=f"call-{winner}")
        for board in boards:
            await until(is_(board, BreakerPhase.CLOSED))


@pytest.mark.anyio
async def test_c4_deleting_the_key_closes_everywhere(redis_url: str) -> None:
    """And results of calls from before do not reopen it."""

    async def closed() -> float:
        fail(one)
        await until(is_(two, BreakerPhase.OPEN))
        operator.delete("perpetuo:cb:openai")
        return await until(lambda: all(is_(board, BreakerPhase.CLOSED)() for board in (one, two)))

    with redis_py.Redis.from_url(redis_url) as operator:
        async with worker(redis_url) as one, worker(redis_url) as two:
            fail(one)
            await until(is_(two, BreakerPhase.OPEN))
            assert 0 < int(str(operator.pttl("perpetuo:cb:openai"))) <= 30_001
            await best_of(HALF_A_SECOND, closed)
            generation = one.view("openai").generation
            one.record("openai", Fault.CONNECT, generation=0, probe=None)
            assert (one.view("openai").generation, generation % 2) == (generation, 0)


@pytest.mark.anyio
async def test_c4_a_key_set_by_hand_opens_everywhere_until_it_goes(redis_url: str) -> None:
    """With a TTL that is the time shown; afterwards closed, without a probe."""
    async with worker(redis_url) as one, worker(redis_url) as two:
        with redis_py.Redis.from_url(redis_url) as operator:
            operator.set("perpetuo:cb:openai", "maintenance", px=300_000)
            for board in (one, two):
                await until(is_(board, BreakerPhase.OPEN))
            left = one.view("openai").until_us - time.time_ns() // 1_000
            assert 0 < left <= 300_000_000
            operator.pexpire("perpetuo:cb:openai", 100)
            for board in (one, two):
                await until(is_(board, BreakerPhase.CLOSED))


@pytest.mark.anyio
async def test_failures_do_not_wait_for_the_next_poll(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wake the task that shares them."""
    monkeypatch.setattr(breakers, "POLL_SECONDS", 60.0)
    async with worker(redis_url) as one:
        fail(one)
        await until(is_(one, BreakerPhase.OPEN))


@pytest.mark.anyio
async def test_who_looks_again_knows_what_others_have_done(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the next poll; pages of operators do so."""
    monkeypatch.setattr(breakers, "POLL_SECONDS", 60.0)
    async with worker(redis_url) as one, worker(redis_url) as two:
        await one.force("openai", open_for_us=60_000_000)
        assert two.view("openai").phase is BreakerPhase.CLOSED
        await two.refresh()
        assert two.view("openai").phase is BreakerPhase.OPEN


@pytest.mark.anyio
async def test_successes_are_shared_too(redis_url: str) -> None:
    """Within a quarter of a second and a poll the other worker's page shows them."""
    async with worker(redis_url) as one, worker(redis_url) as two:
        for _ in range(7):
            one.record("openai", None, generation=0, probe=None)
        await until(lambda: two.all_views()[0].outcomes == 7)


# --- Redis away ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_with_redis_away_a_worker_decides_by_its_own_counts(
    new_redis_server: Callable[..., RedisServer],
) -> None:
    """What it counted before the outage counts on; when Redis is back, its breaker holds again."""
    server = new_redis_server()
    async with worker(server.url, open_us=300_000) as board:
        fail(board, 3)
        await asyncio.sleep(0.15)
        await asyncio.to_thread(server.kill)
        fail(board, 2)
        await until(is_(board, BreakerPhase.HALF_OPEN))
        assert await board.try_probe("openai", "a")
        assert not await board.try_probe("openai", "b")
        board.record("openai", Fault.TIMEOUT, generation=1, probe="a")
        await until(lambda: board.view("openai").generation == 2)
        with pytest.raises(StoreUnavailable):
            await board.force("openai", open_for_us=None)
        assert is_(board, BreakerPhase.CLOSED)()
        fail(board)
        assert not is_(board, BreakerPhase.CLOSED)()
        await asyncio.to_thread(server.start)
        await until(is_(board, BreakerPhase.CLOSED))


@pytest.mark.anyio
async def test_a_script_that_redis_refuses_is_reported_once(redis_url: str) -> None:
    """A companion of another type: own counts decide, and the operator is told what Redis said."""
    with redis_py.Redis.from_url(redis_url) as client:
        client.set(keys.breaker_state("openai"), "broken")
    said: list[str] = []
    store = await RedisStore.connect(redis_url, timeout=PATIENCE)
    board = RedisBreakerBoard(store, {"openai": BreakerPolicy()}, on_error=said.append)
    await board.start()
    await board.refresh()
    fail(board)
    assert is_(board, BreakerPhase.OPEN)()
    assert len(said) == 1
    assert "WRONGTYPE" in said[0]
    await board.close()
    await store.close()


@pytest.mark.anyio
async def test_a_history_of_another_type_costs_the_history_alone(redis_url: str) -> None:
    """An operator was creative with a key: the breaker works on, and looking says what is wrong."""
    with redis_py.Redis.from_url(redis_url) as client:
        client.set(keys.breaker_history("openai"), "mine")
    async with worker(redis_url) as board:
        await board.force("openai", open_for_us=60_000_000)
        assert is_(board, BreakerPhase.OPEN)()
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await board.history("openai")


@pytest.mark.anyio
async def test_every_worker_sees_the_same_history(redis_url: str) -> None:
    """It is written in the step that changes the breaker, so there is one for all, and one line for a change."""
    async with worker(redis_url) as one, worker(redis_url) as two:
        fail(one)
        await until(is_(two, BreakerPhase.OPEN))
        await two.force("openai", open_for_us=None)
        seen = await one.history("openai")
        assert [(c.phase.value, c.cause.value) for c in seen] == [("closed", "operator"), ("open", "connect_failures")]
        assert list(await two.history("openai")) == list(seen)
