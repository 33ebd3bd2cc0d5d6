"""
Which budgets are raised, in one process?

``append`` is where events go on their way to SQL; `take` puts back, at the start, what SQL knows from before.
"""

from collections.abc import Awaitable, Callable

from perpetuo.domain.model.budgets import PastRaises, Raise
from perpetuo.domain.model.events import Event


class MemoryRaises:
    """`perpetuo.domain.ports.Raises`. ``on_change`` is called when there is another raise, or one less."""

    def __init__(self, append: Callable[[Event], Awaitable[None]]) -> None:
        self._append = append
        self._live: dict[str, Raise] = {}
        self._ended: set[str] = set()
        self.on_change: Callable[[], None] = lambda: None

    def of(self, tenant: str) -> tuple[Raise, ...]:
        return tuple(one for one in self._live.values() if one.tenant == tenant)

    def all(self) -> tuple[Raise, ...]:
        return tuple(self._live.values())

    async def refresh(self) -> None:
        """There are no others."""

    async def put(self, raised: Raise, event: Event) -> bool:
        if raised.id in self._live or raised.id in self._ended:
            return False
        self._live[raised.id] = raised
        await self._append(event)
        self.on_change()
        return True

    async def end(self, raised: Raise, event: Event) -> bool:
        if raised.id in self._ended:
            return False
        self._live.pop(raised.id, None)
        self._ended.add(raised.id)
        await self._append(event)
        self.on_change()
        return True

    def take(self, past: PastRaises) -> None:
        """What the events tell of."""
        self._ended |= {name for _, name, _ in past.ended}
        self._live = {one.id: one for one in (*past.made, *self._live.values()) if one.id not in self._ended}
        self.on_change()
