"""Does `perpetuo doctor` find what is wrong with real servers, in bounded time, and without a secret?"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
import pytest

from perpetuo.adapters.sql import migrate
from tests.commands import perpetuo
from tests.live import ADMIN_KEY, LiveGateway, config_text, eventually
from tests.patience import best
from tests.servers import PostgresServer, RedisServer, free_port, sql

DEMO = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: m}], free: true}",
)
SECRET = "hunter2-very-secret"
PARTITIONS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass"


@attrs.frozen
class Report:
    """What one run printed."""

    status: int
    text: str

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return {check["check"]: check for check in json.loads(self.text)["checks"]}

    @property
    def codes(self) -> set[str]:
        return {check["code"] for check in json.loads(self.text)["checks"] if check["code"]}


Run = Callable[..., Report]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``perpetuo doctor --json`` with a configuration and variables."""
    monkeypatch.chdir(tmp_path)

    def run(config: str = DEMO, *arguments: str, **variables: str) -> Report:
        (tmp_path / "perpetuo.config.yaml").write_text(config)
        variables = {"PERPETUO_ADMIN_KEY": ADMIN_KEY, "PORT": str(free_port()), **variables}
        done = perpetuo("doctor", *(arguments or ("--json",)), **variables)
        assert SECRET not in done.stdout + done.stderr
        return Report(done.exit_code, done.stdout)

    return run


