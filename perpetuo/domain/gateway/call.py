"""What does a worker remember of one call between its admission and its settlement?"""

from typing import Any

import attrs

from perpetuo.domain.gateway.prepare import Prepared
from perpetuo.domain.model.admission import Admitted, Hold
from perpetuo.domain.model.errors import Refusal
from perpetuo.domain.model.events import Event, Outcome
from perpetuo.domain.model.models import Target
from perpetuo.domain.model.money import ZERO, Nano
from perpetuo.domain.model.records import record
from perpetuo.domain.model.upstream import Abort, Answer, Fault
from perpetuo.domain.model.usage import Usage
from perpetuo.domain.ports import Client, Stream

CLIENT_GONE = "client_gone"
SHUTDOWN = "shutdown"
NEARLY = 0.9
"""A target that had so much of its own total timeout had all of it: admission and earlier waits cost some."""
TIMERS_EARLY = 0.05
"""Seconds: a timeout so shortly before the deadline is the deadline's."""


@attrs.define(eq=False)
class Call:
    """An admitted call on its way. Mutable: it belongs to one task."""

    prepared: Prepared
    admitted: Admitted
    abort: Abort
    """Stops the provider call. Never fires for a client that left when there is an idempotency key (I8)."""
    deadline: float
    """Monotonic seconds at which the call must be over."""
    limit: int | None
    """Output limit the hold pays for at every target; ``None``: leave the client's members alone."""
    hold: Hold
    """As it is now: `extend` makes it grow."""
    admitted_at: float
    """Monotonic seconds at which the ledger said yes."""
    client: Client
    current: Prepared
    """What it runs as now: another model's after ``largerContext``; ``prepared`` stays what was asked for."""
    attempt_cost: Nano
    """What one attempt may cost: the hold has this beside what is kept (B8)."""
    sent_limit: int | None = None
    """Output limit of the latest attempt: a target may have a lower ceiling than another."""
    attempts: list[dict[str, Any]] = attrs.field(factory=list)
    skipped: list[dict[str, Any]] = attrs.field(factory=list)
    target: Target | None = None
    """The target of the latest attempt."""
    generation: int = 0
    """Of the target's breaker when the latest attempt began: older results don't count."""
    probe: str | None = None
    """Its id if the latest attempt is its breaker's probe."""
    begun: float = 0.0
    """Monotonic seconds at which the latest attempt began."""
    writing: float = 0.0
    """Seconds of it spent on the client taking its bytes."""
    sending: bool = False
    """Is an attempt under way whose cost is in no account yet?"""
    result: Answer | Stream | None = None
    """The usable answer, once there is one."""
    kept: Nano = ZERO
    """Input cost of attempts that were sent and have no usage (B9)."""
    paused_seconds: float = 0.0
    """Time spent waiting before asking again."""
    upstream_seconds: float = 0.0
    """Time spent waiting for providers."""
    first_token_ms: float | None = None
    upstream_request_id: str | None = None

    @property
    def id(self) -> str:
        return self.hold.call

    @property
    def elsewhere_seconds(self) -> float:
        """Time that is not the gateway's own."""
        return self.upstream_seconds + self.paused_seconds

    @property
    def with_key(self) -> bool:
        return self.hold.claim is not None

    @property
    def limit_reason(self) -> str | None:
        """Why the limit sent is not the client's own: ``ceiling`` or ``budget``."""
        if self.sent_limit is None or self.sent_limit == self.current.request.ask.output_limit:
            return None
        lowered = self.sent_limit == self.limit and self.limit != self.current.limit
        return "budget" if lowered else "ceiling"

    def cut_short(self, now: float) -> bool:
        """Is the call's time over before the latest attempt had its target's own? Then its silence is no fault (C5)."""
        if self.target is None or now < self.deadline - TIMERS_EARLY:
            return False
        asked, own = self.prepared.request.timeout, self.target.timeouts.total
        if asked is not None and asked < own:
            return True
        return now - self.begun - self.writing < NEARLY * own

    def note_attempt(self, target: Target, fault: Fault | None, status: int, sent: bool, took: float) -> None:
        """Keep what is told of the latest attempt: ``start_ms`` after the request came, for ``ms``."""
        self.attempts.append({
            "provider": target.provider,
            "model": target.model,
            "outcome": fault.value if fault is not None else "success",
            "status": status,
            "sent": sent,
            "start_ms": ms(self.begun - self.prepared.request.started),
            "ms": ms(took),
        })  # fmt: skip

    def abort_with_client(self) -> None:
        """The client's signal reaches the provider call - unless it merely left a call that has a key."""
        reason = self.client.abort.reason
        if reason is not None and not (reason == CLIENT_GONE and self.with_key):
            self.abort.fire(reason)


@record
class Ended:
    """How a call ended, before it is charged."""

    outcome: Outcome
    status: int
    error_code: str | None = None
    usage: Usage | None = None
    output_bytes: int = 0
    """A bound on output tokens where ``usage`` is missing."""
    sent: bool = True
    """Is the last attempt's own cost unaccounted for by `Call.kept`? False when nothing was sent or it was refused."""
    refusal: Refusal | None = None


def ms(seconds: float) -> float:
    """Milliseconds to the microsecond, as rows and headers show them."""
    return round(seconds * 1_000, 3)


def skeleton(prepared: Prepared, call: str, budget_day: str | None) -> Event:
    """The row a call leaves if its worker dies; the ledger fills in what was held, and the next day if need be."""
    request, caller = prepared.request, prepared.caller
    return Event(
        id=call,
        occurred_at_us=request.started_us,
        tenant_id=caller.tenant.id,
        key_name=caller.key.name,
        kind=request.ask.kind,
        model=prepared.label,
        request_id=request.request_id,
        status=0,
        outcome=Outcome.ABANDONED,
        tag=request.tag,
        stream=request.ask.stream,
        usage_basis="bound",
        hold_nano_usd=prepared.hold,
        budget_day=budget_day,
        trace_id=request.trace_id,
        client_ip=request.client_ip,
        error_code="abandoned",
    )
