"""What does a client ask for? Only what decisions need; the body itself stays bytes."""

from collections.abc import Mapping
from enum import StrEnum

from perpetuo.domain.model.records import record
from perpetuo.domain.model.trace import Trace


class Kind(StrEnum):
    """What sort of call it is; the value goes into ``events.kind``."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self is Kind.CHAT else "/v1/embeddings"


@record
class Ask:
    """
    What a dialect read from the body of one request.

    ``text_bytes`` counts every byte that can become input tokens (base64 media is not text and is
    not in it); ``images``, ``audios``, ``files`` count the parts that are not inline text.
    """

    kind: Kind
    model: str
    stream: bool
    body: bytes
    fields: Mapping[str, bytes]
    """Top-level members of the body, each still JSON, in the client's order."""
    text_bytes: int
    choices: int = 1
    """``n``: how many answers."""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    include_usage: bool = False
    """Did the client ask for the usage chunk of a stream?"""
    images: int = 0
    audios: int = 0
    files: int = 0
    unbounded: str | None = None
    """Name of a member whose cost can't be bounded (``service_tier``, ``web_search_options``, …)."""
    lifts_limit: str | None = None
    """Name of a member that would lift the output limit at the provider (``n_predict``, ``best_of``, …)."""

    @property
    def output_limit(self) -> int | None:
        """The limit the client named: the larger one when it wrote both."""
        one, other = self.max_tokens, self.max_completion_tokens
        if one is None or other is None:
            return one if other is None else other
        return max(one, other)


@record
class CallRequest:
    """One call as it arrives at the core: the ask, and what its headers said."""

    ask: Ask
    request_id: str
    started_us: int
    """When the request arrived, µs since the epoch."""
    started: float
    """The same instant on the monotonic clock, in seconds."""
    client_ip: str | None = None
    tag: str | None = None
    trace: Trace | None = None
    timeout: float | None = None
    """The client's own limit in seconds; can only lower the total timeout."""
    idempotency_key: str | None = None
    fingerprint: str | None = None
    """Hex SHA-256 over method, path and canonical body; set whenever there is an idempotency key."""
    wait: float | None = None
    """``Prefer: wait=N`` in seconds."""
    call_id: str | None = None
    """``request_id`` where the gateway made it: then it names the call too, which can be asked for while it runs."""

    @property
    def trace_id(self) -> str | None:
        return None if self.trace is None else self.trace.id
