"""
Which tenant is nearest to one of its limits?

Rule 1: near is the highest share of any limit that is used: of the minute's calls, of calls at once, of the day's and
        the month's budget, spent and held; with raises in force, of the tenant itself or of one of its keys.
Rule 2: a scope without a limit is near to nothing. A limit of zero is used up.
Rule 3: equals stand in the order of their ids.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

import attrs

from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.tenants import Limits, Tenant
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.policy.windows import Window, day_at, key_scope, month_at

NO_LIMITS = Limits()
WHOLE = 1_000_000
"""A share of 100 %."""


class Watched(NamedTuple):
    """A scope whose use of its limits is asked for, as one of thousands."""

    tenant: str
    scope: str
    limits: Limits
    day: Window
    month: Window


class Used(NamedTuple):
    """Money spent and held in the day and the month, calls of the last minute and in flight."""

    day: int = 0
    month: int = 0
    admitted: int = 0
    in_flight: int = 0


NOTHING = Used()


def watched(tenants: Iterable[Tenant], raises: Sequence[Raise], now_us: int) -> Iterator[Watched]:
    """The tenants, and those of their keys that have limits of their own."""
    windows: dict[str, tuple[Window, Window]] = {}
    raised: defaultdict[str, list[Raise]] = defaultdict(list)
    for one in raising.in_force(raises, now_us):
        raised[one.scope].append(one)
    for tenant in tenants:
        day, month = windows.get(tenant.time_zone) or windows.setdefault(tenant.time_zone, _windows(tenant, now_us))
        yield Watched(tenant.id, tenant.id, _with(tenant.limits, raised.get(tenant.id)), day, month)
        for key in tenant.keys:
            if key.limits != NO_LIMITS:
                scope = key_scope(tenant.id, key.name)
                yield Watched(tenant.id, scope, _with(key.limits, raised.get(scope)), day, month)


def _windows(tenant: Tenant, now_us: int) -> tuple[Window, Window]:
    zone = ZoneInfo(tenant.time_zone)
    return day_at(now_us, zone), month_at(now_us, zone)


def _with(limits: Limits, raises: Sequence[Raise] | None) -> Limits:
    if not raises:
        return limits
    day, month = ([one for one in raises if one.period == period] for period in ("day", "month"))
    return attrs.evolve(
        limits,
        budget_day=raising.raised(limits.budget_day, day),
        budget_month=raising.raised(limits.budget_month, month),
    )


def share(limits: Limits, used: Used) -> int:
    """In millionths of the limit it is nearest to; 0 when there is none."""
    most = 0
    whole = (limits.budget_day, limits.budget_month, limits.rate_per_minute, limits.concurrency)
    for part, limit in zip(used, whole, strict=True):
        if limit is not None:
            near = part * WHOLE // limit if limit else WHOLE
            most = max(most, near)
    return most


def _has_zero(limits: Limits) -> bool:
    return 0 in (limits.budget_day, limits.budget_month, limits.rate_per_minute, limits.concurrency)


def nearest_first(tenants: Iterable[Tenant], scopes: Iterable[tuple[Watched, Used]]) -> list[Tenant]:
    """Rules 1 and 3."""
    shares: dict[str, int] = {}
    for scope, used in scopes:
        near = share(scope.limits, used) if used is not NOTHING or _has_zero(scope.limits) else 0
        if near > shares.get(scope.tenant, 0):
            shares[scope.tenant] = near
    return sorted(tenants, key=lambda one: (-shares.get(one.id, 0), one.id))
