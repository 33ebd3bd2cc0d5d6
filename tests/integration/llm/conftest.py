"""A real model behind a real gateway, and the official SDK in front of it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.integration.llm.model import MODEL, ModelServer, NoModelError
from tests.live import KEY, LiveGateway, config_text
from tests.servers import RedisServer

WAIT = 50.0
"""Seconds an answer may take on a busy machine."""


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
async def async_client(gateway: LiveGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=WAIT) as sdk:
        yield sdk


def pytest_terminal_summary(terminalreporter: Any) -> None:
    missing = [r for r in terminalreporter.stats.get("skipped", []) if "MODEL MISSING" in str(r.longrepr)]
    if missing:
        terminalreporter.write_line(f"{len(missing)} tests skipped: no language model could be run", red=True)
