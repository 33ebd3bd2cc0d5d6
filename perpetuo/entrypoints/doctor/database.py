"""
Is this database fit to take events?

Values in, findings out: `perpetuo.adapters.sql.examine` has looked.
"""

from collections.abc import Iterator
from datetime import date, timedelta

from perpetuo.adapters.sql.examine import MOST_COUNTED, DatabaseSeen
from perpetuo.adapters.sql.tables import HEAD
from perpetuo.entrypoints.doctor.findings import Finding
from perpetuo.entrypoints.doctor.redis import clock, megabytes

OLDEST = 140_000
DAYS = 2
"""Fewer days ahead than these are too few: a gateway makes seven, and looks every hour."""
LITTLE, VERY_LITTLE = 15, 5
"""Percent of the disk that are free."""


def judge(seen: DatabaseSeen, today: date) -> Iterator[Finding]:
    yield Finding("database version", _version(seen), "database.version" if _is_old(seen) else None)
    if seen.replica:
        yield Finding("database role", "a standby, which only reads", "database.replica")
    yield _migrations(seen.migration)
    if seen.postgres:
        yield clock("database clock", seen.ahead_us, "database.clock", "database.clock")
        if seen.migration is not None:
            yield _partitions(seen, today)
            yield _default(seen.in_default)
    rejected = f"{_counted(seen.rejected)} rejected" if seen.rejected else "none rejected"
    yield Finding("events in SQL", rejected, "events.rejected" if seen.rejected else None)
    yield _disk(seen)


def _version(seen: DatabaseSeen) -> str:
    return f"{'PostgreSQL' if seen.postgres else 'SQLite'} {seen.version}"


def _is_old(seen: DatabaseSeen) -> bool:
    return seen.postgres and seen.number < OLDEST


def _migrations(found: str | None) -> Finding:
    if found is None:
        return Finding("migrations", "none was run", "migrations.missing")
    if found < HEAD:
        return Finding("migrations", f"at {found}; this release needs {HEAD}", "migrations.behind")
    return Finding("migrations", f"at {found}" + (", newer than this release" if found > HEAD else ""))


def _partitions(seen: DatabaseSeen, today: date) -> Finding:
    wanted = [today + timedelta(days=n) for n in range(DAYS + 1)]
    missing = [day for day in wanted if day not in seen.days]
    if missing:
        text = f"none for {', '.join(day.isoformat() for day in missing)}"
        return Finding("partitions", text, "partitions.few")
    return Finding("partitions", f"made until {max(seen.days).isoformat()}")


def _default(rows: int) -> Finding:
    if rows:
        return Finding("default partition", f"{_counted(rows)} rows", "partitions.default")
    return Finding("default partition", "empty")


def _counted(rows: int) -> str:
    return f"{rows:,}" + (" or more" if rows >= MOST_COUNTED else "")


def _disk(seen: DatabaseSeen) -> Finding:
    size = f"{megabytes(seen.size)} in use" if seen.size is not None else "size not known"
    if seen.disk is None or seen.disk.size == 0:
        return Finding("database disk", f"{size}; its disk can't be seen from here")
    free = seen.disk.free * 100 // seen.disk.size
    code = "database.disk-full" if free < VERY_LITTLE else "database.disk" if free < LITTLE else None
    return Finding("database disk", f"{size}; {free} % of the disk are free ({megabytes(seen.disk.free)})", code)
