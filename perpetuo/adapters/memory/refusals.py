"""Refusals of the last minutes by request id, in this process."""

from collections import OrderedDict
from collections.abc import Sequence

from perpetuo.domain.model.events import RefusalNote

KEPT = 10_000


class MemoryRecentRefusals:
    """`perpetuo.domain.ports.RecentRefusals`: the newest 10,000."""

    def __init__(self) -> None:
        self._notes: OrderedDict[tuple[str, str], RefusalNote] = OrderedDict()

    async def note_refusals(self, notes: Sequence[RefusalNote]) -> None:
        for note in notes:
            self._notes[note.tenant_id, note.request_id] = note
        while len(self._notes) > KEPT:
            self._notes.popitem(last=False)

    async def find_refusal(self, tenant: str, request_id: str) -> RefusalNote | None:
        return self._notes.get((tenant, request_id))
