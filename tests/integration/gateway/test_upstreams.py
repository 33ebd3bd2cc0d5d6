"""Providers that fail, end to end: a mock of real ones, and an upstream of raw bytes (C5-C9, S1, S4, S8)."""

import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from llmock.scenarios import Delay, Fail, Match, SlowFirstToken, StreamFault
from llmock.testing import LLMockServer

from perpetuo.domain.model.errors import Reason
from tests.evil import Evil, Peer, Script, answering, saying, silent_after
from tests.integration.gateway.contract import check
from tests.live import KEY, LiveGateway, config_text, eventually, rows
from tests.patience import PATIENCE, best
from tests.servers import RedisServer

CANARY = "sk-provider-canary-0123456789"
NEVER = "breaker: {minimumCalls: 1000000, consecutiveConnectFailures: 1000000}"
PATIENT = "timeouts: {connect: 10s, firstToken: 20s, idle: 20s, total: 60s}"
HURRIED = PATIENT.replace("firstToken: 20s", "firstToken: 800ms")
GAPS = PATIENT.replace("idle: 20s", "idle: 800ms")
"""For tests about one of them: the providers ``hurried`` and ``slow``, and ``gaps``."""
CHUNK_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
GOOD = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'  # noqa: E501


def whole(body: bytes, status: bytes = b"200 OK", *more: bytes, kind: bytes = b"application/json") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-type: " + kind, b"content-length: %d" % len(body), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return CHUNK_HEAD + data + (b"0\r\n\r\n" if end else b"")


class Stage:
    """The evil upstream's script; tests change it."""

    def __init__(self) -> None:
        self.script: Script = saying(whole(GOOD))

    def __call__(self, peer: Peer) -> None:
        self.script(peer)


@pytest.fixture(scope="module")
def llmock_here() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


@pytest.fixture(scope="module")
def evil(stage: Stage) -> Iterator[Evil]:
    with Evil(stage) as server:
        yield server


@pytest.fixture(scope="module")
def shared(redis_here: RedisServer, database_here: str, llmock_here: LLMockServer, evil: Evil) -> Iterator[LiveGateway]:
    free = "free: true"
    providers = f"""
  - {{id: mock, kind: openai, baseUrl: "{llmock_here.base_url()}", apiKey: {CANARY}, {PATIENT}, {NEVER}}}
  - {{id: hurried, kind: openai, baseUrl: "{llmock_here.base_url()}", apiKey: {CANARY}, {HURRIED}, {NEVER}}}
  - {{id: gaps, kind: openai, baseUrl: "{llmock_here.base_url()}", apiKey: {CANARY}, {GAPS}, {NEVER}}}
  - {{id: mock-2, kind: openai, baseUrl: "{llmock_here.base_url()}", apiKey: {CANARY}, {PATIENT}, {NEVER}}}
  - {{id: mock-3, kind: openai, baseUrl: "{llmock_here.base_url()}", apiKey: {CANARY}, {PATIENT}, {NEVER}}}
  - {{id: evil, kind: openai, baseUrl: "{evil.origin}/v1", apiKey: {CANARY}, {PATIENT}, {NEVER}}}
  - {{id: slow, kind: openai, baseUrl: "{evil.origin}/v1", apiKey: {CANARY}, {HURRIED}, {NEVER}}}
  - {{id: nobody, kind: openai, baseUrl: "http://127.0.0.1:9/v1", {PATIENT}, {NEVER}}}"""
    models = f"""
  - {{name: m, targets: [{{provider: mock, model: gpt-4o}}], {free}}}
  - {{name: priced, targets: [{{provider: evil, model: gpt-4o}}], maxOutputTokens: 1000,
      price: {{inputPerMTok: 1, outputPerMTok: 1}}}}
  - {{name: evil, targets: [{{provider: evil, model: gpt-4o}}], {free}}}
  - {{name: both, {free}, targets: [{{provider: evil, model: gpt-4o}}, {{provider: mock, model: both, priority: 1}}]}}
  - {{name: hurried, targets: [{{provider: hurried, model: gpt-4o}}], {free}}}
  - {{name: gaps, targets: [{{provider: gaps, model: gpt-4o}}], {free}}}
  - {{name: slow, {free}, targets: [{{provider: slow, model: gpt-4o}}, {{provider: mock, model: both, priority: 1}}]}}
  - {{name: nobody, targets: [{{provider: nobody, model: gpt-4o}}], {free}}}
  - {{name: limited, targets: [{{provider: mock, model: limited}}], {free}}}
  - {{name: limited-long, targets: [{{provider: mock, model: limited-long}}], {free}}}
  - {{name: credential, targets: [{{provider: mock-2, model: credential}}], {free}}}
  - {{name: quota, targets: [{{provider: mock-3, model: quota}}, {{provider: mock, model: fine, priority: 1}}], {free}}}
  - {{name: small, targets: [{{provider: mock, model: small}}], largerContext: large, {free}}}
  - {{name: large, targets: [{{provider: mock, model: large}}], {free}}}"""
    config = config_text(
        providers=providers,
        models=models,
        more="retry: {budget: 1, backoff: 10ms, maxBackoff: 2s}\nredis: {timeout: 10s}",
    )
    with LiveGateway(config, redis_url=redis_here.url, database_url=database_here) as running:
        yield running


