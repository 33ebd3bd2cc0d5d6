"""
May this call go ahead?

One atomic step of the ledger, and its answer in words a caller understands. What is known without
asking is answered here: a rate limit that is known to be full until a known time (R4), limits of a
caller until the next midnight.
"""

import hashlib
from collections.abc import Callable, Sequence

import attrs

from perpetuo.domain.gateway.call import skeleton
from perpetuo.domain.gateway.prepare import Prepared
from perpetuo.domain.gateway.recover import InFlight
from perpetuo.domain.gateway.respond import SHUTTING_DOWN
from perpetuo.domain.gateway.waiting import Waiting
from perpetuo.domain.model.admission import (
    AdmitDecision,
    AdmitRefused,
    AdmitRequest,
    Admitted,
    BudgetReading,
    BudgetRefused,
    Claim,
    ClaimRefused,
    ConcurrencyRefused,
    RateLimit,
    RateRefused,
    Replay,
)
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.tenants import Caller, Tenant
from perpetuo.domain.model.upstream import Abort
from perpetuo.domain.policy.raises import in_force
from perpetuo.domain.policy.windows import CallerLimits, limits_of, replay_scope
from perpetuo.domain.ports import Journal, Ledger, NeverSent, StoreUnavailable, System

SECOND_US = 1_000_000
NEVER = (RateLimit("", 0),)
"""Refuses every call, after its idempotency key was looked at: a question about the key that leaves no trace."""


@attrs.frozen
class KnownRefusal:
    """
    A rate limit that is full until ``until`` (monotonic seconds).

    It belongs to the tenant object whose limits were asked, and ends with it: a call that came before a reload
    and was refused after it says nothing about the new limits.
    """

    decision: RateRefused
    tenant: Tenant
    until: float


class Admission:
    """Step 1 of a call."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        system: System,
        in_flight: InFlight,
        draining: Callable[[], bool],
        raised: Callable[[str], Sequence[Raise]] = lambda _: (),
    ) -> None:
        """``raised``: the raises of a tenant's budgets; when they change, `forget_limits`."""
        self._raised = raised
        self._waiting = Waiting(system)
        self._draining = draining
        self._ledger = ledger
        self._journal = journal
        self._system = system
        self._in_flight = in_flight
        self._known: dict[str, KnownRefusal] = {}
        self._limits: dict[bytes, tuple[Caller, int, CallerLimits]] = {}

    async def admit(self, prepared: Prepared, abort: Abort) -> Admitted | Replay | Refusal:
        """Ask the ledger; waits on a key in progress as long as caller or config say, and the client is there."""
        known = self._refused_locally(prepared) if self._known else None
        if known is not None:
            return known
        request = self._request(prepared)
        decision = await self._decide(prepared, request)
        if decision is ClaimRefused.IN_PROGRESS:
            decision = await self._wait(prepared, request, abort)
        if isinstance(decision, Admitted | Replay | Refusal):
            return decision
        return explain(decision, prepared, self._system.now_us())

    async def kept(self, prepared: Prepared, abort: Abort) -> Replay | Refusal | None:
        """
        What the call's idempotency key alone says: the answer that is kept, or why there is none; ``None``: nothing.

        For a call that can't be made. It is not admitted, whatever its key says.
        """
        request = attrs.evolve(self._request(prepared), rates=NEVER, concurrency=(), budgets=())
        decision = await self._decide(prepared, request)
        if decision is ClaimRefused.IN_PROGRESS:
            decision = await self._wait(prepared, request, abort)
        match decision:
            case Replay():
                return decision
            case ClaimRefused():
                return explain(decision, prepared, self._system.now_us())
            case RateRefused(scope=scope) if scope == _replays_of(prepared):
                return explain(decision, prepared, self._system.now_us())
            case _:
                return None

    async def _wait(self, prepared: Prepared, request: AdmitRequest, abort: Abort) -> AdmitDecision | Refusal:
        """The ledger's decision once a key in progress no longer is, or waiting is over."""
        if request.claim is None:
            return ClaimRefused.IN_PROGRESS
        until = min(self._system.monotonic() + _wait(prepared), prepared.deadline)
        decision = await self._waiting.wait(
            request.tenant,
            f"{request.claim.key}{request.claim.fingerprint}",
            until,
            lambda: abort.fired or self._draining(),
            lambda: self._decide(prepared, request),
        )
        return SHUTTING_DOWN if decision is ClaimRefused.IN_PROGRESS and self._draining() else decision

    async def _decide(self, prepared: Prepared, request: AdmitRequest) -> AdmitDecision | Refusal:
        asked = self._system.monotonic()
        try:
            decision = await self._ledger.admit(request)
        except StoreUnavailable as error:
            self._journal.store_error("ledger", str(error))
            if not isinstance(error, NeverSent) and request.rates is not NEVER:
                self._in_flight.cancel_later(request)
            return Refusal(
                Reason.STORE_UNAVAILABLE,
                "The gateway can't reach its ledger, so nothing was sent. Try again in a second.",
                retry_after_us=SECOND_US,
            )
        if isinstance(decision, RateRefused) and request.claim is None:
            self._remember(prepared, decision, asked)
        return decision

    def limits_of(self, caller: Caller) -> CallerLimits:
        """The caller's limits and current windows, computed once per key until a window, or a raise, ends."""
        now_us = self._system.now_us()
        cached = self._limits.get(caller.key.digest)
        if cached is not None and cached[0] is caller and now_us < cached[1]:
            return cached[2]
        limits = limits_of(caller, now_us, self._raised(caller.tenant.id))
        self._limits[caller.key.digest] = (caller, limits.until_us, limits)
        return limits

    def raises_of(self, caller: Caller) -> tuple[Raise, ...]:
        """Those in force for budgets of the caller's tenant and its keys."""
        return in_force(self._raised(caller.tenant.id), self._system.now_us())

    def forget_limits(self) -> None:
        """Raises have changed: limits are made anew, each at its key's next call."""
        self._limits.clear()

    def _request(self, prepared: Prepared) -> AdmitRequest:
        limits = self.limits_of(prepared.caller)
        call = prepared.request.call_id or self._system.new_id()
        return AdmitRequest(
            call=call,
            tenant=prepared.caller.tenant.id,
            rates=limits.rates,
            concurrency=limits.concurrency,
            budgets=limits.budgets,
            hold=prepared.hold,
            hold_min=prepared.hold_min,
            claim=claim_for(prepared),
            abandoned=skeleton(prepared, call, limits.day),
            replays=limits.replays,
        )

    def _remember(self, prepared: Prepared, decision: RateRefused, asked: float) -> None:
        until = asked + decision.retry_after_us / SECOND_US
        self._known[decision.scope] = KnownRefusal(decision, prepared.caller.tenant, until)

    def _refused_locally(self, prepared: Prepared) -> Refusal | None:
        """A refusal known to hold still: only for calls without a key, and until the config changes."""
        if prepared.request.idempotency_key is not None:
            return None
        tenant = prepared.caller.tenant.id
        for scope in (tenant, f"{tenant}/{prepared.caller.key.name}"):
            known = self._known.get(scope)
            if known is None:
                continue
            left = round((known.until - self._system.monotonic()) * SECOND_US)
            if left > 0 and known.tenant is prepared.caller.tenant:
                decision = attrs.evolve(known.decision, retry_after_us=left)
                return explain(decision, prepared, self._system.now_us())
            del self._known[scope]
        return None


