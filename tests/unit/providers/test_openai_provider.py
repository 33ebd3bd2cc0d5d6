"""What the OpenAI adapter sends, and what it makes of every sort of answer."""

import json
from typing import Any

import attrs
import pytest

from perpetuo.adapters.dialects.sse import DONE
from perpetuo.adapters.providers.openai import OpenAIProvider
from perpetuo.adapters.providers.stream import EventStream
from perpetuo.adapters.providers.transport.wire import Headers
from perpetuo.domain.model.chat import Kind
from perpetuo.domain.model.upstream import Abort, Answer, Ending, Fault, UpstreamFailure
from perpetuo.domain.model.usage import Usage
from tests.unit.providers.scripted import CHAT, JSON, SPEC, SSE, STREAM, Script, outbound

pytestmark = pytest.mark.anyio

REPLY = {
    "id": "c",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    "model": "provider-model-2026",
}
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
CUT = UpstreamFailure(Fault.RESET, True, "reset")


async def send(script: Script, body: bytes = CHAT, spec: Any = SPEC, **how: Any) -> Answer | EventStream:
    return await OpenAIProvider(spec, script, lambda: 0).send(outbound(body, **how), Abort())


async def answer(script: Script, body: bytes = CHAT, **how: Any) -> Answer:
    result = await send(script, body, **how)
    assert isinstance(result, Answer)
    return result


async def stream(
    *pieces: bytes, headers: Headers = SSE, then: UpstreamFailure | None = None
) -> tuple[EventStream, Script]:
    script = Script(200, headers, pieces, then)
    result = await send(script, STREAM)
    assert isinstance(result, EventStream)
    return result, script


async def failure(script: Script, body: bytes = CHAT) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as failed:
        await send(script, body)
    assert script.aborted
    return failed.value


def reply(**changed: Any) -> bytes:
    return json.dumps({**REPLY, **changed}).encode()


# --- outwards ---


@pytest.mark.parametrize(
    ("base", "target"),
    [
        ("http://h/v1", b"/v1/chat/completions"),
        ("http://h/v1/", b"/v1/chat/completions"),
        ("http://h", b"/chat/completions"),
        ("http://h:8080/a/b?api-version=1", b"/a/b/chat/completions?api-version=1"),
    ],
)
async def test_s8_the_path_is_below_the_configured_base(base: str, target: bytes) -> None:
    """No request can choose where it goes."""
    script = Script(200, JSON, [reply()])
    await send(script, spec=attrs.evolve(SPEC, base_url=base))
    assert script.request is not None
    assert script.request.path == target


async def test_s1_only_these_headers_go_out() -> None:
    """By allow-list; the call id only to a provider on this machine."""
    script = Script(200, JSON, [reply()])
    await send(script)
    assert script.request is not None
    sent = dict((*script.request.headers, *script.request.further))
    assert set(sent) == {b"content-type", b"user-agent", b"authorization", b"accept", b"traceparent", b"tracestate"}
    assert sent[b"authorization"] == b"Bearer sk-provider"
    await send(script := Script(200, JSON, [reply()]), spec=attrs.evolve(SPEC, loopback=True, api_key=None))
    assert script.request is not None
    sent = dict((*script.request.headers, *script.request.further))
    assert b"authorization" not in sent
    assert sent[b"x-perpetuo-call"] == b"0193-call"


async def test_c8_a_stream_has_a_time_for_its_head_and_its_gaps() -> None:
    """A call that is no stream has only its total."""
    await send(script := Script(200, SSE, [EVENT]), STREAM)
    assert script.phases is not None
    assert (script.phases.connect, script.phases.head, script.phases.idle) == (5.0, 60.0, 120.0)
    await send(script := Script(200, JSON, [reply()]))
    assert script.phases is not None
    assert (script.phases.head, script.phases.idle) == (None, None)


# --- whole answers ---


async def test_a_good_answer_is_passed_on_as_it_is() -> None:
    """The body byte for byte, the model name in it the provider's own."""
    got = await answer(Script(200, JSON, [reply()[:20], reply()[20:]]))
    assert (got.status, got.body, got.usage, got.fault, got.output_bytes) == (200, reply(), Usage(5, 1), None, 0)


