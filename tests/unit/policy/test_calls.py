"""How long is a call remembered, and when does an ended lease prove anything?"""

from perpetuo.domain.model.admission import LEASE_US, Admitted
from perpetuo.domain.policy import admission, calls
from perpetuo.domain.policy.admission import AdmissionState
from perpetuo.domain.policy.calls import Pulse, Reaped, Tombstone
from tests.contract.ledger_world import DAY, MINUTE, NOON, SECOND, request

decision, STATE = admission.admit(AdmissionState(epoch="one"), request("c0"), NOON)
assert isinstance(decision, Admitted)
HOLD = decision.hold


def test_b4_a_tombstone_lasts_a_minute() -> None:
    """And a day where the call was admitted by another life of the store: there "unknown" means "charge it"."""
    assert calls.tombstone(HOLD, "one", NOON).expires_us == NOON + MINUTE
    assert calls.tombstone(HOLD, "two", NOON).expires_us == NOON + DAY


def test_b5_what_is_over_is_forgotten_in_time_and_what_runs_never() -> None:
    """Tombstones and reaped calls go at their instant; a record of a call in flight waits for its reaper."""
    for over in (Tombstone(NOON), Reaped(HOLD, HOLD.amount, NOON)):
        assert calls.seen(over, NOON - 1) is over
        assert calls.seen(over, NOON) is None
    assert calls.seen(STATE.call, NOON + 10 * DAY) is STATE.call


def test_b5_a_gap_of_more_than_ten_seconds_begins_a_quiet_lease() -> None:
    """Ten seconds are no gap, 1 µs more is; a shard that was never stamped has one."""
    first = calls.beat(Pulse(), NOON)
    assert first == Pulse(NOON, NOON + LEASE_US)
    second = calls.beat(first, NOON + 10 * SECOND)
    assert second == Pulse(NOON + 10 * SECOND, NOON + LEASE_US)
    late = NOON + 20 * SECOND + 1
    assert calls.beat(second, late) == Pulse(late, late + LEASE_US)


def test_b5_further_stamps_do_not_prolong_the_quiet() -> None:
    """Otherwise nothing would ever be reaped."""
    pulse = calls.beat(Pulse(), NOON)
    for n in range(1, 4):
        pulse = calls.beat(pulse, NOON + n * 10 * SECOND)
    assert calls.trusted(pulse, NOON + 3 * 10 * SECOND)


def test_b5_trusted_needs_a_fresh_stamp_and_a_quiet_lease_behind() -> None:
    """Each alone is not enough."""
    pulse = Pulse(NOON, NOON)
    assert calls.trusted(pulse, NOON + 10 * SECOND)
    assert not calls.trusted(pulse, NOON + 10 * SECOND + 1)
    assert not calls.trusted(Pulse(NOON, NOON + 1), NOON)
    assert not calls.trusted(Pulse(), NOON)


def test_b5_a_clock_that_goes_back_is_no_gap() -> None:
    """The stamp stays where it was."""
    assert calls.beat(Pulse(NOON, 0), NOON - MINUTE) == Pulse(NOON, 0)
