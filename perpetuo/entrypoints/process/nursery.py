"""
How does a worker start at once?

Importing the application takes longer than anything else in a start. So one process, the *nursery*
(`multiprocessing`'s fork server), imports it a single time, beside the main process that meanwhile reads the
configuration; every worker is forked from it, within milliseconds, also the one that replaces a dead one.

Rule 1: the nursery has one thread and no connections; the main process, which has threads, is never forked.
Rule 2: it is started before the environment is complete, so a worker is handed the environment.
Rule 3: no signal ends it. Ctrl-C, a closed terminal and systemd tell the whole group; a nursery that obeyed would
take the main process's sight of its workers along. It ends when the main process and all workers have.
Rule 4: the signals it blocks are blocked in a worker from its first instruction, until the worker can obey them.
Rule 5: what the main process would import a second time for a single question is asked there (`ask_nursery`).
Rule 6: one that can't be reached (it was killed, or its socket in the folder of temporary files was tidied up) is given
up, and the next worker comes from another.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CONTEXT = multiprocessing.get_context("forkserver")
FOR_MAIN = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""What an operator tells the server; the main process goes by it, and tells the workers."""
FOR_WORKERS = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""What the main process tells workers; it is deaf to them itself."""
GATEWAY = ("perpetuo.entrypoints.process.cradle",)


def open_nursery(imports: Sequence[str] = GATEWAY) -> None:
    """Start importing, in the background; does nothing while there is one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FOR_WORKERS)
    resource_tracker.ensure_running()  # unblocks some of them again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_MAIN)
    try:
        CONTEXT.set_forkserver_preload([*imports])
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ask_nursery(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What ``function`` of a module returns in a process that has everything imported; in this one if there is none."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    asked = CONTEXT.Process(target=_answer, args=(theirs, partial(function, *arguments, **named)))
    try:
        asked.start()
        theirs.close()
        answer: T = ours.recv()
        asked.join()
    except (OSError, EOFError):
        return function(*arguments, **named)
    return answer


def _answer(pipe: "Connection[Any, Any]", function: Callable[[], object]) -> None:
    with suppress(OSError):  # whoever asked was told to end
        pipe.send(function())


def give_up_nursery() -> None:
    """End it, whatever state it is in. From then on its workers look dead from here, though they are not."""
    nursery: Any = vars(forkserver)["_forkserver"]  # Python has no public way to end it
    with suppress(OSError):
        if nursery._forkserver_pid is not None:
            os.kill(nursery._forkserver_pid, signal.SIGKILL)
        nursery._stop()
