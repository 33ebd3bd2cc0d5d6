"""Do all workers know of raised budgets, whatever happens to Redis and SQL?"""

from collections.abc import AsyncIterator, Sequence

import attrs
import pytest

from perpetuo.adapters.redis import keys
from perpetuo.adapters.redis.raises import RedisRaises
from perpetuo.adapters.redis.store import RedisStore
from perpetuo.adapters.redis.stream import RedisEventStream
from perpetuo.adapters.system import RealSystem
from perpetuo.adapters.telemetry.cells import Cells
from perpetuo.adapters.telemetry.journal import TelemetryJournal
from perpetuo.adapters.telemetry.logs import open_log
from perpetuo.adapters.telemetry.metrics import Labels, Metrics
from perpetuo.domain.gateway.budgets import Operation, Raised, end_raise
from perpetuo.domain.gateway.operate import Actor
from perpetuo.domain.model.budgets import PastRaises
from perpetuo.domain.model.events import Event
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.ports import StoreUnavailable
from tests.contract.ledger_world import TENANT
from tests.contract.raises_contract import ELSEWHERE, FAR, ONE, OTHER, RaisesContract, Restart, told
from tests.integration.redis.world import RedisWorld
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


class Sql:
    """The events SQL has; it may be away."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.away = False
        self.asked = 0

    async def past(self) -> PastRaises:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("SQL is away")
        return raising.past(self.events)


@pytest.fixture
def sql() -> Sql:
    return Sql()


@pytest.fixture
async def board(world: RedisWorld, sql: Sql) -> RedisRaises:
    made = RedisRaises(world.store, sql.past)
    await made.refresh()
    return made


@pytest.fixture
async def other_worker(redis_url: str, board: RedisRaises, sql: Sql) -> AsyncIterator[RedisRaises]:
    store = await RedisStore.connect(redis_url, timeout=PATIENCE)
    yield RedisRaises(store, sql.past)
    await store.close()


class TestRedisRaises(RaisesContract):
    """The contract, over a real Redis that may lose everything."""

    @pytest.fixture
    def stream(self, world: RedisWorld) -> RedisEventStream:
        return world.stream

    @pytest.fixture
    def restart(self, world: RedisWorld, sql: Sql) -> Restart:
        async def again(events: Sequence[Event]) -> RedisRaises:
            sql.events += events
            await world.lose_data()
            made = RedisRaises(world.store, sql.past)
            await made.refresh()
            return made

        return again


async def test_b1_another_worker_sees_a_raise_at_its_next_look(board: RedisRaises, other_worker: RedisRaises) -> None:
    """And its end; a look at what has not changed reads versions only."""
    await other_worker.refresh()
    await board.put(ONE, told(ONE))
    await other_worker.refresh()
    assert other_worker.of(TENANT) == (ONE,)
    await board.end(ONE, told(ONE, raising.ENDED, "e1"))
    await other_worker.refresh()
    assert other_worker.of(TENANT) == ()


async def test_sql_is_asked_once_a_life_of_redis(board: RedisRaises, sql: Sql) -> None:
    """Not at every look, and not by those who come later."""
    await board.put(ONE, told(ONE))
    for _ in range(3):
        await board.refresh()
    assert sql.asked == 1


async def test_b7_raises_come_back_when_redis_lost_its_data(board: RedisRaises, world: RedisWorld, sql: Sql) -> None:
    """From SQL, and from what this worker knew when the event was lost with Redis; all workers see them then."""
    await board.put(ONE, told(ONE))
    sql.events = [told(ELSEWHERE)]
    await world.lose_data()
    await board.refresh()
    assert set(board.all()) == {ONE, ELSEWHERE}
    assert await world.store.execute(b"HEXISTS", keys.raises(keys.prefix_of(TENANT)), ONE.id) == 1


async def test_b7_without_sql_what_is_known_goes_on(board: RedisRaises, world: RedisWorld, sql: Sql) -> None:
    """Redis empty and SQL away: raises stay in force here, further ones are made; SQL's come when it is back."""
    await board.put(ONE, told(ONE))
    await world.lose_data()
    sql.away, sql.events = True, [told(ELSEWHERE)]
    await board.refresh()
    assert board.all() == (ONE,)
    await board.put(OTHER, told(OTHER))
    assert set(board.all()) == {ONE, OTHER}
    await board.end(OTHER, told(OTHER, raising.ENDED, "e1"))
    assert board.all() == (ONE,)
    sql.away = False
    board._ask_sql_at = 0.0  # its pause is over
    await board.refresh()
    assert set(board.all()) == {ONE, ELSEWHERE}


async def test_raises_long_over_are_forgotten(board: RedisRaises, world: RedisWorld) -> None:
    """The hash does not grow with the years."""
    old = attrs.evolve(ONE, id="old", until_us=1_000_000)
    await board.put(old, told(old))
    await board.put(attrs.evolve(ONE, until_us=FAR), told(ONE))
    fields = await world.store.execute(b"HKEYS", keys.raises(keys.prefix_of(TENANT)))
    assert sorted(fields) == [b"r1", b"v"]


async def test_a_raise_can_be_ended_at_once_through_another_worker(
    board: RedisRaises, other_worker: RedisRaises
) -> None:
    """It has not looked since the raise was made."""
    await other_worker.refresh()
    await board.put(ONE, told(ONE))
    system = RealSystem()
    metrics = Metrics(Cells.in_process(), Labels.of((), (), ()))
    journal = TelemetryJournal(open_log("error", "json"), metrics, system.monotonic, lambda _: None)
    asked = Operation(system.new_id(), Actor("alice", "r-1", None), "over")
    assert await end_raise(other_worker, journal, system, asked, ONE.id) == Raised(ONE, repeated=False)
