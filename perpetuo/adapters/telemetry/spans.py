"""
What does a trace tell of a finished call? (OTLP; names: OpenTelemetry's semantic conventions for ``gen_ai`` and HTTP)

    SERVER   the call, from its arrival to its settlement; a child of the caller's span, if there is one
    CLIENT   each attempt at a provider; its id is the one that the provider was told (`domain.model.trace`)

Rule 1: everything comes from the one finished `Event`; nothing is measured here. (Only for those who installed the
extra: nobody imports this module before traces are asked for.)
Rule 2: no prompt, no output, no secret, no tag; codes of providers are cut and scrubbed. (A5)
Rule 3: a call without a trace begins one, whose id is the call's own, without its dashes.
Rule 4: tokens and cost stand on the call alone, so that a sum over spans counts them once.
Rule 5: messages are filled in directly; the SDK's spans and its encoder cost four times as much (decision 0030).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from perpetuo.adapters.telemetry.logs import scrubbed
from perpetuo.domain.model.chat import Kind
from perpetuo.domain.model.events import Event, Outcome
from perpetuo.domain.model.trace import KNOWN_FLAGS, SAMPLED, span_of

SCOPE = "perpetuo"
NS_PER_US = 1_000
NS_PER_MS = 1_000_000
HAS_IS_REMOTE, IS_REMOTE = 0x100, 0x200
"""Of a span's flags: is it known whether its parent is elsewhere, and is it? The lowest 8 bits are the trace's."""
AT_A_TIME = 16
"""Calls that are encoded before others may run."""
SUCCESS = "success"

MOST_KEPT = 4_096
"""Sets of attributes that are kept encoded."""

Named = tuple[str, str | int | float | None]


def request_of(
    events: Sequence[Event], resource: Mapping[str, str], version: str, give_way: Callable[[], None] = lambda: None
) -> bytes:
    """An ``ExportTraceServiceRequest`` with the spans of these calls; ``give_way`` is called now and then."""
    request = ExportTraceServiceRequest()
    service = request.resource_spans.add()
    _fill(service.resource.attributes, {**resource, "service.version": version}.items())
    scope = service.scope_spans.add()
    scope.scope.name, scope.scope.version = SCOPE, version
    for number, event in enumerate(events, 1):
        add_spans(scope, event)
        if number % AT_A_TIME == 0:
            give_way()
    body: bytes = request.SerializeToString()
    return body


def spans_in(event: Event) -> int:
    """How many spans a call has."""
    return 1 + len(event.attempts)


def add_spans(scope: ScopeSpans, event: Event) -> None:
    """The call's span and those of its attempts."""
    told: Mapping[str, Any] = event.decision.get("trace") or {}
    trace, flags = trace_of(event), (told.get("flags", SAMPLED) & KNOWN_FLAGS) | HAS_IS_REMOTE
    parent = told.get("parent")
    start = event.occurred_at_us * NS_PER_US
    end = start + round(event.latency_ms * NS_PER_MS)
    operation = str(event.kind)
    call = scope.spans.add(
        trace_id=trace,
        span_id=bytes.fromhex(span_of(event.id, 0)),
        parent_span_id=bytes.fromhex(parent) if parent else b"",
        flags=flags | IS_REMOTE if parent else flags,
        name=f"{operation} {event.model}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
    )
    call.MergeFromString(_encoded(_of_many(event, operation)))
    _fill(call.attributes, _of_one(event))
    if event.status >= 500 or event.outcome == Outcome.TRUNCATED:
        call.status.code = Status.STATUS_CODE_ERROR
    for number, attempt in enumerate(event.attempts, 1):
        begun = start + round(attempt["start_ms"] * NS_PER_MS)
        lasts_to_the_end = event.stream and attempt["outcome"] == SUCCESS
        span = scope.spans.add(
            trace_id=trace,
            span_id=bytes.fromhex(span_of(event.id, number)),
            parent_span_id=call.span_id,
            flags=flags,
            name=f"{operation} {attempt['model']}",
            kind=Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=begun,
            end_time_unix_nano=end if lasts_to_the_end else begun + round(attempt["ms"] * NS_PER_MS),
        )
        span.MergeFromString(_encoded(_of_attempt(attempt, number, operation)))
        if attempt["outcome"] != SUCCESS:
            span.status.code = Status.STATUS_CODE_ERROR


def trace_of(event: Event) -> bytes:
    """The id of the call's trace."""
    return bytes.fromhex(event.trace_id or event.id.replace("-", ""))


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1_000, 6)


def _of_many(event: Event, operation: str) -> tuple[Named, ...]:
    """What calls have in common with others."""
    answered = any(attempt["outcome"] == SUCCESS for attempt in event.attempts)
    return (
        ("gen_ai.operation.name", operation),
        ("gen_ai.provider.name", event.provider),
        ("gen_ai.request.model", event.model),
        ("gen_ai.response.model", event.upstream_model if answered else None),
        ("gen_ai.request.stream", event.stream or None),
        ("http.request.method", "POST"),
        ("http.route", Kind(operation).path),
        ("http.response.status_code", event.status),
        ("perpetuo.tenant", event.tenant_id),
        ("perpetuo.key", event.key_name),
        ("perpetuo.outcome", str(event.outcome)),
        ("perpetuo.idempotency", event.idempotency),
        ("perpetuo.usage_basis", str(event.usage_basis)),
    )


def _of_one(event: Event) -> tuple[Named, ...]:
    """What is a call's own."""
    return (
        ("gen_ai.usage.input_tokens", event.input_tokens),
        ("gen_ai.usage.output_tokens", event.output_tokens),
        ("gen_ai.usage.cache_read.input_tokens", event.cached_tokens or None),
        ("gen_ai.response.time_to_first_chunk", _seconds(event.first_token_ms)),
        ("error.type", scrubbed(event.error_code) if event.error_code else None),
        ("perpetuo.request_id", event.request_id),
        ("perpetuo.call_id", event.id),
        ("perpetuo.cost_nano_usd", event.cost_nano_usd),
        ("perpetuo.overhead_ms", event.overhead_ms),
    )


def _of_attempt(attempt: Mapping[str, Any], number: int, operation: str) -> tuple[Named, ...]:
    return (
        ("gen_ai.operation.name", operation),
        ("gen_ai.provider.name", attempt["provider"]),
        ("gen_ai.request.model", attempt["model"]),
        ("http.request.method", "POST"),
        ("http.response.status_code", attempt["status"] or None),
        ("error.type", None if attempt["outcome"] == SUCCESS else attempt["outcome"]),
        ("perpetuo.attempt", number),
        ("perpetuo.sent", attempt["sent"]),
    )


@lru_cache(maxsize=MOST_KEPT)
def _encoded(values: tuple[Named, ...]) -> bytes:
    """Attributes as bytes, to be merged into a span: a tenth of what it takes to set them one by one."""
    span = Span()
    _fill(span.attributes, values)
    body: bytes = span.SerializeToString()
    return body


def _fill(attributes: Any, values: Iterable[Named]) -> None:
    for name, value in values:
        if value is None:
            continue
        one: KeyValue = attributes.add(key=name)
        if isinstance(value, str):
            one.value.string_value = value
        elif isinstance(value, bool):
            one.value.bool_value = value
        elif isinstance(value, int):
            one.value.int_value = value
        else:
            one.value.double_value = value
