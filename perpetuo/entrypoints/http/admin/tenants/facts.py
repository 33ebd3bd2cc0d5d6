"""Tenants, their limits and what they use of them, in words and figures."""

from collections.abc import Iterator, Sequence

from perpetuo.domain.gateway.operate import TenantStanding
from perpetuo.domain.model.admission import BudgetReading
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.ports import ScopeUsage
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts, percent_of


def tenant(standing: TenantStanding) -> Facts:
    one = standing.tenant
    use = {usage.scope: usage for usage in standing.usage}
    found = {
        **tenant_as_configured(one),
        "budgets": [budget(r, standing.raises) for r in standing.budgets if r.scope == one.id],
        "raises": [raise_facts(raised) for raised in standing.raises],
        **_calls(one.limits, use.get(one.id)),
        "keys": [
            {
                **_key(key),
                "budgets": [budget(r, standing.raises) for r in standing.budgets if r.scope == f"{one.id}/{key.name}"],
                **_calls(key.limits, use.get(f"{one.id}/{key.name}")),
            }
            for key in one.keys
        ],
    }
    return {**found, "nearest": nearest(found)}


def tenant_as_configured(one: Tenant) -> Facts:
    """All that is known of a tenant when its use can't be read."""
    return {
        "id": one.id,
        "plan": one.plan,
        "time_zone": one.time_zone,
        "models": list(one.models),
        "limits": limits(one.limits),
        "keys": [_key(key) for key in one.keys],
        "nearest": None,
    }


def _key(key: ApiKey) -> Facts:
    return {
        "name": key.name,
        "expires_at": iso(key.expires_us) if key.expires_us is not None else None,
        "models": list(key.models) if key.models is not None else None,
        "limits": limits(key.limits),
    }


def limits(own: Limits) -> Facts:
    return {
        "rate_per_minute": own.rate_per_minute,
        "concurrency": own.concurrency,
        "budget_day_usd": usd(own.budget_day) if own.budget_day is not None else None,
        "budget_month_usd": usd(own.budget_month) if own.budget_month is not None else None,
    }


def _calls(own: Limits, use: ScopeUsage | None) -> Facts:
    """Calls are counted only where there is a limit on them."""
    rate, concurrency = own.rate_per_minute, own.concurrency
    return {
        "requests_last_minute": use.admitted_last_minute if use is not None and rate is not None else None,
        "rate_percent": percent_of(use.admitted_last_minute, rate) if use is not None else None,
        "in_flight": use.in_flight if use is not None and concurrency is not None else None,
        "concurrency_percent": percent_of(use.in_flight, concurrency) if use is not None else None,
    }


def budget(reading: BudgetReading, raises: Sequence[Raise] = ()) -> Facts:
    """``limit_usd`` has what ``raises`` add in; ``raised_usd`` is how much that is."""
    left = reading.remaining
    raised = raising.of_budget(raises, reading) if reading.limit is not None else ()
    return {
        "scope": reading.scope,
        "period": reading.period,
        "window": reading.window,
        "limit_usd": usd(reading.limit) if reading.limit is not None else None,
        "spent_usd": usd(reading.spent),
        "held_usd": usd(reading.held),
        "left_usd": usd(left) if left is not None else None,
        "spent_percent": percent_of(reading.spent, reading.limit),
        "held_percent": percent_of(reading.held, reading.limit),
        "used_percent": percent_of(reading.spent + reading.held, reading.limit),
        "resets_at": iso(reading.resets_at_us),
        "raised_usd": usd(sum(one.amount for one in raised)) if raised else None,
        "raised_until": iso(min(one.until_us for one in raised)) if raised else None,
    }


def raise_facts(one: Raise) -> Facts:
    return {
        "id": one.id,
        "tenant": one.tenant,
        "key": one.scope[len(one.tenant) + 1 :] or None,
        "window": one.period,
        "usd": usd(one.amount),
        "until": iso(one.until_us),
        "actor": one.actor,
        "reason": one.reason,
    }


def fullest(facts: Facts) -> float:
    """How near to one of its limits, in percent?"""
    near = nearest(facts)
    return 0.0 if near is None else near["percent"]


def nearest(facts: Facts) -> Facts | None:
    """The limit of which most is used, of the tenant or of a key; ``None``: there is none, or it is not known."""
    found = [*_shares(facts, None)]
    for key in facts["keys"]:
        found += _shares(key, key["name"])
    return max(found, key=lambda share: share["percent"], default=None)


def _shares(facts: Facts, key: str | None) -> Iterator[Facts]:
    for one in facts.get("budgets", ()):
        if one["used_percent"] is not None:
            yield {"limit": f"budget_{one['period']}", "key": key, "percent": one["used_percent"]}
    for limit, name in (("rate_per_minute", "rate_percent"), ("concurrency", "concurrency_percent")):
        if facts.get(name) is not None:
            yield {"limit": limit, "key": key, "percent": facts[name]}
