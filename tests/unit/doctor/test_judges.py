"""What do the checks of `perpetuo doctor` make of what was seen?"""

from datetime import date, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.redis.examine import RedisSeen
from perpetuo.adapters.redis.keys import FORMAT_VERSION
from perpetuo.adapters.sql.examine import DatabaseSeen, Disk
from perpetuo.adapters.sql.tables import HEAD
from perpetuo.entrypoints.doctor import database, redis
from perpetuo.entrypoints.doctor.findings import FINDINGS, Finding, worst
from perpetuo.entrypoints.doctor.here import judge_environment, read_environment

TODAY = date(2026, 11, 26)
GOOD_FACTS = {
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "used_memory": "1048576",
    "maxmemory": "104857600",
    "connected_slaves": "0",
}
GOOD_REDIS = RedisSeen(GOOD_FACTS, ahead_us=200, ping_ms=0.2, layout=FORMAT_VERSION, backlog=3, unread=0)
GOOD_DATABASE = DatabaseSeen(
    postgres=True,
    version="15.4",
    number=150_004,
    migration=HEAD,
    days=frozenset(TODAY + timedelta(days=n) for n in range(8)),
    size=10_000_000,
    disk=Disk(50, 100),
)


def codes(found: "list[Finding]") -> set[str]:
    return {finding.code for finding in found if finding.code is not None}


def redis_codes(**facts: str) -> set[str]:
    return codes(list(redis.judge(attrs.evolve(GOOD_REDIS, facts=GOOD_FACTS | facts))))


def test_a_redis_as_it_should_be_has_no_findings() -> None:
    """And each of its checks says what it saw."""
    found = list(redis.judge(GOOD_REDIS))
    assert codes(found) == set()
    assert all(finding.seen for finding in found)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"redis_version": "6.0.16"}, "redis.version"),
        ({"redis_version": "5.0"}, "redis.version"),
        ({"maxmemory_policy": "allkeys-lru"}, "redis.policy"),
        ({"aof_enabled": "0"}, "redis.unsaved"),
        ({"aof_enabled": "0", "rdb_last_bgsave_time_sec": "0"}, "redis.snapshots"),
        ({"aof_last_write_status": "err"}, "redis.save-failed"),
        ({"rdb_last_bgsave_status": "err"}, "redis.save-failed"),
        ({"used_memory": "89128960"}, "redis.full"),
        ({"used_memory": "73400320"}, "redis.filling"),
        ({"maxmemory": "0"}, "redis.unlimited"),
        ({"connected_slaves": "1", "slave0": "ip=10.0.0.2,port=6379,state=wait_bgsave"}, "redis.replica-away"),
    ],
)
def test_what_is_wrong_with_redis_is_named(facts: dict[str, str], code: str) -> None:
    """One thing wrong is one finding, and nothing else."""
    assert redis_codes(**facts) == {code}


@pytest.mark.parametrize("version", ["6.2.0", "6.2.14", "7.0.15", "8.0.1", "10.0", "unknown"])
def test_every_redis_from_6_2_on_is_good(version: str) -> None:
    """Versions are numbers, not text: 10 is newer than 6.2. One that is not told is not held against it."""
    assert redis_codes(redis_version=version) == set()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"layout": "2"}, "redis.layout"),
        ({"ahead_us": 1_500_000}, "redis.clock"),
        ({"ahead_us": -90_000_000}, "redis.clock-far"),
        ({"ping_ms": 30.0}, "redis.slow"),
        ({"backlog": 20_000}, "events.backlog"),
        ({"unread": 2}, "events.unread"),
    ],
)
def test_what_else_was_seen_of_redis_is_judged(change: dict[str, Any], code: str) -> None:
    """Layout, clock, latency, streams."""
    assert codes(list(redis.judge(attrs.evolve(GOOD_REDIS, **change)))) == {code}


@given(st.dictionaries(st.sampled_from([*GOOD_FACTS, "slave0", "rdb_last_bgsave_time_sec"]), st.just("")))
def test_an_info_that_lacks_lines_breaks_nothing(missing: dict[str, str]) -> None:
    """Managed Redis leaves lines out."""
    facts = {name: value for name, value in GOOD_FACTS.items() if name not in missing}
    assert len(list(redis.judge(attrs.evolve(GOOD_REDIS, facts=facts)))) == 9


def database_codes(**change: Any) -> set[str]:
    return codes(list(database.judge(attrs.evolve(GOOD_DATABASE, **change), TODAY)))


def test_a_database_as_it_should_be_has_no_findings() -> None:
    """A newer one than this release is good too."""
    assert database_codes() == set()
    assert database_codes(migration="9999") == set()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"number": 130_012, "version": "13.12"}, "database.version"),
        ({"replica": True}, "database.replica"),
        ({"migration": None}, "migrations.missing"),
        ({"migration": "0001"}, "migrations.behind"),
        ({"days": frozenset([TODAY])}, "partitions.few"),
        ({"in_default": 4}, "partitions.default"),
        ({"rejected": 1000}, "events.rejected"),
        ({"ahead_us": 2_000_000}, "database.clock"),
        ({"disk": Disk(10, 100)}, "database.disk"),
        ({"disk": Disk(1, 100)}, "database.disk-full"),
    ],
)
def test_what_is_wrong_with_the_database_is_named(change: dict[str, object], code: str) -> None:
    """One thing wrong is one finding, and nothing else."""
    assert database_codes(**change) == {code}


def test_sqlite_is_not_asked_for_partitions_or_its_clock() -> None:
    """It has neither."""
    seen = DatabaseSeen(postgres=False, version="3.40.1", migration=HEAD)
    assert {finding.check for finding in database.judge(seen, TODAY)} == {
        "database version", "migrations", "events in SQL", "database disk",
    }  # fmt: skip


def test_variables_that_can_not_be_obeyed_do_not_hide_the_others() -> None:
    """Each is a finding of its own; what else was set is examined."""
    asked, found = read_environment(
        {"PORT": "many", "WORKERS": "0", "PERPETUO_ADMIN_KEY": "short", "REDIS_URL": "redis://elsewhere:6379"}
    )
    assert [finding.code for finding in found] == ["environment.invalid"] * 3
    assert asked.redis_url == "redis://elsewhere:6379"
    assert asked.admin_key is None
    assert "short" not in " ".join(finding.seen for finding in found)


def test_an_open_management_port_and_a_missing_admin_key_are_told() -> None:
    """As `perpetuo serve` warns."""
    asked, _ = read_environment({"HOST": "0.0.0.0", "WORKERS": "1000"})
    assert codes(list(judge_environment(asked, None))) == {"admin-key.missing", "management.open", "workers.many"}


def test_the_level_of_the_whole_is_the_worst() -> None:
    """A warning is not bad, and nothing wrong is ok."""
    bad = next(code for code, advice in FINDINGS.items() if advice.level == "bad")
    warning = next(code for code, advice in FINDINGS.items() if advice.level == "warn")
    fine = Finding("a", "b")
    assert worst([fine]) == "ok"
    assert worst([fine, Finding("a", "b", warning)]) == "warn"
    assert worst([fine, Finding("a", "b", warning), Finding("a", "b", bad)]) == "bad"
