"""What did an operator's action change: what was before it, and what after?"""

from collections.abc import Mapping
from typing import Any

from perpetuo.domain.gateway.budgets import ADJUSTED
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import usd
from perpetuo.domain.policy.raises import ENDED, RAISED
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts, span

LIMITS = "The limit before and after: this row is of a release that did not note it."
SPENT = "What was spent before and after: the counter is changed and this row is written in one step."
RELEASED = "The limit without the raise: it is in the configuration of that time."


def change_of(event: Event) -> Facts:
    """``rows``: each with ``what``, ``before``, ``after``; ``None``: this row does not say it."""
    told = event.decision
    match told.get("action"):
        case "breaker_open" | "breaker_close":
            rows, unknown = [_breaker(event, told)], []
        case action if action == RAISED:
            rows = _raised(told)
            unknown = [] if "limit_after_nano_usd" in told else [LIMITS]
        case action if action == ENDED:
            raised = f"raised by {usd(int(told['amount_nano_usd']))} USD until {_minute(told)}"
            rows, unknown = [_row(_budget(told), raised, "not raised by this any more")], [RELEASED]
        case action if action == ADJUSTED:
            rows, unknown = [_adjusted(event, told)], [SPENT]
        case _:
            rows, unknown = [], ["What this action changed."]
    return {
        "actor": told.get("actor", event.key_name),
        "reason": told.get("reason") or None,
        "everywhere": told.get("everywhere", True),
        "rows": rows,
        "not_recorded": unknown,
    }


def _row(what: str, before: str | None, after: str | None) -> Facts:
    return {"what": what, "before": before, "after": after}


def _breaker(event: Event, told: Mapping[str, Any]) -> Facts:
    seconds = told.get("open_for_s")
    after = "closed" if told.get("action") == "breaker_close" else f"open for {span(int(seconds or 0))}"
    before = str(told["before"]).replace("_", " ") if "before" in told else None
    return _row(f"Breaker of {event.provider}", before, after)


def _raised(told: Mapping[str, Any]) -> list[Facts]:
    before, after = (told.get(f"limit_{when}_nano_usd") for when in ("before", "after"))
    limit = _row(
        _budget(told),
        None if before is None else f"{usd(int(before))} USD",
        f"{usd(int(told['amount_nano_usd']))} USD more" if after is None else f"{usd(int(after))} USD",
    )
    return [limit, _row("Until", "–", _minute(told))]


def _minute(told: Mapping[str, Any]) -> str:
    until = iso(int(told["until_us"]))
    return f"{until[:10]} {until[11:16]} UTC"


def _budget(told: Mapping[str, Any]) -> str:
    return f"{str(told.get('period')).capitalize()} budget of {told.get('scope')}"


def _adjusted(event: Event, told: Mapping[str, Any]) -> Facts:
    amount = int(told["amount_nano_usd"])
    change = f"{usd(abs(amount))} USD {'more' if amount > 0 else 'less'}"
    return _row(f"Spent by {told.get('scope')} on {event.budget_day}", None, change)
