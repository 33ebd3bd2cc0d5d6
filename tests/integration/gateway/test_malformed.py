"""Bytes that are no good request: a 4xx or one clear reading, never a 5xx, never a dead worker (S3, S4, S9)."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator

import attrs
import pytest

from tests.live import KEY, OTHER_KEY, LiveGateway, config_text
from tests.patience import PATIENCE
from tests.servers import RedisServer

CONFIG = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: m}]}",
    more="server: {requestMaxBytes: 2MiB, bodyTimeout: 5s}\nredis: {timeout: 10s}",
)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":3}'
LENGTH = b"content-length: %d\r\n" % len(BODY)


@pytest.fixture(scope="module")
def shared(redis_here: RedisServer, database_here: str) -> Iterator[LiveGateway]:
    with LiveGateway(CONFIG, redis_url=redis_here.url, database_url=database_here) as running:
        yield running


@pytest.fixture
def gateway(shared: LiveGateway) -> Iterator[LiveGateway]:
    """After every test: the same workers are alive and answer."""
    before = shared.worker_pids()
    yield shared
    assert shared.chat(max_tokens=3).status_code == 200
    assert shared.worker_pids() == before


@attrs.frozen
class Said:
    """What came back on one connection: statuses in order, the last body, and whether it was closed."""

    statuses: list[int]
    body: bytes
    closed: bool


def say(
    gateway: LiveGateway, *pieces: bytes, half_close: bool = False, patience: float = PATIENCE, more: float = 0.05
) -> Said:
    """Send these bytes on one connection and listen until it is closed, or silent for ``more`` after an answer."""
    received, closed = b"", False
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=patience) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                sock.sendall(piece)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        sock.settimeout(patience)
        try:
            while piece := sock.recv(65_536):
                received += piece
                if not half_close and re.search(rb"\r\n\r\n.*[}]\Z", received, re.DOTALL):
                    sock.settimeout(more)
            closed = True
        except TimeoutError:
            pass
        except ConnectionResetError:
            closed = True
    statuses = [int(s) for s in re.findall(rb"HTTP/1\.1 (\d+)", received)]
    return Said(statuses, received.rpartition(b"\r\n\r\n")[2], closed)


def head(*lines: bytes, host: bytes = b"host: x\r\n", length: bytes = LENGTH) -> bytes:
    more = b"".join(line + b"\r\n" for line in lines)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\n"
        + host
        + b"authorization: Bearer "
        + KEY.encode()
        + b"\r\n"
        + (b"content-type: application/json\r\n" + length + more + b"\r\n")
    )


def test_a_good_request_is_answered(gateway: LiveGateway) -> None:
    """What the others differ from."""
    assert say(gateway, head(), BODY).statuses == [200]


# --- framing -------------------------------------------------------------------------------------

CHUNKED = b"transfer-encoding: chunked"
ONE_CHUNK = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"


def test_a_chunked_body_is_fine(gateway: LiveGateway) -> None:
    """So that the next tests fail for the right reason."""
    assert say(gateway, head(CHUNKED, length=b""), ONE_CHUNK).statuses == [200]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("no host", head(host=b"") + BODY),
        ("two hosts", head(host=b"host: x\r\nhost: y\r\n") + BODY),
        ("no host before an unknown path", b"GET /v1/nothing HTTP/1.1\r\n\r\n"),
        ("two hosts on an ordinary route", b"GET /v1/models HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n"),
        ("two lengths", head(length=LENGTH + b"content-length: 7\r\n") + BODY),
        ("length no number", head(length=b"content-length: 7x\r\n") + BODY),
        ("negative length", head(length=b"content-length: -7\r\n") + BODY),
        ("chunk size no number", head(CHUNKED, length=b"") + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
        ("chunk without its end", head(CHUNKED, length=b"") + b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
        ("chunk size too large", head(CHUNKED, length=b"") + b"ffffffffffffffffff\r\n" + BODY),
        ("no HTTP", b"hello\r\n\r\n"),
        ("a NUL in a header", head(b"x-a: \0") + BODY),
        ("a header without a colon", head(b"nonsense") + BODY),
        ("a space before the colon", head(b"host : y") + BODY),
        ("a folded header", head(b"x-a: 1\r\n y") + BODY),
        ("an unknown version", b"POST /v1/chat/completions HTTP/9.9\r\nhost: x\r\n\r\n"),
        ("a head without an end", b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"y" * 1_000_000),
        ("an odd transfer-encoding", head(b"transfer-encoding: xchunked", length=b"") + ONE_CHUNK),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_s3_bad_framing_is_refused(gateway: LiveGateway, name: str, data: bytes) -> None:
    """A 4xx and the end of the connection, or the end at once."""
    said = say(gateway, data, more=PATIENCE)
    assert said.statuses == [] or 400 <= said.statuses[0] < 500, (name, said)
    assert len(said.statuses) <= 1
    assert said.closed, (name, said)


@pytest.mark.parametrize("half_close", [True, False])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_s3_a_body_that_ends_early_is_never_a_call(gateway: LiveGateway, framing: str, half_close: bool) -> None:
    """Half a body is no request: 4xx or a closed connection, and nothing is billed."""
    data = head() + BODY[:20] if framing == "length" else head(CHUNKED, length=b"") + ONE_CHUNK[:20]
    of_nobody_else = data.replace(KEY.encode(), OTHER_KEY.encode())
    said = say(gateway, of_nobody_else, half_close=half_close, more=PATIENCE)
    assert said.statuses == [] or 400 <= said.statuses[0] < 500, said
    assert said.closed
    assert gateway.get("/v1/key", OTHER_KEY).json()["use"][0]["requests_last_minute"] == 0


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("CL.TE", head(b"content-length: 6", CHUNKED, length=b"") + b"0\r\n\r\nX"),
        ("TE.CL", head(CHUNKED, b"content-length: 4", length=b"") + ONE_CHUNK),
        ("two encodings", head(CHUNKED, b"transfer-encoding: identity", length=b"") + ONE_CHUNK),
        ("chunked twice", head(b"transfer-encoding: chunked, chunked", length=b"") + ONE_CHUNK),
        ("bare LF", (head() + BODY).replace(b"\r\n", b"\n")),
        ("bare CR", head(b"x-a: 1\ry: 2") + BODY),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_s3_ambiguous_framing_is_never_two_requests(gateway: LiveGateway, name: str, data: bytes) -> None:
    """A 4xx or one unambiguous reading."""
    said = say(gateway, data, more=0.3)
    assert len(said.statuses) <= 1, (name, said)
    assert all(s < 500 for s in said.statuses), (name, said)


def test_s3_a_smuggled_second_request_is_not_answered(gateway: LiveGateway) -> None:
    """What follows an ambiguous request is not a request."""
    inner = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
    said = say(
        gateway, head(CHUNKED, b"content-length: %d" % (5 + len(inner)), length=b"") + b"0\r\n\r\n" + inner, more=0.3
    )
    assert not any(s == 200 for s in said.statuses), said


def test_two_good_requests_on_one_connection_are_two(gateway: LiveGateway) -> None:
    """Pipelining is HTTP: both are answered, in order."""
    last = head(b"connection: close") + BODY
    assert say(gateway, head() + BODY + last, more=PATIENCE).statuses == [200, 200]


# --- size and encoding ---------------------------------------------------------------------------


def test_s4_a_body_over_the_limit_is_413_before_it_is_read(gateway: LiveGateway) -> None:
    """By its announced length, and the connection ends."""
    said = say(gateway, head(length=b"content-length: 99999999999\r\n"), b"x" * 1_000, more=PATIENCE)
    assert (said.statuses, said.closed) == ([413], True)


def test_s4_a_chunked_body_over_the_limit_is_413(gateway: LiveGateway) -> None:
    """Nobody said how long it would be."""
    chunk = b"%x\r\n" % 65_536 + b" " * 65_536 + b"\r\n"
    said = say(gateway, head(CHUNKED, length=b""), *[chunk] * 40, more=PATIENCE)
    assert said.statuses in ([413], [])
    assert said.closed


def test_s4_an_encoded_body_is_415(gateway: LiveGateway) -> None:
    """No decompression bombs: nothing is decompressed."""
    assert say(gateway, head(b"content-encoding: gzip"), BODY).statuses == [415]


def test_s5_a_body_that_drips_is_cut_at_its_deadline(gateway: LiveGateway) -> None:
    """408 after ``bodyTimeout``, and the connection ends."""
    said = say(gateway, head(), BODY[:10], more=PATIENCE)
    assert (said.statuses, said.closed) == ([408], True)


# --- JSON ----------------------------------------------------------------------------------------

DEEP = 1_000_000
MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'
BODIES = {
    "nothing": b"",
    "not JSON": b"{",
    "an array": b"[]",
    "a number": b"7",
    "two objects": BODY + BODY,
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "UTF-16": BODY.decode().encode("utf-16"),
    "bad UTF-8 in a field nobody reads": b'{"model":"m",' + MESSAGES + b',"x":"\xff"}',
    "overlong UTF-8": b'{"model":"m",' + MESSAGES + b',"x":"\xc0\xaf"}',
    "a lone surrogate": b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
    "a lone surrogate in a field nobody reads": b'{"model":"m",' + MESSAGES + b',"x":"\\udc00"}',
    "a lone surrogate in the model": b'{"model":"\\ud800",' + MESSAGES + b"}",
    "NaN": b'{"model":"m",' + MESSAGES + b',"temperature":NaN}',
    "Infinity": b'{"model":"m",' + MESSAGES + b',"temperature":-Infinity}',
    "a million arrays": b'{"model":"m",' + MESSAGES + b',"x":' + b"[" * DEEP + b"]" * (DEEP - 100_000) + b"}",
    "a hundred thousand arrays": b'{"model":"m",' + MESSAGES + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"model":"m",' + MESSAGES + b',"x":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "a deep message": b'{"model":"m","messages":[' + b"[" * 50_000 + b"]" * 50_000 + b"]}",
    "model twice": b'{"model":"m","model":"x",' + MESSAGES + b"}",
    "model twice, once escaped": b'{"model":"m","\\u006dodel":"x",' + MESSAGES + b"}",
    "max_tokens twice": b'{"model":"m","max_tokens":1,"max_tokens":9,' + MESSAGES + b"}",
    "no model": b"{" + MESSAGES + b"}",
    "model a number": b'{"model":7,' + MESSAGES + b"}",
    "a control character in the model": b'{"model":"a\\u0000b",' + MESSAGES + b"}",
    "no messages": b'{"model":"m"}',
    "no message": b'{"model":"m","messages":[]}',
    "messages a string": b'{"model":"m","messages":"hi"}',
    "max_tokens a string": b'{"model":"m","max_tokens":"9",' + MESSAGES + b"}",
    "max_tokens negative": b'{"model":"m","max_tokens":-1,' + MESSAGES + b"}",
    "max_tokens huge": b'{"model":"m","max_tokens":99999999999999999999999,' + MESSAGES + b"}",
    "max_tokens a fraction": b'{"model":"m","max_tokens":1.5,' + MESSAGES + b"}",
    "n zero": b'{"model":"m","n":0,' + MESSAGES + b"}",
    "stream a string": b'{"model":"m","stream":"yes",' + MESSAGES + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("with_key", [False, True], ids=["", "with a key"])
def test_s3_s9_bad_json_is_400(gateway: LiveGateway, body: bytes, with_key: bool) -> None:
    """Our envelope with a message; the next request on a new connection is fine."""
    more = [b"x-idempotency-key: k"] if with_key else []
    said = say(gateway, head(*more, length=b"content-length: %d\r\n" % len(body)), body)
    assert said.statuses == [400], said
    error = json.loads(said.body)["error"]
    assert (error["code"], error["source"]) == ("invalid_request", "gateway")
    assert error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"model":"m"}', b'{"model":"m","input":[]}', b'{"model":"m","input":[[1],"a"]}']
)
def test_s3_bad_embeddings_are_400(gateway: LiveGateway, body: bytes) -> None:
    """The other endpoint goes the same way."""
    data = head(length=b"content-length: %d\r\n" % len(body)).replace(b"/chat/completions", b"/embeddings")
    assert say(gateway, data, body).statuses == [400]


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/requests/%ff",
        b"/v1/requests/%00",
        b"/v1/requests/" + b"x" * 5_000,
        b"/v1/models/%ed%a0%80",
        b"/v1/models/..%2f..%2fkey",
    ],
)
def test_s3_odd_paths_are_4xx(gateway: LiveGateway, path: bytes) -> None:
    """Whatever is in the path is not found, and no error of ours."""
    said = say(gateway, b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n")
    assert len(said.statuses) == 1
    assert 400 <= said.statuses[0] < 500, said


@pytest.mark.parametrize(
    "line",
    [
        b"authorization: Bearer \xff\xfe",
        b"authorization: Basic abc",
        b"authorization:",
        b"x-api-key: \xe9",
    ],
)
def test_s6_odd_credentials_are_4xx(gateway: LiveGateway, line: bytes) -> None:
    """Bytes beyond ASCII are no key of ours."""
    data = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + line + b"\r\n" + LENGTH + b"\r\n" + BODY
    assert say(gateway, data).statuses[0] in (400, 401)


@pytest.mark.parametrize(
    "line",
    [
        b"x-perpetuo-tag: \xff",
        b"x-request-id: \xff",
        b"traceparent: \xff",
        b"prefer: wait=\xff",
        b"x-forwarded-for: \xff",
    ],
)
def test_s3_odd_bytes_in_our_headers_are_no_error_of_ours(gateway: LiveGateway, line: bytes) -> None:
    """Taken as they are, replaced or refused: never a 5xx."""
    said = say(gateway, head(line), BODY)
    assert len(said.statuses) == 1
    assert said.statuses[0] < 500, said
