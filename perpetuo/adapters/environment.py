"""
What does the environment ask of this process?

Rule 1: this is the one module that reads the process's variables; the rest is given `Environment`.
Rule 2: ``NAME_FILE`` stands in for ``NAME`` (docker and Kubernetes secrets); both at once is an error.
Rule 3: `VARIABLES` describes every variable that an operator may set; the reference is made of it, and a test compares.
Rule 4: every problem is found at once, and a secret's value is never repeated in one.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import attrs

MIN_ADMIN_KEY = 24
MAX_WORKERS = 8
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")
REDIS_SCHEMES = ("redis", "rediss", "memory")
DATABASE_SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg", "sqlite", "sqlite+aiosqlite")


@attrs.frozen
class Variable:
    """One variable, for the reference: ``default`` and ``meaning`` are Markdown."""

    name: str
    default: str
    meaning: str
    secret: bool = False


VARIABLES = (
    Variable("PORT", "3000", "Where calls are taken, 1 to 65535."),
    Variable("HOST", "127.0.0.1; 0.0.0.0 in the container", "The address to listen on."),
    Variable(
        "MANAGEMENT_PORT",
        "none: they are on `PORT`",
        "Where `/admin`, `/metrics` and `/schema` are, and then only there.",
    ),
    Variable(
        "WORKERS",
        "usable CPUs (quota and affinity), at most 8",
        "Processes that take calls. Always 1 with `memory://`.",
    ),
    Variable("LOG_LEVEL", "`info`", f"One of {', '.join(f'`{level}`' for level in LOG_LEVELS)}."),
    Variable("LOG_FORMAT", "`json` on a pipe, `text` on a terminal", "How lines on standard error look."),
    Variable(
        "REDIS_URL",
        "`redis://localhost:6379`",
        "The ledger. Also `rediss://`, and `memory://` for one process.",
        secret=True,
    ),
    Variable(
        "DATABASE_URL",
        "none: `perpetuo serve` stops and says so",
        "The table of events: `postgres://`, `postgresql://`, `postgresql+asyncpg://` or `sqlite:///file`.",
        secret=True,
    ),
    Variable("PERPETUO_CONFIG_PATH", "`./perpetuo.config.yaml`", "The configuration file."),
    Variable("PERPETUO_CATALOGUE_PATH", "the shipped catalogue", "Prices to use instead."),
    Variable(
        "PERPETUO_ADMIN_KEY",
        "made up at each start and logged once",
        f"Signs in to `/admin`; at least {MIN_ADMIN_KEY} characters. With several nodes, the same on all.",
        secret=True,
    ),
    Variable(
        "PERPETUO_METRICS_TOKEN",
        "none: `/metrics` is open",
        "What a scraper has to send as `Authorization: Bearer`.",
        secret=True,
    ),
    Variable(
        "PERPETUO_URL",
        "`http://127.0.0.1` with `MANAGEMENT_PORT`, else `PORT`",
        "Where the gateway is, for commands that ask a running one.",
    ),
)
INTERNAL = frozenset({"PERPETUO_CONTAINER", "PERPETUO_RUN_DIR", "PERPETUO_WORKER"})
"""Set by our image and by our own main process, for nobody else."""


class InvalidEnvironmentError(ValueError):
    """The variables can't be obeyed; ``problems`` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@attrs.frozen
class Environment:
    """The variables of the contract, parsed. Secrets are kept out of ``repr``."""

    port: int
    host: str
    management_port: int | None
    workers: int
    log_level: str
    log_format: str
    redis_url: str = attrs.field(repr=False)
    database_url: str | None = attrs.field(repr=False)
    config_path: Path
    catalogue_path: Path | None
    """Prices to use instead of the shipped ones."""
    admin_key: str | None = attrs.field(repr=False)
    metrics_token: str | None = attrs.field(repr=False)
    run_dir: Path | None
    """Where the workers of one `serve` meet: metrics, slots. Set by the main process."""
    worker: int | None = None
    """Which of several workers this is, from 1. Set by the main process."""

    @property
    def in_process(self) -> bool:
        """Is the ledger in this process's memory, so that there can only be one worker?"""
        return self.redis_url.startswith("memory:")

    @property
    def beyond_loopback(self) -> bool:
        return self.host not in {"127.0.0.1", "::1", "localhost"}


@attrs.frozen
class GatewayAddress:
    """Where a running gateway is, for those who ask it, and as whom."""

    url: str
    admin_key: str | None = attrs.field(repr=False)


