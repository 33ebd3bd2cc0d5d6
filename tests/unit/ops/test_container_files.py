"""Do compose.yaml, Dockerfile and the locks say what the program, the contract and the runbook say?"""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from perpetuo.entrypoints.commands.group import COMMANDS

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {
    "PORT", "HOST", "MANAGEMENT_PORT", "LOG_LEVEL", "LOG_FORMAT", "REDIS_URL", "DATABASE_URL", "PERPETUO_CONFIG_PATH",
    "PERPETUO_ADMIN_KEY", "PERPETUO_METRICS_TOKEN", "WORKERS", "PERPETUO_CONTAINER",
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
}  # fmt: skip
"""The contract's variables, and the one that says we are in a container."""


def expanded(text: str) -> str:
    """What compose makes of ``${NAME:-default}`` with no .env file."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_compose_is_valid() -> None:
    """Against the compose specification, as far as that goes without a daemon."""
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(ROOT / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_works_on_a_fresh_checkout() -> None:
    """Every variable has a default, and .env.example names it."""
    text = (ROOT / "compose.yaml").read_text()
    with_default = set(re.findall(r"\$\{(\w+):-", text))
    assert set(re.findall(r"\$\{?(\w+)", text)) == with_default
    example = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert example == with_default


def test_compose_starts_what_the_runbook_says() -> None:
    """Gateway on 3000, Redis on 6379, PostgreSQL on 5432, on loopback unless PERPETUO_BIND says otherwise."""
    usual = {name: service for name, service in SERVICES.items() if "profiles" not in service}
    ports = {name: expanded(service["ports"][0]) for name, service in usual.items() if "ports" in service}
    assert ports == {
        "gateway": "127.0.0.1:3000:3000", "redis": "127.0.0.1:6379:6379", "postgres": "127.0.0.1:5432:5432",
    }  # fmt: skip
    assert "./migrations:/docker-entrypoint-initdb.d:ro" in SERVICES["postgres"]["volumes"]
    assert (ROOT / "migrations" / "001_init.sql").is_file()


def test_compose_gives_the_gateway_what_it_promises() -> None:
    """O1 needs 70 s to end; O2 a Redis that evicts nothing, bounded, on disk; data in named volumes."""
    assert SERVICES["gateway"]["stop_grace_period"] == "75s"
    command = " ".join(SERVICES["redis"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert "--maxmemory ${REDIS_MAXMEMORY:-512mb}" in command
    for service in ("redis", "postgres"):
        assert SERVICES[service]["volumes"][0].split(":")[0] in COMPOSE["volumes"]


@pytest.mark.parametrize("service", ["gateway", "migrate"])
def test_compose_uses_our_commands_and_variables(service: str) -> None:
    """Whatever compose says to Perpetuo, Perpetuo understands."""
    given = SERVICES[service]
    assert given.get("command", ["serve"])[0] in COMMANDS
    assert given.get("healthcheck", {"test": ["CMD", "perpetuo", "healthcheck"]})["test"][2] in COMMANDS
    assert set(given["environment"]) - OURS <= {"OPENAI_API_KEY"}


def test_urls_in_compose_name_its_services() -> None:
    """Host, user and database are those of the services beside it."""
    environment = {name: expanded(value) for name, value in SERVICES["gateway"]["environment"].items()}
    assert environment["REDIS_URL"] == "redis://:perpetuo@redis:6379"
    assert environment["DATABASE_URL"] == "postgresql://perpetuo:perpetuo@postgres:5432/perpetuo"
    assert expanded(SERVICES["redis"]["command"][-1]) == "perpetuo"
    assert expanded(SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]) == "perpetuo"


def test_the_image_runs_our_commands_as_nobody_special() -> None:
    """Not root; what CMD and HEALTHCHECK name exists."""
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    for command in re.findall(r'CMD \["(?:perpetuo", ")?(\w+)"\]', DOCKERFILE):
        assert command in COMMANDS
    assert DOCKERFILE.count("--require-hashes") == 2


def test_everything_copied_into_the_image_is_in_its_context() -> None:
    """A source of COPY that .dockerignore hides would only be noticed where there is a daemon."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch(source, pattern) for pattern in allowed), source


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_locks_have_hashes_and_no_address(lock: Path) -> None:
    """Every package is pinned and hashed; where it comes from is the machine's own configuration."""
    text = lock.read_text()
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", text)
    packages = re.findall(r"^[a-zA-Z0-9][\w.-]*==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
