"""
What must every ledger do, whatever it is made of?

`LedgerContract` runs over each store: a test class inherits it and gives the fixture ``world`` (see `ledger_world`).
Scripted traces, one promise each; the comments name the planted bugs that each trace catches.
"""

import pytest

from perpetuo.domain.model.admission import (
    LEASE_US,
    AdmitRefused,
    Admitted,
    BudgetRefused,
    ClaimRefused,
    ConcurrencyRefused,
    Extended,
    Keep,
    RateRefused,
    Replay,
    UnknownOutcome,
)
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.ports import WindowSum
from tests.contract.ledger_world import (
    DAY,
    KEEPING,
    MIDNIGHT,
    MINUTE,
    NOON,
    SECOND,
    TENANT,
    World,
    admitted,
    answer,
    at_once,
    claim,
    day,
    hold,
    keep_alive,
    money,
    month,
    rate,
    request,
    rows,
    settlement,
)


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


class SettlementContract:
    """B4, B5, B7: every call ends once."""

    async def test_an_admission_repeated_is_the_same_admission(self, world: World) -> None:
        """A lost reply: the same answer again, one slot, one hold, one key."""
        asked = request("c0", rate(2), at_once(2), day(100), hold=60, claim=claim())
        first = await admitted(world, asked)
        world.clock.advance(SECOND)
        assert await world.ledger.admit(asked) == first
        (usage,) = await world.ledger.read_usage(TENANT, [TENANT])
        assert (usage.admitted_last_minute, usage.in_flight) == (1, 1)
        assert await money(world, day(100)) == [(0, 60)]

    async def test_b4_settling_twice_charges_once(self, world: World) -> None:
        """The repeat says so and tells what the first was told, also when the tombstone is long gone."""
        one = await hold(world, request("c0", day(100), hold=60, claim=claim()))
        done = settlement(one, 40, Keep.STORE, answer())
        first = await world.ledger.settle(done, KEEPING)
        assert (first.stored, first.revision, first.repeated) == (True, 1, False)
        again = await world.ledger.settle(done, KEEPING)
        assert (again.stored, again.revision, again.repeated, again.budgets) == (True, 1, True, first.budgets)
        await keep_alive(world, 2 * MINUTE)
        assert (await world.ledger.settle(done, KEEPING)).repeated
        assert await money(world, day(100)) == [(40, 0)]
        assert (await rows(world))["c0"].cost == 40
        assert await world.stream.backlog() == 0

    async def test_b4_a_settled_call_is_not_admitted_again(self, world: World) -> None:
        """A late duplicate of the admission takes nothing."""
        asked = request("c0", day(100), hold=60)
        await world.ledger.settle(settlement(await hold(world, asked), 40), KEEPING)
        assert await world.ledger.admit(asked) is AdmitRefused.CANCELLED

    async def test_a_late_admission_meets_the_tombstone_of_its_cancel(self, world: World) -> None:
        """Cancel of an unknown call: an admit that arrives within a minute is refused."""
        asked = request("c0", rate(5), day(100), hold=60)
        await world.ledger.cancel(asked)
        world.clock.advance(MINUTE - 1)
        assert await world.ledger.admit(asked) is AdmitRefused.CANCELLED
        world.clock.advance(1)
        await admitted(world, asked)

    async def test_a_cancelled_call_costs_nothing_and_leaves_no_row(self, world: World) -> None:
        """Money, key and place come back; a settlement that follows is void."""
        asked = request("c0", at_once(1), day(100), hold=60, claim=claim())
        one = await hold(world, asked)
        await world.ledger.cancel(one)
        assert (await world.ledger.settle(settlement(one, 60), KEEPING)).repeated
        assert await money(world, day(100)) == [(0, 0)]
        assert await rows(world) == {}
        assert (await hold(world, request("c1", claim=claim()))).fence == one.fence + 1
        (usage,) = await world.ledger.read_usage(TENANT, [TENANT])
        assert usage.in_flight == 0

    async def test_b5_a_dead_workers_call_is_charged_at_its_hold(self, world: World) -> None:
        """Not before its lease ends, then once, with the day of admission in its row."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", at_once(1), day(100), month(None), hold=60))
        assert await world.ledger.extend(one, Nano(10)) == Extended(Nano(70))
        await keep_alive(world, LEASE_US - 1)
        assert await world.ledger.reap() == []
        world.clock.advance(1)
        (reaped,) = await world.ledger.reap()
        assert (reaped.call, reaped.tenant, reaped.charge) == ("c0", TENANT, 70)
        assert await world.ledger.reap() == []
        assert await money(world, day(100), month(None)) == [(70, 0), (70, 0)]
        row = (await rows(world))["c0"]
        assert (row.revision, row.cost, row.hold, row.outcome) == (1, 70, 70, "abandoned")
        assert row.budget_day == "2025-11-24"

    async def test_b5_a_renewed_call_lives(self, world: World) -> None:
        """Renewal moves the lease on; nothing of a living worker is reaped."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", day(100), hold=60))
        await keep_alive(world, 3 * LEASE_US, one)
        assert await world.ledger.reap() == []
        assert await world.ledger.renew([one]) == frozenset()

    async def test_b5_an_extended_call_lives(self, world: World) -> None:
        """Extending renews the lease too, also where nothing more is held."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", day(100), hold=60))
        await keep_alive(world, LEASE_US - 1)
        await world.ledger.extend(one, Nano(0))
        await keep_alive(world, LEASE_US - 1)
        assert await world.ledger.reap() == []

    async def test_b4_renewing_a_settled_call_holds_nothing(self, world: World) -> None:
        """A renewal that overtook its settlement, or comes long after it, puts nothing back."""
        one = await hold(world, request("c0", at_once(1), day(100), hold=60))
        await world.ledger.settle(settlement(one, 40), KEEPING)
        for _ in range(2):
            assert await world.ledger.renew([one]) == frozenset()
            assert await money(world, day(100)) == [(40, 0)]
            await keep_alive(world, MINUTE)
        await admitted(world, request("c1", at_once(1)))

    async def test_b5_a_late_settlement_corrects_the_charge(self, world: World) -> None:
        """The paused worker wakes: difference charged to the window of admission, row at revision 2, nothing stored."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", day(100), hold=60, claim=claim()))
        await keep_alive(world, LEASE_US)
        assert len(await world.ledger.reap()) == 1
        assert await world.ledger.renew([one]) == {"c0"}
        world.clock.now_us = MIDNIGHT + SECOND
        settled = await world.ledger.settle(settlement(one, 25, Keep.STORE, answer()), KEEPING)
        assert (settled.stored, settled.revision, settled.repeated) == (False, 2, False)
        assert (settled.budgets[0].window, settled.budgets[0].spent) == ("2025-11-24", 25)
        again = await world.ledger.settle(settlement(one, 25), KEEPING)
        assert (again.revision, again.repeated) == (2, True)
        assert await money(world, day(100)) == [(0, 0)]
        folded = await rows(world)
        assert list(folded) == ["c0"]
        assert (folded["c0"].revision, folded["c0"].cost, folded["c0"].outcome) == (2, 25, "completed")

    async def test_b5_a_late_cancel_takes_the_charge_back(self, world: World) -> None:
        """Nothing was sent, and the reaper was quicker: the row is corrected to 0, so Σ events = counter."""
        await keep_alive(world, LEASE_US)
        asked = request("c0", day(100), hold=60)
        await admitted(world, asked)
        await keep_alive(world, LEASE_US)
        await world.ledger.reap()
        await world.ledger.cancel(asked)
        assert await money(world, day(100)) == [(0, 0)]
        row = (await rows(world))["c0"]
        assert (row.revision, row.cost) == (2, 0)

    async def test_b5_after_a_pause_nobody_is_reaped_for_a_lease(self, world: World) -> None:
        """No stamp for over 10 s: leases prove nothing until everybody had a lease's time to renew."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", day(100), hold=60))
        world.clock.advance(2 * LEASE_US)  # the store was paused
        assert await world.ledger.reap() == []
        await keep_alive(world, LEASE_US - SECOND)
        assert await world.ledger.reap() == []
        await keep_alive(world, SECOND)
        assert [a.call for a in await world.ledger.reap()] == [one.call]

    async def test_b5_ten_seconds_between_stamps_are_no_pause(self, world: World) -> None:
        """The slowest healthy worker is on time: its dead neighbour is reaped when its lease ends."""
        await keep_alive(world, LEASE_US)
        await hold(world, request("c0", day(100), hold=60))
        for _ in range(3):
            world.clock.advance(10 * SECOND)
            await world.ledger.renew([])
        assert len(await world.ledger.reap()) == 1

    async def test_b5_a_stamp_after_the_pause_does_not_hide_it(self, world: World) -> None:
        """The first to come back renews its own; the others' calls are not reaped for that."""
        await keep_alive(world, LEASE_US)
        mine = await hold(world, request("c0", day(100), hold=10))
        other = await hold(world, request("c1", day(100), hold=10))
        world.clock.advance(2 * LEASE_US)
        await world.ledger.renew([mine])
        assert await world.ledger.reap() == []
        await world.ledger.renew([other])
        await keep_alive(world, LEASE_US, mine, other)
        assert await world.ledger.reap() == []

    async def test_an_unfinished_call_can_be_looked_up(self, world: World) -> None:
        """The row it would leave, for its own tenant only, until it is settled."""
        one = await hold(world, request("c0", day(100), hold=60))
        row = await world.ledger.in_flight(TENANT, "c0")
        assert row is not None
        assert (row.id, row.cost_nano_usd, row.budget_day) == ("c0", 60, "2025-11-24")
        assert await world.ledger.in_flight("other", "c0") is None
        await world.ledger.settle(settlement(one), KEEPING)
        assert await world.ledger.in_flight(TENANT, "c0") is None


