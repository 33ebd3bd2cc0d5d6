"""O1, O5, T7, T8: do the processes of one server live, reload and end as promised?"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TypeVar

import attrs
import pytest

from tests import servers
from tests.patience import PATIENCE, best
from tests.servers import free_port

T = TypeVar("T")


class Running:
    """A small gateway in its own processes."""

    def __init__(self, workers: int, **environ: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "tests.integration.ops.small_gateway", str(self.port), str(workers)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and text, on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def up(self, workers: int) -> set[int]:
        """Wait until so many workers answer; their pids."""
        return self.eventually(lambda: found if len(found := self.workers()) >= workers else None)

    def workers(self) -> set[int]:
        pids = set()
        for _ in range(16):
            try:
                pids.add(int(self.get("/")[1]))
            except (OSError, HTTPException):
                pass
        return pids

    def eventually(self, look: Callable[[], T | None], seconds: float = 60) -> T:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            time.sleep(0.05)
        raise AssertionError("did not happen in time")

    def newer_than(self, known: set[int]) -> set[int]:
        """Wait until two workers answer, one of them new."""
        return self.eventually(lambda: found if len((found := self.workers()) - known) > 0 < len(found) - 1 else None)

    def two_others(self, known: set[int]) -> None:
        """Wait until two workers answer that are new."""
        self.eventually(lambda: True if len(self.workers() - known) == 2 else None)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@attrs.frozen
class Call:
    """A call that the gateway is working on, until `end`."""

    answer: Future[tuple[int, str]]
    file: Path

    def end(self) -> int:
        """Its status."""
        self.file.touch()
        return self.answer.result()[0]


@contextmanager
def in_flight(server: Running, directory: Path) -> Iterator[Call]:
    """One has begun, and has not ended."""
    file = directory / "slow"
    with ThreadPoolExecutor(1) as thread:
        try:
            answer = thread.submit(server.get, f"/slow?{file}")
            server.eventually(lambda: file.with_suffix(".begun").exists() or None)
            yield Call(answer, file)
        finally:
            file.touch()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def make(workers: int = 2, **environ: str) -> Running:
        running.append(Running(workers, **environ))
        return running[-1]

    yield make
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_o1_a_call_in_flight_finishes_while_ready_is_503(start: Callable[..., Running], tmp_path: Path) -> None:
    """SIGTERM, to all as from systemd: not ready at once, still accepting, the call in flight is answered, exit 0."""
    server = start()
    server.up(2)
    with in_flight(server, tmp_path) as slow:
        os.killpg(server.process.pid, signal.SIGTERM)
        server.eventually(lambda: True if server.get("/ready")[0] == 503 else None)
        assert slow.end() == 200
    assert server.process.wait(PATIENCE) == 0


def test_o1_a_stalled_upload_cannot_hold_the_server(start: Callable[..., Running], tmp_path: Path) -> None:
    """Whoever has not finished when the drain is over is cut off, and the exit status is still 0."""
    server = start(workers=1, SMALL_DRAIN="5")
    server.up(1)
    with socket.create_connection(("127.0.0.1", server.port)) as upload:
        upload.sendall(f"POST /upload?{tmp_path}/up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
        server.eventually(lambda: (tmp_path / "up.begun").exists() or None)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)  # a second one does not wait for the rest of the 65 s
        assert server.process.wait(PATIENCE) == 0


def test_o1_no_process_and_no_directory_stays_behind(start: Callable[..., Running], tmp_path: Path) -> None:
    """A main process killed outright takes its workers along, as soon as their calls in flight are answered."""
    server = start()
    pids = server.up(2)
    with in_flight(server, tmp_path) as slow:
        server.process.kill()
        server.process.wait()
        assert slow.end() == 200
    server.eventually(lambda: None if any(alive(pid) for pid in pids) else True)


def test_o5_a_killed_worker_is_replaced_and_nobody_else_notices(start: Callable[..., Running]) -> None:
    """Kill the same place again and again: the other worker stays, and there are two again within 5 s."""
    server = start()
    known = server.up(2)
    stays = max(known)

    def back() -> float:
        victims = server.up(2) - {stays}
        killed = time.monotonic()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        after = server.newer_than(known)
        took = time.monotonic() - killed
        assert stays in after
        known.update(after)
        return took

    back()
    best(5, back)
    assert server.stop() == 0


def test_o5_a_killed_nursery_does_not_take_the_gateway_along(start: Callable[..., Running], tmp_path: Path) -> None:
    """What workers are forked from is killed: its own finish what they do, others from a new one take their place."""
    server = start()
    before = server.up(2)
    (nursery,) = {int(servers._read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1]) for pid in before}
    with in_flight(server, tmp_path) as slow:
        os.kill(nursery, signal.SIGKILL)
        server.two_others(before)
        assert slow.end() == 200
    assert server.stop() == 0


def test_o5_a_nursery_that_nobody_reaches_is_replaced(start: Callable[..., Running], tmp_path: Path) -> None:
    """Its socket went with the temporary files that somebody tidied up: a killed worker is replaced all the same."""
    server = start(TMPDIR=str(tmp_path))
    before = server.up(2)
    (socket_file,) = tmp_path.glob("pymp-*/*")
    socket_file.unlink()
    os.kill(min(before), signal.SIGKILL)
    server.two_others(before)
    assert server.stop() == 0


def test_sighup_reloads_in_process(start: Callable[..., Running]) -> None:
    """No worker is restarted for a new configuration."""
    server = start(workers=1)
    pids = server.up(1)
    server.process.send_signal(signal.SIGHUP)
    server.eventually(lambda: True if server.get("/config")[1] == "1" else None)
    assert server.workers() == pids


def test_ctrl_c_reaches_workers_only_through_the_main_process(start: Callable[..., Running], tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group; the workers drain all the same."""
    server = start(workers=1)
    (pid,) = server.up(1)
    assert servers.gateway_workers(server.process.pid) == [pid]
    with in_flight(server, tmp_path) as slow:
        os.kill(pid, signal.SIGINT)
        server.process.send_signal(signal.SIGINT)
        assert server.get("/ready")[0] in (200, 503)
        assert slow.end() == 200
    assert server.process.wait(PATIENCE) == 0


