"""
Which bytes are no good HTTP/1.1 request, and what may come of them?

Each vector is what one peer writes on one connection, with the *canary* (`after`) at its heels: a good request, which a
parser that lost its place would read as something else. `Reading` says what may happen. ``INNER`` is a request
inside another one's body: wherever it is not announced to stand alone, nobody may read it.
"""

from enum import Enum

import attrs

from tests.live import KEY


class Reading(Enum):
    """What a vector may be read as."""

    REFUSED = "a 4xx, or nothing, and the end of the connection; whatever follows is not read"
    ONE = "one request with one answer below 500; what follows is read as it stands, or the connection ends"
    EITHER = "refused, or one request"
    ANSWERED = "one good request: 200, and what follows is answered as well"
    TWO = "two good requests, in order, and then what follows"


@attrs.frozen
class Vector:
    """One way to write a request, or what passes for one."""

    data: bytes
    reading: Reading = Reading.REFUSED
    statuses: frozenset[int] = frozenset()
    """Where one status is right and others are not."""


CRLF = b"\r\n"
PATH = b"/v1/chat/completions"


def body(marker: bytes) -> bytes:
    return b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % marker


BODY = body(b"vector")
SMUGGLED = body(b"smuggled")
CANARY_ID = b"canary-of-this-vector"


def request(
    *lines: bytes,
    method: bytes = b"POST",
    target: bytes = PATH,
    version: bytes = b" HTTP/1.1",
    host: bytes | None = b"host: x",
    length: bytes | None = b"content-length: %d" % len(BODY),
    data: bytes = BODY,
    end: bytes = CRLF,
    key: bytes = b"authorization: Bearer " + KEY.encode(),
) -> bytes:
    """A request as a vector wants it."""
    head = [method + b" " + target + version, host, key, b"content-type: application/json", length, *lines]
    return b"".join(line + end for line in head if line is not None) + end + data


def get(target: bytes, *lines: bytes, **more: bytes) -> bytes:
    return request(*lines, method=b"GET", target=target, length=None, data=b"", **more)


def after() -> bytes:
    """The canary."""
    data = body(b"canary")
    return request(b"x-request-id: " + CANARY_ID, length=b"content-length: %d" % len(data), data=data)


