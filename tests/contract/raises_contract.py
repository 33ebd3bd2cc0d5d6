"""What must every store of raised budgets do? A test class inherits `RaisesContract` and gives ``board`` and so on."""

import json
from collections.abc import Awaitable, Callable, Sequence

import attrs
import pytest

from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.ports import EventStream, Raises
from tests.contract.ledger_world import DAY, TENANT, event

FAR = 4_000_000_000 * 1_000_000
ONE = Raise("r1", TENANT, TENANT, "day", Nano(20), FAR, "alice", "a launch")
OTHER = attrs.evolve(ONE, id="r2", scope=f"{TENANT}/batch", amount=Nano(5))
ELSEWHERE = attrs.evolve(ONE, id="r3", tenant="globex", scope="globex")


def told(raised: Raise, action: str = raising.RAISED, name: str | None = None) -> Event:
    """The event of a raise, or of its end."""
    said = {"action": action, "raise": raised.id, **raising.as_decision(raised)}
    return event(name or raised.id, raised.tenant, kind="admin", key_name="", model="", decision=said)


async def events_of(stream: EventStream) -> list[Event]:
    """What was appended."""
    found: list[Event] = []
    while batch := await stream.read(100, 0):
        rows = [json.loads(one.row) for one in batch]
        found += [Event(**{**row, "attempts": ()}) for row in rows]
        await stream.ack(batch)
    return found


Restart = Callable[[Sequence[Event]], Awaitable[Raises]]


@pytest.mark.anyio
class RaisesContract:
    """Made, seen, repeated, ended, lost and found again."""

    async def test_a_raise_is_seen_with_its_event(self, board: Raises, stream: EventStream) -> None:
        """Of its tenant alone; each is one event."""
        for one in (ONE, OTHER, ELSEWHERE):
            assert await board.put(one, told(one))
        assert set(board.of(TENANT)) == {ONE, OTHER}
        assert set(board.all()) == {ONE, OTHER, ELSEWHERE}
        assert board.of("nobody") == ()
        assert sorted(one.id for one in await events_of(stream)) == ["r1", "r2", "r3"]

    async def test_repeated_it_is_one_raise(self, board: Raises, stream: EventStream) -> None:
        """A lost reply, asked again: one raise, one event; also when it was ended in between."""
        assert await board.put(ONE, told(ONE))
        assert not await board.put(ONE, told(ONE))
        assert await board.end(ONE, told(ONE, raising.ENDED, "e1"))
        assert not await board.end(ONE, told(ONE, raising.ENDED, "e2"))
        assert not await board.put(ONE, told(ONE))
        assert board.all() == ()
        assert [one.id for one in await events_of(stream)] == ["r1", "e1"]

    async def test_one_that_ended_early_stays_ended(self, board: Raises, stream: EventStream, restart: Restart) -> None:
        """The store loses everything: the events say what is in force, and what is not any more."""
        for one in (ONE, OTHER):
            await board.put(one, told(one))
        await board.end(ONE, told(ONE, raising.ENDED, "e1"))
        again = await restart(await events_of(stream))
        assert again.all() == (OTHER,)
        assert not await again.put(ONE, told(ONE))

    async def test_limits_are_higher_until_then(self, board: Raises) -> None:
        """Whoever caches limits hears of each change."""
        heard: list[int] = []
        board.on_change = lambda: heard.append(len(board.all()))  # type: ignore[attr-defined]
        await board.put(ONE, told(ONE))
        await board.end(ONE, told(ONE, raising.ENDED, "e1"))
        assert heard == [1, 0]
        assert raising.in_force([ONE], FAR - 1) == (ONE,)
        assert raising.in_force([ONE], FAR) == raising.in_force([ONE], FAR + DAY) == ()
