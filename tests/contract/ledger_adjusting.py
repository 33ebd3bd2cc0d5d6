"""What must every ledger do when an operator adjusts what was spent?"""

from collections.abc import Sequence

import attrs
import pytest

from perpetuo.domain.model.admission import AdmitRefused, BudgetRefused
from perpetuo.domain.model.budgets import AdjustDecision, Adjusted, Uncovered
from perpetuo.domain.policy.budget import MOST_CHARGED
from tests.contract.ledger_world import (
    DAY,
    HOUR,
    KEEPING,
    MIDNIGHT,
    NOON,
    SECOND,
    TENANT,
    World,
    adjustment,
    admitted,
    day,
    hold,
    money,
    month,
    request,
    rows,
    settlement,
)

KEY = f"{TENANT}/batch"
BOTH = (day(100), month(None))
ALL = (*BOTH, day(None, KEY), month(None, KEY))


async def spend(world: World, charge: int, name: str = "c0") -> None:
    await world.ledger.settle(settlement(await hold(world, request(name, *BOTH, hold=charge)), charge), KEEPING)


def money_of(decided: AdjustDecision) -> Sequence[tuple[str, int, int]]:
    assert isinstance(decided, Adjusted), decided
    return [(read.window, read.spent, read.held) for read in decided.budgets]


@pytest.mark.anyio
class AdjustingContract:
    """B1, B7, A1 under adjustments."""

    async def test_b7_an_adjustment_changes_counters_and_leaves_a_row(self, world: World) -> None:
        """Day and month, with what calls hold untouched; counter = sum of the events, and there is room again."""
        await spend(world, 90)
        await hold(world, request("c1", *BOTH, hold=10))
        refused = await world.ledger.admit(request("c2", *BOTH, hold=20))
        assert isinstance(refused, BudgetRefused)
        decided = await world.ledger.adjust(adjustment("a", -20, *BOTH))
        assert money_of(decided) == [("2025-11-24", 70, 10), ("2025-11", 70, 10)]
        assert await money(world, *BOTH) == [(70, 10), (70, 10)]
        await admitted(world, request("c3", *BOTH, hold=20))
        found = await rows(world)
        assert sum(row.cost for row in found.values()) == 70
        assert (found["a"].cost, found["a"].budget_day, found["a"].revision) == (-20, "2025-11-24", 1)

    async def test_b7_an_adjustment_of_a_key_is_its_tenant_s_too(self, world: World) -> None:
        """All four windows or none: the key has spent nothing, so nothing can be taken off, from the tenant neither."""
        await spend(world, 50)
        refused = await world.ledger.adjust(adjustment("a", -10, *ALL))
        assert isinstance(refused, Uncovered)
        assert (refused.reading.scope, refused.reading.spent) == (KEY, 0)
        assert await money(world, *ALL) == [(50, 0), (50, 0), (0, 0), (0, 0)]
        await world.ledger.adjust(adjustment("b", 10, *ALL))
        assert await money(world, *ALL) == [(60, 0), (60, 0), (10, 0), (10, 0)]

    async def test_b1_never_below_zero_to_the_nano(self, world: World) -> None:
        """What is there can be taken off, one nano more can't; nothing is recorded then. Held money is not spent."""
        await spend(world, 50)
        await hold(world, request("c1", *BOTH, hold=30))
        await rows(world)
        refused = await world.ledger.adjust(adjustment("a", -51, *BOTH))
        assert isinstance(refused, Uncovered)
        assert (refused.reading.period, refused.reading.spent, refused.reading.held) == ("day", 50, 30)
        assert await rows(world) == {}
        await world.ledger.adjust(adjustment("a", -50, *BOTH))
        assert await money(world, *BOTH) == [(0, 30), (0, 30)]

    async def test_b1_never_beyond_what_a_counter_holds(self, world: World) -> None:
        """To the nano, so that no sum ever rounds."""
        await world.ledger.adjust(adjustment("a", MOST_CHARGED, *BOTH))
        assert isinstance(await world.ledger.adjust(adjustment("b", 1, *BOTH)), Uncovered)
        assert await money(world, *BOTH) == [(MOST_CHARGED, 0)] * 2

    async def test_a1_repeated_it_changes_nothing(self, world: World) -> None:
        """A lost reply is asked again, an hour later too: one change, one row, and how money stands now."""
        await spend(world, 50)
        asked = adjustment("a", -10, *BOTH)
        assert not attrs.evolve(await world.ledger.adjust(asked)).repeated  # type: ignore[union-attr, misc]
        await spend(world, 5, "c1")
        world.clock.advance(HOUR)
        decided = await world.ledger.adjust(asked)
        assert isinstance(decided, Adjusted)
        assert decided.repeated
        assert [read.spent for read in decided.budgets] == [45, 45]
        assert list(await rows(world)) == ["c0", "a", "c1"]

    async def test_a1_an_adjustment_is_no_call(self, world: World) -> None:
        """Its id is remembered under a name of its own: a call with that id is admitted as any."""
        await world.ledger.adjust(adjustment("a", 10, *BOTH))
        await admitted(world, request("a", *BOTH, hold=10))

    async def test_b6_yesterday_is_adjusted_while_its_counter_is_there(self, world: World) -> None:
        """For 48 h after its end; then only the month, and a window nobody used is not made after its end."""
        await spend(world, 50)
        world.clock.now_us = MIDNIGHT + HOUR
        decided = await world.ledger.adjust(adjustment("a", -10, *BOTH, at_us=NOON))
        assert money_of(decided) == [("2025-11-24", 40, 0), ("2025-11", 40, 0)]
        assert await money(world, *BOTH) == [(0, 0), (40, 0)]
        unused = adjustment("b", 5, day(None, KEY), month(None), at_us=NOON)
        assert money_of(await world.ledger.adjust(unused)) == [("2025-11", 45, 0)]
        world.clock.now_us = MIDNIGHT + 2 * DAY
        assert money_of(await world.ledger.adjust(adjustment("d", -5, *BOTH, at_us=NOON))) == [("2025-11", 40, 0)]

    async def test_b7_no_adjustment_of_counters_that_were_lost(self, world: World) -> None:
        """Before SQL has told what was spent nothing is changed; afterwards it is, on top of that."""
        await world.lose_data()
        asked = adjustment("a", 10, *BOTH)
        assert await world.ledger.adjust(asked) is AdmitRefused.UNSEEDED
        assert await rows(world) == {}
        await world.seed(TENANT, [])
        world.clock.advance(SECOND)
        assert money_of(await world.ledger.adjust(asked)) == [("2025-11-24", 10, 0), ("2025-11", 10, 0)]
