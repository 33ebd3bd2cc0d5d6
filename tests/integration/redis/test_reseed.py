"""B7: do counters come back from SQL exactly, while calls go on ending?"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import attrs
import pytest

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.counters import RedisCounters
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.adapters.sql import SqlEventStore, migrate
from perpetuo.adapters.sql.database import Database
from perpetuo.adapters.system import RealSystem
from perpetuo.domain.gateway.reseed import Reseeder, windows_of
from perpetuo.domain.model.admission import AdmitRefused, BudgetRefused, Hold
from perpetuo.domain.model.models import ModelTable
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant
from perpetuo.domain.ports import StoreUnavailable, StreamedEvent, WindowSum
from tests.contract.ledger_world import KEEPING, NOON, TENANT, Clock, day, hold, month, request, settlement
from tests.integration.redis.world import RedisWorld
from tests.patience import PATIENCE, best_of
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

LIMITED = Limits(budget_day=Nano(1000))
SETTINGS = Settings(
    providers={},
    models=ModelTable({}),
    tenants={
        TENANT: Tenant(TENANT, "pro", LIMITED, keys=(ApiKey("default", b"1", limits=LIMITED), ApiKey("free", b"2"))),
        "other": Tenant("other", "pro", LIMITED, time_zone="Asia/Tokyo"),
    },
)
BOTH = (day(1000), month(5000))


class Turning(RealSystem):
    """The test's clock; sleeping is a moment in which the test may do something."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.slept: list[float] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    def now_us(self) -> int:
        return self._clock.now_us

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.meanwhile is not None:
            await self.meanwhile()


class Interrupted:
    """SQL, with something happening before or after each step."""

    def __init__(self, store: SqlEventStore) -> None:
        self._store = store
        self.meanwhile: Callable[[str], Awaitable[None]] | None = None

    async def _at(self, moment: str) -> None:
        if self.meanwhile is not None:
            await self.meanwhile(moment)

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        await self._at("before write")
        written = await self._store.write(events)
        await self._at("after write")
        return written

    async def spending(self, days: Sequence[str], months: Sequence[str]) -> Sequence[WindowSum]:
        await self._at("before sums")
        sums = await self._store.spending(days, months)
        await self._at("after sums")
        return sums


@attrs.define
class Stage:
    world: RedisWorld
    store: SqlEventStore
    sql: Interrupted
    system: Turning
    reseeder: Reseeder

    async def drain(self) -> None:
        while batch := await self.world.stream.read(100, 0):
            await self.store.write(batch)
            await self.world.stream.ack(batch)

    async def sums(self) -> dict[tuple[str, str | None, str], int]:
        listed = await self.store.sums(TENANT, ["2025-11-24"], ["2025-11"])
        return {(one.tenant, one.key_name, one.window): one.spent for one in listed}

    async def counted(self) -> list[int]:
        return [read.spent for read in await self.world.ledger.read_budgets(BOTH, TENANT)]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reseed") / "events.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
async def stage(redis_url: str, migrated: Path, tmp_path: Path) -> AsyncIterator[Stage]:
    copy = shutil.copy(migrated, tmp_path / "events.db")
    world = RedisWorld(await RedisStore.connect(redis_url, timeout=PATIENCE))
    store = SqlEventStore(Database(f"sqlite:///{copy}"))
    sql, system = Interrupted(store), Turning(world.clock)
    reseeder = Reseeder(world.counters, sql, sql, lambda: SETTINGS, system)  # type: ignore[arg-type]
    yield Stage(world, store, sql, system, reseeder)
    await world.close()
    await store.close()


async def call(stage: Stage, name: str, charge: int) -> Hold:
    one = await hold(stage.world, request(name, *BOTH, hold=100))
    await stage.world.ledger.settle(settlement(one, charge), KEEPING)
    return one


async def test_b7_the_first_start_on_an_empty_pair_opens_at_once(stage: Stage) -> None:
    """No renewal to wait for: there can be no calls."""
    assert await stage.world.ledger.admit(request("c0", *BOTH, hold=1)) is AdmitRefused.UNSEEDED
    assert await stage.reseeder.open_closed() == keys.SHARDS
    assert stage.system.slept == []
    await hold(stage.world, request("c1", *BOTH, hold=1))
    assert await stage.reseeder.open_closed() == 0


async def test_b7_counters_come_back_from_sql(stage: Stage) -> None:
    """Spent is what SQL says, holds of calls in flight are there again, and the limit holds to the nano."""
    await stage.reseeder.open_closed()
    for n in range(5):
        await call(stage, f"c{n}", 60 + n)
    flying = await hold(stage.world, request("d", *BOTH, hold=100))
    await stage.drain()
    await stage.world.lose_data()

    async def renew() -> None:
        await stage.world.ledger.renew([flying])

    stage.system.meanwhile = renew
    assert await stage.reseeder.open_closed() == keys.SHARDS
    assert len(stage.system.slept) == 1
    (today, _) = await stage.world.ledger.read_budgets(BOTH, TENANT)
    assert (today.spent, today.held) == (310, 100)
    assert isinstance(await stage.world.ledger.admit(request("e", *BOTH, hold=591)), BudgetRefused)
    await hold(stage.world, request("f", *BOTH, hold=590))


