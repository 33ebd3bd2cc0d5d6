"""
How does a request look on the wire, and which requests are not sent at all?

Whatever could make one header say two things is refused here, before a byte has left. The transport owns the headers
that frame a message; a caller's are dropped.
"""

import re
from urllib.parse import urlsplit

import attrs

from perpetuo.adapters.providers.transport.slots import unsent
from perpetuo.adapters.providers.transport.wire import UpstreamRequest
from perpetuo.domain.model.upstream import Fault

_OURS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"accept-encoding", b"connection", b"keep-alive", b"te")
)
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
    lines = [name + b": " + value for name, value in headers(request)]
    start = b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (request.method, request.path, authority)
    return start + b"\r\n".join(lines) + b"\r\n\r\n"


def headers(request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    """The caller's headers and ours, but ``host``. Raises `UpstreamFailure` for what can't be sent safely."""
    if _UNSAFE_TARGET.search(request.path) or not request.method.isalpha():
        raise unsent(Fault.PROTOCOL, f"{request.method[:20]!r} {request.path[:80]!r} can't be a request line")
    lines = [header for header in request.headers if header[0].lower() not in _OURS]
    if any(_UNSAFE_HEADER.search(name) or _UNSAFE_HEADER.search(value) for name, value in lines):
        raise unsent(Fault.PROTOCOL, "a request header with a line break or NUL")
    lines.append((b"accept-encoding", b"identity"))
    lines.append((b"content-length", b"%d" % len(request.body)))
    return lines
