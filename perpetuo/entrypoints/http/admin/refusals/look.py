"""What was refused, by the minute?"""

from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.admin.facts import Facts, listed
from perpetuo.entrypoints.http.admin.refusals.facts import refusal
from perpetuo.entrypoints.http.admin.stores import Away, asked

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US


async def refusals(container: Container, span_us: int, tenant: str | None = None) -> Facts:
    """By the minute, newest first."""
    rows = await asked(container.store.refusals(container.system.now_us() - span_us, tenant))
    if isinstance(rows, Away):
        return listed([], rows.why)
    return listed([refusal(row) for row in rows])
