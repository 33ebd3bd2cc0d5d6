"""A transport that plays one response from memory: what a provider adapter makes of any answer, without sockets."""

from collections.abc import Iterable

from perpetuo.adapters.dialects.openai import parse_chat, parse_embeddings
from perpetuo.adapters.providers.transport.wire import Headers, Phases, PoolStats, UpstreamRequest
from perpetuo.domain.model.chat import Kind
from perpetuo.domain.model.models import ProviderKind, ProviderSpec, Target, Timeouts
from perpetuo.domain.model.upstream import Abort, Outbound, UpstreamFailure

JSON = ((b"content-type", b"application/json"),)
SSE = ((b"content-type", b"text/event-stream; charset=utf-8"),)
SPEC = ProviderSpec("p", ProviderKind.OPENAI, "http://provider.example/v1", "sk-provider")
NEVER = float("inf")


class Script:
    """Implements ``Upstream`` and ``Exchange``: pieces, then a clean end or a failure."""

    def __init__(
        self, status: int, headers: Headers, pieces: Iterable[bytes], then: UpstreamFailure | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.pieces = iter(list(pieces))
        self.then = then
        self.aborted = False
        self.ended = False
        self.request: UpstreamRequest | None = None
        self.phases: Phases | None = None
        self.pool = PoolStats(0, 0)

    async def open(self, request: UpstreamRequest, phases: Phases, abort: Abort) -> "Script":
        self.request, self.phases = request, phases
        return self

    async def chunk(self) -> bytes | None:
        piece = next(self.pieces, None)
        if piece is not None:
            return piece
        if self.then is not None:
            raise self.then
        self.ended = True
        return None

    def is_ready(self) -> bool:
        return True

    async def read(self, limit: int) -> bytes:
        parts = []
        while (part := await self.chunk()) is not None:
            parts.append(part)
        return b"".join(parts)

    def abort(self) -> None:
        self.aborted = True

    async def close(self) -> None:
        self.aborted = True

    def stats(self) -> PoolStats:
        return self.pool


def outbound(
    body: bytes, *, kind: Kind = Kind.CHAT, model: str = "m", timeouts: Timeouts | None = None, deadline: float = 1e12
) -> Outbound:
    ask = parse_chat(body) if kind is Kind.CHAT else parse_embeddings(body)
    target = Target("p", model, timeouts=timeouts or Timeouts())
    return Outbound(
        ask,
        target,
        "0193-call",
        None,
        None,
        deadline,
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        tracestate="vendor=1",
    )


CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hello there"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
