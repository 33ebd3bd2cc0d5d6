"""Does the kernel cut clients that take nothing? (S5; in real time: faults/test_slow_clients.py)"""

import asyncio
import errno
import fcntl
import socket
import sys
from pathlib import Path

import pytest

from perpetuo.entrypoints.process.stalled import cut_stalled
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux cuts stalled connections"),
]


async def test_s5_connections_of_a_listener_that_comes_later_are_cut_when_they_stall() -> None:
    """What the kernel does with a client that reads nothing, with a second instead of 30."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        await asyncio.wait_for(cut_stalled({listener.getsockname()[1]}, 1.0), PATIENCE)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            with pytest.raises(TimeoutError) as cut:
                await asyncio.wait_for(_send_for_ever(server), PATIENCE)
            assert cut.value.errno == errno.ETIMEDOUT  # the kernel's, not the test's


async def _send_for_ever(server: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(server, b"x" * 65_536)


async def test_s5_listeners_are_waited_for() -> None:
    """Granian listens only after the application's start; sockets of others are left alone."""
    with socket.socket() as later, socket.create_server(("127.0.0.1", 0)) as other:
        later.bind(("127.0.0.1", 0))
        looking = asyncio.create_task(cut_stalled({later.getsockname()[1]}, 1.0))
        await asyncio.sleep(0.1)
        assert not looking.done()
        later.listen()
        await asyncio.wait_for(looking, PATIENCE)
        assert later.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1_000
        assert other.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_a1_looking_for_listeners_leaves_the_locks_of_files_alone(tmp_path: Path) -> None:
    """Rows in SQLite were lost: with its locks gone, whoever read the file last deleted the log under the gateway."""
    file = tmp_path / "locked"
    file.write_bytes(b"x")
    asking = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with file.open("r+b") as held, socket.create_server(("127.0.0.1", 0)) as listener:
        fcntl.lockf(held, fcntl.LOCK_EX)
        await asyncio.wait_for(cut_stalled({listener.getsockname()[1]}, 1.0), PATIENCE)
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", asking, file, stderr=asyncio.subprocess.PIPE)
        _, said = await other.communicate()
    assert b"BlockingIOError" in said