@pytest.fixture
def run_alone(tmp_path: Path) -> Run:
    """The same as a process: it may have to end with threads that can't be stopped."""

    def run(config: str = DEMO, *arguments: str, **variables: str) -> Report:
        (tmp_path / "perpetuo.config.yaml").write_text(config)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PERPETUO_", "REDIS_", "DATABASE_"))}
        variables = {"PERPETUO_ADMIN_KEY": ADMIN_KEY, "PORT": str(free_port()), **variables}
        command = [str(Path(sys.executable).with_name("perpetuo")), "doctor", *(arguments or ("--json",))]
        done = subprocess.run(
            command, env=kept | variables, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert SECRET not in done.stdout + done.stderr
        return Report(done.returncode, done.stdout)

    return run


def test_a_gateway_that_runs_well_has_nothing_bad(
    run: Run, new_redis_server: Callable[..., RedisServer], postgres_url: str
) -> None:
    """Everything is looked at, and the exit status is 0."""
    server = new_redis_server("--appendonly", "yes", "--maxmemory", "100mb")
    with LiveGateway(DEMO, redis_url=server.url, database_url=postgres_url) as gateway:
        eventually(lambda: sql(postgres_url, PARTITIONS)[0][0] > 7)  # it is ready before it has made all of them
        report = run(REDIS_URL=server.url, DATABASE_URL=postgres_url, PORT=str(gateway.port), WORKERS="1")
    assert report.codes <= {"files.few", "database.disk", "database.disk-full", "redis.slow"}, report.text
    assert report.checks["gateway"]["seen"].endswith("is ready")
    assert report.checks["partitions"]["level"] == "ok"
    assert report.status == (1 if "database.disk-full" in report.codes else 0)


def test_a_wrong_policy_and_no_persistence_are_found(
    run: Run, new_redis_server: Callable[..., RedisServer], postgres_url: str
) -> None:
    """A Redis that evicts and saves nothing, and a database without tables."""
    server = new_redis_server("--maxmemory-policy", "allkeys-lru")
    report = run(REDIS_URL=server.url, DATABASE_URL=postgres_url)
    assert report.codes >= {"redis.policy", "redis.unsaved", "redis.unlimited", "migrations.missing"}
    assert report.status == 1


def test_a_wrong_password_is_told_and_not_shown(run: Run, new_redis_server: Callable[..., RedisServer]) -> None:
    """Redis refuses one password, and the lack of one."""
    server = new_redis_server("--requirepass", "another")
    wrong = run(REDIS_URL=f"redis://:{SECRET}@127.0.0.1:{server.port}", DATABASE_URL="sqlite:///events.db")
    none = run(REDIS_URL=f"redis://127.0.0.1:{server.port}", DATABASE_URL="sqlite:///events.db")
    assert wrong.codes >= {"redis.away", "database.missing"}
    assert "password" in wrong.checks["redis"]["seen"].lower()
    assert "authentication" in none.checks["redis"]["seen"].lower()


def test_a_replica_is_no_redis_to_use(run: Run, new_redis_server: Callable[..., RedisServer]) -> None:
    """It would refuse every write."""
    primary = new_redis_server()
    replica = new_redis_server("--replicaof", "127.0.0.1", str(primary.port))
    report = run(REDIS_URL=replica.url, DATABASE_URL="sqlite:///events.db")
    assert "redis.away" in report.codes
    assert "replica" in report.checks["redis"]["seen"]


def test_closed_ports_are_told_quickly(run: Run) -> None:
    """Nothing answers anywhere; that is said in less than five seconds."""
    config = config_text(
        providers=f"  - {{id: far, kind: openai, baseUrl: 'http://127.0.0.1:{free_port()}/v1', apiKey: {SECRET}}}",
        models="  - {name: m, targets: [{provider: far, model: m}], free: true}",
    )
    report = run(
        config,
        REDIS_URL=f"redis://127.0.0.1:{free_port()}",
        DATABASE_URL=f"postgresql://user:{SECRET}@127.0.0.1:{free_port()}/events",
    )
    assert report.codes >= {"redis.away", "database.away", "provider.away", "gateway.silent"}
    assert report.status == 1


@pytest.mark.alone
def test_what_accepts_and_never_answers_does_not_hold_it_up(run_alone: Run) -> None:
    """Every server is a port that says nothing: the whole stays below five seconds."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        config = config_text(
            providers=f"  - {{id: mute, kind: openai, baseUrl: 'https://{where}/v1'}}",
            models="  - {name: m, targets: [{provider: mute, model: m}], free: true}",
        )

        def took() -> float:
            """Without the start of Python, which others on this machine slow down."""
            report = run_alone(
                config,
                "--json",
                "--calls",
                REDIS_URL=f"redis://{where}",
                DATABASE_URL=f"postgresql://u:{SECRET}@{where}/events",
                PORT=where.partition(":")[2],
            )
            assert report.codes >= {"redis.away", "database.away", "provider.away"}
            return float(json.loads(report.text)["took_s"])

        best(3.5, took)


def test_an_invalid_configuration_is_told_with_its_place(run: Run) -> None:
    """And what does not need it is examined all the same."""
    report = run("providers: 5\n", REDIS_URL="memory://", DATABASE_URL="sqlite:///events.db")
    assert "configuration.invalid" in report.codes
    assert "perpetuo.config.yaml:1:" in report.text
    assert report.checks["redis"]["level"] == "ok"


def test_sqlite_and_memory_are_examined_too(run: Run, tmp_path: Path) -> None:
    """What has no meaning there is left out, and looking for a file does not make it."""
    before = run(REDIS_URL="memory://", DATABASE_URL="sqlite:///events.db")
    assert "database.missing" in before.codes
    assert not (tmp_path / "events.db").exists()
    migrate.upgrade(f"sqlite:///{tmp_path / 'events.db'}")
    after = run(REDIS_URL="memory://", DATABASE_URL="sqlite:///events.db")
    assert after.checks["migrations"]["level"] == "ok"
    assert "partitions" not in after.checks


def test_rows_where_none_should_be_are_found(run: Run, postgres_url: str) -> None:
    """Rejected events, and days without a partition."""
    migrate.upgrade(postgres_url)
    sql(
        postgres_url,
        "INSERT INTO events_rejected (digest, rejected_at, revision, error, row) VALUES ('d', now(), 1, 'e', '{}')",
        "DO $$ DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relname ~ '^events_[0-9]{8}$'"
        " LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $$",
    )
    report = run(REDIS_URL="memory://", DATABASE_URL=postgres_url)
    assert report.codes >= {"events.rejected", "partitions.few"}


def test_a_database_that_refuses_us_is_told_without_the_password(
    run: Run, new_postgres_server: Callable[[], PostgresServer]
) -> None:
    """A user that does not exist."""
    server = new_postgres_server()
    report = run(REDIS_URL="memory://", DATABASE_URL=f"postgresql://nobody:{SECRET}@127.0.0.1:{server.port}/postgres")
    assert "database.away" in report.codes
    assert "nobody" in report.checks["database"]["seen"]


@contextmanager
def provider(status: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that answers everything with ``status`` and repeats our credential; what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("authorization", "")))
            body = json.dumps({"error": f"bad key {self.headers.get('authorization')}"}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code"), [(200, None), (401, "provider.credential"), (404, None), (500, "provider.unwell")]
)
def test_a_provider_is_called_only_when_told_to(run: Run, status: int, code: str | None) -> None:
    """``GET /models`` with our credential, never a prompt; a refusal of it is told in our words."""
    with provider(status) as (url, asked):
        config = config_text(
            providers=f"  - {{id: one, kind: openai, baseUrl: '{url}', apiKey: {SECRET}}}",
            models="  - {name: m, targets: [{provider: one, model: m}], free: true}",
        )
        variables = {"REDIS_URL": "memory://", "DATABASE_URL": "sqlite:///events.db"}
        quiet = run(config, **variables)
        assert asked == []
        assert quiet.checks["provider one"]["level"] == "ok"
        called = run(config, "--json", "--calls", **variables)
    assert asked == [("/v1/models", f"Bearer {SECRET}")]
    assert called.checks["provider one"]["code"] == code


def test_people_get_lines_and_what_to_do(run: Run) -> None:
    """On a pipe each finding is a line, and below it the way out."""
    report = run(DEMO, "--calls", REDIS_URL=f"redis://127.0.0.1:{free_port()}", DATABASE_URL="sqlite:///events.db")
    lines = report.text.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("bad  redis ")]
    assert "[redis.away]" in lines[at + 1]
    assert "\x1b" not in report.text


def test_a_command_that_is_not_understood_is_2(run: Run) -> None:
    """As with every command."""
    assert run(DEMO, "--everything").status == 2
