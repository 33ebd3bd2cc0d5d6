"""Migrations: up, down and up again on both databases, one schema whichever way it was made."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from alembic import command
from perpetuo.adapters.sql import Database, SqlEventStore, migrate
from perpetuo.adapters.sql.partitions import ADVISORY_LOCK
from perpetuo.adapters.sql.tables import HEAD
from perpetuo.domain.model.events import Event
from tests import servers
from tests.contract.event_store_contract import event, sent

ROOT = Path(__file__).parents[3]
CATALOGUE = {
    "columns": """
        select table_name, ordinal_position, column_name, data_type, udt_name, character_maximum_length, is_nullable,
               column_default
        from information_schema.columns where table_schema = 'public' order by 1, 2""",
    "relations": """
        select c.relname, c.relkind, c.relispartition, pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)
        from pg_class c where c.relnamespace = 'public'::regnamespace order by 1""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'public'::regnamespace order by 1, 2""",
    "indexes": "select indexname, indexdef from pg_indexes where schemaname = 'public' order by 1",
    "comments": """
        select objoid::regclass::text, objsubid, description
        from pg_description d join pg_class c on c.oid = d.objoid
        where c.relnamespace = 'public'::regnamespace order by 1, 2""",
    "stamp": "select version_num from alembic_version",
}


def catalogue(url: str) -> dict[str, Sequence[Any]]:
    return {what: servers.sql(url, question) for what, question in CATALOGUE.items()}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return str(request.getfixturevalue("postgres_url"))


def tables(url: str) -> set[str]:
    async def names() -> set[str]:
        database = Database(url)
        async with database.engine.connect() as connection:
            found = await connection.run_sync(lambda c: sa.inspect(c).get_table_names())
        await database.close()
        return set(found)

    return asyncio.run(names())


def test_up_down_and_up_again(url: str) -> None:
    """A downgrade leaves nothing behind that a second upgrade would trip over."""
    assert migrate.current(url) is None
    assert not migrate.is_current(url)
    migrate.upgrade(url)
    made = tables(url)
    assert made >= {"events", "refusals", "events_rejected"}
    assert migrate.current(url) == HEAD
    migrate.downgrade(url)
    assert tables(url) == {"alembic_version"}
    migrate.upgrade(url)
    migrate.upgrade(url)
    assert tables(url) == made
    assert migrate.is_current(url)


def test_the_migrations_make_what_the_code_expects(url: str) -> None:
    """``alembic check``: no difference between the tables in the database and `tables.metadata`."""
    migrate.upgrade(url)
    command.check(migrate._config(url))


def test_a_difference_would_be_seen(postgres_url: str) -> None:
    """The check above can fail."""
    migrate.upgrade(postgres_url)
    servers.sql(postgres_url, "alter table events drop column tag")
    with pytest.raises(Exception, match="New upgrade operations"):
        command.check(migrate._config(postgres_url))


def test_the_init_script_makes_the_same_schema(postgres_url: str, new_database_url: Callable[[], str]) -> None:
    """``migrations/001_init.sql`` and ``alembic upgrade head``: equal catalogues; the upgrade after it does nothing."""
    by_script = new_database_url()
    asyncio.run(_run_script(by_script, (ROOT / "migrations" / "001_init.sql").read_text()))
    migrate.upgrade(postgres_url)
    assert catalogue(by_script) == catalogue(postgres_url)
    migrate.upgrade(by_script)
    assert catalogue(by_script) == catalogue(postgres_url)


async def _run_script(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(script)
    await connection.close()


def test_the_init_script_is_what_the_migrations_generate() -> None:
    """Whoever adds a migration runs the generator."""
    check = [sys.executable, str(ROOT / "scripts" / "generate_init_sql.py"), "--check"]
    assert subprocess.run(check, cwd=ROOT, check=False).returncode == 0


def test_plain_alembic_commands_work(url: str) -> None:
    """``DATABASE_URL=… alembic upgrade head`` in the checkout, as the contract says."""
    alembic = str(Path(sys.executable).parent / "alembic")
    environment = {"DATABASE_URL": url, "PATH": "/usr/bin:/bin"}
    subprocess.run([alembic, "upgrade", "head"], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert migrate.is_current(url)
    given = subprocess.run([alembic, "-x", f"url={url}", "current"], cwd=ROOT, check=True, capture_output=True)
    assert HEAD in given.stdout.decode()


def test_without_a_database_alembic_says_which_variable(tmp_path: Path) -> None:
    """A plain sentence, not a traceback."""
    alembic = str(Path(sys.executable).parent / "alembic")
    done = subprocess.run([alembic, "upgrade", "head"], cwd=ROOT, env={}, check=False, capture_output=True)
    assert done.returncode != 0
    assert b"DATABASE_URL" in done.stderr
    assert b"Traceback" not in done.stderr


def test_processes_that_migrate_at_once_take_turns(url: str) -> None:
    """Three containers starting together: one migrates, the others find it done."""
    alembic = str(Path(sys.executable).parent / "alembic")
    started = [subprocess.Popen([alembic, "-x", f"url={url}", "upgrade", "head"], cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert migrate.is_current(url)


def test_a_migration_that_never_ends_is_not_waited_for_for_ever(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advisory lock is asked for, not waited on."""
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.5)

    async def hold_and_upgrade() -> None:
        other = await asyncpg.connect(postgres_url)
        await other.execute(f"select pg_advisory_lock({ADVISORY_LOCK})")
        try:
            await asyncio.to_thread(migrate.upgrade, postgres_url)
        finally:
            await other.close()

    with pytest.raises(migrate.MigrationBusyError):
        asyncio.run(hold_and_upgrade())


