"""Calls and admin actions, in words and figures."""

from collections.abc import Mapping
from typing import Any

from perpetuo.domain.gateway.budgets import ADJUSTED
from perpetuo.domain.gateway.operate import KIND
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import usd
from perpetuo.domain.policy.raises import ENDED, RAISED
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.events.changes import change_of
from perpetuo.entrypoints.http.admin.events.trace import trace_of
from perpetuo.entrypoints.http.admin.facts import Facts


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
        "actor": event.decision.get("actor", event.key_name) if event.kind == KIND else None,
    }


def action(decision: Mapping[str, Any], about: str | None) -> str:
    """What an operator did."""
    if decision.get("action") == "breaker_open":
        done = f"opened the breaker of {about} for {decision.get('open_for_s')} s"
    elif decision.get("action") == "breaker_close":
        done = f"closed the breaker of {about}"
    elif decision.get("action") in {RAISED, ENDED, ADJUSTED}:
        return budget_action(decision)
    else:
        done = str(decision.get("action"))
    return done if decision.get("everywhere", True) else f"{done}, on one worker only: Redis was away"


def budget_action(decision: Mapping[str, Any]) -> str:
    """``raised the day budget of acme by 20 USD: a launch``."""
    amount, scope = int(decision.get("amount_nano_usd", 0)), decision.get("scope")
    if decision.get("action") == ADJUSTED:
        done = f"adjusted what {scope} spent by {usd(amount)} USD"
    elif decision.get("action") == RAISED:
        done = f"raised the {decision.get('period')} budget of {scope} by {usd(amount)} USD"
    else:
        done = f"ended the raise of the {decision.get('period')} budget of {scope} by {usd(amount)} USD"
    reason = decision.get("reason")
    return f"{done}: {reason}" if reason else done


def event_shown(event: Event) -> Facts:
    """`event_whole`, and what its page shows of it: ``trace`` of a call, ``change`` of an action."""
    acted = event.kind == KIND
    shown: Facts = {"trace": None if acted else trace_of(event), "change": change_of(event) if acted else None}
    return {**event_whole(event), **shown}


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
