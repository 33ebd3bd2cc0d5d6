"""O1: what is left, and what is said, when a server is told to end (or is killed) before it has properly started?"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.live import LiveGateway, config_text, eventually
from tests.servers import free_port, gateway_workers

PERPETUO = str(Path(sys.executable).with_name("perpetuo"))
SMALL = [sys.executable, "-m", "tests.integration.ops.small_gateway"]
DEMO = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: m}], free: true}",
    more="server: {drainDelay: 0s}",
)
ENDS = (0, -signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT)
"""How it may say that it was told to; by the signal itself, with Python's own traceback, only before our first line."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command as the leader of a session of its own; what is left of that is killed afterwards."""
    started: list[subprocess.Popen[str]] = []

    def run(*command: str, **environ: str) -> subprocess.Popen[str]:
        log = (tmp_path / "log").open("a")
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environ}
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, text=True, start_new_session=True)
        started.append(process)
        return process

    yield run
    for process in started:
        kill_all(process.pid)
        process.wait()


def session(leader: int) -> list[int]:
    """Pids of all living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has just ended
        if int(number) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def kill_all(leader: int) -> None:
    for pid in session(leader):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)


def all_gone(process: subprocess.Popen[str]) -> bool:
    process.poll()
    return not session(process.pid)


def small(start: Start, **environ: str) -> subprocess.Popen[str]:
    """A small gateway with two workers, seen as soon as the first of them exists."""
    process = start(*SMALL, str(free_port()), "2", **environ)
    eventually(lambda: gateway_workers(process.pid), every=0.01)
    return process


@pytest.mark.parametrize("slow", ["SMALL_BEFORE", "SMALL_AFTER"])
def test_o1_a_main_process_killed_during_the_start_takes_its_workers_along(start: Start, slow: str) -> None:
    """Whether or not they obey signals by then; they stayed for ever, locked up by a second signal."""
    process = small(start, **{slow: "1"})
    process.kill()
    eventually(lambda: all_gone(process))


def test_o1_the_whole_group_told_to_end_during_the_start_ends(start: Start, tmp_path: Path) -> None:
    """As systemd does it. The nursery died of it, so the main process thought its workers dead and left them behind."""
    process = small(start, SMALL_AFTER="1")
    os.killpg(process.pid, signal.SIGTERM)
    eventually(lambda: all_gone(process))
    assert process.wait() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("command", "seconds"), [("serve", 0.0), ("dev", 0.4)])
def test_o1_ctrl_c_during_the_start_is_a_quiet_end(start: Start, tmp_path: Path, command: str, seconds: float) -> None:
    """In the imports of the main process, and in those of the nursery: a line at most, and no traceback."""
    log = tmp_path / "log"

    def in_time() -> bool:
        """False: it had begun to speak before it heard of the end, so that was not during its start."""
        log.unlink(missing_ok=True)
        environ = {"PORT": str(free_port()), "DATABASE_URL": "sqlite:///events.db", "REDIS_URL": "memory://"}
        process = start(PERPETUO, command, **environ)
        eventually(lambda: len(session(process.pid)) > 1, every=0.01)  # the interpreter has come to our first lines
        time.sleep(seconds)
        spoke = bool(log.read_text())
        os.killpg(process.pid, signal.SIGINT)
        eventually(lambda: all_gone(process))
        assert process.wait() in (0, 128 + signal.SIGINT)
        assert "Traceback" not in log.read_text()
        return not spoke and log.read_text().split() in ([], ["Interrupted", "before", "it", "had", "started."])

    assert any(in_time() for _ in range(5))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["kill", "group-term", "group-int", "term"])
def test_o1_nothing_stays_whenever_the_start_is_ended(how: str, redis_url: str, tmp_path: Path) -> None:
    """Twenty starts, each ended at a random moment of its first three seconds: no process stays, no traceback comes."""
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    for number in range(20):
        gateway = LiveGateway(DEMO, redis_url=redis_url, database_url=f"sqlite:///{tmp_path}/{number}.db", workers=2)
        gateway.start(wait=False)
        assert gateway.process is not None
        time.sleep(moments.uniform(0, 3))
        try:
            _end(gateway.process, how)
            assert how == "kill" or gateway.process.returncode in ENDS, gateway.log()
            assert "Traceback" not in gateway.log() or "perpetuo/entrypoints" not in gateway.log()
        finally:
            kill_all(gateway.process.pid)


def _end(process: subprocess.Popen[bytes], how: str) -> None:
    """End it, and wait until nothing of it is left."""
    match how:
        case "kill":
            process.kill()
        case "term":
            process.terminate()
        case "group-term":
            os.killpg(process.pid, signal.SIGTERM)
        case _:
            os.killpg(process.pid, signal.SIGINT)
    eventually(lambda: process.poll() is not None and not session(process.pid))