async def test_s1_only_these_headers_come_in() -> None:
    """Never a cookie, never the provider's own rate limits."""
    headers = (
        *JSON,
        (b"set-cookie", b"a=b"),
        (b"x-ratelimit-remaining-requests", b"5"),
        (b"openai-organization", b"org"),
        (b"openai-processing-ms", b"12"),
        (b"openai-version", b"2020\x01-10-01"),
        (b"x-request-id", b"req_1"),
    )
    got = await answer(Script(200, headers, [reply()]))
    assert got.headers == (("openai-processing-ms", "12"),)
    assert got.upstream_request_id == "req_1"


async def test_b9_an_answer_without_usage_says_so() -> None:
    """It is then settled on a bound from its bytes."""
    got = await answer(Script(200, JSON, [reply(usage=None)]))
    assert (got.usage, got.output_bytes) == (None, 2)


async def test_embeddings_have_no_output() -> None:
    """Only input is charged."""
    body = b'{"object":"list","data":[],"usage":{"prompt_tokens":4,"total_tokens":4}}'
    got = await answer(Script(200, JSON, [body]), b'{"model":"m","input":"a"}', kind=Kind.EMBEDDINGS)
    assert (got.usage, got.output_bytes) == (Usage(4, 0), 0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"a":', b"data: {}\n\n", b"\xff", b"[" * 100_000])
async def test_s4_a_2xx_that_is_no_json_is_a_protocol_fault(body: bytes) -> None:
    """It was sent, and may have cost something."""
    for asked in (CHAT, STREAM):
        failed = await failure(Script(200, ((b"content-type", b"text/html"),), [body]), asked)
        assert (failed.fault, failed.sent) == (Fault.PROTOCOL, True)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 999])
async def test_s4_a_status_that_can_not_be_passed_on_is_a_protocol_fault(status: int) -> None:
    """A worker that tried to send it would die."""
    assert (await failure(Script(status, JSON, [reply()]))).fault is Fault.PROTOCOL


async def test_s4_encoded_content_is_not_guessed_at() -> None:
    """We asked for identity."""
    headers = (*JSON, (b"content-encoding", b"gzip"))
    assert (await failure(Script(200, headers, [reply()]))).fault is Fault.PROTOCOL


async def test_s8_a_redirect_is_an_unusable_answer() -> None:
    """It is not followed."""
    got = await answer(Script(302, ((b"location", b"http://evil.example/"),), []))
    assert (got.fault, got.headers) == (Fault.SERVER_ERROR, ())


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_c5_an_error_is_an_answer_with_its_fault(body: bytes) -> None:
    """Streams that are refused answer in JSON too."""
    error = json.dumps({"error": {"message": "slow down", "type": "t", "code": "rate_limit_exceeded"}}).encode()
    got = await answer(Script(429, (*JSON, (b"retry-after", b"2"), (b"x-request-id", b"r")), [error]), body)
    assert (got.status, got.fault, got.retry_after_us, got.error_code, got.upstream_request_id) == (
        429, Fault.RATE_LIMITED, 2_000_000, "rate_limit_exceeded", "r",
    )  # fmt: skip
    assert json.loads(got.body)["error"]["source"] == "provider"


@pytest.mark.parametrize(("status", "sent"), [(400, CHAT), (404, CHAT), (200, CHAT), (200, STREAM)])
async def test_s1_a_client_never_reads_our_key_in_a_providers_error(status: int, sent: bytes) -> None:
    """Whole, inside a 200, or as the first event of a stream."""
    error = json.dumps({"error": {"message": "not allowed for sk-provider", "code": "sk-provider"}}).encode()
    script = Script(200, SSE, [b"data: " + error + b"\n\n"]) if sent == STREAM else Script(status, JSON, [error])
    got = await answer(script, sent)
    assert json.loads(got.body)["error"]["message"] == "not allowed for [redacted]"
    assert got.error_code == "[redacted]"


async def test_an_error_inside_a_200_is_an_error() -> None:
    """With the status it stands for."""
    got = await answer(Script(200, JSON, [b'{"error":{"message":"no","code":429}}']))
    assert (got.status, got.fault) == (429, Fault.RATE_LIMITED)


# --- streams ---


async def test_c7_a_stream_begins_with_its_first_event() -> None:
    """Comments before it are no beginning."""
    got, script = await stream(b": wait\n\n", b": wait\n\n", EVENT, LAST + DONE)
    assert (got.status, got.output_bytes, got.ending) == (200, 2, None)
    assert b"".join([data async for data in got.chunks()]) == EVENT + LAST
    assert got.ending is Ending.COMPLETE
    assert script.ended


