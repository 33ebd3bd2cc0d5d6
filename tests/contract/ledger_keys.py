"""What must every ledger do with an idempotency key: one run, then the same answer?"""

import pytest

from perpetuo.domain.model.admission import (
    LEASE_US,
    Admitted,
    BudgetRefused,
    ClaimRefused,
    Keep,
    RateRefused,
    Replay,
    UnknownOutcome,
)
from perpetuo.domain.model.settings import IdempotencySettings
from tests.contract.ledger_world import (
    DAY,
    KEEPING,
    MINUTE,
    REPLAYS,
    SECOND,
    World,
    admitted,
    answer,
    claim,
    day,
    hold,
    keep_alive,
    money,
    rate,
    request,
    settlement,
)


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

    async def test_i2_replays_have_a_limit_of_their_own(self, world: World) -> None:
        """Refused with the exact wait and without a trace; never when the call runs, and never counted in its rate."""
        one = await hold(world, request("c0", rate(2), claim=claim(), replays=2))
        await world.ledger.settle(settlement(one, 0, Keep.STORE, answer()), KEEPING)
        for n in range(2):
            assert await world.ledger.admit(request(f"r{n}", rate(2), claim=claim(), replays=2)) == Replay(answer())
            world.clock.advance(10 * SECOND)
        for left in (40, 30):
            refused = await world.ledger.admit(request(f"s{left}", rate(2), claim=claim(), replays=2))
            assert refused == RateRefused(REPLAYS, 2, left * SECOND)
            world.clock.advance(10 * SECOND)
        await admitted(world, request("c1", rate(2), claim=claim("another"), replays=2))
        world.clock.advance(20 * SECOND)
        assert await world.ledger.admit(request("t0", rate(2), claim=claim(), replays=2)) == Replay(answer())
        refused = await world.ledger.admit(request("t1", rate(2), claim=claim(), replays=2))
        assert refused == RateRefused(REPLAYS, 2, 10 * SECOND)
        assert await world.ledger.admit(request("t2", rate(2), claim=claim())) == Replay(answer())

    async def test_i2_only_a_replay_counts_as_one(self, world: World) -> None:
        """Not a key in progress, not another request's, not a run; and a clock that goes back frees nothing."""
        one = await hold(world, request("c0", claim=claim(), replays=1))
        assert await world.ledger.admit(request("c1", claim=claim(), replays=1)) is ClaimRefused.IN_PROGRESS
        await world.ledger.settle(settlement(one, 0, Keep.STORE, answer()), KEEPING)
        other = claim(fingerprint="other")
        assert await world.ledger.admit(request("c2", claim=other, replays=1)) is ClaimRefused.REUSED
        assert await world.ledger.admit(request("c3", claim=claim(), replays=1)) == Replay(answer())
        assert await world.ledger.admit(request("c4", claim=other, replays=1)) is ClaimRefused.REUSED
        world.clock.advance(-SECOND)
        refused = await world.ledger.admit(request("c5", claim=claim(), replays=1))
        assert refused == RateRefused(REPLAYS, 1, MINUTE + SECOND)

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
