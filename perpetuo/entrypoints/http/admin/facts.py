"""
What is there to know, in words and figures?

Values of the domain as plain dictionaries: the JSON of ``/admin/api`` and what the templates show, from one source.
Money is decimal USD as text, instants are ISO 8601 in UTC, spans say their unit in their name. Keys appear by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from perpetuo.domain.gateway.operate import KIND, TenantStanding
from perpetuo.domain.model.admission import BudgetReading
from perpetuo.domain.model.events import Event, RefusalMinute
from perpetuo.domain.model.models import ModelTable, ProviderSpec
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerReading, Cause
from perpetuo.domain.ports import ScopeUsage
from perpetuo.entrypoints.http.account import iso

Facts = dict[str, Any]
SECOND_US = 1_000_000

CAUSES: dict[Cause, str] = {
    Cause.NEVER_CHANGED: "has not changed yet",
    Cause.FAILURE_RATE: "too many calls failed",
    Cause.CONNECT_FAILURES: "it could not be reached several times in a row",
    Cause.PROBE_FAILED: "the trial call failed",
    Cause.PROBE_SUCCEEDED: "the trial call succeeded",
    Cause.OPERATOR: "by an operator",
}


def listed(items: Sequence[Facts], unavailable: str | None = None) -> Facts:
    """A list that may be missing because its store is away."""
    return {"items": list(items), "unavailable": unavailable}


def span(seconds: int) -> str:
    """A span in the unit one would say it in."""
    for size, unit in ((172_800, "d"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds // {'d': 86_400, 'h': 3_600, 'min': 60}[unit]} {unit}"
    return f"{seconds} s"


# --- providers -----------------------------------------------------------------------------------


def provider(spec: ProviderSpec, reading: BreakerReading, models: ModelTable, now_us: int) -> Facts:
    view, rules = reading.view, spec.breaker
    open_now = view.phase is BreakerPhase.OPEN
    return {
        "id": spec.id,
        "kind": spec.kind.value,
        "host": urlsplit(spec.base_url).netloc or None,
        "models": [m.name for m in models.by_name.values() if any(t.provider == spec.id for t in m.targets)],
        "breaker": {
            "state": view.phase.value,
            "open_until": iso(view.until_us) if open_now else None,
            "seconds_left": max(0, -(-(view.until_us - now_us) // SECOND_US)) if open_now else None,
            "calls": reading.outcomes,
            "failures": reading.failures,
            "connect_failures_in_a_row": reading.connect_streak,
            "window_s": rules.window_us // SECOND_US,
            "open_for_s": rules.open_us // SECOND_US,
            "changed_at": iso(reading.changed_us) if reading.changed_us else None,
            "cause": reading.cause.value,
            "because": CAUSES[reading.cause],
        },
    }


# --- tenants -------------------------------------------------------------------------------------


def tenant(standing: TenantStanding) -> Facts:
    one = standing.tenant
    use = {usage.scope: usage for usage in standing.usage}
    return {
        **tenant_as_configured(one),
        "budgets": [budget(reading) for reading in standing.budgets if reading.scope == one.id],
        **_calls(one.limits, use.get(one.id)),
        "keys": [
            {
                **_key(key),
                "budgets": [budget(r) for r in standing.budgets if r.scope == f"{one.id}/{key.name}"],
                **_calls(key.limits, use.get(f"{one.id}/{key.name}")),
            }
            for key in one.keys
        ],
    }


def tenant_as_configured(one: Tenant) -> Facts:
    """All that is known of a tenant when its use can't be read."""
    return {
        "id": one.id,
        "plan": one.plan,
        "time_zone": one.time_zone,
        "models": list(one.models),
        "limits": limits(one.limits),
        "keys": [_key(key) for key in one.keys],
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
        "rate_percent": _percent(use.admitted_last_minute, rate) if use is not None else None,
        "in_flight": use.in_flight if use is not None and concurrency is not None else None,
        "concurrency_percent": _percent(use.in_flight, concurrency) if use is not None else None,
    }


def budget(reading: BudgetReading) -> Facts:
    left = reading.remaining
    return {
        "scope": reading.scope,
        "period": reading.period,
        "window": reading.window,
        "limit_usd": usd(reading.limit) if reading.limit is not None else None,
        "spent_usd": usd(reading.spent),
        "held_usd": usd(reading.held),
        "left_usd": usd(left) if left is not None else None,
        "spent_percent": _percent(reading.spent, reading.limit),
        "held_percent": _percent(reading.held, reading.limit),
        "used_percent": _percent(reading.spent + reading.held, reading.limit),
        "resets_at": iso(reading.resets_at_us),
    }


