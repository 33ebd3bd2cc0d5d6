"""
What can an operator do to a budget besides configuring it: raise it for a while, adjust what was spent?

A `Raise` is a limit that is higher until an instant; an `Adjustment` is money that was charged too much or too little.
Amounts are nano-USD, times µs since the epoch. ``id`` is that of the event that tells of it, and makes it repeatable.
"""

import attrs

from perpetuo.domain.model.admission import AdmitRefused, BudgetReading
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano


@attrs.frozen
class Raise:
    """The budget of ``scope`` over ``period`` (``day`` or ``month``) is higher by ``amount`` until ``until_us``."""

    id: str
    tenant: str
    scope: str
    period: str
    amount: Nano
    until_us: int
    actor: str = ""
    reason: str = ""


@attrs.frozen
class PastRaises:
    """What the event table knows of raises: those made, and of those ended early the id and when they would end."""

    made: tuple[Raise, ...] = ()
    ended: tuple[tuple[str, str, int], ...] = ()
    """Tenant, id, until when."""


@attrs.frozen
class Adjustment:
    """
    Change what was spent in ``windows`` by ``amount``, and append ``event``.

    ``windows`` are those of one scope or two, day and month; their money is not looked at.
    """

    id: str
    tenant: str
    amount: Nano
    windows: tuple[BudgetReading, ...]
    event: Event


@attrs.frozen
class Adjusted:
    """``budgets``: the windows that were changed, as they are now. ``repeated``: it had been done before."""

    budgets: tuple[BudgetReading, ...]
    repeated: bool = False


@attrs.frozen
class Uncovered:
    """The window's spending would fall below zero, or rise beyond what a counter may hold; nothing was changed."""

    reading: BudgetReading


AdjustDecision = Adjusted | Uncovered | AdmitRefused
"""Of `AdmitRefused`: ``UNSEEDED`` and ``NO_ROOM``."""