@pytest.fixture
def gateway(shared: LiveGateway, llmock_here: LLMockServer, evil: Evil, stage: Stage) -> Iterator[LiveGateway]:
    """Clean upstreams before; after every test the same worker is alive."""
    llmock_here.state.reset()
    evil.requests.clear()
    stage.script = saying(whole(GOOD))
    before = shared.worker_pids()
    yield shared
    assert shared.worker_pids() == before
    assert "panicked" not in shared.log()


def stream(gateway: LiveGateway, model: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and text of a streamed call."""
    answer = gateway.chat(model=model, stream=True, max_tokens=50, headers=headers)
    return answer.status_code, answer.text


def row_of(gateway: LiveGateway, answer: httpx.Response) -> dict[str, Any]:
    """The call as its client can look it up."""
    path = f"/v1/requests/{answer.headers['x-request-id']}"
    found: dict[str, Any] = eventually(lambda: (a := gateway.get(path)).status_code == 200 and a.json())
    return found


# --- a real provider's failures ------------------------------------------------------------------


def test_c6_a_5xx_is_retried(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """One failure, then the answer: two attempts, told in the header."""
    llmock_here.state.scenarios.add(Fail(503))
    answer = gateway.chat(max_tokens=5)
    assert (answer.status_code, answer.headers["x-perpetuo-attempts"]) == (200, "2")
    assert [r.status for r in llmock_here.state.journal.records(wait=PATIENCE)] == [503, 200]


def test_c6_a_provider_that_is_down_is_given_up_after_three_attempts(
    gateway: LiveGateway, llmock_here: LLMockServer
) -> None:
    """502, and the SDK is told not to multiply it."""
    llmock_here.state.scenarios.add(Fail(500, times=None))
    answer = gateway.chat(max_tokens=5)
    check(answer, Reason.UPSTREAM_ERROR)
    assert len(llmock_here.state.journal.records(wait=PATIENCE)) == 3


def test_c6_a_failing_target_is_left_for_the_next(gateway: LiveGateway, stage: Stage, evil: Evil) -> None:
    """At once, and the row has both attempts."""
    stage.script = saying(whole(b'{"error":{"message":"boom"}}', b"500 Oops"))
    answer = gateway.chat(model="both", max_tokens=5)
    assert (answer.status_code, answer.headers["x-perpetuo-provider"]) == (200, "mock")
    assert [a["outcome"] for a in row_of(gateway, answer)["attempts"]] == ["server_error", "success"]


def test_c6_a_refused_connection_is_an_attempt_that_costs_nothing(gateway: LiveGateway) -> None:
    """502; nothing was sent."""
    answer = gateway.chat(model="nobody", max_tokens=5)
    check(answer, Reason.UPSTREAM_ERROR)
    assert {a["outcome"] for a in row_of(gateway, answer)["attempts"]} == {"connect"}
    assert "127.0.0.1" not in answer.text


def test_c6_retry_after_is_obeyed(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """A second and a half as asked, then the answer; the mock's own verdict agrees."""
    llmock_here.state.scenarios.add(Fail(429, retry_after=1.5))
    began = time.monotonic()
    answer = gateway.chat(model="limited", max_tokens=5)
    assert answer.status_code == 200
    assert time.monotonic() - began >= 1.5
    first, second = llmock_here.state.journal.records(wait=PATIENCE)
    assert second.started_at - first.ended_at >= 1.49


def test_c6_a_long_retry_after_is_the_clients(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """429 at once with the provider's wait; while it lasts nobody is asked, and the wait counts down."""
    llmock_here.state.scenarios.add(Fail(429, retry_after=100))
    began = time.monotonic()
    answer = gateway.chat(model="limited-long", max_tokens=5)
    check(answer, Reason.UPSTREAM_RATE_LIMITED)
    assert 99_000 - 1_000 * (time.monotonic() - began) <= int(answer.headers["retry-after-ms"]) <= 100_000
    again = gateway.chat(model="limited-long", max_tokens=5)
    check(again, Reason.UPSTREAM_RATE_LIMITED)
    assert int(again.headers["retry-after-ms"]) < int(answer.headers["retry-after-ms"])
    assert len(llmock_here.state.journal.records(wait=PATIENCE)) == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_c9_the_providers_refusal_is_passed_on_with_its_source(
    gateway: LiveGateway, llmock_here: LLMockServer, status: int
) -> None:
    """Same status, the provider's message and code, ``source: provider``; not retried."""
    llmock_here.state.scenarios.add(Fail(status, message="not like this", code="odd_request"))
    answer = gateway.chat(max_tokens=5)
    error = answer.json()["error"]
    assert (answer.status_code, error["message"], error["code"]) == (status, "not like this", "odd_request")
    assert (error["source"], answer.headers["x-should-retry"]) == ("provider", "false")
    assert len(llmock_here.state.journal.records(wait=PATIENCE)) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_c5_our_credential_refused_says_nothing_of_the_provider(
    gateway: LiveGateway, llmock_here: LLMockServer, status: int
) -> None:
    """502 ``upstream_credentials``; the provider's text stays here, and so does the key."""
    llmock_here.state.scenarios.add(Fail(status, message=f"Incorrect API key provided: {CANARY}"))
    answer = gateway.chat(model="credential", max_tokens=5)
    check(answer, Reason.UPSTREAM_CREDENTIALS)
    assert "Incorrect" not in answer.text
    assert CANARY not in gateway.log()


def test_c5_no_money_with_one_provider_goes_to_the_next(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """429 ``insufficient_quota`` is our credential's trouble, not the client's pace."""
    llmock_here.state.scenarios.add(Fail(429, code="insufficient_quota", match=Match(model="quota")))
    answer = gateway.chat(model="quota", max_tokens=5)
    assert (answer.status_code, answer.headers["x-perpetuo-provider"]) == (200, "mock")


def test_c9_a_too_long_input_goes_to_the_larger_context(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """Found: it was decided and then not done."""
    llmock_here.state.scenarios.add(Fail(400, code="context_length_exceeded", match=Match(model="small")))
    answer = gateway.chat(model="small", max_tokens=5)
    assert (answer.status_code, answer.headers["x-perpetuo-model"]) == (200, "large")


def test_c8_a_silent_provider_is_504_in_time(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """At the end of the call's own limit, and not asked again."""
    llmock_here.state.scenarios.add(Delay(18))
    began = time.monotonic()
    answer = gateway.chat(max_tokens=5, headers={"x-request-timeout-ms": "700"})
    check(answer, Reason.UPSTREAM_TIMEOUT)
    assert 0.6 <= time.monotonic() - began < 15


# --- streams -------------------------------------------------------------------------------------


def broken(text: str, code: str = "upstream_error") -> None:
    """Events, then one error event, and no [DONE]."""
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert "[DONE]" not in text
    last = json.loads(events[-1])["error"]
    assert (last["code"], last["source"]) == (code, "gateway")


def test_a_stream_comes_through_as_it_was(gateway: LiveGateway) -> None:
    """Events and [DONE], the usage chunk only when asked for."""
    status, text = stream(gateway, "m")
    assert status == 200
    assert text.endswith("data: [DONE]\n\n")
    assert '"usage":{' not in text
    asked = gateway.chat(stream=True, max_tokens=50, stream_options={"include_usage": True})
    assert '"usage":{' in asked.text


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
def test_c7_a_stream_that_breaks_ends_in_an_error_event(
    gateway: LiveGateway, llmock_here: LLMockServer, kind: Any
) -> None:
    """Never shown as success, never stored."""
    llmock_here.state.scenarios.add(StreamFault(kind, after_chunks=3))
    key = {"x-idempotency-key": f"broken-{kind}"}
    status, text = stream(gateway, "m", key)
    assert status == 200
    broken(text)
    status, text = stream(gateway, "m", key)
    assert text.endswith("data: [DONE]\n\n")


def test_c8_a_gap_in_a_stream_ends_it_in_time(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """``idle`` after the last byte: an error event that says timeout."""
    llmock_here.state.scenarios.add(StreamFault("stall", after_chunks=2, stall_seconds=18))
    began = time.monotonic()
    _, text = stream(gateway, "gaps")
    broken(text, "upstream_timeout")
    assert 0.7 <= time.monotonic() - began < 15


def test_c8_a_slow_first_token_goes_to_the_next_target(
    gateway: LiveGateway, stage: Stage, llmock_here: LLMockServer
) -> None:
    """Headers alone do not count: the client gets a stream of the second target."""
    stage.script = silent_after(CHUNK_HEAD)
    answer = gateway.chat(model="slow", stream=True, max_tokens=50)
    assert answer.headers["x-perpetuo-provider"] == "mock"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_c8_a_slow_first_token_and_nobody_else_is_504(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """A status, not half a stream; asked once."""
    llmock_here.state.scenarios.add(SlowFirstToken(15, times=None))
    check(gateway.chat(model="hurried", stream=True, max_tokens=50), Reason.UPSTREAM_TIMEOUT)


def test_c7_a_stream_without_done_but_with_a_finish_reason_is_complete(gateway: LiveGateway, stage: Stage) -> None:
    """Some servers leave [DONE] out; the gateway adds it."""
    stage.script = saying(chunked(EVENT, FINISH))
    status, text = stream(gateway, "evil")
    assert (status, text.endswith("data: [DONE]\n\n")) == (200, True)


@pytest.mark.parametrize(
    "answer",
    [
        chunked(EVENT),
        chunked(EVENT, end=False),
        chunked(EVENT, b"data: {half\n\n", FINISH),
        chunked(EVENT, b'data: {"error":{"message":"secret detail"}}\n\n'),
        chunked(EVENT, b"data: \xff\xfe\n\n", FINISH),
    ],
)
def test_c7_raw_streams_that_break(gateway: LiveGateway, stage: Stage, answer: bytes) -> None:
    """One error event, no [DONE], nothing of the provider's own words."""
    stage.script = saying(answer)
    status, text = stream(gateway, "evil")
    assert status == 200
    broken(text)
    assert "secret detail" not in text


@pytest.mark.parametrize("how", ["reset", "a bad chunk"])
def test_c7_a_connection_that_breaks_in_mid_stream(gateway: LiveGateway, stage: Stage, how: str) -> None:
    """After the first event has gone to the client."""
    shown = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(EVENT, end=False))
        shown.wait(PATIENCE)
        if how == "reset":
            peer.reset()
        else:
            peer.send(b"zz\r\n")

    stage.script = script
    body = {"model": "evil", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    url, headers = f"{gateway.url}/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60, verify=False) as answer:
        text = ""
        for piece in answer.iter_text():
            text += piece
            shown.set()
    broken(text)


def test_a_whole_answer_to_a_stream_is_made_into_one(gateway: LiveGateway, stage: Stage) -> None:
    """A server that knows no streams."""
    stage.script = saying(whole(GOOD))
    status, text = stream(gateway, "evil")
    assert (status, text.endswith("data: [DONE]\n\n")) == (200, True)


# --- answers that are none -----------------------------------------------------------------------

BAD_ANSWERS = {
    "status 0": b"HTTP/1.1 0 Zero\r\ncontent-length: 2\r\n\r\nok",
    "status 1000": b"HTTP/1.1 1000 Thousand\r\ncontent-length: 2\r\n\r\nok",
    "status 099": b"HTTP/1.1 099 Low\r\ncontent-length: 2\r\n\r\nok",
    "status 600": whole(GOOD, b"600 High"),
    "status 101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "status words": b"HTTP/1.1 OK\r\n\r\n",
    "a line break in a header": b"HTTP/1.1 200 OK\r\nx-request-id: a\nb: c\r\ncontent-length: 2\r\n\r\nok",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nx-request-id: a\0b\r\ncontent-length: 2\r\n\r\nok",
    "a length too long": b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + GOOD,
    "a length too short": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n" + GOOD,
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n" + GOOD,
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\n" + GOOD,
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "compressed": whole(b"\x1f\x8b123", b"200 OK", b"content-encoding: gzip"),
    "no JSON": whole(b"<html>hello</html>", kind=b"text/html"),
    "half JSON": whole(b'{"choices":['),
    "an array": whole(b"[]"),
    "deep JSON": whole(b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "nothing": whole(b""),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 100_000,
    "a close at once": b"",
    "an error in a 200": whole(b'{"error":{"message":"secret detail","code":502}}'),
}


@pytest.mark.parametrize("as_stream", [False, True], ids=["", "stream"])
@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_s4_an_answer_that_is_none_is_502(gateway: LiveGateway, stage: Stage, answer: bytes, as_stream: bool) -> None:
    """502 in our envelope, nothing of the provider's bytes, and no dead worker."""
    stage.script = saying(answer)
    said = gateway.chat(model="evil", stream=as_stream, max_tokens=5)
    check(said, Reason.UPSTREAM_ERROR)
    assert "secret detail" not in said.text


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>Bad Request</html>", b"text/html"),
        (b"", b"text/plain"),
        (b'"no"', b"application/json"),
        (b"\xff\xfe", b"x"),
    ],
)
def test_c9_a_refusal_that_is_not_json_gets_our_envelope(
    gateway: LiveGateway, stage: Stage, body: bytes, kind: bytes
) -> None:
    """Same status; a body that SDKs can read, and no markup of the provider's."""
    stage.script = saying(whole(body, b"422 No", kind=kind))
    answer = gateway.chat(model="evil", max_tokens=5)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/json")
    error = answer.json()["error"]
    assert (error["source"], error["type"]) == ("provider", "invalid_request_error")
    assert "html" not in answer.text


def test_b9_usage_missing_is_estimated_and_charged(gateway: LiveGateway, stage: Stage, database_here: str) -> None:
    """An answer without ``usage`` is not free; the row says so."""
    stage.script = saying(whole(b'{"choices":[{"message":{"content":"hello"}}]}'))
    answer = gateway.chat(model="priced", max_tokens=100, headers={"x-perpetuo-tag": "no-usage"})
    assert answer.status_code == 200
    assert float(answer.headers["x-perpetuo-cost-usd"]) > 0
    query = "select usage_basis, output_tokens, cost_nano_usd from events where tag = 'no-usage'"
    ((basis, output, cost),) = eventually(lambda: rows(database_here, query))
    assert (basis, output) == ("estimated", 5)
    assert cost > 0


# --- what goes across ----------------------------------------------------------------------------


def test_s1_headers_go_by_allow_lists_both_ways(gateway: LiveGateway, stage: Stage, evil: Evil) -> None:
    """Nothing of the client's but its content; nothing of the provider's but the answer."""
    leaks = [b"set-cookie: a=b", b"x-ratelimit-limit-requests: 1", b"x-secret: s", b"openai-organization: o"]
    stage.script = saying(whole(GOOD, b"200 OK", *leaks, b"openai-processing-ms: 12", b"connection: close"))
    headers = {"cookie": "c=d", "openai-organization": "org", "x-forwarded-for": "1.2.3.4", "x-other": "y"}
    answer = gateway.chat(model="evil", headers=headers, max_tokens=5)
    sent = evil.requests[-1].lower()
    assert b"authorization: bearer " + CANARY.encode() in sent
    for name in (b"cookie", b"openai-organization", b"x-forwarded-for", b"x-other", KEY.encode()):
        assert name not in sent
    assert answer.headers["openai-processing-ms"] == "12"
    assert answer.headers["x-ratelimit-limit-requests"] == "100000"
    assert not {"set-cookie", "x-secret", "openai-organization"} & set(answer.headers)


def test_a_trace_goes_on_to_the_provider_as_a_child(
    gateway: LiveGateway, stage: Stage, evil: Evil, database_here: str
) -> None:
    """The caller's trace id and flags with a span id of ours, and its tracestate; the row has the trace id."""
    stage.script = saying(whole(GOOD))
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{span}-00", "tracestate": "vendor=1", "x-request-id": "traced"}
    assert gateway.chat(model="evil", headers=headers, max_tokens=5).status_code == 200
    sent = evil.requests[-1].lower()
    child = re.search(rb"\r\ntraceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-00\r\n", sent)
    assert child is not None
    assert child[1] == trace.encode()
    assert child[2] != span.encode()
    assert b"\r\ntracestate: vendor=1\r\n" in sent
    assert eventually(lambda: rows(database_here, "select trace_id from events where request_id = 'traced'")) == [
        (trace,)
    ]
    headers = {"traceparent": f"00-{'0' * 32}-{span}-01", "tracestate": "vendor=1"}
    assert gateway.chat(model="evil", headers=headers, max_tokens=5).status_code == 200
    assert b"\r\ntrace" not in evil.requests[-1].lower()


def test_s8_a_redirect_is_not_followed(gateway: LiveGateway, stage: Stage, evil: Evil) -> None:
    """A provider can't send us elsewhere with our key."""
    with Evil(answering(whole(GOOD))) as elsewhere:
        stage.script = saying(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: "
            + elsewhere.origin.encode()
            + b"/\r\ncontent-length: 0\r\n\r\n"
        )
        check(gateway.chat(model="evil", max_tokens=5), Reason.UPSTREAM_ERROR)
        assert elsewhere.connections == 0


def test_i8_a_client_that_leaves_stops_its_call_within_a_second(
    gateway: LiveGateway, stage: Stage, evil: Evil, database_here: str
) -> None:
    """Without a key the provider sees the connection close; the row says cancelled."""
    stage.script = silent_after(b"")
    numbers = itertools.count()

    def noticed() -> float:
        evil.gone.clear()
        name = f"left-early-{next(numbers)}"
        left_at = ask_and_leave(gateway, evil, f"x-request-id: {name}")
        eventually(lambda: evil.gone)
        query = f"select outcome, status from events where request_id = '{name}'"  # noqa: S608
        assert eventually(lambda: rows(database_here, query)) == [("cancelled", 499)]
        return evil.gone[0] - left_at

    best(1, noticed)


def ask_and_leave(gateway: LiveGateway, evil: Evil, header: str) -> float:
    """One call whose client leaves as soon as the provider has it; when that was."""
    evil.requests.clear()
    body = b'{"model":"evil","messages":[{"role":"user","content":"hi"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n{header}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        eventually(lambda: evil.requests, every=0.01)
    return time.monotonic()


def test_i8_with_a_key_a_call_is_finished_for_a_client_that_left(
    gateway: LiveGateway, stage: Stage, evil: Evil
) -> None:
    """It comes back for its answer and gets a replay."""
    left = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        left.wait(PATIENCE)
        peer.pause(0.5)
        peer.send(whole(GOOD))

    stage.script = script
    ask_and_leave(gateway, evil, "x-idempotency-key: come-back")
    left.set()
    answer = gateway.chat(model="evil", headers={"x-idempotency-key": "come-back", "prefer": "wait=20"})
    assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (200, "true")
