"""Redis and PostgreSQL fail in every way they can, under traffic: words, and books that agree (R5, A2, A3, B7, O2)."""

import contextlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import httpx
import pytest

from perpetuo.domain.model.errors import Reason
from tests.integration.faults.traffic import Traffic, audit, judge
from tests.integration.redis.proxy import LossyProxy, lossy_proxy_aside
from tests.live import LiveGateway, eventually, rows
from tests.patience import best
from tests.servers import PostgresServer, RedisServer, sql

Fault = Callable[[RedisServer], None]
SLOW = pytest.mark.slow
"""For what one level below `make test` shows as well."""


def killed(redis: RedisServer) -> None:
    """And back with its data half a second later."""
    redis.kill()
    time.sleep(0.5)
    redis.start()


def emptied(redis: RedisServer) -> None:
    """A restart without its data."""
    redis.kill()
    shutil.rmtree(redis.directory / "appendonlydir")
    redis.start()


def flushed(redis: RedisServer) -> None:
    with redis.client() as client:
        client.flushall()


def scripts_forgotten(redis: RedisServer) -> None:
    with redis.client() as client:
        for _ in range(5):
            client.script_flush()
            time.sleep(0.05)


def connections_cut(redis: RedisServer) -> None:
    """``CLIENT KILL``, again and again: in the middle of commands too."""
    with redis.client() as client:
        for _ in range(5):
            client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.05)


def name_of(fault: Callable[..., None]) -> str:
    return fault.__name__


SPARES_DATA = [killed, scripts_forgotten, connections_cut]
LOSES_DATA = [emptied, pytest.param(flushed, marks=SLOW)]


@pytest.mark.parametrize("fault", SPARES_DATA, ids=name_of)
def test_r5_redis_fails_under_traffic_and_no_call_is_lost_or_doubled(
    gateway: LiveGateway, redis: RedisServer, postgres: PostgresServer, fault: Fault
) -> None:
    """Answered or refused in words, in time; one row for each answer; nothing held; counter = Σ rows."""
    with Traffic(gateway, f"redis-{fault.__name__}") as traffic:
        traffic.await_good()
        fault(redis)
        traffic.await_good()
    judge(traffic, postgres.url)


def stopped(redis: RedisServer, traffic: Traffic) -> None:
    """SIGSTOP, until somebody was refused for it: connections stay open, nothing is answered."""
    redis.pause()
    try:
        eventually(lambda: Reason.STORE_UNAVAILABLE in traffic.reasons())
    finally:
        redis.resume()


def clients_paused(redis: RedisServer, traffic: Traffic) -> None:
    """``CLIENT PAUSE``, for longer than is waited: every command waits, also those of the reader that asks for it."""
    with redis.client() as client:
        client.client_pause(1_600)
    eventually(redis.answers)


@pytest.mark.parametrize("fault", [stopped, clients_paused], ids=name_of)
def test_r5_redis_hangs_under_traffic_and_no_call_is_lost_or_doubled(
    behind_proxy: tuple[LiveGateway, LossyProxy],
    redis: RedisServer,
    postgres: PostgresServer,
    fault: Callable[[RedisServer, Traffic], None],
) -> None:
    """Refused in words, in time, whoever waited for it; one row for each answer; nothing held; counter = Σ rows."""
    gateway, _ = behind_proxy
    with Traffic(gateway, f"redis-{fault.__name__}") as traffic:
        traffic.await_good()
        fault(redis, traffic)
        traffic.await_good()
    judge(traffic, postgres.url)
    assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("fault", LOSES_DATA, ids=name_of)
def test_b7_redis_loses_its_data_under_traffic_and_the_counter_is_the_sum_of_the_rows(
    gateway: LiveGateway, redis: RedisServer, postgres: PostgresServer, fault: Fault
) -> None:
    """Calls under a budget wait for SQL; afterwards no hold is left over, and no call is written down twice."""
    with Traffic(gateway, f"redis-{fault.__name__}") as traffic:
        traffic.await_good()
        fault(redis)
        traffic.await_good()
    judge(traffic, postgres.url, forgetful=True)


