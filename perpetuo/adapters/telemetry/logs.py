"""
How does a line get into the log?

Rule 1: a field that is not in `FIELDS` is not written, whoever passed it; only its name is. Free text is cut and
scrubbed of what looks like a credential. Prompts, outputs and secrets have no field. (A5)
Rule 2: an exception is written as its type and where it happened, never with its message, which may quote anything.
Of other libraries' messages only the first line is written.
Rule 3: writing never blocks the event loop: a thread writes what has gathered, some lines at once. When the reader is
too slow, lines are dropped and their number is written.
Rule 4: JSON, one object a line, when a program reads; aligned text when a person does, a list of problems each on a
line of its own.
"""

import atexit
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import PurePath
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

import msgspec

from perpetuo.adapters.system import RealSystem

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
GATHER_SECONDS = 0.02
MOST_WAITING = 20_000
MOST_CHARACTERS = 500
FRAMES = 12

FIELDS = frozenset({
    # a call
    "request_id", "trace_id", "tenant", "key", "model", "provider", "status", "outcome", "error_code", "attempts",
    "input_tokens", "output_tokens", "cost_usd", "latency_ms", "overhead_ms", "first_token_ms", "idempotency",
    # what an operator has to know
    "action", "actor", "address", "admin_key", "advice", "cause", "charged_usd", "client_ip", "config", "count",
    "curl", "day", "detail", "drain_seconds", "dropped", "error", "error_type", "event_id", "failures", "file",
    "generation", "held_usd", "host", "in_flight", "key_name", "kind", "level", "limit", "logger", "loop", "meaning",
    "message", "method", "models", "name", "path", "period", "pid", "port", "problem", "problems", "providers",
    "reason", "repeated", "restarts", "seconds", "see", "shard", "signal", "state", "store", "swapped", "tenants",
    "until", "url", "usd", "version", "where", "worker", "workers",
})  # fmt: skip
"""Every name a line may have, besides time, level and event."""

_CREDENTIAL = re.compile(r"\b(?:sk|pk|rk)-[\w-]{6,}|(?i:bearer|basic)\s+[\w.~+/=-]{6,}|(?<=://)[^/\s@]+@")
_HIDDEN = "[hidden]"
_MADE_TO_BE_SHOWN = frozenset({"admin_key", "curl"})
"""Values an operator asked for by starting without a key of their own: scrubbing would hide the point."""
_COLUMN = 16

_encode = msgspec.json.Encoder().encode


