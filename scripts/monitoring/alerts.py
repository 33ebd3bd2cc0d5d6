"""
When should somebody be woken, or look in the morning?

Rule 1: an alert is about money, callers or data, and there is something to do about it: ``docs/alerts.md`` has a
section of its name that says what, and a test holds the two together.
Rule 2: ``page`` wakes somebody, ``ticket`` waits for the morning.
Rule 3: names of metrics come from the gateway's table; a metric that is renamed breaks this module, not the night.
"""

from collections.abc import Iterator
from typing import Any

import attrs

from perpetuo.adapters.telemetry import metrics as m

RUNBOOKS = "docs/alerts.md"
"""Where the pages of alerts are; ``make monitoring RUNBOOKS=https://docs.example.com/alerts`` puts your own there."""


@attrs.frozen
class Alert:
    """``expr`` in PromQL, ``held`` how long it has to be true; ``summary`` and ``text`` may name labels."""

    name: str
    severity: str
    expr: str
    held: str
    summary: str
    text: str


def rose(metric: m.Metric, span: str, by: str = "", **labels: str) -> str:
    """By how much a counter has risen; those that are asked for are on the page from the start (`Metric.always`)."""
    chosen = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    inner = f"increase({metric.name}{'{' + chosen + '}' if chosen else ''}[{span}])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


ALERTS = (
    Alert(
        "PerpetuoDown",
        "page",
        'up{job="perpetuo"} == 0',
        "1m",
        "{{ $labels.instance }} does not answer",
        "Prometheus could not read /metrics for a minute: the gateway is down, or this address is wrong.",
    ),
    Alert(
        "PerpetuoBudgetNearlySpent",
        "ticket",
        f"1 - {m.BUDGET.name} / ({m.BUDGET_LIMIT.name} > 0) >= 0.8",
        "1m",
        "{{ $labels.tenant }} has used {{ $value | humanizePercentage }} of its budget of the {{ $labels.window }}",
        "When it is used up the tenant's calls are refused with budget_exceeded until the next {{ $labels.window }}.",
    ),
    Alert(
        "PerpetuoBreakerOpen",
        "page",
        f'max by (provider) ({m.BREAKER.name}{{state="open"}}) == 1',
        "1m",
        "Provider {{ $labels.provider }} gets no calls",
        "Its breaker is open because too many calls failed. Calls go to other targets, or are refused with 503.",
    ),
    Alert(
        "PerpetuoCredentialRejected",
        "page",
        f"{rose(m.ATTEMPTS, '10m', by='provider', outcome='credential_rejected')} > 0",
        "0m",
        "{{ $labels.provider }} refuses our key",
        "The provider's answer was 401, 403 or insufficient_quota: the key is wrong, or its account is empty.",
    ),
    Alert(
        "PerpetuoHoldExceeded",
        "page",
        f"{rose(m.HOLD_EXCEEDED, '1h')} > 0",
        "0m",
        "A call cost more than was held for it",
        "A provider ignores the output limit, or a price or ceiling is wrong. Budgets can be passed by this.",
    ),
    Alert(
        "PerpetuoBacklogGrowing",
        "page",
        f"{m.BACKLOG.name} > 1000 and deriv({m.BACKLOG.name}[10m]) > 0",
        "10m",
        "{{ $value | humanize }} finished calls wait to be written to SQL, and they get more",
        "Nothing is lost while Redis has room; when it is full, calls are refused with audit_unavailable.",
    ),
    Alert(
        "PerpetuoStoreErrors",
        "page",
        f"{rose(m.STORE_ERRORS, '5m', by='store')} > 5",
        "2m",
        "Steps of {{ $labels.store }} fail",
        "Redis (ledger, stream, breakers) or the database (sql) does not do what the gateway asks of it.",
    ),
    Alert(
        "PerpetuoRefusedForWantOfStores",
        "page",
        f'sum(increase({m.REFUSALS.name}{{reason=~"store_unavailable|audit_unavailable"}}[5m])) > 0',
        "1m",
        "{{ $value | humanize }} calls were refused because a store is away",
        "Callers get 503 until Redis is back or has room. Nothing was sent to a provider for these calls.",
    ),
    Alert(
        "PerpetuoCallsFail",
        "page",
        f'sum by (model) (rate({m.REQUESTS.name}{{status=~"5.."}}[5m]))'
        f" / (sum by (model) (rate({m.REQUESTS.name}[5m])) > 0.1) > 0.1",
        "5m",
        "{{ $value | humanizePercentage }} of the calls to {{ $labels.model }} fail",
        "They ended with a status of 500 or more for five minutes.",
    ),
    Alert(
        "PerpetuoAbandonedCalls",
        "ticket",
        f"{rose(m.ABANDONED, '1h')} > 0",
        "0m",
        "{{ $value | humanize }} calls were settled because their worker died",
        "They were charged at their whole hold. Why did the worker die, and should the tenants get money back?",
    ),
    Alert(
        "PerpetuoReloadFailed",
        "ticket",
        f"{rose(m.RELOADS, '15m', result='failure')} > 0 unless {rose(m.RELOADS, '2m', result='success')} > 0",
        "0m",
        "A changed configuration was not taken over",
        "The file is not valid. The one before stays in force, also across this alert's end; a restart would fail.",
    ),
    Alert(
        "PerpetuoSlow",
        "ticket",
        f"histogram_quantile(0.99, sum by (le) (rate({m.OVERHEAD.name}_bucket[5m]))) > 0.1",
        "10m",
        "The gateway itself takes {{ $value | humanizeDuration }} of a call (p99)",
        "Time spent in the gateway, not at providers: it lacks CPU, or Redis is slow.",
    ),
    Alert(
        "PerpetuoGuessedKeys",
        "ticket",
        f"{rose(m.AUTH_FAILURES, '5m')} > 300",
        "5m",
        "{{ $value | humanize }} requests without a valid key in five minutes",
        "An application has a key that was removed or has expired, or somebody tries keys.",
    ),
)


def document(runbooks: str) -> dict[str, Any]:
    """The rules file, for Prometheus's ``rule_files``; alerts link to ``runbooks``."""
    return {"groups": [{"name": "perpetuo", "rules": list(_rules(runbooks))}]}


def _rules(runbooks: str) -> Iterator[dict[str, Any]]:
    for alert in ALERTS:
        yield {
            "alert": alert.name,
            "expr": alert.expr,
            "for": alert.held,
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": alert.text,
                "runbook_url": f"{runbooks}#{alert.name.lower()}",
            },
        }
