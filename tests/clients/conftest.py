"""A mock of a provider, a gateway before it that adds nothing, and the figures at the end."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from llmock.testing import LLMockServer

from tests.clients.suites import KEY, Outcomes
from tests.live import LiveGateway
from tests.servers import RedisServer

Figures = list[tuple[str, Outcomes, Outcomes, int]]
"""What was installed, its outcomes directly and through the gateway, and how often the provider was asked."""
FIGURES = pytest.StashKey[Figures]()


@pytest.fixture(scope="session")
def upstream() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_here() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def gateway(
    upstream: LLMockServer, redis_here: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    """Every model goes to the mock as it was asked for, and nobody has a budget."""
    config = f"""
providers:
  - {{id: mock, kind: openai, baseUrl: "{upstream.base_url()}"}}
models:
  - {{name: "*", targets: [{{provider: mock, model: "*"}}]}}
plans:
  - {{id: pro, limits: {{budgetDay: unlimited}}}}
tenants:
  - {{id: clients, plan: pro, apiKeys: ["sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"]}}
"""
    database = f"sqlite:///{tmp_path_factory.mktemp('clients')}/events.sqlite3"
    with LiveGateway(config, redis_url=redis_here.url, database_url=database, workers=2) as running:
        yield running


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(FIGURES, [])
    if rows:
        terminalreporter.section("clients: tests passed", sep="=")
        terminalreporter.write_line(f"{'directly':>10}{'through':>10}{'of':>8}{'calls':>8}  client")
    for what, direct, through, calls in rows:
        passed = (sum(outcome == "passed" for outcome in outcomes.values()) for outcomes in (direct, through))
        numbers = "".join(f"{count:>10}" for count in passed) + f"{len(direct):>8}{calls:>8}"
        terminalreporter.write_line(f"{numbers}  {what}")
