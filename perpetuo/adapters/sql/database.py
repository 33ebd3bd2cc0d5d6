"""
How is SQL reached, and what do its errors mean?

Rule 1: no wait is unbounded. Each transaction names its `Patience`; the server keeps it (lock and
statement timeouts), and this side too, for a server that has stopped answering.
Rule 2: there are two kinds of failure. `Unacceptable`: these values will never be taken, whoever asks
and whenever. `StoreUnavailable`: anything else; wait and repeat.
Rule 3: PgBouncer in transaction mode is fine: no named prepared statements, no start-up parameters,
no session state, and everything happens inside a transaction.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import attrs
import msgspec
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from perpetuo.domain.ports import StoreUnavailable

CONNECT_SECONDS = 5.0
BUSY_SECONDS = 2.0
FOREIGN_OPTIONS = {"channel_binding", "connect_timeout", "gssencmode", "pgbouncer", "prepared_statement_cache_size"}
"""Options of other drivers that URLs from hosters carry; asyncpg would send them to the server as settings."""
DATA_ERRORS = ("21", "22", "23", "54")
"""SQLSTATE classes: cardinality, data exception, constraint, a program limit such as the size of an index entry."""
UNDEFINED_TABLE, QUERY_CANCELED = "42P01", "57014"
UNMIGRATED = "the database lacks our tables: run `perpetuo migrate`"


class Unacceptable(ValueError):  # noqa: N818 - says what is wrong with the values
    """The database refuses these values and always will."""


class OutOfTimeError(StoreUnavailable):
    """The server ended a statement, mostly because the time that its `Patience` left was over."""


@attrs.frozen
class Patience:
    """Seconds to wait for a lock, for one statement, and for a whole transaction."""

    lock: float
    statement: float
    total: float


WRITING = Patience(lock=2, statement=5, total=8)
READING = Patience(lock=2, statement=8, total=10)
MAINTAINING = Patience(lock=2, statement=60, total=90)


class Database:
    """A pool of connections to one database; nothing is connected before the first transaction."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.postgres = self.engine.dialect.name == "postgresql"
        self.problem: str | None = None
        """What was wrong with the latest transaction."""

    @asynccontextmanager
    async def transaction(self, patience: Patience) -> AsyncIterator[AsyncConnection]:
        """Commit at the end of the block; raises `Unacceptable` or `StoreUnavailable`."""
        try:
            async with asyncio.timeout(patience.total), self.engine.begin() as connection:
                if self.postgres:
                    await connection.execute(SET_TIMEOUTS, _milliseconds(patience))
                yield connection
        except (exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, OverflowError) as error:
            if _is_about_values(error):
                raise Unacceptable(describe(error)) from error
            self.problem = describe(error)
            raise (OutOfTimeError if _sqlstate(error) == QUERY_CANCELED else StoreUnavailable)(self.problem) from error
        self.problem = None

    async def close(self) -> None:
        await self.engine.dispose()


SET_TIMEOUTS = sa.text(
    "SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :statement, true),"
    " set_config('jit', 'off', true)"
)
"""
``SET LOCAL``: a session setting would leak to others behind PgBouncer.

Compiling a statement over 99 partitions took 1.7 s to save some milliseconds of 60.
"""

SET_STATEMENT_TIMEOUT = sa.text("SELECT set_config('statement_timeout', :statement, true)")
"""For the rest of the transaction."""


def _milliseconds(patience: Patience) -> dict[str, str]:
    return {"lock": f"{int(patience.lock * 1000)}ms", "statement": f"{int(patience.statement * 1000)}ms"}


def _is_about_values(error: Exception) -> bool:
    if isinstance(error, OverflowError):  # an integer beyond SQLite's 64 bits
        return True
    if not isinstance(error, exc.DBAPIError) or error.connection_invalidated:
        return False
    state = _sqlstate(error)
    if state is not None:
        return state.startswith(DATA_ERRORS)
    return isinstance(error, exc.DataError | exc.IntegrityError)


def _sqlstate(error: BaseException) -> str | None:
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    return None if state is None else str(state)


def describe(error: Exception) -> str:
    """One line for an operator, without statement or parameters."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    text = str(cause).partition("\n")[0] or type(cause).__name__
    if getattr(cause, "sqlstate", None) == UNDEFINED_TABLE or "no such table" in text:
        return UNMIGRATED
    return "no answer in time" if isinstance(cause, TimeoutError) else text.rpartition(">: ")[2]


# --- engines -------------------------------------------------------------------------------------


def make_engine(url: str) -> AsyncEngine:
    """An engine for ``postgres://``, ``postgresql://``, ``postgresql+asyncpg://`` or ``sqlite:///file``."""
    scheme = url.partition(":")[0].lower()
    if scheme.partition("+")[0] in {"postgres", "postgresql"}:
        return _postgres(url)
    if scheme.partition("+")[0] == "sqlite":
        return _sqlite("sqlite+aiosqlite:" + url.partition(":")[2])
    raise ValueError(f"DATABASE_URL starts with {scheme!r}: it must be postgres://, postgresql:// or sqlite:///file")


def _postgres(url: str) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        connect_args={
            "dsn": libpq_url(url),
            "timeout": CONNECT_SECONDS,
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        },
        pool_size=2,
        max_overflow=3,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=_dumps,
        json_deserializer=msgspec.json.decode,
    )


def libpq_url(url: str) -> str:
    """
    The URL as asyncpg reads it, ``sslmode``, ``sslrootcert`` and the like included.

    SQLAlchemy's spelling (``+asyncpg``, ``ssl=``) is translated, options of other drivers are dropped.
    """
    parts = urlsplit(url)
    options = [
        ("sslmode" if name == "ssl" else name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name not in FOREIGN_OPTIONS
    ]
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(options)))


def _sqlite(url: str) -> AsyncEngine:
    engine = create_async_engine(
        url, hide_parameters=True, json_serializer=_dumps, json_deserializer=msgspec.json.decode
    )
    directory = Path(engine.url.database or "").parent
    if not directory.is_dir():
        raise FileNotFoundError(f"DATABASE_URL names a file in {directory}, which is no directory")
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would leave DDL outside of transactions
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", f"busy_timeout={int(BUSY_SECONDS * 1000)}", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _dumps(value: Any) -> str:
    return msgspec.json.encode(value).decode()
