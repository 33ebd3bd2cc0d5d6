"""
What does it change when an operator adjusts what was spent?

One atomic step, as in `admission`: ``(state, asked, now) -> (decision, next state)``; stores follow it to the letter.

Rule 1: once per id, which is remembered for a day. Repeated, it changes nothing and answers how money stands.
Rule 2: the order is: known → room → seeded → money. Counters that were lost can't be adjusted before they are back.
Rule 3: all windows or none, and the event with them: so the counter stays the sum of the events.
Rule 4: a window that is over is changed only while its counter is kept (48 h); the event then still counts for sums.
Rule 5: what was spent never falls below zero, nor rises beyond what a counter holds exactly. What is held stays.
"""

import attrs

from perpetuo.domain.model.admission import AdmitRefused, BudgetReading
from perpetuo.domain.model.budgets import AdjustDecision, Adjusted, Adjustment, Uncovered
from perpetuo.domain.model.money import ZERO
from perpetuo.domain.policy import budget, calls
from perpetuo.domain.policy.admission import AdmissionState, Appended, Touched
from perpetuo.domain.policy.calls import Tombstone

REMEMBERED_US = 86_400_000_000
WINDOW_KEPT_US = 172_800_000_000


def call_of(adjustment: Adjustment) -> str:
    """Under which name it is remembered: no call has it."""
    return f"adjust-{adjustment.id}"


def touched_by(adjustment: Adjustment) -> Touched:
    windows = tuple((read.scope, read.window) for read in adjustment.windows)
    return Touched(tenant=adjustment.tenant, claim=None, rates=(), in_flight=(), budgets=windows)


def adjust(state: AdmissionState, adjustment: Adjustment, now_us: int) -> tuple[AdjustDecision, AdmissionState]:
    """Change what was spent, once (rules 1 to 5)."""
    before = [_reading(state, read) for read in adjustment.windows if _counts(state, read, now_us)]
    if calls.seen(state.call, now_us) is not None:
        return Adjusted(tuple(before), repeated=True), state
    if not state.room:
        return AdmitRefused.NO_ROOM, state
    if not state.seeded:
        return AdmitRefused.UNSEEDED, state
    for read in before:
        if not 0 <= read.spent + adjustment.amount <= budget.MOST_CHARGED:
            return Uncovered(read), state
    windows = {(r.scope, r.window): budget.settle(_money(state, r), ZERO, adjustment.amount) for r in before}
    state = attrs.evolve(
        state,
        call=Tombstone(now_us + REMEMBERED_US),
        budgets={**state.budgets, **windows},
        appended=(*state.appended, Appended(adjustment.event, 1)),
    )
    return Adjusted(tuple(_reading(state, read) for read in before)), state


def _counts(state: AdmissionState, read: BudgetReading, now_us: int) -> bool:
    if now_us < read.resets_at_us:
        return True
    return now_us < read.resets_at_us + WINDOW_KEPT_US and (read.scope, read.window) in state.budgets


def _money(state: AdmissionState, read: BudgetReading) -> budget.BudgetWindow:
    return state.budgets.get((read.scope, read.window), budget.EMPTY)


def _reading(state: AdmissionState, read: BudgetReading) -> BudgetReading:
    return budget.again(read, _money(state, read))
