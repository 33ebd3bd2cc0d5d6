"""
Does the transport keep its promises, whatever a server says and whenever somebody leaves?

`play` lets one input happen and judges all that came of it. It fails unless

1. calls end with an answer or an `UpstreamFailure`, whose ``sent`` is exact, and by their deadline at the latest;
2. an answer is what h11 reads out of the bytes that followed its own request, and no others, as soon as it is there;
3. a request is written once at most, on a connection whose answers so far ended cleanly, with nothing behind them;
4. nothing stays: no busy connection, task, timer or callback of an abort; and the loop had nothing to complain of.
"""

import asyncio

import attrs

from perpetuo.adapters.providers.transport.llhttp import LlhttpUpstream
from perpetuo.adapters.providers.transport.wire import Exchange, Headers, Phases, UpstreamRequest
from perpetuo.domain.model.upstream import Abort, Fault, UpstreamFailure
from tests.fuzz.network import FuzzLoop, Line
from tests.fuzz.reference import Reading, read
from tests.fuzz.script import Say, Step, steps

_MOST_CALLS = 6
_MOST_TURNS = 200
_TIMES = (0.1, 1.5, 6.0, 20.0, 100.0)
_DEADLINE_S = 60.0


@attrs.frozen
class Manner:
    """How a call asks and reads, from one byte."""

    byte: int

    @property
    def method(self) -> bytes:
        return (b"POST", b"HEAD", b"GET", b"POST")[self.byte & 3]

    @property
    def by_chunks(self) -> bool:
        return bool(self.byte & 4)

    @property
    def slowly(self) -> bool:
        """Takes a piece at each step ``r``."""
        return bool(self.byte & 8)

    @property
    def body(self) -> bytes:
        return b"x" * (200_000 if self.byte & 16 else 3)

    @property
    def limit(self) -> int:
        return 8 if self.byte & 32 else 1 << 20


@attrs.define(eq=False)
class Call:
    """One call, and what it came to."""

    number: int
    manner: Manner
    abort: Abort = attrs.field(factory=Abort)
    reader: asyncio.Event = attrs.field(factory=asyncio.Event)
    begun: float = 0.0
    ended: float = 0.0
    status: int = 0
    headers: Headers = ()
    body: bytes = b""
    whole: bool = False
    failure: UpstreamFailure | None = None
    task: "asyncio.Task[None] | None" = None

    async def run(self, upstream: LlhttpUpstream, loop: FuzzLoop) -> None:
        self.begun = loop.time()
        phases = Phases(connect=5.0, head=10.0, idle=10.0, deadline=self.begun + _DEADLINE_S)
        request = UpstreamRequest(self.manner.method, b"/%d" % self.number, (), self.manner.body)
        try:
            exchange = await upstream.open(request, phases, self.abort)
            self.status, self.headers = exchange.status, exchange.headers
            try:
                await self._read(exchange)
            finally:
                exchange.abort()  # what a caller owes who leaves before the end
            self.whole = True
        except UpstreamFailure as failure:
            self.failure = failure
        finally:
            self.ended = loop.time()

    def leave(self, *, by_abort: bool) -> None:
        """Its client has gone, or its task is cancelled."""
        if by_abort:
            self.abort.fire("client_gone")
        elif self.task is not None:
            self.task.cancel()

    async def _read(self, exchange: Exchange) -> None:
        if not self.manner.by_chunks and not self.manner.slowly:
            self.body = await exchange.read(self.manner.limit)
            return
        while True:
            if self.manner.slowly:
                await self.reader.wait()
                self.reader.clear()
            piece = await exchange.chunk()
            if piece is None:
                return
            assert piece, "an empty piece is no end"
            self.body += piece
            if len(self.body) > self.manner.limit:
                exchange.abort()


