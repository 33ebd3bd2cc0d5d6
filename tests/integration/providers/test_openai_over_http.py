"""The OpenAI adapter over real sockets: a mock of real providers, and an upstream that misbehaves to order."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest
from llmock.scenarios import Delay, Fail, Match, SlowFirstToken, StreamFault
from llmock.testing import LLMockServer

from perpetuo.adapters.providers.openai import OpenAIProvider
from perpetuo.adapters.providers.registry import open_line
from perpetuo.adapters.providers.stream import EventStream
from perpetuo.domain.model.chat import Kind
from perpetuo.domain.model.models import ProviderKind, ProviderSpec, Timeouts
from perpetuo.domain.model.upstream import Abort, Answer, Ending, Fault, UpstreamFailure
from tests.evil import Evil, Peer
from tests.patience import PATIENCE
from tests.unit.providers.scripted import CHAT, STREAM, outbound

pytestmark = pytest.mark.anyio
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Caller:
    """One provider and its transport."""

    def __init__(self, base_url: str) -> None:
        spec = ProviderSpec("p", ProviderKind.OPENAI, base_url, "sk-provider", loopback=True)
        self.upstream = open_line(spec, lambda: 0)
        self.provider = OpenAIProvider(spec, self.upstream, lambda: 0)
        self.abort = Abort()

    async def send(self, body: bytes, kind: Kind = Kind.CHAT, **seconds: Any) -> Answer | EventStream:
        timeouts = attrs.evolve(Timeouts(total=60.0), **seconds)
        out = outbound(body, kind=kind, model="gpt-4o", timeouts=timeouts, deadline=time.monotonic() + 60)
        return await self.provider.send(out, self.abort)

    async def stream(self, **seconds: Any) -> tuple[bytes, Any]:
        """What a stream brought, and its ending or fault."""
        got = await self.send(STREAM, **seconds)
        assert isinstance(got, EventStream)
        data = b""
        try:
            async for piece in got.chunks():
                data += piece
        except UpstreamFailure as failure:
            return data, failure.fault
        return data, got.ending

    async def fails(self, body: bytes, **seconds: Any) -> tuple[Fault, float]:
        """The fault of an attempt without an answer, and how long it took."""
        begun = time.monotonic()
        with pytest.raises(UpstreamFailure) as failed:
            await self.send(body, **seconds)
        return failed.value.fault, time.monotonic() - begun


@pytest.fixture(scope="module")
def llmock() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture
async def caller(llmock: LLMockServer) -> AsyncIterator[Caller]:
    llmock.state.reset()
    one = Caller(llmock.base_url())
    yield one
    assert one.upstream.stats().busy == 0
    await one.upstream.close()


# --- a provider that works, and fails as real ones do ---


async def test_a_call_a_stream_and_embeddings(llmock: LLMockServer, caller: Caller) -> None:
    """Each arrives with its usage, and leaves its connection for the next."""
    whole = await caller.send(CHAT)
    assert isinstance(whole, Answer)
    assert whole.usage is not None
    data, ending = await caller.stream()
    assert ending is Ending.COMPLETE
    assert b'"usage":{' not in data
    vectors = await caller.send(b'{"model":"e","input":["some words","to embed"]}', Kind.EMBEDDINGS)
    assert isinstance(vectors, Answer)
    assert vectors.usage is not None
    assert vectors.usage.output_tokens == 0
    assert caller.upstream.stats().idle == 1
    models = [record.model for record in llmock.state.journal.records(wait=PATIENCE)]
    assert models == ["gpt-4o"] * 3


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (400, "context_length_exceeded", Fault.CONTEXT_LENGTH),
        (401, None, Fault.CREDENTIAL),
        (404, None, Fault.CLIENT_ERROR),
        (429, None, Fault.RATE_LIMITED),
        (429, "insufficient_quota", Fault.CREDENTIAL),
        (503, None, Fault.SERVER_ERROR),
    ],
)
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_c5_errors_of_real_shape(
    llmock: LLMockServer, caller: Caller, body: bytes, status: int, code: str | None, fault: Fault
) -> None:
    """Whole and streamed, with the wait that was asked for."""
    llmock.state.scenarios.add(Fail(status, code=code, retry_after=1.5))
    got = await caller.send(body)
    assert isinstance(got, Answer)
    assert (got.status, got.fault, got.retry_after_us) == (status, fault, 1_500_000)


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("truncate", Ending.TRUNCATED), ("malformed", Ending.MALFORMED), ("stall", Fault.TIMEOUT)],
)
async def test_c7_c8_a_stream_that_breaks_says_how(
    llmock: LLMockServer, caller: Caller, kind: Any, ending: Any
) -> None:
    """After two chunks; what came before is the client's."""
    llmock.state.scenarios.add(StreamFault(kind, after_chunks=2, stall_seconds=20.0))
    data, how = await caller.stream(idle=3.0 if kind == "stall" else 60.0)
    assert how is ending
    assert data.count(b"data: ") >= 2


