"""
What does a worker process do beside answering requests?

It obeys its main process:

    SIGUSR1   drain: not ready at once, finish what is in flight, then end (`serve` sends it first)
    SIGUSR2   read the configuration again, in this process
    SIGINT    nothing: Ctrl-C reaches the whole group, but only the main process decides
    SIGTERM   (granian's) close the listener, finish what is in flight, end

Rule 1: the main process ignores SIGUSR1 and SIGUSR2, and a worker inherits that; so neither can kill a worker
that has not come to `obey` yet.
Rule 2: a worker does not outlive its main process.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from perpetuo.entrypoints.process import rundir

Hook = Callable[[], Coroutine[Any, Any, None]]

NAME = "perpetuo-worker"
"""What ``ps -o comm`` shows: `multiprocessing` gives all its processes the same command line."""
AGAIN_SECONDS = 0.5
ORPHAN_SECONDS = 60.0
"""For calls in flight in a worker whose main process is gone."""
_tasks: set[asyncio.Task[None]] = set()


def load_gateway(environ: Mapping[str, str]) -> Callable[..., Awaitable[None]]:
    """What granian runs in each worker: the application, in a process that has the main one's variables."""
    begin(environ)
    from perpetuo.entrypoints.http.app import create  # noqa: PLC0415 - the main process never needs it

    return create()


def begin(environ: Mapping[str, str]) -> None:
    """First thing in a worker: take over the main process's variables and a name of its own, and end when it does."""
    os.environ.clear()
    os.environ.update(environ)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal tells the whole group; the main process decides
    with suppress(OSError):  # only Linux has it
        Path("/proc/self/comm").write_text(NAME)
    leave_with_parent()


def obey(run_dir: Path | None, drain: Hook, reload: Hook) -> None:
    """
    Answer the main process's signals; call it in the running loop, at the application's start.

    ``drain`` returns when the worker has nothing more to do; the worker then ends itself.
    Without a run directory (tests, another server) there is no main process to obey.
    """
    if run_dir is None:
        return
    (run_dir / rundir.CAME_UP).touch()
    loop = asyncio.get_running_loop()

    async def drain_and_end() -> None:
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)  # it is sent again and again
        try:
            await drain()
        finally:
            signal.raise_signal(signal.SIGTERM)

    loop.add_signal_handler(signal.SIGUSR1, _start, drain_and_end)
    loop.add_signal_handler(signal.SIGUSR2, _start, reload)
    loop.add_signal_handler(signal.SIGINT, lambda: None)


def _start(hook: Hook) -> None:
    task = asyncio.get_running_loop().create_task(hook())
    _tasks.add(task)  # the loop itself holds tasks only weakly
    task.add_done_callback(_tasks.discard)


def leave_with_parent() -> None:
    """End when the main process has ended, even by SIGKILL: nobody else would stop this worker."""
    parent = multiprocessing.parent_process()  # the main one, though the nursery has forked us
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: Any) -> None:
    parent.join()
    until = time.monotonic() + ORPHAN_SECONDS
    while time.monotonic() < until:
        os.kill(os.getpid(), signal.SIGTERM)  # again and again: granian loses one that comes while it starts
        time.sleep(AGAIN_SECONDS)
    os._exit(1)
