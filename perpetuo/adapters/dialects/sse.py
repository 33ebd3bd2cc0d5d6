"""
What does a stream of chat completion chunks say, and what of it goes to the client?

    reading --`[DONE]`-->                          DONE
    reading --an event that is not JSON-->         MALFORMED
    reading --an event that is an error-->         ERROR
    reading --an event beyond the size limit-->    TOO_LARGE

Rule 1: bytes may arrive in any splitting; lines end in LF, CRLF or CR (WHATWG server-sent events).
Rule 2: only whole, checked events go on, as ``data: …`` and a blank line. Comments become one of our own.
Rule 3: after a verdict nothing goes on any more; what stood before it in the same bytes does.
Rule 4: the usage chunk goes only to clients that asked for it.
"""

from enum import Enum
from operator import itemgetter
from typing import Any

import msgspec

from perpetuo.adapters.dialects.openai_answers import read_usage, text_bytes
from perpetuo.domain.model.upstream import Ending
from perpetuo.domain.model.usage import Usage

EVENT_BYTES = 1024 * 1024
"""Largest event we hold while it is incomplete."""
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive"
_BOM = b"\xef\xbb\xbf"


class Verdict(Enum):
    """Why a stream needs no further reading."""

    DONE = "done"
    MALFORMED = "malformed"
    ERROR = "error"
    TOO_LARGE = "too_large"


class EventSplitter:
    """Cuts bytes, however they arrive, into blocks of whole events with LF line ends."""

    def __init__(self, limit: int = EVENT_BYTES) -> None:
        self._limit = limit
        self._tail = bytearray()
        self._started = False
        self._after_cr = False
        self.too_large = False

    def feed(self, data: bytes) -> bytes:
        """The whole events that ``data`` completes, each with its blank line."""
        if not self._started:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        cut = data.rfind(b"\n\n")
        if cut >= 0:
            block = bytes(self._tail) + data[: cut + 2]
            self._tail[:] = data[cut + 2 :]
        elif self._tail.endswith(b"\n") and data.startswith(b"\n"):
            block = bytes(self._tail) + b"\n"
            self._tail[:] = data[1:]
        else:
            block = b""
            self._tail += data
        self.too_large = len(self._tail) > self._limit
        return block

    def rest(self) -> bytes:
        """What never became a whole event."""
        return bytes(self._tail)

    def _without_bom(self, data: bytes) -> bytes:
        # a mark split over two reads is waited for
        data = bytes(self._tail) + data
        self._tail.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._tail += data
            return b""
        self._started = True
        return data.removeprefix(_BOM)

    def _with_lf(self, data: bytes) -> bytes:
        """CRLF and CR as LF; a CR at the end counts at once, and an LF that follows it later is its second half."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


# --- chunks --------------------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | str | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_ANY = msgspec.json.Decoder()
_FIRST, _LAST = itemgetter(0), itemgetter(-1)
_OPENING, _CLOSING = {ord("{")}, {ord("}")}


class ChatStreamReader:
    """Reads one stream. ``choices``: how many answers were asked for; ``wants_usage``: did the client?"""

    def __init__(self, *, choices: int = 1, wants_usage: bool = False, limit: int = EVENT_BYTES) -> None:
        self._splitter = EventSplitter(limit)
        self._choices = choices
        self._wants_usage = wants_usage
        self._finished: set[int] = set()
        self._usage_of_one = False
        self.started = False
        """Has an event with data arrived?"""
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.verdict: Verdict | None = None
        self.error: bytes = b""
        """The data of the error event."""

    def feed(self, data: bytes) -> bytes:
        """What can go to the client now."""
        if self.verdict is not None:
            return b""
        block = self._splitter.feed(data)
        out = self._read(block) if block else b""
        if self._splitter.too_large:
            self._stop(Verdict.TOO_LARGE)
        return out

    def _stop(self, verdict: Verdict) -> None:
        if self.verdict is None:
            self.verdict = verdict

    def end(self) -> Ending:
        """The stream has ended cleanly, or its verdict was DONE or MALFORMED: how is that to be taken?"""
        if self.verdict is None and self._splitter.rest().strip() in (b"data: [DONE]", b"data:[DONE]"):
            self.verdict = Verdict.DONE  # its blank line was forgotten
        match self.verdict:
            case Verdict.DONE:
                return Ending.COMPLETE
            case Verdict.MALFORMED:
                return Ending.MALFORMED
            case _:
                return Ending.COMPLETE if len(self._finished) >= self._choices else Ending.TRUNCATED

    def _read(self, block: bytes) -> bytes:
        done = block.endswith(DONE)
        body = block[: -len(DONE)] if done else block
        chunks = _plain(body) if body else []
        hidden = self._note(chunks) if chunks is not None else None
        if hidden is None:
            return self._read_each(block)
        self.started = True
        if done:
            self.verdict = Verdict.DONE
        return _without(body, hidden) if hidden else body

    def _note(self, chunks: list[_Chunk]) -> list[int] | None:
        """
        Take note of what ``chunks`` say; returns the places of those that are not for the client.

        ``None``, and nothing noted, when one of them is an error or may be one.
        """
        hidden: list[int] = []
        finished: list[int] = []
        reports: list[_Chunk] = []
        size = 0
        for place, chunk in enumerate(chunks):
            if chunk.choices is None or chunk.error is not None:
                return None
            for choice in chunk.choices:
                delta = choice.delta
                if delta is not None:
                    content = delta.content
                    if content is not None:
                        size += len(content) if content.isascii() else len(content.encode())
                    if (
                        delta.tool_calls is not None
                        or delta.reasoning_content is not None
                        or delta.reasoning is not None
                        or delta.refusal is not None
                        or delta.function_call is not None
                    ):
                        size += _other_output(delta)
                if choice.finish_reason:
                    finished.append(choice.index)
            if chunk.usage is not None:
                reports.append(chunk)
                if not (chunk.choices or self._wants_usage):
                    hidden.append(place)
        self.output_bytes += size
        self._finished.update(finished)
        self._note_usage(reports)
        return hidden

    def _note_usage(self, reports: list[_Chunk]) -> None:
        """The latest report counts; but llama.cpp reports on each of several answers, and those add up."""
        for chunk in reports:
            found = read_usage(chunk.usage)
            if found is None:
                continue
            of_one = self._choices > 1 and not chunk.choices
            before = self.usage if of_one and self._usage_of_one else None
            if before is not None:
                tokens = max(before.input_tokens, found.input_tokens)
                found = Usage(tokens, before.output_tokens + found.output_tokens, before.cached_tokens)
            self.usage, self._usage_of_one = found, of_one

    def _read_each(self, block: bytes) -> bytes:
        out = []
        for event in block.split(b"\n\n"):
            data, own = _fields(event)
            if data:
                self.started = True
                if not self._take(data):
                    own = b""
            if own:
                out.append(own + b"\n\n")
            if self.verdict is not None:
                break
        return b"".join(out)

    def _take(self, data: bytes) -> bool:
        """Take note of one event's data. Is it for the client?"""
        chunk = _decode(data)
        if chunk is None:
            self.verdict = Verdict.DONE if data == b"[DONE]" else Verdict.MALFORMED
            return False
        hidden = self._note([chunk])
        if hidden is None:
            self.verdict, self.error = Verdict.ERROR, data
        return hidden == []