async def test_c7_a_dropped_stream_is_no_answer(llmock: LLMockServer, caller: Caller) -> None:
    """The connection is gone in the middle of the body."""
    llmock.state.scenarios.add(StreamFault("disconnect", after_chunks=2))
    data, how = await caller.stream()
    assert how in (Fault.RESET, Fault.PROTOCOL)
    assert data.count(b"data: ") == 2


async def test_c8_a_first_token_that_does_not_come(llmock: LLMockServer, caller: Caller) -> None:
    """For streams after ``firstToken``, otherwise after the total."""
    llmock.state.scenarios.add(SlowFirstToken(12, times=1), Delay(12, times=1, match=Match(stream=False)))
    fault, took = await caller.fails(STREAM, first_token=0.3)
    assert fault is Fault.TIMEOUT
    assert 0.25 < took < 10
    fault, took = await caller.fails(CHAT, total=0.3)
    assert fault is Fault.TIMEOUT
    assert 0.25 < took < 10


async def test_c10_a_client_that_leaves_stops_the_provider(llmock: LLMockServer, caller: Caller) -> None:
    """In the middle of a stream."""
    llmock.state.scenarios.add(StreamFault("stall", after_chunks=1, stall_seconds=20.0))
    got = await caller.send(STREAM)
    assert isinstance(got, EventStream)
    asyncio.get_running_loop().call_later(0.1, caller.abort.fire, "client_gone")
    with pytest.raises(UpstreamFailure) as stopped:
        async for _ in got.chunks():
            pass
    assert stopped.value.fault is Fault.ABORTED


# --- what no decent provider does ---


async def test_c8_headers_and_comments_are_no_first_token() -> None:
    """They keep the gap's timer quiet, not the first token's."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD)
        peer.send_slowly([chunked(b": wait\n\n")] * 150, 0.1)

    with Evil(script) as server:
        caller = Caller(server.origin)
        fault, took = await caller.fails(STREAM, first_token=4.0, idle=3.0)
        assert fault is Fault.TIMEOUT
        assert 3.95 < took < 12
        await caller.upstream.close()


async def test_c8_comments_keep_a_stream_alive_after_its_first_event() -> None:
    """Any byte resets the gap's timer."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + chunked(EVENT))
        peer.send_slowly([chunked(b": wait\n\n")] * 50, 0.1)
        peer.send(chunked(EVENT + DONE) + b"0\r\n\r\n")

    with Evil(script) as server:
        caller = Caller(server.origin)
        data, ending = await caller.stream(idle=4.0)
        assert (data.count(EVENT), ending) == (2, Ending.COMPLETE)
        await caller.upstream.close()


async def test_a_response_that_does_not_end_after_its_terminal_event_holds_nobody_up() -> None:
    """The client's end comes at once; the connection is given up."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + chunked(EVENT + DONE))
        peer.wait_gone(PATIENCE)

    with Evil(script) as server:
        caller = Caller(server.origin)
        begun = time.monotonic()
        _, ending = await caller.stream()
        assert ending is Ending.COMPLETE
        assert time.monotonic() - begun < 15
        assert caller.upstream.stats().busy == 0
        assert caller.upstream.stats().idle == 0
        await caller.upstream.close()


async def test_streams_share_a_connection_when_their_ends_arrive_late() -> None:
    """The last chunk comes in a segment of its own."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(HEAD + chunked(EVENT + DONE))
            peer.pause(0.02)
            peer.send(b"0\r\n\r\n")

    with Evil(script) as server:
        caller = Caller(server.origin)
        for _ in range(5):
            assert (await caller.stream())[1] is Ending.COMPLETE
        assert server.connections == 1
        await caller.upstream.close()


async def test_s1_nothing_of_ours_but_the_allowed_goes_out() -> None:
    """The bytes on the wire."""
    answer = json.dumps({"choices": [], "usage": None}).encode()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nset-cookie: a=b\r\n\r\n%b" % (len(answer), answer))

    with Evil(script) as server:
        caller = Caller(server.origin + "/v1")
        got = await caller.send(CHAT)
        assert got.headers == ()
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
        assert {line.partition(b":")[0].lower() for line in lines[1:]} == {
            b"host", b"content-type", b"user-agent", b"authorization", b"accept", b"traceparent", b"tracestate",
            b"x-perpetuo-call", b"accept-encoding", b"content-length",
        }  # fmt: skip
        assert json.loads(body)["model"] == "gpt-4o"
        await caller.upstream.close()
