"""
What must every ledger refuse, and when exactly? Scripted traces for rate, concurrency and budgets.

The comments name the planted bugs that a trace was written for.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from perpetuo.domain.model.admission import (
    LEASE_US,
    AdmitRefused,
    AdmitRequest,
    BudgetRefused,
    ConcurrencyRefused,
    Extended,
    RateRefused,
)
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.tenants import ApiKey, Caller, Limits, Tenant
from perpetuo.domain.policy.windows import limits_of
from tests.contract.ledger_world import (
    DAY,
    HOUR,
    KEEPING,
    MIDNIGHT,
    MINUTE,
    NOON,
    SECOND,
    TENANT,
    World,
    admitted,
    at_once,
    claim,
    day,
    hold,
    keep_alive,
    money,
    month,
    rate,
    request,
    settlement,
)

NO_LIMITS = Limits()
BERLINER = Caller(
    Tenant(TENANT, "pro", Limits(budget_day=Nano(100)), time_zone="Europe/Berlin"), ApiKey("default", b"")
)


def caller_of(key: str, limits: Limits = NO_LIMITS) -> Caller:
    """A key of a tenant without a budget."""
    return Caller(Tenant(TENANT, "pro", NO_LIMITS), ApiKey(key, b"", limits=limits))


class RateContract:
    """R1 to R3: exact limits over any minute."""

    async def test_r1_never_more_than_the_limit_in_a_minute(self, world: World) -> None:
        """The limit-th call is admitted, the next one is not, not even 1 µs before the first leaves."""
        for n in range(3):
            await admitted(world, request(f"c{n}", rate(3)))
            world.clock.advance(SECOND)
        world.clock.advance(MINUTE - 3 * SECOND - 1)
        assert await world.ledger.admit(request("d", rate(3))) == RateRefused(TENANT, 3, 1)

    async def test_r2_waiting_exactly_as_told_admits(self, world: World) -> None:
        """An entry one window old has left (≥ for > fails here), and its slot is only one."""
        for n in range(2):
            await admitted(world, request(f"c{n}", rate(2)))
            world.clock.advance(10 * SECOND)
        refused = await world.ledger.admit(request("d", rate(2)))
        assert refused == RateRefused(TENANT, 2, 40 * SECOND)
        world.clock.advance(40 * SECOND)
        await admitted(world, request("e", rate(2)))
        assert await world.ledger.admit(request("f", rate(2))) == RateRefused(TENANT, 2, 10 * SECOND)

    async def test_r2_the_reading_tells_what_remains(self, world: World) -> None:
        """``remaining`` counts the call itself; all is free again one window after it."""
        for left in (2, 1, 0):
            (reading,) = (await admitted(world, request(f"c{left}", rate(3)))).rates
            assert (reading.scope, reading.limit, reading.remaining, reading.reset_us) == (TENANT, 3, left, MINUTE)
            world.clock.advance(SECOND)

    async def test_r3_a_refusal_does_not_count(self, world: World) -> None:
        """Refused calls take no slot of the rate, in no scope, and keep no key and no money."""
        batch = f"{TENANT}/batch"
        await admitted(world, request("c0", rate(1, batch)))
        both = (rate(9), rate(1, batch), at_once(9), day(100))
        assert isinstance(await world.ledger.admit(request("c1", *both, hold=10, claim=claim())), RateRefused)
        (usage,) = await world.ledger.read_usage(TENANT, [TENANT])
        assert (usage.admitted_last_minute, usage.in_flight) == (0, 0)
        assert await money(world, day(100)) == [(0, 0)]
        await admitted(world, request("c2", claim=claim(fingerprint="other")))  # claim kept at a refusal

    async def test_r3_a_call_without_money_uses_no_slot(self, world: World) -> None:
        """Refused for its budget: the one slot of the minute and the one place are still there."""
        limits = (rate(1), at_once(1), day(10))
        assert isinstance(await world.ledger.admit(request("c0", *limits, hold=11)), BudgetRefused)
        await admitted(world, request("c1", *limits, hold=10))

    async def test_r3_the_longest_wait_is_named(self, world: World) -> None:
        """Of two refusing limits the client is told the one to wait for."""
        batch = f"{TENANT}/batch"
        await admitted(world, request("c0", rate(1)))
        world.clock.advance(SECOND)
        await admitted(world, request("c1", rate(1, batch)))
        refused = await world.ledger.admit(request("c2", rate(1), rate(1, batch)))
        assert refused == RateRefused(batch, 1, MINUTE)

    async def test_r1_survives_a_clock_that_goes_back(self, world: World) -> None:
        """The log does not go back with the clock; the wait is counted on the clock as it is."""
        await admitted(world, request("c0", rate(2)))
        world.clock.advance(-10 * SECOND)
        assert (await hold(world, request("c1", rate(2)))).at_us == NOON
        assert await world.ledger.admit(request("c2", rate(2))) == RateRefused(TENANT, 2, MINUTE + 10 * SECOND)
        world.clock.advance(MINUTE + 10 * SECOND)
        await admitted(world, request("c3", rate(2)))

    async def test_r1_a_changed_limit_is_exact_at_once(self, world: World) -> None:
        """Lowered: refused until few enough are left. Raised: exactly the difference is admitted."""
        for n in range(3):
            await admitted(world, request(f"c{n}", rate(3)))
            world.clock.advance(SECOND)
        assert await world.ledger.admit(request("d0", rate(1))) == RateRefused(TENANT, 1, MINUTE - SECOND)
        for n in range(2):
            await admitted(world, request(f"e{n}", rate(5)))
        assert isinstance(await world.ledger.admit(request("f0", rate(5))), RateRefused)

    async def test_r3_a_cancelled_call_gives_its_slot_back(self, world: World) -> None:
        """A call whose admission got lost costs nothing of the rate; and only one slot comes back."""
        first = request("c0", rate(2))
        await admitted(world, first)
        await admitted(world, request("c1", rate(2)))
        await world.ledger.cancel(first)
        await world.ledger.cancel(first)
        await admitted(world, request("c2", rate(2)))
        assert isinstance(await world.ledger.admit(request("c3", rate(2))), RateRefused)

    async def test_r1_usage_tells_the_last_minute(self, world: World) -> None:
        """Counts admissions of the minute, and when the oldest leaves."""
        for _ in range(2):
            await admitted(world, request(f"c{world.clock.now_us}", rate(5), at_once(5)))
            world.clock.advance(20 * SECOND)
        (usage,) = await world.ledger.read_usage(TENANT, [TENANT])
        assert (usage.scope, usage.admitted_last_minute, usage.oldest_leaves_us) == (TENANT, 2, 20 * SECOND)
        world.clock.advance(20 * SECOND)
        (usage,) = await world.ledger.read_usage(TENANT, [TENANT])
        assert (usage.admitted_last_minute, usage.oldest_leaves_us) == (1, 20 * SECOND)


class ConcurrencyContract:
    """Calls at once, counted by leases."""

    async def test_no_more_at_once_than_the_limit(self, world: World) -> None:
        """Refused while the limit is in flight; a settled call makes room."""
        first = await hold(world, request("c0", at_once(2)))
        await hold(world, request("c1", at_once(2)))
        assert await world.ledger.admit(request("c2", at_once(2))) == ConcurrencyRefused(TENANT, 2)
        await world.ledger.settle(settlement(first), KEEPING)
        await admitted(world, request("c2", at_once(2)))

    async def test_the_first_full_scope_is_named(self, world: World) -> None:
        """The key's own limit refuses although the tenant has room."""
        batch = f"{TENANT}/batch"
        await admitted(world, request("c0", at_once(5), at_once(1, batch)))
        assert await world.ledger.admit(request("c1", at_once(5), at_once(1, batch))) == ConcurrencyRefused(batch, 1)

    async def test_an_ended_lease_does_not_count(self, world: World) -> None:
        """A dead worker's call frees its place with its lease, even before it is reaped; renewing keeps it."""
        first = await hold(world, request("c0", at_once(2)))
        await hold(world, request("c1", at_once(2)))
        await keep_alive(world, LEASE_US - 1, first)
        assert isinstance(await world.ledger.admit(request("c2", at_once(2))), ConcurrencyRefused)
        world.clock.advance(1)
        await admitted(world, request("c2", at_once(2)))
        assert isinstance(await world.ledger.admit(request("c3", at_once(2))), ConcurrencyRefused)

    async def test_a_cancelled_call_leaves_its_place(self, world: World) -> None:
        """Cancelling frees the place at once."""
        first = request("c0", at_once(1))
        await admitted(world, first)
        await world.ledger.cancel(first)
        await admitted(world, request("c1", at_once(1)))


