"""
How do many calls share a few connections to Redis, and what happens when it goes away?

    Connecting --greeted-->  Up
    Up         --a connection breaks, or an answer takes longer than the timeout-->  Connecting
    Connecting --the attempt fails-->  Down     (everything waiting fails now, everything new at once)
    Down       --an attempt in the background is greeted-->  Up

Rule 1: all commands of one turn of the event loop go out in one write, over the first of a few *lanes* that is free;
whoever asks while all are busy goes with the next write. (Measured: 19 µs a script at 64 at once, where a
connection from redis-py's pool for each takes 77.)
Rule 2: who waits for a reply may be cancelled at any time; the connection never notices.
Rule 3: a command whose connection broke is sent once more, if that can be answered within 1.5 timeouts of its first
sending; so everything sent here must be safe to repeat.
Rule 4: one broken lane makes the idle ones suspect too: they have to be greeted again before they carry anything.
Rule 5: a connection may outlive what it was greeted by (behind a proxy, or a server that became a replica): who asks
now and then who is there tells by `RedisStore.seen`, and connections greeted by another are replaced.
Rule 6: what was never handed to a connection fails with `NeverSent`; anything else that fails may have run.
Rule 7: who asks every shard waits for one future (`RedisStore.ask_each`): a task and a future for each of 16 commands
take more time than Redis and the network together.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from perpetuo.adapters.redis.connection import BROKEN, Endpoint, Link, NotReadyError
from perpetuo.adapters.redis.resp import Blocks, Bulks, pack, pack_call
from perpetuo.adapters.redis.scripts import Script
from perpetuo.domain.ports import NeverSent, StoreUnavailable

LANES = 2
FIRST_ATTEMPT = 0.3
"""Share of the timeout that a connection gets to come back while calls wait for it."""
BACKGROUND_TIMEOUT = 1.0
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.3)
"""Seconds between attempts while Redis is away; the last one repeats: back well within 2 s of its return."""
MAX_BATCH = 256


@attrs.define(eq=False, slots=True)
class _Together:
    """Several commands for whose replies somebody waits at once."""

    replies: "asyncio.Future[list[Any]]"
    found: list[Any]
    missing: int


@attrs.define(eq=False, slots=True)
class _Share:
    """One of them, in the place of a future of its own."""

    whole: _Together
    place: int

    def done(self) -> bool:
        return self.whole.replies.done()

    def set_result(self, reply: Any) -> None:
        whole = self.whole
        whole.found[self.place] = reply
        whole.missing -= 1
        if not whole.missing:
            whole.replies.set_result(whole.found)

    def set_exception(self, error: Exception) -> None:
        """The first to fail fails them all; others may have run."""
        self.whole.replies.set_exception(StoreUnavailable(str(error)) if isinstance(error, NeverSent) else error)


@attrs.define(eq=False, slots=True)
class _Waiting:
    """
    A command on its way. ``until`` is set once it was sent in vain (in whole or in part): then it must be answered by
    that time, and when it fails nobody knows whether it ran.

    ``epoch``: the only life of Redis it may be sent to; ``None``: any.
    """

    packed: bytes
    reply: "asyncio.Future[Any] | _Share"
    epoch: str | None
    until: float = 0.0


class _Suspect(Exception):  # noqa: N818 - a signal to an idle lane, not an error
    """Another lane has just broken, or another server answers."""


class FullError(StoreUnavailable):
    """Redis has no memory left for what a script wanted to write; it has written nothing."""


class FailedError(StoreUnavailable):
    """Redis refused a script, or a script failed on data that is not ours; nothing is half done."""


class AnotherLifeError(StoreUnavailable):
    """
    Redis was restarted or replaced before the command could be sent; it has not run there.

    ``was_sent``: it may have run in the life before.
    """

    def __init__(self, *, was_sent: bool) -> None:
        super().__init__("Redis was restarted")
        self.was_sent = was_sent


class RedisStore:
    """The way to one Redis for everything in this process. Made by `connect`, which never fails for its absence."""

    def __init__(self, endpoint: Endpoint, timeout: float, on_problem: Callable[[str], None] | None = None) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self.epoch = ""
        """``run_id`` of the server as of the last greeting."""
        self._on_problem = on_problem or (lambda text: None)
        self._queue: deque[_Waiting] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._links: set[Link] = set()
        self._up = 0
        self._trying = LANES
        self._problem: str | None = None
        self._decided = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def connect(
        cls, url: str, *, timeout: float = 0.1, on_problem: Callable[[str], None] | None = None
    ) -> "RedisStore":
        """Returns once Redis has answered or the first attempt has failed; then tries in the background for ever."""
        store = cls(Endpoint.parse(url), timeout, on_problem)
        store._tasks = [asyncio.create_task(store._lane(), name=f"redis-lane-{n}") for n in range(LANES)]
        await store._decided.wait()
        return store

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_all("closed")

    @property
    def is_up(self) -> bool:
        return self._up > 0

    @property
    def lanes_up(self) -> int:
        """How many of the `LANES` have a connection."""
        return self._up

    def problem(self) -> str | None:
        """Why Redis can't be used right now; ``None`` while it can."""
        return None if self._up else self._problem or "Redis has not answered yet"

    async def run(self, script: Script, keys: Blocks, arguments: Blocks, epoch: str | None = None) -> Any:
        """
        Run a script; its reply. `NeverSent`: it has not run; other `StoreUnavailable`: it may have.

        `ResponseError`: it failed.
        """
        reply = await self.ask(script, keys, arguments, epoch)
        if isinstance(reply, ResponseError):
            return await self.once_more(reply, script, keys, arguments, epoch)
        return reply

    def ask(self, script: Script, keys: Blocks, arguments: Blocks, epoch: str | None) -> "asyncio.Future[Any]":
        """As `run`, but an error of the server is a reply; `once_more` knows what to do with it."""
        return self._send(pack_call(b"EVALSHA", script.sha, keys, arguments), epoch)

    def ask_each(self, commands: Sequence[bytes], epoch: str | None = None) -> "asyncio.Future[list[Any]]":
        """Send packed commands; all their replies in order, errors of the server among them."""
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        whole = _Together(replies, [None] * len(commands), len(commands))
        each = [_Waiting(packed, _Share(whole, place), epoch) for place, packed in enumerate(commands)]
        if not each:
            replies.set_result([])
        elif self._up or self._trying:
            self._queue.extend(each)
            self._wake()
        else:
            self._fail(each[0], self._problem or "Redis is away")
        return replies

    async def once_more(
        self, error: ResponseError, script: Script, keys: Blocks, arguments: Blocks, epoch: str | None
    ) -> Any:
        """Run a script by its text if the server does not know it; raises any other ``error``."""
        if not isinstance(error, NoScriptError):
            raise error
        reply = await once_sent(self._send(pack_call(b"EVAL", script.body, keys, arguments), epoch))
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def execute(self, *command: Any) -> Any:
        """Run one command; its reply, decoded to bytes, ints and lists."""
        reply = await self._send(pack(command), None)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def _send(self, packed: bytes, epoch: str | None) -> "asyncio.Future[Any]":
        """Put a packed command on its way, if asked so only in one life of Redis; errors of the server are replies."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(packed, reply, epoch)
        if not self._up and not self._trying:
            self._fail(waiting, self._problem or "Redis is away")
            return reply
        self._queue.append(waiting)
        if self._idle:
            self._wake()
        return reply

    def _wake(self) -> None:
        while self._idle:
            lane = self._idle.popleft()
            if not lane.done():
                lane.set_result(None)
                return

    def seen(self, epoch: str | None) -> None:
        """This life of Redis has just answered (``None``: one that can't be used): leave those who greet another."""
        outdated = [link for link in self._links if link.epoch != epoch]
        for link in outdated:
            link.outdated = True
        if outdated:
            self._suspect_idle()

    # --- lanes -----------------------------------------------------------------------------------

    async def _lane(self) -> None:
        """One connection's life: connect, carry, break, again."""
        while True:
            link = await self._connected()
            self._up += 1
            self._links.add(link)
            try:
                while True:
                    await self._carry(link, _fit_for(link.epoch, await self._take(link)))
            except (_Suspect, *BROKEN) as error:
                self._trying += 1
                self._problem = f"Redis at {self.endpoint.address} went away: {_text(error)}"
            finally:
                self._up -= 1
                self._links.discard(link)
                await link.close()

    async def _take(self, link: Link) -> list[_Waiting]:
        """What is to be sent next; waits for something. Nothing more for a link that is outdated."""
        queue = self._queue
        while not queue and not link.outdated:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(woken)
            await woken
        if link.outdated:
            raise _Suspect("another server answers now")
        return [queue.popleft() for _ in range(min(len(queue), MAX_BATCH))]

    async def _carry(self, link: Link, batch: list[_Waiting]) -> None:
        """Send a batch and hand out the replies; on a break, put it back for its second chance."""
        now = asyncio.get_running_loop().time()
        due = min([w.until for w in batch if w.until > now], default=now + self.timeout)
        try:
            replies = await link.exchange([w.packed for w in batch], due)
        except BROKEN as error:
            self._repeat(batch, now + 1.5 * self.timeout, _text(error))
            self._suspect_idle()
            raise
        for waiting, reply in zip(batch, replies, strict=True):
            if not waiting.reply.done():
                waiting.reply.set_result(reply)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            raise ConnectionError("it has become a replica")

    def _repeat(self, batch: list[_Waiting], until: float, text: str) -> None:
        for waiting in reversed(batch):
            if waiting.until:
                self._fail(waiting, text)
            elif not waiting.reply.done():
                waiting.until = until
                self._queue.appendleft(waiting)

    def _suspect_idle(self) -> None:
        idle, self._idle = self._idle, deque()
        for lane in idle:
            if not lane.done():
                lane.set_exception(_Suspect("as another connection did"))

    def _fail(self, waiting: _Waiting, text: str) -> None:
        if not waiting.reply.done():
            waiting.reply.set_exception(StoreUnavailable(text) if waiting.until else NeverSent(text))

    def _fail_all(self, text: str) -> None:
        while self._queue:
            self._fail(self._queue.popleft(), text)

    # --- coming back -----------------------------------------------------------------------------

    async def _connected(self) -> Link:
        """A greeted connection, however long it takes; the first attempt counts as ``trying``, the others don't."""
        budget = self.timeout * (FIRST_ATTEMPT if self._decided.is_set() else 1.0)
        attempt = 0
        while True:
            try:
                link = await self.endpoint.open(budget)
            except (NotReadyError, *BROKEN) as error:
                if attempt == 0:
                    self._trying -= 1
                self._refused(_text(error))
                budget = BACKGROUND_TIMEOUT
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
                attempt += 1
            except BaseException:
                if attempt == 0:
                    self._trying -= 1
                raise
            else:
                if attempt == 0:
                    self._trying -= 1
                self._greeted(link)
                return link

    def _greeted(self, link: Link) -> None:
        self.epoch = link.epoch
        self._problem = None
        self._decided.set()

    def _refused(self, text: str) -> None:
        self._problem = f"Redis at {self.endpoint.address} can't be used: {text}"
        if not self._up and not self._trying:
            self._fail_all(self._problem)
            self._decided.set()
            self._on_problem(self._problem)


def _text(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _fit_for(epoch: str, batch: list[_Waiting]) -> list[_Waiting]:
    """Those that may be sent in this life of Redis; the others are told."""
    misfits = [w for w in batch if w.epoch is not None and w.epoch != epoch]
    for waiting in misfits:
        if not waiting.reply.done():
            waiting.reply.set_exception(AnotherLifeError(was_sent=bool(waiting.until)))
    return [w for w in batch if w not in misfits] if misfits else batch


async def run(store: RedisStore, script: Script, keys: Sequence[Any] | Bulks, arguments: Sequence[Any]) -> Any:
    """Run a script for somebody who knows no Redis: all that can go wrong is that the store can't be used."""
    return await _run(store, script, [keys], [arguments], None)


async def _run(store: RedisStore, script: Script, keys: Blocks, arguments: Blocks, epoch: str | None) -> Any:
    try:
        return await store.run(script, keys, arguments, epoch)
    except ResponseError as error:
        raise refusal(error, script) from error


def refusal(error: ResponseError, script: Script) -> StoreUnavailable:
    if "maxmemory" in str(error):  # 6.2 wraps the error of a command in one of the script
        return FullError("Redis is full")
    return FailedError(f"Redis failed at {script.name}: {error}")


async def run_in_life(store: RedisStore, script: Script, now: Any, keys: Blocks, arguments: Blocks) -> Any:
    """
    Run a script that judges data by the life of Redis: its first two arguments are the time and the run id.

    Noticing a restart and coming back may be one decision: then the script is told of the new run. Each call passes
    here twice, so what goes well takes one coroutine, not the three of `run`.
    """
    epoch = store.epoch
    told = ((now, epoch), *arguments)
    try:
        reply = await store.ask(script, keys, told, epoch)
        return await store.once_more(reply, script, keys, told, epoch) if isinstance(reply, ResponseError) else reply
    except ResponseError as error:
        raise refusal(error, script) from error
    except AnotherLifeError as error:
        epoch = store.epoch
        again = _run(store, script, keys, ((now, epoch), *arguments), epoch)
        return await (once_sent(again) if error.was_sent else again)


async def once_sent(again: Awaitable[Any]) -> Any:
    """Repeat something that may have run before: then "never sent" would be a lie."""
    try:
        return await again
    except NeverSent as error:
        raise StoreUnavailable(str(error)) from error
