"""How is this worker, and what does it stand on?"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from perpetuo import __version__
from perpetuo.adapters.telemetry.cells import Name, read_all
from perpetuo.adapters.telemetry.metrics import AT, CONFIGURATIONS, IN_FLIGHT, TASKS, name_of
from perpetuo.adapters.telemetry.page import STALE_SECONDS, versions
from perpetuo.bootstrap import Container
from perpetuo.entrypoints.http.account import iso
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.stores import Away, asked

T = TypeVar("T")
VERSION_DIGITS = 12
STORE_NAMES = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite", "memory": "Ledger in this process"}


async def system(container: Container) -> Facts:
    """This worker, its neighbours, the stores, the configuration."""
    (backlog, stream_ms), (ping, sql_ms) = await asyncio.gather(
        _timed(container, container.stores.stream.backlog()), _timed(container, container.store.ping())
    )
    problems, settings, environment = container.problems(), container.settings, container.environment
    alive = await asyncio.to_thread(_alive, environment.run_dir, container.system.monotonic())
    running, in_flight = _counted(alive)
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
        "workers": {"running": running, "configured": environment.workers, "items": _workers(container, alive)},
        "in_flight": in_flight if in_flight is not None else len(container.gateway.in_flight),
        "events_backlog": None if isinstance(backlog, Away) else backlog,
        "config": {
            "version": settings.version,
            "loaded_at": iso(container.config.loaded_at_us),
            "problems": list(container.config.problems),
            "versions": versions(alive or ()) or 1,
            "tenants": len(settings.tenants),
            "models": len(settings.models.by_name),
            "providers": len(settings.providers),
        },
    }


def _workers(container: Container, alive: list[dict[Name, float]] | None) -> list[Facts]:
    """By which configuration each worker goes, and since when; in the order of their numbers."""
    if alive is None:
        return [_worker(1, container.settings.version, container.config.loaded_at_us, container)]
    found = []
    for slot in alive:
        number = next((int(name[2]) for name in slot if name[0] == TASKS.name), None)
        version, read_us = slot.get(name_of(CONFIGURATIONS)), slot.get(name_of(CONFIGURATIONS, part=AT), 0.0)
        if number is not None and version is not None:
            found.append(_worker(number + 1, f"{int(version):0{VERSION_DIGITS}x}", int(read_us), container))
    return sorted(found, key=lambda worker: int(worker["worker"]))


def _worker(number: int, version: str, read_us: int, container: Container) -> Facts:
    same = version == container.settings.version
    return {"worker": number, "config": version, "read_at": iso(read_us) if read_us else None, "same_as_this": same}


async def software(container: Container) -> Facts:
    """Versions of what the stores run on, by the stores' names; ``None``: not known now."""
    redis = container.stores.redis
    sql = await asked(container.store.version())
    return {
        STORE_NAMES[container.stores.name]: redis.watch.version if redis is not None else None,
        STORE_NAMES[container.database_name]: None if isinstance(sql, Away) else sql,
    }


async def _timed(container: Container, step: Awaitable[T]) -> tuple[T | Away, float]:
    before = container.system.monotonic()
    answer = await asked(step)
    return answer, round((container.system.monotonic() - before) * 1_000, 1)


def _alive(run_dir: Path | None, now: float) -> list[dict[Name, float]] | None:
    """The numbers of this server's workers that have told of themselves lately; ``None``: there is but this one."""
    if run_dir is None:
        return None
    at = name_of(IN_FLIGHT, part=AT)
    return [slot for slot in read_all(run_dir / "metrics") if slot.get(at, 0.0) > now - STALE_SECONDS]


def _counted(alive: list[dict[Name, float]] | None) -> tuple[int | None, int | None]:
    """How many workers there are, and how many calls they have in flight."""
    if alive is None:
        return None, None
    value = name_of(IN_FLIGHT)
    return len(alive), round(sum(slot.get(value, 0.0) for slot in alive))
