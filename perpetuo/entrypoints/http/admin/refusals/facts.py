"""
Refusals and replays of one minute, in words and figures.

What says ``limit``, ``retry_after_ms`` and ``original_event`` is the sample: the first of the minute.
"""

from collections.abc import Mapping
from typing import Any

from perpetuo.domain.model.events import RefusalMinute
from perpetuo.domain.model.money import usd
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts


def refusal(row: RefusalMinute) -> Facts:
    decision = row.sample.get("decision") or {}
    wait = decision.get("retry_after_us")
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
        "limit": reached(decision.get("reached")),
        "retry_after_ms": None if wait is None else wait / 1_000,
        "original_event": decision.get("call") or None,
    }


def reached(told: Mapping[str, Any] | None) -> Facts | None:
    """Which limit said no, and how full it was; money in USD."""
    if told is None:
        return None
    if not str(told["limit"]).startswith("budget_"):
        return {**told, "window": None, "held": None, "needed": None}
    amounts = {name: usd(int(told[name] or 0)) for name in ("used", "held", "allowed", "needed")}
    return {**told, "limit": f"{told['limit']}_usd", **amounts}
