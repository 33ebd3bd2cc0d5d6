"""
How is a fuzzer's input read as a play of a server, its network and the callers?

Bytes are what the server says, until ``\\xff`` and a letter: that is a step. What else follows ``\\xff`` is said like
any other byte, so every input is a play, also a plain answer of HTTP. A call is under way from the start.

| step | means |
|---|---|
| ``|`` | what was said so far arrives, and everybody does what it leads to |
| ``~`` | it arrives, and before anybody notices, something else does |
| ``n`` + byte | another call begins; the byte says how it is read (`Manner`) |
| ``c`` + byte | the server goes on with this one of its connections |
| ``r`` | slow readers take one piece |
| ``e``, ``x`` | the server closes, or resets |
| ``a`` + byte, ``k`` + byte | the abort of this call is fired, or its task is cancelled |
| ``t`` + byte | time passes |
| ``w`` | the network takes no more of what we write, or takes it again |
| ``b`` + byte | the server says this byte 16,384 times, or several times as often |
| ``z`` | the transport is closed |
| ``f`` + byte | the next connections are refused, not answered, or clogged |
"""

from collections.abc import Iterator

import attrs

PLAIN = b"|~rexwz"
WITH_BYTE = b"ncaktfb"


@attrs.frozen
class Say:
    """The server says this."""

    data: bytes


@attrs.frozen
class Step:
    """Something else happens; ``number`` is 0 for steps without a byte."""

    letter: str
    number: int = 0


def steps(data: bytes) -> Iterator[Say | Step]:
    """The play, step by step."""
    said = bytearray()
    at = 0
    while (mark := data.find(b"\xff", at)) >= 0:
        said += data[at:mark]
        letter = data[mark + 1 : mark + 2]
        if letter and letter in PLAIN:
            step, at = Step(letter.decode()), mark + 2
        elif letter and letter in WITH_BYTE and mark + 2 < len(data):
            step, at = Step(letter.decode(), data[mark + 2]), mark + 3
        else:
            said.append(0xFF)
            at = mark + 1
            continue
        if said:
            yield Say(bytes(said))
            said.clear()
        yield step
    said += data[at:]
    if said:
        yield Say(bytes(said))
