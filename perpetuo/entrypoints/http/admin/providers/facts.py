"""Providers and their breakers, in words and figures."""

from collections import Counter
from collections.abc import Sequence
from statistics import quantiles
from urllib.parse import urlsplit

from perpetuo.domain.model.events import Outcome
from perpetuo.domain.model.models import ModelTable, ProviderSpec
from perpetuo.domain.policy.breaker import BreakerChange, BreakerPhase, BreakerReading, Cause
from perpetuo.domain.policy.routing import Cooldowns
from perpetuo.domain.ports import ProviderCall
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import SECOND_US, Facts, percent_of

FINE = frozenset({Outcome.COMPLETED.value, Outcome.CANCELLED.value})
CAUSES: dict[Cause, str] = {
    Cause.NEVER_CHANGED: "has not changed yet",
    Cause.FAILURE_RATE: "too many calls failed",
    Cause.CONNECT_FAILURES: "it could not be reached several times in a row",
    Cause.PROBE_FAILED: "the trial call failed",
    Cause.PROBE_SUCCEEDED: "the trial call succeeded",
    Cause.OPERATOR: "by an operator",
}


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
            "failure_percent": percent_of(reading.failures, reading.outcomes) if reading.outcomes else None,
            "connect_failures_in_a_row": reading.connect_streak,
            "window_s": rules.window_us // SECOND_US,
            "open_for_s": rules.open_us // SECOND_US,
            "changed_at": iso(reading.changed_us) if reading.changed_us else None,
            "cause": reading.cause.value,
            "because": CAUSES[reading.cause],
        },
    }


def change(one: BreakerChange) -> Facts:
    """A line of a breaker's history."""
    opened = one.phase is BreakerPhase.OPEN
    return {
        "at": iso(one.at_us),
        "state": one.phase.value,
        "cause": one.cause.value,
        "because": CAUSES[one.cause],
        "until": iso(one.until_us) if opened and one.until_us else None,
    }


def cooldowns(found: Cooldowns, provider: str, now_us: int) -> list[Facts]:
    """What one worker leaves out for a while, and why; the longest first."""
    waits = [(until, model, "rate_limited") for (name, model), until in found.targets.items() if name == provider] + [
        (until, None, "credential_refused") for name, until in found.credentials.items() if name == provider
    ]
    return [
        {"model": model, "reason": reason, "until": iso(until), "seconds_left": -(-(until - now_us) // SECOND_US)}
        for until, model, reason in sorted(waits, key=lambda wait: -wait[0])
        if until > now_us
    ]


def recent(calls: Sequence[ProviderCall], limit: int) -> Facts:
    """
    How the calls of the last hour went; ``complete`` is false when there were more than were looked at.

    Latencies are those of calls that did not fail: a refused connection would make a provider look fast.
    """
    fine = [call for call in calls if call.outcome in FINE]
    failed = [call for call in calls if call.outcome not in FINE]
    codes = Counter(call.error_code or call.outcome for call in failed)
    return {
        "calls": len(calls),
        "complete": len(calls) < limit,
        "failed": len(failed),
        "failed_percent": percent_of(len(failed), len(calls)) if calls else None,
        "latency_ms": _spread([call.latency_ms for call in fine]),
        "first_token_ms": _spread([call.first_token_ms for call in fine if call.first_token_ms is not None]),
        "errors": [{"code": code, "count": count} for code, count in codes.most_common()],
    }


def _spread(values: Sequence[float]) -> Facts | None:
    """The median and what 95 % stay below; ``None``: there is nothing to tell of."""
    if not values:
        return None
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
    return {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3)}
