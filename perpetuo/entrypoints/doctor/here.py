"""
Is this machine ready to run a gateway: its variables, its configuration, its limits, and the gateway if it runs?
"""

import asyncio
import json
import resource
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from typing import Any

from perpetuo.adapters import environment
from perpetuo.adapters.configfile.published import published_keys
from perpetuo.adapters.environment import Environment, InvalidEnvironmentError, usable_cpus
from perpetuo.domain.model.settings import Settings
from perpetuo.entrypoints.doctor.findings import Finding

FEW_FILES = 4_096
"""A call has two connections."""
WEEK_US = 7 * 86_400_000_000


def read_environment(environ: Mapping[str, str]) -> tuple[Environment, list[Finding]]:
    """What can be obeyed of it: variables that can't are told, and then left out."""
    try:
        return environment.read(environ), [Finding("environment", "every variable can be obeyed")]
    except InvalidEnvironmentError as invalid:
        found = [Finding("environment", problem, "environment.invalid") for problem in invalid.problems]
        named = {problem.split()[0] for problem in invalid.problems}
        left = {name: value for name, value in environ.items() if name.removesuffix("_FILE") not in _stems(named)}
        return environment.read(left), found


def _stems(names: set[str]) -> set[str]:
    return {name.removesuffix("_FILE") for name in names}


def judge_environment(asked: Environment, settings: Settings | None) -> Iterator[Finding]:
    others = len(settings.admin_keys) if settings is not None else 0
    if asked.admin_key is None and not others:
        yield Finding("admin key", "nobody can sign in but with a key made up at each start", "admin-key.missing")
    else:
        yield Finding("admin key", f"{'set' if asked.admin_key else 'not set'}; {others} in the configuration")
    exposed = asked.beyond_loopback and asked.management_port is None and asked.metrics_token is None
    where = f"on MANAGEMENT_PORT {asked.management_port}" if asked.management_port else f"on PORT {asked.port}"
    yield Finding(
        "management", f"/admin and /metrics are {where} of {asked.host}", "management.open" if exposed else None
    )
    cpus = usable_cpus()
    many = asked.workers > cpus
    yield Finding("workers", f"{asked.workers} on {cpus} usable CPUs", "workers.many" if many else None)


def judge_keys(settings: Settings, now_us: int) -> Iterator[Finding]:
    """Keys that everybody knows, and keys at the end of their time."""
    sound = True
    for text in published_keys(settings):
        sound = False
        yield Finding("keys", text.partition(". ")[0], "keys.published")
    for caller in settings.callers.values():
        ends = caller.key.expires_us
        if ends is not None and ends - now_us < WEEK_US:
            sound = False
            over = ends <= now_us
            text = f"key {caller.key.name} of tenant {caller.tenant.id} {'expired' if over else 'expires'} {_day(ends)}"
            yield Finding("keys", text, "keys.expired" if over else "keys.expiring")
    if sound:
        yield Finding("keys", f"{len(settings.callers)}, none published, none at its end")


def _day(instant_us: int) -> str:
    return datetime.fromtimestamp(instant_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def judge_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = "any number" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    few = soft != resource.RLIM_INFINITY and soft < FEW_FILES
    more = f" (at most {hard:,})" if few and hard != resource.RLIM_INFINITY else ""
    return Finding("open files", f"{allowed} in this shell{more}", "files.few" if few else None)


async def judge_gateway(asked: Environment, seconds: float) -> Finding:
    """Does a gateway answer on PORT, and would it take calls?"""
    return await asyncio.to_thread(_gateway, asked, seconds)


def _gateway(asked: Environment, seconds: float) -> Finding:
    host = "127.0.0.1" if asked.host in {"0.0.0.0", "::"} else asked.host  # noqa: S104 - what it listens on
    where = f"{host}:{asked.port}"
    try:
        live, _ = _ask(host, asked.port, "/health/live", seconds)
        status, body = _ask(host, asked.port, "/health/ready", seconds)
    except OSError:
        return Finding("gateway", f"nothing answers on {where}", "gateway.silent")
    except (HTTPException, ValueError):
        return Finding("gateway", f"what answers on {where} is no gateway", "gateway.foreign")
    state = body.get("status")
    if live != 200 or status not in {200, 503} or not isinstance(state, str):
        return Finding("gateway", f"what answers on {where} is no gateway", "gateway.foreign")
    if status != 200:
        return Finding("gateway", f"{where} is {state}", "gateway.unready")
    if state == "degraded":
        names = ", ".join(body.get("problems", ()))
        return Finding("gateway", f"{where} answers and is degraded: {names}", "gateway.degraded")
    return Finding("gateway", f"{where} is {state}")


def _ask(host: str, port: int, path: str, seconds: float) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read(65_536))
        return answer.status, body if isinstance(body, dict) else {}
    finally:
        connection.close()
