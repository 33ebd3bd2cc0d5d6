"""What is left of tenants' budgets, as `/metrics` tells it?"""

import pytest

from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.domain.gateway.operate import remaining_budgets
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant

NOW = 1_795_000_000_000_000
ACME = Tenant("acme", "", Limits(budget_day=Nano(1_000)), keys=(ApiKey("ci", b"", limits=Limits(budget_day=Nano(5))),))


@pytest.mark.anyio
async def test_remaining_budgets_are_the_tenants_own_with_raises_in_force() -> None:
    """Not those of single keys; a tenant without a budget, or without a key, is no reason to fail."""
    ended, now = (
        Raise(name, "acme", "acme", "day", Nano(amount), until, "ann", "")
        for name, amount, until in (("1", 7, NOW), ("2", 50, NOW + 1))
    )
    keyless = Tenant("keyless", "", Limits(budget_month=Nano(9)))
    found = await remaining_budgets(
        MemoryLedger(lambda: NOW),
        [ACME, Tenant("free", "", Limits(rate_per_minute=5)), keyless],
        NOW,
        lambda tenant: (ended, now) if tenant == "acme" else (),
    )
    assert found == [("acme", "day", 1_050, 1_050), ("keyless", "month", 9, 9)]
