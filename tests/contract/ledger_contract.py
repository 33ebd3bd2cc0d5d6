"""
What must every ledger do, whatever it is made of?

`LedgerContract` runs over each store: a test class inherits it and gives the fixture ``world`` (see `ledger_world`).
Scripted traces, one promise each; ``tests/unit/policy/test_mutants.py`` checks that they notice planted bugs.
"""

import pytest

from tests.contract.ledger_adjusting import AdjustingContract
from tests.contract.ledger_endings import LossContract, SettlementContract, StreamContract
from tests.contract.ledger_keys import IdempotencyContract
from tests.contract.ledger_limits import BudgetContract, ConcurrencyContract, RateContract


@pytest.mark.anyio
class LedgerContract(
    RateContract,
    ConcurrencyContract,
    BudgetContract,
    AdjustingContract,
    SettlementContract,
    LossContract,
    IdempotencyContract,
    StreamContract,
):
    """All of it."""