def test_a3_a_full_redis_admits_no_call_and_ends_those_in_flight(
    gateway: LiveGateway, redis: RedisServer, postgres: PostgresServer
) -> None:
    """``CONFIG SET maxmemory`` below what is used: 503 ``audit_unavailable``; with room again all goes on."""
    with Traffic(gateway, "redis-full") as traffic, redis.client() as client:
        traffic.await_good()
        client.config_set("maxmemory", str(int(client.info("memory")["used_memory"]) - 100_000))
        try:
            eventually(lambda: Reason.AUDIT_UNAVAILABLE in traffic.reasons())
            eventually(lambda: gateway.get("/health/ready").json()["status"] == "degraded")
        finally:
            client.config_set("maxmemory", "256mb")
        traffic.await_good()
    judge(traffic, postgres.url)


def test_o2_an_eviction_policy_that_turns_wrong_while_running_is_told(
    gateway: LiveGateway, redis: RedisServer, postgres: PostgresServer
) -> None:
    """Calls go on, as Redis has room; readiness names Redis until it is mended."""
    with Traffic(gateway, "redis-evicts", clients=2) as traffic, redis.client() as client:
        traffic.await_good()  # the fault of the test before may not be over at every worker
        calm = len(traffic.seen)
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            eventually(lambda: "redis" in gateway.get("/health/ready").json().get("problems", {}))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        eventually(lambda: "redis" not in gateway.get("/health/ready").json().get("problems", {}))
        traffic.await_good()
    assert [one for one in traffic.seen[calm:] if not one.good] == []
    judge(traffic, postgres.url)


@pytest.mark.parametrize("silently", [pytest.param(False, id="cut"), pytest.param(True, id="silent", marks=SLOW)])
def test_r5_replies_of_redis_are_lost_after_the_command_ran(
    behind_proxy: tuple[LiveGateway, LossyProxy], postgres: PostgresServer, silently: bool
) -> None:
    """Admissions, extensions and settlements happen once, whichever of their replies never came."""
    gateway, proxy = behind_proxy
    proxy.silently = silently
    with Traffic(gateway, f"reply-lost-{silently}") as traffic:
        traffic.await_good()
        for _ in range(15):
            proxy.lose = 1
            time.sleep(0.05)
        proxy.lose = 0
        traffic.await_good()
    judge(traffic, postgres.url)


def test_the_audit_notices_what_it_is_for(gateway: LiveGateway, postgres: PostgresServer) -> None:
    """A row that is missing, one too many, one for a refusal, and a cost that was changed."""
    with Traffic(gateway, "doctored", clients=2) as traffic:
        traffic.await_good()
    audit(gateway, postgres.url, "doctored", traffic.seen)
    real = next(one for one in traffic.seen if one.good)
    for problem, history, doctor, mend in (
        ("no row", [*traffic.seen, attrs.evolve(real, request_id="never")], "select 1", "select 1"),
        ("refused, and yet a row", [attrs.evolve(real, answer=REFUSED)], "select 1", "select 1"),
        (
            "written down twice",
            traffic.seen,
            TWICE,
            "delete from events where id = '01890000-0000-7000-8000-0000000000ff'",
        ),
        ("counted", traffic.seen, COST.format("+"), COST.format("-")),
    ):
        sql(postgres.url, doctor)
        with pytest.raises(AssertionError, match=problem):
            audit(gateway, postgres.url, "doctored", history, patience=0.2)
        sql(postgres.url, mend)
    audit(gateway, postgres.url, "doctored", traffic.seen)


REFUSED = httpx.Response(503, json={"error": {"code": "store_unavailable"}})
COST = "update events set cost_nano_usd = cost_nano_usd {} 1 where tag = 'doctored'"
SECOND = "01890000-0000-7000-8000-0000000000ff"
TWICE = f"""insert into events select (jsonb_populate_record(e, jsonb_build_object('id', '{SECOND}'))).*
from events e where tag = 'doctored' limit 1"""  # noqa: S608