@pytest.mark.parametrize("moment", ["sleep", "before write", "after write", "before sums", "after sums"])
async def test_b7_settlements_while_seeding_count_once(stage: Stage, moment: str) -> None:
    """A call that ends at any point of the seeding is in the counter exactly once, and in SQL exactly once."""
    await stage.reseeder.open_closed()
    await call(stage, "c0", 50)
    await stage.drain()
    flying = [await hold(stage.world, request(f"d{n}", *BOTH, hold=100)) for n in range(3)]
    await stage.world.lose_data()
    await stage.world.ledger.renew(flying)
    await stage.world.ledger.settle(settlement(flying.pop(), 7), KEEPING)  # waits in the stream when it begins

    async def end_one(now: str) -> None:
        if now == moment and flying:
            await stage.world.ledger.settle(settlement(flying.pop(), 11), KEEPING)

    stage.sql.meanwhile = end_one
    stage.system.meanwhile = lambda: end_one("sleep")
    assert await stage.reseeder.open_closed() == keys.SHARDS
    assert await stage.counted() == [50 + 7 + 11 * (2 - len(flying))] * 2
    for one in flying:
        await stage.world.ledger.settle(settlement(one, 11), KEEPING)
    await stage.drain()
    expected = 50 + 7 + 22
    assert await stage.counted() == [expected] * 2
    assert (await stage.sums())[TENANT, None, "2025-11-24"] == expected


async def test_b7_nobody_else_moves_events_while_a_shard_is_sealed(stage: Stage) -> None:
    """A relay that waits in Redis gets nothing from a sealed shard, and goes on afterwards."""
    await stage.reseeder.open_closed()
    flying = await hold(stage.world, request("c0", *BOTH, hold=100))
    await stage.world.lose_data()
    reading = asyncio.create_task(stage.world.stream.read(10, PATIENCE))
    await asyncio.sleep(0.1)
    seal = await stage.world.counters.seal(keys.shard_of(TENANT), [])
    assert seal is not None
    await stage.world.ledger.settle(settlement(flying, 9), KEEPING)
    await asyncio.sleep(0.2)
    assert not reading.done()
    assert await stage.world.counters.open(seal, {})
    (entry,) = await reading
    assert entry.revision == 1


async def test_b7_one_worker_seeds_and_a_lost_seal_opens_nothing(stage: Stage) -> None:
    """Two workers at once: one seals. One that was paused beyond its time limit can't open."""
    shard = keys.shard_of(TENANT)
    other = RedisCounters(stage.world.store, stage.world.clock)
    slow = await stage.world.counters.seal(shard, [(TENANT, "2025-11-24")])
    assert slow is not None
    assert await other.seal(shard, []) is None
    await stage.world.store.execute(b"DEL", keys.seeding(keys.shard_prefix(shard)))
    quick = await other.seal(shard, [(TENANT, "2025-11-24")])
    assert quick is not None
    assert await stage.world.counters.sealed_events(slow) is None
    assert not await stage.world.counters.open(slow, {(TENANT, "2025-11-24"): Nano(1)})
    assert await other.open(quick, {(TENANT, "2025-11-24"): Nano(2)})
    assert await other.open(quick, {(TENANT, "2025-11-24"): Nano(2)})  # the reply was lost
    assert (await stage.counted())[0] == 2


async def test_b7_without_sql_budgets_stay_closed_and_say_why(stage: Stage) -> None:
    """Postgres away as well: nothing opens; it does once SQL is back."""

    async def away(moment: str) -> None:
        raise StoreUnavailable("SQL is away")

    stage.sql.meanwhile = away
    with pytest.raises(StoreUnavailable):
        await stage.reseeder.open_closed()
    assert "waiting for SQL" in (stage.world.counters.problem() or "")
    assert await stage.world.ledger.admit(request("c0", *BOTH, hold=1)) is AdmitRefused.UNSEEDED
    stage.sql.meanwhile = None
    assert await stage.reseeder.open_closed() == keys.SHARDS
    await stage.reseeder.open_closed()
    assert stage.world.counters.problem() is None


async def test_b7_opens_within_two_seconds(redis_server: RedisServer, stage: Stage) -> None:
    """With the real clock and the real wait, from the loss to the first admitted call."""
    await stage.reseeder.open_closed()
    await call(stage, "c0", 50)
    await stage.drain()
    real = attrs.evolve(stage.reseeder, system=RealSystem())
    running = asyncio.create_task(real.run())

    async def opened() -> float:
        with redis_server.client() as client:
            client.flushall()
        stage.world.clock.advance(1)
        begun = time.monotonic()
        while await stage.world.ledger.admit(request("c1", *BOTH, hold=1)) is AdmitRefused.UNSEEDED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return time.monotonic() - begun

    await best_of(2.0, opened)
    running.cancel()


def test_b7_every_window_the_clock_may_be_in_is_seeded() -> None:
    """Tenant and all its keys; today and this month in its zone, near a boundary both sides."""
    acme = SETTINGS.tenants[TENANT]
    assert set(windows_of(acme, NOON)) == {
        (scope, window)
        for scope in (TENANT, f"{TENANT}/default", f"{TENANT}/free")
        for window in ("2025-11-24", "2025-11")
    }
    assert {window for _, window in windows_of(SETTINGS.tenants["other"], NOON + 3 * 3_600_000_000)} == {
        "2025-11-24",
        "2025-11-25",
        "2025-11",
    }
