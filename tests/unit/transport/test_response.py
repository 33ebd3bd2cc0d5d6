"""A response means the same however its bytes are cut, and what is no clear response is refused."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.providers.transport.response import Cut, Malformed, ResponseReader
from perpetuo.adapters.providers.transport.wire import HEAD_BYTES, IDLE_S

HEAD = b"HTTP/1.1 200 OK\r\n"
BODIES = st.binary(max_size=200)
CUTS = st.lists(st.integers(0, 700), max_size=12)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


def read(pieces: list[bytes], method: bytes = b"POST", end: bool = False) -> tuple[ResponseReader, bytes]:
    reader = ResponseReader(method)
    body = b""
    for piece in pieces:
        reader.feed(piece)
        body += reader.take()
    if end:
        reader.end()
    return reader, body


def feed_all(reader: ResponseReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)


def chunked(body: bytes, cuts: list[int]) -> bytes:
    pieces = pieces_of(body, cuts)
    return b"".join(b"%x;e=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\n"


@given(body=BODIES, chunks=CUTS, cuts=CUTS, informational=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_chunked_answer_is_the_same_in_all_splittings(
    body: bytes, chunks: list[int], cuts: list[int], informational: bool
) -> None:
    """Cut anywhere, also within chunk sizes and header names: same status, headers and body, one end."""
    data = HEAD + b"X-Name: some value\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunked(body, chunks)
    if informational:
        data = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + data
    reader, got = read(pieces_of(data, cuts))
    assert reader.complete
    assert got == body
    assert reader.status == 200
    assert reader.headers == [(b"x-name", b"some value"), (b"transfer-encoding", b"Chunked")]
    assert reader.keep_s == IDLE_S


@given(body=BODIES, cuts=CUTS, framed=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_plain_answer_is_the_same_in_all_splittings(body: bytes, cuts: list[int], framed: bool) -> None:
    """With a length, or until the connection ends (then it is complete only at the end)."""
    head = HEAD + (b"content-length: %d\r\n" % len(body) if framed else b"") + b"a: b\r\n\r\n"
    reader, got = read(pieces_of(head + body, cuts), end=not framed)
    assert reader.complete
    assert got == body
    assert reader.keep_s == (IDLE_S if framed else 0.0)


@given(body=st.binary(min_size=1, max_size=100), cuts=CUTS, lost=st.integers(1, 400), as_chunks=st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_answer_cut_short_anywhere_is_never_complete(
    body: bytes, cuts: list[int], lost: int, as_chunks: bool
) -> None:
    """Whichever bytes are missing at its end, a framed answer is not taken for whole."""
    framing = b"transfer-encoding: chunked\r\n\r\n" if as_chunks else b"content-length: %d\r\n\r\n" % len(body)
    whole = HEAD + framing + (chunked(body, []) if as_chunks else body)
    with pytest.raises(Cut):
        read(pieces_of(whole[: max(0, len(whole) - lost)], cuts), end=True)


@given(extra=st.binary(min_size=1, max_size=50).filter(lambda extra: extra.strip(b"\r\n")), cuts=CUTS)
@settings(max_examples=100, deadline=None)
def test_bytes_after_the_end_are_refused(extra: bytes, cuts: list[int]) -> None:
    """A length that is too short, a second response: never mistaken for an answer to the next request."""
    with pytest.raises(Malformed):
        read(pieces_of(HEAD + b"content-length: 3\r\n\r\nabc" + extra, cuts))


@given(noise=st.binary(max_size=600), cuts=CUTS, start=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", HEAD + b"a: "]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused_but_nothing_else(noise: bytes, cuts: list[int], start: bytes) -> None:
    """No input makes the reader fail in any other way, or hand out a head that can't be represented."""
    reader = ResponseReader(b"POST")
    try:
        for piece in pieces_of(start + noise, cuts):
            reader.feed(piece)
        reader.end()
    except (Malformed, Cut):
        pass
    if reader.head_complete:
        assert 200 <= reader.status <= 599
        for name, value in reader.headers:
            assert name == name.lower()
            assert not set(name + value) & set(b"\r\n\0")


