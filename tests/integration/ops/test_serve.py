"""`perpetuo serve` as an operator runs it: what it refuses, how it starts, reloads and ends. (O1, O2, O5)"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import servers
from tests.commands import perpetuo
from tests.live import ADMIN_KEY, KEY, OTHER_KEY, LiveGateway, config_text, eventually
from tests.patience import PATIENCE, best

PERPETUO = str(Path(sys.executable).with_name("perpetuo"))
DEMO = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: m}], price: {inputPerMTok: 1, outputPerMTok: 1}, "
    "maxOutputTokens: 100}",
    more="server: {drainDelay: 1s}",
)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.sqlite3"


def refusal(environ: dict[str, str], config: Path) -> str:
    """What a start that is refused says; its exit status is 2."""
    done = subprocess.run(
        [PERPETUO, "serve"],
        env={
            "PATH": os.environ["PATH"],
            "PORT": str(servers.free_port()),
            "PERPETUO_CONFIG_PATH": str(config),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_o2_a_redis_that_evicts_is_refused_with_the_fix(
    new_redis_server: Callable[..., servers.RedisServer], tmp_path: Path
) -> None:
    """The one thing about a store that stops the start."""
    config = tmp_path / "perpetuo.config.yaml"
    config.write_text(DEMO)
    server = new_redis_server("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    said = refusal({"REDIS_URL": server.url, "DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}, config)
    assert "noeviction" in said
    assert "Traceback" not in said


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    """A missing database and two mistakes in the file come in one go, without a traceback."""
    config = tmp_path / "perpetuo.config.yaml"
    config.write_text(DEMO.replace("rateLimitMin: 100000", "rateLimitMin: -1").replace("kind: demo", "kind: demon"))
    said = refusal({"REDIS_URL": "memory://"}, config)
    assert "perpetuo dev" in said
    assert said.count("perpetuo.config.yaml:") == 2
    assert "Traceback" not in said


def test_o2_starts_and_says_what_is_away(tmp_path: Path) -> None:
    """No Redis, no PostgreSQL: ready and degraded, with names; calls get a clear 503, and never 401 for that."""
    environ = {"PERPETUO_ADMIN_KEY": ""}
    with LiveGateway(
        DEMO,
        redis_url="redis://127.0.0.1:1",
        database_url="postgresql://x@127.0.0.1:1/x",
        environ=environ,
        migrated=False,
    ) as gateway:
        ready = eventually(lambda: len((r := gateway.get("/health/ready").json()).get("problems", {})) == 2 and r)
        assert ready["status"] == "degraded"
        assert set(ready["problems"]) == {"redis", "postgres"}
        answer = gateway.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert gateway.chat("sk-nobody").status_code == 401
        assert gateway.get("/v1/models").status_code == 200
        assert gateway.stop() == 0
        assert gateway.log().count("admin_key_made_up") == 1


def test_o1_not_ready_at_once_but_accepting_for_the_drain_delay(redis_url: str, sqlite: str) -> None:
    """A load balancer has time to look away before calls are refused; exit 0."""
    patient = DEMO.replace("drainDelay: 1s", "drainDelay: 15s")  # longer than a busy machine takes to ask twice
    with LiveGateway(patient, redis_url=redis_url, database_url=sqlite, workers=2) as gateway:
        gateway.chat()
        assert gateway.process is not None
        gateway.signal(signal.SIGTERM)
        eventually(lambda: gateway.get("/health/ready").status_code == 503)
        assert gateway.chat().status_code == 200
        assert gateway.process.wait(15 + PATIENCE) == 0
        with pytest.raises(httpx.ConnectError):
            gateway.chat()


def test_o1_a_stalled_upload_is_cut_and_the_exit_is_0(redis_url: str, sqlite: str) -> None:
    """The body's deadline ends it, long before the drain's."""
    config = DEMO.replace("drainDelay: 1s", "drainDelay: 1s, bodyTimeout: 2s")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with (
        LiveGateway(config, redis_url=redis_url, database_url=sqlite) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as upload,
    ):
        upload.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        eventually(lambda: gateway.connections(gateway.worker_pids()[0]))
        time.sleep(0.3)
        started = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started < 50  # the drain's would be 58 s


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_o1_exit_0_within_70_s_whatever_is_in_flight(redis_url: str, sqlite: str) -> None:
    """An upload that stalls, with a deadline longer than any drain, and the default drain delay."""
    config = DEMO.replace("drainDelay: 1s", "bodyTimeout: 300s")
    with (
        LiveGateway(config, redis_url=redis_url, database_url=sqlite, workers=2) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as upload,
    ):
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        upload.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.3)
        assert gateway.stop(70) == 0


def test_o5_a_killed_worker_is_back_within_5_s(redis_url: str, sqlite: str) -> None:
    """Other workers go on; the dead one is replaced; limits are still shared."""
    with LiveGateway(DEMO, redis_url=redis_url, database_url=sqlite, workers=2) as gateway:
        eventually(lambda: len(gateway.worker_pids()) == 2)

        def back() -> float:
            first, second = gateway.worker_pids()
            os.kill(first, signal.SIGKILL)
            killed = time.monotonic()
            eventually(lambda: len(w := gateway.worker_pids()) == 2 and first not in w)
            took = time.monotonic() - killed
            assert second in gateway.worker_pids()
            return took

        best(5, back)
        for _ in range(8):
            eventually(lambda: _status(gateway) == 200)
        assert "worker_died" in gateway.log()


def test_o5_a_worker_killed_while_the_file_is_broken_comes_back_with_the_one_before(
    redis_url: str, sqlite: str
) -> None:
    """It goes by what the others go by, says what is wrong with the file, and takes the mended one over."""
    with LiveGateway(DEMO, redis_url=redis_url, database_url=sqlite, workers=1) as gateway:
        (first,) = gateway.worker_pids()
        gateway.config_path.write_text(DEMO.replace("tenants:", "tenats:"))
        eventually(lambda: said(gateway, "config_rejected"))
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(w := gateway.worker_pids()) == 1 and first not in w)
        eventually(lambda: _status(gateway) == 200)
        assert "tenats" in str(_wrong_with_the_file(gateway))
        gateway.config_path.write_text(DEMO + "\n# mended\n")
        eventually(lambda: not _wrong_with_the_file(gateway))
        assert _status(gateway) == 200


def _wrong_with_the_file(gateway: LiveGateway) -> list[str]:
    problems: list[str] = gateway.get("/admin/api/system", ADMIN_KEY).json()["config"]["problems"]
    return problems


def _status(gateway: LiveGateway) -> int:
    try:
        return gateway.chat().status_code
    except httpx.TransportError:
        return 0


def said(gateway: LiveGateway, event: str) -> list[dict[str, Any]]:
    """The lines of the log that tell of ``event``."""
    return [json.loads(line) for line in gateway.log().splitlines() if f'"{event}"' in line]


def answered(gateway: LiveGateway, key: str, status: int) -> float:
    """Seconds until whichever workers take eight calls answer this key so."""
    began = time.monotonic()
    eventually(lambda: {gateway.chat(key).status_code for _ in range(8)} == {status}, every=0)
    return time.monotonic() - began


def taken_over(gateway: LiveGateway) -> set[int]:
    """The workers that have the newest of the configurations that any has taken over."""
    lines = said(gateway, "config_reloaded")
    return {line["worker"] for line in lines if line["version"] == lines[-1]["version"]}


def test_s6_a_key_taken_out_of_an_included_file_is_refused_within_a_second(redis_url: str, sqlite: str) -> None:
    """On all workers. A file added is in force as soon; one removed takes its keys; a broken one changes nothing."""
    main = f"{DEMO}include: ['tenants.d/*.yaml']\n"
    team = "tenants: [{{id: {0}, plan: pro, apiKeys: [sk-{0}-0123456789]}}]\n"
    with LiveGateway(main.replace("include", "# "), redis_url=redis_url, database_url=sqlite, workers=2) as gateway:
        directory = gateway.directory / "tenants.d"
        directory.mkdir()
        (directory / "a.yaml").write_text(team.format("team-a"))
        gateway.config_path.write_text(main)
        first, second = "sk-team-a-0123456789", "sk-team-b-0123456789"
        answered(gateway, first, 200)

        def added() -> float:
            (directory / "b.yaml").write_text(team.format("team-b"))
            return answered(gateway, second, 200)

        def revoked() -> float:
            (directory / "b.yaml").unlink()
            took = answered(gateway, second, 401)
            added()
            return took

        def emptied() -> float:
            (directory / "a.yaml").write_text(team.format("team-a"))
            answered(gateway, first, 200)
            (directory / "a.yaml").write_text("tenants: [{id: team-a, plan: pro}]\n")
            return answered(gateway, first, 401)

        added()
        best(1, emptied)
        eventually(lambda: taken_over(gateway) == {1, 2})  # eight calls may all have met the same worker
        (directory / "a.yaml").write_text("tenants: [{id: team-a, plan: prow}]\n")
        eventually(lambda: f"{directory}/a.yaml:1:" in gateway.log())
        assert gateway.chat(second).status_code == 200
        (directory / "a.yaml").unlink()
        best(1, revoked)
        assert gateway.chat().status_code == 200


def test_sighup_and_a_changed_file_reload_every_worker(redis_url: str, sqlite: str) -> None:
    """A revoked key is refused within a second by all workers, and none restarts. A broken file is one line for all."""
    with LiveGateway(DEMO, redis_url=redis_url, database_url=sqlite, workers=2) as gateway:
        pids = eventually(lambda: w if len(w := gateway.worker_pids()) == 2 else None)
        first = gateway.chat(OTHER_KEY)
        assert first.status_code == 200, first.text

        def revoked() -> float:
            gateway.config_path.write_text(DEMO)
            answered(gateway, OTHER_KEY, 200)
            gateway.config_path.write_text(DEMO.replace(OTHER_KEY, "sk-another-key-0123456789"))
            gateway.signal(signal.SIGHUP)
            return answered(gateway, OTHER_KEY, 401)

        best(1, revoked)
        eventually(lambda: taken_over(gateway) == {1, 2})
        assert gateway.worker_pids() == pids
        assert gateway.chat().status_code == 200
        gateway.config_path.write_text(DEMO.replace("kind: demo", "kind: demon").replace("100000", "-1"))
        eventually(lambda: 'config_reloads_total{result="failure"} 2.0' in gateway.get("/metrics").text)
        (line,) = eventually(lambda: said(gateway, "config_rejected"))  # a thread writes it, after it was counted
        assert (line["level"], len(line["problems"]), line["worker"] in {1, 2}) == ("error", 2, True)


def test_the_management_port_has_what_operators_use_and_the_public_one_not(sqlite: str) -> None:
    """Also with the ledger in memory: both listeners are one worker."""
    port = servers.free_port()
    with LiveGateway(DEMO, database_url=sqlite, environ={"MANAGEMENT_PORT": str(port)}) as gateway:
        assert gateway.chat().status_code == 200
        management = f"http://127.0.0.1:{port}"
        metrics = httpx.get(management + "/metrics", timeout=PATIENCE)
        assert metrics.status_code == 200
        assert 'perpetuo_requests_total{model="m"' in metrics.text
        assert httpx.get(management + "/health/live", timeout=PATIENCE).status_code == 200
        assert httpx.head(management + "/health/live", timeout=PATIENCE).status_code == 200
        assert httpx.get(management + "/schema/openapi.json", timeout=PATIENCE).status_code == 200
        for path in ("/metrics", "/admin", "/schema"):
            assert gateway.get(path).status_code == 404, path
        assert gateway.stop() == 0


def test_one_made_up_admin_key_is_good_on_all_workers(redis_url: str, sqlite: str) -> None:
    """It is logged once, and every worker takes it."""
    with LiveGateway(
        DEMO, redis_url=redis_url, database_url=sqlite, workers=2, environ={"PERPETUO_ADMIN_KEY": ""}
    ) as g:
        lines = [json.loads(line) for line in g.log().splitlines()]
        (key,) = [line["admin_key"] for line in lines if "admin_key" in line]
        for _ in range(8):
            answer = g.get("/admin/api/overview", key)
            assert answer.status_code == 200


def test_healthcheck_and_migrate(redis_url: str, sqlite: str) -> None:
    """The two commands a container runs beside `serve`."""

    def process(command: str, **environ: str) -> int:
        return subprocess.run([PERPETUO, command], env={"PATH": "", **environ}, timeout=300, check=False).returncode

    assert "before: None" in perpetuo("migrate", DATABASE_URL=sqlite).stdout
    assert "as before" in perpetuo("migrate", DATABASE_URL=sqlite).stdout
    assert process("migrate") == 2
    assert perpetuo("migrate", DATABASE_URL="postgresql://x@127.0.0.1:1/x").exit_code == 1
    with LiveGateway(DEMO, redis_url=redis_url, database_url=sqlite) as gateway:
        assert process("healthcheck", PORT=str(gateway.port)) == 0
    assert perpetuo("healthcheck", PORT=str(gateway.port)).exit_code == 1


def test_dev_needs_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    """The printed curl line works as it is printed, events are in the file it names, and Ctrl-C ends it in order."""
    port = str(servers.free_port())
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": port}
    with subprocess.Popen(
        [PERPETUO, "dev"], env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            text = ""
            while "Ctrl-C" not in text:
                line = process.stdout.readline()
                assert line, "it ended"
                text += line
            command = text[text.index("  curl") : text.index("Dashboard")]
            answer = subprocess.run(
                ["sh", "-c", command], capture_output=True, text=True, check=True, timeout=300
            ).stdout
            assert json.loads(answer)["choices"][0]["message"]["content"]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
            assert process.stdout is not None
            rest = process.stdout.read()
    assert '"stopped"' in rest  # by itself, not killed
    assert "Traceback" not in rest
    database = tmp_path / ".local/state/perpetuo/perpetuo.sqlite3"
    assert database.exists()
    assert str(database) in text
