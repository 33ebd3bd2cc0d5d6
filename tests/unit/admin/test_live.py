"""Is the overview told to whoever watches it, and to nobody else, by one look for all?"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx
import pytest

from perpetuo.entrypoints.http.admin.overview import look, viewer, watched
from perpetuo.entrypoints.http.admin.sessions import COOKIE, SESSION_SECONDS
from tests.unit.admin.conftest import ADMIN_KEY, HOSTILE, READ_KEY, Desk, Markup

pytestmark = pytest.mark.anyio
SECTIONS = {"title", "as-of", "wrong", "activity", "providers", "system", "tenants", "events", "refusals"}
PATIENCE_SECONDS = 60.0


class Stream:
    """A browser that listens: what came, and whether it has ended. ``deaf``: it takes nothing."""

    def __init__(self, desk: Desk, headers: dict[str, str], path: str = "/admin/live", *, deaf: bool = False) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._came = asyncio.Condition()
        self._left = asyncio.Event()
        self._deaf = deaf
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(b"host", b"localhost:3000"), *((n.encode(), v.encode()) for n, v in headers.items())],
            "client": ("127.0.0.1", 1234), "server": ("localhost", 3000), "extensions": {}, "state": {},
        }  # fmt: skip
        self.task = asyncio.create_task(desk.app(scope, self._receive, self._send))  # type: ignore[arg-type]
        self._asked = False

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        elif self._deaf:
            await asyncio.Event().wait()
        async with self._came:
            self.body += message.get("body", b"")
            self._came.notify_all()

    def leave(self) -> None:
        self._left.set()

    async def until(self, found: Callable[["Stream"], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._came:
            await self._came.wait_for(lambda: found(self))

    async def ended(self) -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.task
        return self.body.decode()

    def told(self) -> list[dict[str, str]]:
        """What each ``overview`` said."""
        lines = self.body.decode().split("\n")
        return [json.loads(data.removeprefix("data: ")) for name, data in pairwise(lines) if name == "event: overview"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds follow each other at once, so that no test waits for one."""
    monkeypatch.setattr(watched, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(watched, "PATIENCE", 0)
    monkeypatch.setattr(watched, "STAGE_SECONDS", 0.01)


async def cookie_of(desk: Desk, key: str = ADMIN_KEY) -> dict[str, str]:
    answer = await desk.sign_in(key, desk.another())
    return cookie_in(answer.cookies)


def cookie_in(jar: httpx.Cookies) -> dict[str, str]:
    """The same session is kept for `/admin` and for `/schema`."""
    (value,) = {cookie.value for cookie in jar.jar if cookie.name == COOKIE and cookie.value}
    return {"cookie": f"{COOKIE}={value}"}


@asynccontextmanager
async def watching(
    desk: Desk, headers: dict[str, str], path: str = "/admin/live", **more: Any
) -> AsyncIterator[Stream]:
    stream = Stream(desk, headers, path, **more)
    try:
        yield stream
    finally:
        stream.leave()
        await stream.ended()


@pytest.mark.parametrize("headers", [{}, {"cookie": f"{COOKIE}=bm90.aW5n"}, {"authorization": "Bearer wrong"}])
async def test_s7_without_a_session_nothing_is_told(desk: Desk, headers: dict[str, str]) -> None:
    """To the sign-in page, or 401; no name, no look."""
    stream = Stream(desk, headers)
    text = await stream.ended()
    assert stream.status in {303, 401}
    assert "event:" not in text
    assert "acme" not in text


async def test_whoever_watches_is_told_all_of_it_and_then_what_changes(desk: Desk) -> None:
    """Every section at first, as the page has them; then a call that came meanwhile."""
    headers = await cookie_of(desk)
    async with watching(desk, headers) as stream:
        await stream.until(lambda s: bool(s.told()))
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in stream.headers["cache-control"]
        assert "'self'" in stream.headers["content-security-policy"]
        first = stream.told()[0]
        assert set(first) == SECTIONS
        assert "connect-src" not in stream.headers["content-security-policy"]
        await desk.call(**{"x-request-id": "the-one-that-is-seen"})
        await stream.until(
            lambda s: any("gpt" in t.get("events", "") or "demo" in t.get("events", "") for t in s.told())
        )
        assert all(set(told) <= SECTIONS for told in stream.told())


async def test_what_is_told_is_what_the_page_shows(desk: Desk) -> None:
    """Section by section the same markup, with the token of one's own session in its forms; nothing inline."""
    await desk.sign_in()
    headers = cookie_in(desk.browser.cookies)
    async with watching(desk, headers) as stream:
        await stream.until(lambda s: bool(s.told()))
        told = stream.told()[0]
    page = await desk.page("/admin")
    assert f'name="token" value="{await desk.token()}"' in told["providers"]
    for name in ("providers", "refusals", "wrong"):
        assert told[name].strip() in page
    assert Markup("".join(told.values())).inline == []
    assert HOSTILE not in "".join(told.values())


async def test_who_may_only_look_gets_no_forms(desk: Desk) -> None:
    """Also while somebody else watches who may act; neither sees the other's token."""
    async with (
        watching(desk, await cookie_of(desk)) as acting,
        watching(desk, await cookie_of(desk, READ_KEY)) as reading,
    ):
        await acting.until(lambda s: bool(s.told()))
        await reading.until(lambda s: bool(s.told()))
        assert "<form" in acting.told()[0]["providers"]
        assert all(
            "<form" not in text and 'name="token"' not in text for told in reading.told() for text in told.values()
        )


async def test_one_look_serves_all_and_none_is_taken_for_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten viewers cost as many looks as there are rounds; once they have left there are no more."""
    looks = 0

    async def counted(*given: Any) -> Any:
        nonlocal looks
        looks += 1
        return await real(*given)

    real = look.overview
    monkeypatch.setattr(look, "overview", counted)
    monkeypatch.setattr(watched, "EVERY_SECONDS", 600.0)  # no other round while they come, however long that takes
    headers = await cookie_of(desk)
    assert looks == 0
    streams = [Stream(desk, headers) for _ in range(10)]
    for stream in streams:
        await stream.until(lambda s: len(s.told()) >= 1)
    assert looks == 1
    for stream in streams:
        stream.leave()
        await stream.ended()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "watch-overview"]
    seen = looks
    await desk.call()
    assert looks == seen


async def test_the_next_one_is_told_that_there_are_too_many(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence and 503; there is a place again when one leaves."""
    monkeypatch.setattr(viewer, "MOST_VIEWERS", 1)
    headers = await cookie_of(desk)
    async with watching(desk, headers) as first:
        await first.until(lambda s: bool(s.told()))
        second = Stream(desk, headers)
        assert "more would slow down its calls" in await second.ended()
        assert (second.status, second.headers["retry-after"]) == (503, "60")
    async with watching(desk, headers) as third:
        await third.until(lambda s: bool(s.told()))


async def test_it_ends_with_the_session(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its twelve hours, within a round, and says why."""
    async with watching(desk, await cookie_of(desk)) as stream:
        await stream.until(lambda s: bool(s.told()))
        later = desk.container.system.now_us() + (SESSION_SECONDS + 1) * 1_000_000
        monkeypatch.setattr(type(desk.container.system), "now_us", lambda _: later)
        assert (await stream.ended()).endswith("event: end\ndata: session\n\n")


async def test_it_does_not_last_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a browser that has signed out meanwhile has to say who it is."""
    monkeypatch.setattr(viewer, "LASTS_SECONDS", 0.05)
    stream = Stream(desk, await cookie_of(desk))
    assert (await stream.ended()).endswith("event: end\ndata: again\n\n")


@pytest.mark.parametrize("deaf", [False, True])
async def test_o1_a_worker_that_leaves_waits_for_nobody_who_watches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, deaf: bool
) -> None:
    """Whoever listens is told; whoever takes nothing is left. Nobody new is let in."""
    monkeypatch.setattr(viewer, "FAREWELL_SECONDS", 0.1)
    headers = await cookie_of(desk)
    stream = Stream(desk, headers, deaf=deaf)
    await stream.until(lambda s: s.status == 200 and (deaf or bool(s.told())))
    desk.container.stage = "draining"
    text = await stream.ended()
    assert deaf or text.endswith("event: end\ndata: leaving\n\n")
    late = Stream(desk, headers)
    assert "shutting down" in await late.ended()
    assert late.status == 503


async def test_a_defect_ends_it_and_is_in_the_log(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page asks instead then, and shows what it shows."""

    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(look, "overview", broken)
    monkeypatch.setattr(
        desk.container.journal, "log", lambda *words, **fields: lines.append({"words": words, **fields})
    )
    stream = Stream(desk, await cookie_of(desk))
    assert (await stream.ended()).endswith("event: end\ndata: broken\n\n")
    assert {"words": ("error", "loop_broken"), "loop": "overview 1h", "error": "ZeroDivisionError: "} in lines


async def test_a_beat_tells_that_the_line_is_alive(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a look takes long."""
    monkeypatch.setattr(viewer, "BEAT_SECONDS", 0.02)
    slow = asyncio.Event()
    real = look.overview

    async def first_then_slow(*given: Any) -> Any:
        if stream.told():
            await slow.wait()
        return await real(*given)

    monkeypatch.setattr(look, "overview", first_then_slow)
    stream = Stream(desk, await cookie_of(desk))
    await stream.until(lambda s: b"event: beat" in s.body)
    slow.set()
    stream.leave()
    await stream.ended()


async def test_a_span_that_is_none_is_refused(desk: Desk) -> None:
    """As on the page."""
    stream = Stream(desk, await cookie_of(desk), "/admin/live?span=year")
    await stream.ended()
    assert stream.status == 400


async def test_the_page_has_a_place_for_what_it_is_told(desk: Desk) -> None:
    """Each section once, and a word for people and screen readers that says whether it is live."""
    await desk.sign_in()
    page = await desk.page("/admin")
    for name in SECTIONS - {"title"}:
        assert page.count(f'id="{name}" data-live') == 1
    assert '<span id="live" aria-live="polite" aria-atomic="true"></span>' in page