class LossContract:
    """B7: the store has lost its data."""

    async def test_b7_budgets_wait_for_sql_and_others_run(self, world: World) -> None:
        """No call under a budget before the counters are read back; a tenant without one is served."""
        await world.lose_data()
        assert await world.ledger.admit(request("c0", day(100), hold=10)) is AdmitRefused.UNSEEDED
        await admitted(world, request("c1", day(None), hold=10))
        await world.seed(TENANT, [WindowSum(TENANT, None, "2025-11-24", Nano(95))])
        refused = await world.ledger.admit(request("c2", day(100), hold=10))
        assert isinstance(refused, BudgetRefused)
        assert refused.reading.spent == 95

    async def test_b7_renewal_puts_lost_holds_back(self, world: World) -> None:
        """Calls in flight survive the loss: their money is held again, once, and their keys are theirs."""
        one = await hold(world, request("c0", at_once(1), day(100), hold=60, claim=claim()))
        await world.lose_data()
        assert await world.ledger.renew([one]) == frozenset()
        await world.ledger.renew([one])
        await world.seed(TENANT, [WindowSum(TENANT, None, "2025-11-24", Nano(30))])
        assert await money(world, day(100)) == [(30, 60)]
        assert await world.ledger.admit(request("c1", claim=claim())) is ClaimRefused.IN_PROGRESS
        assert isinstance(await world.ledger.admit(request("c2", at_once(1))), ConcurrencyRefused)
        settled = await world.ledger.settle(settlement(one, 50, Keep.STORE, answer()), KEEPING)
        assert (settled.stored, settled.revision, settled.repeated) == (True, 1, False)
        assert await money(world, day(100)) == [(80, 0)]

    async def test_i5_a_lost_run_does_not_take_its_key_back_from_another(self, world: World) -> None:
        """After the loss somebody else claimed the key: renewal puts the money back, not the key."""
        one = await hold(world, request("c0", day(None), hold=60, claim=claim()))
        await world.lose_data()
        two = await hold(world, request("c1", claim=claim()))
        await world.ledger.renew([one])
        assert await money(world, day(None)) == [(0, 60)]
        assert not (await world.ledger.settle(settlement(one, 0, Keep.STORE, answer(b"old")), KEEPING)).stored
        assert (await world.ledger.settle(settlement(two, 0, Keep.STORE, answer(b"new")), KEEPING)).stored

    async def test_b7_a_settlement_of_a_lost_call_is_charged_once(self, world: World) -> None:
        """The store has never heard of it, in this life: charge and record, then remember that for a day."""
        one = await hold(world, request("c0", day(100), hold=60))
        await world.lose_data()
        await world.seed(TENANT, [])
        done = settlement(one, 50)
        assert not (await world.ledger.settle(done, KEEPING)).repeated
        await keep_alive(world, 2 * MINUTE)
        assert (await world.ledger.settle(done, KEEPING)).repeated
        assert await money(world, day(100)) == [(50, 0)]
        assert (await rows(world))["c0"].cost == 50

    async def test_b7_a_lost_call_is_not_extended(self, world: World) -> None:
        """Before its renewal has put it back, its further attempts have no money."""
        one = await hold(world, request("c0", day(100), hold=60))
        await world.lose_data()
        assert await world.ledger.extend(one, Nano(1)) is AdmitRefused.UNSEEDED


