"""
How do the workers live and end together?

    running   a worker that dies is replaced at once (one that keeps dying: after a growing pause)
    SIGHUP    every worker reads the configuration again; nobody is restarted
    draining  SIGTERM or SIGINT: every worker is told to drain and ends by itself when it is done
    stopping  65 s later, or at a second signal: SIGTERM to those still there, 2 s later SIGKILL; exit 0

Rule 1: granian alone would close the listener at SIGTERM and wait for ever for a stalled upload, end with the
first worker that dies twice in 5.5 s, and restart all workers at SIGHUP. `_serve_loop` is where this differs.
Rule 2: signal handlers only note and wake (`Wakeup`): `threading.Event.set` in one can lock up with its own `wait`.
What wakes is in C: Python would run no handler while it waits for one that came as the wait began.
Rule 3: before the first worker has come up nothing is replaced: a start that fails says so and ends, exit 1.
A signal that comes by then ends the start at once: nobody has been served who could wait for an answer.
Rule 4: the nursery may die too. Its workers then look dead from here and are not: they serve until they are replaced,
then finish what they do. The next worker begins a new nursery.
"""

import os
import resource
import select
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

from perpetuo.adapters.telemetry.once import ask_again
from perpetuo.entrypoints.process import rundir
from perpetuo.entrypoints.process.nursery import CONTEXT, give_up_nursery, open_nursery

FINISH_SECONDS = 60.5
"""For calls in flight, after the drain delay: they have 58 s, error events and settlements the rest (O1)."""
KILL_SECONDS = 2
MAX_CONNECTIONS = 16_384
WORKER = "PERPETUO_WORKER"
"""Tells a worker its number, when there are several."""
Load = Callable[[Mapping[str, str]], Callable[..., Awaitable[None]]]
"""Called in the worker with the main process's variables; the application."""
Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Level, event, fields: a line for the operator."""
GRANIAN_LOG = {"loggers": {"_granian": {"handlers": [], "propagate": True}}}
"""What granian has to say goes the way of every other library's log."""


@attrs.frozen
class Launch:
    """What to listen on and with how many."""

    host: str
    port: int
    workers: int
    drain_delay: float | None = 5.0
    """Seconds to go on accepting when told to end; ``None``: no drain, a signal ends at once (a developer's Ctrl-C)."""


