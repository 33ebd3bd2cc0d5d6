"""
Does a client notice the gateway? Whatever passes against a provider passes through the gateway before it.

`make test-clients`: takes a minute, and needs a package index, npm's registry and node 20.
"""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from llmock.testing import LLMockServer

from tests.clients.conftest import Figures
from tests.clients.suites import SUITES, Suite, Vercel, run
from tests.integration.gateway.refusing import CONFIG, KEYS
from tests.live import KEY, LiveGateway
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_nothing_that_passes_directly_fails_through_the_gateway(
    suite: Suite, upstream: LLMockServer, gateway: LiveGateway, figures: Figures
) -> None:
    """The same tests, once with the provider's base URL and once with the gateway's; the provider is asked the same."""
    installed = suite.install()
    upstream.state.journal.clear()
    direct = suite.run(upstream.base_url())
    asked_directly = asked(upstream)
    upstream.state.journal.clear()
    through = suite.run(f"{gateway.url}/v1")
    asked_through = asked(upstream)
    figures.append((installed, direct, through, asked_through.total()))
    assert set(direct) == set(through)
    assert sum(outcome == "passed" for outcome in direct.values()) >= suite.at_least
    lost = [f"{name}: {through[name]}" for name, outcome in direct.items() if outcome == "passed" != through[name]]
    assert not lost, "\n".join(lost)
    assert asked_through == asked_directly
    assert asked_through.total() >= suite.at_least / 2
    assert "call_broken" not in gateway.log()


SERVED = {"/v1/chat/completions", "/v1/embeddings"}
RANDOM = re.compile(r"\b(call_[0-9a-f]{24}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
"""Ids that a run makes up."""


def asked(upstream: LLMockServer) -> Counter[str]:
    """Bodies that reached the provider. The gateway always asks for a stream's usage, so that is no difference."""
    seen: Counter[str] = Counter()
    for record in upstream.state.journal.records(wait=5):
        if record.method == "POST" and record.path in SERVED:
            body = dict(record.body)
            if body.get("stream"):
                body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
            seen[RANDOM.sub("an id", json.dumps(body, sort_keys=True))] += 1
    return seen


REQUESTS = {
    "invalid_api_key": 1,
    "model_not_found": 1,
    "model_not_allowed": 1,
    "budget_exceeded": 1,
    "idempotency_key_reused": 1,
    "upstream_rate_limited": 3,
    # by their status alone, although `x-should-retry` says no: docs/clients.md
    "idempotency_not_stored": 3,
    "upstream_error": 3,
    "upstream_timeout": 3,
}


def test_what_vercels_sdk_repeats(redis_here: RedisServer, tmp_path: Path) -> None:
    """It goes by the status, and waits as told: what `docs/clients.md` says of it."""
    vercel = Vercel()
    vercel.install()
    with LiveGateway(CONFIG, redis_url=redis_here.url, database_url=f"sqlite:///{tmp_path}/events.sqlite3") as refusing:
        keys = json.dumps({**KEYS, "acme": KEY})
        said = run("node", "retries.mjs", cwd=vercel.place, TEST_API_BASE_URL=f"{refusing.url}/v1", KEYS=keys)
    seen = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {case["code"]: len(case["at"]) for case in seen} == REQUESTS
    (limited,) = [case["at"] for case in seen if case["code"] == "upstream_rate_limited"]
    assert all(1_990 <= later - earlier < 4_000 for earlier, later in itertools.pairwise(limited))
