"""Providers and their breakers, in words and figures."""

from urllib.parse import urlsplit

from perpetuo.domain.model.models import ModelTable, ProviderSpec
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerReading, Cause
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import SECOND_US, Facts

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
            "connect_failures_in_a_row": reading.connect_streak,
            "window_s": rules.window_us // SECOND_US,
            "open_for_s": rules.open_us // SECOND_US,
            "changed_at": iso(reading.changed_us) if reading.changed_us else None,
            "cause": reading.cause.value,
            "because": CAUSES[reading.cause],
        },
    }
