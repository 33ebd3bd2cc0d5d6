"""
What is a finished call charged, and what is written down of it?

Rule 1: reported usage is charged exactly, at the price of the target that answered.
Rule 2: usage missing: a bound from counted bytes, marked ``estimated`` (B9).
Rule 3: an attempt that was sent and has no usage keeps its input cost, whatever came after.
Rule 4: an attempt the provider refused, or that never left, costs nothing.
Rule 5: what can't be settled now is settled later (`recover`); the client does not wait for it.
"""

from typing import Any

from perpetuo.domain.gateway.call import Call, Ended, ms
from perpetuo.domain.gateway.recover import InFlight
from perpetuo.domain.model.admission import Keep, Settled, Settlement, StoredAnswer
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.models import Target
from perpetuo.domain.model.money import ZERO, Nano
from perpetuo.domain.model.records import record
from perpetuo.domain.model.usage import Basis, Usage
from perpetuo.domain.ports import Journal, Ledger, StoreUnavailable, System


@record
class Charge:
    """What is charged, and on what knowledge."""

    amount: Nano
    usage: Usage
    basis: Basis


def charge_for(call: Call, ended: Ended) -> Charge:
    """Price an ended call."""
    price = call.target.price if call.target is not None else None
    if ended.usage is not None:
        amount = price.charge(ended.usage) if price is not None else ZERO
        return Charge(Nano(amount + call.kept), ended.usage, Basis.ESTIMATED if call.kept else Basis.REPORTED)
    if not ended.sent:
        return Charge(call.kept, Usage(), Basis.ESTIMATED if call.kept else Basis.REPORTED)
    bound = Usage(input_tokens=call.current.input_bound, output_tokens=ended.output_bytes)
    amount = price.at_most(bound.input_tokens, bound.output_tokens) if price is not None else ZERO
    if call.prepared.caller.has_budget:
        amount = Nano(min(amount, call.hold.amount - call.kept))
    return Charge(Nano(amount + call.kept), bound, Basis.ESTIMATED)


def keep_for(call: Call, answer: StoredAnswer | None, too_big: bool) -> Keep:
    """What becomes of the idempotency key."""
    claim = call.hold.claim
    if claim is None or claim.ttl_us == 0:
        return Keep.FREE
    if too_big:
        return Keep.MARK
    return Keep.FREE if answer is None else Keep.STORE


class Settler:
    """Ends calls: once each, in one atomic step of the ledger."""

    def __init__(self, ledger: Ledger, journal: Journal, system: System, in_flight: InFlight) -> None:
        self._ledger = ledger
        self._journal = journal
        self._system = system
        self._in_flight = in_flight

    async def settle(
        self, call: Call, ended: Ended, answer: StoredAnswer | None = None, *, too_big: bool = False
    ) -> tuple[Event, Settled | None]:
        """
        Charge, release, store and record. ``None`` for `Settled`: the store is away, and it is retried behind.

        The row's ``idempotency`` says ``stored`` only when the ledger can still be expected to store it.
        """
        settings = call.prepared.settings
        keep = keep_for(call, answer, too_big)
        if keep is Keep.STORE and not self._ledger.accepts_answers():
            keep = Keep.MARK
        event = self._event(call, ended, charge_for(call, ended), keep)
        settlement = Settlement(call.hold, Nano(event.cost_nano_usd), event, keep, answer)
        self._journal.finished(event)
        if call.prepared.caller.has_budget and event.cost_nano_usd > call.hold.amount:
            self._journal.hold_exceeded(event)
        try:
            settled = await self._ledger.settle(settlement, settings.idempotency)
        except StoreUnavailable as error:
            self._journal.store_error("ledger", str(error))
            self._in_flight.settle_later(settlement, settings.idempotency)
            return event, None
        self._in_flight.settled(call.id)
        return event, settled

    def _event(self, call: Call, ended: Ended, charge: Charge, keep: Keep) -> Event:
        """Field by field: copying the skeleton with changes would make every field twice."""
        now = self._system.monotonic()
        request, caller, target = call.prepared.request, call.prepared.caller, call.target
        latency = now - request.started
        return Event(
            id=call.id,
            occurred_at_us=request.started_us,
            tenant_id=caller.tenant.id,
            key_name=caller.key.name,
            kind=request.ask.kind,
            model=call.prepared.label,
            request_id=request.request_id,
            status=ended.status,
            outcome=ended.outcome,
            tag=request.tag,
            provider=target.provider if target else None,
            upstream_model=target.model if target else None,
            error_code=ended.error_code,
            stream=request.ask.stream,
            attempts=tuple(call.attempts),
            decision=decision_of(call, now),
            input_tokens=charge.usage.input_tokens,
            output_tokens=charge.usage.output_tokens,
            cached_tokens=charge.usage.cached_tokens,
            usage_basis=charge.basis,
            cost_nano_usd=charge.amount,
            price_version=target.price.version if target and target.price else None,
            hold_nano_usd=call.hold.amount,
            budget_day=call.hold.abandoned.budget_day,
            latency_ms=ms(latency),
            first_token_ms=call.first_token_ms,
            overhead_ms=ms(max(0.0, latency - call.elsewhere_seconds)),
            idempotency=idempotency_of(call, keep),
            upstream_request_id=call.upstream_request_id,
            trace_id=request.trace_id,
            client_ip=request.client_ip,
        )


def idempotency_of(call: Call, keep: Keep) -> str:
    """The value of ``events.idempotency`` and of the header."""
    if not call.with_key:
        return "none"
    if call.admitted.reexecuted:
        return "reexecuted"
    return "stored" if keep is Keep.STORE else "not_stored"


def candidates_of(call: Call) -> tuple[Target, ...]:
    """Targets of the model asked for, then those of the one with the larger context, if it went there."""
    asked = call.prepared.targets
    return asked if call.current is call.prepared else (*asked, *call.current.targets)


def decision_of(call: Call, now: float) -> dict[str, Any]:
    """Why the call went where it went: the trace shown by ``/admin`` and kept in ``events.decision``."""
    request = call.prepared.request
    decision = {
        "candidates": [f"{t.provider}/{t.model}" for t in candidates_of(call)],
        "skipped": call.skipped,
        "rates": [{"scope": r.scope, "limit": r.limit, "remaining": r.remaining} for r in call.admitted.rates],
        "budgets": [
            {
                "scope": b.scope,
                "period": b.period,
                "window": b.window,
                "limit": b.limit,
                "spent": b.spent,
                "held": b.held,
            }
            for b in call.hold.budgets
            if b.limit is not None or b.scope == call.hold.tenant
        ],
        "hold": call.hold.amount,
        "max_tokens": call.sent_limit,
        "max_tokens_reason": call.limit_reason,
        "kept": call.kept,
        "admit_ms": ms(call.admitted_at - request.started),
        "upstream_ms": ms(call.upstream_seconds),
        "after_ms": ms(max(0.0, now - call.admitted_at - call.upstream_seconds)),
    }
    if request.trace is not None:
        decision["trace"] = {"parent": request.trace.parent, "flags": request.trace.flags}
    return decision
