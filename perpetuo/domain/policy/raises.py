"""
By how much is a budget higher now, and what does the event table say of raises?

Rule 1: a raise counts while ``now < until_us``. One that has ended is the same as none.
Rule 2: raises of the same budget add up. A budget that has no limit has nothing to raise.
Rule 3: a raise is known by its event, so a store that lost it gets it back: `past` reads made and ended ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perpetuo.domain.model.admission import BudgetLimit, BudgetReading
from perpetuo.domain.model.budgets import PastRaises, Raise
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano

RAISED, ENDED = "budget_raise", "budget_raise_end"
LONGEST_US = 31 * 86_400_000_000
"""What stays higher for longer belongs into the configuration; and its event might be gone when it is needed."""


def in_force(raises: Iterable[Raise], now_us: int) -> tuple[Raise, ...]:
    return tuple(one for one in raises if now_us < one.until_us)


def of_budget(raises: Iterable[Raise], budget: BudgetLimit | BudgetReading) -> tuple[Raise, ...]:
    return tuple(one for one in raises if (one.scope, one.period) == (budget.scope, budget.period))


def raised(limit: Nano | None, raises: Sequence[Raise]) -> Nano | None:
    """A limit with what is in force on top (rule 2)."""
    return None if limit is None else Nano(limit + sum(one.amount for one in raises))


def as_decision(one: Raise) -> dict[str, Any]:
    """What the event of a raise says, and `past` reads."""
    return {
        "scope": one.scope, "period": one.period, "amount_nano_usd": one.amount, "until_us": one.until_us,
        "actor": one.actor, "reason": one.reason,
    }  # fmt: skip


def past(events: Iterable[Event]) -> PastRaises:
    """The raises that these events tell of; others are passed over."""
    made: list[Raise] = []
    ended: list[tuple[str, str, int]] = []
    for event in events:
        said = event.decision
        if event.kind != "admin" or said.get("action") not in {RAISED, ENDED}:
            continue
        if said["action"] == ENDED:
            ended.append((event.tenant_id, str(said["raise"]), int(said["until_us"])))
        else:
            made.append(_from(event, said))
    return PastRaises(tuple(made), tuple(ended))


def _from(event: Event, said: Mapping[str, Any]) -> Raise:
    return Raise(
        id=event.id,
        tenant=event.tenant_id,
        scope=str(said["scope"]),
        period=str(said["period"]),
        amount=Nano(int(said["amount_nano_usd"])),
        until_us=int(said["until_us"]),
        actor=str(said["actor"]),
        reason=str(said["reason"]),
    )