@pytest.fixture(scope="module")
def behind_proxy(
    redis: RedisServer, postgres: PostgresServer, configured: str, shared: LiveGateway
) -> Iterator[tuple[LiveGateway, LossyProxy]]:
    """Another gateway on the same stores, whose way to Redis loses replies, and who waits a second for them."""
    hasty = configured.replace("redis: {timeout: 10s}", "redis: {timeout: 1s}")
    with (
        lossy_proxy_aside(redis.port) as proxy,
        LiveGateway(hasty, redis_url=proxy.url, database_url=postgres.url, migrated=False) as running,
    ):
        yield running, proxy


# --- PostgreSQL ----------------------------------------------------------------------------------

SqlFault = Callable[[PostgresServer], None]


def stopped_immediately(postgres: PostgresServer) -> None:
    """``pg_ctl stop -m immediate``, and recovery."""
    postgres.kill()
    time.sleep(0.5)
    postgres.start()


def every_process_killed(postgres: PostgresServer) -> None:
    """SIGKILL to all of it."""
    pids = postgres.pids()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    postgres.kill()
    eventually(lambda: not any(map(alive, pids)))  # it would not start beside one that still has its memory
    postgres.start()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def one_backend_killed(postgres: PostgresServer) -> None:
    """SIGKILL to a connection of ours: PostgreSQL throws all others out and recovers."""
    theirs = "backend_type = 'client backend' and pid <> pg_backend_pid()"

    def killed() -> bool:
        for (backend,) in sql(postgres.url, f"select pid from pg_stat_activity where {theirs}"):  # noqa: S608
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(backend, signal.SIGKILL)
                return True
        return False

    eventually(killed)
    eventually(postgres.answers)


def frozen(postgres: PostgresServer) -> None:
    """SIGSTOP: nothing is answered, nothing is closed."""
    postgres.pause()
    time.sleep(0.6)
    postgres.resume()


def locked(postgres: PostgresServer) -> None:
    """``LOCK TABLE events``, for longer than a statement may wait."""
    sql(postgres.url, "do $$ begin lock table events in access exclusive mode; perform pg_sleep(1.5); end $$")


SQL_FAULTS = [stopped_immediately, every_process_killed, one_backend_killed, locked, pytest.param(frozen, marks=SLOW)]


@pytest.mark.parametrize("fault", SQL_FAULTS, ids=name_of)
def test_a3_postgres_fails_under_traffic_and_no_call_notices(
    gateway: LiveGateway, postgres: PostgresServer, fault: SqlFault
) -> None:
    """Every call is answered; afterwards each is one row, and the counter is their sum."""
    with Traffic(gateway, f"sql-{fault.__name__}") as traffic:
        traffic.await_good()
        fault(postgres)
        traffic.await_good()
    assert set(traffic.statuses()) == {200}
    judge(traffic, postgres.url)


def test_a2_a_poison_row_is_set_aside_and_delays_nobody(
    gateway: LiveGateway, redis: RedisServer, postgres: PostgresServer
) -> None:
    """Events that no table takes, before and between good ones, on every shard: set aside, the others are there."""
    bad = [b"{}", b"no json", b'{"id":"01890000-0000-7000-8000-00000000000%d","occurred_at_us":1,"status":"x"}']
    rounds = itertools.count()

    def delayed() -> float:
        with Traffic(gateway, f"sql-poison-{next(rounds)}") as traffic, redis.client() as client:
            for shard in range(16):
                for number, row in enumerate(bad):
                    text = row % (shard % 10) if b"%d" in row else row
                    client.xadd(f"perpetuo:{{s{shard:02}}}:events", {"e": text, "r": number + 1})
            traffic.await_good(20)
        over = time.monotonic()
        judge(traffic, postgres.url)
        return time.monotonic() - over

    best(5, delayed)
    eventually(lambda: rows(postgres.url, "select count(*) from events_rejected") == [(12,)])
