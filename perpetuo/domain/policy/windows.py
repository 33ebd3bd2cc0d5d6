"""
Which limits does a caller have right now, and when do its budget windows end?

Rule 1: a day and a month begin at midnight in the tenant's IANA zone. Where the clocks change, a day has 23 or
        25 hours; where they change at midnight, it begins at the first instant that has its date.
Rule 2: day and month of the tenant and of the key are always counted, limited or not (Σ events = counter): a key
        that gets a budget during the day has spent what it has spent, calls in flight included. (Reading it from
        SQL at that moment would miss those, and what other workers admit meanwhile. It costs 9 µs a call.)
Rule 3: the ledger's clock picks between this window and the next, so the limits hold across the boundary;
        `CallerLimits.until_us` says when to make new ones.
Rule 4: a budget that an operator has raised is higher until the raise ends (see `raises`); limits are made anew then.
Rule 5: a tenant with a rate limit may have ten times as many replays: they cost little, but not nothing.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import attrs

from perpetuo.domain.model.admission import BudgetLimit, ConcurrencyLimit, RateLimit
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.tenants import Caller, Limits, Tenant
from perpetuo.domain.policy import raises as raising

SECOND_US = 1_000_000
REPLAYS_PER_CALL = 10


@attrs.frozen
class CallerLimits:
    """What one admission of a caller has to pass. Scopes are ``tenant`` and ``tenant/key``."""

    rates: tuple[RateLimit, ...]
    concurrency: tuple[ConcurrencyLimit, ...]
    budgets: tuple[BudgetLimit, ...]
    replays: RateLimit | None
    """How often answers kept under idempotency keys are given out, to all keys of the tenant together."""
    raised_until_us: int | None = None
    """When the first raise that counts in here ends."""

    @property
    def day(self) -> str:
        """The tenant's date."""
        return self.budgets[0].current

    @property
    def until_us(self) -> int:
        """The nearest end of a window or of a raise: make new limits then."""
        window = min(b.boundary_us for b in self.budgets)
        return window if self.raised_until_us is None else min(window, self.raised_until_us)


@attrs.frozen
class Window:
    """A calendar window and the one after it; instants in µs since the epoch."""

    period: str
    current: str
    following: str
    boundary_us: int
    following_end_us: int

    def limit(self, scope: str, limit: Nano | None) -> BudgetLimit:
        return BudgetLimit(
            scope, self.period, limit, self.current, self.following, self.boundary_us, self.following_end_us
        )


def limits_of(caller: Caller, now_us: int, raises: Sequence[Raise] = ()) -> CallerLimits:
    """
    The limits of ``caller`` at *now*: the tenant's first, then the key's; only the tenant's if it has no name.

    ``raises`` are the tenant's; those that have ended, or are of another key, change nothing.
    """
    tenant, key = caller.tenant, caller.key
    own = ((key_scope(tenant.id, key.name), key.limits),) if key.name else ()
    scoped = ((tenant.id, tenant.limits), *own)
    zone = ZoneInfo(tenant.time_zone)
    day, month = day_at(now_us, zone), month_at(now_us, zone)
    budgets = tuple(limit for scope, one in scoped for limit in _budgets(scope, one, day, month))
    raises = raising.in_force(raises, now_us)
    return CallerLimits(
        rates=tuple(RateLimit(s, one.rate_per_minute) for s, one in scoped if one.rate_per_minute is not None),
        concurrency=tuple(ConcurrencyLimit(s, one.concurrency) for s, one in scoped if one.concurrency is not None),
        budgets=tuple(_raised(limit, raises) for limit in budgets) if raises else budgets,
        replays=_replays(tenant),
        raised_until_us=min((one.until_us for one in raises), default=None),
    )


def _replays(tenant: Tenant) -> RateLimit | None:
    calls = tenant.limits.rate_per_minute
    return None if calls is None else RateLimit(replay_scope(tenant.id), REPLAYS_PER_CALL * calls)


def _raised(budget: BudgetLimit, raises: Sequence[Raise]) -> BudgetLimit:
    return attrs.evolve(budget, limit=raising.raised(budget.limit, raising.of_budget(raises, budget)))


def _budgets(scope: str, limits: Limits, day: Window, month: Window) -> tuple[BudgetLimit, BudgetLimit]:
    return day.limit(scope, limits.budget_day), month.limit(scope, limits.budget_month)


def key_scope(tenant: str, key: str) -> str:
    """The scope of one key: its limits come on top of the tenant's."""
    return f"{tenant}/{key}"


def replay_scope(tenant: str) -> str:
    """The scope of a tenant's replays. No key has this name: names neither begin nor end with a space."""
    return key_scope(tenant, " replays")


def day_at(now_us: int, zone: ZoneInfo) -> Window:
    """The day *now* falls into, in ``zone``."""
    today = _date_at(now_us // SECOND_US, zone)
    end = _midnight(today + timedelta(days=1), zone)
    tomorrow = _date_at(end, zone)
    after = _midnight(tomorrow + timedelta(days=1), zone)
    return Window("day", today.isoformat(), tomorrow.isoformat(), end * SECOND_US, after * SECOND_US)


def month_at(now_us: int, zone: ZoneInfo) -> Window:
    """The month *now* falls into, in ``zone``."""
    this = _date_at(now_us // SECOND_US, zone).replace(day=1)
    following = _next_month(this)
    end, after = _midnight(following, zone), _midnight(_next_month(following), zone)
    return Window("month", f"{this:%Y-%m}", f"{following:%Y-%m}", end * SECOND_US, after * SECOND_US)


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _date_at(seconds: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(seconds, zone).date()


def _midnight(day: date, zone: ZoneInfo) -> int:
    """
    Where a date begins, in seconds since the epoch.

    ``fold=0`` reads a midnight that does not exist with the offset before the change, which is the
    instant of the change, and one that occurs twice as the first (PEP 495).
    """
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())
