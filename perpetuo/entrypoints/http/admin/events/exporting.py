"""
How do events leave as a file?

Rule 1: in batches by id, each sent before the next is read: a million rows take no more memory than a thousand, and
        a client that leaves ends it within a batch. A batch is looked for during `SEARCH_SECONDS`, and may be empty.
Rule 2: the first batch is read before the answer begins, so that a store that is away is a 503. When it goes away later
        the connection is cut: half a file must not look like a whole one.
Rule 3: `MOST_AT_ONCE` in one worker: an export occupies one of its few connections to SQL.
Rule 4: text that a spreadsheet would take for a formula gets a quote in front. Money and times are the API's.
"""

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs
import msgspec

from perpetuo.bootstrap import Container
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter
from perpetuo.domain.ports import Found, StoreUnavailable
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.events.facts import event_whole
from perpetuo.entrypoints.http.admin.rendering import NOT_CACHED, SECURITY
from perpetuo.entrypoints.http.refusals import RefusedError

BATCH = 500
MOST_AT_ONCE = 2
COUNT_SECONDS = 3.0
SEARCH_SECONDS = 1.0
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
COLUMNS = (
    "id", "at", "kind", "tenant", "key", "model", "provider", "upstream_model", "stream", "status", "outcome",
    "error_code", "attempts", "input_tokens", "output_tokens", "cached_tokens", "usage_basis", "cost_usd", "held_usd",
    "price_version", "budget_day", "latency_ms", "first_token_ms", "overhead_ms", "idempotency", "tag", "request_id",
    "upstream_request_id", "trace_id", "client_ip", "action",
)  # fmt: skip
TYPES = {"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/x-ndjson"}
FORMATS = tuple(TYPES)
ROWS = "x-perpetuo-rows"
"""How many there were when it began; left out when that took too long to count."""

_running = 0


def cell(value: Any) -> Any:
    """Rule 4."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_csv(events: Sequence[Event], *, first: bool) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    if first:
        writer.writerow(COLUMNS)
    for event in events:
        facts = {**event_whole(event), "attempts": len(event.attempts)}
        writer.writerow([cell(facts[name]) for name in COLUMNS])
    return out.getvalue().encode("utf-8", "replace")


def as_jsonl(events: Sequence[Event], *, first: bool) -> bytes:
    return b"".join(msgspec.json.encode(event_whole(event)) + b"\n" for event in events)


WRITERS = {"csv": as_csv, "jsonl": as_jsonl}


@attrs.frozen
class Export:
    """An ASGI application: the answer."""

    container: Container
    where: EventFilter
    format: str
    first: Found
    rows: int | None

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        global _running  # noqa: PLW0603 - how many this worker has under way
        _running += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers()})
            sending = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sending
        finally:
            _running -= 1

    def _headers(self) -> list[tuple[bytes, bytes]]:
        stamp = iso(self.container.system.now_us())[:19].replace(":", "").replace("-", "")
        named = {
            "content-type": TYPES[self.format],
            "content-disposition": f'attachment; filename="perpetuo-events-{stamp}Z.{self.format}"',
            **({} if self.rows is None else {ROWS: str(self.rows)}),
            **SECURITY,
            **NOT_CACHED,
        }
        return [(name.encode(), value.encode()) for name, value in named.items()]

    async def _send(self, send: Any) -> None:
        async for piece in self._pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        write = WRITERS[self.format]
        yield write(self.first.events, first=True)
        before = self.first.next
        while before is not None:
            found = await _batch(self.container, self.where, before)
            yield write(found.events, first=False)
            before = found.next


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def begin(container: Container, where: EventFilter, name: str) -> Export:
    """The answer to an export; raises `RefusedError`."""
    if name not in FORMATS:
        text = f"The parameter `format` must be one of {', '.join(FORMATS)}."
        raise RefusedError(Refusal(Reason.INVALID_REQUEST, text, "format"))
    if _running >= MOST_AT_ONCE:
        text = f"{_running} exports are under way, and more would slow down the gateway. Try again when one has ended."
        raise RefusedError(Refusal(Reason.CONCURRENCY_LIMIT_EXCEEDED, text, retry_after_us=5_000_000))
    try:
        first = await _batch(container, where)
        rows = len(first.events) if first.next is None else await _counted(container, where)
    except StoreUnavailable as error:
        raise RefusedError(Refusal(Reason.STORE_UNAVAILABLE, f"The event table is away: {error}")) from error
    return Export(container, where, name, first, rows)


async def _batch(container: Container, where: EventFilter, before: str | None = None) -> Found:
    """The next rows: up to `BATCH`, and fewer or none where many rows do not match."""
    now_us = container.system.now_us()
    return await container.store.search(where, now_us=now_us, before=before, limit=BATCH, seconds=SEARCH_SECONDS)


async def _counted(container: Container, where: EventFilter) -> int | None:
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            return await container.store.count(where)
    except (TimeoutError, StoreUnavailable):
        return None