class IdempotencyContract:
    """I2 to I9: one run, then the same answer."""

    async def test_i2_the_stored_answer_is_replayed(self, world: World) -> None:
        """Byte for byte, without using the rate, for as long as it is kept."""
        stored = answer(bytes(range(256)))
        one = await hold(world, request("c0", rate(1), claim=claim()))
        assert (await world.ledger.settle(settlement(one, 0, Keep.STORE, stored), KEEPING)).stored
        assert await world.ledger.admit(request("c1", rate(1), claim=claim())) == Replay(stored)
        world.clock.advance(DAY - 1)
        assert await world.ledger.admit(request("c2", rate(1), claim=claim())) == Replay(stored)
        world.clock.advance(1)
        assert not (await admitted(world, request("c3", rate(1), claim=claim()))).reexecuted

    async def test_i3_another_request_under_the_same_key_is_refused(self, world: World) -> None:
        """While it runs and afterwards."""
        one = await hold(world, request("c0", claim=claim()))
        other = request("c1", claim=claim(fingerprint="other"))
        assert await world.ledger.admit(other) is ClaimRefused.REUSED
        await world.ledger.settle(settlement(one, 0, Keep.STORE, answer()), KEEPING)
        assert await world.ledger.admit(other) is ClaimRefused.REUSED

    async def test_i4_in_progress_while_the_first_runs(self, world: World) -> None:
        """Renewed beyond its first lease, it is still in progress."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", claim=claim()))
        await keep_alive(world, 2 * LEASE_US, one)
        assert await world.ledger.admit(request("c1", claim=claim())) is ClaimRefused.IN_PROGRESS

    async def test_i4_a_refusal_leaves_the_key_free(self, world: World) -> None:
        """Refused for money, the key is not taken: the retry runs, and not as a second run."""
        assert isinstance(await world.ledger.admit(request("c0", day(5), hold=10, claim=claim())), BudgetRefused)
        again = await admitted(world, request("c1", day(50), hold=10, claim=claim()))
        assert (again.hold.fence, again.reexecuted) == (1, False)

    async def test_i7_after_the_lease_the_request_runs_again(self, world: World) -> None:
        """Not 1 µs before; the second run says that it is one."""
        await keep_alive(world, LEASE_US)
        await hold(world, request("c0", claim=claim()))
        await keep_alive(world, LEASE_US - 1)
        assert await world.ledger.admit(request("c1", claim=claim())) is ClaimRefused.IN_PROGRESS
        world.clock.advance(1)
        again = await admitted(world, request("c2", claim=claim()))
        assert (again.reexecuted, again.hold.fence) == (True, 2)
        assert await world.ledger.admit(request("c3", claim=claim())) is ClaimRefused.IN_PROGRESS

    async def test_i7_with_fail_it_never_runs_twice(self, world: World) -> None:
        """An unknown outcome stays unknown, also where nothing is kept."""
        await keep_alive(world, LEASE_US)
        careful = claim(ttl_us=0, on_unknown=UnknownOutcome.FAIL)
        await hold(world, request("c0", claim=careful))
        await keep_alive(world, LEASE_US)
        assert await world.ledger.admit(request("c1", claim=careful)) is ClaimRefused.OUTCOME_UNKNOWN

    async def test_i5_a_worker_that_lost_its_lease_stores_nothing(self, world: World) -> None:
        """The first wakes while the second runs: its money counts, its answer does not (no fence check fails here)."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", day(None), claim=claim()))
        await keep_alive(world, LEASE_US)
        two = await hold(world, request("c1", claim=claim()))
        stale = await world.ledger.settle(settlement(one, 5, Keep.STORE, answer(b"old")), KEEPING)
        assert not stale.stored
        assert await world.ledger.admit(request("c2", claim=claim())) is ClaimRefused.IN_PROGRESS
        assert (await world.ledger.settle(settlement(two, 0, Keep.STORE, answer(b"new")), KEEPING)).stored
        assert await world.ledger.admit(request("c3", claim=claim())) == Replay(answer(b"new"))
        assert await money(world, day(None)) == [(5, 0)]

    async def test_i5_a_stale_worker_neither_frees_nor_renews_the_key(self, world: World) -> None:
        """Renewing, freeing and cancelling are fenced too."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", claim=claim()))
        await keep_alive(world, LEASE_US)
        await hold(world, request("c1", claim=claim()))
        await keep_alive(world, LEASE_US - SECOND, one)
        await world.ledger.cancel(one)
        assert await world.ledger.admit(request("c2", claim=claim())) is ClaimRefused.IN_PROGRESS
        await keep_alive(world, SECOND)
        assert (await admitted(world, request("c3", claim=claim()))).reexecuted

    async def test_i5_a_fence_that_began_anew_is_not_mistaken_for_an_old_one(self, world: World) -> None:
        """The key was forgotten and its fences count from 1 again: the first worker's 1 is not the third's."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", claim=claim()))
        await keep_alive(world, LEASE_US)
        await world.ledger.settle(settlement(await hold(world, request("c1", claim=claim()))), KEEPING)
        await keep_alive(world, MINUTE)
        three = await hold(world, request("c2", claim=claim()))
        assert three.fence == one.fence == 1
        assert not (await world.ledger.settle(settlement(one, 0, Keep.STORE, answer(b"old")), KEEPING)).stored
        assert (await world.ledger.settle(settlement(three, 0, Keep.STORE, answer(b"new")), KEEPING)).stored

    async def test_i5_after_a_pause_no_key_is_claimed_again(self, world: World) -> None:
        """The store was away: a lease that ended meanwhile proves nothing for another lease."""
        await keep_alive(world, LEASE_US)
        await hold(world, request("c0", claim=claim()))
        world.clock.advance(2 * LEASE_US)
        assert await world.ledger.admit(request("c1", claim=claim())) is ClaimRefused.IN_PROGRESS
        await world.ledger.renew([])
        await keep_alive(world, LEASE_US - SECOND)
        assert await world.ledger.admit(request("c2", claim=claim())) is ClaimRefused.IN_PROGRESS
        await keep_alive(world, SECOND)
        assert (await admitted(world, request("c3", claim=claim()))).reexecuted

    async def test_i6_what_is_worth_retrying_leaves_the_key_free(self, world: World) -> None:
        """The fence survives, so that the first run stays fenced; another request may use the key."""
        one = await hold(world, request("c0", claim=claim()))
        await world.ledger.settle(settlement(one, 0, Keep.FREE), KEEPING)
        again = await admitted(world, request("c1", claim=claim(fingerprint="other")))
        assert (again.hold.fence, again.reexecuted) == (2, False)

    @pytest.mark.parametrize("limits", [IdempotencySettings(max_bytes=9), IdempotencySettings(max_bytes_per_tenant=9)])
    async def test_i9_too_large_says_so_and_never_pretends(self, world: World, limits: IdempotencySettings) -> None:
        """One byte over: not stored, and the key answers NOT_STORED from then on."""
        one = await hold(world, request("c0", claim=claim()))
        settled = await world.ledger.settle(settlement(one, 0, Keep.STORE, answer(b"0123456789")), limits)
        assert not settled.stored
        assert await world.ledger.admit(request("c1", claim=claim())) is ClaimRefused.NOT_STORED
        assert await world.ledger.admit(request("c2", claim=claim(fingerprint="x"))) is ClaimRefused.REUSED
        two = await hold(world, request("c3", claim=claim("other")))
        assert (await world.ledger.settle(settlement(two, 0, Keep.STORE, answer(b"012345678")), limits)).stored

    async def test_i9_a_tenants_share_is_free_again_when_answers_expire(self, world: World) -> None:
        """The second answer has no room beside the first, and has once the first is gone."""
        share = IdempotencySettings(max_bytes_per_tenant=10)
        for name, expected in (("a", True), ("b", False)):
            one = await hold(world, request(f"c-{name}", claim=claim(name, ttl_us=MINUTE)))
            settled = await world.ledger.settle(settlement(one, 0, Keep.STORE, answer(b"123456")), share)
            assert settled.stored is expected
        world.clock.advance(MINUTE)
        one = await hold(world, request("d", claim=claim("d")))
        assert (await world.ledger.settle(settlement(one, 0, Keep.STORE, answer(b"123456")), share)).stored

    async def test_i9_marked_as_done_but_not_kept(self, world: World) -> None:
        """The gateway itself saw that it is too much: MARK."""
        one = await hold(world, request("c0", claim=claim()))
        assert not (await world.ledger.settle(settlement(one, 0, Keep.MARK), KEEPING)).stored
        assert await world.ledger.admit(request("c1", claim=claim())) is ClaimRefused.NOT_STORED

    @pytest.mark.parametrize("keep", [Keep.STORE, Keep.MARK])
    async def test_i6_a_time_to_live_of_zero_keeps_nothing(self, world: World, keep: Keep) -> None:
        """The key guards the run, and is free afterwards."""
        one = await hold(world, request("c0", claim=claim(ttl_us=0)))
        assert await world.ledger.admit(request("c1", claim=claim(ttl_us=0))) is ClaimRefused.IN_PROGRESS
        assert not (await world.ledger.settle(settlement(one, 0, keep, answer()), KEEPING)).stored
        assert isinstance(await world.ledger.admit(request("c2", claim=claim(ttl_us=0))), Admitted)