class Variables(Mapping[str, str]):
    """The environment with ``NAME_FILE`` standing in for ``NAME``; files are read when asked for."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        plain = self._environ.get(name)
        path = self._environ.get(f"{name}_FILE")
        if path is None or name.endswith("_FILE"):
            return self._environ[name]
        if plain is not None:
            raise InvalidEnvironmentError([f"{name} and {name}_FILE are both set; leave one out"])
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as broken:
            raise InvalidEnvironmentError([f"{name}_FILE names {path!r}, which can't be read: {broken}"]) from broken

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def read(environ: Mapping[str, str] = os.environ) -> Environment:
    """Parse the variables of the contract; raises `InvalidEnvironmentError` with every problem."""
    reader = _Reader(Variables(environ))
    redis_url = reader.url("REDIS_URL", "redis://localhost:6379", REDIS_SCHEMES)
    environment = Environment(
        port=reader.port("PORT", 3000) or 3000,
        host=reader.text("HOST") or ("0.0.0.0" if reader.text("PERPETUO_CONTAINER") else "127.0.0.1"),  # noqa: S104
        management_port=reader.port("MANAGEMENT_PORT", None),
        workers=reader.workers(in_process=(redis_url or "").startswith("memory:")),
        log_level=reader.choice("LOG_LEVEL", "info", LOG_LEVELS),
        log_format=reader.choice("LOG_FORMAT", "text" if sys.stderr.isatty() else "json", LOG_FORMATS),
        redis_url=redis_url or "",
        database_url=reader.url("DATABASE_URL", None, DATABASE_SCHEMES),
        config_path=Path(reader.text("PERPETUO_CONFIG_PATH") or "perpetuo.config.yaml"),
        catalogue_path=Path(catalogue) if (catalogue := reader.text("PERPETUO_CATALOGUE_PATH")) else None,
        admin_key=reader.admin_key(),
        metrics_token=reader.text("PERPETUO_METRICS_TOKEN"),
        run_dir=Path(run_dir) if (run_dir := reader.text("PERPETUO_RUN_DIR")) else None,
        worker=int(worker) if (worker := reader.text("PERPETUO_WORKER")) else None,
    )
    if environment.management_port == environment.port:
        reader.problems.append(f"MANAGEMENT_PORT is {environment.port}, the same as PORT; choose another")
    if reader.problems:
        raise InvalidEnvironmentError(reader.problems)
    return environment


def read_gateway_address(environ: Mapping[str, str] = os.environ) -> GatewayAddress:
    """Only what a client needs: it may run where there is no Redis and no database to name."""
    reader = _Reader(Variables(environ))
    port = reader.port("MANAGEMENT_PORT", None) or reader.port("PORT", 3000)
    url = reader.url("PERPETUO_URL", f"http://127.0.0.1:{port}", ("http", "https")) or ""
    address = GatewayAddress(url, reader.text("PERPETUO_ADMIN_KEY"))
    if reader.problems:
        raise InvalidEnvironmentError(reader.problems)
    return address


@attrs.define
class _Reader:
    """Reads one variable at a time and remembers what was wrong; an empty variable counts as not set."""

    variables: Mapping[str, str]
    problems: list[str] = attrs.field(factory=list)

    def text(self, name: str) -> str | None:
        try:
            return self.variables.get(name) or None
        except InvalidEnvironmentError as invalid:
            self.problems.extend(invalid.problems)
            return None

    def port(self, name: str, default: int | None) -> int | None:
        return self._number(name, 1, 65535, "a port, 1 to 65535") or default

    def workers(self, *, in_process: bool) -> int:
        asked = self._number("WORKERS", 1, 1024, "a number of processes, at least 1")
        if not in_process:
            return asked or min(usable_cpus(), MAX_WORKERS)
        if asked and asked > 1:
            self.problems.append(
                f"WORKERS is {asked}, but REDIS_URL=memory:// keeps limits in one process: use WORKERS=1 or a Redis"
            )
        return 1

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = (self.text(name) or default).lower()
        if value not in allowed:
            self.problems.append(f"{name} is {value!r}; it can be {', '.join(allowed)}")
            return default
        return value

    def url(self, name: str, default: str | None, schemes: tuple[str, ...]) -> str | None:
        """Only the scheme is checked, and only it is shown: the rest may hold a password."""
        value = self.text(name) or default
        if value is not None and urlsplit(value).scheme not in schemes:
            self.problems.append(f"{name} has to begin with one of {', '.join(f'{s}://' for s in schemes)}")
        return value

    def admin_key(self) -> str | None:
        value = self.text("PERPETUO_ADMIN_KEY")
        if value is not None and len(value) < MIN_ADMIN_KEY:
            self.problems.append(
                f"PERPETUO_ADMIN_KEY has {len(value)} characters; it needs at least {MIN_ADMIN_KEY}"
                " (`perpetuo keys new` makes one)"
            )
        return value

    def _number(self, name: str, least: int, most: int, what: str) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        self.problems.append(f"{name} is {text!r}; it has to be {what}")
        return None


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs this process may use: its affinity, or its cgroup's quota where that is less. At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota(cgroup) or allowed))


def _quota(cgroup: Path) -> int | None:
    """The cgroup's CPU quota in whole CPUs, rounded up (version 2, then version 1); ``None``: none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max", or -1: no quota
    return -(-int(quota) // int(period))