async def test_c7_usage_is_read_and_kept_from_those_who_did_not_ask() -> None:
    """Also when it is the very first event."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}\n\n'
    got, _ = await stream(usage, EVENT + LAST, DONE)
    assert b"".join([data async for data in got.chunks()]) == EVENT + LAST
    assert got.usage == Usage(5, 1)


@pytest.mark.parametrize(
    ("pieces", "ending"),
    [
        ([EVENT], Ending.TRUNCATED),
        ([EVENT, LAST], Ending.COMPLETE),
        ([EVENT, DONE], Ending.COMPLETE),
        ([EVENT, b"data: <<\n\n", LAST, DONE], Ending.MALFORMED),
        ([EVENT, LAST[:-5]], Ending.TRUNCATED),
    ],
)
async def test_c7_how_a_stream_ended_is_said(pieces: list[bytes], ending: Ending) -> None:
    """Complete only with a terminal event, or a finish reason and a clean end."""
    got, _ = await stream(*pieces)
    assert (await anext(got.chunks())).startswith(EVENT)
    got, script = await stream(*pieces)
    async for _ in got.chunks():
        pass
    assert (got.ending, script.aborted) == (ending, True)


@pytest.mark.parametrize(
    "pieces",
    [[], [b": x\n\n"], [b"data: <<\n\n"], [EVENT[:-1]], [b"event: ping\n\n"], [b"data: " + b"x" * 1_100_000]],
)
async def test_c6_a_stream_without_one_good_event_is_a_failed_attempt(pieces: list[bytes]) -> None:
    """Nothing has reached the client, so it may be made again."""
    failed = await failure(Script(200, SSE, pieces), STREAM)
    assert (failed.fault, failed.sent) == (Fault.PROTOCOL, True)


async def test_c6_a_stream_that_begins_with_an_error_is_a_failed_answer() -> None:
    """Retryable, by the status it stands for."""
    got = await answer(Script(200, SSE, [b'data: {"error":{"message":"overloaded"}}\n\n', DONE]), STREAM)
    assert (got.status, got.fault) == (502, Fault.SERVER_ERROR)


async def test_c7_an_error_event_later_breaks_the_stream() -> None:
    """What came before it is the client's."""
    got, script = await stream(EVENT, LAST + b'data: {"error":{"message":"gone"}}\n\n' + DONE)
    chunks = got.chunks()
    assert [await anext(chunks), await anext(chunks)] == [EVENT, LAST]
    with pytest.raises(UpstreamFailure) as broken:
        await anext(chunks)
    assert (broken.value.fault, broken.value.sent) == (Fault.SERVER_ERROR, True)
    assert (got.ending, script.aborted) == (None, True)


async def test_c7_a_reset_keeps_what_was_counted() -> None:
    """The bill goes by what was streamed."""
    got, script = await stream(EVENT, EVENT, then=CUT)
    with pytest.raises(UpstreamFailure) as broken:
        async for _ in got.chunks():
            pass
    assert (broken.value, got.output_bytes, script.aborted) == (CUT, 4, True)


async def test_c7_a_failure_after_the_terminal_event_is_none() -> None:
    """The client has all of it."""
    got, _ = await stream(EVENT, LAST + DONE, then=CUT)
    assert [data async for data in got.chunks()] == [EVENT, LAST]
    assert got.ending is Ending.COMPLETE


async def test_c10_a_reader_that_stops_early_closes_the_connection() -> None:
    """Nothing goes on generating for nobody."""
    got, script = await stream(EVENT, EVENT, EVENT)
    chunks = got.chunks()
    await anext(chunks)
    assert not script.aborted
    await chunks.aclose()  # type: ignore[attr-defined]
    assert script.aborted


async def test_a_stream_answered_in_one_piece_is_made_one() -> None:
    """The client asked for events and gets them."""
    result = await send(Script(200, JSON, [reply()]), STREAM)
    assert isinstance(result, EventStream)
    out = b"".join([data async for data in result.chunks()])
    assert json.loads(out.split(b"\n\n")[0][6:])["choices"][0]["delta"]["content"] == "Hi"
    assert (result.ending, result.usage) == (Ending.COMPLETE, Usage(5, 1))
    assert b"usage" not in out
