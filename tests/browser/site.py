"""
What do the pages of these tests show?

A gateway of two workers on a Redis and a PostgreSQL of its own, and calls that go on while somebody looks:

| who | what |
|---|---|
| ``acme`` | calls that succeed, some streamed; every third of ``flaky`` fails |
| ``other`` | calls a provider that is down, until its breaker opens |
| ``small`` | has a limit of two calls a minute, so it is refused |
| `HOSTILE` | a tenant and a model whose names are HTML that would run a script |
| ``customer-01`` … | have a page of the list for themselves, and no calls |

Three may sign in: the key of the environment and ``bob`` may act, ``eve`` may only look (`ADMIN_KEYS`).
"""

import hmac
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import attrs
import httpx
from playwright.sync_api import Locator, Page

from perpetuo.domain.model.settings import AdminKey
from perpetuo.entrypoints.http.admin.sessions import COOKIE, Sessions
from perpetuo.entrypoints.http.admin.signing import COOKIE_PATHS
from tests import live
from tests.live import ADMIN_KEY, KEY, OTHER_KEY, LiveGateway
from tests.patience import PATIENCE

SMALL_KEY = "sk-test-small-0123456789"
HOSTILE_KEY = "sk-test-hostile-0123456789"
HOSTILE = "<img src=x onerror=alert(1)>"
ADMIN_KEYS = {
    "PERPETUO_ADMIN_KEY": ADMIN_KEY,
    "bob": "admin-key-of-bob-0123456789",
    "eve": "admin-key-of-eve-0123456789",
}
PAUSE_SECONDS = 1.0
SLOW = 4 * PATIENCE
"""A page is made by three processes and drawn by a few more: on a busy machine each of them waits for all others."""


def _hash(key: str) -> str:
    return "sha256:" + sha256(key.encode()).hexdigest()


KEY_HASH = _hash(KEY)

CONFIG = (
    f"""
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
  - {{name: "{HOSTILE}", free: true, targets: [{{provider: demo, model: gpt-3.5-turbo}}]}}
retry: {{attempts: 1}}
redis: {{timeout: 10s}}
plans:
  - id: pro
    limits: {{rateLimitMin: 5000, budgetDay: 50, budgetMonth: 1000, concurrency: 20}}
tenants:
  - id: acme
    plan: pro
    limits: {{budgetDay: 2000, budgetMonth: 20000}}
    apiKeys: [{{hash: "{KEY_HASH}", name: web}}]
  - {{id: other, plan: pro, apiKeys: ["{OTHER_KEY}"]}}
  - {{id: small, plan: pro, limits: {{rateLimitMin: 2}}, apiKeys: ["{SMALL_KEY}"]}}
  - {{id: "{HOSTILE}", plan: pro, apiKeys: ["{HOSTILE_KEY}"]}}
"""
    + "".join(f"  - {{id: customer-{number:02}, plan: pro}}\n" for number in range(1, 57))
    + f"""
admin:
  keys:
    - {{name: bob, role: write, hash: "{_hash(ADMIN_KEYS["bob"])}"}}
    - {{name: eve, role: read, hash: "{_hash(ADMIN_KEYS["eve"])}"}}
"""
)

PAST = """
insert into events
select (jsonb_populate_record(e, jsonb_build_object(
    'id', lpad(to_hex(('x' || left(replace(e.id::text, '-', ''), 12))::bit(48)::bigint - ago * 60000), 12, '0')
        || substr(replace(e.id::text, '-', ''), 13),
    'occurred_at', e.occurred_at - ago * interval '1 minute',
    'latency_ms', e.latency_ms * (1 + 0.3 * sin(ago / 3.0))))).*
from events e cross join generate_series(1, 59) ago
where e.kind <> 'admin' and abs(hashtext(e.id::text || ago)) % 100 < 35 + 20 * sin(ago / 7.0)
"""
DUE = """
insert into rollups_due (minute)
select floor(extract(epoch from now()) / 60) - ago from generate_series(1, 60) ago
"""


RECORDED = """
select count(*) >= 60 and count(*) filter (where outcome = 'failed') >= 5 and count(*) filter (where model = 'm') >= 20
    and bool_or(tenant_id like '<img%')
from events
"""


def eventually(look: Any) -> Any:
    """The first true value of ``look()``."""
    return live.eventually(look, SLOW, every=0.2)


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
        self._thread.join(SLOW)

    def _go_on(self) -> None:
        for number in itertools.count():
            if self._over.wait(PAUSE_SECONDS):
                return
            try:
                self.round(hostile=number % 10 == 0)
            except httpx.HTTPError:
                pass  # a test that ends its gateway has its reasons

    def round(self, *, hostile: bool) -> None:
        """A call of everybody; ``hostile``: also of the tenant whose name is HTML."""
        chat = self._gateway.chat
        chat(max_tokens=20)
        chat(max_tokens=20, stream=True)
        chat(model="flaky", max_tokens=20)
        chat(OTHER_KEY, model="down", max_tokens=5)
        chat(SMALL_KEY, max_tokens=5)
        if hostile:
            chat(HOSTILE_KEY, model=HOSTILE, max_tokens=5)


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

    def cookies(self, name: str, hours_ago: float = 0) -> list[Any]:
        """What a browser has after ``name`` has signed in, so long ago."""
        secret = hmac.new(ADMIN_KEY.encode(), b"perpetuo admin sessions", sha256).digest()
        key = AdminKey(name, sha256(ADMIN_KEYS[name].encode()).digest())
        session = Sessions(secret).begin(key, int(time.time() - hours_ago * 3_600))
        return [
            {"name": COOKIE, "value": session.text, "domain": "127.0.0.1", "path": path, "sameSite": "Strict"}
            for path in COOKIE_PATHS
        ]

    def rows(self, statement: str) -> Sequence[Sequence[Any]]:
        """Rows of a query; from a thread of its own, because the browser's has an event loop already."""
        with ThreadPoolExecutor(1) as other:
            return other.submit(live.rows, self.database_url, statement).result()

    def api(self, path: str) -> Any:
        """What a script is told."""
        answer = self.gateway.get(f"/admin/api/{path}", ADMIN_KEY)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def given_a_past(self) -> None:
        """For pictures: what was recorded happened in the hour before as well, more or less."""
        self.rows(PAST)
        self.rows(DUE)
        eventually(lambda: self.rows("select count(distinct minute) from rollups")[0][0] >= 50)

    def wait_recorded(self) -> None:
        """Until there are rows of everything that tests look for, however many calls a busy machine has failed."""
        eventually(lambda: self.rows(RECORDED)[0][0])
        eventually(lambda: self.api("refusals?tenant_id=small")["items"])


def warmed_up(gateway: LiveGateway, traffic: Traffic, rounds: int = 18) -> None:
    """Let there be something to see before the first page is asked for."""
    for number in range(rounds):
        traffic.round(hostile=number == 0)
    eventually(lambda: gateway.chat(max_tokens=5).status_code == 200)


def with_rows(page: Page, path: str) -> Locator:
    """The links of the rows that are there, however often a busy machine has to be asked for them."""
    links = page.locator("tbody th a")
    eventually(lambda: page.goto(path) and links.count() > 0)
    return links


def sign_in(page: Page, name: str) -> None:
    """By the form, as a person does."""
    page.get_by_label("Admin key").fill(ADMIN_KEYS[name])
    page.get_by_role("button", name="Sign in").click()
