"""Does the in-process ledger, and so the policy, agree with naive bookkeeping over random histories?"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

from perpetuo.adapters.memory.ledger import MemoryLedger
from tests.contract.ledger_machine import LedgerMachine
from tests.contract.ledger_world import Clock, World

T = TypeVar("T")


class MemoryMachine(LedgerMachine):
    """No step of the memory ledger waits, so its coroutines run to their end without a loop."""

    def make_world(self) -> World:
        return _World()

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        try:
            step.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        raise AssertionError("a step waited")


class _World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.ledger = self.stream = MemoryLedger(self.clock)

    async def lose_data(self) -> None:
        raise NotImplementedError

    async def seed(self, tenant: str, sums: object) -> None:
        raise NotImplementedError


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
