"""
What does one chunk of a streamed chat completion say?

Rule 1: only what is charged, counted or watched is decoded.
Rule 2: whatever is valid JSON but of another shape counts as content whole; what is no JSON object is no chunk.
"""

from operator import itemgetter
from typing import Any

import msgspec

from perpetuo.adapters.dialects.openai_answers import Said, other_output


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: Said | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | str | None = None


_CHUNK = msgspec.json.Decoder(Chunk)
_ANY = msgspec.json.Decoder()
_FIRST, _LAST = itemgetter(0), itemgetter(-1)
_OPENING, _CLOSING = {ord("{")}, {ord("}")}


def decode_plain(block: bytes) -> list[Chunk] | None:
    """
    Decode a block of one-line ``data: {…}`` events at once; ``None`` when it is anything else.

    Exact: in JSON a ``}`` is never followed by ``{`` inside a value, so when every event begins and ends with
    a brace, has no line end, and there are as many values as events, each event is one value.
    """
    if not block.startswith(b"data: "):
        return None
    events = block[6:-2].split(b"\n\ndata: ")
    if b"\n" in b"".join(events):
        return None
    try:
        if set(map(_FIRST, events)) != _OPENING or set(map(_LAST, events)) != _CLOSING:
            return None
        if not block.isascii():
            block.decode()
        chunks = _CHUNK.decode_lines(b"\n".join(events))
    except (IndexError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return chunks if len(chunks) == len(events) else None


def decode(data: bytes) -> Chunk | None:
    """One event's chunk; ``None`` when it is not a JSON object."""
    try:
        data.decode()
        chunk = _CHUNK.decode(data)
    except msgspec.ValidationError:
        return _decode_odd(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _decode_odd(data) if chunk.choices is None else chunk


def _decode_odd(data: bytes) -> Chunk | None:
    """
    ``None`` unless it is a JSON object.

    One of unexpected shape counts as content whole; finish, usage and error are read as far as they are clear.
    """
    try:
        found = _ANY.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    given, usage = found.get("choices"), found.get("usage")
    listed = [choice for choice in given if isinstance(choice, dict)] if isinstance(given, list) else []
    choices = [_Choice(_index(choice), None, "stop") for choice in listed if choice.get("finish_reason")]
    if given or usage is None:
        choices.append(_Choice(delta=Said(content="x" * len(data))))
    failed = found.get("error") or found.get("object") == "error"
    return Chunk(choices, usage if isinstance(usage, dict) else None, "error" if failed else None)


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if type(index) is int else 0


def only_text(chunks: list[Chunk]) -> str | None:
    """The text of a single event that says nothing else."""
    if len(chunks) != 1 or chunks[0].usage is not None or not chunks[0].choices or len(chunks[0].choices) != 1:
        return None
    choice = chunks[0].choices[0]
    if choice.finish_reason or choice.delta is None or other_output(choice.delta):
        return None
    return choice.delta.content
