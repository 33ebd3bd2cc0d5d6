"""
What does Grafana show of a gateway?

Rows from what callers notice to what explains it: calls, money, providers, the gateway itself. Every query is one that
``promtool`` reads; names of metrics come from the gateway's table.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from perpetuo.adapters.telemetry import metrics as m

SOURCE = {"type": "prometheus", "uid": "${source}"}
SCHEMA_VERSION = 39
COLUMNS = 24
HEIGHT = 8


@attrs.frozen
class Panel:
    """``queries``: PromQL, each with the legend of its lines."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    text: str = ""


def _rate(metric: m.Metric, by: str, chosen: str = "") -> str:
    return f"sum by ({by}) (rate({metric.name}{chosen}[$__rate_interval]))"


def _quantile(metric: m.Metric, share: float, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric.name}_bucket[$__rate_interval])))"


def _quantiles(metric: m.Metric) -> list[tuple[str, str]]:
    return [(_quantile(metric, share), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)]


TENANT = '{tenant=~"$tenant"}'
ROWS: dict[str, Sequence[Panel]] = {
    "Calls": (
        Panel("Calls a second, by status", "reqps", [(_rate(m.REQUESTS, "status", TENANT), "{{status}}")]),
        Panel("Refusals a second, by reason", "reqps", [(_rate(m.REFUSALS, "reason", TENANT), "{{reason}}")]),
        Panel("Duration", "s", _quantiles(m.DURATION)),
        Panel("Time to first token", "s", _quantiles(m.FIRST_TOKEN)),
        Panel("In flight", "short", [(f"sum({m.IN_FLIGHT.name})", "calls")]),
        Panel("Requests without a valid key", "reqps", [(f"sum(rate({m.AUTH_FAILURES.name}[$__rate_interval]))", "")]),
    ),
    "Money": (
        Panel("USD an hour, by tenant", "currencyUSD", [(f"3600 * {_rate(m.COST, 'tenant', TENANT)}", "{{tenant}}")]),
        Panel(
            "Budget used",
            "percentunit",
            [(f"1 - {m.BUDGET.name}{TENANT} / ({m.BUDGET_LIMIT.name}{TENANT} > 0)", "{{tenant}}, {{window}}")],
            "Spent and held. At 100 % further calls are refused.",
        ),
        Panel("Tokens a second", "short", [(_rate(m.TOKENS, "direction, model", TENANT), "{{model}}, {{direction}}")]),
        Panel(
            "Calls that cost more than their hold",
            "short",
            [(f"sum(increase({m.HOLD_EXCEEDED.name}[1h]))", "in an hour")],
            "Should stay at 0.",
        ),
        Panel("Idempotency", "reqps", [(_rate(m.IDEMPOTENCY, "result"), "{{result}}")]),
    ),
    "Providers": (
        Panel(
            "Breakers that are not closed",
            "short",
            [(f'max by (provider, state) ({m.BREAKER.name}{{state!="closed"}})', "{{provider}} {{state}}")],
        ),
        Panel("Attempts a second", "reqps", [(_rate(m.ATTEMPTS, "provider, outcome"), "{{provider}}, {{outcome}}")]),
        Panel("Connections", "short", [(f"sum by (provider, state) ({m.CONNECTIONS.name})", "{{provider}} {{state}}")]),
    ),
    "The gateway": (
        Panel("Time in the gateway itself", "s", _quantiles(m.OVERHEAD)),
        Panel("Events that SQL does not have yet", "short", [(m.BACKLOG.name, "events")]),
        Panel("Failed steps of stores", "ops", [(_rate(m.STORE_ERRORS, "store"), "{{store}}")]),
        Panel("Memory of a worker", "bytes", [(m.RESIDENT.name, "{{worker}}")]),
        Panel("Open files of a worker", "short", [(m.FILES.name, "{{worker}}")]),
        Panel(
            "Reloads and abandoned calls",
            "short",
            [
                (f"sum by (result) (increase({m.RELOADS.name}[1h]))", "reload, {{result}}"),
                (f"sum(increase({m.ABANDONED.name}[1h]))", "abandoned calls"),
            ],
        ),
    ),
}


def document() -> dict[str, Any]:
    """The dashboard, for Grafana's import or provisioning; the data source is chosen there."""
    return {
        "uid": "perpetuo",
        "title": "Perpetuo",
        "tags": ["perpetuo"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_source(), _tenant()]},
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
        }  # fmt: skip
        top += 1
        for at, panel in enumerate(panels):
            number += 1
            yield _panel(number, panel, at % 3 * COLUMNS // 3, top + at // 3 * HEIGHT)
        top += -(-len(panels) // 3) * HEIGHT


def _panel(number: int, panel: Panel, left: int, top: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": left, "y": top, "w": COLUMNS // 3, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": query, "legendFormat": legend or "__auto"}
            for at, (query, legend) in enumerate(panel.queries)
        ],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _tenant() -> dict[str, Any]:
    return {
        "name": "tenant",
        "label": "Tenant",
        "type": "query",
        "datasource": SOURCE,
        "query": f"label_values({m.REQUESTS.name}, tenant)",
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