def claim_for(prepared: Prepared) -> Claim | None:
    """The claim on the call's idempotency key: scope tenant + method + path."""
    request, settings = prepared.request, prepared.settings.idempotency
    if request.idempotency_key is None or request.fingerprint is None:
        return None
    tenant = prepared.caller.tenant
    scoped = "\0".join((tenant.id, "POST", request.ask.kind.path, request.idempotency_key))
    return Claim(
        key=hashlib.sha256(scoped.encode()).hexdigest(),
        fingerprint=request.fingerprint,
        ttl_us=settings.ttl_us if tenant.idempotency_ttl_us is None else tenant.idempotency_ttl_us,
        lease_us=settings.lease_us,
        on_unknown=settings.on_unknown,
    )


def _wait(prepared: Prepared) -> float:
    asked = prepared.request.wait
    return prepared.settings.idempotency.wait if asked is None else asked


Explained = RateRefused | ConcurrencyRefused | BudgetRefused | ClaimRefused | AdmitRefused


def explain(decision: Explained, prepared: Prepared, now_us: int) -> Refusal:
    """A decision of the ledger in words for the caller."""
    match decision:
        case RateRefused(scope=scope, limit=limit, retry_after_us=wait) if scope == _replays_of(prepared):
            return Refusal(
                Reason.RATE_LIMIT_EXCEEDED,
                f"Too many replays: answers kept under idempotency keys are given out {limit} times per minute to your "
                f"account. This one is kept; try again in {wait / SECOND_US:.3f} s.",
                retry_after_us=wait,
                reached=_full("replays_per_minute", scope, limit),
            )
        case RateRefused(scope=scope, limit=limit, retry_after_us=wait):
            return Refusal(
                Reason.RATE_LIMIT_EXCEEDED,
                f"Rate limit reached: {limit} requests per minute for {_whose(scope, prepared)}. "
                f"Try again in {wait / SECOND_US:.3f} s.",
                retry_after_us=wait,
                reached=_full("requests_per_minute", scope, limit),
            )
        case ConcurrencyRefused(scope=scope, limit=limit):
            return Refusal(
                Reason.CONCURRENCY_LIMIT_EXCEEDED,
                f"Too many calls at once: {limit} may be in flight for {_whose(scope, prepared)}. "
                "Try again when one has ended.",
                retry_after_us=SECOND_US,
                reached=_full("calls_at_once", scope, limit),
            )
        case BudgetRefused():
            return _budget_refusal(decision, prepared, now_us)
        case ClaimRefused():
            return _CLAIM_REFUSALS[decision]
        case _:
            return _ADMIT_REFUSALS[decision]


