"""
How does a database get the tables this release needs?

Rule 1: one Alembic tree for Postgres and SQLite, run by `perpetuo migrate`, by plain ``alembic``
commands, and offline to generate ``migrations/001_init.sql``.
Rule 2: all of it is one transaction, under a lock with a bounded wait: any number of processes may migrate at
once. On Postgres it is a transaction's advisory lock, which also holds behind PgBouncer; on SQLite it is the
database's own write lock.
The functions block and start an event loop of their own: call them from a thread where one is running.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection

from alembic import command
from perpetuo.adapters.sql.database import Database, describe
from perpetuo.adapters.sql.partitions import ADVISORY_LOCK, partition_day
from perpetuo.adapters.sql.tables import HEAD, metadata

LOCK_SECONDS = 60.0
POLL_SECONDS = 0.25
DEFAULT_PARTITION = "events_default"


class MigrationBusyError(RuntimeError):
    """Somebody else has been migrating this database for too long."""


def upgrade(url: str) -> None:
    """Bring the database to this release's tables; does nothing when it is there already."""
    command.upgrade(_config(url), "head")


def downgrade(url: str, revision: str = "base") -> None:
    """Undo migrations down to ``revision``. With ``base`` every row is lost."""
    command.downgrade(_config(url), revision)


def current(url: str) -> str | None:
    """The migration the database stands at; ``None``: it has none."""
    return asyncio.run(_current(url))


def is_current(url: str) -> bool:
    """Does the database have what this release needs? A newer one does."""
    return (current(url) or "") >= HEAD


def init_sql() -> str:
    """All migrations as one script for ``psql`` on an empty Postgres database, stamped as done."""
    out = io.StringIO()
    command.upgrade(_config("postgresql://", out), "head", sql=True)
    return out.getvalue()


def tree() -> Path:
    """The directory of ``env.py``: in the package when installed, beside it in a checkout."""
    package = Path(str(files("perpetuo")))
    return next(path for path in (package / "alembic", package.parent / "alembic") if (path / "env.py").is_file())


def _config(url: str, out: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=out) if out else Config()
    config.set_main_option("script_location", str(tree()).replace("%", "%%"))
    config.attributes["url"] = url
    return config


async def _current(url: str) -> str | None:
    async with _connected(Database(url)) as connection:
        return await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_revision())


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[AsyncConnection]:
    """One connection, closed with its pool; `ConnectionError` says why there is none."""
    try:
        try:
            connection = await database.engine.connect()
        except (exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise ConnectionError(describe(error)) from error
        async with aclosing(connection):
            yield connection
    finally:
        await database.close()


# --- what ``alembic/env.py`` runs ----------------------------------------------------------------


def run(context: Any, environment_url: str | None) -> None:
    """Run the migrations that were asked for, online or as a script."""
    url = _url(context, environment_url)
    if context.is_offline_mode():
        _script(context, url)
    else:
        asyncio.run(_migrate(context, url))


def _url(context: Any, environment_url: str | None) -> str:
    """From our own functions, from ``-x url=…``, or from the environment, in this order."""
    given = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get("url")
    url = given or environment_url
    if not url:
        raise SystemExit("Which database? Set DATABASE_URL, or use `alembic -x url=postgresql://… upgrade head`.")
    return str(url)


def _script(context: Any, url: str) -> None:
    dialect = Database(url).engine.dialect.name
    context.configure(dialect_name=dialect, literal_binds=True, **_options(dialect))
    with context.begin_transaction():
        context.run_migrations()


async def _migrate(context: Any, url: str) -> None:
    database = Database(url)
    async with _connected(database) as connection:
        await connection.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        async with connection.begin():
            if database.postgres:
                await _lock(connection)
            await connection.run_sync(_apply, context)


async def _lock(connection: AsyncConnection) -> None:
    """Wait our turn; asked again and again, because a wait on the server would outlast a lost client."""
    take = sa.text("SELECT pg_try_advisory_xact_lock(:key)")
    for _ in range(int(LOCK_SECONDS / POLL_SECONDS)):
        if await connection.scalar(take, {"key": ADVISORY_LOCK}):
            return
        await asyncio.sleep(POLL_SECONDS)
    raise MigrationBusyError(f"another process has been migrating this database for {LOCK_SECONDS:.0f} s")


def _apply(connection: sa.Connection, context: Any) -> None:
    context.configure(connection=connection, **_options(connection.dialect.name))
    with context.begin_transaction():
        context.run_migrations()


def _options(dialect: str) -> dict[str, Any]:
    compared = {"compare_type": True, "compare_server_default": dialect != "sqlite"}  # where no identity is seen
    return {"target_metadata": metadata, "include_name": ours, **compared}


def ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Partitions are made by the running gateway and are none of Alembic's business."""
    return not (kind == "table" and name and (name == DEFAULT_PARTITION or partition_day(name)))
