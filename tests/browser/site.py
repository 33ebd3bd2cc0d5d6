"""
What do the pages of these tests show?

A gateway of two workers on a Redis and a PostgreSQL of its own, and calls that go on while somebody looks:

| who | what |
|---|---|
| ``acme`` | calls that succeed, some streamed; every third of ``flaky`` fails |
| ``other`` | calls a provider that is down, until its breaker opens |
| ``small`` | has a limit of two calls a minute, so it is refused |
| ``<b>bold`` | a tenant whose name is HTML |
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import attrs
import httpx

from tests.live import KEY, OTHER_KEY, LiveGateway, eventually, rows

SMALL_KEY = "sk-test-small-0123456789"
BOLD_KEY = "sk-test-bold-0123456789"
KEY_HASH = "sha256:" + sha256(KEY.encode()).hexdigest()
PAUSE_SECONDS = 0.4

CONFIG = f"""
providers:
  - {{id: demo, kind: demo}}
  - {{id: shaky, kind: demo}}
  - {{id: down, kind: openai, baseUrl: "http://127.0.0.1:9/v1", apiKey: sk-canary-of-a-provider}}
models:
  - {{name: m, targets: [{{provider: demo, model: gpt-3.5-turbo}}], price: {{inputPerMTok: 500, outputPerMTok: 1500}}}}
  - name: flaky
    targets: [{{provider: shaky, model: demo-flaky}}]
    price: {{inputPerMTok: 500, outputPerMTok: 1500}}
  - {{name: down, free: true, targets: [{{provider: down, model: x}}]}}
  - {{name: "<i>model</i>", free: true, targets: [{{provider: demo, model: gpt-3.5-turbo}}]}}
retry: {{attempts: 1}}
plans:
  - id: pro
    limits: {{rateLimitMin: 5000, budgetDay: 50, budgetMonth: 1000, concurrency: 20}}
tenants:
  - {{id: acme, plan: pro, apiKeys: [{{hash: "{KEY_HASH}", name: web}}]}}
  - {{id: other, plan: pro, apiKeys: ["{OTHER_KEY}"]}}
  - {{id: small, plan: pro, limits: {{rateLimitMin: 2}}, apiKeys: ["{SMALL_KEY}"]}}
  - {{id: "<b>bold", plan: pro, apiKeys: ["{BOLD_KEY}"]}}
"""


class Traffic:
    """One caller after the other, until the end of the block."""

    def __init__(self, gateway: LiveGateway) -> None:
        self._gateway = gateway
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _go_on(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            try:
                self.round()
            except httpx.HTTPError:
                pass  # a test that ends its gateway has its reasons

    def round(self) -> None:
        """A call of everybody."""
        chat = self._gateway.chat
        chat(max_tokens=20)
        chat(max_tokens=20, stream=True)
        chat(model="flaky", max_tokens=20)
        chat(OTHER_KEY, model="down", max_tokens=5)
        chat(SMALL_KEY, max_tokens=5)
        chat(BOLD_KEY, model="<i>model</i>", max_tokens=5)


@attrs.frozen
class Site:
    """A gateway with a past and a present."""

    gateway: LiveGateway
    redis_url: str
    database_url: str

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def config(self) -> Path:
        """The file that the gateway watches."""
        return self.gateway.config_path

    def rows(self, statement: str) -> Sequence[Sequence[Any]]:
        """Rows of a query; from a thread of its own, because the browser's has an event loop already."""
        with ThreadPoolExecutor(1) as other:
            return other.submit(rows, self.database_url, statement).result()

    def wait_recorded(self, at_least: int = 20) -> None:
        """Until that many calls are rows."""
        eventually(lambda: self.rows("select count(*) from events")[0][0] >= at_least, 30.0)


def warmed_up(gateway: LiveGateway, traffic: Traffic, rounds: int = 5) -> None:
    """Let there be something to see before the first page is asked for."""
    for _ in range(rounds):
        traffic.round()
    assert gateway.chat(max_tokens=5).status_code == 200
