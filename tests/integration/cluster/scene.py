"""
What the tests in this folder share: two gateways of two workers over one Redis and one PostgreSQL, and a journal.

Every test has a tenant of its own (`TENANTS`), and models of its own where it changes how they behave (`MODELS`), so
that one cluster serves them all: its start takes longer than most of the tests.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tests.cluster import Cluster
from tests.journal_upstream import Entry, JournalUpstream
from tests.live import eventually, rows
from tests.servers import RedisServer

IN, OUT = 37_000, 113_000
"""Nano-USD per token, in and out; `PRICE` says the same per million tokens in USD."""
PRICE = "price: {inputPerMTok: 37, outputPerMTok: 113}"
FEATURES = "idempotency: {lease: 5s}\nredis: {timeout: 500ms}\nretry: {attempts: 1, backoff: 10ms}"

TENANTS: dict[str, str] = {
    "plain": "{}",
    "rated": "{rateLimitMin: 60}",
}
MODELS = ("m",)


def key_of(tenant: str) -> str:
    return f"sk-test-{tenant}-0123456789"


def config(upstream: JournalUpstream, tenants: Mapping[str, str] = TENANTS, features: str = FEATURES) -> str:
    """The configuration of the cluster."""
    models = "".join(
        f"  - {{name: {model}, targets: [{{provider: up, model: {model}}}], maxOutputTokens: 100, {PRICE}}}\n"
        for model in MODELS
    )
    names = "".join(
        f'  - {{id: {tenant}, plan: pro, limits: {limits}, apiKeys: ["{key_of(tenant)}"]}}\n'
        for tenant, limits in tenants.items()
    )
    return f"""
providers:
  - {{id: up, kind: openai, baseUrl: "{upstream.base_url}",
     breaker: {{minimumCalls: 1000000, consecutiveConnectFailures: 1000000}}}}
models:
{models}
plans:
  - {{id: pro, limits: {{rateLimitMin: 100000, budgetDay: 1000}}}}
tenants:
{names}
{features}
"""


@attrs.frozen
class Scene:
    """The cluster, what it stands on, and what it calls."""

    cluster: Cluster
    upstream: JournalUpstream
    redis: RedisServer
    database: str

    def calls_of(self, tenant: str) -> Sequence[Mapping[str, Any]]:
        """Rows of a tenant's calls."""
        found = rows(self.database, f"select row_to_json(e)::text from events e where tenant_id = '{tenant}'")  # noqa: S608
        return [json.loads(row[0]) for row in found]

    def journal_of(self, tenant: str) -> Sequence[Entry]:
        """What of the tenant's calls reached the provider, as far as rows tell whose they are."""
        ids = {row["id"] for row in self.calls_of(tenant)}
        return [entry for entry in self.upstream.entries() if entry.call in ids]

    def written(self, tenant: str, count: int, seconds: float = 15.0) -> Sequence[Mapping[str, Any]]:
        """The tenant's rows when there are so many."""
        found: Sequence[Mapping[str, Any]] = eventually(
            lambda: len(calls := self.calls_of(tenant)) >= count and calls, seconds, every=0.2
        )
        assert len(found) == count
        return found