def _percent(part: int, whole: int | None) -> float | None:
    """To one decimal, rounded down, so that 100 means all of it."""
    if whole is None:
        return None
    return part * 1_000 // whole / 10 if whole > 0 else 100.0


def fullest(facts: Facts) -> float:
    """How near to one of its limits, in percent?"""
    shares = [b["used_percent"] for b in facts.get("budgets", ())]
    shares += [facts.get("rate_percent"), facts.get("concurrency_percent")]
    return max((share for share in shares if share is not None), default=0.0)


# --- events --------------------------------------------------------------------------------------


def event_brief(event: Event) -> Facts:
    """One line of a list."""
    return {
        "id": event.id,
        "at": iso(event.occurred_at_us),
        "kind": event.kind,
        "tenant": event.tenant_id,
        "key": event.key_name,
        "model": event.model,
        "provider": event.provider,
        "stream": event.stream,
        "status": event.status,
        "outcome": event.outcome,
        "error_code": event.error_code,
        "attempts": len(event.attempts),
        "cost_usd": usd(event.cost_nano_usd),
        "latency_ms": event.latency_ms,
        "request_id": event.request_id,
        "action": action(event.decision, event.provider) if event.kind == KIND else None,
    }


def action(decision: Mapping[str, Any], about: str | None) -> str:
    """What an operator did."""
    if decision.get("action") == "breaker_open":
        done = f"opened the breaker of {about} for {decision.get('open_for_s')} s"
    elif decision.get("action") == "breaker_close":
        done = f"closed the breaker of {about}"
    else:
        done = str(decision.get("action"))
    return done if decision.get("everywhere", True) else f"{done}, on one worker only: Redis was away"


def event_whole(event: Event) -> Facts:
    """Everything kept of one call, its decision in USD and sentences' order."""
    decision = event.decision
    return {
        **event_brief(event),
        "attempts": [dict(attempt) for attempt in event.attempts],
        "upstream_model": event.upstream_model,
        "tag": event.tag,
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cached_tokens": event.cached_tokens,
        "usage_basis": event.usage_basis,
        "price_version": event.price_version,
        "held_usd": usd(event.hold_nano_usd),
        "budget_day": event.budget_day,
        "first_token_ms": event.first_token_ms,
        "overhead_ms": event.overhead_ms,
        "idempotency": event.idempotency,
        "upstream_request_id": event.upstream_request_id,
        "trace_id": event.trace_id,
        "client_ip": event.client_ip,
        "decision": decision if event.kind == KIND else _decision(decision),
    }


def _decision(found: Mapping[str, Any]) -> Facts:
    """Amounts in USD; what an older or abandoned row does not have stays out."""
    facts: Facts = {
        "candidates": list(found.get("candidates", ())),
        "skipped": [dict(one) for one in found.get("skipped", ())],
        "rates": [dict(one) for one in found.get("rates", ())],
        "budgets": [
            {
                "scope": one["scope"],
                "period": one["period"],
                "window": one["window"],
                "limit_usd": usd(one["limit"]) if one["limit"] is not None else None,
                "spent_usd": usd(one["spent"]),
                "held_usd": usd(one["held"]),
            }
            for one in found.get("budgets", ())
        ],
        "max_tokens": found.get("max_tokens"),
        "max_tokens_reason": found.get("max_tokens_reason"),
        "kept_usd": usd(found.get("kept", 0)),
    }
    return facts | {name: found.get(name) for name in ("admit_ms", "upstream_ms", "after_ms")}


# --- refusals ------------------------------------------------------------------------------------


def refusal(row: RefusalMinute) -> Facts:
    return {
        "minute": iso(row.minute_us),
        "tenant": row.tenant_id,
        "key": row.key_name,
        "reason": row.reason,
        "client_ip": row.client_ip or None,
        "count": row.count,
        "first_at": iso(row.first_us),
        "last_at": iso(row.last_us),
        "status": row.sample.get("status"),
        "model": row.sample.get("model"),
        "request_id": row.sample.get("request_id"),
    }
