"""
How does a request look on the wire, and which requests are not sent at all?

Whatever could make one header say two things is refused here, before a byte has left. The transport owns the headers
that frame a message; a caller's are dropped.
"""

import re
from functools import lru_cache
from urllib.parse import urlsplit

import attrs

from perpetuo.adapters.providers.transport.slots import unsent
from perpetuo.adapters.providers.transport.wire import Headers, UpstreamRequest
from perpetuo.domain.model.upstream import Fault

_OURS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"accept-encoding", b"connection", b"keep-alive", b"te")
)
_IDENTITY = (b"accept-encoding", b"identity")
_UNSAFE_HEADER = re.compile(rb"[\r\n\0]")
_UNSAFE_TARGET = re.compile(rb"[^\x21-\x7e]")


@attrs.frozen
class Origin:
    """Where requests go: scheme, host and port, nothing else."""

    secure: bool
    host: str
    port: int
    authority: bytes
    """``host[:port]`` as it stands in the ``host`` header."""

    @classmethod
    def parse(cls, origin: str) -> "Origin":
        """``scheme://host[:port]``. Raises `ValueError`."""
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError(f"{origin!r} is not an http or https origin")
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname, parts.port or (443 if secure else 80), parts.netloc.encode("ascii"))


def render(request: UpstreamRequest, authority: bytes) -> bytes:
    """The request up to its body, for HTTP/1.1. Raises `UpstreamFailure` when it can't be sent safely."""
    further = b"".join([b"%b: %b\r\n" % header for header in _checked(request.further)]) if request.further else b""
    start = _start(request.method, request.path, authority, request.headers)
    return b"%b%bcontent-length: %d\r\n\r\n" % (start, further, len(request.body))


@lru_cache(maxsize=1_024)
def _start(method: bytes, path: bytes, authority: bytes, headers: Headers) -> bytes:
    """What all requests of one kind to one provider begin with."""
    _check_line(method, path)
    lines = b"".join([b"%b: %b\r\n" % header for header in (*_checked(headers), _IDENTITY)])
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b" % (method, path, authority, lines)


def headers(request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    """The caller's headers and ours, but ``host``. Raises `UpstreamFailure` for what can't be sent safely."""
    _check_line(request.method, request.path)
    length = (b"content-length", b"%d" % len(request.body))
    return [*_checked(request.headers), _IDENTITY, *_checked(request.further), length]


def _check_line(method: bytes, path: bytes) -> None:
    if _UNSAFE_TARGET.search(path) or not method.isalpha():
        raise unsent(Fault.PROTOCOL, f"{method[:20]!r} {path[:80]!r} can't be a request line")


def _checked(given: Headers) -> Headers:
    """Those that are the caller's to set."""
    kept = tuple([header for header in given if header[0].lower() not in _OURS])
    if any(_UNSAFE_HEADER.search(name) or _UNSAFE_HEADER.search(value) for name, value in kept):
        raise unsent(Fault.PROTOCOL, "a request header with a line break or NUL")
    return kept