def test_o1_a_signal_that_does_not_interrupt_the_wait_is_heard(start: Callable[..., Running]) -> None:
    """
    One that comes as the main process begins to wait interrupts nothing, and Python would only look after the wait.

    That moment is long on a single core, where whoever else runs may come in between. A signal that another thread
    takes is as unheard as that, every time.
    """
    server = start()
    server.up(2)
    threads = {int(path.name) for path in Path(f"/proc/{server.process.pid}/task").iterdir()}
    other = max(threads - {server.process.pid})
    assert ctypes.CDLL(None).tgkill(server.process.pid, other, signal.SIGTERM) == 0
    assert server.process.wait(PATIENCE) == 0


def test_a_start_that_fails_ends_with_1(start: Callable[..., Running]) -> None:
    """No endless respawning of workers that never came up."""
    server = start(SMALL_BROKEN="1")
    assert server.process.wait(PATIENCE) == 1


def test_the_management_port_is_another_application_in_the_same_workers(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    """Both listeners see the same state; calls in flight on one are known on the other; both end together."""
    port = free_port()
    server = start(workers=1, SMALL_MANAGEMENT=str(port))
    (pid,) = server.up(1)
    assert server.get("/", port)[1] == f"management of {pid}, 0 in flight"
    assert server.get("/")[1] == str(pid)
    with in_flight(server, tmp_path) as slow:
        assert "1 in flight" in server.get("/", port)[1]
        idle = HTTPConnection("127.0.0.1", port)
        idle.request("GET", "/")
        idle.getresponse().read()
        server.process.send_signal(signal.SIGTERM)
        assert server.get("/", port)[0] == 200
        assert slow.end() == 200
    assert server.process.wait(PATIENCE) == 0
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        server.get("/", port)


def test_the_management_port_is_served_by_all_workers(start: Callable[..., Running]) -> None:
    """A dead worker takes no listener along that others don't have."""
    port = free_port()
    server = start(workers=2, SMALL_MANAGEMENT=str(port))
    server.up(2)
    os.kill(min(server.workers()), signal.SIGKILL)
    for _ in range(8):
        server.eventually(lambda: _text(server, port))


def _text(server: Running, port: int) -> str | None:
    try:
        return server.get("/", port)[1]
    except (OSError, HTTPException):
        return None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_o1_a_stop_during_the_start_does_not_wait(start: Callable[..., Running]) -> None:
    """A worker that had not come up when it was told to drain ends as soon as it has."""
    server = start(workers=2)
    server.up(1)
    os.kill(server.workers().pop(), signal.SIGKILL)  # its successor is starting now
    time.sleep(0.2)
    assert server.stop() == 0
