"""How must every ledger end a call: settled, cancelled, abandoned, or lost with the store's data?"""

import pytest

from perpetuo.domain.model.admission import (
    LEASE_US,
    AdmitRefused,
    BudgetRefused,
    ClaimRefused,
    ConcurrencyRefused,
    Extended,
    Keep,
    Replay,
)
from perpetuo.domain.model.money import Nano
from perpetuo.domain.policy.budget import MOST_CHARGED, MOST_INFORMATIVE, UncountableError
from perpetuo.domain.ports import WindowSum
from tests.contract.ledger_world import (
    KEEPING,
    MIDNIGHT,
    MINUTE,
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

    async def test_b4_a_charge_no_counter_can_take_leaves_the_call_held(self, world: World) -> None:
        """An error, and not that of a store that is away; the call is still there, to be settled or reaped."""
        await keep_alive(world, LEASE_US)
        one = await hold(world, request("c0", day(None), month(100), hold=60, claim=claim()))
        for charge in (2**63, MOST_CHARGED + 1, -1):
            with pytest.raises(UncountableError):
                await world.ledger.settle(settlement(one, charge, Keep.STORE, answer()), KEEPING)
        assert await money(world, day(None), month(100)) == [(0, 60), (0, 60)]
        await keep_alive(world, LEASE_US)
        assert [abandoned.charge for abandoned in await world.ledger.reap()] == [60]
        assert await money(world, day(None), month(100)) == [(60, 0), (60, 0)]

    async def test_b4_a_hold_that_only_informs_stays_countable(self, world: World) -> None:
        """Thousands of calls for 2^31 tokens, 128 times, of a dear model: counted up to $1,000 each, and back to 0."""
        dear = 2**31 * 128 * 600_000
        limits = (at_once(100), day(None), month(None))
        calls = [await hold(world, request(f"c{n}", *limits, hold=dear)) for n in range(60)]
        assert await world.ledger.extend(calls[0], Nano(dear)) == Extended(MOST_INFORMATIVE)
        assert await money(world, day(None), month(None)) == [(0, 60 * MOST_INFORMATIVE)] * 2
        for one in calls:
            await world.ledger.settle(settlement(one, MOST_INFORMATIVE + 7), KEEPING)
        assert await money(world, day(None), month(None)) == [(60 * (MOST_INFORMATIVE + 7), 0)] * 2
        assert isinstance(await world.ledger.admit(request("d", day(10**15), hold=dear)), BudgetRefused)

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
