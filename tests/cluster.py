"""
Several gateways over one Redis and one database, as in production: two of two workers each, unless told otherwise.

    with Cluster(config, redis_url=…, database_url=…) as cluster:
        cluster.chat(KEY, max_tokens=5)                 # the gateways in turn
        cluster.at_once(200, lambda i: cluster.chat())  # from many threads
        with cluster.lines() as lines:                  # one connection to each worker
            lines[0].chat()
        cluster.kill_worker()

A client can't choose a worker: the kernel deals connections out. `lines` keeps connecting until every worker
has one, and knows by ``/proc`` whose it is.
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import attrs
import httpx

from perpetuo.adapters.sql import migrate
from tests.live import KEY, LiveGateway, eventually
from tests.patience import PATIENCE

T = TypeVar("T")
PATH = "/v1/chat/completions"


class Cluster:
    """Gateways with one configuration and the same stores."""

    def __init__(
        self,
        config: str,
        *,
        redis_url: str,
        database_url: str,
        gateways: int = 2,
        workers: int = 2,
        environ: dict[str, str] | None = None,
    ) -> None:
        self.config = config
        self.workers = workers
        self.database_url = database_url
        migrate.upgrade(database_url)
        self.gateways = [
            LiveGateway(
                config, redis_url=redis_url, database_url=database_url, workers=workers, environ=environ, migrated=False
            )
            for _ in range(gateways)
        ]
        self._turn = itertools.cycle(self.gateways)
        self._turning = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """All at once; returns when every worker is there."""
        try:
            for gateway in self.gateways:
                gateway.start(wait=False)
            for gateway in self.gateways:
                gateway.wait_ready()
            self.wait_whole()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.close()

    @property
    def urls(self) -> list[str]:
        return [gateway.url for gateway in self.gateways]

    def next(self) -> LiveGateway:
        """The gateways in turn."""
        with self._turning:
            return next(self._turn)

    def log(self) -> str:
        return "".join(gateway.log() for gateway in self.gateways)

    # --- processes -------------------------------------------------------------------------------

    def worker_pids(self) -> list[int]:
        """Pids of all workers, those of the first gateway first."""
        return [pid for gateway in self.gateways for pid in gateway.worker_pids()]

    def wait_whole(self, seconds: float = 60.0) -> None:
        """Until every gateway has all its workers, and each has come through its start."""

        def whole(gateway: LiveGateway) -> bool:
            pids, log = gateway.worker_pids(), gateway.log()
            return len(pids) == self.workers and all(f'"pid":{pid},"workers":' in log for pid in pids)

        eventually(lambda: all(whole(gateway) for gateway in self.gateways), seconds)

    def ready_at(self, pid: int) -> float:
        """When this worker said in its gateway's log that it is ready; on the clock of `time.time`."""
        line = next(line for line in self.log().splitlines() if f'"pid":{pid},"workers":' in line)
        return datetime.fromisoformat(json.loads(line)["time"]).timestamp()

    def kill_worker(self, pid: int | None = None) -> int:
        """SIGKILL to one worker, the oldest unless told which; its pid."""
        victim = pid or min(self.worker_pids())
        os.kill(victim, signal.SIGKILL)
        return victim

    def configure(self, config: str) -> None:
        """Another configuration for every gateway; each file changes in one instant."""
        for gateway in self.gateways:
            new = gateway.config_path.with_suffix(".new")
            new.write_text(config)
            new.replace(gateway.config_path)

    # --- asking ----------------------------------------------------------------------------------

    def chat(self, key: str = KEY, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """One chat call at the next gateway, over a connection of its own."""
        return self.next().chat(key, headers=headers, **body)

    @staticmethod
    def at_once(calls: int, ask: Callable[[int], T], threads: int = 64) -> list[T]:
        """``ask(0)``, ``ask(1)`` … from so many threads; the answers in that order."""
        with concurrent.futures.ThreadPoolExecutor(min(calls, threads)) as pool:
            return list(pool.map(ask, range(calls)))

    def owner(self, port: int) -> int | None:
        """Which worker holds the server's end of the connection that this local port is the client's end of?"""
        return owner(port, self.worker_pids())

    @contextlib.contextmanager
    def lines(self) -> Iterator[list["Line"]]:
        """A connection to every worker, in the order of `worker_pids`."""
        found: dict[int, Line] = {}
        extra: list[Line] = []
        try:
            until = time.monotonic() + PATIENCE
            while missing := [pid for pid in self.worker_pids() if pid not in found]:
                assert time.monotonic() < until, f"{missing} get no connections"
                for gateway in self.gateways:
                    line = Line.to(gateway.url, self)
                    (extra.append(line) if line.pid in found else found.__setitem__(line.pid, line))
            yield [found[pid] for pid in self.worker_pids()]
        finally:
            for line in (*found.values(), *extra):
                line.close()


@attrs.define(eq=False)
class Line:
    """One kept-alive connection, and so one worker."""

    pid: int
    url: str
    client: httpx.Client

    @classmethod
    def to(cls, url: str, cluster: Cluster) -> "Line":
        client = httpx.Client(
            timeout=120, verify=False, limits=httpx.Limits(max_connections=1, keepalive_expiry=3_600), trust_env=False
        )
        answer = client.get(f"{url}/health/live")
        server: socket.socket = answer.extensions["network_stream"].get_extra_info("socket")
        pid = eventually(lambda: cluster.owner(server.getsockname()[1]))
        return cls(pid, url, client)

    def chat(self, key: str = KEY, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        return self.client.post(
            self.url + PATH,
            headers={"authorization": f"Bearer {key}", **(headers or {})},
            json={"model": "m", "messages": [{"role": "user", "content": "hi"}], **body},
        )

    def get(self, path: str, key: str = KEY) -> httpx.Response:
        return self.client.get(self.url + path, headers={"authorization": f"Bearer {key}"})

    def close(self) -> None:
        self.client.close()


def ask_each(lines: Sequence[Line], ask: Callable[[Line], T]) -> list[T]:
    """The same of every worker at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(lines)) as pool:
        return list(pool.map(ask, lines))


def owner(port: int, pids: Sequence[int]) -> int | None:
    """Which of these processes holds the server's end of the connection whose other end has this local port?"""
    inodes = _inodes_of_peer(port)
    return next((pid for pid in pids if inodes & _sockets(pid)), None)


def _inodes_of_peer(port: int) -> set[str]:
    """Sockets whose other end has this local port (Linux, IPv4)."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in table if row[2].endswith(f":{port:04X}") and row[3] == "01"} - {"0"}


def _sockets(pid: int) -> set[str]:
    try:
        links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()  # it has just ended, or closed one of them
    return {link[8:-1] for link in links if link.startswith("socket:")}
