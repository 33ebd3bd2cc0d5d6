"""Does the ledger in Redis keep every promise of a ledger?"""

from tests.contract.ledger_contract import LedgerContract


class TestRedisLedger(LedgerContract):
    """The contract, over a real Redis."""
