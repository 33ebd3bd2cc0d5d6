"""
How does a worker start at once?

Importing the application takes longer than anything else in a start. So one process, the *nursery*
(`multiprocessing`'s fork server), imports it a single time, beside the main process that meanwhile reads the
configuration; every worker is forked from it, within milliseconds, also the one that replaces a dead one.

Rule 1: the nursery has one thread and no connections; the main process, which has threads, is never forked.
Rule 2: it is started before the environment is complete, so a worker is handed the environment.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import forkserver

CONTEXT = multiprocessing.get_context("forkserver")
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
"""The main process ignores what it sends to workers, and they inherit that: none can die of it while it starts."""


GATEWAY = ("perpetuo.entrypoints.http.app", "perpetuo.entrypoints.process.worker", "uvloop")


def open_nursery(imports: Sequence[str] = GATEWAY) -> None:
    """Start importing, in the background; does nothing when it has been done."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    CONTEXT.set_forkserver_preload([*imports])
    forkserver.ensure_running()
