"""
Is everything that a gateway needs there, and as it should be?

    variables, configuration     first: they say where the rest is
    then all at once             each check has its own time, and the whole has one: nobody waits for what is away

Rule 1: a check returns findings, whatever happens; what it raises is a finding as well.
Rule 2: looking changes nothing, and no secret is ever part of what was seen.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

import attrs

from perpetuo.adapters.configfile.problems import ConfigError
from perpetuo.adapters.environment import Environment, InvalidEnvironmentError
from perpetuo.adapters.providers.examine import UnreachableError, reach
from perpetuo.adapters.redis.examine import examine as look_at_redis
from perpetuo.adapters.sql.examine import examine as look_at_database
from perpetuo.adapters.system import RealSystem
from perpetuo.bootstrap import files_of
from perpetuo.domain.model.models import ProviderKind, ProviderSpec
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.ports import StoreUnavailable
from perpetuo.entrypoints.doctor import database, here, redis
from perpetuo.entrypoints.doctor.findings import Finding

CHECK_SECONDS = 2.0
WHOLE_SECONDS = 2.5
"""Of all checks that ask somebody; with start and imports everything stays below 5 s."""
REFUSED = frozenset({401, 403})

Check = Callable[[], Awaitable[Iterable[Finding]]]


@attrs.frozen
class Examined:
    """``overdue``: something is still being waited for (a name, most likely), and can't be told to stop."""

    findings: list[Finding]
    overdue: bool = False


def examine(environ: Mapping[str, str] = os.environ, *, calls: bool = False) -> tuple[list[Finding], "Ahead"]:
    """Look at variables and configuration; the rest is `Ahead.examine`, which takes a loop."""
    asked, found = here.read_environment(environ)
    settings: Settings | None = None
    try:
        files = files_of(asked)
        settings = files.settings(files.read())
    except ConfigError as error:
        found += [Finding("configuration", str(problem), "configuration.invalid") for problem in error.problems[:10]]
        if len(error.problems) > 10:
            found.append(Finding("configuration", f"{len(error.problems) - 10} more", "configuration.invalid"))
    except InvalidEnvironmentError as error:
        found += [Finding("configuration", problem, "configuration.invalid") for problem in error.problems]
    else:
        found.append(Finding("configuration", f"{asked.config_path} is valid: version {settings.version}"))
        found += here.judge_keys(settings, RealSystem().now_us())
    found += here.judge_environment(asked, settings)
    found.append(here.judge_files())
    return found, Ahead(asked, settings, calls)


@attrs.frozen
class Ahead:
    """What is to be asked of others."""

    asked: Environment
    settings: Settings | None
    calls: bool

    def checks(self) -> dict[str, Check]:
        """By name, in the order in which they are told."""
        providers = self.settings.providers.values() if self.settings is not None else ()
        table: dict[str, Check] = {"gateway": self._gateway, "redis": self._redis, "database": self._database}
        return table | {f"provider {spec.id}": self._provider(spec) for spec in providers}

    async def examine(self) -> Examined:
        """Everything at once, in bounded time."""
        checks = self.checks()
        tasks = {name: asyncio.create_task(_run(name, check), name=name) for name, check in checks.items()}
        _, late = await asyncio.wait(tasks.values(), timeout=WHOLE_SECONDS)
        for task in late:
            task.cancel()
        found: list[Finding] = []
        for name, task in tasks.items():
            overdue = Finding(name, f"no answer in {WHOLE_SECONDS:g} s", "doctor.overdue")
            found += [overdue] if task in late else task.result()
        return Examined(found, overdue=bool(late))

    async def _gateway(self) -> Iterable[Finding]:
        return [await here.judge_gateway(self.asked, CHECK_SECONDS / 2)]

    async def _redis(self) -> Iterable[Finding]:
        if self.asked.in_process:
            return [Finding("redis", "memory://: limits live in the one worker's memory")]
        where = _address(self.asked.redis_url)
        try:
            seen = await look_at_redis(self.asked.redis_url, CHECK_SECONDS)
        except StoreUnavailable as away:
            return [Finding("redis", f"{where}: {_masked(str(away), self.asked.redis_url)}", "redis.away")]
        return [Finding("redis", f"{where} answers"), *redis.judge(seen)]

    async def _database(self) -> Iterable[Finding]:
        url = self.asked.database_url
        if url is None:
            return [Finding("database", "DATABASE_URL is not set", "database.unset")]
        where = _address(url)
        try:
            seen = await look_at_database(url, CHECK_SECONDS)
        except FileNotFoundError as missing:
            return [Finding("database", f"there is no file: {missing}", "database.missing")]
        except StoreUnavailable as away:
            return [Finding("database", f"{where}: {_masked(str(away), url)}", "database.away")]
        today = datetime.fromtimestamp(RealSystem().now_us() / 1_000_000, UTC).date()
        return [Finding("database", f"{where} answers"), *database.judge(seen, today)]

    def _provider(self, spec: ProviderSpec) -> Check:
        async def check() -> Iterable[Finding]:
            name = f"provider {spec.id}"
            if spec.kind is ProviderKind.DEMO:
                return [Finding(name, "built in")]
            try:
                reached = await reach(spec, call=self.calls, seconds=CHECK_SECONDS)
            except UnreachableError as error:
                code = "provider.insecure" if error.insecure else "provider.away"
                return [Finding(name, _masked(str(error), spec.base_url, spec.proxy or ""), code)]
            seen = f"{reached.address} connects in {reached.took_ms:.0f} ms"
            return [_called(name, seen, reached.status)]

        return check


def _called(name: str, seen: str, status: int | None) -> Finding:
    """What the status of ``GET /models`` says; 404 says that a server has no such list, which is no fault."""
    if status is None:
        return Finding(name, f"{seen}; not called (--calls does)")
    if status in REFUSED:
        return Finding(name, f"{seen}; it refuses our credential ({status})", "provider.credential")
    code = "provider.unwell" if status >= 500 or status == 429 else None
    return Finding(name, f"{seen}; GET /models answers {status}", code)


async def _run(name: str, check: Check) -> list[Finding]:
    try:
        return list(await check())
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are worth reading
        return [Finding(name, type(error).__name__, "doctor.broken")]


def _address(url: str) -> str:
    """Where it is, without who and how."""
    parts = urlsplit(url)
    host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    return f"{parts.scheme}://{host}{parts.path}"


def _masked(text: str, *urls: str) -> str:
    """Without the passwords of these URLs, however they were spelled."""
    for url in urls:
        password = urlsplit(url).password
        for secret in {password, unquote(password)} if password else ():
            text = text.replace(secret, "…")
    return text
