"""Answers cut anywhere on their way are the same answers, and a lie is never another call's answer."""

import itertools
import time

import attrs
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure
from tests.evil import Evil, Peer
from tests.examples import examples
from tests.integration.transport.conftest import HEAD, MEGABYTE, POST, MakeUpstream, phases, until

pytestmark = pytest.mark.anyio

some = examples(15, 200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
CUTS = st.lists(st.integers(0, 400), max_size=6)
EARLY = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({at for at in cuts if 0 < at < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


def chunks(body: bytes, cuts: list[int]) -> bytes:
    return b"".join(b"%X;e=1\r\n%s\r\n" % (len(piece), piece) for piece in cut(body, cuts))


@attrs.define
class Play:
    """What the server says to each request: the pieces of an answer, each in a packet of its own."""

    answers: list[tuple[list[bytes], bool]]
    """Pieces, and whether it then closes."""
    said: int = 0

    def script(self, peer: Peer) -> None:
        while peer.request() is not None:
            pieces, closes = self.answers[len(peer.server.requests) - 1]
            try:
                for piece in pieces:
                    peer.send(piece)
                    time.sleep(0.0005)
            finally:
                self.said += 1  # also if the client has left, as it should
            if closes:
                return


@given(answers=st.lists(st.tuples(st.binary(max_size=150), CUTS, CUTS, st.booleans()), min_size=1, max_size=4))
@some
async def test_chunked_answers_are_the_same_in_all_splittings(
    upstream: MakeUpstream, answers: list[tuple[bytes, list[int], list[int], bool]]
) -> None:
    """Chunks of any size, cut also within sizes, names and trailers, after a 1xx or not: all over one connection."""
    ends = b"0\r\nTrailer: x\r\n\r\n"
    play = Play(
        [
            (cut((EARLY if early else b"") + CHUNKED + chunks(body, sizes) + ends, cuts), False)
            for body, sizes, cuts, early in answers
        ]
    )
    with Evil(play.script) as server:
        client = upstream(server.origin)
        for body, _, _, _ in answers:
            exchange = await client.open(POST, phases(), Abort())
            assert exchange.status == 200
            assert await exchange.read(MEGABYTE) == body
            assert b"trailer" not in dict(exchange.headers)
        assert server.connections == 1
        await client.close()


@attrs.frozen
class Lie:
    """An answer, and what may come of it: the body that it announced, or one of the faults."""

    wire: bytes
    body: bytes | None
    faults: tuple[Fault, ...] = ()
    closes: bool = False


def lies(own: bytes) -> dict[str, Lie]:
    """Each kind, around the body ``own``; and three that are none."""
    length = HEAD + b"content-length: %d\r\n\r\n"
    foreign = (length % 7) + b"foreign"
    protocol, reset = (Fault.PROTOCOL,), (Fault.RESET,)
    return {
        "none": Lie((length % len(own)) + own, own),
        "none, in chunks": Lie(EARLY + CHUNKED + chunks(own, [2, 3]) + b"0\r\n\r\n", own),
        "none, until the end": Lie(HEAD + b"\r\n" + own, own, closes=True),
        "too long a length": Lie((length % (len(own) + 1)) + own, None, reset, closes=True),
        "too short a length": Lie((length % (len(own) - 1)) + own, own[:-1], protocol),
        "a second answer": Lie((length % len(own)) + own + foreign, own, protocol),
        "a second answer after chunks": Lie(CHUNKED + chunks(own, []) + b"0\r\n\r\n" + foreign, own, protocol),
        "a chunk too long": Lie(CHUNKED + b"2\r\n" + own + b"\r\n0\r\n\r\n" + foreign, None, protocol),
        "no last chunk": Lie(CHUNKED + chunks(own, []), None, reset, closes=True),
        "a body of a 1xx": Lie(
            b"HTTP/1.1 150 X\r\ncontent-length: 7\r\n\r\nforeign" + (length % len(own)) + own, None, protocol
        ),
    }


@given(told=st.lists(st.tuples(st.sampled_from(tuple(lies(b"own"))), CUTS), min_size=2, max_size=6))
@some
async def test_s4_after_any_lie_each_call_still_gets_its_own_answer(
    upstream: MakeUpstream, told: list[tuple[str, list[int]]]
) -> None:
    """Honest answers and lies about length in any order, cut anywhere: one's own answer, or none."""
    all_told = [lies(b"own-%d" % number)[kind] for number, (kind, _) in enumerate(told)]
    play = Play([(cut(one.wire, cuts), one.closes) for one, (_, cuts) in zip(all_told, told, strict=True)])
    with Evil(play.script) as server:
        client = upstream(server.origin)
        for number, one in enumerate(all_told):
            try:
                exchange = await client.open(POST, phases(), Abort())
                assert await exchange.read(MEGABYTE) == one.body
            except UpstreamFailure as failure:
                assert failure.sent  # noqa: PT017 - some may be answered or refused
                assert failure.fault in one.faults, one  # noqa: PT017
            await until(lambda said=number + 1: play.said == said)  # type: ignore[misc]
        assert len(server.requests) == len(all_told)
        await client.close()
