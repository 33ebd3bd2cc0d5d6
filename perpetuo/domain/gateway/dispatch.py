"""
Which target answers this call?

`routing.next_step` decides; here its decisions are carried out: attempts are made and recorded,
breakers and cooldowns learn from them, and a further attempt is paid for before it is made (B8).

Rule 1: what a provider's answer means is decided in `policy.routing`, never here.
Rule 2: an attempt that was sent and has no usage keeps its input cost (B9); one that the provider
        refused (4xx) keeps none.
Rule 3: before an attempt that follows one which keeps a cost, the hold grows, or there is no attempt.
"""

import asyncio
from collections.abc import Mapping

import attrs

from perpetuo.domain.gateway.call import CLIENT_GONE, SHUTDOWN, Call, Ended, ms
from perpetuo.domain.gateway.prepare import Prepared, prepare_larger
from perpetuo.domain.gateway.recover import InFlight
from perpetuo.domain.gateway.respond import CLIENT_CLOSED_REQUEST, SHUTTING_DOWN
from perpetuo.domain.model.admission import Extended
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Outcome
from perpetuo.domain.model.models import ProviderSpec, Target
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.upstream import Answer, Fault, Outbound, UpstreamFailure
from perpetuo.domain.policy.breaker import BreakerPhase, evidence
from perpetuo.domain.policy.routing import (
    Cooldowns,
    GiveUp,
    LargerContext,
    PassOn,
    RetryBudget,
    Route,
    Tried,
    Try,
    blocked,
    candidates,
    next_step,
    probing,
)
from perpetuo.domain.ports import BreakerBoard, Journal, Ledger, Providers, StoreUnavailable, Stream, System

SECOND_US = 1_000_000
KEEPS_COST = frozenset({Fault.SERVER_ERROR, Fault.TIMEOUT, Fault.RESET, Fault.PROTOCOL, Fault.ABORTED})


@attrs.frozen
class Unanswered:
    """No target gave an answer: what the caller is told, and how the call is settled."""

    refusal: Refusal
    ended: Ended


@attrs.define
class Trip:
    """One call's way from target to target."""

    route: Route
    tried: list[Tried] = attrs.field(factory=list)
    answer: Answer | None = None
    """The latest answer of a provider, good or bad."""
    larger: bool = False
    """Has it gone to the model with the larger context?"""

    @property
    def error_code(self) -> str | None:
        """The latest code a caller may see: not one about our credential (C5)."""
        return None if self.answer is None or self.answer.fault is Fault.CREDENTIAL else self.answer.error_code


