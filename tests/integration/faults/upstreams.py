"""
Upstreams that fail, each in its own way, behind one port: what a call gets goes by its model's name.

`FAULTS` is the table: what the upstream does, and what a client of a plain call and of a stream is told.
"""

import functools
import gzip
import re
import threading
import time
from collections.abc import Callable

import attrs

from perpetuo.domain.model.errors import Reason
from tests.evil import Peer
from tests.integration.gateway.test_upstreams import CHUNK_HEAD, EVENT, FINISH, GOOD, chunked, whole

Act = Callable[[Peer], bool | None]
"""Answers one request; true: the connection is good for another."""
ERROR, TIMEOUT, LIMITED = Reason.UPSTREAM_ERROR, Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_RATE_LIMITED


@attrs.frozen
class Fault:
    """
    ``plain`` and ``stream``: the reason a client is told; ``None``: a good answer.

    ``breaks``: the stream had begun, so its reason comes in an error event. ``long``: a busy machine may find the
    deadline first.
    """

    act: Act
    plain: Reason | None = ERROR
    stream: Reason | None = ERROR
    breaks: bool = False
    long: bool = False


class Upstreams:
    """The script of an `Evil`: each request is answered as its model says."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {name: fault.act for name, fault in FAULTS.items()}
        self.asked: list[tuple[str, float]] = []
        self._lock = threading.Lock()
        self.busy = 0
        """Requests that are being answered."""

    def __call__(self, peer: Peer) -> None:
        while (request := peer.request()) is not None:
            found = re.search(rb'"model":"([\w-]+)"', request)
            assert found
            name = found.group(1).decode()
            self.asked.append((name, time.monotonic()))
            if not self._act(name, peer):
                return

    def _act(self, name: str, peer: Peer) -> bool:
        with self._lock:
            self.busy += 1
        try:
            return bool(self.acts[name](peer))
        finally:
            with self._lock:
                self.busy -= 1


def complete(*arguments: bytes) -> Act:
    """One whole answer, as `whole` makes it; the connection stays."""

    def act(peer: Peer) -> bool:
        peer.send(whole(*arguments))
        return True

    return act


WELL = complete(GOOD)


def say(answer: bytes) -> Act:
    """Bytes, and the end of the connection."""
    return lambda peer: peer.send(answer)


def say_and_wait(answer: bytes, seconds: float = 60) -> Act:
    """Send this, then nothing until the client has gone."""

    def act(peer: Peer) -> None:
        if answer:
            peer.send(answer)
        peer.wait_gone(seconds)

    return act


def say_and_reset(answer: bytes) -> Act:
    def act(peer: Peer) -> None:
        if answer:
            peer.send(answer)
            peer.pause(0.1)
        peer.reset()

    return act


def say_twice(first: bytes, then: bytes) -> Act:
    """With a moment between, so that the first has gone on to the client."""

    def act(peer: Peer) -> None:
        peer.send(first)
        peer.pause(0.2)
        peer.send(then)

    return act


def late(seconds: float) -> Act:
    """A good answer, so much later."""

    def act(peer: Peer) -> bool:
        peer.pause(seconds)
        peer.send(whole(GOOD))
        return True

    return act


def drip(answer: bytes, gap: float) -> Act:
    """A byte at a time."""
    return lambda peer: peer.send_slowly((answer[i : i + 1] for i in range(len(answer))), gap)


def endless(head: bytes, size: int = 100 * 1024 * 1024) -> Act:
    """100 MB without a line's end."""

    def act(peer: Peer) -> None:
        peer.send(head)
        block = b"x" * 65_536
        for _ in range(size // len(block)):
            peer.send(block)

    return act


def refusal(status: bytes, *more: bytes) -> Act:
    return complete(b'{"error":{"message":"boom","code":"overloaded"}}', status, *more)


HALF = whole(GOOD)[:-20]


@functools.cache
def bomb() -> bytes:
    """64 MB in 64 kB; made when it is asked for, as every process of a run imports this module."""
    return gzip.compress(b" " * (64 * 1024 * 1024))


def bombed(*arguments: bytes) -> Act:
    def act(peer: Peer) -> bool | None:
        return complete(bomb(), *arguments)(peer)

    return act


FAULTS: dict[str, Fault] = {
    "reset-at-once": Fault(say_and_reset(b"")),
    "reset-in-the-answer": Fault(say_and_reset(HALF)),
    "reset-in-the-stream": Fault(say_and_reset(chunked(EVENT, end=False)), breaks=True),
    "close-at-once": Fault(say(b"")),
    "storm-500": Fault(refusal(b"500 Oops")),
    "storm-503": Fault(refusal(b"503 Busy")),
    "storm-529": Fault(refusal(b"529 Overloaded")),
    "limited": Fault(refusal(b"429 Slow down", b"retry-after: 600"), LIMITED, LIMITED),
    "silent": Fault(say_and_wait(b""), TIMEOUT, TIMEOUT),
    "silent-after-head": Fault(say_and_wait(CHUNK_HEAD), TIMEOUT, TIMEOUT),
    "late-first-byte": Fault(late(0.5), None, None),
    "stalls-in-the-stream": Fault(say_and_wait(chunked(EVENT, end=False)), TIMEOUT, TIMEOUT, breaks=True),
    "drips": Fault(drip(whole(GOOD), 0.2), TIMEOUT, TIMEOUT),
    "drips-a-stream": Fault(drip(chunked(EVENT, EVENT, FINISH), 0.2), TIMEOUT, TIMEOUT),
    "truncated": Fault(say(HALF)),
    "truncated-stream": Fault(say(chunked(EVENT, EVENT)), breaks=True),
    "malformed": Fault(complete(b'{"choices":[')),
    "malformed-event": Fault(say(chunked(EVENT, b"data: {half\n\n", FINISH)), breaks=True),
    "malformed-chunk": Fault(say_twice(chunked(EVENT, end=False), b"zz\r\n"), breaks=True),
    "too-long-a-length": Fault(say(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + GOOD)),
    "too-short-a-length": Fault(say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" + GOOD)),
    "header-injection": Fault(
        say(b"HTTP/1.1 200 OK\r\nx-request-id: a\nset-cookie: b=c\r\ncontent-length: 2\r\n\r\n{}")
    ),
    "gzip-bomb": Fault(bombed(b"200 OK", b"content-encoding: gzip")),
    "gzip-bomb-unannounced": Fault(bombed()),
    "line-of-100-mb": Fault(endless(b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"choices":"'), long=True),
    "event-of-100-mb": Fault(endless(CHUNK_HEAD + b"6400000\r\ndata: "), long=True),
    "header-of-100-mb": Fault(endless(b"HTTP/1.1 200 OK\r\nx-a: "), long=True),
    "no-usage": Fault(complete(b'{"choices":[{"message":{"content":"hello"}}]}'), None, None),
    "status-0": Fault(say(b"HTTP/1.1 0 Zero\r\ncontent-length: 2\r\n\r\nok")),
    "status-1000": Fault(say(b"HTTP/1.1 1000 Thousand\r\ncontent-length: 2\r\n\r\nok")),
    "redirect": Fault(say(b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")),
    "error-as-an-event": Fault(say(chunked(b'data: {"error":{"message":"boom"}}\n\n'))),
}
