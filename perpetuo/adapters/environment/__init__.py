"""
What does the environment ask of this process?

Rule 1: this package alone reads the process's variables; the rest is given `Environment`.
Rule 2: ``NAME_FILE`` stands in for ``NAME`` (docker and Kubernetes secrets); both at once is an error.
Rule 3: `VARIABLES` describes every variable that an operator may set; the reference is made of it, and a test compares.
Rule 4: every problem is found at once, and a secret's value is never repeated in one.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

from perpetuo.adapters.environment.reader import (
    LOG_FORMATS,
    LOG_LEVELS,
    InvalidEnvironmentError,
    Reader,
    Variables,
    usable_cpus,
)
from perpetuo.adapters.environment.table import INTERNAL, VARIABLES, Variable
from perpetuo.adapters.environment.tracing import Sampler, Tracing, read_tracing

__all__ = [
    "INTERNAL", "VARIABLES", "Environment", "GatewayAddress", "InvalidEnvironmentError", "Sampler", "Tracing",
    "Variable", "Variables", "read", "read_gateway_address", "usable_cpus",
]  # fmt: skip

REDIS_SCHEMES = ("redis", "rediss", "memory")
DATABASE_SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg", "sqlite", "sqlite+aiosqlite")


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
    tracing: Tracing | None = None
    """Whereto spans are exported; ``None``: nowhere."""

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


def read(environ: Mapping[str, str] = os.environ) -> Environment:
    """Parse the variables of the contract; raises `InvalidEnvironmentError` with every problem."""
    reader = Reader(Variables(environ))
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
        tracing=read_tracing(reader),
    )
    if environment.management_port == environment.port:
        reader.problems.append(f"MANAGEMENT_PORT is {environment.port}, the same as PORT; choose another")
    if reader.problems:
        raise InvalidEnvironmentError(reader.problems)
    return environment


def read_gateway_address(environ: Mapping[str, str] = os.environ) -> GatewayAddress:
    """Only what a client needs: it may run where there is no Redis and no database to name."""
    reader = Reader(Variables(environ))
    port = reader.port("MANAGEMENT_PORT", None) or reader.port("PORT", 3000)
    url = reader.url("PERPETUO_URL", f"http://127.0.0.1:{port}", ("http", "https")) or ""
    address = GatewayAddress(url, reader.text("PERPETUO_ADMIN_KEY"))
    if reader.problems:
        raise InvalidEnvironmentError(reader.problems)
    return address
