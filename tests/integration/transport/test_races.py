"""
What if the server closes an idle connection in the very moment in which we send?

Both transports look at the socket right before they use it. A connection that is dead by then has got nothing of the
request, so it is sent over another one, and nobody notices. One that dies under our first byte counts as sent, and is
not repeated.
"""

import asyncio
import random
from collections import Counter

import attrs
import pytest

from perpetuo.domain.model.upstream import Fault, UpstreamFailure
from tests.evil import OK, Evil, Peer, Script
from tests.integration.transport.conftest import POST, Certificates, MakeUpstream, call, left_by

pytestmark = pytest.mark.anyio

IDLE_S = 0.004


def impatient(goodbye: str) -> Script:
    """Answers with the end of the path, and leaves who says nothing for four milliseconds."""

    def script(peer: Peer) -> None:
        try:
            while (request := peer.request()) is not None:
                peer.send(OK[:-2] + request.split(b" ")[1][-2:])
                peer.sock.settimeout(IDLE_S)
        except TimeoutError:
            if goodbye == "reset":
                peer.reset()

    return script


@pytest.mark.parametrize("count", [80, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("goodbye", ["close", "reset", "tls"])
async def test_a_server_that_closes_as_we_send_gets_the_request_once_at_most(
    upstream: MakeUpstream, certificates: Certificates, goodbye: str, count: int
) -> None:
    """
    So many calls around its patience: answered, or a reset that counts as sent; each read once at most.

    After a pause in which it has left for certain, and we could know, a call is always answered.
    """
    dice = random.Random(4)
    ends: Counter[str] = Counter()
    tls = certificates.server("good") if goodbye == "tls" else None
    with Evil(impatient(goodbye), tls=tls, host="localhost" if tls else "127.0.0.1") as server:
        client = upstream(server.origin, tls=certificates.client()) if tls else upstream(server.origin)
        for number in range(count):
            if gone := dice.random() < 0.2:
                left_by(server)
            try:
                answer = await call(client, attrs.evolve(POST, path=b"/%03d" % number))
                assert answer == b"%02d" % (number % 100)
                ends["answered"] += 1
            except UpstreamFailure as failure:
                assert (failure.fault, failure.sent) == (Fault.RESET, True)  # noqa: PT017 - either is right
                assert not gone
                ends["reset"] += 1
            ends["gone"] += gone
            await asyncio.sleep(IDLE_S * dice.choice((0.0, 0.9, 1.0, 1.1, 1.5)))
        read = Counter(request.split(b" ")[1] for request in server.requests)
        connections = server.connections
    print(dict(ends), connections)
    assert set(read.values()) == {1}
    assert ends["answered"] >= ends["gone"] > count // 8
    assert connections >= ends["gone"]