def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path, postgres_url: str) -> None:
    """All in one transaction, on SQLite too: a table in the way, and none of ours is there afterwards."""
    path = tmp_path / "events.db"
    with sqlite3.connect(path) as sqlite:
        sqlite.execute("create table refusals (x)")
    servers.sql(postgres_url, "create table refusals (x int)")
    for url in (f"sqlite:///{path}", postgres_url):
        with pytest.raises(sa.exc.DBAPIError):
            migrate.upgrade(url)
        assert tables(url) == {"refusals"}


def test_minutes_that_are_there_become_hours(url: str) -> None:
    """Of what an older release has summed up; where events are left, minutes are marked, to be summed up by key."""
    command.upgrade(migrate._config(url), "0003")
    hour, figures = 29_700_000, ", ".join(["1"] * 11)
    minutes = [hour, hour + 1, hour + 60]
    asyncio.run(_written(url, event((hour + 1) * 60_000_000)))
    rows = (f"insert into rollups values ('tenant', 'acme', 'm', {at}, {figures})" for at in minutes)  # noqa: S608
    run_sql(url, *rows)
    migrate.upgrade(url)
    assert run_sql(url, "select name, model, minute, calls, output_tokens from rollup_hours") == [
        ("acme", "m", hour, 2, 2)
    ], "the newest hour may not be over"
    assert run_sql(url, "select count(*), sum(calls) from rollups") == [(3, 3)]
    assert (hour + 1,) in run_sql(url, "select minute from rollups_due")
    run_sql(url, f"insert into rollups (cut, name, minute, model, {FIGURES}) values ('key', 'acme', 1, 'k', {figures})")  # noqa: S608
    migrate.downgrade(url, "0003")
    assert run_sql(url, "select cut, model, count(*) from rollups group by 1, 2") == [("tenant", "m", 3)]


FIGURES = (
    "calls, completed, failed, cancelled, truncated, abandoned, refused, cost_nano_usd, input_tokens, output_tokens,"
    " cached_tokens"
)


async def _written(url: str, one: Event) -> None:
    store = SqlEventStore(Database(url))
    await store.write([sent(one)])
    await store.close()


def run_sql(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows of the last of them."""

    async def run() -> list[tuple[Any, ...]]:
        database = Database(url)
        async with database.engine.begin() as connection:
            done = [await connection.exec_driver_sql(one) for one in statements]
            rows = [tuple(row) for row in done[-1]] if done[-1].returns_rows else []
        await database.close()
        return rows

    return asyncio.run(run())


def test_a_newer_database_is_good_enough(url: str) -> None:
    """An older release keeps running while a newer one has already migrated."""
    migrate.upgrade(url)
    stamp = "update alembic_version set version_num = '9999'"
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as sqlite:
            sqlite.execute(stamp)
    else:
        servers.sql(url, stamp)
    assert migrate.is_current(url)


def test_head_is_the_newest_migration() -> None:
    """`tables.HEAD` is what the tree ends in, and ids ascend."""
    config = Config()
    config.set_main_option("script_location", str(migrate.tree()))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [HEAD]
    ids = [each.revision for each in script.walk_revisions()]
    assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    "url", ["postgres://u:s3cr3t@127.0.0.1:1/x", "{server}/nowhere", "sqlite:////nowhere/at/all.db"]
)
def test_a_database_that_is_not_there_is_a_plain_error(url: str, postgres_url: str) -> None:
    """`OSError` with the reason, and without the password."""
    given = url.format(server=postgres_url.rpartition("/")[0])
    for step in (migrate.upgrade, migrate.current):
        with pytest.raises(OSError, match=r"failed|not exist|no directory") as raised:
            step(given)
        assert "s3cr3t" not in str(raised.value)
