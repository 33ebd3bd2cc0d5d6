"""Does one process keep raised budgets as it must?"""

from collections.abc import Sequence

import pytest

from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.adapters.memory.raises import MemoryRaises
from perpetuo.domain.model.events import Event
from perpetuo.domain.policy import raises as raising
from tests.contract.ledger_world import Clock
from tests.contract.raises_contract import RaisesContract, Restart


class TestMemoryRaises(RaisesContract):
    """The contract, over memory: a new process has nothing but the events."""

    @pytest.fixture
    def stream(self) -> MemoryLedger:
        return MemoryLedger(Clock())

    @pytest.fixture
    def board(self, stream: MemoryLedger) -> MemoryRaises:
        return MemoryRaises(stream.append)

    @pytest.fixture
    def restart(self, stream: MemoryLedger) -> Restart:
        async def again(events: Sequence[Event]) -> MemoryRaises:
            made = MemoryRaises(stream.append)
            made.take(raising.past(events))
            return made

        return again
