"""Do the steps of a call compose as the order says, and leave no trace where they refuse?"""

import attrs
import pytest

from perpetuo.domain.model.admission import (
    AdmitDecision,
    AdmitRefused,
    AdmitRequest,
    Admitted,
    BudgetRefused,
    ClaimRefused,
    ConcurrencyRefused,
    Keep,
    RateRefused,
    Replay,
)
from perpetuo.domain.model.money import Nano
from perpetuo.domain.policy import admission, calls
from perpetuo.domain.policy.admission import AdmissionState, Touched
from perpetuo.domain.policy.budget import BudgetWindow
from perpetuo.domain.policy.idempotency import Running
from perpetuo.domain.policy.rate import RateLog
from tests.contract.ledger_world import (
    KEEPING,
    NOON,
    REPLAYS,
    SECOND,
    TENANT,
    answer,
    at_once,
    claim,
    day,
    month,
    rate,
    request,
    settlement,
)

EMPTY = AdmissionState(epoch="one")
FULL = request("c1", rate(1), at_once(1), day(10), hold=10, claim=claim())


def after(state: AdmissionState, asked: AdmitRequest = FULL, now: int = NOON) -> AdmissionState:
    """The state with one call in it, seen by the next one (whose own record does not exist yet)."""
    decision, state = admission.admit(state, asked, now)
    assert isinstance(decision, Admitted), decision
    return attrs.evolve(state, call=None)


BUSY = after(EMPTY)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (FULL, ClaimRefused),
        (attrs.evolve(FULL, claim=None), RateRefused),
        (attrs.evolve(FULL, claim=None, rates=()), ConcurrencyRefused),
        (attrs.evolve(FULL, claim=None, rates=(), concurrency=()), BudgetRefused),
    ],
)
def test_r3_the_order_is_key_rate_concurrency_budget(asked: AdmitRequest, expected: type) -> None:
    """Everything is full; the first in the order answers, and the state is the same object as before."""
    decision, state = admission.admit(BUSY, asked, NOON)
    assert isinstance(decision, expected)
    assert state is BUSY


@pytest.mark.parametrize(
    ("state", "asked", "expected"),
    [
        (attrs.evolve(BUSY, room=False, seeded=False), FULL, AdmitRefused.NO_ROOM),
        (attrs.evolve(BUSY, seeded=False), FULL, AdmitRefused.UNSEEDED),
        (attrs.evolve(BUSY, seeded=False), attrs.evolve(FULL, budgets=()), ClaimRefused.IN_PROGRESS),
        (attrs.evolve(BUSY, call=calls.Tombstone(NOON + 1), room=False), FULL, AdmitRefused.CANCELLED),
    ],
)
def test_b7_the_store_is_asked_first(state: AdmissionState, asked: AdmitRequest, expected: AdmitDecision) -> None:
    """Known call, then room, then seeded (only under a budget), then the key."""
    assert admission.admit(state, asked, NOON) == (expected, state)


def test_i2_a_replay_touches_its_own_rate_and_nothing_else() -> None:
    """Not even a record of the call; refused, the state is the same object as before."""
    _, state = admission.admit(EMPTY, FULL, NOON)
    assert isinstance(state.call, calls.CallRecord)
    done = settlement(state.call.hold, 7, Keep.STORE, answer())
    _, state = admission.settle(state, done, KEEPING, NOON)
    state = attrs.evolve(state, call=None)
    again = attrs.evolve(FULL, call="c2", replays=rate(1, REPLAYS))
    decision, after_it = admission.admit(state, again, NOON)
    assert decision == Replay(answer())
    assert after_it == attrs.evolve(state, rates={**state.rates, REPLAYS: RateLog((NOON,))})
    refused, same = admission.admit(after_it, again, NOON + 1)
    assert refused == RateRefused(REPLAYS, 1, 60 * SECOND - 1)
    assert same is after_it


