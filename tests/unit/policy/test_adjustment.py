"""What does an adjustment refuse, and which windows does it leave alone? The policy, without a store that forgets."""

import attrs
import pytest

from perpetuo.domain.model.admission import AdmitRefused
from perpetuo.domain.model.budgets import AdjustDecision, Adjusted
from perpetuo.domain.model.money import Nano
from perpetuo.domain.policy import calls
from perpetuo.domain.policy.adjustment import WINDOW_KEPT_US, adjust
from perpetuo.domain.policy.admission import AdmissionState
from perpetuo.domain.policy.budget import BudgetWindow
from tests.contract.ledger_world import MIDNIGHT, NOON, TENANT, adjustment, day, month

BOTH = (day(100), month(None))
DAY_KEY, MONTH_KEY = (TENANT, "2025-11-24"), (TENANT, "2025-11")
SPENT = AdmissionState("one", budgets={key: BudgetWindow(spent=Nano(50)) for key in (DAY_KEY, MONTH_KEY)})
LESS = adjustment("a", -20, *BOTH)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (attrs.evolve(SPENT, room=False, seeded=False), AdmitRefused.NO_ROOM),
        (attrs.evolve(SPENT, seeded=False), AdmitRefused.UNSEEDED),
    ],
)
def test_b7_a_store_without_room_or_counters_is_left_alone(state: AdmissionState, expected: AdjustDecision) -> None:
    """Its event would find no place, or its sum would be of nothing."""
    assert adjust(state, LESS, NOON) == (expected, state)


def test_a1_what_was_done_is_told_whatever_the_store_is_now() -> None:
    """Known comes before room and counters."""
    state = attrs.evolve(SPENT, call=calls.Tombstone(NOON + 1), room=False, seeded=False)
    decision, after = adjust(state, LESS, NOON)
    assert isinstance(decision, Adjusted)
    assert (decision.repeated, after) == (True, state)


@pytest.mark.parametrize(
    ("now", "changed"),
    [(MIDNIGHT + WINDOW_KEPT_US - 1, [DAY_KEY, MONTH_KEY]), (MIDNIGHT + WINDOW_KEPT_US, [MONTH_KEY])],
)
def test_b6_a_window_that_is_over_is_changed_for_48_hours(now: int, changed: list[tuple[str, str]]) -> None:
    """Then it is left as it was, also by a store that has it still."""
    decision, after = adjust(SPENT, LESS, now)
    assert isinstance(decision, Adjusted)
    assert [(read.scope, read.window) for read in decision.budgets] == changed
    assert {key: after.budgets[key].spent for key in SPENT.budgets} == {
        key: 30 if key in changed else 50 for key in SPENT.budgets
    }
