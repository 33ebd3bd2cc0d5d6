"""
How does somebody who watches the overview hear of it?

``text/event-stream``, until one of both leaves:

    event: overview   sections that have changed, as HTML, by their id; all of them at first
    event: beat       nothing has changed for a while, and the line is alive
    event: end        why: the ``session`` is over, the worker is ``leaving``, the overview is ``broken``; or ``again``

Rule 1: who watches is asked for its session in every round: it ends with it, or when its key may do something else.
Rule 2: it lasts `LASTS_SECONDS`, and the page asks ``again``, with the cookies that its browser has by then: who has
        signed out in another tab is signed out here as well.
Rule 3: `MOST_VIEWERS` in one worker; the next is told so, and its page asks every few seconds instead.
Rule 4: a worker that leaves says so and is gone, also where nobody reads what it says.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from perpetuo.entrypoints.http.admin.overview.watched import MOST_VIEWERS, Sight, View, Watch
from perpetuo.entrypoints.http.admin.rendering import NOT_CACHED, SECURITY

RECONNECT_MS = 2_000
BEAT_SECONDS = 5.0
LASTS_SECONDS = 15.0
FAREWELL_SECONDS = 1.0
FULL = (
    f"{MOST_VIEWERS} pages watch this worker live, and more would slow down its calls. "
    "The overview refreshes itself every few seconds instead, and tries again by itself."
)
LEAVING = "This worker is shutting down. The overview tries again by itself."
STREAM = {
    "content-type": "text/event-stream; charset=utf-8",
    "x-accel-buffering": "no",
    **SECURITY,
    **NOT_CACHED,
}
SESSION, GONE, BROKEN, AGAIN = "session", "leaving", "broken", "again"


@attrs.frozen
class Viewer:
    """An ASGI application: the answer. ``allowed``: may whoever asked go on watching?"""

    watch: Watch
    view: View
    token: str
    allowed: Callable[[], bool]

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        if self.watch.is_leaving:
            return await _refuse(send, LEAVING, 1)
        if self.watch.viewers >= MOST_VIEWERS:
            return await _refuse(send, FULL, 60)
        sight = self.watch.join(self.view)
        try:
            await self._until_one_leaves(sight, receive, send)
        finally:
            await self.watch.leave(self.view, sight)

    async def _until_one_leaves(self, sight: Sight, receive: Any, send: Any) -> None:
        telling = asyncio.create_task(self._tell(sight, send), name="tell-overview")
        others = {asyncio.create_task(_gone(receive)), asyncio.create_task(self.watch.over.wait())}
        try:
            await asyncio.wait({telling, *others}, return_when=asyncio.FIRST_COMPLETED)
            if self.watch.over.is_set():
                await asyncio.wait({telling}, timeout=FAREWELL_SECONDS)
        finally:
            for task in (telling, *others):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    async def _tell(self, sight: Sight, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _encoded(STREAM)})
        await _write(send, f"retry: {RECONNECT_MS}\n\n".encode())  # for an EventSource; the page has its own way
        seen, until = 0, self.watch.clock() + LASTS_SECONDS
        while (ending := self._ending(sight, until)) is None:
            news, told = self.watch.news, sight.since(seen)
            seen = self.watch.turn
            if told:
                await _write(send, self._event(told))
            elif seen:
                await _write(send, b"event: beat\ndata: 1\n\n")
            await self._wait(news)
        await _write(send, f"event: end\ndata: {ending}\n\n".encode(), more=False)

    def _ending(self, sight: Sight, until: float) -> str | None:
        if self.watch.over.is_set():
            return GONE
        if not self.allowed():
            return SESSION
        if sight.broken:
            return BROKEN
        return AGAIN if self.watch.clock() >= until else None

    def _event(self, told: dict[str, str]) -> bytes:
        """On one line, as JSON; the token of this viewer's session where the forms have a mark."""
        line = msgspec.json.encode(told).replace(self.watch.mark.encode(), self.token.encode())
        return b"event: overview\ndata: " + line + b"\n\n"

    async def _wait(self, news: asyncio.Event) -> None:
        """For the next round, the end, or the time of a beat."""
        waiting = {asyncio.create_task(news.wait()), asyncio.create_task(self.watch.over.wait())}
        try:
            await asyncio.wait(waiting, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


async def _refuse(send: Any, text: str, retry_after: int) -> None:
    headers = {"content-type": "text/plain; charset=utf-8", "retry-after": str(retry_after), **SECURITY, **NOT_CACHED}
    await send({"type": "http.response.start", "status": 503, "headers": _encoded(headers)})
    await _write(send, text.encode(), more=False)


async def _write(send: Any, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