class Dispatcher:
    """Carries calls to providers."""

    def __init__(
        self,
        breakers: BreakerBoard,
        providers: Providers,
        ledger: Ledger,
        journal: Journal,
        system: System,
        in_flight: InFlight,
        specs: Mapping[str, ProviderSpec],
        retry_share: float = 1.0,
    ) -> None:
        self._specs = specs
        self._breakers = breakers
        self._providers = providers
        self._ledger = ledger
        self._journal = journal
        self._system = system
        self._in_flight = in_flight
        self._cooldowns = Cooldowns()
        self._fresh_budget = RetryBudget(share=retry_share)
        self._budgets: dict[str, RetryBudget] = {}

    def configure(self, specs: Mapping[str, ProviderSpec]) -> None:
        """Take over changed providers: what was refused of the one before says nothing about the new credential."""
        changed = [provider for provider, spec in self._specs.items() if specs.get(provider) != spec]
        self._specs = specs
        self._cooldowns = self._cooldowns.without_credentials(changed)

    @property
    def cooldowns(self) -> Cooldowns:
        """Whom this worker does not ask for a while."""
        return self._cooldowns

    def route(self, prepared: Prepared) -> Route | Refusal:
        """Where the call could go now; a refusal (free, before admission) when every way is blocked."""
        now_us = self._system.now_us()
        several = len(prepared.model.targets) > 1
        draws = [self._system.random() for _ in prepared.model.targets] if several else ()
        route = candidates(prepared.model, self._breakers.view, self._cooldowns, now_us, draws)
        if route.targets:
            return route
        step = next_step(route, (), prepared.settings.retry, now_us=now_us, deadline_us=now_us + SECOND_US, draw=0.0)
        return gave_up(step) if isinstance(step, GiveUp) else route

    async def dispatch(self, call: Call, route: Route) -> Answer | Stream | Unanswered:
        """Make attempts until one is answered or nothing is left to try."""
        trip = Trip(route)
        call.skipped = _skipped(route)
        while True:
            step = self._next(call, trip)
            match step:
                case Try():
                    result = await self._try(call, trip, step)
                    if result is not None:
                        return result
                case LargerContext():
                    if not await self._enlarge(call, trip):
                        return self._pass_on(call, trip)
                case PassOn():
                    return self._pass_on(call, trip)
                case GiveUp():
                    return self._unanswered(call, trip, step)

    def _next(self, call: Call, trip: Trip) -> Try | LargerContext | PassOn | GiveUp:
        now_us = self._system.now_us()
        left = call.deadline - self._system.monotonic()
        return next_step(
            trip.route,
            trip.tried,
            call.prepared.settings.retry,
            now_us=now_us,
            deadline_us=now_us + round(left * SECOND_US),
            draw=self._system.random() if trip.tried else 0.0,
            larger=not trip.larger and call.current.model.larger_context is not None,
            may_repeat=lambda provider: self._budget(provider).allows(now_us),
        )

    async def _try(self, call: Call, trip: Trip, step: Try) -> Answer | Stream | Unanswered | None:
        """Carry out one step; ``None``: there is a next one."""
        if step.wait_us and not await self._pause(call, step.wait_us / SECOND_US):
            return self._stopped(call)
        if call.kept and not await self._afford(call, call.attempt_cost):
            return self._unanswered(call, trip, None)
        target, now_us = step.target, self._system.now_us()
        view = self._breakers.view(target.provider)
        obstacle = blocked(target, view, self._cooldowns, now_us)
        probe = None
        if obstacle is None and view.phase is BreakerPhase.HALF_OPEN:
            probe = call.id
            if not await self._breakers.try_probe(target.provider, call.id):
                obstacle = probing(target, now_us)
        if obstacle is not None:
            trip.route = trip.route.without(obstacle)
            return self._blocked_at_last(call, trip)
        self._spend_retry(call, target.provider, step.again, now_us)
        return await self._attempt(call, trip, target, view.generation, probe)

    def _blocked_at_last(self, call: Call, trip: Trip) -> Unanswered | None:
        """Every way closed between admission and the attempt: an admitted, failed call that costs nothing."""
        call.skipped = _skipped(trip.route)
        return None

    async def _attempt(
        self, call: Call, trip: Trip, target: Target, generation: int, probe: str | None
    ) -> Answer | Stream | None:
        call.target, call.generation, call.probe, call.sent_limit = target, generation, probe, limit_for(call, target)
        call.begun, call.writing, call.sending = self._system.monotonic(), 0.0, True
        spec = self._specs.get(target.provider)
        fault: Fault | None = None
        retry_after_us = None
        status, sent, text = 0, True, None
        result: Answer | Stream | None = None
        try:
            result = await self._providers.get(target.provider).send(self._outbound(call, target), call.abort)
            status = result.status
            call.upstream_request_id = result.upstream_request_id
            if isinstance(result, Answer):
                fault, retry_after_us = result.fault, result.retry_after_us
                trip.answer = result
        except UpstreamFailure as failure:
            fault, sent, text = failure.fault, failure.sent, failure.text
        except BaseException:
            self._give_back_probe(call)
            raise
        took = self._system.monotonic() - call.begun
        call.upstream_seconds += took
        call.sending, call.result = False, result if fault is None else None
        if fault is None and not isinstance(result, Answer):
            call.first_token_ms = ms(self._system.monotonic() - call.prepared.request.started)
        self._learn(call, trip, target, fault, sent, retry_after_us, spec)
        call.note_attempt(target, fault, status, sent, took)
        if fault is None:
            return result
        if text is not None or fault is Fault.CREDENTIAL:
            self._journal.log(
                "error" if fault is Fault.CREDENTIAL else "warning", "attempt_failed", provider=target.provider,
                outcome=fault.value, detail=text or "the provider rejected the gateway's credential",
                request_id=call.prepared.request.request_id,
            )  # fmt: skip
        if sent and fault in KEEPS_COST and target.price is not None:
            call.kept = Nano(call.kept + target.price.at_most(call.current.input_bound, 0))
        return None

    def _learn(
        self,
        call: Call,
        trip: Trip,
        target: Target,
        fault: Fault | None,
        sent: bool,
        retry_after_us: int | None,
        spec: ProviderSpec | None,
    ) -> None:
        """Tell breaker, cooldowns and metrics how the attempt went."""
        if fault is None:
            self._breakers.record(target.provider, None, generation=call.generation, probe=call.probe)
            self._journal.attempted(target.provider, "success")
            return
        now_us = self._system.now_us()
        counted = evidence(fault, sent=sent, cut_short=call.cut_short(self._system.monotonic()))
        self._breakers.record(target.provider, counted, generation=call.generation, probe=call.probe)
        self._journal.attempted(target.provider, fault.value)
        if fault is not Fault.CREDENTIAL or spec == self._specs.get(target.provider):
            self._cooldowns = self._cooldowns.after(target, fault, retry_after_us, now_us)
        trip.tried.append(Tried(target, fault, now_us, retry_after_us))

    def _give_back_probe(self, call: Call) -> None:
        """The attempt ended by a defect or a cancellation of ours, so it has found nothing."""
        if call.target is not None and call.probe is not None:
            self._breakers.record(call.target.provider, Fault.ABORTED, generation=call.generation, probe=call.probe)

    def broke(self, call: Call, fault: Fault) -> None:
        """A stream broke after its first byte: the provider's health counts it as well."""
        if call.target is not None:
            self._breakers.record(call.target.provider, fault, generation=call.generation, probe=None)

    async def _enlarge(self, call: Call, trip: Trip) -> bool:
        """Go on with the model that takes more input, if that can be paid for."""
        larger = prepare_larger(call.prepared)
        trip.larger = True
        if isinstance(larger, Refusal) or not await self._afford(call, larger.hold):
            return False
        route = self.route(larger)
        if isinstance(route, Refusal):
            return False
        trip.route = route
        call.current, call.attempt_cost, call.limit = larger, larger.hold, larger.limit
        return True

    async def _afford(self, call: Call, needed: Nano) -> bool:
        """Grow the hold to what is kept so far and ``needed`` more; not under a budget: nothing to grow."""
        extra = call.kept + needed - call.hold.amount
        if extra <= 0 or not call.prepared.caller.has_budget:
            return True
        try:
            decision = await self._ledger.extend(call.hold, Nano(extra))
        except StoreUnavailable as error:
            self._journal.store_error("ledger", str(error))
            return False
        if not isinstance(decision, Extended):
            return False
        call.hold = attrs.evolve(call.hold, amount=decision.amount)
        self._in_flight.update(call.hold)
        return True

    def _outbound(self, call: Call, target: Target) -> Outbound:
        ask, trace = call.prepared.request.ask, call.prepared.request.trace
        field = None
        if call.limit is not None:
            field = target.max_tokens_field or (
                "max_completion_tokens" if ask.max_completion_tokens is not None else "max_tokens"
            )
        return Outbound(
            ask=ask,
            target=target,
            call=call.id,
            limit_field=field,
            limit=call.sent_limit,
            deadline=min(call.deadline, self._system.monotonic() + target.timeouts.total),
            traceparent=None if trace is None else trace.child(call.id, len(call.attempts) + 1),
            tracestate=None if trace is None else trace.state,
        )

    async def _pause(self, call: Call, seconds: float) -> bool:
        """Wait before asking again; False when the call was stopped meanwhile."""
        begun = self._system.monotonic()
        sleeping = asyncio.ensure_future(self._system.sleep(seconds))

        def wake() -> None:
            sleeping.cancel()

        call.abort.attach(wake)
        try:
            await asyncio.wait({sleeping})
        finally:
            call.abort.detach(wake)
            sleeping.cancel()
            call.paused_seconds += self._system.monotonic() - begun
        return not call.abort.fired

    def _budget(self, provider: str) -> RetryBudget:
        return self._budgets.get(provider) or self._fresh_budget

    def _spend_retry(self, call: Call, provider: str, again: bool, now_us: int) -> None:
        budget = self._budget(provider)
        retry = call.prepared.settings.retry
        self._budgets[provider] = budget.repeated(now_us) if again else budget.requested(retry, now_us)

    def _pass_on(self, call: Call, trip: Trip) -> Answer | Unanswered:
        """The provider's refusal is the answer."""
        return trip.answer or self._unanswered(call, trip, None)

    def _unanswered(self, call: Call, trip: Trip, step: GiveUp | None) -> Unanswered:
        if call.abort.fired:
            return self._stopped(call)
        if step is None:
            step = GiveUp(_REASONS.get(trip.tried[-1].fault, Reason.UPSTREAM_ERROR))
        refusal = gave_up(step, trip.error_code, asked=bool(trip.tried))
        return Unanswered(
            refusal, Ended(Outcome.FAILED, call.client.status_of(refusal), refusal.reason.value, sent=False)
        )

    def _stopped(self, call: Call) -> Unanswered:
        """The client left, or the worker is going down."""
        if call.abort.reason == SHUTDOWN:
            return Unanswered(
                SHUTTING_DOWN,
                Ended(Outcome.FAILED, call.client.status_of(SHUTTING_DOWN), SHUTTING_DOWN.reason.value, sent=False),
            )
        refusal = Refusal(Reason.UPSTREAM_ERROR, "The client closed the connection.")
        return Unanswered(refusal, Ended(Outcome.CANCELLED, CLIENT_CLOSED_REQUEST, CLIENT_GONE, sent=False))


