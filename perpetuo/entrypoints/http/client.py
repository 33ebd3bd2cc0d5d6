"""The application's end of one call, over ASGI: bytes out, and the news that it has left."""

import asyncio
from collections.abc import Iterable
from typing import Any

from perpetuo.domain.gateway.call import CLIENT_GONE
from perpetuo.domain.model.errors import Refusal
from perpetuo.domain.model.upstream import Abort
from perpetuo.entrypoints.http.errors import envelope, retry_headers, status_of
from perpetuo.entrypoints.http.patience import Wait

Receive = Any
Send = Any

STALLED_SECONDS = 20.0
WATCH_AFTER = 0.05
"""Seconds. Listening takes a task; a call that is over sooner needs none, and a client that left before is
found out when listening begins: Granian then answers at once."""
JSON_HEADER = (b"content-type", b"application/json")


def encode(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode() if value.isascii() else _latin(value)) for name, value in headers]


def _latin(value: str) -> bytes:
    """What no header can carry becomes a question mark (a codec by name takes twice as long as UTF-8)."""
    return value.encode("latin-1", "replace")


async def _gone(receive: Receive) -> None:
    """Until the client has left; what remains to be said of its body comes first."""
    while (await receive())["type"] == "http.request":
        pass


class AsgiClient:
    """
    `perpetuo.domain.ports.Client` over one ASGI request whose body has been read.

    Granian does not cancel a handler whose client left; it says ``http.disconnect`` to whoever
    listens. `watch` listens, in the only extra task a call has.

    A client that stays but takes nothing for `STALLED_SECONDS` is treated as one that left: nothing
    else would ever end a call whose reader has stalled. It is less than a lease, so that such a call is
    settled by its own worker and not by the reaper.
    """

    def __init__(self, send: Send, request_id: str, budget_status: int, wait: Wait) -> None:
        self.abort = Abort()
        self.status = 0
        self.request_id = request_id
        self._send = send
        self._budget_status = budget_status
        self._wait = wait
        self._request_id = (b"x-request-id", request_id.encode("latin-1"))
        self._watcher: asyncio.Future[Any] | None = None
        self._watch_later: asyncio.TimerHandle | None = None

    def watch(self, receive: Receive) -> None:
        """From `WATCH_AFTER` on, a client that leaves, or has left, fires `abort`."""
        self._watch_later = asyncio.get_running_loop().call_later(WATCH_AFTER, self._watch, receive)

    def _watch(self, receive: Receive) -> None:
        self._watcher = asyncio.ensure_future(_gone(receive))
        self._watcher.add_done_callback(self._left)

    def _left(self, watcher: asyncio.Future[Any]) -> None:
        if not watcher.cancelled() and watcher.exception() is None and self._watcher is not None:
            self.abort.fire(CLIENT_GONE)

    def unwatch(self) -> None:
        if self._watch_later is not None:
            self._watch_later.cancel()
        watcher, self._watcher = self._watcher, None
        if watcher is not None and not watcher.done():
            watcher.cancel()

    async def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        self.status = status
        raw = encode(headers)
        raw += ((b"content-length", b"%d" % len(body)), self._request_id)
        await self._say(_start(status, raw), _body(body))

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self.status = status
        await self._say(_start(status, [*encode(headers), self._request_id]))

    async def write(self, data: bytes) -> None:
        await self._say(_body(data, more=True))

    async def finish(self, data: bytes) -> None:
        await self._say(_body(data))

    def status_of(self, refusal: Refusal) -> int:
        return status_of(refusal, self._budget_status)

    async def refuse(self, refusal: Refusal, headers: Iterable[tuple[str, str]] = ()) -> None:
        status = self.status_of(refusal)
        body = envelope(refusal)
        self.status = status
        raw = [JSON_HEADER, *encode((*headers, *retry_headers(refusal))), (b"content-length", b"%d" % len(body))]
        await self._say(_start(status, [*raw, self._request_id]), _body(body))

    async def fail(self, refusal: Refusal) -> None:
        await self._say(_body(b"data: " + envelope(refusal) + b"\n\n"))

    async def _say(self, *messages: dict[str, Any]) -> None:
        """Nothing to a client that has left; a transport that is gone, or stalled, is its leaving, no error of ours."""
        wait = self._wait
        try:
            for message in messages:
                if self.abort.reason == CLIENT_GONE:
                    return
                wait.upto(STALLED_SECONDS)
                await self._send(message)
        except (OSError, RuntimeError):
            self.abort.fire(CLIENT_GONE)
        except asyncio.CancelledError:
            if not wait.is_over():
                raise
            self.abort.fire(CLIENT_GONE)
        finally:
            wait.done()


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
