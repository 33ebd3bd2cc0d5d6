"""
What does somebody else's parser (h11) make of the same bytes?

Where ours accepts an answer, this one has to agree on every part of it. Ours may refuse what this one takes.
"""

import re

import attrs
import h11

_WHOLE = 1 << 24
# h11 reads twenty digits; zeros before a number may be more.
_MANY_DIGITS = re.compile(rb"[\r\n:][ \t]*0[0-9a-fA-F]{20,}")
_REASON = re.compile(rb"\A(HTTP/1\.[01] \d{3}) [^\r\n]*\r\n")


@attrs.frozen
class Reading:
    """
    What h11 understood.

    ``clean``: the connection can be used again, nothing follows the answer. ``silent``: h11 has no opinion.
    """

    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    complete: bool = False
    clean: bool = False
    problem: str = ""
    silent: bool = False


def read(method: bytes, said: bytes, closed: bool) -> Reading:
    """The answer to one request: ``said`` is all that came after it, ``closed`` if a proper goodbye came last."""
    rest: bytes | None = said
    reading = Reading()
    while rest is not None:  # once more after each 1xx
        reading, rest = _read(method, _without_what_means_nothing(rest), closed)
    return reading


def _without_what_means_nothing(said: bytes) -> bytes:
    """llhttp skips blank lines before an answer and takes any reason; h11 doesn't. Nobody is told of either."""
    return _REASON.sub(rb"\1 OK\r\n", said.lstrip(b"\r\n"), count=1)


def _read(method: bytes, said: bytes, closed: bool) -> tuple[Reading, bytes | None]:
    """One answer, or a 1xx and what comes after it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_WHOLE)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"x")]))
    connection.send(h11.EndOfMessage())
    if said:
        connection.receive_data(said)
    if closed:
        connection.receive_data(b"")
    reading = Reading()
    try:
        while True:
            match connection.next_event():
                case h11.InformationalResponse():
                    return reading, connection.trailing_data[0]
                case h11.Response() as head:
                    headers = tuple((name, value) for name, value in head.headers)
                    reading = attrs.evolve(reading, status=head.status_code, headers=headers)
                case h11.Data() as piece:
                    reading = attrs.evolve(reading, body=reading.body + bytes(piece.data))
                case h11.EndOfMessage():
                    return attrs.evolve(reading, complete=True, clean=_is_clean(connection, reading)), None
                case _:
                    return reading, None
    except h11.RemoteProtocolError as error:
        return attrs.evolve(reading, problem=str(error), silent=bool(_MANY_DIGITS.search(said))), None


def _is_clean(connection: h11.Connection, reading: Reading) -> bool:
    after, closed = connection.trailing_data
    if after.strip(b"\r\n") or closed:
        return False
    if connection.their_state is h11.DONE:
        return True
    # h11 keeps no connection to a server of HTTP/1.0; such a server may offer it, and then means it.
    said = b",".join(value.lower() for name, value in reading.headers if name == b"connection")
    tokens = {token.strip() for token in said.split(b",")}
    framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in reading.headers)
    return b"keep-alive" in tokens and b"close" not in tokens and (framed or reading.status in (204, 304))
