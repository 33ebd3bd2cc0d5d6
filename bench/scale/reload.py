"""
What does a configuration with many tenants cost: to check, to start with, to hold, and to take over while calls go on?
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import attrs
import httpx

from bench import machine
from bench.scale import stage
from bench.upstream import Nginx
from tests import servers
from tests.live import ADMIN_KEY, LiveGateway, eventually

CLIENTS = 4
BEFORE_SECONDS = 2.0
MOST_SECONDS = 30.0


@attrs.frozen
class Reloaded:
    """Seconds and MiB; delays of calls are ms."""

    tenants: int
    check: float
    start: float
    rss: float
    rss_after: float
    took: float
    usual: float
    """p50 of a call before."""
    during: float
    """p50 of those that began while the file was taken over."""
    longest: float


class Callers:
    """A few clients that call without a pause and write down when they began and how long they waited."""

    def __init__(self, gateway: LiveGateway) -> None:
        self.calls: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._gateway = gateway
        self._threads = [threading.Thread(target=self._call) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        body = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": f"Bearer {stage.KEY.format(0)}"}
        with httpx.Client(base_url=self._gateway.url, headers=headers, timeout=30) as client:
            while not self._over.is_set():
                began = time.monotonic()
                assert client.post("/v1/chat/completions", json=body).status_code == 200
                self.calls.append((began, (time.monotonic() - began) * 1000))
                time.sleep(0.005)

    def between(self, start: float, end: float) -> list[float]:
        """Delays of the calls that were under way then, shortest first."""
        return sorted(ms for began, ms in self.calls if began < end and began + ms / 1000 > start)


def measure(tenants: int, upstream: Nginx, stores: stage.Stores) -> Reloaded:
    """One worker, with a core of its own; the clients on the other."""
    text = stage.config(tenants, upstream.port)
    database = servers.new_database(stores.postgres.url)
    check = _check(text, stores)
    began = time.monotonic()
    with stage.gateway(text, stores.redis, database) as live:
        start = time.monotonic() - began
        (worker,) = live.worker_pids()
        rss = machine.rss_mib(worker)
        with Callers(live) as callers:
            time.sleep(BEFORE_SECONDS)
            asked, done = _reload(live, text)
            time.sleep(1.0)
        usual, during = callers.between(asked - 1.5, asked), callers.between(asked, done)
        return Reloaded(
            tenants, check, start, rss, machine.rss_mib(worker), done - asked,
            usual[len(usual) // 2], during[len(during) // 2], during[-1],
        )  # fmt: skip


def _check(text: str, stores: stage.Stores) -> float:
    path = stores.redis.directory / "checked.yaml"
    path.write_text(text)
    command = [str(Path(sys.executable).with_name("perpetuo")), "check", str(path)]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def _reload(live: LiveGateway, text: str) -> tuple[float, float]:
    """Change the file; when that was, and when the change was in force."""
    changed = text.replace("rateLimitMin: 1000000", "rateLimitMin: 999999")
    aside = live.config_path.with_suffix(".new")
    aside.write_text(changed)
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=live.url, headers=headers, timeout=30) as client:

        def version() -> str:
            return str(client.get("/admin/api/system").json()["config"]["version"])

        before, asked = version(), time.monotonic()
        aside.rename(live.config_path)
        eventually(lambda: version() != before, MOST_SECONDS, every=0.02)
    return asked, time.monotonic()