def chunks(*parts: bytes, size: bytes = b"%x", end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(size % len(part) + CRLF + part + CRLF for part in parts) + end


def chunked(*lines: bytes, data: bytes | None = None, te: bytes = b"transfer-encoding: chunked") -> bytes:
    return request(te, *lines, length=None, data=chunks(BODY) if data is None else data)


INNER = request(length=b"content-length: %d" % len(SMUGGLED), data=SMUGGLED)
EMPTY_CHUNKS = b"0\r\n\r\n"
HUGE = b"9" * 30


# --- the table ------------------------------------------------------------------------------------

_GOOD = chunks(BODY)
_SIZE = b"%x" % len(BODY)
REFUSED, ONE, EITHER, ANSWERED, TWO = Reading


def _sized(size: bytes, *, end: bytes = CRLF) -> bytes:
    """A chunked body whose chunk has this for its size line."""
    return size + end + BODY + CRLF + EMPTY_CHUNKS


LENGTHS = {
    "two lengths, the same": Vector(request(b"content-length: %d" % len(BODY)), EITHER),
    "two lengths": Vector(request(b"content-length: %d" % len(BODY + INNER), data=BODY + INNER)),
    "a list of lengths": Vector(request(length=b"content-length: %d, %d" % (len(BODY), len(BODY))), EITHER),
    "a list of two lengths": Vector(request(length=b"content-length: %d, 7" % len(BODY))),
    "length with a plus": Vector(request(length=b"content-length: +%d" % len(BODY))),
    "length negative": Vector(request(length=b"content-length: -1")),
    "length in hex": Vector(request(length=b"content-length: 0x%x" % len(BODY))),
    "length with a point": Vector(request(length=b"content-length: %d.0" % len(BODY))),
    "length with a space inside": Vector(request(length=b"content-length: 1 0")),
    "length after a vertical tab": Vector(request(length=b"content-length: \x0b%d" % len(BODY))),
    "length empty": Vector(request(length=b"content-length:")),
    "length of thirty digits": Vector(request(length=b"content-length: " + HUGE)),
    "length that wraps at 64 bits": Vector(request(length=b"content-length: %d" % (2**64 + len(BODY)))),
    "length with zeros before": Vector(request(length=b"content-length: 000%d" % len(BODY)), EITHER),
    "length among spaces": Vector(request(length=b"content-length:   %d  " % len(BODY)), ANSWERED),
    "a body nobody announced": Vector(request(length=None, data=INNER), TWO),
    "length zero, and a body": Vector(request(length=b"content-length: 0", data=INNER), TWO),
    "GET with a body": Vector(get(b"/v1/models", b"content-length: %d" % len(INNER)) + INNER, ANSWERED),
    "GET with a chunked body": Vector(get(b"/v1/models", b"transfer-encoding: chunked") + chunks(INNER), ANSWERED),
    "health with a body": Vector(get(b"/health/live", b"content-length: %d" % len(INNER)) + INNER, ANSWERED),
    "a body at a path that is not there": Vector(
        request(target=b"/nothing", length=b"content-length: %d" % len(INNER), data=INNER), ONE, frozenset({404})
    ),
    "a body without a valid key": Vector(
        request(key=b"authorization: Bearer wrong", length=b"content-length: %d" % len(INNER), data=INNER),
        REFUSED,
        frozenset({401}),
    ),
    "a body with another method": Vector(
        request(method=b"PUT", length=b"content-length: %d" % len(INNER), data=INNER), REFUSED, frozenset({405})
    ),
}
BOTH = {
    "CL.TE": Vector(
        request(
            b"transfer-encoding: chunked",
            length=b"content-length: %d" % (len(EMPTY_CHUNKS) + len(INNER)),
            data=EMPTY_CHUNKS + INNER,
        )
    ),
    "CL.TE that agree": Vector(
        request(b"transfer-encoding: chunked", length=b"content-length: %d" % len(_GOOD), data=_GOOD), EITHER
    ),
    "TE.CL": Vector(
        request(
            b"content-length: %d" % len(b"%x\r\n" % len(INNER)),
            length=b"transfer-encoding: chunked",
            data=chunks(INNER),
        )
    ),
    "CL.TE, another word for chunked": Vector(
        request(b"transfer-encoding: xchunked", length=b"content-length: %d" % len(_GOOD), data=_GOOD)
    ),
    "CL.TE, hidden by a bare LF": Vector(
        request(b"x: y\ntransfer-encoding: chunked", data=BODY + EMPTY_CHUNKS + INNER)
    ),
    "CL.TE, hidden by a bare CR": Vector(request(b"x: y\rtransfer-encoding: chunked", data=BODY)),
    "CL.TE, spelt with an underscore": Vector(request(b"transfer_encoding: chunked"), ANSWERED),
}
ENCODINGS = {
    "chunked": Vector(chunked(), ANSWERED),
    "in capitals": Vector(chunked(te=b"Transfer-Encoding: CHUNKED"), ANSWERED),
    "with a space after it": Vector(chunked(te=b"transfer-encoding: chunked "), ANSWERED),
    "after a tab": Vector(chunked(te=b"transfer-encoding:\tchunked"), ANSWERED),
    "after a vertical tab": Vector(chunked(te=b"transfer-encoding: \x0bchunked")),
    "xchunked": Vector(chunked(te=b"transfer-encoding: xchunked")),
    "identity": Vector(chunked(te=b"transfer-encoding: identity")),
    "chunked, identity": Vector(chunked(te=b"transfer-encoding: chunked, identity")),
    "identity, chunked": Vector(chunked(te=b"transfer-encoding: identity, chunked")),
    "gzip, chunked": Vector(chunked(te=b"transfer-encoding: gzip, chunked")),
    "chunked, chunked": Vector(chunked(te=b"transfer-encoding: chunked, chunked")),
    "twice": Vector(chunked(b"transfer-encoding: chunked")),
    "twice, identity first": Vector(chunked(b"transfer-encoding: chunked", te=b"transfer-encoding: identity")),
    "in quotes": Vector(chunked(te=b'transfer-encoding: "chunked"')),
    "with a parameter": Vector(chunked(te=b"transfer-encoding: chunked;q=1")),
    "empty": Vector(chunked(te=b"transfer-encoding:")),
    "with a NUL": Vector(chunked(te=b"transfer-encoding: chunked\0")),
    "with a space before the colon": Vector(chunked(te=b"transfer-encoding : chunked")),
    "with a space before the name": Vector(chunked(te=b" transfer-encoding: chunked")),
    "folded": Vector(chunked(te=b"transfer-encoding:\r\n chunked")),
    "in HTTP/1.0": Vector(request(b"transfer-encoding: chunked", version=b" HTTP/1.0", length=None, data=_GOOD)),
}
CHUNKS = {
    "size no number": Vector(chunked(data=_sized(b"zz"))),
    "size negative": Vector(chunked(data=_sized(b"-5"))),
    "size with 0x": Vector(chunked(data=_sized(b"0x" + _SIZE))),
    "size with a plus": Vector(chunked(data=_sized(b"+" + _SIZE))),
    "size with an underscore": Vector(chunked(data=_sized(_SIZE + b"_"))),
    "size after a space": Vector(chunked(data=_sized(b" " + _SIZE))),
    "size and a space": Vector(chunked(data=_sized(_SIZE + b" ")), EITHER),
    "size empty": Vector(chunked(data=_sized(b""))),
    "size of 17 digits": Vector(chunked(data=_sized(b"f" * 17))),
    "size that wraps at 64 bits": Vector(chunked(data=_sized(b"1%016x" % len(BODY)))),
    "size that wraps at 32 bits": Vector(chunked(data=_sized(b"1%08x" % len(BODY)))),
    "size with zeros before": Vector(chunked(data=_sized(b"0000000" + _SIZE)), EITHER),
    "size with 70,000 zeros": Vector(chunked(data=_sized(b"0" * 70_000 + _SIZE)), EITHER),
    "shorter than its data": Vector(chunked(data=_sized(b"5"))),
    "no end of line after the data": Vector(chunked(data=_SIZE + CRLF + BODY + EMPTY_CHUNKS)),
    "something else after the data": Vector(chunked(data=_SIZE + CRLF + BODY + b"xx" + EMPTY_CHUNKS)),
    "bare LF": Vector(chunked(data=_GOOD.replace(CRLF, b"\n"))),
    "one byte each": Vector(chunked(data=chunks(*(bytes([byte]) for byte in BODY))), ANSWERED),
    "an extension": Vector(chunked(data=_sized(_SIZE + b";a=b")), EITHER),
    "an extension with a line in quotes": Vector(chunked(data=_sized(_SIZE + b';a="\r\n"'))),
    "an extension ended by LF": Vector(chunked(data=_sized(_SIZE + b";a", end=b"\n"))),
    "an extension with a CR": Vector(chunked(data=_sized(_SIZE + b";a\rb"))),
    "an extension of 64 KiB": Vector(chunked(data=_sized(_SIZE + b";" + b"a" * 65_536))),
    "an extension of 1 MiB": Vector(chunked(data=_sized(_SIZE + b";" + b"a" * 1_048_576))),
    "an extension in every chunk": Vector(
        chunked(data=chunks(*(bytes([byte]) for byte in BODY), size=b"%x;" + b"a" * 2_000))
    ),
    "trailers": Vector(chunked(data=chunks(BODY, end=b"0\r\nx-a: b\r\n\r\n")), EITHER),
    "trailers that are framing": Vector(
        chunked(data=chunks(BODY, end=b"0\r\ncontent-length: 5\r\ntransfer-encoding: x\r\nhost: y\r\n\r\n")), EITHER
    ),
    "a trailer without a colon": Vector(chunked(data=chunks(BODY, end=b"0\r\nnonsense\r\n\r\n")), EITHER),
    "a trailer of 64 KiB": Vector(chunked(data=chunks(BODY, end=b"0\r\nx: " + b"a" * 65_536 + b"\r\n\r\n")), EITHER),
    "10,000 trailers": Vector(chunked(data=chunks(BODY, end=b"0\r\n" + b"x: a\r\n" * 10_000 + b"\r\n")), EITHER),
}
LINES = {
    "bare LF": Vector(request(end=b"\n"), EITHER),
    "bare LF once": Vector(request(b"x: y\nz: w"), EITHER),
    "bare CR": Vector(request(b"x: y\rz: w")),
    "CR CR LF": Vector(request(end=b"\r\r\n")),
    "empty lines before": Vector(b"\r\n\r\n" + request(), EITHER),
    "a thousand empty lines before": Vector(b"\r\n" * 1_000 + request(), EITHER),
    "a space before": Vector(b" " + request()),
    "a NUL before": Vector(b"\0" + request()),
    "a folded line": Vector(request(b"x: 1\r\n y")),
    "a space before the colon": Vector(request(b"x-a : 1")),
    "no colon": Vector(request(b"nonsense")),
    "no name": Vector(request(b": x")),
    "a NUL in a value": Vector(request(b"x: a\0b")),
    "a NUL in a name": Vector(request(b"x\0y: a")),
    "a control character in a name": Vector(request(b"x\x01y: a")),
    "a byte beyond ASCII in a name": Vector(request(b"x\xe9: a")),
    "a byte beyond ASCII in a value": Vector(request(b"x: \xe9"), ANSWERED),
    "parentheses in a name": Vector(request(b"x(y): a")),
    "a head of 64 KiB": Vector(request(b"x: " + b"a" * 65_536), EITHER),
    "a head of 1 MiB": Vector(request(b"x: " + b"a" * 1_048_576)),
    "10,000 lines": Vector(request(*(b"x-%d: y" % n for n in range(10_000)))),
    "a name of 64 KiB": Vector(request(b"x" * 65_536 + b": a"), EITHER),
    "connection names what we need": Vector(request(b"connection: host, authorization, content-length"), ANSWERED),
    "connection: close": Vector(request(b"connection: close"), ONE, frozenset({200})),
}
HOSTS = {
    "none": Vector(request(host=None), REFUSED, frozenset({400})),
    "none in HTTP/1.0": Vector(request(host=None, version=b" HTTP/1.0"), REFUSED, frozenset({400})),
    "two": Vector(request(b"host: y"), REFUSED, frozenset({400})),
    "the same twice": Vector(request(b"host: x"), REFUSED, frozenset({400})),
    "empty": Vector(request(host=b"host:"), REFUSED, frozenset({400})),
    **{
        name: Vector(request(host=b"host: " + host), REFUSED, frozenset({400}))
        for name, host in {
            "with a path": b"a/b",
            "with a space": b"a b",
            "a list": b"a, b",
            "with a user": b"a@b",
            "a port that is none": b"x:y",
            "a port too large": b"x:99999",
            "two ports": b"x:80:80",
            "only a port": b":80",
            "half an address": b"[::1",
            "beyond ASCII": b"\xc3\xa9",
        }.items()
    },
}
TARGETS = {
    "absolute": Vector(request(target=b"http://x" + PATH), ONE),
    "absolute, of another host": Vector(request(target=b"http://evil.example" + PATH), ONE),
    "absolute, another scheme": Vector(request(target=b"ftp://x" + PATH), ONE),
    "authority": Vector(request(target=b"x:80"), ONE, frozenset({404})),
    "asterisk": Vector(request(target=b"*"), ONE, frozenset({404})),
    "OPTIONS *": Vector(get(b"*").replace(b"GET", b"OPTIONS", 1), ONE, frozenset({404})),
    "CONNECT": Vector(get(b"x:80").replace(b"GET", b"CONNECT", 1), ONE, frozenset({404})),
    "CONNECT with a path": Vector(request(method=b"CONNECT"), REFUSED, frozenset({405})),
    "with a query": Vector(request(target=PATH + b"?x=y"), ANSWERED),
    "with a query of 64 KiB": Vector(request(target=PATH + b"?" + b"a" * 65_536)),
    "of 1 MiB": Vector(request(target=PATH + b"?" + b"a" * 1_048_576)),
    "with a fragment": Vector(request(target=PATH + b"#x"), ONE),
    "percent-encoded": Vector(request(target=b"/v1/%63hat/completions"), ONE),
    "percent-encoded slash": Vector(request(target=b"/v1%2fchat/completions"), ONE),
    "percent-encoded NUL": Vector(request(target=PATH + b"%00"), ONE, frozenset({404})),
    "percent-encoded line": Vector(request(target=PATH + b"%0d%0aX:%20y"), ONE, frozenset({404})),
    "percent-encoded 0xff": Vector(request(target=PATH + b"%ff"), ONE, frozenset({404})),
    "bad percent-encoding": Vector(request(target=PATH + b"%zz"), ONE, frozenset({404})),
    "two slashes": Vector(request(target=b"//v1/chat/completions"), ONE),
    "two slashes and a host": Vector(request(target=b"//evil.example" + PATH), ONE, frozenset({404})),
    "two slashes inside": Vector(request(target=b"/v1//chat/completions"), ONE),
    "dots": Vector(request(target=b"/v1/../v1/chat/completions"), ONE, frozenset({404})),
    "dots at the top": Vector(request(target=b"/.." + PATH), ONE, frozenset({404})),
    "percent-encoded dots": Vector(request(target=b"/v1/%2e%2e" + PATH), ONE, frozenset({404})),
    "a dot at the end": Vector(request(target=PATH + b"."), ONE, frozenset({404})),
    "dots at the end": Vector(request(target=PATH + b"/.."), ONE, frozenset({404})),
    "a slash at the end": Vector(request(target=PATH + b"/"), ONE),
    "a parameter": Vector(request(target=PATH + b";x=y"), ONE, frozenset({404})),
    "in capitals": Vector(request(target=PATH.upper()), ONE, frozenset({404})),
    "beyond ASCII": Vector(request(target=b"/v1/\xc3\xa9"), EITHER),
    "no UTF-8": Vector(request(target=PATH + b"\xff"), EITHER),
    "a NUL": Vector(request(target=PATH + b"\0")),
    "a control character": Vector(request(target=PATH + b"\x01")),
    "backslashes": Vector(request(target=PATH.replace(b"/", b"\\"))),
    "no slash": Vector(request(target=PATH[1:])),
    "empty": Vector(request(target=b"")),
}
VERSIONS = {
    "HTTP/0.9": Vector(b"GET /v1/models\r\n"),
    "HTTP/0.9 with an empty line": Vector(b"GET /v1/models\r\n\r\n"),
    "HTTP/1.0": Vector(request(version=b" HTTP/1.0"), ONE, frozenset({200})),
    "HTTP/1.0 kept alive": Vector(request(b"connection: keep-alive", version=b" HTTP/1.0"), ONE, frozenset({200})),
    "HTTP/1.2": Vector(request(version=b" HTTP/1.2"), EITHER),
    "HTTP/1.10": Vector(request(version=b" HTTP/1.10")),
    "HTTP/2.0": Vector(request(version=b" HTTP/2.0")),
    "HTTP/9.9": Vector(request(version=b" HTTP/9.9")),
    "http/1.1": Vector(request(version=b" http/1.1")),
    "two spaces": Vector(request(version=b"  HTTP/1.1"), EITHER),
    "a tab": Vector(request(version=b"\tHTTP/1.1")),
    "a space at the end": Vector(request(version=b" HTTP/1.1 "), EITHER),
    "a word more": Vector(request(version=b" x HTTP/1.1")),
    "HTTP/2's preface": Vector(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
    "TLS": Vector(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"A" * 600),
    "SOCKS": Vector(b"\x05\x01\x00"),
    "PROXY": Vector(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request()),
}
_WEBSOCKET = (
    b"connection: Upgrade", b"upgrade: websocket", b"sec-websocket-version: 13",
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
METHODS = {
    "two requests": Vector(request() + request(), TWO),
    "two of GET": Vector(get(b"/v1/models") + get(b"/v1/models"), TWO),
    "HEAD": Vector(get(b"/v1/models").replace(b"GET", b"HEAD", 1), ANSWERED),
    "HEAD of a call": Vector(get(PATH).replace(b"GET", b"HEAD", 1), REFUSED, frozenset({405})),
    "TRACE": Vector(get(b"/v1/models").replace(b"GET", b"TRACE", 1), ONE, frozenset({405})),
    "TRACE of a call": Vector(request(method=b"TRACE"), REFUSED, frozenset({405})),
    "in small letters": Vector(request(method=b"post"), REFUSED, frozenset({405})),
    "nobody's": Vector(request(method=b"FROB"), REFUSED, frozenset({405})),
    "no token": Vector(request(method=b"P@ST")),
    "empty": Vector(request(method=b"")),
    "of 64 KiB": Vector(request(method=b"A" * 65_536)),
    "Upgrade: h2c": Vector(
        request(b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__"), ANSWERED
    ),
    "Upgrade: websocket": Vector(get(b"/v1/models", *_WEBSOCKET), ANSWERED),
    "Upgrade: websocket, of a call": Vector(request(*_WEBSOCKET), ANSWERED),
    "Expect: 100-continue": Vector(request(b"expect: 100-continue"), ANSWERED),
    "Expect: something else": Vector(request(b"expect: 200-ok"), EITHER),
    "Expect: 100-continue, too large": Vector(
        request(b"expect: 100-continue", length=b"content-length: 99999999"), REFUSED, frozenset({413})
    ),
}
VECTORS = {
    f"{kind}: {name}": vector
    for kind, table in {
        "length": LENGTHS,
        "both": BOTH,
        "encoding": ENCODINGS,
        "chunk": CHUNKS,
        "head": LINES,
        "host": HOSTS,
        "target": TARGETS,
        "version": VERSIONS,
        "method": METHODS,
    }.items()
    for name, vector in table.items()
}
