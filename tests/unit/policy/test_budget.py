"""Does the budget policy hold exactly what fits, and tell spent from merely held?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.admission import BudgetReading, BudgetRefused
from perpetuo.domain.model.money import Nano
from perpetuo.domain.policy import budget
from perpetuo.domain.policy.budget import BudgetWindow, UncountableError
from tests.contract.ledger_world import DAY, MIDNIGHT, day

AMOUNTS = st.integers(0, 10**15)


def reading(limit: int | None, spent: int, held: int, scope: str = "acme") -> BudgetReading:
    return budget.reading(day(limit, scope), BudgetWindow(Nano(spent), Nano(held)), MIDNIGHT - 1)


def grant(*readings: BudgetReading, hold: int, hold_min: int | None = None) -> int | BudgetRefused:
    return budget.grant(readings, Nano(hold), Nano(hold if hold_min is None else hold_min))


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_b1_granted_iff_it_fits(limit: int, spent: int, held: int, hold: int) -> None:
    """Spent + held + hold ≤ limit, exactly; and what was granted keeps the sum within the limit."""
    granted = grant(reading(limit, spent, held), hold=hold)
    assert isinstance(granted, int) == (spent + held + hold <= limit)
    if isinstance(granted, BudgetRefused):
        assert granted.reserved == (spent + hold <= limit)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=4), AMOUNTS, AMOUNTS)
def test_b1_a_lowered_hold_fits_every_window(windows: list[tuple[int, int]], hold: int, short: int) -> None:
    """Never less than the minimum, never more than asked, never more than the least that is left."""
    readings = [reading(limit, spent, 0) for limit, spent in windows]
    least = min(limit - spent for limit, spent in windows)
    hold_min = max(0, hold - short)
    granted = grant(*readings, hold=hold, hold_min=hold_min)
    if least >= hold_min:
        assert granted == min(hold, least)
    else:
        assert isinstance(granted, BudgetRefused)


@pytest.mark.parametrize(
    ("spent", "held", "reserved"), [(0, 71, True), (70, 1, True), (71, 0, False), (71, 29, False), (101, 0, False)]
)
def test_b3_spent_is_not_held(spent: int, held: int, reserved: bool) -> None:
    """A hold of 30 under 100: 429 while only calls in flight are in the way, 403 once it is spent."""
    refused = grant(reading(100, spent, held), hold=30)
    assert isinstance(refused, BudgetRefused)
    assert refused.reserved is reserved


def test_b3_reserved_goes_by_the_minimum() -> None:
    """What would do is what counts, not what would be nice."""
    refused = grant(reading(100, 75, 20), hold=30, hold_min=25)
    assert isinstance(refused, BudgetRefused)
    assert refused.reserved
    refused = grant(reading(100, 75, 20), hold=30, hold_min=26)
    assert isinstance(refused, BudgetRefused)
    assert not refused.reserved


def test_b3_the_last_nano_fits() -> None:
    """70 + 30 = 100 is within a limit of 100 (> for ≥ fails here)."""
    assert grant(reading(100, 40, 30), hold=30) == 30


def test_b1_the_first_refusing_limit_is_named() -> None:
    """In the order of the list, whatever the others say."""
    refused = grant(reading(None, 9, 9), reading(100, 0, 90, "b"), reading(10, 10, 0, "c"), hold=30)
    assert isinstance(refused, BudgetRefused)
    assert (refused.reading.scope, refused.reserved) == ("b", True)


def test_b1_no_limit_refuses_nothing() -> None:
    """``None`` only counts, also for a hold nobody could pay; with a limit beside it, all of the hold counts."""
    most = budget.MOST_INFORMATIVE
    assert grant(reading(None, 10**15, 10**15), hold=most) == most
    assert grant(reading(None, 0, 0), hold=2**31 * 128 * 600_000) == most
    assert grant(reading(None, 0, 0), reading(10**15, 0, 0), hold=most + 1) == most + 1
    assert grant(hold=7) == 7


def test_b6_the_boundary_belongs_to_the_next_window() -> None:
    """Before it the current window, from it on the following (wrong day fails here)."""
    before, after = (budget.reading(day(1), budget.EMPTY, at) for at in (MIDNIGHT - 1, MIDNIGHT))
    assert (before.window, before.resets_at_us) == ("2025-11-24", MIDNIGHT)
    assert (after.window, after.resets_at_us) == ("2025-11-25", MIDNIGHT + DAY)


def test_b4_settling_moves_money() -> None:
    """What was held goes, what was used comes; a correction may be negative."""
    window = BudgetWindow(Nano(10), Nano(50))
    assert budget.settle(window, Nano(30), Nano(7)) == BudgetWindow(Nano(17), Nano(20))
    assert budget.settle(window, Nano(0), Nano(-4)) == BudgetWindow(Nano(6), Nano(50))


def test_b8_a_hold_grows_within_what_is_left() -> None:
    """The last nano is granted; one more is refused: reserved if others hold it, else spent."""
    read = reading(100, 10, 60)
    assert budget.growth([read], Nano(30), Nano(90)) is None
    refused = budget.growth([read], Nano(31), Nano(90))
    assert refused is not None
    assert refused.reserved
    refused = budget.growth([read], Nano(31), Nano(91))
    assert refused is not None
    assert not refused.reserved
    assert budget.growth([reading(None, 0, 0)], Nano(10**15), Nano(10**15)) is None


@pytest.mark.parametrize("charge", [-1, budget.MOST_CHARGED + 1, 2**63])
def test_b4_a_charge_no_counter_can_take_is_an_error(charge: int) -> None:
    """Never cut, never counted: it says what is wrong. All below it are exact in every store (2^53)."""
    with pytest.raises(UncountableError, match="stays held"):
        budget.check_charge(Nano(charge))
    budget.check_charge(budget.MOST_CHARGED)
    assert float(budget.MOST_CHARGED) + 1 != float(budget.MOST_CHARGED)