def _budget_refusal(decision: BudgetRefused, prepared: Prepared, now_us: int) -> Refusal:
    reading = decision.reading
    whose = _whose(reading.scope, prepared)
    figures = (
        f"the {reading.period} budget of {whose} is {usd(reading.limit or 0)} USD, {usd(reading.spent)} USD is spent"
        f" and {usd(reading.held)} USD is held by calls in flight; this call may cost up to "
        f"{usd(prepared.hold_min)} USD"
    )
    if decision.reserved:
        return Refusal(
            Reason.BUDGET_RESERVED,
            f"Budget in use: {figures}. Try again when calls in flight have ended.",
            retry_after_us=SECOND_US,
            reached=_short(reading, prepared),
        )
    wait = max(0, reading.resets_at_us - now_us)
    some_left = (reading.limit or 0) > reading.spent + reading.held
    hint = " A smaller max_tokens may make the call fit." if some_left else ""
    return Refusal(
        Reason.BUDGET_EXCEEDED,
        f"Budget reached: {figures}. It starts anew in {_span(wait)}.{hint}",
        retry_after_us=wait,
        reached=_short(reading, prepared),
    )


def _full(limit: str, scope: str, allowed: int) -> dict[str, str | int | None]:
    """A limit of calls says no only when all of it is used."""
    return {"limit": limit, "scope": scope, "used": allowed, "allowed": allowed}


def _short(read: BudgetReading, prepared: Prepared) -> dict[str, str | int | None]:
    """Amounts in nano-USD; ``needed``: the least that the call could be admitted with."""
    return {
        "limit": f"budget_{read.period}", "scope": read.scope, "window": read.window, "used": read.spent,
        "held": read.held, "allowed": read.limit, "needed": prepared.hold_min,
    }  # fmt: skip


def _whose(scope: str, prepared: Prepared) -> str:
    return "your account" if scope == prepared.caller.tenant.id else "this key"


def _replays_of(prepared: Prepared) -> str:
    return replay_scope(prepared.caller.tenant.id)


def _span(wait_us: int) -> str:
    minutes = -(-wait_us // (60 * SECOND_US))
    days, rest = divmod(minutes, 1_440)
    hours, minutes = divmod(rest, 60)
    return (f"{days} d " if days else "") + (f"{hours} h " if hours or days else "") + f"{minutes} min"


_CLAIM_REFUSALS = {
    ClaimRefused.IN_PROGRESS: Refusal(
        Reason.IDEMPOTENCY_IN_PROGRESS,
        "The first request with this idempotency key is still running. Try again in a second to get its answer.",
        retry_after_us=SECOND_US,
    ),
    ClaimRefused.REUSED: Refusal(
        Reason.IDEMPOTENCY_KEY_REUSED,
        "This idempotency key was used for a different request. Use a new key for a new request.",
    ),
    ClaimRefused.NOT_STORED: Refusal(
        Reason.IDEMPOTENCY_NOT_STORED,
        "The request with this idempotency key was done, but its answer was too large to keep. "
        "It is not run again; use a new key to run it again.",
    ),
    ClaimRefused.OUTCOME_UNKNOWN: Refusal(
        Reason.IDEMPOTENCY_OUTCOME_UNKNOWN,
        "The first request with this idempotency key was interrupted, and nobody knows whether it ran. "
        "It is not run again; use a new key to run it again.",
    ),
}

_ADMIT_REFUSALS = {
    AdmitRefused.UNSEEDED: Refusal(
        Reason.STORE_UNAVAILABLE,
        "The ledger lost its counters and is reading them back; calls under a budget wait. Try again in a second.",
        retry_after_us=SECOND_US,
    ),
    AdmitRefused.CANCELLED: Refusal(
        Reason.STORE_UNAVAILABLE,
        "The ledger took too long, so nothing was sent. Try again in a second.",
        retry_after_us=SECOND_US,
    ),
    AdmitRefused.NO_ROOM: Refusal(
        Reason.AUDIT_UNAVAILABLE,
        "There is no room left to write calls down, so none is made. Try again in a few seconds.",
        retry_after_us=5 * SECOND_US,
    ),
}
