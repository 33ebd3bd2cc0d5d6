"""Which plays are worth a name? Written by hand; the fuzzer begins with them too."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NO = OK.replace(b"ok", b"no")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LARGE = OK.replace(b"2\r\n\r\nok", b"600000\r\n\r\n") + b"x" * 600_000
SHORT = OK.replace(b"content", b"keep-alive: timeout=5\r\ncontent")
NEXT = b"\xffn\x00"

PIECES = (
    OK, NO, OK[:30], OK[30:], CHUNKED, b"2\r\nab\r\n", b"0\r\n", b"\r\n", b"HTTP/1.1 103 E\r\n\r\n",
    b"HTTP/1.1 204 N\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", SHORT,
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n\xffb\x03",
    b"\xffe", b"\xffx", b"\xffr", b"\xffw", b"\xff|", b"\xff~", b"\xffz", NEXT, NEXT + OK, b"\xffn\x08" + OK,
)  # fmt: skip
"""What plays are made of."""

PLAYS = {
    "two calls": OK + NEXT + NO,
    "a second answer at once": OK + NO + NEXT + OK,
    "a second answer while idle": OK + b"\xff|" + NO + NEXT + OK,
    "the start of a second answer while idle": OK + b"\xff|HTTP/1.1 2" + NEXT + b"00 OK\r\ncontent-length: 2\r\n\r\nno",
    "closed while idle": OK + b"\xffe" + NEXT + NO,
    "reset while idle": OK + b"\xffx" + NEXT + NO,
    "closed before anybody notices": OK + b"\xff~\xffe" + NEXT + NO,
    "idle for too long": OK + b"\xfft\x03" + NEXT + NO,
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nuntil\xff|the end\xffe" + NEXT + OK,
    "chunks, cut": CHUNKED + b"2;a\r\na\xff|b\r\n\xff|0\r\nx: y\r\n\r\n" + NEXT + OK,
    "chunks without an end": CHUNKED + b"2\r\nab\r\n\xffe" + NEXT + OK,
    "too short a length": OK + b"!" + NEXT + NO,
    "too long a length": OK[:-1] + b"\xffe" + NEXT + NO,
    "hints": b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n" + OK,
    "an answer to HEAD": b"\xffn\x01HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" + NEXT + OK,
    "answered before all was said": b"\xfff\x02\xffn\x10" + OK + NEXT + NO,
    "drained in the end": b"\xfff\x02\xffn\x10\xffw" + OK + NEXT + NO,
    "answered crosswise": NEXT + NEXT + b"\xffc\x02" + OK + b"\xffc\x00" + NO + b"\xffc\x01" + OK + NEXT + NO,
    "one in line": NEXT + NEXT + NEXT + OK + b"\xffc\x00" + NO + b"\xffa\x01\xffk\x02",
    "refused, then silent": b"\xfff\x00" + NEXT + b"\xfff\x01" + NEXT + b"\xfft\x02",
    "left in the middle": CHUNKED + b"2\r\nab\xffa\x00" + NEXT + OK + b"\xffn\x04" + CHUNKED + b"\xffk\x02" + NEXT + OK,
    "a slow reader": b"\xffn\x0c" + CHUNKED + b"2\r\nab\r\n\xffr2\r\ncd\r\n\xffr0\r\n\r\n\xffr",
    "a large answer, a slow reader": b"\xffn\x08" + LARGE + b"\xffr" * 9,
    "offered by HTTP/1.0": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok" + NEXT + NO,
    "kept for four seconds": SHORT + b"\xfft\x01\xfft\x02" + NEXT + NO,
    "a barren megabyte": b"HTTP/1.1 200 OK\r\na: \xffba\xffba\xffba" + NEXT + OK,
    "a large body": b"HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n\xffb\x03" + NEXT + OK,
    "closed with a call in each phase": CHUNKED + NEXT + b"\xfff\x01" + NEXT + NEXT + b"\xffz" + NEXT,
    # What broke a promise once.
    "the body of a 1xx": b"HTTP/1.1 150 X\r\ncontent-length: 5\r\n\r\nhello" + OK,
    "reset as the next in line takes it": NEXT + NEXT + NEXT + b"\xffc\x00" + OK + b"\xffx" + NO,
    "a goodbye in the instant of the deadline": (
        b"\xffn\x0cHTTP/1.1 200 \x00\x00\x00\r\n\r\n2\r\na\n\xffb\x0c\xff~S\r\nab\xffb\x0c\xffb\x11\xfff\t\r\n\n"
        b"\xffb\x0c\xfft\x03b\xff`b\x0cHTTP/1.1 200 OK\r\nconxent-lengt\xfft\x03b\xfff\x05\xffe\xffc\x1a"
    ),
    "a coding in the trailer": CHUNKED + b"2\r\nab\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n" + NEXT + OK,
}  # fmt: skip
