"""What the demo provider answers, and that each of its failures is the fault it rehearses."""

import asyncio
import base64
import json
import math
import struct
from typing import Any

import attrs
import pytest

from perpetuo.adapters.providers.demo import BEHAVIOURS, DemoUpstream
from perpetuo.adapters.providers.openai import OpenAIProvider
from perpetuo.adapters.providers.stream import EventStream
from perpetuo.domain.model.chat import Kind
from perpetuo.domain.model.models import ProviderKind, ProviderSpec, Timeouts
from perpetuo.domain.model.upstream import Abort, Answer, Ending, Fault, UpstreamFailure
from tests.unit.providers.scripted import CHAT, STREAM, outbound

pytestmark = pytest.mark.anyio

SPEC = ProviderSpec("demo", ProviderKind.DEMO, loopback=True)
HASTY = Timeouts(connect=0.05, first_token=0.05, idle=0.05, total=0.1)


class Demo:
    """A demo provider without waiting."""

    def __init__(self) -> None:
        self.upstream = DemoUpstream(lambda: 1_700_000_000_000_000, pace=0.0)
        self.provider = OpenAIProvider(SPEC, self.upstream, lambda: 0)
        self.abort = Abort()

    async def send(self, body: bytes, model: str = "m", kind: Kind = Kind.CHAT) -> Answer | EventStream:
        deadline = asyncio.get_running_loop().time() + 5
        out = outbound(body, kind=kind, model=model, timeouts=HASTY, deadline=deadline)
        return await self.provider.send(out, self.abort)

    async def result(self, body: bytes, model: str = "m") -> Any:
        """Fault, or ending, or status."""
        try:
            got = await self.send(body, model)
            if isinstance(got, Answer):
                return got.fault or got.status
            async for _ in got.chunks():
                pass
        except UpstreamFailure as failure:
            return failure.fault
        return got.ending


def asked(stream: bool = False, **members: Any) -> bytes:
    return json.dumps({**json.loads(CHAT), "stream": stream, **members}).encode()


async def test_the_same_request_gets_the_same_answer() -> None:
    """It says what it was asked, and counts plausibly: never more tokens than bytes."""
    first, second = [await Demo().send(CHAT) for _ in range(2)]
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert first.body == second.body
    assert "Hello there" in json.loads(first.body)["choices"][0]["message"]["content"]
    assert first.usage is not None
    assert first.usage.output_tokens > 0
    assert 0 < first.usage.input_tokens <= len(CHAT)


async def test_a_stream_says_the_same_as_a_whole_answer() -> None:
    """Piece by piece, with the same usage."""
    whole, stream = await Demo().send(CHAT), await Demo().send(STREAM)
    assert isinstance(whole, Answer)
    assert isinstance(stream, EventStream)
    events = [json.loads(e[6:]) for e in b"".join([d async for d in stream.chunks()]).split(b"\n\n")[:-1]]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert text == json.loads(whole.body)["choices"][0]["message"]["content"]
    assert (stream.usage, stream.ending) == (whole.usage, Ending.COMPLETE)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
async def test_b2_the_output_limit_is_honoured(field: str, stream: bool) -> None:
    """Under either name, for each of n answers; also zero."""
    for limit in (0, 1, 4):
        got = await Demo().send(asked(stream, n=3, **{field: limit}))
        if isinstance(got, EventStream):
            async for _ in got.chunks():
                pass
            assert got.ending is Ending.COMPLETE
        assert got.usage is not None
        assert got.usage.output_tokens == 3 * limit


@pytest.mark.parametrize("wanted", ["text", ["one", "two"], [1, 2, 3], [[1], [2]]])
async def test_embeddings_are_unit_vectors(wanted: Any) -> None:
    """One per input; equal inputs get equal vectors, packed or not."""
    body = json.dumps({"model": "e", "input": wanted, "dimensions": 64}).encode()
    packed = json.dumps({"model": "e", "input": wanted, "dimensions": 64, "encoding_format": "base64"}).encode()
    plain, binary = [await Demo().send(b, kind=Kind.EMBEDDINGS) for b in (body, packed)]
    assert isinstance(plain, Answer)
    assert isinstance(binary, Answer)
    for one, other in zip(json.loads(plain.body)["data"], json.loads(binary.body)["data"], strict=True):
        assert math.isclose(sum(x * x for x in one["embedding"]), 1.0, rel_tol=1e-6)
        floats = struct.unpack("<64f", base64.b64decode(other["embedding"]))
        assert all(
            math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7) for a, b in zip(one["embedding"], floats, strict=True)
        )
    assert plain.usage is not None


