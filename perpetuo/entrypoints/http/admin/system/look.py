"""How is this worker, and what does it stand on?"""

import asyncio
from pathlib import Path

from perpetuo import __version__
from perpetuo.adapters.telemetry.cells import read_all
from perpetuo.adapters.telemetry.metrics import AT, IN_FLIGHT, name_of
from perpetuo.adapters.telemetry.page import STALE_SECONDS
from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.stores import Away, asked

STORE_NAMES = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite", "memory": "Ledger in this process"}


async def system(container: Container) -> Facts:
    """This worker, its neighbours, the stores, the configuration."""
    backlog, ping = await asyncio.gather(asked(container.stores.stream.backlog()), asked(container.store.ping()))
    problems, settings, environment = container.problems(), container.settings, container.environment
    running, in_flight = await asyncio.to_thread(_alive, environment.run_dir, container.system.monotonic())
    return {
        "version": __version__,
        "stage": container.stage,
        "problems": problems,
        "stores": [
            {"name": STORE_NAMES[name], "answers": not isinstance(answer, Away), "problem": problems.get(name)}
            for name, answer in ((container.stores.name, backlog), (container.database_name, ping))
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


def _alive(run_dir: Path | None, now: float) -> tuple[int | None, int | None]:
    """How many workers of this server have told of themselves lately, and how many calls they have in flight."""
    if run_dir is None:
        return None, None
    value, at = name_of(IN_FLIGHT), name_of(IN_FLIGHT, part=AT)
    fresh = [slot for slot in read_all(run_dir / "metrics") if slot.get(at, 0.0) > now - STALE_SECONDS]
    return len(fresh), round(sum(slot.get(value, 0.0) for slot in fresh))
