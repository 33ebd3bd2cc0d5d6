"""What a trace tells of a call: spans of the call and of its attempts, made of its one event."""

from typing import Any

import attrs
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perpetuo.adapters.environment import Sampler
from perpetuo.adapters.telemetry.spans import request_of, spans_in
from perpetuo.adapters.telemetry.traces import sampled_by
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.trace import Trace
from tests.collector import Seen, spans_of

CANARY = "canary-7f3a prompt text"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
START_US = 1_795_435_200_123_456
FAILED = {
    "provider": "openai", "model": "gpt-x", "outcome": "server_error", "status": 503, "sent": True, "start_ms": 0.5,
    "ms": 10.25,
}  # fmt: skip
ANSWERED = {
    "provider": "azure", "model": "gpt-y", "outcome": "success", "status": 200, "sent": True, "start_ms": 20.0,
    "ms": 30.0,
}  # fmt: skip
EVENT = Event(
    id="0199c0de-f00d-7abc-8def-0123456789ab", occurred_at_us=START_US, tenant_id="acme", key_name="batch", kind="chat",
    model="gpt", request_id="r-1", status=200, outcome="completed", provider="azure", upstream_model="gpt-y",
    input_tokens=7, output_tokens=3, cached_tokens=2, cost_nano_usd=1_500, latency_ms=60.0, overhead_ms=0.75,
    attempts=(FAILED, ANSWERED), tag=CANARY, client_ip="10.0.0.1", idempotency="stored",
    decision={"candidates": [CANARY]},
)  # fmt: skip
TRACED = attrs.evolve(EVENT, trace_id=TRACE, decision={"trace": {"parent": SPAN, "flags": 1}})


def spans(event: Event, **resource: str) -> list[Seen]:
    body = request_of([event], resource or {"service.name": "perpetuo"}, "1.2.3")
    return spans_of(ExportTraceServiceRequest.FromString(body))


def test_a_call_is_a_server_span_and_each_attempt_a_client_span_below_it() -> None:
    """In the caller's trace, below the caller's span; the provider was told the attempt's span."""
    call, first, second = spans(TRACED)
    assert [span.kind for span in (call, first, second)] == ["SERVER", "CLIENT", "CLIENT"]
    assert {span.trace for span in (call, first, second)} == {TRACE}
    assert call.parent == SPAN
    assert {first.parent, second.parent} == {call.id}
    told = [Trace(TRACE, SPAN, 1).child(EVENT.id, attempt).split("-")[2] for attempt in (1, 2)]
    assert [first.id, second.id] == told
    assert spans_in(TRACED) == 3


def test_a_call_without_a_trace_begins_one_with_its_own_id() -> None:
    """Whoever has the row finds the trace."""
    call, *attempts = spans(EVENT)
    assert call.trace == EVENT.id.replace("-", "")
    assert call.parent == ""
    assert {span.trace for span in attempts} == {call.trace}


def test_flags_tell_that_a_span_is_sampled_and_whose_parent_is_elsewhere() -> None:
    """As OTLP numbers them: 1 sampled, 2 random, 0x100 known, 0x200 remote."""
    assert [span.flags for span in spans(EVENT)] == [0x101, 0x101, 0x101]
    assert [span.flags for span in spans(TRACED)] == [0x301, 0x101, 0x101]
    random = attrs.evolve(TRACED, decision={"trace": {"parent": SPAN, "flags": 0xFF}})
    assert spans(random)[0].flags == 0x303


def test_times_are_the_rows() -> None:
    """To the microsecond; what a stream's provider takes lasts until the call's end."""
    call, first, second = spans(EVENT)
    assert (call.start, call.end) == (START_US * 1_000, START_US * 1_000 + 60_000_000)
    assert (first.start - call.start, first.end - first.start) == (500_000, 10_250_000)
    assert (second.start - call.start, second.end - second.start) == (20_000_000, 30_000_000)
    _, broken, streaming = spans(attrs.evolve(EVENT, stream=True, first_token_ms=50.0))
    assert broken.end == first.end
    assert streaming.end == call.end


def test_attributes_have_the_names_of_the_conventions() -> None:
    """``gen_ai`` and HTTP where there is a name, ``perpetuo`` for the rest; tokens are on the call alone."""
    call, first, second = spans(attrs.evolve(EVENT, stream=True, first_token_ms=50.0))
    assert call.name == "chat gpt"
    assert call.attributes == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "azure", "gen_ai.request.model": "gpt",
        "gen_ai.response.model": "gpt-y", "gen_ai.request.stream": True, "gen_ai.response.time_to_first_chunk": 0.05,
        "gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 2,
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
        "perpetuo.tenant": "acme", "perpetuo.key": "batch", "perpetuo.request_id": "r-1",
        "perpetuo.call_id": EVENT.id, "perpetuo.outcome": "completed", "perpetuo.idempotency": "stored",
        "perpetuo.cost_nano_usd": 1_500, "perpetuo.usage_basis": "reported", "perpetuo.overhead_ms": 0.75,
    }  # fmt: skip
    assert first.name == "chat gpt-x"
    assert first.attributes == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-x",
        "http.request.method": "POST", "http.response.status_code": 503, "error.type": "server_error",
        "perpetuo.attempt": 1, "perpetuo.sent": True,
    }  # fmt: skip
    assert (second.attributes["perpetuo.attempt"], "error.type" in second.attributes) == (2, False)