class BudgetContract:
    """B1 to B6: money."""

    async def test_b3_exactly_as_many_as_fit_are_admitted(self, world: World) -> None:
        """⌊100/30⌋ = 3; the fourth is told that money is merely held, and 403 once it is spent."""
        holds = [await hold(world, request(f"c{n}", day(100), hold=30)) for n in range(3)]
        refused = await world.ledger.admit(request("d", day(100), hold=30))
        assert isinstance(refused, BudgetRefused)
        assert refused.reserved
        assert (refused.reading.spent, refused.reading.held, refused.reading.remaining) == (0, 90, 10)
        for one in holds:
            await world.ledger.settle(settlement(one, 30), KEEPING)
        refused = await world.ledger.admit(request("e", day(100), hold=30))
        assert isinstance(refused, BudgetRefused)
        assert not refused.reserved
        assert (refused.reading.spent, refused.reading.held, refused.reading.resets_at_us) == (90, 0, MIDNIGHT)
        await admitted(world, request("f", day(100), hold=10))

    async def test_b3_reserved_goes_by_the_least_that_would_do(self, world: World) -> None:
        """To the nano: spent 70 and the least 30 fit in 100, so the held 30 are in the way; 31 would not fit."""
        one = await hold(world, request("c0", day(100), hold=70))
        await world.ledger.settle(settlement(one, 70), KEEPING)
        await hold(world, request("c1", day(100), hold=30))
        for least, reserved in ((30, True), (31, False)):
            refused = await world.ledger.admit(request(f"d{least}", day(100), hold=500, hold_min=least))
            assert isinstance(refused, BudgetRefused)
            assert refused.reserved is reserved

    async def test_b7_a_key_that_gets_a_budget_during_the_day_has_spent_what_it_spent(self, world: World) -> None:
        """Not zero: what it spent since midnight counts, and what its calls in flight hold; not what other keys did."""
        before, other = (limits_of(caller_of(name), NOON).budgets for name in ("batch", "web"))
        await world.ledger.settle(settlement(await hold(world, request("c0", *before, hold=60)), 30), KEEPING)
        await world.ledger.settle(settlement(await hold(world, request("c1", *other, hold=60)), 50), KEEPING)
        flying = await hold(world, request("c2", *before, hold=20))
        after = limits_of(caller_of("batch", Limits(budget_day=Nano(100))), NOON).budgets
        refused = await world.ledger.admit(request("d0", *after, hold=51))
        assert isinstance(refused, BudgetRefused)
        reading = refused.reading
        assert (reading.scope, reading.spent, reading.held, refused.reserved) == (f"{TENANT}/batch", 30, 20, True)
        await admitted(world, request("d1", *after, hold=50))
        await world.ledger.settle(settlement(flying, 20), KEEPING)
        assert await money(world, *after) == [(100, 50), (100, 50), (50, 50), (50, 50)]

    async def test_b1_all_windows_or_none(self, world: World) -> None:
        """The month refuses: nothing is held in the day, and the month is what is named."""
        refused = await world.ledger.admit(request("c0", day(100), month(20), hold=30))
        assert isinstance(refused, BudgetRefused)
        assert (refused.reading.period, refused.reading.window) == ("month", "2025-11")
        assert await money(world, day(100), month(20)) == [(0, 0), (0, 0)]

    async def test_b1_every_scope_holds(self, world: World) -> None:
        """Tenant and key, day and month: all hold the same amount and all are charged."""
        batch = f"{TENANT}/batch"
        limits = (day(100), month(None), day(50, batch), month(None, batch))
        one = await hold(world, request("c0", *limits, hold=30))
        assert [(r.spent, r.held) for r in one.budgets] == [(0, 30)] * 4
        assert await money(world, *limits) == [(0, 30)] * 4
        settled = await world.ledger.settle(settlement(one, 7), KEEPING)
        assert [(r.spent, r.held) for r in settled.budgets] == [(7, 0)] * 4
        assert await money(world, *limits) == [(7, 0)] * 4
        refused = await world.ledger.admit(request("c1", *limits, hold=44))
        assert isinstance(refused, BudgetRefused)
        assert refused.reading.scope == batch

    async def test_b1_without_a_limit_money_is_only_counted(self, world: World) -> None:
        """A budget of ``None`` refuses nothing."""
        one = await hold(world, request("c0", day(None), hold=10**15))
        assert one.budgets[0].remaining is None
        await world.ledger.settle(settlement(one, 10**15), KEEPING)
        assert await money(world, day(None)) == [(10**15, 0)]

    async def test_b1_is_exact_to_the_nano_at_the_largest_budget(self, world: World) -> None:
        """10¹⁵ nano-USD: one nano too much is refused (floats and %.14g fail here)."""
        most = 10**15
        one = await hold(world, request("c0", day(most), hold=most - 1))
        assert isinstance(await world.ledger.admit(request("c1", day(most), hold=2)), BudgetRefused)
        await admitted(world, request("c2", day(most), hold=1))
        await world.ledger.settle(settlement(one, most - 3), KEEPING)
        assert await money(world, day(most)) == [(most - 3, 1)]

    async def test_b3_a_hold_is_lowered_to_what_is_left(self, world: World) -> None:
        """Grants the least that is left, if that is at least the minimum."""
        await admitted(world, request("c0", day(100), month(120), hold=30))
        one = await hold(world, request("c1", day(100), month(120), hold=500, hold_min=70))
        assert one.amount == 70
        assert isinstance(await world.ledger.admit(request("c2", day(100), hold=500, hold_min=1)), BudgetRefused)

    async def test_b2_a_charge_above_the_hold_closes_the_budget(self, world: World) -> None:
        """A provider that ignored the limit is charged in full; then even a free call is over the limit."""
        one = await hold(world, request("c0", day(100), hold=100))
        await world.ledger.settle(settlement(one, 101), KEEPING)
        refused = await world.ledger.admit(request("c1", day(100), hold=0))
        assert isinstance(refused, BudgetRefused)
        assert not refused.reserved

    async def test_b6_charged_to_the_day_of_admission(self, world: World) -> None:
        """Admitted before midnight, settled after: yesterday's money, and today is new at its first µs."""
        world.clock.now_us = MIDNIGHT - 1
        one = await hold(world, request("c0", day(100), hold=90))
        assert one.budgets[0].window == "2025-11-24"
        assert one.abandoned.budget_day == "2025-11-24"
        world.clock.advance(1)
        two = await hold(world, request("c1", day(100), hold=90))
        assert (two.budgets[0].window, two.budgets[0].resets_at_us) == ("2025-11-25", MIDNIGHT + DAY)
        settled = await world.ledger.settle(settlement(one, 80), KEEPING)
        assert (settled.budgets[0].window, settled.budgets[0].spent) == ("2025-11-24", 80)
        assert await money(world, day(100)) == [(0, 90)]
        world.clock.now_us = MIDNIGHT - 1
        assert await money(world, day(100)) == [(80, 0)]

    @pytest.mark.parametrize(("date", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-23", 24)])
    async def test_b6_a_day_of_23_and_of_25_hours_ends_at_its_midnight(
        self, world: World, date: str, hours: int
    ) -> None:
        """Berlin: spent in its first µs, spent until its last one; the first call afterwards is admitted."""
        begins = int(datetime.fromisoformat(date).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * SECOND
        ends = begins + hours * HOUR

        def ask(call: str, now_us: int, made_us: int | None = None) -> AdmitRequest:
            world.clock.now_us = now_us
            limits = limits_of(BERLINER, now_us if made_us is None else made_us).budgets
            return request(call, *limits, hold=60)

        one = await hold(world, ask("c0", begins, made_us=begins - 1))  # its limits were made the day before
        assert one.abandoned.budget_day == date
        assert isinstance(await world.ledger.admit(ask("c1", ends - 1)), BudgetRefused)
        two = await hold(world, ask("c2", ends, made_us=ends - 1))
        assert two.abandoned.budget_day != date
        await world.ledger.settle(settlement(one, 50), KEEPING)
        world.clock.now_us = ends - 1
        assert await money(world, limits_of(BERLINER, ends - 1).budgets[0]) == [(50, 0)]

    async def test_b8_a_hold_grows_while_every_budget_allows_it(self, world: World) -> None:
        """Extending holds more everywhere; repeated after a lost reply it changes nothing."""
        limits = (day(100), month(None))
        one = await hold(world, request("c0", *limits, hold=30))
        assert await world.ledger.extend(one, Nano(40)) == Extended(Nano(70))
        assert await world.ledger.extend(one, Nano(40)) == Extended(Nano(70))
        assert await money(world, *limits) == [(0, 70), (0, 70)]
        await world.ledger.settle(settlement(one, 50), KEEPING)
        assert await money(world, *limits) == [(50, 0), (50, 0)]

    async def test_b8_a_refused_extension_changes_nothing(self, world: World) -> None:
        """The hold stays as it was; ``reserved`` when other calls are all that is in the way."""
        one = await hold(world, request("c0", day(100), hold=30))
        other = await hold(world, request("c1", day(100), hold=30))
        refused = await world.ledger.extend(one, Nano(50))
        assert isinstance(refused, BudgetRefused)
        assert refused.reserved
        assert await money(world, day(100)) == [(0, 60)]
        await world.ledger.settle(settlement(other, 30), KEEPING)
        refused = await world.ledger.extend(one, Nano(50))
        assert isinstance(refused, BudgetRefused)
        assert not refused.reserved
        assert await world.ledger.extend(one, Nano(40)) == Extended(Nano(70))

    async def test_b8_a_call_that_is_over_is_not_extended(self, world: World) -> None:
        """Settled: no further attempt may hold money."""
        one = await hold(world, request("c0", day(100), hold=30))
        await world.ledger.settle(settlement(one, 30), KEEPING)
        assert await world.ledger.extend(one, Nano(10)) is AdmitRefused.CANCELLED
        assert await money(world, day(100)) == [(30, 0)]
