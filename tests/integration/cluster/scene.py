"""
What the tests in this folder share: two gateways of two workers over one Redis and one PostgreSQL, and a journal.

Every test has tenants of its own (`TENANTS`), and models of its own where it changes how they behave (`MODELS`), so
that one cluster serves them all: its start takes longer than most of the tests.
"""

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import httpx

from perpetuo.adapters.redis import keys
from tests.cluster import Cluster, Line, ask_each
from tests.journal_upstream import Entry, JournalUpstream
from tests.live import ADMIN_KEY, eventually, rows
from tests.patience import PATIENCE
from tests.servers import RedisServer
from tests.swarm import Ask, Reply, swarm

IN, OUT = 37_000, 113_000
"""Nano-USD per token in and out: `PRICE` says the same per million tokens in USD."""
PRICE = "price: {inputPerMTok: 37, outputPerMTok: 113}"
ONLY_OUT = "price: {inputPerMTok: 0, outputPerMTok: 113}"
"""With it a call that uses its whole output limit costs exactly what it held."""
FEATURES = "idempotency: {lease: 5m}\nredis: {timeout: 10s}\nretry: {attempts: 1, backoff: 10ms}"
"""Nothing here ends by itself while a worker starts on a slow machine: tests end leases by hand."""
LEASE = 5.0
IN_REAL_TIME = FEATURES.replace("lease: 5m", f"lease: {LEASE:.0f}s")
"""For tests that wait for a lease's end, in seconds."""
NEVER = "breaker: {minimumCalls: 1000000, consecutiveConnectFailures: 1000000}"
Row = Mapping[str, Any]

TENANTS: dict[str, str] = {
    "plain": "{}",
    "rated": "{rateLimitMin: 60}",
    "sliding": "{rateLimitMin: 60}",
    "two-keys": "{rateLimitMin: 60}",
    "patient": "{rateLimitMin: 60}",
    "flooded": "{rateLimitMin: 20}",
    "seven": "{budgetDay: 0.08}",
    "sampled": "{budgetDay: 0.6, budgetMonth: 5}",
    "endings": "{}",
    "breaking": "{}",
    "one-run": "{}",
    "twin-a": "{}",
    "twin-x": "{}",
    "retried": "{}",
    "undecided": "{}",
    "paused": "{}",
    "abandoned": "{}",
    "real": "{}",
    "fenced-false": "{}",
    "fenced-true": "{}",
    **dict.fromkeys(("killed", "killed-1", "killed-2", "killed-3"), "{}"),
    "loaded": "{}",
    "beside": "{}",
    "points": "{}",
    "points-later": "{}",
}
"""Tenant and its limits; its one key is `key_of` it."""
FURTHER_KEYS: dict[str, dict[str, str]] = {
    "two-keys": {"tight": "{rateLimitMin: 15}"},
    "sampled": {"by-day": "{budgetDay: 0.3}", "by-month": "{budgetMonth: 0.4}"},
}
"""Tenant, names of keys, and their limits."""
MODELS: dict[str, str] = {
    "m": PRICE,
    "exact": ONLY_OUT,
    "held": PRICE,
    "flaky": PRICE,
    "late": PRICE,
    "slow": PRICE,
    "unsaid": PRICE,
    "cut": PRICE,
    "failing": PRICE,
    "resetting": PRICE,
    "silent": f"{PRICE}, timeouts: {{firstToken: 1s, total: 1s}}",
    "one": PRICE,
    "points": PRICE,
    "drip": PRICE,
    "killed": PRICE,
    "paused": PRICE,
    "fenced": PRICE,
    "slowly": PRICE,
    "breaks": PRICE,
    "herd": PRICE,
    "nobody": PRICE,
}
"""Model, which the upstream knows by the same name, and what else its configuration says."""
PROVIDERS = {"breaks": "breaks", "herd": "herd", "nobody": "nobody"}
"""Of models that are not asked of ``up``, whose breaker never opens."""
BEHAVIOURS = {
    "exact": "tokens=100",
    "flaky": "status=500,chance=0.5",
    "late": "delay=0.05",
    "slow": "delay=0.2",
    "unsaid": "usage=0",
    "cut": "end=truncate,after=2,tokens=9",
    "failing": "status=500",
    "resetting": "end=reset,after=2,tokens=9",
    "silent": "wait=1",
    "drip": "gap=0.02,tokens=9",
}


