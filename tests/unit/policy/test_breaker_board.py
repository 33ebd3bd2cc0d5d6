"""The contract of breaker boards over the one in process memory."""

import pytest

from perpetuo.adapters.memory.breakers import MemoryBreakerBoard
from perpetuo.domain.policy.breaker import BreakerReading
from tests.contract.breaker_contract import POLICIES, BreakerContract, Clock, World


async def nothing_to_wait_for() -> None:
    """In one process everything has arrived at once."""


@pytest.mark.anyio
class TestMemoryBreakerBoard(BreakerContract):
    @pytest.fixture
    def world(self) -> World:
        clock, changes = Clock(), list[BreakerReading]()
        board = MemoryBreakerBoard(POLICIES, clock=clock, on_change=changes.append)
        return World(board, clock, nothing_to_wait_for, changes)
