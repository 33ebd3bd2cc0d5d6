"""`perpetuo budget` and `perpetuo tenants usage` against two workers on a real Redis and PostgreSQL."""

from collections.abc import Iterator

import pytest
from click.testing import Result

from tests import commands
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


def perpetuo(gateway: LiveGateway, *arguments: str) -> Result:
    return commands.perpetuo(*arguments, PERPETUO_URL=gateway.url, PERPETUO_ADMIN_KEY=ADMIN_KEY)


def limits(gateway: LiveGateway) -> set[str]:
    """The day's limit, as whichever workers answer ten times over fresh connections have it."""
    return {gateway.get("/v1/key").json()["budgets"][0]["limit_usd"] for _ in range(10)}


def test_b1_b7_budgets_are_raised_and_adjusted_and_redis_may_forget(
    gateway: LiveGateway, redis_server: RedisServer, postgres_url: str
) -> None:
    """All workers have the raise within a second; after FLUSHALL raise and money are as SQL has them."""
    done = perpetuo(gateway, "budget", "raise", "acme", "20", "--until", "midnight", "--reason", "a launch")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("The day budget of acme is higher by 20 USD until ")
    eventually(lambda: limits(gateway) == {"70"})
    done = perpetuo(gateway, "budget", "adjust", "acme", "12.50", "--reason", "an invoice")
    assert done.exit_code == 0, done.stderr
    done = perpetuo(gateway, "budget", "adjust", "acme", "-2.5", "--reason", "too much")
    assert done.exit_code == 0, done.stderr
    refused = perpetuo(gateway, "budget", "adjust", "acme", "-11", "--reason", "too much")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "10 USD was spent there" in refused.stderr
    eventually(lambda: rows(postgres_url, "select sum(cost_nano_usd) from events")[0][0] == 10_000_000_000)
    redis_server.flush()
    eventually(lambda: gateway.get("/v1/key").json()["budgets"][0]["used_usd"] == "10")
    eventually(lambda: limits(gateway) == {"70"})
    shown = perpetuo(gateway, "tenants", "usage", "acme").stdout.splitlines()
    assert shown[1].split()[:7] == ["acme", "day", "70", "10", "0", "60", "20"]
    (raise_id,) = [line.split()[-1] for line in perpetuo(gateway, "budget", "raises").stdout.splitlines()[1:]]
    done = perpetuo(gateway, "budget", "end", raise_id)
    assert done.exit_code == 0, done.stderr
    eventually(lambda: limits(gateway) == {"50"})
