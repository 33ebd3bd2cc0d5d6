"""
What does the transport run on while it is fuzzed?

An event loop whose time passes when told to, and connections that are lists of bytes: the same input gives the same
play, a thousand times a second.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

_ONE_READ = 65536
_REQUEST = re.compile(rb"[A-Z]+ /(\d+) HTTP/1\.1\r\n")


@attrs.define
class Turn:
    """One request on a connection, and what the server said from then on."""

    call: int
    said: bytearray = attrs.field(factory=bytearray)
    closed: bool = False
    """The server closed properly."""
    heard: float = 0.0
    """When the last of it arrived."""


class Line(asyncio.Transport):
    """The network's end of one connection; keeps what each side said."""

    def __init__(self, loop: "FuzzLoop", protocol: asyncio.Protocol, *, clogged: bool) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._waiting: list[bytes] = []
        self._reading = True
        self._clogged = clogged
        self._buffered = 0
        self._over = False
        self.ended = False
        """The server has closed, or the connection broke."""
        self.turns: list[Turn] = []

    # What the transport under test calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._over, "written after the end"
        request = _REQUEST.match(data)
        if request:
            self.turns.append(Turn(int(request[1])))
        assert self.turns, "the first bytes are no request"
        if self._clogged:
            self._buffered += len(data)
            if self._buffered > 65536:
                self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._flow)

    def is_closing(self) -> bool:
        return self._over

    def abort(self) -> None:
        self._end(None)

    # What the play does.

    @property
    def is_open(self) -> bool:
        return not self._over

    def say(self, data: bytes) -> None:
        self._waiting += [data[at : at + _ONE_READ] for at in range(0, len(data), _ONE_READ)]
        self._flow()

    def close_by_server(self) -> None:
        """A goodbye behind all that was said."""
        self._waiting.append(b"")
        self._flow()

    def reset_by_server(self) -> None:
        self._end(ConnectionResetError("reset"))

    def clog_or_drain(self) -> None:
        """The network takes nothing more, or all."""
        self._clogged = not self._clogged
        if not self._clogged and self._buffered:
            full = self._buffered > 65536
            self._buffered = 0
            if full and not self._over:
                self._protocol.resume_writing()

    def _flow(self) -> None:
        while self._waiting and self._reading and not self._over:
            data = self._waiting.pop(0)
            if self.turns:
                self.turns[-1].heard = self._loop.time()
            if data:
                if self.turns:
                    self.turns[-1].said += data
                self._protocol.data_received(data)
            else:
                self.ended = True
                if self.turns:
                    self.turns[-1].closed = True
                if not self._protocol.eof_received():
                    self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self._over:
            self._over = self.ended = True
            self._loop.call_soon(self._protocol.connection_lost, error)


class _NoFiles:
    """A selector of nothing, which never waits."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class FuzzLoop(asyncio.BaseEventLoop):
    """Time stands still until `pass_time`."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._selector = _NoFiles()
        self._now = 1000.0
        self.lines: list[Line] = []
        self.complaints: list[str] = []
        self.dial_faults: list[str] = []
        """What becomes of the next connections: ``refused``, ``silent``, ``clogged``."""
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._now

    def pass_time(self, seconds: float) -> None:
        self._now += seconds

    def is_quiet(self) -> bool:
        """Nobody but the caller has anything to do, unless time passes."""
        due = self._scheduled and self._scheduled[0].when() <= self._now
        return not self._ready and not due

    def pending_timers(self) -> int:
        return sum(not handle.cancelled() for handle in self._scheduled)

    # Less than asyncio's: what the transport asks for.
    async def create_connection(self, factory: Callable[[], Any], *_: Any) -> Any:  # type: ignore[override]
        await asyncio.sleep(0)
        fault = self.dial_faults.pop(0) if self.dial_faults else ""
        match fault:
            case "refused":
                raise ConnectionRefusedError("refused")
            case "silent":
                await self.create_future()
        protocol = factory()
        line = Line(self, protocol, clogged=fault == "clogged")
        self.lines.append(line)
        protocol.connection_made(line)
        await asyncio.sleep(0)
        return line, protocol

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no files."""

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")
