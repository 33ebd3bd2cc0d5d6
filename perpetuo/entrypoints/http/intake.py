"""
What does the head of a request say, and is it one request we can trust?

Head checks come before the key, the key before the body (semantics, "Order of a call"). Each
check gives a `Refusal` that names what was wrong.
"""

import asyncio
import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import attrs

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.records import record
from perpetuo.domain.model.settings import ClientIp, ServerSettings
from perpetuo.domain.model.trace import Trace
from perpetuo.entrypoints.http.patience import Wait
from perpetuo.entrypoints.http.traces import trace_of

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
VISIBLE = re.compile(r"[\x21-\x7e]{1,255}\Z")
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[A-Fa-f0-9:.]+\])(?::(\d{0,5}))?\Z")
MOST_PORT = 65_535
MAX_WAIT = 60.0

_SINGLE = frozenset(
    {
        b"host", b"content-length", b"content-encoding", b"x-request-id", b"traceparent", b"tracestate",
        b"x-request-timeout-ms", b"x-perpetuo-tag", b"prefer", b"x-forwarded-for",
    }
)  # fmt: skip
_TRACING = frozenset({b"traceparent", b"tracestate"})
"""Sent twice: one list, which `tracestate` can be and a valid `traceparent` can't."""
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_IDEMPOTENCY = frozenset({b"x-idempotency-key", b"idempotency-key"})


@attrs.define
class Head:
    """Headers of one request that mean something to us, still as sent."""

    fields: dict[bytes, bytes] = attrs.field(factory=dict)
    options: bool = False
    """Is there one of the headers that change how a call is made? Most calls have none."""
    hosts: int = 0
    lengths: int = 0
    codings: list[bytes] = attrs.field(factory=list)
    credentials: list[bytes] = attrs.field(factory=list)
    idempotency_keys: list[bytes] = attrs.field(factory=list)

    def text(self, name: bytes) -> str | None:
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1").strip()


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """One pass over the header lines."""
    head = Head()
    for name, value in headers:
        if name in _SINGLE:
            if name == b"host":
                head.hosts += 1
            elif name == b"content-length":
                head.lengths += 1
            else:
                head.options = True
                if name in _TRACING and name in head.fields:
                    head.fields[name] += b"," + value
                    continue
            head.fields[name] = value
        elif name in _CREDENTIALS:
            head.credentials.append(_bare(name, value))
        elif name in _IDEMPOTENCY:
            head.idempotency_keys.append(value)
        elif name == b"transfer-encoding":
            head.codings.append(value)
    return head


def _bare(name: bytes, value: bytes) -> bytes:
    value = value.strip()
    if name == b"authorization":
        scheme, _, token = value.partition(b" ")
        return token.strip() if scheme.lower() == b"bearer" else b""
    return value


def check_framing(head: Head, server: ServerSettings) -> Refusal | None:
    """One host, one length, no encoding, not too large: before the key is looked at."""
    if head.hosts > 1:
        return Refusal(Reason.INVALID_REQUEST, "The request has more than one Host header.")
    if not head.fields.get(b"host"):  # granian puts an empty one where there was none
        return Refusal(Reason.INVALID_REQUEST, "The request has no Host header.")
    refusal = check_host(head)
    if refusal is not None:
        return refusal
    return check_length(head, server)


def check_host(head: Head) -> Refusal | None:
    """A host name or address, and a port that can be one; none at all is for others to judge."""
    host = head.fields.get(b"host")
    if host and not _is_authority(host):
        return Refusal(Reason.INVALID_REQUEST, "The request's Host header is not a host and a port.")
    return None


@lru_cache(maxsize=1_024)
def _is_authority(host: bytes) -> bool:
    match = HOST.match(host)
    return match is not None and int(match[1] or 0) <= MOST_PORT


def check_length(head: Head, server: ServerSettings) -> Refusal | None:
    """One way to say how long the body is, no encoding but chunks, not too large."""
    given = head.fields.get(b"content-length")
    length = None if given is None else given.strip()
    if head.lengths > 1 or (length is not None and head.codings):
        return Refusal(Reason.INVALID_REQUEST, "The request's length is ambiguous.")
    if head.codings and b", ".join(head.codings).strip().lower() != b"chunked":
        # granian reads any list that ends in `chunked`, and undoes nothing of it but the chunks
        return Refusal(Reason.INVALID_REQUEST, "Transfer-Encoding can only be `chunked`, once.")
    if length is not None and not length.isdigit():
        return Refusal(Reason.INVALID_REQUEST, "The request's Content-Length is not a number.")
    if length is not None and (len(length) > 15 or int(length) > server.request_max_bytes):
        return too_large(server)
    if head.options and (head.text(b"content-encoding") or "identity").lower() != "identity":
        return Refusal(
            Reason.UNSUPPORTED_ENCODING, "Compressed bodies are not accepted. Send the body without Content-Encoding."
        )
    return None


def too_large(server: ServerSettings) -> Refusal:
    return Refusal(
        Reason.REQUEST_TOO_LARGE, f"The body is larger than the {server.request_max_bytes:,} bytes accepted here."
    )


