"""
A real gateway for tests: ``perpetuo serve`` as a user would start it, with real stores, and its upstreams.

    with LiveGateway(config, redis_url=…, database_url=…) as gateway:
        httpx.post(gateway.url + "/v1/chat/completions", …)
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from perpetuo.adapters.sql import migrate
from tests.patience import PATIENCE
from tests.servers import free_port, gateway_workers, spawned

ADMIN_KEY = "admin-key-of-the-tests-0123456789"
KEY = "sk-test-acme-0123456789"
OTHER_KEY = "sk-test-other-0123456789"
START_SECONDS = 180.0


def config_text(
    *,
    providers: str,
    models: str,
    limits: str = "{rateLimitMin: 100000, budgetDay: 1000}",
    more: str = "",
) -> str:
    """
    A small configuration: tenants ``acme`` and ``other`` with one key each.

    Redis has ten seconds: on a busy machine the usual 100 ms say nothing about the gateway. What is about them says so.
    """
    if "redis:" not in more:
        more += "\nredis: {timeout: 10s}"
    return f"""
providers:
{providers}
models:
{models}
plans:
  - id: pro
    limits: {limits}
tenants:
  - id: acme
    plan: pro
    apiKeys: ["{KEY}"]
  - id: other
    plan: pro
    apiKeys: ["{OTHER_KEY}"]
{more}
"""


class LiveGateway:
    """One ``perpetuo serve`` process tree."""

    def __init__(
        self,
        config: str,
        *,
        redis_url: str = "memory://",
        database_url: str,
        workers: int = 1,
        port: int | None = None,
        environ: dict[str, str] | None = None,
        migrated: bool = True,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self.config_path = self.directory / "perpetuo.config.yaml"
        self.config_path.write_text(config)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = self.directory / "log"
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PERPETUO_", "REDIS_", "DATABASE_"))},
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            "WORKERS": str(workers),
            "REDIS_URL": redis_url,
            "DATABASE_URL": database_url,
            "PERPETUO_CONFIG_PATH": str(self.config_path),
            "PERPETUO_ADMIN_KEY": ADMIN_KEY,
            "LOG_FORMAT": "json",
            **(environ or {}),
        }
        if migrated:
            migrate.upgrade(database_url)
        self.process: subprocess.Popen[bytes] | None = None
        self._said = ""
        """The log of one that is closed."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *, wait: bool = True) -> None:
        command = [str(Path(sys.executable).with_name("perpetuo")), "serve"]
        self.process = spawned(command, self.log_path, self.directory, env=self._environ, start_new_session=True)
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if httpx.get(self.url + "/health/ready", timeout=10, verify=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the gateway ended with {self.process.returncode}:\n{self.log()}")
            time.sleep(0.05)
        raise AssertionError(f"the gateway is not ready after {seconds} s:\n{self.log()}")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else self._said

    def worker_pids(self) -> list[int]:
        """Pids of the worker processes, oldest first."""
        assert self.process is not None
        return gateway_workers(self.process.pid)

    def connections(self, pid: int) -> int:
        """How many clients are connected to this worker (Linux)."""
        try:
            links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            return 0  # it has just died, or closed one of them
        inodes = {link[8:-1] for link in links if link.startswith("socket:")}
        table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        here = f":{self.port:04X}"
        return sum(1 for row in table if row[1].endswith(here) and row[3] == "01" and row[9] in inodes)

    def kill_workers(self) -> None:
        for pid in self.worker_pids():
            os.kill(pid, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, seconds: float = 120.0) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to the whole tree."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)

    def close(self) -> None:
        self.kill()
        self._said = self.log()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- asking ------------------------------------------------------------------------------

    def chat(self, key: str = KEY, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """One chat call, not streamed."""
        return httpx.post(
            self.url + "/v1/chat/completions",
            headers={"authorization": f"Bearer {key}", **(headers or {})},
            json={"model": "m", "messages": [{"role": "user", "content": "hi"}], **body},
            timeout=30,
            verify=False,
        )

    def get(self, path: str, key: str = KEY) -> httpx.Response:
        return httpx.get(self.url + path, headers={"authorization": f"Bearer {key}"}, timeout=30, verify=False)


def eventually(look: Any, seconds: float = PATIENCE, every: float = 0.05) -> Any:
    """The first true value of ``look()``; fails with its last value after ``seconds``."""
    until = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < until, f"not within {seconds} s; last seen: {value!r}"
        time.sleep(every)


def rows(database_url: str, statement: str) -> Sequence[Sequence[Any]]:
    """Rows of a query against the events database."""
    from tests.servers import sql

    return sql(database_url, statement)
