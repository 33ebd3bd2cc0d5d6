"""A whole worker in this process, memory and SQLite, and a browser without a network: `Desk`."""

import asyncio
import hashlib
import html.parser
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from perpetuo import bootstrap
from perpetuo.adapters.environment import read
from perpetuo.adapters.sql import migrate
from perpetuo.domain.gateway.relay import flush_once, relay
from perpetuo.entrypoints.http.app import call_path, management_app, public_app
from tests.patience import PATIENCE

ADMIN_KEY = "admin-key-of-the-tests-0123456789"
READ_KEY = "read-key-of-the-tests-0123456789"
TENANT_KEY = "sk-test-acme-0123456789"
PROVIDER_KEY = "sk-upstream-canary-0123456789"
HOSTILE = "<img src=x onerror=alert(1)>"
CONFIG = f"""
providers:
  - {{id: demo, kind: demo}}
  - {{id: paid, kind: openai, baseUrl: "http://127.0.0.1:9/v1", apiKey: {PROVIDER_KEY}}}
models:
  - {{name: m, targets: [{{provider: demo, model: gpt-3.5-turbo}}]}}
  - {{name: "{HOSTILE}", targets: [{{provider: demo, model: gpt-3.5-turbo}}]}}
  - {{name: away, free: true, targets: [{{provider: paid, model: x}}]}}
plans:
  - id: pro
    limits: {{rateLimitMin: 100, budgetDay: 1, budgetMonth: 10, concurrency: 20}}
tenants:
  - id: acme
    plan: pro
    apiKeys: ["{TENANT_KEY}", {{hash: "sha256:{"0" * 63}1", name: batch, limits: {{budgetDay: 0.5}}}}]
  - {{id: "{HOSTILE}", plan: pro, apiKeys: ["sk-test-hostile-0123456789"]}}
admin:
  keys:
    - {{name: bob, hash: "sha256:{hashlib.sha256(READ_KEY.encode()).hexdigest()}", role: read}}
"""


class Desk:
    """An operator's browser at one worker."""

    def __init__(self, container: bootstrap.Container, *, management: bool = True) -> None:
        self.container = container
        self.app = public_app(container, call_path(container), management=management)
        self.browser = self.another()
        stream, store = container.stores.stream, container.store
        self._relay = asyncio.create_task(relay(stream, store, container.journal, container.system))

    def another(self, base: str = "http://localhost:3000", client: str = "127.0.0.1") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, client=(client, 1234))  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url=base)

    async def sign_in(self, key: str = ADMIN_KEY, browser: httpx.AsyncClient | None = None) -> httpx.Response:
        return await (browser or self.browser).post("/admin/login", data={"key": key})

    async def page(self, path: str) -> str:
        answer = await self.browser.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def api(self, path: str, key: str = ADMIN_KEY) -> Any:
        return (await self.ask(path, key)).json()

    async def ask(self, path: str, key: str = ADMIN_KEY, /, **order: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        if order:
            return await self.another().post(f"/admin/api/{path}", headers=headers, json=order)
        return await self.another().get(f"/admin/api/{path}", headers=headers)

    async def token(self) -> str:
        found = re.search(r'name="token" value="([0-9a-f]+)"', await self.page("/admin"))
        assert found
        return found.group(1)

    async def call(self, key: str = TENANT_KEY, model: str = "m", **headers: str) -> httpx.Response:
        """One call, and its row in SQL."""
        answer = await self.another().post(
            "/v1/chat/completions",
            headers={"authorization": f"Bearer {key}", **headers},
            json={"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "canary-prompt"}]},
        )
        await self.written()
        return answer

    async def close(self) -> None:
        self._relay.cancel()
        await asyncio.wait({self._relay})
        await self.container.stop()

    async def written(self) -> None:
        container = self.container
        async with asyncio.timeout(PATIENCE):
            while await container.stores.stream.backlog():  # noqa: ASYNC110 - a store, it has no event to wait for
                await asyncio.sleep(0.005)
        await flush_once(container.pending_refusals, container.store, container.journal)


def settings_for(directory: Path, **more: str) -> dict[str, str]:
    config = directory / "perpetuo.config.yaml"
    config.write_text(more.pop("config", CONFIG))
    return {
        "PERPETUO_CONFIG_PATH": str(config),
        "PERPETUO_ADMIN_KEY": ADMIN_KEY,
        "REDIS_URL": "memory://",
        "LOG_FORMAT": "json",
        **more,
    }


async def open_desk(environ: dict[str, str], *, management: bool = True) -> Desk:
    container = await bootstrap.build(read(environ))
    await container.start()
    container.stage = "ready"
    return Desk(container, management=management)


@pytest.fixture(autouse=True)
def unhurried_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a busy machine doesn't reach in its 200 ms is left to the next page; tests about that have less time."""
    for module, name in (("look", "SEARCH_SECONDS"), ("look", "ANSWER_SECONDS"), ("exporting", "SEARCH_SECONDS")):
        monkeypatch.setattr(f"perpetuo.entrypoints.http.admin.events.{module}.{name}", PATIENCE)


@pytest.fixture
def within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test does from here on is of one minute: the worker's clock stands at the beginning of this one."""
    past_ns = time.time_ns() % 60_000_000_000
    clock = SimpleNamespace(**vars(time) | {"time_ns": lambda: time.time_ns() - past_ns})
    monkeypatch.setattr("perpetuo.adapters.system.time", clock)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def environ(migrated: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "events.db").write_bytes(migrated.read_bytes())
    return settings_for(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path / 'events.db'}")


@pytest.fixture
async def desk(environ: dict[str, str]) -> AsyncIterator[Desk]:
    made = await open_desk(environ)
    yield made
    await made.close()


@pytest.fixture(scope="module")
def still_environ(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("still")
    (directory / "events.db").write_bytes(migrated.read_bytes())
    return settings_for(directory, DATABASE_URL=f"sqlite:///{directory / 'events.db'}")


@pytest.fixture(scope="module")
async def still_desk(still_environ: dict[str, str]) -> AsyncIterator[Desk]:
    """One for all tests of a module that change nothing: to make the application takes longer than they do."""
    made = await open_desk(still_environ)
    yield made
    await made.close()


@pytest.fixture
async def blind_desk(environ: dict[str, str]) -> AsyncIterator[Desk]:
    """The event table is away: nothing listens there."""
    made = await open_desk(environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    yield made
    await made.close()


@pytest.fixture
async def apart(environ: dict[str, str]) -> AsyncIterator[tuple[Desk, httpx.AsyncClient]]:
    """With MANAGEMENT_PORT: the public application, and a browser at the other one."""
    made = await open_desk(environ | {"MANAGEMENT_PORT": "3999"}, management=False)
    transport = httpx.ASGITransport(app=management_app(made.container))  # type: ignore[arg-type]
    yield made, httpx.AsyncClient(transport=transport, base_url="http://localhost:3999")
    await made.close()


class Markup(html.parser.HTMLParser):
    """What a content security policy forbids, and what a page links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "style" or name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.inline.append(f"{tag} {name}={value}")
            if name in {"href", "src", "action"}:
                self.links.append(value or "")
        if tag == "style":
            self.inline.append(tag)
        if tag == "img":
            self.images.append(str(dict(attrs).get("src")))
        self._in_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.inline.append(f"script {data[:40]}")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False
