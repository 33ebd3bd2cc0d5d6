"""
What does a worker process do beside answering requests?

It obeys its main process:

    SIGUSR1   drain: not ready at once, finish what is in flight, then end (`serve` sends it first)
    SIGUSR2   read the configuration again, in this process
    SIGTERM   drain as well: whoever tells the whole group (systemd) does no harm; while draining: end now
    SIGINT    nothing: Ctrl-C reaches the whole group, but only the main process decides

Rule 1: all of them are blocked from a worker's first instruction (the nursery's doing) until `obey`; so none can
kill it or be lost while it starts.
Rule 2: a worker does not outlive its main process: with calls in flight it ends when they have, at once if it has
not come to `obey` yet.
Rule 3: granian is told to end a single time. Its signal is a channel with room for one; whoever sends another while
it starts or finishes calls waits for ever, and holds the interpreter's lock: nothing but SIGKILL would end that
worker. SIGINT is how granian is told, and stays blocked until then.
"""

import asyncio
import gc
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
from perpetuo.entrypoints.process.nursery import FOR_MAIN, FOR_WORKERS

Hook = Callable[[], Coroutine[Any, Any, None]]

NAME = "perpetuo-worker"
"""What ``ps -o comm`` shows: `multiprocessing` gives all its processes the same command line."""
AGAIN_SECONDS = 0.2
ORPHAN_SECONDS = 60.0
"""For calls in flight in a worker whose main process is gone."""
_tasks: set[asyncio.Task[None]] = set()
_obeying = threading.Event()
_orphaned = threading.Event()


def load_gateway(environ: Mapping[str, str]) -> Callable[..., Awaitable[None]]:
    """What granian runs in each worker: the application, in a process that has the main one's variables."""
    begin(environ)
    gc.disable()  # until everything is made (`Worker.ready`): before, it would find nothing, and often look
    from perpetuo.entrypoints.http.app import create  # noqa: PLC0415 - the main process never needs it

    return create()


def begin(environ: Mapping[str, str]) -> None:
    """First thing in a worker: take over the main process's variables and a name of its own, and end when it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FOR_MAIN | FOR_WORKERS)
    os.environ.clear()
    os.environ.update(environ)
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
    loop, ending = asyncio.get_running_loop(), Ending(drain)
    loop.add_signal_handler(signal.SIGUSR1, ending.begin)
    loop.add_signal_handler(signal.SIGUSR2, _start, reload)
    loop.add_signal_handler(signal.SIGTERM, ending.hasten)
    _obeying.set()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*FOR_WORKERS, signal.SIGTERM})


class Ending:
    """How this worker ends: once, after its drain, or at once when it is told again or has lost its main process."""

    def __init__(self, drain: Hook) -> None:
        self._drain = drain
        self._begun = False
        self._over = False

    def begin(self) -> None:
        """Drain, then end; the main process says so again and again."""
        if not self._begun:
            self._begun = True
            _start(self._drain_and_end)

    def hasten(self) -> None:
        if self._begun or _orphaned.is_set():
            self.end()
        else:
            self.begin()

    async def _drain_and_end(self) -> None:
        try:
            await self._drain()
        finally:
            self.end()

    def end(self) -> None:
        """Tell granian: it closes the listener, waits for what is in flight, and runs the application's shutdown."""
        if self._over:
            return
        self._over = True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


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
    _orphaned.set()
    until = time.monotonic() + ORPHAN_SECONDS
    while _obeying.is_set() and time.monotonic() < until:
        os.kill(os.getpid(), signal.SIGTERM)  # again and again: one that comes between two runs of the loop is lost
        time.sleep(AGAIN_SECONDS)
    os._exit(1)