REHEARSED = {
    "demo-error-500": (Fault.SERVER_ERROR, Fault.SERVER_ERROR),
    "demo-error-503": (Fault.SERVER_ERROR, Fault.SERVER_ERROR),
    "demo-flaky": (Fault.SERVER_ERROR, Fault.SERVER_ERROR),
    "demo-400": (Fault.CLIENT_ERROR, Fault.CLIENT_ERROR),
    "demo-context": (Fault.CONTEXT_LENGTH, Fault.CONTEXT_LENGTH),
    "demo-401": (Fault.CREDENTIAL, Fault.CREDENTIAL),
    "demo-quota": (Fault.CREDENTIAL, Fault.CREDENTIAL),
    "demo-429": (Fault.RATE_LIMITED, Fault.RATE_LIMITED),
    "demo-refused": (Fault.CONNECT, Fault.CONNECT),
    "demo-reset": (Fault.RESET, Fault.RESET),
    "demo-timeout": (Fault.TIMEOUT, Fault.TIMEOUT),
    "demo-slow": (Fault.TIMEOUT, Fault.TIMEOUT),
    "demo-stall": (Fault.TIMEOUT, Fault.TIMEOUT),
    "demo-cut": (Fault.RESET, Ending.TRUNCATED),
    "demo-malformed": (Fault.PROTOCOL, Ending.MALFORMED),
    "demo-no-usage": (200, Ending.COMPLETE),
}


@pytest.mark.parametrize("model", sorted(BEHAVIOURS))
async def test_c5_each_failure_is_the_fault_it_rehearses(model: str) -> None:
    """Whole and streamed; afterwards nothing is left open."""
    demo = Demo()
    assert await demo.result(CHAT, model) == REHEARSED[model][0]
    assert await Demo().result(STREAM, model) == REHEARSED[model][1]
    assert demo.upstream.stats().busy == 0


async def test_a_flaky_model_answers_every_second_time() -> None:
    """So that a retry succeeds."""
    demo = Demo()
    assert [await demo.result(CHAT, "demo-flaky") for _ in range(4)] == [Fault.SERVER_ERROR, 200] * 2


async def test_c6_the_wait_of_a_429_is_two_seconds() -> None:
    """As its table says."""
    got = await Demo().send(CHAT, "demo-429")
    assert isinstance(got, Answer)
    assert got.retry_after_us == 2_000_000


async def test_b9_no_usage_is_none() -> None:
    """Whole and streamed."""
    for body in (CHAT, STREAM):
        got = await Demo().send(body, "demo-no-usage")
        if isinstance(got, EventStream):
            async for _ in got.chunks():
                pass
        assert got.usage is None
        assert got.output_bytes > 0


@pytest.mark.parametrize(("body", "model"), [(CHAT, "demo-timeout"), (STREAM, "demo-timeout"), (STREAM, "demo-stall")])
async def test_c10_an_abort_ends_a_call_at_once(body: bytes, model: str) -> None:
    """Fired while it waits, or before it began; nothing is left open."""
    demo = Demo()
    waiting = asyncio.create_task(demo.result(body, model))
    await asyncio.sleep(0)
    demo.abort.fire("client_gone")
    assert await waiting == Fault.ABORTED
    assert await demo.result(body, model) == Fault.ABORTED
    assert demo.upstream.stats().busy == 0


async def test_c10_a_cancelled_call_leaves_nothing_open() -> None:
    """Nor does one whose stream is dropped."""
    demo = Demo()
    waiting = asyncio.create_task(demo.send(CHAT, "demo-timeout"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    got = await demo.send(STREAM)
    assert isinstance(got, EventStream)
    chunks = got.chunks()
    await anext(chunks)
    assert demo.upstream.stats().busy == 1
    await chunks.aclose()  # type: ignore[attr-defined]
    assert demo.upstream.stats().busy == 0


@pytest.mark.parametrize("odd", [b'"x":1e999', b'"x":' + b"9" * 5_000, b'"x":' + b"[" * 20_000 + b"]" * 20_000])
async def test_s4_a_body_that_only_the_demo_provider_can_not_read_is_its_400(odd: bytes) -> None:
    """Refused as a real provider does: one such client must not open the breaker for everybody."""
    out = outbound(CHAT)
    out = attrs.evolve(out, ask=attrs.evolve(out.ask, body=CHAT[:-1] + b"," + odd + b"}"))
    answer = await Demo().provider.send(out, Abort())
    assert isinstance(answer, Answer)
    assert (answer.status, answer.fault) == (400, Fault.CLIENT_ERROR)
