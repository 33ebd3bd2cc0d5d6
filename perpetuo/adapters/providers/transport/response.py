"""
What do the bytes of an HTTP/1.1 response mean, and may the connection be used again?

No sockets in here: bytes go in with `ResponseReader.feed`, pieces of the body come out.

Rule 1: whatever two readers could understand differently is refused (RFC 9112 section 6.3): both kinds of length,
two lengths, codings other than ``chunked``, folded headers, bytes after the end. llhttp refuses most by itself.
Rule 2: constant memory: 64 KiB without a body byte in between (heads, chunk extensions, trailers) is too much.
Rule 3: we ask for ``identity``; an encoded body would be gibberish further on, so it is refused here.
"""

import re
from collections.abc import Sequence

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from perpetuo.adapters.providers.transport.wire import HEAD_BYTES, HEADER_COUNT, IDLE_S

_SPENT = HttpResponseParser(object())
"""Put in a reader's place of its own when it is done with it."""
_CONTROL = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_NO_BODY = frozenset((204, 304))
_LENGTHS = frozenset((b"content-length", b"transfer-encoding"))


class Malformed(Exception):  # noqa: N818 - names what the bytes are
    """Not a response we can trust."""


class Cut(Exception):  # noqa: N818 - names what happened
    """The connection ended before the response did."""


class ResponseReader:
    """One response; a fresh one for each request, so that nothing is left over from the response before."""

    __slots__ = (
        "_barren",
        "_bodyless",
        "_fed",
        "_parser",
        "_problem",
        "_until_close",
        "complete",
        "head_complete",
        "headers",
        "keep_s",
        "on_body",
        "pieces",
        "size",
        "status",
    )

    def __init__(self, method: bytes) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = False
        self.complete = False
        self.keep_s = 0.0
        """How long the connection may be kept after a complete response; 0: not at all."""
        self.pieces: list[bytes] = []
        self.size = 0
        """Bytes in ``pieces``."""
        self._bodyless = method == b"HEAD"
        self._until_close = False
        self._barren = 0
        self._fed = 0
        """Bytes up to here: no head can be longer."""
        self._problem: str | None = None
        # llhttp calls this once per chunk, 100 times for a short stream: a Python function costs a third more.
        self.on_body = self.pieces.append
        self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Read on. Raises `Malformed`, also for bytes after the end."""
        pieces = self.pieces
        had = len(pieces)
        if not self.head_complete:
            self._fed = self._barren + len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise Malformed(self._problem or f"not HTTP: {error}") from None
        finally:
            self.size += sum(map(len, pieces[had:]))
        if len(pieces) > had:
            self._barren = 0
            if self._bodyless:
                raise Malformed("a body in an answer to HEAD")
        elif not self.complete:
            self._barren += len(data)
            if self._barren > HEAD_BYTES:
                raise Malformed(f"more than {HEAD_BYTES} bytes without a body byte")

    def end(self) -> None:
        """The server has closed. Raises `Cut` if that is too early."""
        if self._until_close:
            self.complete = True
        if not self.complete:
            raise Cut("closed in the middle of the response" if self.head_complete else "closed without a response")

    def take(self) -> bytes:
        """The body bytes that have arrived since the last call."""
        pieces = self.pieces
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        return whole

    def release(self) -> None:
        """Let go of the parser: it and this object refer to each other."""
        self._parser = _SPENT

    # What llhttp calls. An exception in here stops it; the reason is in ``_problem``.

    def on_message_begin(self) -> None:
        if self.complete:
            self._refuse("bytes after the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self.headers
        if self.head_complete:  # A trailer: dropped.
            if name.lower() in _LENGTHS:
                self._refuse("a length or a transfer coding in the trailer")
            return
        headers.append((name.lower(), value.rstrip()))
        if len(headers) > HEADER_COUNT:
            self._refuse(f"more than {HEADER_COUNT} headers")

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse("not HTTP/1.1 or HTTP/1.0")
        if not 100 <= status <= 599:
            self._refuse(f"status {status} is not between 100 and 599")
        if status == 101:
            self._refuse("switched protocols without being asked")
        if self._fed > HEAD_BYTES and sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            self._refuse(f"a head of more than {HEAD_BYTES} bytes")
        if status < 200:
            # llhttp gives it its body, which would stand before the answer's.
            if any(name in _LENGTHS and value != b"0" for name, value in self.headers):
                self._refuse("an informational answer with a body")
            self.headers.clear()
            return
        self.status = status
        self._until_close = not self._is_framed() and not self._bodyless and status not in _NO_BODY
        self.head_complete = True
        if self._bodyless:
            self.complete = True  # llhttp doesn't know the method and waits for a body; hence no `keep_s`.

    def on_message_complete(self) -> None:
        if not self.head_complete or self.complete:
            return  # The end of a 1xx, or of an answer to HEAD.
        self.complete = True
        if self._parser.should_keep_alive():
            self.keep_s = announced_keep(self.headers)

    def _is_framed(self) -> bool:
        try:
            return check_framing(self.headers)
        except Malformed as problem:
            self._refuse(str(problem))
            raise

    def _refuse(self, problem: str) -> None:
        self._problem = problem
        raise Malformed(problem)


def check_framing(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Is the length of the body announced? Raises `Malformed` for an encoded or doubly framed one."""
    framed = False
    for name, value in headers:
        if name in _LENGTHS:
            # llhttp takes "gzip, chunked" and chunked twice; we decode one "chunked" and nothing else.
            if framed or (name == b"transfer-encoding" and value.lower() != b"chunked"):
                raise Malformed("two lengths, or a transfer coding other than chunked")
            framed = True
        elif name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise Malformed(f"encoded as {value[:40]!r} though identity was asked for")
    return framed


def check_head(status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """The rules of `ResponseReader` for a head that somebody else has parsed. Raises `Malformed`."""
    if not 200 <= status <= 599:
        raise Malformed(f"status {status} is not between 200 and 599")
    if len(headers) > HEADER_COUNT:
        raise Malformed(f"more than {HEADER_COUNT} headers")
    if sum(len(name) + len(value) + 4 for name, value in headers) > HEAD_BYTES:
        raise Malformed(f"a head of more than {HEAD_BYTES} bytes")
    if any(_CONTROL.search(name) or _CONTROL.search(value) for name, value in headers):
        raise Malformed("a header with a control character")
    check_framing(headers)


def announced_keep(headers: Sequence[tuple[bytes, bytes]]) -> float:
    """Servers close idle connections; a second of margin keeps our next request off a dying one."""
    for name, value in headers:
        if name == b"keep-alive":
            for part in value.split(b","):
                key, _, seconds = part.strip().partition(b"=")
                if key.lower() == b"timeout" and seconds.isdigit() and len(seconds) < 10:
                    return max(0.0, min(IDLE_S, int(seconds) - 1.0))
    return IDLE_S