def _other_output(delta: _Delta) -> int:
    """Bytes beside the content that can have been output tokens."""
    size = 0
    if delta.reasoning_content is not None:
        size += text_bytes(delta.reasoning_content)
    if delta.reasoning is not None:
        size += text_bytes(delta.reasoning)
    if delta.refusal is not None:
        size += text_bytes(delta.refusal)
    if delta.tool_calls is not None:
        size += sum(_function_bytes(call.function) for call in delta.tool_calls)
    if delta.function_call is not None:
        size += _function_bytes(delta.function_call)
    return size


def _function_bytes(function: _Function | None) -> int:
    return 0 if function is None else text_bytes(function.name) + text_bytes(function.arguments)


def _plain(block: bytes) -> list[_Chunk] | None:
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


def _without(block: bytes, hidden: list[int]) -> bytes:
    events = block[:-2].split(b"\n\n")
    return b"".join([event + b"\n\n" for place, event in enumerate(events) if place not in hidden])


def _fields(event: bytes) -> tuple[bytes, bytes]:
    """The data of an event (empty: it has none), and the event as it goes on."""
    data: list[bytes] = []
    comment = b""
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name in (b"data", b"error"):  # `error:` is how older llama.cpp servers say it
            data.append(value.removeprefix(b" "))
        elif line.startswith(b":"):
            comment = COMMENT
    # line ends in the data can only be spacing: a JSON string has none
    return (b"\n".join(data), b"data: " + b" ".join(data)) if any(data) else (b"", comment)


def _decode(data: bytes) -> _Chunk | None:
    """One event's chunk; ``None`` when it is not a JSON object."""
    try:
        data.decode()
        chunk = _CHUNK.decode(data)
    except msgspec.ValidationError:
        return _decode_odd(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _decode_odd(data) if chunk.choices is None else chunk


def _decode_odd(data: bytes) -> _Chunk | None:
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
        choices.append(_Choice(delta=_Delta(content="x" * len(data))))
    failed = found.get("error") or found.get("object") == "error"
    return _Chunk(choices, usage if isinstance(usage, dict) else None, "error" if failed else None)


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if type(index) is int else 0
