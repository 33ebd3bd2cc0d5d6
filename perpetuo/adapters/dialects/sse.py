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

from perpetuo.adapters.dialects.alike import Frame
from perpetuo.adapters.dialects.chunks import Chunk, decode, decode_plain, only_text
from perpetuo.adapters.dialects.openai_answers import other_output, read_usage
from perpetuo.domain.model.upstream import Ending
from perpetuo.domain.model.usage import Usage

EVENT_BYTES = 1024 * 1024
"""Largest event we hold while it is incomplete."""
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive"
TRIES = 4
"""Events looked at for what a stream's events have in common, and misses until it is not looked for any more."""
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


class ChatStreamReader:
    """Reads one stream. ``choices``: how many answers were asked for; ``wants_usage``: did the client?"""

    def __init__(self, *, choices: int = 1, wants_usage: bool = False, limit: int = EVENT_BYTES) -> None:
        self._splitter = EventSplitter(limit)
        self._choices = choices
        self._wants_usage = wants_usage
        self._finished: set[int] = set()
        self._usage_of_one = False
        self._frame: Frame | None = None
        self._learning = TRIES
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
        """Events alike go together, then those up to the next that may be; what is odd goes one by one."""
        done = block.endswith(DONE)
        body = block[: -len(DONE)] if done else block
        out, at = [], 0
        while at < len(body):
            end, size = self._frame.run(body, at) if self._frame else (at, 0)
            if end > at:
                self.output_bytes += size
                self._learning = TRIES
                out.append(body[at:end])
            else:
                end = self._part(body, at)
                part = body[at:end]
                own = self._read_plain(part)
                if own is None:
                    return b"".join(out) + self._read_each(block[at:])
                out.append(own)
            at = end
            self.started = True
        self.started = True  # also by a lone end
        if done:
            self.verdict = Verdict.DONE
        return out[0] if len(out) == 1 else b"".join(out)

    def _part(self, body: bytes, at: int) -> int:
        """Where to stop decoding: after one event while there is a frame to be learned, else before one that fits."""
        if self._frame is None:
            end = body.find(b"\n\n", at) + 2 if self._learning else 0
            return end if end > 1 else len(body)
        if body.startswith(self._frame.before, at):
            self._learning -= 1  # it does not fit after all
            if self._learning <= 0:
                self._frame = None
                return len(body)
        next_one = body.find(self._frame.before, at + 1)
        return next_one if next_one > 0 and body.startswith(b"\n\n", next_one - 2) else len(body)

    def _read_plain(self, part: bytes) -> bytes | None:
        """Decode one-line events; ``None``, and nothing noted, when one is odd."""
        chunks = decode_plain(part)
        hidden = self._note(chunks) if chunks is not None else None
        if chunks is None or hidden is None:
            return None
        if self._frame is None and self._learning:
            self._learning -= 1
            text = only_text(chunks)
            self._frame = Frame.of(part, text) if text else None
            if self._frame is not None:
                self._learning = TRIES
        return _without(part, hidden) if hidden else part

    def _note(self, chunks: list[Chunk]) -> list[int] | None:
        """
        Take note of what ``chunks`` say; returns the places of those that are not for the client.

        ``None``, and nothing noted, when one of them is an error or may be one.
        """
        hidden: list[int] = []
        finished: list[int] = []
        reports: list[Chunk] = []
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
                        size += other_output(delta)
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

    def _note_usage(self, reports: list[Chunk]) -> None:
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
        chunk = decode(data)
        if chunk is None:
            self.verdict = Verdict.DONE if data == b"[DONE]" else Verdict.MALFORMED
            return False
        hidden = self._note([chunk])
        if hidden is None:
            self.verdict, self.error = Verdict.ERROR, data
        return hidden == []


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
