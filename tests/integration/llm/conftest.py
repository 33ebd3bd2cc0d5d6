"""A real model behind a real gateway, and the official SDK in front of it."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.integration.llm.model import MODEL, ModelServer, NoModelError, Row
from tests.live import KEY, LiveGateway, config_text, eventually
from tests.servers import RedisServer

WAIT = 200.0
"""Seconds an answer may take on a busy machine."""
UNLIMITED_KEY = "sk-test-unlimited-0123456789"


@pytest.fixture(scope="session")
def model() -> Iterator[ModelServer]:
    try:
        server = ModelServer()
    except NoModelError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"MODEL MISSING: {missing}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llm") / "events.sqlite3"


@pytest.fixture(scope="session")
def gateway(model: ModelServer, database: Path) -> Iterator[LiveGateway]:
    """One gateway for all tests here: a real Redis, and prices, so that every call has a hold."""
    config = config_text(
        providers=f"""
  - id: llama
    kind: openai
    baseUrl: {model.url}/v1
""",
        models=f"""
  - name: {MODEL}
    targets: [{{provider: llama, model: {MODEL}}}]
    price: {{inputPerMTok: 0.5, outputPerMTok: 1.5, cachedInputPerMTok: 0.25}}
    maxOutputTokens: 1024
""",
        more=f"""
  - id: unlimited
    plan: pro
    limits: {{budgetDay: unlimited}}
    apiKeys: ["{UNLIMITED_KEY}"]
""",
    )
    redis = RedisServer()
    redis.start()
    with LiveGateway(config, redis_url=redis.url, database_url=f"sqlite:///{database}") as running:
        yield running
    redis.close()


@pytest.fixture(scope="session")
def client(gateway: LiveGateway) -> Iterator[OpenAI]:
    """The SDK as users have it, except that it must not hide a failure by trying again."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=WAIT) as sdk:
        yield sdk


@pytest.fixture
def unlimited(client: OpenAI) -> OpenAI:
    """The SDK of a tenant without a budget: nothing is bounded for it, nor changed in what it sends."""
    return client.with_options(api_key=UNLIMITED_KEY)


@pytest.fixture
async def async_client(gateway: LiveGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=WAIT) as sdk:
        yield sdk


@pytest.fixture
def recorded(database: Path) -> Callable[[str], Row]:
    """The row of a call, by its request id."""

    def look(request_id: str) -> Row | None:
        with sqlite3.connect(database) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("select * from events where request_id = ?", (request_id,)).fetchall()
        assert len(found) <= 1
        return dict(found[0]) if found else None

    def wait(request_id: str) -> Row:
        row: Row = eventually(lambda: look(request_id))
        return row

    return wait


def pytest_terminal_summary(terminalreporter: Any) -> None:
    missing = [r for r in terminalreporter.stats.get("skipped", []) if "MODEL MISSING" in str(r.longrepr)]
    if missing:
        terminalreporter.write_line(f"{len(missing)} tests skipped: no language model could be run", red=True)
