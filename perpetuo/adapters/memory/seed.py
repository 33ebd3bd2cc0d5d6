"""
How does a ledger in memory learn what was spent before this process began?

From SQL, before it opens: the sums of every budget window there may be, and the admissions of the last minute.
"""

from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.domain.model.admission import MINUTE_US
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.policy.windows import key_scope, limits_of
from perpetuo.domain.ports import EventHistory


async def seed_from(history: EventHistory, ledger: MemoryLedger, settings: Settings, now_us: int) -> None:
    """Seed every window and rate log, and open the budgets; raises `StoreUnavailable`, then nothing was opened."""
    windows = {w for caller in settings.callers.values() for b in limits_of(caller, now_us).budgets for w in
               (b.current, b.following)}  # fmt: skip
    days = sorted(w for w in windows if len(w) == len("2026-11-23"))
    sums = await history.spending(days, sorted(windows.difference(days)))
    admissions = await history.recent_admissions(now_us - MINUTE_US)
    for one in sums:
        ledger.seed(one.tenant, [one])
    times: dict[str, list[int]] = {}
    for admission in admissions:
        for scope in (admission.tenant, key_scope(admission.tenant, admission.key_name)):
            times.setdefault(scope, []).append(admission.at_us)
    for scope, instants in times.items():
        ledger.seed_rates(scope, instants)
    ledger.open()