def key_of(tenant: str, name: str = "") -> str:
    return f"sk-test-{tenant}{name}-0123456789"


def config(
    upstream: JournalUpstream, tenants: Mapping[str, str] | None = None, features: str = FEATURES, edition: str = "0"
) -> str:
    """The configuration of the cluster, with other limits for ``tenants``; it has a tenant named after ``edition``."""
    models = "".join(
        f"  - {{name: {model}, targets: [{{provider: {PROVIDERS.get(model, 'up')}, model: {model}}}], "
        f"maxOutputTokens: 100, {more}}}\n"
        for model, more in MODELS.items()
    )
    names = "".join(
        f"  - {{id: {tenant}, plan: pro, limits: {limits}, apiKeys: [{_keys(tenant)}]}}\n"
        for tenant, limits in {**TENANTS, **(tenants or {}), f"edition-{edition}": "{}"}.items()
    )
    return f"""
providers:
  - {{id: up, kind: openai, baseUrl: "{upstream.base_url}", {NEVER}}}
  - {{id: breaks, kind: openai, baseUrl: "{upstream.base_url}", breaker: {{openFor: 5m, window: 60s}}}}
  - {{id: herd, kind: openai, baseUrl: "{upstream.base_url}", breaker: {{openFor: 1s, window: 60s}}}}
  - {{id: nobody, kind: openai, baseUrl: "http://127.0.0.1:9/v1", breaker: {{openFor: 5m}}}}
models:
{models}
plans:
  - {{id: pro, limits: {{rateLimitMin: 100000, budgetDay: 1000}}}}
tenants:
{names}
{features}
"""


def _keys(tenant: str) -> str:
    keys = [f'"{key_of(tenant)}"']
    for name, limits in FURTHER_KEYS.get(tenant, {}).items():
        digest = hashlib.sha256(key_of(tenant, name).encode()).hexdigest()
        keys.append(f'{{name: {name}, hash: "sha256:{digest}", limits: {limits}}}')
    return ", ".join(keys)


def _known(key: str) -> Callable[[Line], httpx.Response]:
    return lambda line: line.get("/v1/key", key)


def cost_of(entry: Entry) -> int:
    """What a provider would charge: nothing for an error of its own, else what was read and made until it ended."""
    price_in = 0 if MODELS[entry.model].startswith(ONLY_OUT) else IN
    return 0 if entry.outcome == "error" else entry.input_tokens * price_in + entry.output_tokens * OUT


