"""
How is a command written down for Redis (RESP, bulk strings)?

Most are packed by hiredis, in C. A call's two scripts have some forty parts, of which thirty are the same for every
call under the same limits: those are written down once, as `Bulks`, and spliced in (2 µs a script; packing all: 4).
"""

from collections.abc import Sequence
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
    packed: bytes = hiredis.pack_command(tuple(command))
    return packed


Blocks = Sequence[Bulks | Sequence[Any]]
"""Parts of a command: some written down beforehand, the others one after the other."""


def pack_call(verb: bytes, script: bytes, keys: Blocks, arguments: Blocks) -> bytes:
    """The call of a script (``EVAL``, ``EVALSHA``), whose keys are announced by their number."""
    named, names = _spliced(keys)
    told, further = _spliced(arguments)
    return b"*%d\r\n%b%b%b" % (3 + names + further, _parts((verb, script, names)), named, told)


def _spliced(blocks: Blocks) -> tuple[bytes, int]:
    """Parts of a command, and how many they are."""
    out, count = [], 0
    for block in blocks:
        if isinstance(block, Bulks):
            out.append(block.packed)
            count += block.count
        elif block:
            out.append(_parts(block))
            count += len(block)
    return b"".join(out), count


def _parts(parts: Sequence[Any]) -> bytes:
    """Without the line that says how many follow."""
    packed: bytes = hiredis.pack_command(tuple(parts))
    return packed[packed.index(b"\n") + 1 :]


def _bytes(part: object) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()
