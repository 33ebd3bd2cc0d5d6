"""
One call, from admission to settlement: the table of contents of the gateway.

    prepare   what may it cost, where may it run?          prepare.py   (no I/O)
    admit     rate, concurrency, budget, idempotency key    admit.py     (one atomic step)
    dispatch  which target, how often, what came back?      dispatch.py  (providers)
    respond   bytes to the client                           respond.py
    settle    charge, release, keep, record                 settle.py    (one atomic step)

Every ending passes through settle, also when the client left or the worker is told to stop.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from perpetuo.domain.gateway.admit import Admission
from perpetuo.domain.gateway.call import CLIENT_GONE, Call, Ended
from perpetuo.domain.gateway.dispatch import Dispatcher, Unanswered
from perpetuo.domain.gateway.prepare import Prepared, affordable_limit, prepare, prepare_replay
from perpetuo.domain.gateway.recover import InFlight
from perpetuo.domain.gateway.respond import AT_ONCE, SHUTTING_DOWN, SSE, Responder
from perpetuo.domain.gateway.settle import Settler
from perpetuo.domain.model.admission import Admitted, Replay
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.chat import CallRequest
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Outcome, RefusalNote
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Caller
from perpetuo.domain.model.upstream import Abort, Answer
from perpetuo.domain.policy.routing import Route
from perpetuo.domain.ports import BreakerBoard, Client, Journal, Ledger, Providers, System


class Gateway:
    """The use case: knows who calls, and carries one call through its steps."""

    def __init__(
        self,
        *,
        settings: Settings,
        ledger: Ledger,
        breakers: BreakerBoard,
        providers: Providers,
        journal: Journal,
        system: System,
        workers: int = 1,
        raised: Callable[[str], Sequence[Raise]] = lambda _: (),
    ) -> None:
        """
        ``workers`` share what is allowed per second over all of them (the retry budget).

        ``raised``: see `Admission`.
        """
        self.settings = settings
        self.draining = False
        self.ledger = ledger
        self.in_flight = InFlight(ledger, journal, system)
        self.admission = Admission(ledger, journal, system, self.in_flight, lambda: self.draining, raised)
        self.dispatcher = Dispatcher(
            breakers, providers, ledger, journal, system, self.in_flight, settings.providers, retry_share=1 / workers
        )
        self._settler = Settler(ledger, journal, system, self.in_flight)
        self._responder = Responder(self._settler, system)
        self._journal = journal
        self._system = system

    def replace(self, settings: Settings) -> None:
        """Calls from now on go by ``settings``; those in flight keep theirs."""
        self.settings = settings
        self.dispatcher.configure(settings.providers)

    def authenticate(self, key: str | None) -> Caller | Refusal:
        """Who holds this key? In memory: no store is needed to know who calls."""
        if not key:
            return Refusal(
                Reason.INVALID_API_KEY,
                "No API key was given. Send it as `Authorization: Bearer sk-…`.",
            )
        caller = self.settings.authenticate(hashlib.sha256(key.encode()).digest())
        if caller is None:
            return Refusal(Reason.INVALID_API_KEY, "This API key is not known here. Check it, or ask your operator.")
        expires = caller.key.expires_us
        if expires is not None and self._system.now_us() >= expires:
            return Refusal(Reason.API_KEY_EXPIRED, "This API key has expired. Ask your operator for a new one.")
        return caller

    async def complete(self, caller: Caller, request: CallRequest, client: Client) -> None:
        """Answer one call, whatever happens."""
        if self.draining:
            return await self._refuse(caller, request, SHUTTING_DOWN, client)
        prepared = prepare(self.settings, caller, request)
        if isinstance(prepared, Refusal):
            asked = prepare_replay(self.settings, caller, request)
            return await self._refuse_unless_kept(caller, request, prepared, client, asked)
        route = self.dispatcher.route(prepared)
        if isinstance(route, Refusal):
            return await self._refuse_unless_kept(caller, request, route, client, prepared)
        decision = await self.admission.admit(prepared, client.abort)
        if isinstance(decision, Admitted):
            await self._run(prepared, decision, route, client)
        else:
            await self._end_early(prepared, decision, client)

    async def _refuse_unless_kept(
        self, caller: Caller, request: CallRequest, refusal: Refusal, client: Client, asked: Prepared | None
    ) -> None:
        """A call that can't be made, which a kept answer does not need to be (I2)."""
        if asked is None or request.idempotency_key is None:
            return await self._refuse(caller, request, refusal, client, asked)
        await self._end_early(asked, await self.admission.kept(asked, client.abort) or refusal, client)

    async def _end_early(self, prepared: Prepared, decision: Replay | Refusal, client: Client) -> None:
        """Answered without a call."""
        caller, request = prepared.caller, prepared.request
        if isinstance(decision, Refusal):
            return await self._refuse(caller, request, decision, client, prepared)
        stored = decision.answer
        self._note(caller, request, "replayed", stored.status, prepared, call=stored.call)
        streamed = AT_ONCE if stored.content_type == SSE else ()
        headers = (*stored.headers, ("content-type", stored.content_type), *streamed, *REPLAYED)
        await client.answer(stored.status, headers, stored.body)

    async def _run(self, prepared: Prepared, admitted: Admitted, route: Route, client: Client) -> None:
        """An admitted call: from here on everything ends in a settlement."""
        call = self._begin(prepared, admitted, client)
        try:
            result = await self.dispatcher.dispatch(call, route)
            if isinstance(result, Unanswered):
                await self._responder.refuse(call, result.refusal, result.ended, client)
            elif isinstance(result, Answer):
                await self._responder.answer(call, result, client)
            else:
                broken = await self._responder.stream(call, result, client)
                if broken is not None:
                    self.dispatcher.broke(call, broken)
        except BaseException as error:
            await self._settle_broken(call, error)
            raise
        finally:
            client.abort.detach(call.abort_with_client)

    def _begin(self, prepared: Prepared, admitted: Admitted, client: Client) -> Call:
        call = Call(
            prepared=prepared,
            admitted=admitted,
            abort=Abort(),
            deadline=prepared.deadline,
            limit=affordable_limit(prepared, admitted.hold.amount),
            hold=admitted.hold,
            admitted_at=self._system.monotonic(),
            client=client,
            current=prepared,
            attempt_cost=admitted.hold.amount,
        )
        self.in_flight.add(call.hold, call.abort, call.deadline)
        client.abort.attach(call.abort_with_client)
        return call

    async def _settle_broken(self, call: Call, error: BaseException) -> None:
        """A defect of ours, or a cancelled task: the call is still settled, once, in a task of its own."""
        if not self.in_flight.knows(call.id):
            return
        self._journal.log(
            "error", "call_broken", error_type=type(error).__name__, request_id=call.prepared.request.request_id
        )
        result = call.result
        ended = Ended(
            outcome=Outcome.FAILED,
            status=500,
            error_code="internal_error",
            usage=result.usage if result is not None else None,
            output_bytes=result.output_bytes if result is not None else 0,
            sent=call.sending or result is not None,
        )
        await asyncio.shield(asyncio.ensure_future(self._settler.settle(call, ended)))

    async def _refuse(
        self, caller: Caller, request: CallRequest, refusal: Refusal, client: Client, prepared: Prepared | None = None
    ) -> None:
        await client.refuse(refusal, ())
        told = {} if refusal.reached is None else {"reached": refusal.reached, "retry_after_us": refusal.retry_after_us}
        self._note(caller, request, refusal.reason.value, client.status_of(refusal), prepared, **told)

    def _note(
        self, caller: Caller, request: CallRequest, reason: str, status: int, prepared: Prepared | None, **told: object
    ) -> None:
        self._journal.refused(
            RefusalNote(
                at_us=self._system.now_us(),
                request_id=request.request_id,
                tenant_id=caller.tenant.id,
                key_name=caller.key.name,
                reason=reason,
                status=status,
                model=prepared.label if prepared is not None else "other",
                client_ip=request.client_ip,
                decision={} if prepared is None else {"hold": prepared.hold, "max_tokens": prepared.limit, **told},
            )
        )


REPLAYED = (("x-perpetuo-idempotency", "replayed"), ("idempotent-replayed", "true"))

__all__ = ["CLIENT_GONE", "Gateway"]
