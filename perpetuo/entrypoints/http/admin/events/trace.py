"""
Why did a call go where it went, and where did its time and its money go?

Rule 1: only what the row says, or what follows from it by arithmetic. What it does not say is named in
        ``not_recorded``, never guessed: rows of an older release, and of calls whose worker died, say less.
Rule 2: ``start_ms`` counts from the request's arrival; ``None``: this row does not say it.
Rule 3: the parts of `time_of` add up to the call's latency.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perpetuo.domain.model.events import Event, Outcome
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.routing import Why
from perpetuo.entrypoints.http.admin.facts import Facts

Row = Mapping[str, Any]

SKIPPED = {
    Why.OPEN.value: "Its breaker was open: it gets no calls until it is tried again.",
    Why.PROBING.value: "Its breaker was half open, and another call was its trial.",
    Why.COOLING.value: "It had answered 429, and is left alone until the time it named is over.",
    Why.CREDENTIAL.value: "It had rejected the gateway's own credential less than a minute before.",
}
FAILED = {
    Fault.CLIENT_ERROR.value: "It refused the request itself; no other target would take it, so this is the answer.",
    Fault.CONTEXT_LENGTH.value: "It found the input too long for its model.",
    Fault.CREDENTIAL.value: "It rejected the gateway's own credential.",
    Fault.RATE_LIMITED.value: "It limits the rate of the gateway's calls.",
    Fault.SERVER_ERROR.value: "It failed by itself, or its answer could not be used.",
    Fault.CONNECT.value: "No connection to it could be made; it never saw the call.",
    Fault.TIMEOUT.value: "It did not answer in time.",
    Fault.RESET.value: "Its connection broke before there was an answer.",
    Fault.PROTOCOL.value: "Its answer was no proper HTTP, or lied about its length.",
    Fault.ABORTED.value: "The gateway stopped it: its client had left, or the worker had to end.",
}
SUCCESS = "success"
FINAL = frozenset({Fault.CLIENT_ERROR.value, Fault.ABORTED.value})
"""After these there is no further attempt, whatever is left."""
BROKE = {
    Outcome.TRUNCATED.value: "It began to answer, and its stream stopped before its end.",
    Outcome.FAILED.value: "It began to answer, and the call failed after that.",
    Outcome.CANCELLED.value: "It began to answer, and the client left.",
}
STARTS = "When each attempt began: this row is of a release that did not note it. Such bars follow each other."
SETTLING = "How long settling took: the row is written by that very step."
IN_FLIGHT = "How many calls were in flight when it was admitted: the limit of calls at once is checked, not noted."
GIVEN_UP = (
    "Why there was no further attempt: no target was left, all attempts or the provider's retries were used up, "
    "a hold could not grow, or the time was over."
)
DIED = "Anything but what was held: the worker that had the call died, and another one wrote this row."
LEAST_MS = 0.0005
"""Times are noted to the microsecond: less is rounding."""


def trace_of(event: Event) -> Facts:
    """The decision trace of a call, in the order in which it went."""
    attempts = attempts_of(event)
    return {
        "targets": targets_of(event),
        "attempts": attempts,
        "limits": limits_of(event.decision),
        "money": money_of(event),
        "time": time_of(event),
        "steps": steps_of(event, attempts),
        "not_recorded": [*_not_recorded(event)],
    }


def _not_recorded(event: Event) -> Iterable[str]:
    if not event.decision:
        yield DIED
        return
    if any("start_ms" not in one for one in event.attempts):
        yield STARTS
    if event.attempts and event.attempts[-1].get("outcome") not in {SUCCESS, *FINAL}:
        yield GIVEN_UP
    yield IN_FLIGHT
    yield SETTLING


# --- where it could go, and where it went --------------------------------------------------------


def name_of(row: Row) -> str:
    return f"{row.get('provider')}/{row.get('model')}"


def targets_of(event: Event) -> list[Facts]:
    """What became of each candidate, and of what was skipped without being one."""
    skipped = {name_of(one): str(one.get("why")) for one in event.decision.get("skipped", ())}
    names = [str(one) for one in event.decision.get("candidates", ())]
    known = dict.fromkeys([*names, *skipped, *(name_of(one) for one in event.attempts)])
    answered = any(one.get("outcome") in {SUCCESS, Fault.CLIENT_ERROR.value} for one in event.attempts)
    return [_target(event, name, skipped.get(name), answered) for name in known]


def _target(event: Event, name: str, why: str | None, answered: bool) -> Facts:
    asked = [n for n, one in enumerate(event.attempts, 1) if name_of(one) == name]
    if asked:
        latest = event.attempts[asked[-1] - 1]
        fate = "answered" if latest.get("outcome") == SUCCESS else "failed"
        text = _why(event, latest, asked[-1] == len(event.attempts))
        if fate == "failed" and why is not None:
            text = f"{text} {_skipped(why)}"
    elif why is not None:
        fate, text = "skipped", _skipped(why)
    elif answered:
        fate, text = "not_needed", "A target before it gave the answer."
    else:
        fate, text = "not_asked", "The call ended before its turn came."
    return {"target": name, "fate": fate, "attempts": asked, "why": text}


def _skipped(why: str) -> str:
    return SKIPPED.get(why, why)


def attempts_of(event: Event) -> list[Facts]:
    """``how``: the first, ``again`` at a target that was asked before, or a ``fallback`` to another one."""
    seen: set[str] = set()
    found: list[Facts] = []
    for number, one in enumerate(event.attempts, 1):
        name = name_of(one)
        how = "first" if not seen else "again" if name in seen else "fallback"
        seen.add(name)
        found.append({
            "number": number,
            "provider": one.get("provider"),
            "model": one.get("model"),
            "how": how,
            "outcome": one.get("outcome"),
            "status": one.get("status") or None,
            "sent": one.get("sent", True),
            "start_ms": one.get("start_ms"),
            "ms": one.get("ms"),
            "why": _why(event, one, number == len(event.attempts)),
        })  # fmt: skip
    return found


def _why(event: Event, one: Row, last: bool) -> str | None:
    outcome = str(one.get("outcome"))
    if outcome == SUCCESS:
        return BROKE.get(event.outcome) if last else None
    return FAILED.get(outcome, outcome)


# --- limits and money ----------------------------------------------------------------------------


def limits_of(decision: Row) -> list[Facts]:
    """As the admission left them, this call counted in. ``percent`` is rounded down; 0 to 100."""
    rates = [_rate(one) for one in decision.get("rates", ())]
    return [*rates, *(_budget(one) for one in decision.get("budgets", ()))]


def _rate(one: Row) -> Facts:
    limit, left = int(one["limit"]), int(one["remaining"])
    return {
        "limit": "requests_per_minute",
        "scope": one["scope"],
        "window": None,
        "used": limit - left,
        "held": None,
        "allowed": limit,
        "left": left,
        "percent": _percent(limit - left, limit),
    }


def _budget(one: Row) -> Facts:
    limit, spent, held = one["limit"], int(one["spent"]), int(one["held"])
    return {
        "limit": f"budget_{one['period']}_usd",
        "scope": one["scope"],
        "window": one["window"],
        "used": usd(spent),
        "held": usd(held),
        "allowed": None if limit is None else usd(limit),
        "left": None if limit is None else usd(limit - spent - held),
        "percent": None if limit is None else _percent(spent + held, limit),
    }


def _percent(part: int, whole: int) -> int:
    return min(100, max(0, part * 100 // whole)) if whole > 0 else 100


def money_of(event: Event) -> Facts:
    """``given_back_usd``: what was held and not charged; negative when the charge was higher than the hold."""
    kept = int(event.decision.get("kept", 0))
    return {
        "held_usd": usd(event.hold_nano_usd),
        "charged_usd": usd(event.cost_nano_usd),
        "for_failed_attempts_usd": usd(kept),
        "for_the_answer_usd": usd(event.cost_nano_usd - kept),
        "given_back_usd": usd(event.hold_nano_usd - event.cost_nano_usd),
        "more_than_held": event.cost_nano_usd > event.hold_nano_usd,
        "usage_basis": event.usage_basis,
        "price_version": event.price_version,
        "budget_day": event.budget_day,
    }


# --- time ----------------------------------------------------------------------------------------


def time_of(event: Event) -> Facts:
    """
    Where the latency went.

    ``pause``: waiting before a target was asked again. It follows from the row, as ``overhead_ms`` is what is neither
    that nor waiting for providers. ``stream`` has the client's taking of it in.
    """
    decision = event.decision
    if decision.get("upstream_ms") is None:
        return {"total_ms": event.latency_ms, "parts": []}
    upstream, admission = float(decision["upstream_ms"]), float(decision.get("admit_ms") or 0.0)
    streamed = _streamed_ms(event, upstream)
    paused = _least(event.latency_ms - event.overhead_ms - upstream)
    parts = {
        "admission": admission,
        "providers": upstream - streamed,
        "pause": paused,
        "stream": streamed,
        "gateway": _least(event.latency_ms - admission - upstream - paused),
    }
    return {
        "total_ms": event.latency_ms,
        "parts": [{"part": name, "ms": round(value, 3)} for name, value in parts.items()],
    }


def _streamed_ms(event: Event, upstream: float) -> float:
    """From the first token on: what was spent on providers beside the attempts, which end with it."""
    if not event.stream or not event.attempts or event.attempts[-1].get("outcome") != SUCCESS:
        return 0.0
    return _least(upstream - sum(float(one.get("ms") or 0.0) for one in event.attempts))


def _least(value: float) -> float:
    return value if value > LEAST_MS else 0.0


def steps_of(event: Event, attempts: Sequence[Facts]) -> list[Facts]:
    """One after the other: admission, each attempt and the pauses between them, the stream, the end."""
    time = {one["part"]: one["ms"] for one in time_of(event)["parts"]}
    if not time:
        return [_step("attempt", one["start_ms"], float(one["ms"] or 0.0), one["number"]) for one in attempts]
    steps = [_step("admission", 0.0, time["admission"])]
    known: float | None = time["admission"]
    for one in attempts:
        start = _start_of(event, one, last=one["number"] == len(attempts))
        if start is not None and known is not None and start - known >= 1.0:
            steps.append(_step("between", known, start - known))
        steps.append(_step("attempt", start, float(one["ms"] or 0.0), one["number"]))
        known = None if start is None else start + float(one["ms"] or 0.0)
    if time["stream"]:
        steps.append(_step("stream", event.first_token_ms, time["stream"]))
        known = None if event.first_token_ms is None else event.first_token_ms + time["stream"]
    if known is not None:
        steps.append(_step("end", min(known, event.latency_ms), _least(event.latency_ms - known)))
    return steps


def _start_of(event: Event, attempt: Facts, *, last: bool) -> float | None:
    """Noted; or, of one that ended with the first token, what that says."""
    if attempt["start_ms"] is not None:
        return float(attempt["start_ms"])
    if last and event.first_token_ms is not None and attempt["outcome"] == SUCCESS:
        return max(0.0, event.first_token_ms - float(attempt["ms"] or 0.0))
    return None


def _step(name: str, start: float | None, ms: float, attempt: int | None = None) -> Facts:
    return {
        "step": name,
        "attempt": attempt,
        "start_ms": None if start is None else round(start, 3),
        "ms": round(ms, 3),
    }