def test_embeddings_are_another_operation() -> None:
    """With their own name and route."""
    call = spans(attrs.evolve(EVENT, kind="embeddings"))[0]
    assert (call.name, call.attributes["gen_ai.operation.name"]) == ("embeddings gpt", "embeddings")
    assert call.attributes["http.route"] == "/v1/embeddings"


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({}, [False, True, False]),
        ({"status": 502, "outcome": "failed", "error_code": "upstream_error"}, [True, True, False]),
        ({"status": 400, "outcome": "failed", "error_code": "bad_thing"}, [False, True, False]),
        ({"outcome": "truncated", "error_code": "upstream_error"}, [True, True, False]),
        ({"status": 499, "outcome": "cancelled", "error_code": "client_gone"}, [False, True, False]),
    ],
)
def test_an_error_is_one_of_the_gateways_side(changes: dict[str, Any], errors: list[bool]) -> None:
    """A server's span is no error for what its client did (HTTP conventions); the code is told all the same."""
    found = spans(attrs.evolve(EVENT, **changes))
    assert [span.is_error for span in found] == errors
    assert found[0].attributes.get("error.type") == changes.get("error_code")


def test_a_call_that_nobody_answered_names_no_model_of_an_answer() -> None:
    """Nor a provider, where there was no attempt."""
    call = spans(attrs.evolve(EVENT, attempts=(FAILED,), status=502))[0]
    assert "gen_ai.response.model" not in call.attributes
    alone = spans(attrs.evolve(EVENT, attempts=(), status=503, provider=None, upstream_model=None))
    assert len(alone) == 1
    assert "gen_ai.provider.name" not in alone[0].attributes


def test_a5_a_trace_holds_no_text_of_a_client_and_no_credential() -> None:
    """Neither tag nor decision nor address; a provider's code is scrubbed."""
    event = attrs.evolve(EVENT, status=502, error_code="sk-secret-0123456789 " + "x" * 5_000)
    body = request_of([event], {}, "1")
    assert CANARY.encode() not in body
    assert b"10.0.0.1" not in body
    assert b"sk-secret" not in body
    assert len(body) < 3_000


def test_the_service_says_who_it_is() -> None:
    """Name and version, and whatever else it was told to say."""
    resource = spans(EVENT, **{"service.name": "edge", "deployment.environment.name": "test"})[0].resource
    assert resource == {"service.name": "edge", "deployment.environment.name": "test", "service.version": "1.2.3"}


def test_many_calls_let_others_run_in_between() -> None:
    """Encoding 512 calls at once would hold the interpreter for ten milliseconds."""
    turns: list[None] = []
    request_of([EVENT] * 100, {}, "1", lambda: turns.append(None))
    assert len(turns) == 6


# --- which calls have spans ----------------------------------------------------------------------

UNSAMPLED = attrs.evolve(EVENT, trace_id=TRACE, decision={"trace": {"parent": SPAN, "flags": 0}})
LOW = attrs.evolve(EVENT, id="0199c0de-f00d-7abc-8d00-" + "0" * 12)
HIGH = attrs.evolve(EVENT, id="0199c0de-f00d-7abc-bfff-" + "f" * 12)


@pytest.mark.parametrize(
    ("sampler", "taken"),
    [
        (Sampler(), [True, True, False]),
        (Sampler(0.0), [False, True, False]),
        (Sampler(1.0, asks_parent=False), [True, True, True]),
        (Sampler(0.0, asks_parent=False), [False, False, False]),
    ],
)
def test_the_callers_trace_says_whether_it_is_sampled(sampler: Sampler, taken: list[bool]) -> None:
    """Unless the sampler asks nobody: no trace, a sampled one, one that is not."""
    sampled = sampled_by(sampler)
    assert [bool(sampled(event)) for event in (EVENT, TRACED, UNSAMPLED)] == taken


def test_a_share_is_drawn_from_the_random_bits_of_the_trace() -> None:
    """All services that go by the same bits agree; a call's own id has them where a trace id has them."""
    sampled = sampled_by(Sampler(0.25))
    assert (sampled(LOW), sampled(HIGH)) == (False, True)
    ids = [attrs.evolve(EVENT, id=f"0199c0de-f00d-7abc-8d{part:02x}-0123456789ab") for part in range(256)]
    assert sum(map(bool, map(sampled, ids))) == 64
