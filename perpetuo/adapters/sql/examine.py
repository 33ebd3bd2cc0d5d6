"""
What does a database say of itself, and how do our tables stand in it?

For `perpetuo doctor`: one transaction, which changes nothing. A SQLite file is not made by being looked for.
"""

import ipaddress
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from perpetuo.adapters.sql.database import Database, Patience
from perpetuo.adapters.sql.partitions import CHILDREN, partition_day
from perpetuo.adapters.system import RealSystem

MOST_COUNTED = 1_000
POSTGRES = sa.text(
    "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,"
    " pg_is_in_recovery() AS replica, extract(epoch FROM clock_timestamp()) AS now,"
    " pg_database_size(current_database()) AS size, host(inet_server_addr()) AS address,"
    " (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS directory,"
    " to_regclass('alembic_version') IS NOT NULL AS stamped, to_regclass('events') IS NOT NULL AS events,"
    " to_regclass('events_default') IS NOT NULL AS spare, to_regclass('events_rejected') IS NOT NULL AS rejected"
)
SQLITE = sa.text("SELECT sqlite_version() AS version, (SELECT group_concat(name) FROM sqlite_master) AS tables")


@attrs.frozen
class Disk:
    """Bytes of the file system on which the data lies."""

    free: int
    size: int


@attrs.frozen
class DatabaseSeen:
    """``migration`` ``None``: not one was run. Rows are counted up to `MOST_COUNTED`."""

    postgres: bool
    version: str
    number: int = 0
    """As Postgres counts: 150004 is 15.4."""
    replica: bool = False
    ahead_us: int = 0
    migration: str | None = None
    days: frozenset[date] = frozenset()
    """Days that have a partition."""
    in_default: int = 0
    rejected: int = 0
    size: int | None = None
    disk: Disk | None = None


async def examine(url: str, seconds: float) -> DatabaseSeen:
    """Raises `StoreUnavailable` with what kept us out, and `FileNotFoundError` for a SQLite file that is not there."""
    database = Database(url)
    try:
        if not database.postgres:
            path = Path(database.engine.url.database or "")
            size = _size(path)
            async with database.transaction(Patience(seconds, seconds, seconds)) as connection:
                return await _sqlite(connection, path, size)
        async with database.transaction(Patience(seconds, seconds, seconds)) as connection:
            return await _postgres(connection)
    finally:
        await database.close()


async def _postgres(connection: AsyncConnection) -> DatabaseSeen:
    system = RealSystem()
    before_us = system.now_us()
    row = (await connection.execute(POSTGRES)).mappings().one()
    here_us = (before_us + system.now_us()) // 2
    names = (await connection.execute(CHILDREN)).scalars().all() if row["events"] else []
    return DatabaseSeen(
        postgres=True,
        version=row["version"].split()[0],
        number=row["number"],
        replica=row["replica"],
        ahead_us=int(row["now"] * 1_000_000) - here_us,
        migration=await _migration(connection) if row["stamped"] else None,
        days=frozenset(day for name in names if (day := partition_day(name))),
        in_default=await _count(connection, "events_default") if row["spare"] else 0,
        rejected=await _count(connection, "events_rejected") if row["rejected"] else 0,
        size=row["size"],
        disk=_disk_of(row),
    )


async def _sqlite(connection: AsyncConnection, path: Path, size: int) -> DatabaseSeen:
    row = (await connection.execute(SQLITE)).mappings().one()
    tables = (row["tables"] or "").split(",")
    return DatabaseSeen(
        postgres=False,
        version=row["version"],
        migration=await _migration(connection) if "alembic_version" in tables else None,
        rejected=await _count(connection, "events_rejected") if "events_rejected" in tables else 0,
        size=size,
        disk=_disk(path),
    )


def _size(path: Path) -> int:
    """Bytes; raises `FileNotFoundError` also for what is no file."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path.stat().st_size


async def _migration(connection: AsyncConnection) -> str | None:
    found: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


async def _count(connection: AsyncConnection, table: str) -> int:
    some = sa.select(sa.literal(1)).select_from(sa.table(table)).limit(MOST_COUNTED).subquery()
    return int(await connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0)


def _disk_of(row: Mapping[Any, Any]) -> Disk | None:
    """Only of a server on this machine that tells us where its data lies."""
    local = row["address"] is None or ipaddress.ip_address(row["address"]).is_loopback
    return _disk(Path(row["directory"])) if local and row["directory"] else None


def _disk(path: Path) -> Disk | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
