"""How is this worker, and what does it stand on?"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from perpetuo import __version__
from perpetuo.adapters.telemetry.cells import read_all
from perpetuo.adapters.telemetry.metrics import AT, IN_FLIGHT, name_of
from perpetuo.adapters.telemetry.page import STALE_SECONDS
from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.stores import Away, asked

T = TypeVar("T")
STORE_NAMES = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite", "memory": "Ledger in this process"}


async def system(container: Container) -> Facts:
    """This worker, its neighbours, the stores, the configuration."""
    (backlog, stream_ms), (ping, sql_ms) = await asyncio.gather(
        _timed(container, container.stores.stream.backlog()), _timed(container, container.store.ping())
    )
    problems, settings, environment = container.problems(), container.settings, container.environment
    running, in_flight = await asyncio.to_thread(_alive, environment.run_dir, container.system.monotonic())
    return {
        "version": __version__,
        "stage": container.stage,
        "problems": problems,
        "stores": [
            {
                "name": STORE_NAMES[name],
                "answers": not isinstance(answer, Away),
                "answered_in_ms": None if isinstance(answer, Away) else ms,
                "problem": problems.get(name),
            }
            for name, answer, ms in (
                (container.stores.name, backlog, stream_ms),
                (container.database_name, ping, sql_ms),
            )
        ],
        "workers": {"running": running, "configured": environment.workers},
        "in_flight": in_flight if in_flight is not None else len(container.gateway.in_flight),
        "events_backlog": None if isinstance(backlog, Away) else backlog,
        "config": {
            "version": settings.version,
            "loaded_at": iso(container.config.loaded_at_us),
            "problems": list(container.config.problems),
            "tenants": len(settings.tenants),
            "models": len(settings.models.by_name),
            "providers": len(settings.providers),
        },
    }


async def _timed(container: Container, step: Awaitable[T]) -> tuple[T | Away, float]:
    before = container.system.monotonic()
    answer = await asked(step)
    return answer, round((container.system.monotonic() - before) * 1_000, 1)


def _alive(run_dir: Path | None, now: float) -> tuple[int | None, int | None]:
    """How many workers of this server have told of themselves lately, and how many calls they have in flight."""
    if run_dir is None:
        return None, None
    value, at = name_of(IN_FLIGHT), name_of(IN_FLIGHT, part=AT)
    fresh = [slot for slot in read_all(run_dir / "metrics") if slot.get(at, 0.0) > now - STALE_SECONDS]
    return len(fresh), round(sum(slot.get(value, 0.0) for slot in fresh))