@attrs.frozen
class Scene:
    """The cluster, what it stands on, and what it calls."""

    cluster: Cluster
    upstream: JournalUpstream
    redis: RedisServer
    database: str

    def swarm(self, asks: Sequence[Ask], clients: int = 64) -> list[Reply]:
        """Calls from many clients over both gateways in turn."""
        first = self.cluster.next().url
        return swarm([first, *(url for url in self.cluster.urls if url != first)], asks, clients)

    def configure(self, tenants: Mapping[str, str] | None = None, features: str = FEATURES) -> float:
        """Another configuration, until every worker has it; how long it took them."""
        edition = secrets.token_hex(4)
        key = key_of(f"edition-{edition}")
        self.cluster.wait_whole()
        with self.cluster.lines() as lines:
            self.cluster.configure(config(self.upstream, tenants, features, edition))
            began = time.monotonic()
            eventually(lambda: {answer.status_code for answer in ask_each(lines, _known(key))} == {200}, every=0.02)
            return time.monotonic() - began

    # --- what was written down -------------------------------------------------------------------

    def calls_of(self, tenant: str) -> Sequence[Row]:
        """Rows of a tenant's calls."""
        found = rows(self.database, f"select row_to_json(e)::text from events e where tenant_id = '{tenant}'")  # noqa: S608
        return [json.loads(row[0]) for row in found]

    def written(self, tenant: str, count: int, seconds: float = PATIENCE) -> Sequence[Row]:
        """The tenant's rows when there are so many; more are an error."""
        eventually(lambda: len(self.calls_of(tenant)) >= count, seconds, every=0.2)
        found = self.calls_of(tenant)
        assert len(found) == count
        return found

    def journal_of(self, calls: Iterable[Row]) -> Sequence[Entry]:
        """What of these calls reached the provider."""
        ids = {row["id"] for row in calls}
        return [entry for entry in self.upstream.entries() if entry.call in ids]

    def check_books(self, tenant: str) -> int:
        """
        Rows against the provider's journal: exact where the usage was reported, at least as much where it is a bound.

        Returns the sum of the rows.
        """
        calls = self.calls_of(tenant)
        charged: Counter[str] = Counter()
        for entry in self.upstream.entries():
            charged[entry.call] += cost_of(entry)
        for row in calls:
            if row["usage_basis"] == "reported":
                assert charged[row["id"]] == row["cost_nano_usd"], row
            else:
                assert charged[row["id"]] <= row["cost_nano_usd"] <= row["hold_nano_usd"], row
        return sum(row["cost_nano_usd"] for row in calls)

    def without_row(self) -> set[str]:
        """Calls that reached the provider, whosever they are, and are not in SQL."""
        written = {str(row[0]) for row in rows(self.database, "select id from events")}
        return {entry.call for entry in self.upstream.entries()} - written

    def settled(self, tenant: str, seconds: float = PATIENCE) -> None:
        """Wait until none of the tenant's calls is in flight and SQL has all rows that Redis has counted."""

        def look() -> bool:
            calls = self.calls_of(tenant)
            return all(
                (sum(row["cost_nano_usd"] for row in calls if row["budget_day"].startswith(window)), 0) == counted
                for window, counted in self.budget(tenant).items()
            )

        eventually(look, seconds, every=0.1)

    def budget(self, tenant: str, scope: str | None = None) -> dict[str, tuple[int, int]]:
        """Spent and held of each window that Redis has of a scope, the tenant's own unless told."""
        pattern = keys.budget(keys.prefix_of(tenant), scope or tenant, "*").replace("{", r"\{").replace("}", r"\}")
        with self.redis.client() as client:
            found = {name: client.hmget(name, "spent", "held") for name in client.scan_iter(pattern)}
        return {name.rpartition(":")[2]: (int(spent or 0), int(held or 0)) for name, (spent, held) in found.items()}

    # --- time ------------------------------------------------------------------------------------

    def trust_leases(self) -> None:
        """For a lease after the cluster's first sign of life, leases prove nothing: say that this time is over."""

        def done() -> bool:
            lives = {name: client.get(name).split() for name in client.scan_iter("perpetuo:{s*}:life")}
            for name, (life, stamp, quiet) in lives.items():
                if quiet != "0":
                    client.set(name, f"{life} {stamp} 0")
            return len(lives) == keys.SHARDS and all(stamp != "-" and q == "0" for _, stamp, q in lives.values())

        with self.redis.client() as client:
            eventually(done)

    def end_leases(self, tenant: str, calls: Iterable[str]) -> None:
        """Half a minute later, for these calls of dead or stopped workers: the reaper may have them."""
        if ended := dict.fromkeys(calls, 1):
            with self.redis.client() as client:
                client.zadd(keys.holds(keys.prefix_of(tenant)), ended, xx=True)  # not those that are settled since

    def end_claims(self, tenant: str) -> None:
        """A lease later, for the idempotency keys of a tenant that are claimed."""
        with self.redis.client() as client:
            for name in client.scan_iter(f"perpetuo:{{s*}}:idem:{tenant}:*"):
                if client.hget(name, "st") == "R":
                    client.hset(name, "lease", 1)

    def breakers(self, lines: Sequence[Line], provider: str) -> set[str]:
        """How its breaker stands at each worker, which looks again to say so."""
        found = [line.get(f"/admin/api/providers/{provider}", ADMIN_KEY).json() for line in lines]
        return {one["breaker"]["state"] for one in found}

    def in_flight(self, tenant: str) -> list[str]:
        """Ids of a tenant's calls that are not settled, from their records."""
        p = keys.prefix_of(tenant)
        with self.redis.client() as client:
            ids = client.zrange(keys.holds(p), 0, -1)
            records = {call: client.get(keys.call(p, call)) or "" for call in ids}
        return [call for call, record in records.items() if record.startswith("H ") and f'"{tenant}"' in record]