class Scene:
    """One play."""

    def __init__(self, loop: FuzzLoop) -> None:
        self.loop = loop
        self.upstream = LlhttpUpstream("http://provider", max_connections=3)
        self.calls: list[Call] = []
        self.line: Line | None = None
        self.closed = False

    async def play(self, data: bytes) -> None:
        await self._begin(0)
        for step in steps(data):
            match step:
                case Say(said):
                    self._say(said)
                case Step("~"):
                    pass
                case Step(letter, number):
                    await self._do(letter, number)
                    await self._settle()
        await self._settle()
        await self._run_out()

    def _say(self, said: bytes) -> None:
        if self.line is not None and self.line.is_open:
            self.line.say(said)

    async def _begin(self, byte: int) -> None:
        if len(self.calls) < _MOST_CALLS:
            call = Call(len(self.calls), Manner(byte))
            self.calls.append(call)
            call.task = self.loop.create_task(call.run(self.upstream, self.loop))
            await self._settle()
            self.line = next((line for line in self.loop.lines if _serves(line, call)), self.line)

    async def _do(self, letter: str, number: int) -> None:
        match letter:
            case "n":
                await self._begin(number)
            case "r":
                for call in self.calls:
                    call.reader.set()
            case "t":
                self.loop.pass_time(_TIMES[number % len(_TIMES)])
            case "b":
                self._say(bytes((number,)) * 16_384 * (1 + number % 24))
            case "z":
                self.closed = True
                await self.upstream.close()
            case "a" | "k":
                self.calls[number % len(self.calls)].leave(by_abort=letter == "a")
            case _:
                self._at_the_server(letter, number)

    def _at_the_server(self, letter: str, number: int) -> None:
        line = self.line if self.line is not None and self.line.is_open else None
        match letter:
            case "c" if self.loop.lines:
                self.line = self.loop.lines[number % len(self.loop.lines)]
            case "f":
                self.loop.dial_faults.append(("refused", "silent", "clogged", "")[number % 4])
            case "e" if line is not None:
                line.close_by_server()
            case "x" if line is not None:
                line.reset_by_server()
            case "w" if line is not None:
                line.clog_or_drain()

    async def _settle(self) -> None:
        """Let everybody do what there is to do now."""
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            if self.loop.is_quiet():
                return
        raise AssertionError("it does not come to rest")

    async def _run_out(self) -> None:
        """Everybody's time passes; slow readers hurry up."""
        for _ in range(_MOST_TURNS):
            if all(call.task is None or call.task.done() for call in self.calls):
                break
            self.loop.pass_time(5.0)
            for call in self.calls:
                call.reader.set()
            await self._settle()
        self._judge_calls()
        assert self.upstream.stats().busy == 0, "a slot is still taken"
        await self.upstream.close()
        await self._settle()
        assert self.upstream.stats().idle == 0, "a connection stayed in the pool"

    # Verdicts.

    def _judge_calls(self) -> None:
        for call in self.calls:
            assert call.task is not None
            assert call.task.done(), f"call {call.number} hangs"
            if not call.task.cancelled():
                call.task.result()
            if not call.manner.slowly:
                assert call.ended - call.begun <= _DEADLINE_S + 100.0, f"call {call.number} took too long"
            assert call.abort._callbacks == [], "an abort still knows its call"
            self._judge(call)
        for line in self.loop.lines:
            for turn in line.turns:
                reading = read(self.calls[turn.call].manner.method, bytes(turn.said), turn.closed)
                _agree(self.calls[turn.call], reading)
                _in_time(self.calls[turn.call], reading, turn.heard)
                assert reading.clean or reading.silent or turn is line.turns[-1], (
                    f"used again after {bytes(turn.said)!r}"
                )

    def _judge(self, call: Call) -> None:
        turns = [turn for line in self.loop.lines for turn in line.turns if turn.call == call.number]
        assert len(turns) <= 1, "sent twice"
        if call.failure is not None:
            assert call.failure.sent == bool(turns), f"sent is {call.failure.sent}: {call.failure}"
            stopped = call.abort.fired or self.closed or len(call.body) > call.manner.limit
            assert call.failure.fault is not Fault.ABORTED or stopped, "aborted by nobody"
        assert not call.status or turns, "an answer to nothing"


def _serves(line: Line, call: Call) -> bool:
    return bool(line.turns) and line.turns[-1].call == call.number


def _agree(call: Call, reading: Reading) -> None:
    """Is the answer, or what there was of it, what h11 says?"""
    if not call.status or reading.silent:
        return
    # h11 hands out this one value in lower case.
    headers = tuple((name, value.lower() if name == b"transfer-encoding" else value) for name, value in call.headers)
    assert (call.status, headers) == (reading.status, reading.headers), f"another head: {reading}"
    assert reading.body.startswith(call.body), f"another body: {reading}"
    if call.whole:
        assert reading.complete, f"not complete: {reading}"
        assert call.body == reading.body, f"another body: {reading}"


def _in_time(call: Call, reading: Reading, heard: float) -> None:
    """Nobody goes on waiting for what has come, or loses it again. What comes in the instant of a deadline is late."""
    fault = call.failure.fault if call.failure is not None else None
    lost = fault is Fault.RESET or (fault is Fault.TIMEOUT and heard < call.ended)
    assert not (lost and reading.complete), f"{call.failure}, though it was all there: {reading}"


def play(data: bytes) -> list[Call]:
    """Let it happen. Raises `AssertionError` when a promise is broken."""
    loop = FuzzLoop()
    try:
        scene = Scene(loop)
        loop.run_until_complete(scene.play(data))
        assert not asyncio.all_tasks(loop), "a task is left"
        assert loop.pending_timers() == 0, "a timer is left"
        assert loop.complaints == [], loop.complaints
    finally:
        _tear_down(loop)
    return scene.calls


def _tear_down(loop: FuzzLoop) -> None:
    """After a broken promise somebody may still wait."""
    for _ in range(20):
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        if not asyncio.all_tasks(loop):
            break
    loop.close()
