"""What does the core need to know of budgets that are raised for a while?"""

from typing import Protocol

from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.events import Event


class Raises(Protocol):
    """
    Raises in force, shared by all workers within a second; `of` and `all` cost no round trip.

    Store away: what was known here goes on until its end. A store that lost its raises gets them back from the events.
    """

    def of(self, tenant: str) -> tuple[Raise, ...]:
        """Raises of the tenant's budgets and of its keys'; ended ones may be among them."""
        ...

    def all(self) -> tuple[Raise, ...]: ...

    async def refresh(self) -> None:
        """Know by now what other workers have done. Raises `StoreUnavailable`."""
        ...

    async def put(self, raised: Raise, event: Event) -> bool:
        """Raise, and append the event, as one step; False: it had been done before. Raises `StoreUnavailable`."""
        ...

    async def end(self, raised: Raise, event: Event) -> bool:
        """End it now, and append the event, as one step; False: it had ended before. Raises `StoreUnavailable`."""
        ...
