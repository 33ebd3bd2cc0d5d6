"""
How do the spans of finished calls get to a collector, without a call ever waiting for it?

    call -> finished() -> a queue -> [thread: spans of up to 512 calls, one POST] -> collector

Rule 1: a call puts its event into the queue, and that is all. When the queue is full, the event is not taken.
Rule 2: a batch goes when 512 calls wait (or half a smaller queue), or after OTEL_BSP_SCHEDULE_DELAY. It is tried again
for up to 10 s when that may help (no connection, 429, 502, 503, 504, as OTLP asks), and then dropped.
Rule 3: what is dropped is counted by spans, and said in the log: at first, then once a minute, and when it is over.
Rule 4: the thread gives way between some calls: it shares the interpreter with them.
Rule 5: at the end, what waits is sent within 2 s, or dropped.
"""

import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from perpetuo import __version__
from perpetuo.adapters.environment import Sampler, Tracing
from perpetuo.adapters.telemetry.metrics import SPANS_DROPPED, SPANS_EXPORTED, Metrics
from perpetuo.adapters.telemetry.spans import request_of, spans_in
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.trace import SAMPLED

BATCH = 512
EXPORT_SECONDS = 10.0
FIRST_PAUSE = 0.5
LAST_SECONDS = 2.0
REPEAT_SECONDS = 60.0
GIVES_WAY_SECONDS = 0.0005
AGAIN = frozenset({429, 502, 503, 504})
HEADERS = {"content-type": "application/x-protobuf", "user-agent": f"perpetuo/{__version__}"}
RANDOM_BITS = 56
"""Of a trace id, from the right: so many are random (W3C Trace Context, level 2), and those of a UUIDv7 are as well."""

Tell = Callable[..., None]
"""``tell(level, event, **fields)``: a line for the log, from any thread."""


@attrs.frozen
class Refused:
    """Why a batch was not taken; ``again``: may it help to send it once more?"""

    problem: str
    again: bool


class Traces:
    """Takes finished calls and exports their spans from a thread of its own."""

    def __init__(self, tracing: Tracing, metrics: Metrics, tell: Tell) -> None:
        self._tracing = tracing
        self._metrics = metrics
        self._tell = tell
        self._sampled = sampled_by(tracing.sampler)
        self._waiting: deque[Event] = deque()
        self._enough = min(BATCH, (tracing.queue + 1) // 2)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._trouble = 0
        """Batches lost since one was taken."""
        self._told = 0.0
        for reason in ("queue_full", "export_failed", "rejected", "shutdown"):
            metrics.add(SPANS_DROPPED, reason, by=0)  # a thread must not be the first to name a cell
        metrics.add(SPANS_EXPORTED, by=0)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for each request
        trusts = ssl.create_default_context(cafile=tracing.certificate) if tracing.certificate else True
        self._client = httpx.Client(headers={**tracing.headers, **HEADERS}, timeout=EXPORT_SECONDS, verify=trusts)
        self._in_hand: Sequence[Event] = ()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def finished(self, event: Event) -> None:
        """Take a finished call."""
        if not self._sampled(event):
            return
        waiting = len(self._waiting)
        if waiting >= self._tracing.queue:
            self._metrics.add(SPANS_DROPPED, "queue_full", by=spans_in(event))
            return
        self._waiting.append(event)
        if waiting + 1 == self._enough:
            self._wake.set()

    def close(self) -> None:
        """Send what waits, for at most `LAST_SECONDS`."""
        self._closing.set()
        self._wake.set()
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            self._lose([*self._in_hand, *self._waiting], "shutdown", "there was no time to send what was waiting")

    # --- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(self._tracing.delay)
            self._wake.clear()
            closing = self._closing.is_set()
            self._send(len(self._waiting))  # those who come meanwhile wait for company: batches stay large
        self._client.close()

    def _send(self, left: int) -> None:
        while left > 0:
            self._in_hand = [self._waiting.popleft() for _ in range(min(BATCH, left))]
            left -= len(self._in_hand)
            try:
                self._export(self._in_hand)
            except Exception as error:  # noqa: BLE001 - the thread must outlive every defect in it
                self._lose(self._in_hand, "export_failed", f"{type(error).__name__}: {error}")
            self._in_hand = ()

    def _export(self, events: Sequence[Event]) -> None:
        body = request_of(events, self._tracing.resource, __version__, lambda: time.sleep(GIVES_WAY_SECONDS))
        until, pause = time.monotonic() + EXPORT_SECONDS, FIRST_PAUSE
        while True:
            result = self._post(body)
            if not isinstance(result, Refused):
                return self._taken(events, result)
            if not result.again or time.monotonic() + pause > until or self._closing.wait(pause):
                return self._lose(events, "export_failed", result.problem)
            pause *= 2

    def _post(self, body: bytes) -> ExportTraceServiceResponse | Refused:
        try:
            answer = self._client.post(self._tracing.endpoint, content=body)
        except httpx.HTTPError as error:
            return Refused(f"{type(error).__name__}: {error}", again=isinstance(error, httpx.TransportError))
        if not answer.is_success:
            return Refused(f"it answered {answer.status_code}", again=answer.status_code in AGAIN)
        kind = answer.headers.get("content-type", "")
        if "html" in kind:
            return Refused("it answered with a page: is it a collector?", again=False)
        said: ExportTraceServiceResponse = ExportTraceServiceResponse.FromString(
            answer.content if "protobuf" in kind else b""
        )
        return said

    def _taken(self, events: Sequence[Event], answer: ExportTraceServiceResponse) -> None:
        rejected = answer.partial_success.rejected_spans
        self._metrics.add(SPANS_EXPORTED, by=_spans(events) - rejected)
        if rejected:
            return self._lose((), "rejected", answer.partial_success.error_message, by=rejected)
        if self._trouble:
            self._tell("info", "traces_back", failures=self._trouble)
            self._trouble, self._told = 0, 0.0

    def _lose(self, events: Sequence[Event], reason: str, problem: str, by: int = 0) -> None:
        lost = by or _spans(events)
        self._metrics.add(SPANS_DROPPED, reason, by=lost)
        self._trouble += 1
        now = time.monotonic()
        if self._told and now - self._told < REPEAT_SECONDS:
            return
        self._told = now
        self._tell(
            "warning", "traces_away", problem=problem, reason=reason, count=lost, failures=self._trouble,
            meaning="spans are dropped until the collector takes them; calls are not affected",
        )  # fmt: skip


def sampled_by(sampler: Sampler) -> Callable[[Event], Any]:
    """
    Which calls have spans: a share of them goes by the random bits of the trace id, so that all services agree.

    A caller that has a trace is asked first, unless the sampler is one that does not.
    """
    below = round((1.0 - sampler.share) * (1 << RANDOM_BITS))
    everything = below == 0

    def drawn(event: Event) -> bool:
        return everything or int((event.trace_id or event.id.replace("-", ""))[-RANDOM_BITS // 4 :], 16) >= below

    def as_the_parent(event: Event) -> Any:
        trace = event.decision.get("trace")
        return drawn(event) if trace is None else trace["flags"] & SAMPLED

    return as_the_parent if sampler.asks_parent else drawn


def _spans(events: Sequence[Event]) -> int:
    return sum(map(spans_in, events))
