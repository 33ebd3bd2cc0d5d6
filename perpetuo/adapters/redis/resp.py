"""
How is a command written down for Redis (RESP, bulk strings)?

Most are packed by hiredis, in C. A call's two scripts have some forty parts, of which thirty are the same for every
call under the same limits: those are written down once, as `Bulks`, and spliced in (2 µs a script; packing all: 4).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import attrs
import hiredis


@attrs.frozen
class Bulks:
    """Several parts of a command, written down beforehand."""

    count: int
    packed: bytes = attrs.field(repr=False)

    @classmethod
    def of(cls, *parts: object) -> Self:
        found = [_bytes(part) for part in parts]
        return cls(len(found), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in found]))


def pack(command: Sequence[Any]) -> bytes:
    """A command as bytes."""
    if Bulks in map(type, command):
        return _spliced(command)
    return hiredis.pack_command(tuple(command))  # type: ignore[no-any-return]


def _spliced(command: Sequence[Any]) -> bytes:
    out, count = [b""], 0
    for part in command:
        if part.__class__ is Bulks:
            out.append(part.packed)
            count += part.count
        else:
            raw = part if part.__class__ is bytes else str(part).encode()
            out.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
            count += 1
    out[0] = b"*%d\r\n" % count
    return b"".join(out)


def _bytes(part: object) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


def counted(parts: Iterable[Any]) -> int:
    """How many parts of a command these are."""
    return sum([part.count if part.__class__ is Bulks else 1 for part in parts])