class Wakeup:
    """A `threading.Event` for one waiter that a signal handler may set safely: a pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def heed_signals(self) -> None:
        """Be set by every signal that has a handler, in the instant it comes, whichever thread the kernel gives it."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def set(self) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass  # full of reasons to wake up already

    def wait(self, seconds: float | None = None) -> None:
        """Return when set, or after ``seconds``; what was set before counts, and is used up."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4096)


@attrs.define
class Respawn:
    """When may the worker of one place be started again?"""

    deaths: int = 0
    due: float | None = None

    def died(self, now: float, lived: float) -> None:
        """At once after a life of 10 s; else after 0, 0.5, 1, 2, then every 4 s."""
        self.deaths = 1 if lived >= 10 else self.deaths + 1
        self.due = now + (0 if self.deaths == 1 else min(0.25 * 2 ** (self.deaths - 1), 4.0))


class GatewayServer(MPServer):
    """Granian's multi-process server with our way of draining, reloading and replacing workers."""

    def __init__(self, launch: Launch, load: Load, tell: Tell) -> None:
        super().__init__(
            "perpetuo",
            address=launch.host,
            port=launch.port,
            interface=Interfaces.ASGI,
            workers=launch.workers,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            websockets=False,
            backlog=2048,
            backpressure=connections_allowed(),
            # doubles as the keep-alive limit: has to be longer than a load balancer's (60 s is granian's most)
            http1_settings=HTTP1Settings(header_read_timeout=60_000),
            log_level=LogLevels.error,
            log_dictconfig=GRANIAN_LOG,
            workers_kill_timeout=KILL_SECONDS,
        )
        self.launch = launch
        self.main_loop_interrupt: Wakeup = Wakeup()  # type: ignore[assignment]
        self.stop_signals = 0
        self._run_dir: Path | None = None
        self._load = load
        self._tell = tell
        self._respawns = {place: Respawn() for place in range(launch.workers)}

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        self.main_loop_interrupt.heed_signals()
        for number in (signal.SIGINT, signal.SIGTERM):  # granian does so too, later
            signal.signal(number, self.signal_handler_interrupt)
        open_nursery()
        with rundir.made() as self._run_dir:
            try:
                self.serve(target_loader=self._load, wrap_loader=False)
            except SystemExit as ended:
                return int(ended.code or 0)
        return 0

    # ------------------------------------------------- what granian calls

    def signal_handler_interrupt(self, *_: Any, **__: Any) -> None:
        self.interrupt_signal = True
        self.stop_signals += 1
        self.main_loop_interrupt.set()

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> WorkerProcess:  # type: ignore[override]
        """As granian makes it, but from the nursery; granian itself only knows "fork" and "spawn"."""
        open_nursery()  # another, should it have been killed
        number = {WORKER: str(idx + 1)} if self.launch.workers > 1 else {}
        worker = super()._spawn_worker(idx, target, partial(callback_loader, {**os.environ, **number}))
        made = worker.inner
        worker.inner = CONTEXT.Process(name=made.name, target=made._target, args=made._args)
        return worker

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        while not self.interrupt_signal:
            self.main_loop_interrupt.wait(self._next_due())
            if self.reload_signal:
                self.reload_signal = False
                ask_again(self._run_dir)
                self._tell("info", "config_reload_asked", {"signal": "SIGHUP"})
                self._signal_workers(signal.SIGUSR2)
            self._note_deaths()
            if not self.came_up and self.interrupt_children:
                return  # `shutdown` turns the dead child into exit 1
            self._replace(spawn_target, target_loader)
        self._end_workers()

    # ------------------------------------------------------------- parts

    @property
    def came_up(self) -> bool:
        """Has any worker got through its start?"""
        return self._run_dir is not None and (self._run_dir / rundir.CAME_UP).exists()

    def _note_deaths(self) -> None:
        if not self.came_up:
            return
        now = time.monotonic()
        while self.interrupt_children:
            place = self.interrupt_children.pop()
            worker: WorkerProcess = self.wrks[place]
            self._respawns[place].died(now, now - worker.birth)
            cause = f"exit code {worker.inner.exitcode}"
            self._tell("error", "worker_died", {"worker": place + 1, "pid": worker._id(), "cause": cause})

    def _replace(self, spawn_target: Any, target_loader: Any) -> None:
        for place, respawn in self._respawns.items():
            if respawn.due is None or respawn.due > time.monotonic() or self.interrupt_signal:
                continue
            respawn.due = None
            try:
                worker = self._spawn_worker(place, spawn_target, target_loader)
                worker.start()
            except (OSError, EOFError) as broken:  # dying, perhaps: that shows before a dead child can be waited for
                give_up_nursery()
                respawn.died(time.monotonic(), 0.0)
                self._tell("warning", "worker_not_replaced", {"worker": place + 1, "cause": repr(broken)})
                continue
            self.wrks[place] = worker  # lets go of the one before, which leaves now if it only seemed dead
            self._tell("info", "worker_replaced", {"worker": place + 1, "pid": worker._id()})

    def _next_due(self) -> float | None:
        dues = [respawn.due for respawn in self._respawns.values() if respawn.due is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _end_workers(self) -> None:
        """Wait until every worker has left; whoever has not in time is stopped by `shutdown`."""
        for worker in self.wrks:
            worker.interrupt_by_parent = True  # its end is no accident now
        self.interrupt_children.clear()
        if not self.came_up:
            for worker in self.wrks:
                worker.kill()
        elif self.launch.drain_delay is None:
            self._tell_until_gone(signal.SIGTERM, KILL_SECONDS)  # twice: now
        else:
            most = self.launch.drain_delay + FINISH_SECONDS
            self._tell("info", "stopping", {"drain_seconds": most})
            if not self._tell_until_gone(signal.SIGUSR1, most):
                self._tell("warning", "drain_cut_short", {"meaning": "calls still in flight are broken off"})

    def _tell_until_gone(self, number: signal.Signals, seconds: float) -> bool:
        """Again and again, as a signal that comes between two runs of a worker's loop is lost; are they all gone?"""
        deadline = time.monotonic() + seconds
        while any(worker.is_alive() for worker in self.wrks):
            if time.monotonic() >= deadline or self.stop_signals > 1:
                return False
            self._signal_workers(number)
            self.main_loop_interrupt.wait(0.1)
        return True

    def _signal_workers(self, number: signal.Signals) -> None:
        for worker in self.wrks:
            if worker.is_alive() and (pid := worker._id()) is not None:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # ended in this instant


def connections_allowed() -> int:
    """
    Connections a worker takes at once; further ones wait in the backlog.

    Idle keep-alives and open streams count too, so this is generous: half of the descriptors, as a
    call needs one to the provider as well. Raises this process's own limit as far as it may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = 2 * MAX_CONNECTIONS + 256
        soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(16, min(MAX_CONNECTIONS, (soft - 256) // 2))
    return MAX_CONNECTIONS
