"""
Budget policy: is there money for this call, and what does its end change?

The state of a window is ``spent`` and ``held``, integer nano-USD. ``spent + held <= limit`` at every
instant, because a hold is an upper bound of what its call can cost.

Rule 1: the instant of admission picks the window: ``current`` before ``boundary_us``, ``following`` from
        then on. The choice is written into the hold; settlement, extension and reaping go by it.
Rule 2: left = limit - spent - held. The first limit in the list with ``left < hold_min`` refuses the call.
        Otherwise ``min(hold, least left)`` is granted: one amount, held in every window of the call.
Rule 3: a refusal is ``reserved`` iff ``spent + hold_min <= limit``: only calls in flight are in the way.
Rule 4: a limit of ``None`` counts spending and holds, and refuses nothing.
Rule 5: settling moves money: ``held -= what was held``, ``spent += the charge``. The charge may be more
        than the hold (a provider that ignored the limit); then rule 2 closes the window by itself.
Rule 6: a hold grows by ``extra`` iff ``extra <= left`` in every window; refused, it is ``reserved`` iff
        ``spent + the whole hold then <= limit``.
Rule 7: counters stay exact: a store's are 64 bits wide. Where no window has a limit, a hold only informs, and is
        at most `MOST_INFORMATIVE` (a client may ask for 2³¹ tokens of a dear model, 128 times). A charge is real
        money and never cut: one beyond `MOST_CHARGED` is an error.
"""

from collections.abc import Sequence

import attrs

from perpetuo.domain.model.admission import BudgetLimit, BudgetReading, BudgetRefused
from perpetuo.domain.model.money import NANO_PER_USD, ZERO, Nano


@attrs.frozen
class BudgetWindow:
    """Money of one scope in one window."""

    spent: Nano = ZERO
    held: Nano = ZERO


EMPTY = BudgetWindow()
MOST_INFORMATIVE = Nano(1_000 * NANO_PER_USD)
MOST_CHARGED = Nano(9_000_000 * NANO_PER_USD)
"""Just below 2⁵³, where a number of Lua is still exact."""


class UncountableError(ValueError):
    """No call costs that; whoever worked it out is wrong."""


def window_at(limit: BudgetLimit, at_us: int) -> str:
    """The window an admission at *at* falls into (rule 1)."""
    return limit.current if at_us < limit.boundary_us else limit.following


def reading(limit: BudgetLimit, window: BudgetWindow, at_us: int) -> BudgetReading:
    """``limit`` with the money of the window that *at* falls into."""
    return BudgetReading(
        scope=limit.scope,
        period=limit.period,
        window=window_at(limit, at_us),
        limit=limit.limit,
        spent=window.spent,
        held=window.held,
        resets_at_us=limit.boundary_us if at_us < limit.boundary_us else limit.following_end_us,
    )


def again(reading: BudgetReading, window: BudgetWindow) -> BudgetReading:
    """The same window with the money it has now."""
    return attrs.evolve(reading, spent=window.spent, held=window.held)


def grant(readings: Sequence[BudgetReading], hold: Nano, hold_min: Nano) -> Nano | BudgetRefused:
    """The amount to hold in every window, or the first refusal (rules 2 to 4)."""
    granted = as_held(hold, readings)
    for read in readings:
        if read.limit is None or read.remaining is None:
            continue
        if read.remaining < hold_min:
            return BudgetRefused(read, reserved=read.spent + hold_min <= read.limit)
        granted = min(granted, read.remaining)
    return granted


def as_held(amount: Nano, budgets: Sequence[BudgetLimit | BudgetReading]) -> Nano:
    """What is held for a call that may cost ``amount`` (rule 7)."""
    if amount <= MOST_INFORMATIVE or any(one.limit is not None for one in budgets):
        return amount
    return MOST_INFORMATIVE


def check_charge(charge: Nano) -> None:
    """Raise `UncountableError` for what no counter should see (rule 7)."""
    if not 0 <= charge <= MOST_CHARGED:
        raise UncountableError(
            f"a call can't be charged {charge} nano-USD: that is below zero or beyond {MOST_CHARGED}; it stays held"
        )


def growth(readings: Sequence[BudgetReading], extra: Nano, whole: Nano) -> BudgetRefused | None:
    """May a hold grow by ``extra`` to ``whole``? ``None``: yes (rule 6)."""
    for read in readings:
        if read.limit is not None and read.remaining is not None and read.remaining < extra:
            return BudgetRefused(read, reserved=read.spent + whole <= read.limit)
    return None


def hold(window: BudgetWindow, amount: Nano) -> BudgetWindow:
    return attrs.evolve(window, held=Nano(window.held + amount))


def settle(window: BudgetWindow, held: Nano, charge: Nano) -> BudgetWindow:
    """Release what was held and charge what was used (rule 5). A correction releases nothing."""
    return BudgetWindow(spent=Nano(window.spent + charge), held=Nano(window.held - held))