class StreamContract:
    """The finished events on their way to SQL."""

    async def test_a1_a_settlement_leaves_its_event_as_handed_over(self, world: World) -> None:
        """One entry per settlement, read once, gone when acknowledged."""
        one = await hold(world, request("c0", day(100), hold=60))
        await world.ledger.settle(settlement(one, 40), KEEPING)
        assert await world.stream.backlog() == 1
        (entry,) = await world.stream.read(10, 0)
        assert (entry.revision, entry.charged) == (1, None)
        assert await world.stream.read(10, 0) == []
        await world.stream.ack([entry])
        assert await world.stream.backlog() == 0

    async def test_a1_a_refusal_and_a_replay_leave_no_event(self, world: World) -> None:
        """Only admitted calls are rows."""
        one = await hold(world, request("c0", claim=claim()))
        await world.ledger.settle(settlement(one, 0, Keep.STORE, answer()), KEEPING)
        assert isinstance(await world.ledger.admit(request("c1", claim=claim())), Replay)
        assert isinstance(await world.ledger.admit(request("c2", day(1), hold=2)), BudgetRefused)
        assert list(await rows(world)) == ["c0"]


@pytest.mark.anyio
class LedgerContract(
    RateContract,
    ConcurrencyContract,
    BudgetContract,
    SettlementContract,
    LossContract,
    IdempotencyContract,
    StreamContract,
):
    """All of it."""