def credential(head: Head) -> str | None | Refusal:
    """The API key, ``None`` without one; two different ones are refused."""
    if len(set(head.credentials)) > 1:
        return Refusal(
            Reason.INVALID_REQUEST, "Two different credentials were sent. Send one: `Authorization: Bearer sk-…`."
        )
    return head.credentials[0].decode("latin-1") if head.credentials else None


def idempotency_key(head: Head) -> str | None | Refusal:
    """The key without its quotes; 1-255 visible ASCII characters (I1)."""
    if not head.idempotency_keys:
        return None
    if len(head.idempotency_keys) > 1:
        return Refusal(Reason.IDEMPOTENCY_KEY_INVALID, "More than one idempotency key was sent. Send one.")
    key = head.idempotency_keys[0].decode("latin-1").strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not VISIBLE.match(key):
        return Refusal(
            Reason.IDEMPOTENCY_KEY_INVALID,
            f"The idempotency key has {len(key)} characters or some that are not visible ASCII; "
            "1 to 255 visible ASCII characters are allowed.",
        )
    return key


@record
class Options:
    """What a client says about how its call is to be made. ``timeout`` and ``wait`` in seconds."""

    request_id: str | None = None
    tag: str | None = None
    timeout: float | None = None
    wait: float | None = None
    trace: Trace | None = None


NOTHING_SAID = Options()


def options_of(head: Head) -> Options | Refusal:
    """The headers that change how a call is made; the first that is wrong refuses it."""
    if not head.options:
        return NOTHING_SAID
    timeout, tag = timeout_of(head), tag_of(head)
    if isinstance(timeout, Refusal):
        return timeout
    if isinstance(tag, Refusal):
        return tag
    trace = trace_of(head.text(b"traceparent"), head.text(b"tracestate"))
    return Options(head.text(b"x-request-id"), tag, timeout, wait_of(head), trace)


def timeout_of(head: Head) -> float | None | Refusal:
    """``x-request-timeout-ms`` in seconds."""
    text = head.text(b"x-request-timeout-ms")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= len(text) <= 9 or int(text) == 0:
        return Refusal(
            Reason.INVALID_REQUEST,
            "x-request-timeout-ms must be a whole number of milliseconds, at least 1.",
            "x-request-timeout-ms",
        )
    return int(text) / 1_000


def tag_of(head: Head) -> str | None | Refusal:
    tag = head.text(b"x-perpetuo-tag")
    if tag is not None and (len(tag) > 64 or not tag.isprintable()):
        return Refusal(
            Reason.INVALID_REQUEST, "x-perpetuo-tag must be at most 64 printable characters.", "x-perpetuo-tag"
        )
    return tag or None


def wait_of(head: Head) -> float | None:
    """``Prefer: wait=N`` in seconds, at most 60; other preferences are ignored, as HTTP asks."""
    match = re.search(r"(?:^|[,;\s])wait=(\d{1,4})", head.text(b"prefer") or "")
    return None if match is None else min(MAX_WAIT, float(match.group(1)))


def client_address(scope: Mapping[str, Any], head: Head, server: ServerSettings) -> str | None:
    """The caller's address; ``X-Forwarded-For`` is believed from trusted proxies, read from the right."""
    peer = (scope.get("client") or (None,))[0]
    forwarded = head.text(b"x-forwarded-for") if head.options else None
    if not forwarded or not server.trusted_proxies:
        return peer
    hops = [peer, *(hop.strip() for hop in reversed(forwarded.split(",")))]
    for hop in hops:
        if hop is None or not _trusted(hop, server.trusted_proxies):
            return hop
    return hops[-1]


def _trusted(address: str, networks: tuple[str, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(network, strict=False) for network in networks)


@lru_cache(maxsize=16_384)
def recorded_address(address: str | None, how: ClientIp) -> str | None:
    """The address as rows may keep it: /24 or /48 by default."""
    if address is None or how is ClientIp.NONE:
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if how is ClientIp.FULL:
        return str(parsed)
    prefix = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, prefix), strict=False).network_address)


CUT_SHORT = Refusal(Reason.INVALID_REQUEST, "The body ended before its end, or its chunks are malformed.")
"""Granian says the same of a client that left and of one that is still there but sent a bad chunk."""


async def read_body(receive: Any, head: Head, server: ServerSettings, wait: Wait) -> bytes | Refusal:
    """
    The whole body within its limits. After a refusal the connection can't be used again.

    Once there are as many bytes as announced, Granian is not asked for the end: it would say so in a further message
    from another thread, at a cost. Whoever listens next finds that message first.
    """
    wait.upto(server.body_timeout)
    try:
        message = await receive()
        if message["type"] != "http.request":
            return CUT_SHORT
        body: bytes = message.get("body", b"")
        if not message.get("more_body") or (body and head.fields.get(b"content-length") == b"%d" % len(body)):
            return body if len(body) <= server.request_max_bytes else too_large(server)
        return await _rest(receive, body, server)
    except asyncio.CancelledError:
        if not wait.is_over():
            raise
        return Refusal(
            Reason.REQUEST_TIMEOUT, f"The body did not arrive within {server.body_timeout:g} s. Send it again."
        )
    finally:
        wait.done()


async def _rest(receive: Any, first: bytes, server: ServerSettings) -> bytes | Refusal:
    parts, size = [first], len(first)
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return CUT_SHORT
        part = message.get("body", b"")
        size += len(part)
        if size > server.request_max_bytes:
            return too_large(server)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
