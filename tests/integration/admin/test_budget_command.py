"""`perpetuo budget` and `perpetuo tenants usage` against two workers on a real Redis and PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.live import ADMIN_KEY, LiveGateway, config_text, eventually, rows
from tests.servers import RedisServer

CONFIG = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}]}",
    limits="{rateLimitMin: 100, budgetDay: 50, concurrency: 10}",
)


@pytest.fixture
def gateway(redis_url: str, postgres_url: str) -> Iterator[LiveGateway]:
    with LiveGateway(CONFIG, redis_url=redis_url, database_url=postgres_url, workers=2) as running:
        yield running


def perpetuo(gateway: LiveGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PERPETUO_URL": gateway.url, "PERPETUO_ADMIN_KEY": ADMIN_KEY}
    command = [sys.executable, "-c", "from perpetuo.entrypoints.cli import main; main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def limits(gateway: LiveGateway) -> set[str]:
    """The day's limit, as whichever workers answer ten times over fresh connections have it."""
    return {gateway.get("/v1/key").json()["budgets"][0]["limit_usd"] for _ in range(10)}


def test_b1_b7_budgets_are_raised_and_adjusted_and_redis_may_forget(
    gateway: LiveGateway, redis_server: RedisServer, postgres_url: str
) -> None:
    """All workers have the raise within a second; after FLUSHALL raise and money are as SQL has them."""
    done = perpetuo(gateway, "budget", "raise", "acme", "20", "--until", "midnight", "--reason", "a launch")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("The day budget of acme is higher by 20 USD until ")
    eventually(lambda: limits(gateway) == {"70"}, 5.0)
    done = perpetuo(gateway, "budget", "adjust", "acme", "12.50", "--reason", "an invoice")
    assert done.returncode == 0, done.stderr
    done = perpetuo(gateway, "budget", "adjust", "acme", "-2.5", "--reason", "too much")
    assert done.returncode == 0, done.stderr
    refused = perpetuo(gateway, "budget", "adjust", "acme", "-11", "--reason", "too much")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "10 USD was spent there" in refused.stderr
    eventually(lambda: rows(postgres_url, "select sum(cost_nano_usd) from events")[0][0] == 10_000_000_000, 10.0)
    redis_server.flush()
    eventually(lambda: gateway.get("/v1/key").json()["budgets"][0]["used_usd"] == "10", 15.0)
    eventually(lambda: limits(gateway) == {"70"}, 10.0)
    shown = perpetuo(gateway, "tenants", "usage", "acme").stdout.splitlines()
    assert shown[1].split()[:7] == ["acme", "day", "70", "10", "0", "60", "20"]
    (raise_id,) = [line.split()[-1] for line in perpetuo(gateway, "budget", "raises").stdout.splitlines()[1:]]
    assert perpetuo(gateway, "budget", "end", raise_id).returncode == 0
    eventually(lambda: limits(gateway) == {"50"}, 5.0)