class Writer:
    """Writes lines to a stream from a thread of its own."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def full(self) -> bool:
        """Has the reader fallen too far behind?"""
        return self._lines.qsize() >= MOST_WAITING

    def put(self, line: bytes) -> None:
        self._lines.put(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self, seconds: float = 2.0) -> None:
        """Write what is waiting, for at most so long."""
        self._closing.set()
        self._lines.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        more = True
        while more:
            batch = [self._lines.get()]
            self._closing.wait(GATHER_SECONDS)
            try:
                while True:
                    batch.append(self._lines.get_nowait())
            except Empty:
                pass
            more = None not in batch
            self._write(b"".join(line for line in batch if line is not None))

    def _write(self, text: bytes) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # whoever read the log has gone; there is nowhere left to say so


class Log:
    """``log.line("info", "ready", {"port": 3000})``."""

    def __init__(
        self, writer: Writer, level: str, form: str, now_us: Callable[[], int], worker: int | None = None
    ) -> None:
        self._writer = writer
        self._threshold = LEVELS[level]
        self._render = _as_json if form == "json" else _as_text
        self._now_us = now_us
        self._worker = worker
        self._dropped = 0

    def enabled(self, level: str) -> bool:
        return LEVELS.get(level, LEVELS["error"]) >= self._threshold

    def line(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line of fields from anywhere; they are checked."""
        if self.enabled(level):
            self.trusted(level, event, checked(fields))

    def trusted(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line whose fields are known to be fit."""
        if self._writer.full():
            self._dropped += 1
            return
        now_us = self._now_us()
        if self._dropped:
            self._writer.put(self._render(now_us, "warning", "log_lines_dropped", {"count": self._dropped}))
            self._dropped = 0
        if self._worker is not None:
            fields = {**fields, "worker": self._worker}
        self._writer.put(self._render(now_us, level, event, fields))

    def close(self) -> None:
        self._writer.close()


class Handler(logging.Handler):
    """Standard library logging, ours and other libraries', through the same rules."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower() if record.levelname.lower() in LEVELS else "error"
        if not self._log.enabled(level):
            return
        fields: dict[str, Any] = {"logger": record.name, "message": _first_line(record)}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error_type"] = record.exc_info[0].__qualname__
            fields["where"] = _where(record.exc_info[1])
        self._log.line(level, "log", fields)


def open_log(level: str, form: str, stream: BinaryIO | None = None, worker: int | None = None) -> Log:
    """
    The process's log, to standard error unless told otherwise; standard library logging goes there too.

    ``worker``: the number that its lines carry, if any.
    """
    log = Log(Writer(stream or sys.stderr.buffer), level, form, RealSystem().now_us, worker)
    root = logging.getLogger()
    root.handlers = [Handler(log)]
    root.setLevel(LEVELS[level])
    return log


# --- what may be written -------------------------------------------------------------------------


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` without what has no business in a log; names that were refused are listed under ``dropped``."""
    good = {name: _fit(name, value) for name, value in fields.items() if name in FIELDS}
    refused = sorted(name for name in fields if name not in FIELDS)
    return {**good, "dropped": [name[:40] for name in refused]} if refused else good


def _fit(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | msgspec.Raw):
        return value
    if isinstance(value, str):
        return value[:MOST_CHARACTERS] if name in _MADE_TO_BE_SHOWN else scrubbed(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_fit(name, item) for item in list(value)[:50]]
    if isinstance(value, Decimal | PurePath):
        return scrubbed(str(value))
    return type(value).__qualname__  # what its text would hold, nobody knows


def scrubbed(text: str) -> str:
    """Free text without credentials, cut to a readable length."""
    return _CREDENTIAL.sub(_HIDDEN, text[: 2 * MOST_CHARACTERS])[:MOST_CHARACTERS]


def _first_line(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string of somebody else's
        message = str(record.msg)
    return message.split("\n", 1)[0]


def _where(error: BaseException | None) -> list[str]:
    """Where it happened, innermost last, causes first: no messages, no values."""
    lines: list[str] = []
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f"{f.filename}:{f.lineno} {f.name}" for f in frames[-FRAMES:]] + lines
        error = error.__cause__ or error.__context__
        if error is not None:
            lines.insert(0, f"after {type(error).__qualname__}")
    return lines[:50]


# --- how it looks --------------------------------------------------------------------------------


def _as_json(now_us: int, level: str, event: str, fields: Mapping[str, Any]) -> bytes:
    return _encode({"time": _time(now_us), "level": level, "event": event, **fields}) + b"\n"


def _as_text(now_us: int, level: str, event: str, fields: Mapping[str, Any]) -> bytes:
    below = [problem for problem in fields.get("problems") or () if " " in problem]
    inline = {**fields, "problems": ()} if below else fields
    pairs = " ".join(f"{name}={_plain(value)}" for name, value in inline.items() if value not in (None, "", [], ()))
    lines = [f"{_time(now_us)[11:23]} {level:<7} {event:<{_COLUMN}} {pairs}".rstrip()]
    lines += [f"    {problem if problem.isprintable() else _plain(problem)}" for problem in below]
    return "\n".join(lines).encode(errors="replace") + b"\n"


def _plain(value: Any) -> str:
    """A value for people: quoted when it has blanks or anything a terminal might obey."""
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if isinstance(value, str) and value.isascii() and value.isprintable() and not {" ", '"', "="} & set(value):
        return value
    if isinstance(value, str) and value.isprintable():
        return f'"{value}"'
    return _encode(value).decode()


def _time(now_us: int) -> str:
    seconds, rest = divmod(now_us, 1_000_000)
    return f"{_second(seconds)}.{rest // 1_000:03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
