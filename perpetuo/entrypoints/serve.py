"""
What has to be right before a server listens, and who starts it?

    read the environment → read the configuration → refuse what can't go well → make the run directory → processes

Rule 1: whatever is wrong is said at once, whole, in sentences, with exit status 2; nothing listens by then.
Rule 2: a store that is away is no reason not to start: the gateway answers, and says what is degraded.
Rule 3: workers get everything through the environment; they read the configuration for themselves.
Rule 4: this is the main process, which imports next to nothing: what takes imports is found out in its nursery.
"""

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Callable, Mapping, MutableMapping
from importlib.resources import files
from pathlib import Path

import attrs

from perpetuo.adapters import environment
from perpetuo.adapters.environment import Environment, InvalidEnvironmentError, Variables
from perpetuo.entrypoints.process.nursery import ask_nursery
from perpetuo.entrypoints.process.server import GatewayServer, Launch, Tell
from perpetuo.entrypoints.process.worker import load_gateway

REFUSED = 2
"""Exit status when the start is refused."""
REDIS_SECONDS = 1.0


@attrs.frozen
class Findings:
    """What the configuration and Redis say to a start; ``reasons`` has a sentence for everything against it."""

    reasons: list[str]
    drain_delay: float = 0.0
    """Seconds."""
    admin_keys: bool = False


Examine = Callable[[Environment, Mapping[str, str], bool], Findings]
"""Of these variables; the last says whether it is production."""


class StartRefusedError(Exception):
    """``reasons`` has a sentence for everything that has to be put right first."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


@attrs.frozen
class Prepared:
    """A start that nothing speaks against."""

    environment: Environment
    drain_delay: float
    """Seconds."""
    admin_key: str | None = attrs.field(repr=False)
    """Made up for this run, because nobody gave one; to be told once."""


def examine(asked: Environment, environ: Mapping[str, str], production: bool) -> Findings:
    """Read the configuration and look at Redis."""
    # Only here: to import these takes a quarter of a second, and the nursery, who runs this, has done so already.
    from perpetuo.adapters.configfile.load import load  # noqa: PLC0415
    from perpetuo.adapters.configfile.problems import ConfigError  # noqa: PLC0415
    from perpetuo.adapters.configfile.published import published_keys  # noqa: PLC0415

    unfit = [] if asked.in_process else unfit_redis(asked.redis_url)
    try:
        settings = load(asked.config_path, Variables(environ))
    except ConfigError as invalid:
        return Findings([*map(str, invalid.problems), *unfit])
    reasons = [*(published_keys(settings) if production else []), *unfit]
    return Findings(reasons, settings.server.drain_delay, bool(settings.admin_keys))


def unfit_redis(url: str) -> list[str]:
    """A Redis that is there but would throw data away. One that is away is none of the start's business."""
    from perpetuo.adapters.redis.connected import ConnectedRedis  # noqa: PLC0415
    from perpetuo.adapters.redis.room import UnfitRedisError  # noqa: PLC0415

    async def look() -> None:
        redis = await ConnectedRedis.connect(url, timeout=REDIS_SECONDS)
        await redis.close()

    try:
        asyncio.run(look())
    except UnfitRedisError as unfit:
        return [str(unfit)]
    return []


def _in_nursery(asked: Environment, environ: Mapping[str, str], production: bool) -> Findings:
    return ask_nursery(examine, asked, environ, production)


def prepare(
    environ: MutableMapping[str, str] = os.environ, *, production: bool = True, look: Examine = _in_nursery
) -> Prepared:
    """Read and check everything; raises `StartRefusedError`. Puts a made-up admin key into ``environ``."""
    try:
        asked = environment.read(environ)
    except InvalidEnvironmentError as invalid:
        raise StartRefusedError(invalid.problems) from invalid
    found = look(asked, dict(environ), production)
    reasons = [*_occupied(asked), *found.reasons, *(_no_database(asked) if production else [])]
    if reasons:
        raise StartRefusedError(reasons)
    return Prepared(asked, found.drain_delay, _made_up_admin_key(asked, found, environ))


def run(prepared: Prepared, tell: Tell, *, drains: bool = True) -> int:
    """Serve until told to stop; the exit status."""
    asked = prepared.environment
    drain_delay = prepared.drain_delay if drains else None
    launch = Launch(host=asked.host, port=asked.port, workers=asked.workers, drain_delay=drain_delay)
    return GatewayServer(launch, load_gateway, tell).run()


def warn(prepared: Prepared, tell: Tell) -> None:
    """Say at start what an operator should know."""
    asked = prepared.environment
    if asked.beyond_loopback and asked.management_port is None and asked.metrics_token is None:
        meaning = "everybody who can reach this port can read /metrics and try to sign in at /admin"
        advice = "set MANAGEMENT_PORT, or PERPETUO_METRICS_TOKEN"
        tell(
            "warning", "management_open", {"host": asked.host, "port": asked.port, "meaning": meaning, "advice": advice}
        )
    if prepared.admin_key is not None:
        advice = "set PERPETUO_ADMIN_KEY; until the next start this one is good for /admin"
        tell("warning", "admin_key_made_up", {"admin_key": prepared.admin_key, "advice": advice})


def packaged(name: str) -> Path:
    """A file that travels with the package: in it when installed, beside it in a checkout."""
    package = Path(str(files("perpetuo")))
    return next((path for path in (package / name, package.parent / name) if path.exists()), package / name)


# ---------------------------------------------------------------- parts


def _no_database(asked: Environment) -> list[str]:
    if asked.database_url is not None:
        return []
    return [
        "DATABASE_URL is not set: events need a database (postgresql://user:password@host:5432/name)."
        " To try Perpetuo with nothing installed, use `perpetuo dev`."
    ]


def _occupied(asked: Environment) -> list[str]:
    """
    Ports somebody listens on already.

    Workers share their port (``SO_REUSEPORT``), so the kernel alone would let a second server in
    and deal connections out to both.
    """
    ports = {"PORT": asked.port, "MANAGEMENT_PORT": asked.management_port}
    return [
        f"{asked.host}:{port} can't be used: {problem}; set {name}"
        for name, port in ports.items()
        if port is not None and (problem := _bind_problem(asked.host, port))
    ]


def _bind_problem(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (
                "something listens there already" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
            )
    return None


def _made_up_admin_key(asked: Environment, found: Findings, environ: MutableMapping[str, str]) -> str | None:
    """A key for this run, handed to the workers as if it had been given; none when somebody can sign in already."""
    if asked.admin_key is not None or found.admin_keys:
        return None
    key = environ["PERPETUO_ADMIN_KEY"] = f"admin-{secrets.token_urlsafe(24)}"
    return key


Echo = Callable[[str], None]


def refused(error: StartRefusedError, echo: Echo) -> int:
    """Tell why; the exit status."""
    for reason in error.reasons:
        echo(reason)
    return REFUSED
