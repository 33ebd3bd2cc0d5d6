"""
How does an attempt's answer reach the client, and what is it settled as?

Rule 1: settle first, then send the end: an answer is stored before its client has all of it.
Rule 2: a stream that broke is never shown as success: one error event, no ``[DONE]``, never stored.
Rule 3: a client that left does not stop a call with an idempotency key; it is finished and stored (I8).
Rule 4: a store that fails at the end of a stream does not take the ``[DONE]`` from the client.
"""

from perpetuo.domain.gateway.call import CLIENT_GONE, SHUTDOWN, Call, Ended, ms
from perpetuo.domain.gateway.settle import Settler, idempotency_of
from perpetuo.domain.model.admission import Keep, Settled, StoredAnswer
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, Outcome
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.upstream import Answer, Ending, Fault, UpstreamFailure
from perpetuo.domain.policy.breaker import evidence
from perpetuo.domain.ports import Client, Stream, System

DONE = b"data: [DONE]\n\n"
SSE = "text/event-stream; charset=utf-8"
AT_ONCE = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
"""With each stream, replayed ones too: proxies neither keep it nor hold it back."""
CLIENT_CLOSED_REQUEST = 499
"""Status written down for a call whose client left (nginx's code); nobody receives it."""

KEPT_ERRORS = frozenset({400, 404, 413, 422})
"""Provider refusals that are an answer, and kept under an idempotency key (I6)."""


NOT_AGAIN = ("x-should-retry", "false")
"""For SDKs, with a provider's refusal: it is an answer, and asking again gives the same."""


class Responder:
    """The last step but one of a call: bytes to the client, the ending to the settler."""

    def __init__(self, settler: Settler, system: System) -> None:
        self._settler = settler
        self._system = system

    async def answer(self, call: Call, answer: Answer, client: Client) -> None:
        """A complete answer: settle, then send."""
        good = answer.fault is None
        ended = Ended(
            outcome=Outcome.COMPLETED if good else Outcome.FAILED,
            status=answer.status,
            error_code=answer.error_code,
            usage=answer.usage,
            output_bytes=answer.output_bytes,
            sent=good,
        )
        keepable = call.with_key and (good or answer.status in KEPT_ERRORS)
        told = call_headers(call) if good else (*call_headers(call), NOT_AGAIN)
        headers = (*answer.headers, ("content-type", answer.content_type), *told)
        too_big = keepable and len(answer.body) > call.prepared.settings.idempotency.max_bytes
        kept = None
        if keepable and not too_big:
            kept = StoredAnswer(answer.status, answer.content_type, told, answer.body, call.id)
        event, settled = await self._settler.settle(call, ended, kept, too_big=too_big)
        await client.answer(
            answer.status, (*headers, *settled_headers(call, event, settled), self._overhead(call)), answer.body
        )

    async def refuse(self, call: Call, refusal: Refusal, ended: Ended, client: Client) -> None:
        """No answer: settle, then say why."""
        event, settled = await self._settler.settle(call, ended)
        headers = (*call_headers(call), *settled_headers(call, event, settled), self._overhead(call))
        await client.refuse(refusal, headers)

    async def stream(self, call: Call, stream: Stream, client: Client) -> Fault | None:
        """Relay a stream event by event; settle before its end is sent. Returns what broke it, if anything did."""
        recorder = Recorder(call.prepared.settings.idempotency.max_bytes) if call.with_key else None
        headers = (*stream.headers, *call_headers(call), self._overhead(call), *_stream_headers(call))
        await client.start(200, headers)
        waited = self._system.monotonic()
        failure: UpstreamFailure | None = None
        last = b""
        try:
            async for data in stream.chunks():
                if recorder is not None:
                    recorder.add(data)
                if stream.is_over:
                    last = data  # goes with the end: one write less, and nothing follows but the settlement
                    continue
                written = self._system.monotonic()
                await client.write(data)
                call.writing += self._system.monotonic() - written
        except UpstreamFailure as broken:
            failure = broken.again()
        ended_at = self._system.monotonic()
        call.upstream_seconds += ended_at - waited
        refusal, ended = stream_ending(call, stream, failure)
        answer = recorder.answer(call, stream.headers) if recorder is not None and refusal is None else None
        too_big = refusal is None and recorder is not None and recorder.too_big
        await self._settler.settle(call, ended, answer, too_big=too_big)
        if refusal is not None:
            await client.fail(refusal)
        else:
            await client.finish(last + DONE)
        return broken_fault(call, stream, failure, ended_at)

    def _overhead(self, call: Call) -> tuple[str, str]:
        spent = self._system.monotonic() - call.prepared.request.started - call.elsewhere_seconds
        return "x-perpetuo-overhead-ms", f"{ms(max(0.0, spent)):.3f}"