def test_b1_admission_puts_every_piece_in() -> None:
    """Slot, place, money, key and record, each with its time."""
    decision, state = admission.admit(EMPTY, FULL, NOON)
    assert isinstance(decision, Admitted)
    hold = decision.hold
    assert (hold.at_us, hold.amount, hold.fence, hold.epoch) == (NOON, 10, 1, "one")
    assert state.rates[TENANT].times == (NOON,)
    assert state.in_flight[TENANT].ends == {"c1": NOON + hold.lease_us}
    assert state.budgets[TENANT, "2025-11-24"] == BudgetWindow(Nano(0), Nano(10))
    assert isinstance(state.claim, Running)
    assert state.claim.lease_end_us == NOON + 30 * SECOND
    assert state.call == calls.CallRecord(decision, hold.amount, NOON + hold.lease_us)
    assert state.appended == ()


def test_b4_settling_leaves_nothing_held() -> None:
    """Every piece of the call is out again, its charge in, its event appended."""
    decision, state = admission.admit(EMPTY, FULL, NOON)
    assert isinstance(decision, Admitted)
    done = settlement(decision.hold, 7, Keep.STORE, answer())
    settled, state = admission.settle(state, done, KEEPING, NOON + SECOND)
    assert (settled.stored, settled.revision, settled.repeated) == (True, 1, False)
    assert state.in_flight[TENANT].ends == {}
    assert state.budgets[TENANT, "2025-11-24"] == BudgetWindow(Nano(7), Nano(0))
    assert state.appended == (admission.Appended(done.event, 1),)
    again, unchanged = admission.settle(state, done, KEEPING, NOON + SECOND)
    assert again == attrs.evolve(settled, repeated=True)
    assert unchanged is state


def test_b5_reaping_waits_for_lease_and_trust() -> None:
    """Both are needed; the row carries what was held, also after it grew."""
    decision, state = admission.admit(EMPTY, FULL, NOON)
    assert isinstance(decision, Admitted)
    end = NOON + decision.hold.lease_us
    trusted = attrs.evolve(state, pulse=calls.Pulse(end, NOON))
    assert admission.reap(state, end) == (None, state)
    assert admission.reap(trusted, end - 1) == (None, trusted)
    abandoned, over = admission.reap(trusted, end)
    assert abandoned is not None
    assert abandoned.charge == 10
    assert over.budgets[TENANT, "2025-11-24"] == BudgetWindow(Nano(10), Nano(0))
    assert over.appended == (admission.Appended(decision.hold.abandoned, 1, Nano(10)),)
    assert admission.reap(over, end) == (None, over)


def test_b7_extending_waits_for_the_counters() -> None:
    """A lost call that was put back holds no more before its counters are; without a budget it may."""
    for limit, expected in ((10, True), (None, False)):
        asked = request("c1", day(limit), hold=1)
        decision, state = admission.admit(EMPTY, asked, NOON)
        assert isinstance(decision, Admitted)
        unseeded = attrs.evolve(state, seeded=False)
        extended, _ = admission.extend(unseeded, decision.hold, Nano(1), NOON)
        assert (extended is AdmitRefused.UNSEEDED) is expected


def test_b5_extending_renews_the_leases() -> None:
    """A call that goes on is alive; also when nothing more is held."""
    decision, state = admission.admit(EMPTY, FULL, NOON)
    assert isinstance(decision, Admitted)
    _, state = admission.extend(state, decision.hold, Nano(0), NOON + SECOND)
    end = NOON + SECOND + decision.hold.lease_us
    assert isinstance(state.call, calls.CallRecord)
    assert isinstance(state.claim, Running)
    assert (state.call.lease_end_us, state.claim.lease_end_us, state.in_flight[TENANT].ends["c1"]) == (end,) * 3


def test_what_a_step_touches() -> None:
    """A request needs both windows of a budget, a hold only its own."""
    asked = request("c1", rate(1), at_once(1), day(10), month(None), claim=claim())
    days, months = ((TENANT, "2025-11-24"), (TENANT, "2025-11-25")), ((TENANT, "2025-11"), (TENANT, "2025-12"))
    key = claim().key
    assert admission.touched_by_request(asked) == Touched(TENANT, key, (TENANT,), (TENANT,), (*days, *months))
    decision, _ = admission.admit(EMPTY, asked, NOON)
    assert isinstance(decision, Admitted)
    assert admission.touched_by_hold(decision.hold) == Touched(TENANT, key, (TENANT,), (TENANT,), (days[0], months[0]))
