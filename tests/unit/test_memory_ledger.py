"""Does the in-process ledger keep every promise of a ledger, and those of its own?"""

import asyncio
from collections.abc import Sequence

import pytest

from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.domain.model.admission import AdmitRefused, Keep, RateRefused, Replay
from perpetuo.domain.model.money import Nano
from perpetuo.domain.ports import WindowSum
from tests.contract.ledger_contract import LedgerContract
from tests.contract.ledger_world import (
    KEEPING,
    MINUTE,
    SECOND,
    TENANT,
    Clock,
    admitted,
    answer,
    claim,
    day,
    hold,
    money,
    rate,
    request,
    settlement,
)

pytestmark = pytest.mark.anyio


class MemoryWorld:
    """A ledger in this process. Losing its data is being made anew, in another life."""

    def __init__(self, **options: object) -> None:
        self.clock = Clock()
        self.ledger = self.stream = MemoryLedger(self.clock, **options)  # type: ignore[arg-type]

    async def lose_data(self) -> None:
        self.ledger = self.stream = MemoryLedger(self.clock, epoch="another", seeded=False)

    async def seed(self, tenant: str, sums: Sequence[WindowSum]) -> None:
        self.ledger.seed(tenant, sums)


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


class TestMemoryLedger(LedgerContract):
    """The contract, over memory."""


async def test_b7_a_new_process_starts_with_what_sql_has() -> None:
    """Budgets of tenant and key, and the rate log, are those of the process before."""
    world = MemoryWorld(seeded=False)
    batch = f"{TENANT}/batch"
    assert await world.ledger.admit(request("c0", day(100), hold=1)) is AdmitRefused.UNSEEDED
    assert world.ledger.problem() is not None
    sums = [WindowSum(TENANT, key, "2025-11-24", Nano(40)) for key in (None, "batch")]
    world.ledger.seed(TENANT, sums)
    assert world.ledger.problem() is None
    assert await money(world, day(100), day(100, batch)) == [(40, 0), (40, 0)]
    world.ledger.seed_rates(TENANT, [world.clock() - 10 * SECOND, world.clock() - 20 * SECOND])
    assert await world.ledger.admit(request("c1", rate(2))) == RateRefused(TENANT, 2, 40 * SECOND)


async def test_a1_a_durable_settlement_waits_for_sql() -> None:
    """It answers once its event is acknowledged."""
    world = MemoryWorld(durable=True)
    one = await hold(world, request("c0"))
    settling = asyncio.create_task(world.ledger.settle(settlement(one), KEEPING))
    batch = await world.stream.read(10, 5)
    assert not settling.done()
    await world.stream.ack(batch)
    assert not (await settling).repeated


async def test_a1_a_durable_settlement_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQL is away: after the wait the call ends; its event stays in the stream."""
    monkeypatch.setattr("perpetuo.adapters.memory.ledger.DURABLE_WAIT", 0.01)
    world = MemoryWorld(durable=True)
    await world.ledger.settle(settlement(await hold(world, request("c0"))), KEEPING)
    assert await world.stream.backlog() == 1


async def test_a2_unacknowledged_events_are_handed_out_again() -> None:
    """Who read them may have died: after 1 s they go to the next reader, not before."""
    world = MemoryWorld()
    await world.ledger.settle(settlement(await hold(world, request("c0"))), KEEPING)
    first = await world.stream.read(10, 0)
    world.clock.advance(SECOND)
    assert await world.stream.read(10, 0) == []
    world.clock.advance(1)
    assert await world.stream.read(10, 0) == first


async def test_a2_a_reader_is_woken_by_the_first_event() -> None:
    """Reading waits for an event, and no longer than asked."""
    world = MemoryWorld()
    assert await world.stream.read(10, 0.001) == []
    reading = asyncio.create_task(world.stream.read(10, 5))
    await world.ledger.settle(settlement(await hold(world, request("c0"))), KEEPING)
    assert len(await reading) == 1


async def test_a3_no_room_for_events_closes_admission() -> None:
    """Never silent loss: refused until SQL has taken some; calls in flight still settle."""
    world = MemoryWorld(max_backlog=1)
    one, two = await hold(world, request("c0")), await hold(world, request("c1"))
    await world.ledger.settle(settlement(one), KEEPING)
    assert await world.ledger.admit(request("c2")) is AdmitRefused.NO_ROOM
    assert world.ledger.problem() is not None
    await world.ledger.settle(settlement(two), KEEPING)
    await world.stream.ack(await world.stream.read(10, 0))
    await admitted(world, request("c2"))


async def test_i9_a_full_store_keeps_no_further_answers() -> None:
    """Over the process's own share: not stored, and said so; room again when answers expire."""
    world = MemoryWorld(max_kept=5)
    one = await hold(world, request("c0", claim=claim("a", ttl_us=MINUTE)))
    assert (await world.ledger.settle(settlement(one, 0, Keep.STORE, answer(b"12345")), KEEPING)).stored
    assert not world.ledger.accepts_answers()
    two = await hold(world, request("c1", claim=claim("b")))
    assert not (await world.ledger.settle(settlement(two, 0, Keep.STORE, answer(b"")), KEEPING)).stored
    world.clock.advance(MINUTE)
    await admitted(world, request("c2"))
    assert world.ledger.accepts_answers()


async def test_o4_nothing_is_left_of_calls_long_over() -> None:
    """Records, keys and windows go when their time is over: memory does not grow with calls."""
    world = MemoryWorld()
    for n in range(20):
        one = await hold(world, request(f"c{n}", day(100), hold=1, claim=claim(str(n), ttl_us=MINUTE)))
        await world.ledger.settle(settlement(one, 1, Keep.STORE, answer()), KEEPING)
    assert isinstance(await world.ledger.admit(request("again", claim=claim("0", ttl_us=MINUTE), replays=1)), Replay)
    await world.stream.ack(await world.stream.read(100, 0))
    world.clock.advance(5 * 24 * 60 * MINUTE)
    assert await world.ledger.admit(request("last", rate(0))) == RateRefused(TENANT, 0, MINUTE)
    left = {name: len(value) for name, value in vars(world.ledger).items() if isinstance(value, dict | list)}
    assert set(left.values()) <= {0, 1}, left  # the tenant's byte count stays, at 0
