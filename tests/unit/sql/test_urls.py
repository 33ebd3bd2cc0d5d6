"""Which databases a DATABASE_URL can name, and how it reaches the driver."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.sql.database import Database, libpq_url
from perpetuo.adapters.sql.ids import day_of, day_range, days_of, floor_id
from perpetuo.adapters.sql.values import micros, moment
from perpetuo.adapters.system import uuid7


def driver_sees(url: str) -> tuple[Any, Any]:
    """Addresses and parameters as asyncpg reads them."""
    unset = dict.fromkeys(inspect.signature(_parse_connect_dsn_and_args).parameters)
    addresses, parameters, *_ = _parse_connect_dsn_and_args(**unset | {"dsn": libpq_url(url)})
    return addresses, parameters


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_spelling_of_postgres_reaches_the_driver(scheme: str) -> None:
    """The contract's three schemes are the same database, special characters in the password included."""
    (address,), parameters = driver_sees(f"{scheme}://user:p%40ss%2F@db:6543/events")
    assert address == ("db", 6543)
    assert (parameters.user, parameters.password, parameters.database) == ("user", "p@ss/", "events")


@pytest.mark.parametrize("option", ["sslmode=require", "ssl=require", "sslmode=require&channel_binding=require"])
def test_31_sslmode_is_obeyed(option: str) -> None:
    """A hoster's URL works as pasted: TLS as asked for, options of other drivers left out."""
    _, parameters = driver_sees(f"postgres://u:p@db/events?{option}&pgbouncer=true")
    assert parameters.sslmode.name == "require"
    assert parameters.ssl is not None
    assert not parameters.server_settings


def test_31_sslmode_disable_means_no_tls() -> None:
    """And nothing else does."""
    _, parameters = driver_sees("postgres://u:p@db/events?sslmode=disable")
    assert not parameters.ssl


def test_31_a_ca_of_ones_own_is_verified_against(tmp_path: Path) -> None:
    """``sslrootcert`` is read by the driver: a missing file is an error, not a silent fallback."""
    with pytest.raises(Exception, match="No such file"):
        driver_sees(f"postgres://u:p@db/events?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem")


@pytest.mark.parametrize("url", ["mysql://u:s3cr3t@db/events", "db.example", ""])
def test_another_database_is_refused_without_its_password(url: str) -> None:
    """The error says which schemes there are, and repeats no secret."""
    with pytest.raises(ValueError, match="postgresql://") as raised:
        Database(url)
    assert "s3cr3t" not in str(raised.value)


@given(ms=st.integers(0, 253_402_300_799_999 - 86_400_000), rand=st.integers(0, 2**74 - 1))
def test_a_uuid7_lies_in_the_range_of_its_day(ms: int, rand: int) -> None:
    """The partition a row goes to is the one that was made for it."""
    made = uuid7(ms, rand)
    day = day_of(made)
    assert day is not None
    assert day == moment(ms * 1000).date()
    start, end = day_range(day)
    assert start <= made < end
    assert floor_id(ms) <= made < floor_id(ms + 1)


@given(st.lists(st.integers(0, 253_402_300_799_999 - 2 * 86_400_000), max_size=20))
def test_a_batch_has_the_days_of_its_ids(times: list[int]) -> None:
    """None is missing, and at most the day that begins within the next minute is there too."""
    days = {moment(ms * 1000).date() for ms in times}
    soon = {moment((ms + 65_536) * 1000).date() for ms in times}
    past = {moment(max(ms - 65_536, 0) * 1000).date() for ms in times}
    assert days <= days_of(uuid7(ms, 0) for ms in times) <= days | soon | past


@pytest.mark.parametrize(
    "other", ["7f1c0a52-61c5-4d9f-9e3e-0b0a3c7a1d11", "ffffffff-ffff-7000-8000-000000000000", "", "x"]
)
def test_what_is_no_uuid7_has_no_day(other: str) -> None:
    """Neither have years beyond the calendar."""
    assert day_of(other) is None


@given(us=st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_times_survive_to_the_microsecond(us: int) -> None:
    """µs → datetime → µs is the identity over the whole calendar."""
    assert micros(moment(us)) == us