REFUSED = {
    "status 0": b"HTTP/1.1 000 No\r\n\r\n",
    "status 99": b"HTTP/1.1 99 No\r\n\r\n",
    "status 600": b"HTTP/1.1 600 No\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 No\r\n\r\n",
    "switched": b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxyz",
    "informational with a body": b"HTTP/1.1 150 X\r\ncontent-length: 5\r\n\r\nhello"
    + HEAD
    + b"content-length: 0\r\n\r\n",
    "informational in chunks": b"HTTP/1.1 199 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    + HEAD
    + b"\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "length and chunked": HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunked and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
    "two lengths": HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\n",
    "a length twice": HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\n",
    "list of lengths": HEAD + b"content-length: 3, 3\r\n\r\n",
    "signed length": HEAD + b"content-length: +3\r\n\r\n",
    "huge length": HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
    "chunked twice": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "gzip, chunked": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "identity coding": HEAD + b"transfer-encoding: identity\r\n\r\n",
    "encoded": HEAD + b"content-encoding: br\r\ncontent-length: 3\r\n\r\n",
    "folded": HEAD + b"a: b\r\n c\r\n\r\n",
    "bare LF": HEAD + b"a: b\nc: d\r\n\r\n",
    "bare CR": HEAD + b"a: b\rc: d\r\n\r\n",
    "NUL": HEAD + b"a: b\0c\r\n\r\n",
    "blank before colon": HEAD + b"a : b\r\n\r\n",
    "no name": HEAD + b": b\r\n\r\n",
    "chunk longer than said": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
    "chunk size with LF only": HEAD + b"transfer-encoding: chunked\r\n\r\n1\na\r\n",
    "length in the trailer": HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 3\r\n\r\n",
    "coding in the trailer": HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
    "chunked in the trailer": HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    "too many headers": HEAD + b"a: b\r\n" * 129 + b"\r\n",
    "too large a head": HEAD + b"a: %s\r\n\r\n" % (b"b" * HEAD_BYTES),
    "endless trailers": HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20_000,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("cuts", [[], list(range(300))], ids=["at once", "byte by byte"])
def test_s4_what_could_be_read_in_two_ways_is_refused(data: bytes, cuts: list[int]) -> None:
    """Each of these is refused, whole or byte by byte."""
    with pytest.raises(Malformed):
        read(pieces_of(data, cuts))


@pytest.mark.parametrize(
    "start",
    [b"HTTP/1.1 200 ", HEAD + b"a: ", HEAD + b"transfer-encoding: chunked\r\n\r\n1;", b"HTTP/1.1 102 P\r\n\r\n" * 9],
)
def test_s4_an_endless_line_is_refused_after_64_kib(start: bytes) -> None:
    """Reason phrase, header, chunk extension: memory stays constant."""
    reader = ResponseReader(b"POST")
    reader.feed(start)
    with pytest.raises(Malformed):
        feed_all(reader, [b"x" * 1024] * (2 * HEAD_BYTES // 1024))


def test_an_endless_row_of_informational_answers_is_refused() -> None:
    """1xx may come before the answer, but not for ever."""
    reader = ResponseReader(b"POST")
    with pytest.raises(Malformed):
        feed_all(reader, [b"HTTP/1.1 102 Processing\r\n\r\n"] * 10_000)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"connection: close", 0.0),
        (b"connection: keep-alive", IDLE_S),
        (b"keep-alive: timeout=5, max=100", 4.0),
        (b"keep-alive: timeout=1", 0.0),
        (b"keep-alive: timeout=600", IDLE_S),
        (b"keep-alive: timeout=nonsense", IDLE_S),
    ],
)
def test_a_connection_is_kept_no_longer_than_the_server_keeps_it(header: bytes, seconds: float) -> None:
    """A second of margin; our own bound above."""
    reader, _ = read([HEAD + header + b"\r\ncontent-length: 0\r\n\r\n"])
    assert reader.keep_s == seconds


def test_answers_without_a_body() -> None:
    """204, 304 and answers to HEAD end with their head, whatever length they announce."""
    for data, method in (
        (b"HTTP/1.1 204 N\r\n\r\n", b"POST"),
        (b"HTTP/1.1 304 N\r\ncontent-length: 3\r\n\r\n", b"GET"),
        (HEAD + b"content-length: 3\r\n\r\n", b"HEAD"),
        (HEAD + b"\r\n", b"HEAD"),
    ):
        reader, body = read([data], method)
        assert reader.complete
        assert body == b""
    with pytest.raises(Malformed):
        read([HEAD + b"content-length: 3\r\n\r\nabc"], b"HEAD")
