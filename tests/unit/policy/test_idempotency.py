"""Who may run under an idempotency key, and what is kept of the run?"""

import pytest

from perpetuo.domain.model.admission import LEASE_US, ClaimRefused, Keep, Replay, UnknownOutcome
from perpetuo.domain.policy import idempotency
from perpetuo.domain.policy.idempotency import UNSEEN, ClaimState, Done, Free, NotKept, Room, Run, Running
from tests.contract.ledger_world import DAY, MINUTE, NOON, answer, claim

CLAIM = claim()
RUNNING = idempotency.start(CLAIM, 4, "c0", NOON)
END = NOON + LEASE_US
ROOM = Room(max_bytes=10, max_bytes_per_tenant=20, kept_bytes=0, accepts=True)
TEN = answer(b"0123456789")


def ask(state: ClaimState, now: int = NOON, *, trusted: bool = True, **changed: object) -> object:
    return idempotency.ask(state, claim(**changed), now, trusted)  # type: ignore[arg-type]


def test_i5_a_free_key_runs_under_the_next_fence() -> None:
    """Never seen: 1. Freed: one more than before, while the store remembers."""
    assert ask(UNSEEN) == Run(1)
    assert ask(Free(4, END), END - 1) == Run(5)
    assert ask(Free(4, END), END) == Run(1)


def test_i4_a_live_lease_is_in_progress() -> None:
    """To the last µs, and beyond it while the store is not trusted."""
    assert ask(RUNNING, END - 1) is ClaimRefused.IN_PROGRESS
    assert ask(RUNNING, END, trusted=False) is ClaimRefused.IN_PROGRESS


def test_i7_an_ended_lease_runs_again_or_is_unknown() -> None:
    """As the asking claim says; the second run has a higher fence."""
    assert ask(RUNNING, END) == Run(5, reexecuted=True)
    assert ask(RUNNING, END, on_unknown=UnknownOutcome.FAIL) is ClaimRefused.OUTCOME_UNKNOWN


def test_i3_a_key_belongs_to_its_request() -> None:
    """Running, done or not kept: another fingerprint is refused; a free key takes any."""
    for state in (RUNNING, Done(1, "f", TEN, END), NotKept(1, "f", END)):
        assert ask(state, fingerprint="g") is ClaimRefused.REUSED
    assert ask(Free(1, END), fingerprint="g") == Run(2)


def test_i2_an_answer_is_replayed_until_it_expires() -> None:
    """To the last µs; then the key is as if never seen."""
    assert ask(Done(3, "f", TEN, END), END - 1) == Replay(TEN)
    assert ask(Done(3, "f", TEN, END), END) == Run(1)
    assert ask(NotKept(3, "f", END), END - 1) is ClaimRefused.NOT_STORED


def test_i7_a_run_is_remembered_for_a_day_at_least() -> None:
    """Also where answers are kept shorter or not at all; longer where they are kept longer."""
    assert idempotency.start(claim(ttl_us=0), 1, "c", NOON).expires_us == END + DAY
    assert idempotency.start(claim(ttl_us=2 * DAY), 1, "c", NOON).expires_us == END + 2 * DAY


@pytest.mark.parametrize(("call", "fence"), [("c0", 3), ("c1", 4)])
def test_i5_only_its_own_run_holds_a_key(call: str, fence: int) -> None:
    """Both the fence and the call must be right; nobody else renews it."""
    assert idempotency.ours(RUNNING, "c0", 4, NOON)
    assert not idempotency.ours(RUNNING, call, fence, NOON)
    assert idempotency.renew(RUNNING, CLAIM, fence, call, NOON + MINUTE) is RUNNING
    assert not idempotency.ours(Done(4, "f", TEN, END), "c0", 4, NOON)
    assert not idempotency.ours(RUNNING, "c0", 4, RUNNING.expires_us)


def test_i5_renewing_never_shortens_a_lease() -> None:
    """Later: moved on. The clock went back: as it was."""
    renewed = idempotency.renew(RUNNING, CLAIM, 4, "c0", NOON + 5)
    assert isinstance(renewed, Running)
    assert renewed.lease_end_us == END + 5
    assert idempotency.renew(RUNNING, CLAIM, 4, "c0", NOON - 5) == RUNNING


def test_b7_a_lost_run_gets_its_key_back_unless_taken() -> None:
    """An unseen key is the run's again; one that somebody holds, or has freed, is not."""
    assert idempotency.restore(UNSEEN, CLAIM, 4, "c0", NOON) == RUNNING
    other = idempotency.start(CLAIM, 1, "c9", NOON)
    assert idempotency.restore(other, CLAIM, 4, "c0", NOON) is other
    assert idempotency.restore(Free(1, END), CLAIM, 4, "c0", NOON) == Free(1, END)


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (ROOM, True),
        (Room(9, 20, 0, accepts=True), False),
        (Room(10, 20, 10, accepts=True), True),
        (Room(10, 20, 11, accepts=True), False),
        (Room(10, 20, 0, accepts=False), False),
    ],
)
def test_i9_what_does_not_fit_is_not_kept(room: Room, kept: bool) -> None:
    """The last byte fits, in itself and in the tenant's share; a full store keeps nothing."""
    state = idempotency.finish(CLAIM, 4, Keep.STORE, TEN, room, NOON)
    expected: ClaimState = Done(4, "f", TEN, NOON + DAY) if kept else NotKept(4, "f", NOON + DAY)
    assert state == expected


def test_i6_what_becomes_of_the_key() -> None:
    """Free for what is worth retrying, and where nothing is kept; marked when there is no answer to keep."""
    free = Free(4, NOON + MINUTE)
    assert idempotency.finish(CLAIM, 4, Keep.FREE, TEN, ROOM, NOON) == free
    assert idempotency.finish(claim(ttl_us=0), 4, Keep.STORE, TEN, ROOM, NOON) == free
    assert idempotency.finish(claim(ttl_us=0), 4, Keep.MARK, None, ROOM, NOON) == free
    assert idempotency.finish(CLAIM, 4, Keep.MARK, TEN, ROOM, NOON) == NotKept(4, "f", NOON + DAY)
    assert idempotency.finish(CLAIM, 4, Keep.STORE, None, ROOM, NOON) == NotKept(4, "f", NOON + DAY)
