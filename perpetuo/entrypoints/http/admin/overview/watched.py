"""
What goes on, looked up once for everyone who watches.

    nobody watches --the first viewer comes--> a round every 2 s --the last one has left--> nobody watches

Rule 1: one look a worker, span and round, however many watch; none while nobody does.
Rule 2: looking takes at most a fifth of the time: after a slow look the pause is four times as long.
Rule 3: whoever is slow skips what it missed. There is no queue: a section is kept as it is now, with the round in which
        it last changed.
Rule 4: what is kept is for all who may do the same. The token of a form is a mark in it, and each viewer gets its own
        in that place.
Rule 5: it is over when the worker is not ready any more: a worker that leaves waits for nobody who watches.
"""

import asyncio
import secrets

import attrs

from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.overview import look
from perpetuo.entrypoints.http.admin.overview.activity import SPANS
from perpetuo.entrypoints.http.admin.rendering import macro

MOST_VIEWERS = 50
EVERY_SECONDS = 2.0
PATIENCE = 4
STAGE_SECONDS = 0.2
LAST_LOOK_SECONDS = 1.0
TEMPLATE = "overview_sections.html"
READY = "ready"


@attrs.frozen
class View:
    """What is watched: which span, and with or without the forms behind the buttons."""

    span: str
    may_act: bool


@attrs.define(eq=False)
class Sight:
    """A view as it is now: each section's HTML, and in which round it last changed. ``broken``: a look failed."""

    viewers: int = 0
    sections: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    broken: bool = False

    def show(self, turn: int, drawn: dict[str, str]) -> None:
        for name, text in drawn.items():
            if name not in self.sections or self.sections[name][1] != text:
                self.sections[name] = turn, text

    def since(self, turn: int) -> dict[str, str]:
        """The sections that have changed after that round."""
        return {name: text for name, (changed, text) in self.sections.items() if changed > turn}


class Watch:
    """One worker's view of itself and of the others, for all who watch the overview."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._sights: dict[View, Sight] = {}
        self._running: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self.clock = container.system.monotonic
        self.mark = secrets.token_hex(16)
        self.turn = 0
        """How many rounds there have been."""
        self.news = asyncio.Event()
        """Set at the end of a round; the next round has another."""
        self.over = asyncio.Event()

    @property
    def viewers(self) -> int:
        return sum(sight.viewers for sight in self._sights.values())

    @property
    def is_leaving(self) -> bool:
        return self._container.stage != READY

    def join(self, view: View) -> Sight:
        """One more who watches this; `leave` has to follow."""
        sight = self._sights.get(view)
        if sight is None:
            sight = self._sights[view] = Sight()
            self._wanted.set()
        sight.viewers += 1
        if self._running is None or self._running.done() or self._running.cancelling():
            self._running = asyncio.create_task(self._run(), name="watch-overview")
        return sight

    async def leave(self, view: View, sight: Sight) -> None:
        """The last one waits for the look that is under way, or ends it: nothing of it goes on by itself."""
        sight.viewers -= 1
        if sight.viewers == 0 and self._sights.get(view) is sight:
            del self._sights[view]
            self._wanted.set()
        running = self._running
        if self._sights or running is None:
            return
        await asyncio.wait({running}, timeout=LAST_LOOK_SECONDS)
        if not self._sights and not running.done():
            running.cancel()
            await asyncio.wait({running})

    async def _run(self) -> None:
        staging = asyncio.create_task(self._until_leaving(), name="watch-stage")
        try:
            while self._sights and not self.over.is_set():
                self._wanted.clear()
                began = self.clock()
                await self._round()
                await self._pause(max(EVERY_SECONDS, PATIENCE * (self.clock() - began)))
        finally:
            staging.cancel()

    async def _pause(self, seconds: float) -> None:
        """Until the next round is due, or somebody wants another view, or nobody wants any."""
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def _until_leaving(self) -> None:
        while not self.is_leaving:  # noqa: ASYNC110 - the stage is a word, nobody tells of it
            await asyncio.sleep(STAGE_SECONDS)
        self.over.set()

    async def _round(self) -> None:
        turn = self.turn + 1
        for span in {view.span for view in self._sights}:
            try:
                self._show(turn, span, await look.overview(self._container, SPANS[span]))
            except Exception as error:  # noqa: BLE001 - who watches is told; the page says what the defect is
                self._failed(span, error)
        self.turn = turn
        news, self.news = self.news, asyncio.Event()
        news.set()

    def _show(self, turn: int, span: str, seen: Facts) -> None:
        for view, sight in self._sights.items():
            if view.span == span:
                sight.show(turn, drawn(seen, view.may_act, self.mark))

    def _failed(self, span: str, error: Exception) -> None:
        problem = f"{type(error).__name__}: {error}"
        self._container.journal.log("error", "loop_broken", loop=f"overview {span}", error=problem)
        for view in [view for view in self._sights if view.span == span]:
            self._sights.pop(view).broken = True


def drawn(seen: Facts, may_act: bool, token: str) -> dict[str, str]:
    """Each section as HTML, and the page's title."""
    alone = {name: macro(TEMPLATE, name, seen) for name in ("wrong", "system", "tenants", "events", "refusals")}
    return {
        "title": macro(TEMPLATE, "title", seen),
        "as-of": macro(TEMPLATE, "as_of", seen),
        "activity": macro(TEMPLATE, "activity", seen, SPANS.values()),
        "providers": macro(TEMPLATE, "providers", seen, may_act, token),
        **alone,
    }