_REASONS = {
    Fault.CREDENTIAL: Reason.UPSTREAM_CREDENTIALS,
    Fault.RATE_LIMITED: Reason.UPSTREAM_RATE_LIMITED,
    Fault.TIMEOUT: Reason.UPSTREAM_TIMEOUT,
}

_MESSAGES = {
    Reason.UPSTREAM_CREDENTIALS: "The provider rejected the gateway's own credential. Your operator has been told.",
    Reason.UPSTREAM_ERROR: "No provider of this model answered, in as many attempts as the retry limits allow.",
    Reason.UPSTREAM_RATE_LIMITED: "The model's provider limits its rate, and no other provider is left.",
    Reason.UPSTREAM_TIMEOUT: "The model's provider did not answer in time, and no other provider is left.",
    Reason.NO_HEALTHY_UPSTREAM: "No provider of this model is healthy at the moment; nothing was sent.",
}


TOO_LATE = "The call's time was over before a provider could be asked; nothing was sent."


def gave_up(step: GiveUp, provider_code: str | None = None, *, asked: bool = False) -> Refusal:
    """The end of the line, in words for the caller; ``asked``: was there an attempt?"""
    message = TOO_LATE if step.reason is Reason.UPSTREAM_TIMEOUT and not asked else _MESSAGES[step.reason]
    if provider_code and step.reason is Reason.UPSTREAM_ERROR:
        message += f" The provider's last error code was {provider_code[:64]!r}."
    if step.retry_after_us is not None:
        message += f" Try again in {step.retry_after_us / SECOND_US:.1f} s."
    return Refusal(step.reason, message, retry_after_us=step.retry_after_us)


def limit_for(call: Call, target: Target) -> int | None:
    """The output limit as ``target`` gets it: what is held for, and not above its own ceiling."""
    if call.limit is None or target.max_output_tokens is None:
        return call.limit
    return min(call.limit, target.max_output_tokens)


def _skipped(route: Route) -> list[dict[str, object]]:
    if not route.skipped:
        return []
    return [{"provider": s.target.provider, "model": s.target.model, "why": s.why.value} for s in route.skipped]
