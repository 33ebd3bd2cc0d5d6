"""
One run: everything is started, the clients call, the neighbour strikes, and in the end the witnesses are heard.

Rule 1: before the end is judged everything is mended, and what dead workers left is waited for (their leases).
Rule 2: what a failing run leaves behind is kept: histories, journals, logs, rows.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from perpetuo.adapters.redis import keys
from tests.chaos import faults, history, ledger_log, stage
from tests.chaos.checker import Sums, check, sums
from tests.chaos.checks import Violation
from tests.chaos.evidence import Evidence, Row, Window
from tests.chaos.neighbour import Neighbour, World
from tests.chaos.stage import Stage
from tests.chaos.traffic import Orders
from tests.cluster import Cluster
from tests.journal_upstream import JournalUpstream
from tests.live import eventually
from tests.servers import PostgresServer, RedisServer, sql

PROCESSES = ("a", "b")
QUIET = 150.0
"""Seconds that all may take to come to rest: a lease, perhaps a second one, and the reaper."""
REDIS = (
    "--maxmemory", "1gb", "--appendonly", "yes", "--auto-aof-rewrite-percentage", "0",
    # the kernel has every write before the reply goes out, so a killed Redis has lost nothing
    "--appendfsync", "no",
)  # fmt: skip
DEFECTS = ("Traceback", "call_broken", "panicked", "internal_error", "hold_exceeded")
ROWS = """
    select id::text, revision, extract(epoch from occurred_at)::float8, tenant_id, key_name, request_id, model,
        upstream_model, status, outcome, error_code, jsonb_array_length(attempts), cost_nano_usd, hold_nano_usd,
        usage_basis, budget_day, idempotency, (latency_ms / 1000)::float8
    from events where kind <> 'admin' order by id"""
Tell = Callable[[str], None]


@attrs.frozen
class Verdict:
    """What a run has shown."""

    sums: Sums
    violations: Sequence[Violation]
    kept: Path | None
    """Where what it left behind is, if it failed."""


def run(seed: int, seconds: float, tell: Tell, deck: Sequence[str], *, keep: bool | None = None) -> Verdict:
    """The whole of it. What it leaves behind is kept if it failed, unless ``keep`` says otherwise."""
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    with _world() as world:
        evidence = _act(world, directory, seed, seconds, tell, deck)
        verdict = Verdict(sums(evidence), check(evidence), directory)
        if verdict.violations if keep is None else keep:
            _keep(world, directory, evidence, verdict.violations)
            return verdict
    shutil.rmtree(directory)
    return attrs.evolve(verdict, kept=None)


@contextmanager
def _world() -> Iterator[World]:
    with ExitStack() as stack:
        redis, postgres = RedisServer(*REDIS), PostgresServer()
        upstream = JournalUpstream({**stage.BEHAVIOURS, **dict.fromkeys(stage.STORMY, stage.CALM)})
        for server in (redis, postgres, upstream):
            stack.callback(server.close)
            server.start()
        first = Stage(upstream.base_url)
        cluster = stack.enter_context(Cluster(first.text(), redis_url=redis.url, database_url=postgres.url))
        yield World(redis, postgres, upstream, cluster, first, list(first.limits(0.0)))


def _act(world: World, directory: Path, seed: int, seconds: float, tell: Tell, deck: Sequence[str]) -> Evidence:
    neighbour = Neighbour(world, tell)
    began = time.time()
    clients = [_client(world, directory, seed, name, began + seconds) for name in PROCESSES]
    try:
        neighbour.begin(faults.plan(seed, seconds, deck))
        for client in clients:
            assert client.wait(seconds + 120) == 0, "a client process failed"
    finally:
        for client in clients:
            client.kill()
        neighbour.end()
    if neighbour.failures:
        raise neighbour.failures[0]
    tell("all is mended; waiting for leases to end and events to arrive")
    left = _rest(world)
    return _heard(world, directory, neighbour, left)


def _client(world: World, directory: Path, seed: int, name: str, until: float) -> "subprocess.Popen[bytes]":
    orders = Orders(seed, name, world.cluster.urls, until, str(directory / f"history-{name}.jsonl"))
    return subprocess.Popen([sys.executable, "-m", "tests.chaos.traffic", json.dumps(attrs.asdict(orders))])


# --- the end -------------------------------------------------------------------------------------


def _rest(world: World) -> dict[str, int]:
    """Wait until nothing is held and nothing is on its way; what there is still in the end."""
    until = time.monotonic() + QUIET
    while sum((left := _leftovers(world)).values()) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def _leftovers(world: World) -> dict[str, int]:
    prefixes = [keys.shard_prefix(shard) for shard in range(keys.SHARDS)]
    with world.redis.client() as client:
        in_flight = [key for prefix in prefixes for key in client.scan_iter(f"{prefix}inflight:*")]
        return {
            "holds": sum(client.zcard(keys.holds(prefix)) for prefix in prefixes),
            "in_flight": sum(client.zcard(key) for key in in_flight),
            "events": sum(client.xlen(keys.events(prefix)) for prefix in prefixes),
        }


def _heard(world: World, directory: Path, neighbour: Neighbour, left: dict[str, int]) -> Evidence:
    set_aside = sql(world.postgres.url, "select count(*) from events_rejected")[0][0]
    eventually(lambda: not world.upstream.working(), 30)
    return Evidence(
        exchanges=history.read(sorted(directory.glob("history-*.jsonl"))),
        entries=world.upstream.entries(),
        rows=[Row(*found) for found in sql(world.postgres.url, ROWS)],
        ledger=ledger_log.read(ledger_log.pieces(world.redis.directory)),
        counters=_counters(world),
        limits=world.limits,
        faults=sorted(neighbour.faults, key=lambda fault: fault.began),
        prices=stage.PRICES,
        left={**left, "set_aside": set_aside},
        defects=[line for line in world.cluster.log().splitlines() if any(word in line for word in DEFECTS)],
        lease=stage.LEASE,
        deadline=stage.TOTAL,
    )


def _counters(world: World) -> dict[Window, tuple[int, int]]:
    found: dict[Window, tuple[int, int]] = {}
    with world.redis.client() as client:
        for key in client.scan_iter("perpetuo:{s*}:budget:*"):
            spent, held = client.hmget(key, "spent", "held")
            found[ledger_log.scope_of(key.encode())] = int(spent or 0), int(held or 0)
    return found


def _keep(world: World, directory: Path, evidence: Evidence, violations: Sequence[Violation]) -> None:
    shutil.copy(world.upstream.journal, directory / "upstream.jsonl")
    for path in ledger_log.pieces(world.redis.directory):
        shutil.copy(path, directory)
    for number, gateway in enumerate(world.cluster.gateways):
        (directory / f"gateway-{number}.log").write_text(gateway.log())
    _lines(directory / "rows.jsonl", [attrs.asdict(row) for row in evidence.rows])
    _lines(directory / "faults.jsonl", [attrs.asdict(fault) for fault in evidence.faults])
    (directory / "violations.txt").write_text("".join(f"{violation}\n" for violation in violations))


def _lines(path: Path, found: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(one)}\n" for one in found))
