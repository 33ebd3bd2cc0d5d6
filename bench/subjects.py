"""
Who is measured, where does it run, and how is it asked?

Every gateway runs on one core; its provider, its stores and wrk on the other, as they would on other machines.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import attrs

from bench import cases, machine, upstream
from bench.load import Load, first_answer
from tests import servers
from tests.live import LiveGateway

GATEWAY_CORE, OTHER_CORE = machine.cores()
DIRECT, NGINX, PERPETUO = "direct", "nginx, plain proxy", "Perpetuo, everything on"


@attrs.frozen
class Subject:
    """One that answers calls. ``pid``: of its process tree, ``None`` for a provider itself."""

    who: str
    pid: int | None
    asked: Callable[[str], tuple[int, Load]]
    """The port, and what is sent there, for a case."""
    started: float | None = None
    """Seconds from the start of the process to its first answer to a call."""
    few: frozenset[str] = frozenset()
    """Cases that it is asked over 4 connections: 64 calls that a run cuts off would be much of its work."""
    database: str | None = None
    """Where it writes its rows."""


@attrs.frozen
class Provider:
    """Ports of the two providers."""

    plain: int
    trickle: int

    def port(self, case: str) -> int:
        return self.trickle if cases.PROVIDERS[case] == "trickle" else self.plain

    def url(self, name: str) -> str:
        """The base URL of a provider of the configuration."""
        return f"http://127.0.0.1:{self.trickle if name == 'trickle' else self.plain}/{name}/v1"


def provider(stack: ExitStack) -> Provider:
    """Both providers, until the stack is closed."""
    plain = upstream.start_upstream(servers.free_port())
    stack.callback(plain.close)
    machine.pin(plain.pid, OTHER_CORE)
    return Provider(plain.port, _python(stack, "bench.trickle", OTHER_CORE)[1])


def _python(stack: ExitStack, module: str, core: int) -> tuple[int, int]:
    """Pid and port of a server of our own."""
    port = servers.free_port()
    process = upstream.start_python(module, port)
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    machine.pin(process.pid, core)
    return process.pid, port


def yardstick(stack: ExitStack) -> Subject:
    pid, port = _python(stack, "bench.yardstick", GATEWAY_CORE)
    return Subject("yardstick", pid, lambda case: (port, cases.CASES[case]))


def direct(provider: Provider) -> Subject:
    return Subject(DIRECT, None, lambda case: (provider.port(case), cases.straight(case)))


def nginx(stack: ExitStack, provider: Provider) -> Subject:
    proxy = upstream.start_proxy(servers.free_port(), provider.plain, provider.trickle)
    stack.callback(proxy.close)
    machine.pin(proxy.pid, GATEWAY_CORE)
    return Subject(NGINX, proxy.pid, lambda case: (proxy.port, cases.straight(case)))


@contextmanager
def stores() -> Iterator[tuple[str, str]]:
    """A Redis and a database, on the other core."""
    redis, postgres = servers.RedisServer(), servers.PostgresServer()
    try:
        for server in (redis, postgres):
            server.start()
            machine.pin(server.pid, OTHER_CORE)
        yield redis.url, servers.new_database(postgres.url)
    finally:
        redis.close()
        postgres.close()


def perpetuo(stack: ExitStack, provider: Provider) -> Subject:
    """The gateway as a user would start it, with stores of its own."""
    machine.compile_gateway()
    redis, database = stack.enter_context(stores())
    live = LiveGateway(
        cases.config(provider.plain, provider.trickle),
        redis_url=redis,
        database_url=database,
        workers=1,
        environ={"LOG_LEVEL": "warning"},
    )
    began = time.monotonic()
    live.start(wait=False)
    stack.callback(live.close)
    assert live.process is not None
    machine.pin(live.process.pid, GATEWAY_CORE)
    started = first_answer(live.port, cases.CASES["chat"], began)
    return Subject(
        PERPETUO, live.process.pid, lambda case: (live.port, cases.CASES[case]), started, database=database
    )  # fmt: skip


def counted(database: str) -> int:
    """Rows in ``events`` once they stop growing."""
    last = -1
    while True:
        now = int(servers.sql(database, "select count(*) from events")[0][0])
        if now == last:
            return now
        last = now
        time.sleep(1)


def versions() -> str:
    """Of what everybody is measured with."""
    commands = (
        [upstream.tool("nginx", "nginx-light"), "-v"],
        [upstream.tool("wrk", "wrk"), "-v"],
        [servers.redis_binary(), "--version"],
        [str(servers.postgres_bin() / "postgres"), "--version"],
    )
    names = ("nginx", "wrk", "Redis", "PostgreSQL")
    said = [subprocess.run(command, capture_output=True, text=True, check=False) for command in commands]
    found = [re.search(r"\d+\.\d+[.\d]*", one.stdout + one.stderr) for one in said]
    return ", ".join(f"{name} {match.group(0) if match else '?'}" for name, match in zip(names, found, strict=True))


def end(process: "subprocess.Popen[bytes]") -> None:
    """Its whole group: some gateways start others."""
    for pid in reversed(machine.tree(process.pid)):
        machine.kill(pid)
    process.wait(10)