class Recorder:
    """Collects a stream for its idempotency key, up to what may be kept."""

    def __init__(self, max_bytes: int) -> None:
        self._parts: list[bytes] = []
        self._left = max_bytes - len(DONE)
        self.too_big = self._left < 0

    def add(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.too_big = True
            self._parts.clear()
        elif not self.too_big:
            self._parts.append(data)

    def answer(self, call: Call, headers: tuple[tuple[str, str], ...]) -> StoredAnswer | None:
        if self.too_big:
            return None
        return StoredAnswer(200, SSE, (*headers, *call_headers(call)), b"".join((*self._parts, DONE)), call.id)


def stream_ending(call: Call, stream: Stream, failure: UpstreamFailure | None) -> tuple[Refusal | None, Ended]:
    """What a stream's end means: the error event to send, if any, and how the call is settled."""
    if failure is None and stream.ending is Ending.COMPLETE:
        return None, Ended(Outcome.COMPLETED, 200, usage=stream.usage, output_bytes=stream.output_bytes)
    if failure is None and stream.ending is Ending.TRUNCATED:
        refusal, outcome = TRUNCATED, Outcome.TRUNCATED
    elif failure is None:
        refusal, outcome = MALFORMED, Outcome.FAILED
    else:
        refusal, outcome = failure_refusal(call, failure), broken_outcome(call, failure)
    status = CLIENT_CLOSED_REQUEST if outcome is Outcome.CANCELLED else 200
    return refusal, Ended(outcome, status, refusal.reason.value, stream.usage, stream.output_bytes)


def broken_fault(call: Call, stream: Stream, failure: UpstreamFailure | None, now: float) -> Fault | None:
    """What a broken stream says about its provider's health."""
    if failure is not None:
        return evidence(failure.fault, cut_short=call.cut_short(now))
    return None if stream.ending is Ending.COMPLETE else Fault.RESET


def broken_outcome(call: Call, failure: UpstreamFailure) -> Outcome:
    if failure.fault is Fault.ABORTED and call.abort.reason == CLIENT_GONE:
        return Outcome.CANCELLED
    return Outcome.FAILED if failure.fault in (Fault.ABORTED, Fault.TIMEOUT) else Outcome.TRUNCATED


def failure_refusal(call: Call, failure: UpstreamFailure) -> Refusal:
    """A failed attempt in words for the caller; nothing of the provider's hosts."""
    match failure.fault:
        case Fault.ABORTED if call.abort.reason == SHUTDOWN:
            return SHUTTING_DOWN
        case Fault.TIMEOUT:
            return Refusal(Reason.UPSTREAM_TIMEOUT, "The provider fell silent, so the answer is not complete.")
        case _:
            return TRUNCATED


def call_headers(call: Call) -> tuple[tuple[str, str], ...]:
    """Who answered, after how many attempts, under which output limit."""
    target = call.target
    headers = [("x-perpetuo-attempts", str(len(call.attempts)))]
    if target is not None:
        headers += [("x-perpetuo-provider", target.provider), ("x-perpetuo-model", target.model)]
    if call.limit_reason is not None:
        headers.append(("x-perpetuo-max-tokens", f"{call.sent_limit};reason={call.limit_reason}"))
    rate = min(call.admitted.rates, key=lambda r: r.remaining, default=None)
    if rate is not None:
        headers += [
            ("x-ratelimit-limit-requests", str(rate.limit)),
            ("x-ratelimit-remaining-requests", str(rate.remaining)),
            ("x-ratelimit-reset-requests", f"{rate.reset_us / 1_000_000:.3f}s"),
        ]
    return tuple(headers)


def settled_headers(call: Call, event: Event, settled: Settled | None) -> tuple[tuple[str, str], ...]:
    """What it cost, what is left, and whether the answer is kept."""
    headers = [("x-perpetuo-cost-usd", usd(event.cost_nano_usd))]
    left = settled.left if settled is not None else call.hold.left
    if left is not None:
        headers.append(("x-perpetuo-budget-remaining-usd", usd(max(0, left))))
    if call.with_key:
        kept = settled is not None and settled.stored
        value = event.idempotency if event.idempotency == "reexecuted" else "stored" if kept else "not_stored"
        headers.append(("x-perpetuo-idempotency", value))
    return tuple(headers)


def _stream_headers(call: Call) -> tuple[tuple[str, str], ...]:
    """
    Headers of a stream go out before its end is known.

    With a key they say what will be tried; a stream that then turns out too large answers later
    requests with ``idempotency_not_stored``, never with half an answer.
    """
    headers = [("content-type", SSE), *AT_ONCE]
    if call.with_key:
        headers.append(("x-perpetuo-idempotency", idempotency_of(call, Keep.STORE)))
    return tuple(headers)


TRUNCATED = Refusal(Reason.UPSTREAM_ERROR, "The provider's stream stopped before its end; the answer is not complete.")
MALFORMED = Refusal(
    Reason.UPSTREAM_ERROR, "The provider sent an event that is not valid JSON; the answer is not complete."
)
SHUTTING_DOWN = Refusal(
    Reason.SHUTTING_DOWN, "The gateway is shutting down. Try again in a second.", retry_after_us=1_000_000
)
