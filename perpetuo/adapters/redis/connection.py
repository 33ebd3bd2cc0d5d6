"""
How does one connection to Redis come to be?

Rule 1: redis-py connects (TLS, credentials, database), but never retries: its default repeats a script after
a timeout, up to ten times (redis-py 8.1), and nobody here may do that but the store, by call id.
Rule 2: a connection counts only after the server has said who it is. Its ``run_id`` is the *epoch*: another one
means another life, in which anything may have been lost. A server that is still loading its data is not there yet.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import hiredis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from perpetuo.adapters.redis.resp import pack

BROKEN = (RedisError, OSError, TimeoutError, EOFError)
"""What a broken connection raises, through redis-py or past it."""


class NotReadyError(Exception):
    """The server answers but can't be used yet; the text says why."""


@attrs.frozen
class Endpoint:
    """Where Redis is and how to get in."""

    kind: type[Connection] | type[UnixDomainSocketConnection]
    options: dict[str, Any] = attrs.field(repr=False)
    address: str

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """``redis://``, ``rediss://`` or ``unix://`` with redis-py's parameters; `ValueError` says what is wrong."""
        options: dict[str, Any] = dict(parse_url(url))
        kind = options.pop("connection_class", Connection)
        if kind is not UnixDomainSocketConnection:
            options.setdefault("host", "localhost")
            options.setdefault("port", 6379)
        for unwanted in ("socket_timeout", "retry_on_timeout", "retry_on_error", "max_connections", "timeout"):
            options.pop(unwanted, None)
        scheme = "rediss" if issubclass(kind, SSLConnection) else "redis"
        address = options.get("path") or f"{scheme}://{options['host']}:{options['port']}"
        return cls(kind, options, str(address))

    async def open(self, timeout: float) -> "Link":
        """Connect and greet; raises what `BROKEN` names, or `NotReadyError`."""
        connection: Any = self.kind(
            **self.options,
            socket_timeout=None,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            protocol=2,
        )
        link = Link(connection)
        try:
            async with asyncio.timeout(timeout):
                await connection.connect()
                await link.greet()
        except BaseException:
            await link.close()
            raise
        return link


class Replies(asyncio.Protocol):
    """
    Reads replies as they arrive, one exchange at a time.

    Takes a connection over from redis-py once it has shaken hands: there, each reply passes several coroutines and a
    `StreamReader`.
    """

    def __init__(self, parse_error: Callable[[str], Exception]) -> None:
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=parse_error)
        self._waiter: asyncio.Future[list[Any]] | None = None
        self._wanted = 0
        self._found: list[Any] = []
        self._lost: Exception | None = None

    def expect(self, replies: int) -> "asyncio.Future[list[Any]]":
        """The next so many replies; raises at once what the connection broke with before."""
        if self._lost is not None:
            raise self._lost
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        self._wanted, self._found = replies, []
        return waiter

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while len(self._found) < self._wanted:
                reply = self._reader.gets()
                if reply is False:
                    return
                if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                    return self._break(reply)  # such as "loading": this server is not to be asked at all
                self._found.append(reply)
        except RedisError as error:  # not the protocol of Redis
            return self._break(error)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._found)

    def late(self) -> None:
        self._break(TimeoutError())

    def connection_lost(self, error: Exception | None) -> None:
        self._break(error or ConnectionError("Connection closed by server."))

    def _break(self, error: Exception) -> None:
        self._lost = self._lost or error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class Link:
    """An open connection on which commands are sent in one write and answered in order."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._replies = Replies(connection._parser.parse_error)
        self.epoch = ""
        self.outdated = False
        """Another server may answer on it than the one that greeted."""

    async def greet(self) -> None:
        """Take over the connection that redis-py has opened, and ask who answers."""
        self._connection._writer.transport.set_protocol(self._replies)
        (reply,) = await self.exchange([pack((b"INFO",))])
        if isinstance(reply, ResponseError):
            raise NotReadyError(str(reply))
        facts = parse_info(reply)
        if facts.get("loading", "0") != "0":
            raise NotReadyError("it is still loading its data")
        if facts.get("role") == "slave":
            raise NotReadyError("it is a replica")
        self.epoch = facts.get("run_id", "")

    async def exchange(self, commands: Sequence[bytes], due: float | None = None) -> list[Any]:
        """
        Send packed commands in one write; their replies in order, errors of the server as values.

        Raises what `BROKEN` names; a `TimeoutError` at ``due`` (the loop's time). Then the link is of no more use.
        """
        waiter = self._replies.expect(len(commands))
        try:
            self._connection._writer.transport.write(b"".join(commands))
        except RuntimeError as error:  # uvloop's word for a connection that closed in this turn
            raise ConnectionError(str(error)) from error
        timer = None if due is None else asyncio.get_running_loop().call_at(due, self._replies.late)
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        try:
            await self._connection.disconnect(nowait=True)
        except BROKEN:
            pass


def parse_info(text: bytes) -> dict[str, str]:
    """``INFO``'s lines as a mapping."""
    return dict(_pairs(text.decode(errors="replace").splitlines()))


def _pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            yield name, value
